//! What the page says, and who gets it.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use regex::Regex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::config::Config;
use crate::core::input::Input;
use crate::core::records::{Evidence, ProcView, SparedBecause, Verdict};

fn signal(group: &str, dry_run: bool) -> Event {
    Event::Signal {
        group: group.to_owned(),
        proc: ProcView::default(),
        signal: "TERM".into(),
        step: 0,
        evidence: Evidence {
            verdict: Verdict::Idle,
            because: String::new(),
            threads: vec![],
            cpu_us: 0,
            children: 0,
            quiet_us: 200_000,
        },
        since_orphan_us: 210_000,
        since_idle_us: 201_000,
        verified: true,
        dry_run,
    }
}

fn core(config: &str) -> Core {
    let mut core = Core::new(1);
    let rules = Config::parse("reaper.toml", config).expect("a good configuration").rules;
    core.handle(1, Input::Configured { at: 1, rules: Arc::new(rules), armed: vec![], broken: vec![] });
    core
}

fn facts<'a>(core: &'a Core, programs: &'a [ProgramStats]) -> Facts<'a> {
    let events = [("fork", 3), ("exec", 2), ("exit", 1), ("signal", 0)];
    Facts { core, events, programs, log_lost: 4, log_failures: 5, log_failing: true }
}

const CONFIG: &str = "[[group]]\nname = 'mails'\nmode = 'enforce'\nmaster.comm = 'x'\n[[group]]\nname = 'web'\nmaster.comm = 'y'";

/// A page on which every metric is.
fn full_page(format: Format) -> String {
    let mut metrics = Metrics::new("0.1.0", "6.12.1");
    let (group, proc) = ("mails".to_owned(), ProcView::default());
    let event = |event| metrics.observe(&Record { boot_ns: 1, event });
    event(Event::Orphaned {
        group: group.clone(),
        proc: proc.clone(),
        lost: None,
        lineage: vec![],
        stray: false,
    });
    event(signal("mails", false));
    event(signal("mails", true));
    event(Event::Reaped {
        group: group.clone(),
        proc: proc.clone(),
        signal: "TERM".into(),
        took_us: 220_000,
    });
    event(Event::Left { group: group.clone(), proc: proc.clone() });
    event(Event::Spared { group, proc, because: SparedBecause::NotReplaced });
    event(Event::EventsLost { count: 7 });
    event(Event::Resynced { added: 1, removed: 0, took_us: 1 });
    let programs =
        [ProgramStats { name: "process_fork", runs: 3, time: Duration::from_micros(2), missed: 1 }];
    metrics.page(1, format, &facts(&core(CONFIG), &programs))
}

fn lines<'a>(page: &'a str, begin: &str) -> Vec<&'a str> {
    page.lines().filter(|l| l.starts_with(begin)).collect()
}

