//! The metrics, scraped from the real agent: by hand, by promtool, and by a Prometheus of the distribution's.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a broken assumption is a failure")]

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reaper_tests::agent::{Agent, run_command, run_to_end};
use reaper_tests::config::Config;
use reaper_tests::drill::env;
use reaper_tests::process::{PATIENCE, Proc, Signal, comes_true, wait_until};
use reaper_tests::scene::Scene;
use reaper_tests::script::{Op, worker, worker_doing};
use serde_json::Value;

/// How long Prometheus may take to start and scrape: it shares the machine.
const SLOW: Duration = Duration::from_secs(60);

/// An address of this host that was free a moment ago.
fn free() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// The body of an answer with status 200; `None` if there is none.
fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200 ").then(|| body.to_owned())
}

/// Waits until a line is on the page, and returns the page.
#[track_caller]
fn page_with(address: SocketAddr, line: &str) -> String {
    let mut page = String::new();
    let there = comes_true(PATIENCE, || {
        page = get(address, "/metrics").unwrap_or_default();
        page.lines().any(|l| l == line)
    });
    assert!(there, "not on the page: {line}\n{page}");
    page
}

fn value(page: &str, name: &str) -> f64 {
    let line = page.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' ')).map(str::to_owned);
    line.unwrap_or_else(|| panic!("no {name} in\n{page}")).parse().unwrap()
}

/// An agent whose page can be read, and where.
fn agent(scene: &Scene) -> (Agent, SocketAddr) {
    let address = free();
    let config = Config::new(scene).agent(&format!("metrics = \"{address}\""));
    (Agent::start(scene, &config), address)
}

/// promtool must have nothing to say about the page.
fn assert_promtool_likes(page: &str) {
    let promtool = env::program("promtool", "prometheus").unwrap();
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty() && output.stdout.is_empty(), "{said}\n{page}");
}

#[test]
fn the_page_tells_what_the_log_tells() {
    let scene = Scene::new();
    let (agent, address) = agent(&scene);
    let busy = worker_doing("busy", [Op::Busy(60_000), Op::Forever]);
    let master = scene.spawn("master", [worker("w"), busy, Op::Forever]);
    let (w, busy) = (scene.proc("w"), scene.proc("busy"));
    agent.knows_master(&master);
    page_with(address, "reaper_masters{group=\"g\"} 1");
    master.kill();
    agent.wait_reaped(&w);
    agent.wait("busy", &busy);
    let page = page_with(address, "reaper_orphans{group=\"g\",verdict=\"busy\"} 1");
    for line in [
        "reaper_masters{group=\"g\"} 0",
        "reaper_armed{group=\"g\"} 1",
        "reaper_enforcing{group=\"g\"} 1",
        "reaper_breaker_open{group=\"g\"} 0",
        "reaper_orphaned_total{group=\"g\",stray=\"false\"} 2",
        "reaper_signals_total{group=\"g\",signal=\"TERM\",step=\"0\",dry_run=\"false\"} 1",
        "reaper_reaped_total{group=\"g\",signal=\"TERM\"} 1",
        "reaper_gone_since_orphaned_seconds_count{group=\"g\"} 1",
        "reaper_tree_complete 1",
        "reaper_log_failing 0",
        "reaper_log_records_lost_total 0",
    ] {
        assert!(page.lines().any(|l| l == line), "not on the page: {line}\n{page}");
    }
    assert!(value(&page, "reaper_processes") > 2.0, "{page}");
    assert!(value(&page, "reaper_events_total{kind=\"exit\"}") >= 2.0, "{page}");
    assert_promtool_likes(&page);
    let records = agent.stop();
    for kind in ["master_found", "master_lost", "orphaned", "signal", "reaped"] {
        let written = records.iter().filter(|r| r.kind() == kind).count();
        let told = value(&page, &format!("reaper_records_total{{kind=\"{kind}\"}}"));
        assert!((told - written as f64).abs() < 0.5, "{kind}: {told}, and {written} in the log");
    }
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
}