#[test]
fn records_and_facts_are_told() {
    let page = full_page(Format::Prometheus);
    for line in [
        "reaper_build_info{version=\"0.1.0\",kernel=\"6.12.1\"} 1",
        "reaper_records_total{kind=\"signal\"} 2",
        "reaper_orphaned_total{group=\"mails\",stray=\"false\"} 1",
        "reaper_signals_total{group=\"mails\",signal=\"TERM\",step=\"0\",dry_run=\"false\"} 1",
        "reaper_signals_total{group=\"mails\",signal=\"TERM\",step=\"0\",dry_run=\"true\"} 1",
        "reaper_reaped_total{group=\"mails\",signal=\"TERM\"} 1",
        "reaper_left_total{group=\"mails\"} 1",
        "reaper_spared_total{group=\"mails\",because=\"not_replaced\"} 1",
        "reaper_events_lost_total 7",
        "reaper_resyncs_total 1",
        "reaper_signal_since_orphaned_seconds_bucket{le=\"0.2\",group=\"mails\",dry_run=\"false\"} 0",
        "reaper_signal_since_orphaned_seconds_bucket{le=\"0.25\",group=\"mails\",dry_run=\"false\"} 1",
        "reaper_signal_since_idle_seconds_sum{group=\"mails\",dry_run=\"true\"} 0.201",
        "reaper_gone_since_orphaned_seconds_count{group=\"mails\"} 1",
        "reaper_processes 0",
        "reaper_tree_complete 0",
        "reaper_masters{group=\"web\"} 0",
        "reaper_orphans{group=\"web\",verdict=\"idle\"} 0",
        "reaper_armed{group=\"mails\"} 0",
        "reaper_breaker_open{group=\"mails\"} 0",
        "reaper_enforcing{group=\"mails\"} 1",
        "reaper_enforcing{group=\"web\"} 0",
        "reaper_events_total{kind=\"fork\"} 3",
        "reaper_program_runs_total{program=\"process_fork\"} 3",
        "reaper_program_run_seconds_total{program=\"process_fork\"} 0.000002",
        "reaper_program_missed_total{program=\"process_fork\"} 1",
        "reaper_log_records_lost_total 4",
        "reaper_log_write_failures_total 5",
        "reaper_log_failing 1",
    ] {
        // Labels may come in any order; there are no commas in these values.
        let sorted = |line: &str| {
            let mut parts: Vec<&str> = line.split(['{', ',', '}']).collect();
            parts.sort_unstable();
            parts.join(",")
        };
        assert!(page.lines().any(|l| sorted(l) == sorted(line)), "not on the page: {line}\n{page}");
    }
    assert!(full_page(Format::OpenMetrics).ends_with("# EOF\n"));
}

#[test]
fn what_the_kernel_does_not_count_is_absent() {
    let mut metrics = Metrics::new("0.1.0", "6.12.1");
    let programs = [ProgramStats { name: "process_fork", runs: 0, time: Duration::ZERO, missed: 0 }];
    let page = metrics.page(1, Format::Prometheus, &facts(&core(CONFIG), &programs));
    assert!(lines(&page, "reaper_program_run").is_empty(), "{page}");
    assert_eq!(lines(&page, "reaper_program_missed_total{").len(), 1, "{page}");
}

#[test]
fn groups_go_with_a_reload() {
    let mut metrics = Metrics::new("0.1.0", "6.12.1");
    let page = metrics.page(1, Format::Prometheus, &facts(&core(CONFIG), &[]));
    assert_eq!(lines(&page, "reaper_armed{").len(), 2, "{page}");
    let one = core("[[group]]\nname = 'web'\nmaster.comm = 'y'");
    let page = metrics.page(1 + FRESH, Format::Prometheus, &facts(&one, &[]));
    assert_eq!(lines(&page, "reaper_armed{"), ["reaper_armed{group=\"web\"} 0"], "{page}");
}

#[test]
fn who_asks_in_a_loop_gets_the_same_page() {
    let mut metrics = Metrics::new("0.1.0", "6.12.1");
    let core = core(CONFIG);
    let first = metrics.page(1, Format::Prometheus, &facts(&core, &[]));
    metrics.observe(&Record { boot_ns: 1, event: Event::EventsLost { count: 1 } });
    assert_eq!(metrics.page(FRESH, Format::Prometheus, &facts(&core, &[])), first);
    let other = metrics.page(FRESH, Format::OpenMetrics, &facts(&core, &[]));
    assert!(other.contains("reaper_events_lost_total 1\n"), "another format is another page: {other}");
    assert_ne!(metrics.page(1 + FRESH, Format::Prometheus, &facts(&core, &[])), first);
}