/// People who connect and say nothing do not keep the agent from its work.
#[test]
fn silent_clients_hinder_nobody() {
    let scene = Scene::new();
    let (agent, address) = agent(&scene);
    let mut silent: Vec<_> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
    for stream in &mut silent {
        stream.write_all(b"GET /metrics HTTP/1.1\r\n").unwrap();
    }
    let master = scene.spawn("master", [worker("w"), Op::Forever]);
    let w = scene.proc("w");
    agent.knows_master(&master);
    master.kill();
    agent.wait_reaped(&w);
    page_with(address, "reaper_reaped_total{group=\"g\",signal=\"TERM\"} 1");
    agent.stop();
}

#[test]
fn an_address_that_is_taken_keeps_the_agent_from_starting() {
    let scene = Scene::new();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let config = Config::new(&scene).agent(&format!("metrics = \"{address}\""));
    let outcome = run_to_end(&scene, &mut run_command(&scene, &config, &[]), PATIENCE);
    assert_eq!(outcome.status.code(), Some(2), "{outcome:?}");
    let wanted = format!("cannot serve metrics on {address}");
    assert!(outcome.stderr.contains(&wanted) && outcome.stderr.contains("in use"), "{outcome:?}");
}

#[test]
fn the_alerts_are_rules() {
    let promtool = env::program("promtool", "prometheus").unwrap();
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/prometheus/reaper-alerts.yml");
    let output = Command::new(promtool).args(["check", "rules"]).arg(rules).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// A Prometheus that scrapes one agent. It ends with this.
struct Prometheus {
    child: Child,
    address: SocketAddr,
}

impl Prometheus {
    fn start(scene: &Scene, target: SocketAddr) -> Self {
        let program = env::program("prometheus", "prometheus").unwrap();
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/prometheus/reaper-alerts.yml");
        let config = scene.path("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
             rule_files: [{:?}]\n\
             scrape_configs:\n- job_name: reaper\n  static_configs: [{{targets: [\"{target}\"]}}]\n",
            fs::canonicalize(rules).unwrap()
        );
        fs::write(&config, text).unwrap();
        let address = free();
        let child = Command::new(program)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", scene.path("tsdb").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(scene.path("prometheus.stderr")).unwrap())
            .spawn()
            .unwrap();
        Self { child, address }
    }

    /// The first value of a query without spaces; `None` if there is none (yet).
    fn query(&self, query: &str) -> Option<String> {
        let body = get(self.address, &format!("/api/v1/query?query={query}"))?;
        // A chunked body has lengths around it.
        let json = body.get(body.find('{')?..=body.rfind('}')?)?;
        let answer: Value = serde_json::from_str(json).ok()?;
        answer.pointer("/data/result/0/value/1")?.as_str().map(str::to_owned)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        Proc::of_child(&self.child).unwrap().signal(Signal::KILL);
        self.child.wait().unwrap();
    }
}

#[test]
fn prometheus_scrapes_it() {
    let scene = Scene::new();
    let (agent, address) = agent(&scene);
    let prometheus = Prometheus::start(&scene, address);
    let master = scene.spawn("master", [worker("w"), Op::Forever]);
    let w = scene.proc("w");
    agent.knows_master(&master);
    master.kill();
    agent.wait_reaped(&w);
    let mut up = None;
    let scraped = comes_true(SLOW, || {
        up = prometheus.query("up");
        up.as_deref() == Some("1") && prometheus.query("reaper_reaped_total").is_some()
    });
    let said = fs::read_to_string(scene.path("prometheus.stderr")).unwrap();
    assert!(scraped, "up is {up:?}; {said}");
    assert_eq!(prometheus.query("reaper_reaped_total").as_deref(), Some("1"));
    assert_eq!(prometheus.query("reaper_build_info").as_deref(), Some("1"));
    assert_eq!(prometheus.query("reaper_signal_since_orphaned_seconds_count").as_deref(), Some("1"));
    wait_until("the alerts are evaluated", || {
        get(prometheus.address, "/api/v1/rules").is_some_and(|rules| rules.contains("\"health\":\"ok\""))
    });
    let rules = get(prometheus.address, "/api/v1/rules").unwrap();
    assert!(!rules.contains("\"health\":\"err\""), "{rules}");
    assert_eq!(prometheus.query("ALERTS"), None, "all is well");
    agent.stop();
}