#[test]
fn a_group_may_be_called_anything() {
    let metrics = Metrics::new("0.1.0", "6.12.1");
    metrics.observe(&Record { boot_ns: 1, event: signal("a\"b\\c\n} 1", false) });
    let mut page = String::new();
    prometheus_text::encode(&mut page, &metrics.registry).expect("a string takes it");
    let told = lines(&page, "reaper_signals_total{");
    assert_eq!(told.len(), 1, "{page}");
    assert!(told[0].contains(r#"group="a\"b\\c\n} 1""#), "{told:?}");
}

/// The names in a text that begin with `reaper_`.
fn named(text: &str) -> BTreeSet<String> {
    let name = Regex::new(r"\breaper_[a-z_]+\b").expect("a pattern");
    name.find_iter(text).map(|m| m.as_str().to_owned()).collect()
}

#[test]
fn alerts_and_dashboard_ask_for_what_there_is() {
    let page = full_page(Format::Prometheus);
    let there: BTreeSet<String> = page
        .lines()
        .filter(|l| !l.starts_with('#'))
        .filter_map(|l| l.split(['{', ' ']).next().map(str::to_owned))
        .collect();
    let alerts = include_str!("../../../packaging/prometheus/reaper-alerts.yml");
    let asked = alerts.lines().filter(|l| l.trim_start().starts_with("expr:"));
    let asked: Vec<_> = asked.map(named).collect();
    assert_eq!(asked.len(), alerts.matches("alert:").count());
    for names in asked {
        assert!(names.is_subset(&there), "{names:?} in an alert; there are {there:?}");
    }
    let dashboard = include_str!("../../../packaging/grafana/reaper.json");
    let dashboard: serde_json::Value = serde_json::from_str(dashboard).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    assert!(!panels.is_empty());
    for panel in panels {
        for target in panel["targets"].as_array().expect("targets") {
            let names = named(target["expr"].as_str().expect("a query"));
            assert!(!names.is_empty() && names.is_subset(&there), "{names:?} in {}", panel["title"]);
        }
    }
    let variables = dashboard["templating"]["list"].to_string();
    assert!(named(&variables).is_subset(&there), "{variables}");
}

/// A server whose loop answers with the format's name, and its address.
async fn served() -> (tokio::task::JoinHandle<()>, SocketAddr) {
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr());
    let address = free.expect("a free port");
    let mut server = Server::bind(address).expect("bound");
    let task = tokio::spawn(async move {
        loop {
            let ask = server.asked().await;
            let page = format!("{:?}\n", ask.format);
            ask.answer(page);
        }
    });
    (task, address)
}

async fn told(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    answer
}

#[tokio::test]
async fn one_page_in_two_formats() {
    let (_server, address) = served().await;
    let answer = told(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nPrometheus\n"), "{answer}");
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
    let answer =
        told(address, &format!("GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n")).await;
    assert!(answer.contains("content-type: application/openmetrics-text"), "{answer}");
    assert!(answer.ends_with("OpenMetrics\n"), "{answer}");
}

#[tokio::test]
async fn nothing_else_is_served() {
    let (_server, address) = served().await;
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
        ("GET /metrics/../etc HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
        ("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "405"),
        ("nonsense\r\n\r\n", "400"),
    ] {
        let answer = told(address, request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer}");
    }
    let long = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", "x".repeat(HEAD_AND_MORE));
    assert!(!told(address, &long).await.contains("200 OK"));
}

const HEAD_AND_MORE: usize = 20 << 10;

/// All places are taken by people who say nothing; each loses its own after a while, so others get their turn.
#[tokio::test]
async fn who_says_nothing_is_let_go() {
    let (_server, address) = served().await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        stream.write_all(b"GET /met").await.expect("written");
        silent.push(stream);
    }
    let answer = told(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.ends_with("Prometheus\n"), "{answer}");
}

#[tokio::test]
async fn an_address_that_is_taken_is_an_error() {
    let (_server, address) = served().await;
    let error = Server::bind(address).expect_err("taken");
    let error = format!("{error:#}");
    assert!(error.contains(&address.to_string()) && error.contains("in use"), "{error}");
}
