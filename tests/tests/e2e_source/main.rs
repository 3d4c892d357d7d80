//! End to end with `proof = "source"`: a worker is signalled if it waits for its source of work, and for nothing else.
//!
//! Most tests orphan several workers at once, each in a shape of its own, and look at what the agent says of each.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a broken assumption is a failure")]

mod observer;
mod polls;
mod race;
mod unknown;

use std::fs::{self, File};
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use reaper_tests::agent::{Agent, is_shot};
use reaper_tests::config::Config;
use reaper_tests::log::Record;
use reaper_tests::process::{PATIENCE, Proc, wait_until};
use reaper_tests::scene::Scene;
use reaper_tests::script::{Call, Op, Open, exec, fork, note, open, title, wait_in, worker_doing};

/// A worker: what it does, and words of the sentence that the agent says of it then.
struct Shape {
    name: &'static str,
    program: Vec<Op>,
    says: String,
}

fn shape(name: &'static str, program: impl Into<Vec<Op>>, says: impl Into<String>) -> Shape {
    Shape { name, program: program.into(), says: says.into() }
}

/// Has a master fork these workers, and kills it when all of them have come to rest.
fn orphans(scene: &Scene, agent: &Agent, shapes: &[Shape]) -> Vec<Proc> {
    let workers = shapes.iter().map(|s| worker_doing(s.name, s.program.clone()));
    let master = scene.spawn("master", workers.chain([Op::Forever]).collect::<Vec<_>>());
    let workers: Vec<_> = shapes.iter().map(|s| scene.proc(s.name)).collect();
    agent.knows_master(&master);
    workers.iter().for_each(rest);
    master.kill();
    workers
}

/// Waits until every thread sleeps, and goes on sleeping.
fn rest(who: &Proc) {
    let look = || {
        let tasks = fs::read_dir(format!("/proc/{}/task", who.pid())).unwrap();
        let status = |t: std::io::Result<fs::DirEntry>| fs::read_to_string(t.unwrap().path().join("status"));
        let lines = tasks.filter_map(|t| status(t).ok());
        let told = |text: String| {
            text.lines().filter(|l| l.contains("ctxt_switches") || l.starts_with("State")).collect::<String>()
        };
        lines.map(told).collect::<Vec<_>>()
    };
    let mut before = look();
    let mut since = Instant::now();
    wait_until(&format!("{} at rest", who.pid()), || {
        let now = look();
        if now != before || !now.iter().all(|t| t.contains("(sleeping)")) {
            (before, since) = (now, Instant::now());
        }
        since.elapsed() > Duration::from_millis(60)
    });
}

/// It is signalled as idle for that reason, after it was held still, and dies of it.
#[track_caller]
fn goes(agent: &Agent, who: &Proc, says: &str) -> Record {
    let signal = agent.wait("signal", who);
    assert_eq!(signal.text("/evidence/verdict"), "idle", "{signal:?}");
    assert!(signal.text("/evidence/because").contains(says), "{says}: {signal:?}");
    assert!(signal.flag("verified"), "{signal:?}");
    agent.wait_reaped(who);
    signal
}

/// It is said to be busy, or of unknown doings, for that reason.
#[track_caller]
fn stays(agent: &Agent, who: &Proc, verdict: &str, says: &str) -> Record {
    let fits = |r: &Record| {
        r.is("busy", who)
            && r.text("/evidence/verdict") == verdict
            && r.text("/evidence/because").contains(says)
    };
    agent.wait_for(&format!("{} is {verdict}: {says}", who.pid()), fits)
}

/// What the threads wait for, as the evidence tells it: what and peer.
fn waits_on(record: &Record) -> Vec<(String, String)> {
    let threads = record.get("/evidence/threads").unwrap().as_array().unwrap();
    let rows = threads.iter().flat_map(|t| t["waits_on"].as_array().unwrap());
    rows.map(|w| (w["what"].as_str().unwrap().into(), w["peer"].as_str().unwrap_or_default().into()))
        .collect()
}

/// For so long nobody is signalled and all live.
#[track_caller]
fn nobody_goes(agent: &Agent, ms: u64, all: &[Proc]) {
    agent.assert_never(ms, "a signal", is_shot);
    assert!(all.iter().all(Proc::is_alive));
}

/// Where the socket `name` of an actor listens.
fn address(scene: &Scene, name: &str) -> SocketAddr {
    let mut found = None;
    wait_until(&format!("the address of {name}"), || {
        found = scene.ledger().iter().find_map(|e| e.event.strip_prefix(&format!("{name}@"))?.parse().ok());
        found.is_some()
    });
    found.unwrap()
}

fn listens(at: &str) -> Op {
    open("l", Open::Listener(at.into()))
}

fn connects(name: &str, to: SocketAddr) -> Op {
    open(name, Open::Connection(to.to_string()))
}

/// A socket that listens, to be the queue or another service.
fn service() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn with_queue(scene: &Scene, queue: SocketAddr) -> Config {
    Config::new(scene).source().idle(&format!("queue = [\"tcp/{queue}\"]"))
}

#[test]
fn servers_that_wait_for_clients_go() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene).source());
    let epoll = |edge| Open::Epoll { targets: ["l", "p", "c"].map(Into::into).into(), edge };
    let own = [open("p", Open::Pipe("w".into())), open("c", Open::Counter)];
    let all = |first: Op, more: Vec<Op>| [vec![first], own.to_vec(), more].concat();
    let v4 = "127.0.0.1:0";
    let shapes = [
        shape("v4", [listens(v4), wait_in(Call::Accept, &["l"])], "accept4 for new connections at tcp/127"),
        shape("v6", [listens("[::1]:0"), wait_in(Call::Accept, &["l"])], "new connections at tcp/[::1]"),
        shape("unix", [listens("server"), wait_in(Call::Accept, &["l"])], "new connections at unix:"),
        shape("poll", all(listens(v4), vec![wait_in(Call::Poll, &["l", "p", "c"])]), "in poll for new"),
        shape("select", all(listens(v4), vec![wait_in(Call::Select, &["l", "p", "c"])]), "select"),
        shape(
            "epoll",
            all(listens(v4), vec![open("e", epoll(false)), wait_in(Call::Epoll, &["e"])]),
            "epoll_",
        ),
        shape("edge", all(listens(v4), vec![open("e", epoll(true)), wait_in(Call::Epoll, &["e"])]), "epoll_"),
        shape(
            "elsewhere",
            [Op::OwnNetwork, listens("127.0.0.1:7777"), wait_in(Call::Accept, &["l"])],
            "new connections at tcp/127.0.0.1:7777",
        ),
    ];
    let workers = orphans(&scene, &agent, &shapes);
    for (shape, worker) in shapes.iter().zip(&workers) {
        let signal = goes(&agent, worker, &shape.says);
        let listening = |(what, _): &(String, String)| what.starts_with("listening at");
        assert!(waits_on(&signal).iter().any(listening), "{}: {signal:?}", shape.name);
        assert!(signal.text("/evidence/because").contains("new connections"), "{}: {signal:?}", shape.name);
    }
    agent.assert_signalled(&workers.iter().collect::<Vec<_>>());
    agent.stop();
}

#[test]
fn a_server_with_a_client_goes_after_the_client() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene).source());
    let serves = [
        listens("127.0.0.1:0"),
        open("c", Open::Client("l".into())),
        wait_in(Call::Poll, &["l", "c"]),
        Op::Close("c".into()),
        wait_in(Call::Accept, &["l"]),
    ];
    let master = scene.spawn("master", [worker_doing("w", serves), Op::Forever]);
    let w = scene.proc("w");
    agent.knows_master(&master);
    let client = TcpStream::connect(address(&scene, "l")).unwrap();
    let from = client.local_addr().unwrap();
    rest(&w);
    master.kill();
    let record = stays(&agent, &w, "busy", &format!("tcp/{from}, which is not its source of work"));
    assert!(waits_on(&record).contains(&("socket".into(), format!("tcp/{from}"))), "{record:?}");
    agent.assert_unharmed(500, &w);
    let closed = reaper::clock::now();
    drop(client);
    assert!(goes(&agent, &w, "accept4 for new connections").boot_ns() >= closed + 90_000_000);
    agent.stop();
}

#[test]
fn servers_whose_clients_they_do_not_look_at_stay() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene).source());
    let named = |name: &str| open(name, Open::Listener("127.0.0.1:0".into()));
    let edge = Open::Epoll { targets: vec!["m".into()], edge: true };
    let holds = [named("l"), open("c", Open::Client("l".into())), wait_in(Call::Accept, &["l"])];
    // The first wait ends with the client, which is left where it is; the second one is not told of it again.
    let leaves = [named("m"), open("e", edge), wait_in(Call::Epoll, &["e"]), wait_in(Call::Epoll, &["e"])];
    let master =
        scene.spawn("master", [worker_doing("holds", holds), worker_doing("leaves", leaves), Op::Forever]);
    let workers = ["holds", "leaves"].map(|name| scene.proc(name));
    agent.knows_master(&master);
    let _clients = ["l", "m"].map(|name| TcpStream::connect(address(&scene, name)).unwrap());
    workers.iter().for_each(rest);
    master.kill();
    stays(&agent, &workers[0], "busy", "a client is connected on descriptor");
    stays(&agent, &workers[1], "busy", "something unread waits on descriptor");
    nobody_goes(&agent, 500, &workers);
    agent.stop();
}

#[test]
fn who_waits_for_its_queue_goes() {
    let scene = Scene::new();
    let (_queue, at) = service();
    let _local = UnixListener::bind(scene.path("queue")).unwrap();
    let path = scene.path("queue").display().to_string();
    let config = Config::new(&scene).source().idle(&format!("queue = [\"tcp/{at}\", \"unix:{path}\"]"));
    let agent = Agent::start(&scene, &config);
    let epoll = Open::Epoll { targets: vec!["q".into()], edge: false };
    let says = format!("its queue tcp/{at}");
    let shapes = [
        shape("read", [connects("q", at), wait_in(Call::Read, &["q"])], format!("read for {says}")),
        shape("poll", [connects("q", at), wait_in(Call::Poll, &["q"])], format!("poll for {says}")),
        shape("epoll", [connects("q", at), open("e", epoll), wait_in(Call::Epoll, &["e"])], says.clone()),
        shape(
            "unix",
            [open("q", Open::Connection("queue".into())), wait_in(Call::Read, &["q"])],
            format!("its queue unix:{path}"),
        ),
    ];
    let workers = orphans(&scene, &agent, &shapes);
    for (shape, worker) in shapes.iter().zip(&workers) {
        let signal = goes(&agent, worker, &shape.says);
        let queue = |(what, peer): &(String, String)| what == "queue" && shape.says.contains(peer.as_str());
        assert!(waits_on(&signal).iter().any(queue), "{}: {signal:?}", shape.name);
    }
    agent.stop();
}

#[test]
fn who_waits_for_anything_else_stays() {
    let scene = Scene::new();
    let (_queue, at) = service();
    let (jobs, unread) = service();
    let (_other, elsewhere) = service();
    let locked = File::create(scene.path("locked")).unwrap();
    let _lock = Flock::lock(locked, FlockArg::LockExclusive).unwrap();
    let config = Config::new(&scene).source().worker_matcher();
    let config = config.idle(&format!("queue = [\"tcp/{at}\", \"tcp/{unread}\"]\nchildren = [\"helper\"]"));
    let agent = Agent::start(&scene, &config);
    let helper = fork([exec("job", [Op::Comm("helper".into()), Op::Forever])]);
    let edge = Open::Epoll { targets: vec!["u".into()], edge: true };
    // The first wait ends with the job, which is left where it is; the second one is not told of it again.
    let leaves = [open("e", edge), wait_in(Call::Epoll, &["e"]), wait_in(Call::Epoll, &["e"])];
    let shapes = [
        shape("unread", [vec![connects("u", unread)], leaves.to_vec()].concat(), "something unread waits"),
        shape(
            "elsewhere",
            [connects("q", at), connects("o", elsewhere), wait_in(Call::Read, &["o"])],
            format!("read for tcp/{elsewhere}, which is not its source of work"),
        ),
        shape(
            "both",
            [connects("q", at), connects("o", elsewhere), wait_in(Call::Poll, &["q", "o"])],
            format!("tcp/{elsewhere}, which is not its source of work"),
        ),
        shape("sleeps", [connects("q", at), Op::Nanosleep(50_000)], "sleeps for 50 s"),
        shape("locked", [open("f", Open::File("locked".into())), wait_in(Call::Flock, &["f"])], "flock"),
        shape("child", [helper, Op::WaitChildren], "waits for a child"),
    ];
    let writes = std::thread::spawn(move || {
        let (mut client, _) = jobs.accept().unwrap();
        client.write_all(b"a job").unwrap();
        client
    });
    let workers = orphans(&scene, &agent, &shapes);
    let _client = writes.join().unwrap();
    for (shape, worker) in shapes.iter().zip(&workers) {
        stays(&agent, worker, "busy", &shape.says);
    }
    nobody_goes(&agent, 500, &workers);
    agent.stop();
}

#[test]
fn a_pipe_that_somebody_else_has_open_is_work() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene).source());
    let reads = [worker_doing("w", [wait_in(Call::Read, &["stdin"])]), Op::Forever];
    let mut child = scene.command("master", &reads).stdin(Stdio::piped()).spawn().unwrap();
    let master = Proc::of_child(&child).unwrap();
    let _writer = child.stdin.take();
    let ends = std::thread::spawn(move || child.wait());
    let w = scene.proc("w");
    agent.knows_master(&master);
    rest(&w);
    master.kill();
    ends.join().unwrap().unwrap();
    stays(&agent, &w, "busy", &format!("in read for a pipe that process {} has open", std::process::id()));
    agent.assert_unharmed(500, &w);
    agent.stop();
}

#[test]
fn an_alarm_tells_a_job_from_waiting() {
    let scene = Scene::new();
    let (_queue, at) = service();
    let agent = Agent::start(&scene, &with_queue(&scene, at).idle("alarm = true"));
    let waits = |seconds| [connects("q", at), Op::Alarm(seconds), wait_in(Call::Read, &["q"])];
    let shapes = [shape("armed", waits(60), "while an alarm limits"), shape("calm", waits(0), "its queue")];
    let workers = orphans(&scene, &agent, &shapes);
    stays(&agent, &workers[0], "busy", &shapes[0].says);
    goes(&agent, &workers[1], &shapes[1].says);
    agent.assert_unharmed(500, &workers[0]);
    agent.stop();
}

#[test]
fn a_pool_waits_for_whoever_of_it_works() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene).source());
    let reads = |name: &str, first: &[Op]| {
        fork([vec![note(name)], first.to_vec(), vec![wait_in(Call::Read, &["p"])]].concat())
    };
    let works = [note("begin"), Op::Busy(1_500), note("end")];
    let pool = [
        open("p", Open::Pipe("w".into())),
        reads("a", &[]),
        reads("b", &[]),
        reads("c", &works),
        Op::Forever,
    ];
    let master = scene.spawn("master", pool);
    let workers = ["a", "b", "c"].map(|name| scene.proc(name));
    agent.knows_master(&master);
    scene.entry("begin");
    master.kill();
    stays(&agent, &workers[0], "busy", "it waits for a pipe that process");
    stays(&agent, &workers[2], "busy", "is running");
    let end = scene.entry("end").boot_ns;
    for worker in &workers {
        let signal = agent.wait("signal", worker);
        assert!(signal.boot_ns() >= end + 90_000_000, "the job ended at {end}: {signal:?}");
        agent.wait_reaped(worker);
    }
    let first = agent.find(is_shot).unwrap();
    assert!(first.text("/evidence/because").contains("a pipe that only orphans have open"), "{first:?}");
    agent.assert_signalled(&workers.iter().collect::<Vec<_>>());
    agent.stop();
}

#[test]
fn titles_are_believed_where_the_group_says_so() {
    let scene = Scene::new();
    let agent = Agent::start(&scene, &Config::new(&scene).source().idle("title = '^q: waiting'"));
    let accepts = [listens("127.0.0.1:0"), wait_in(Call::Accept, &["l"])];
    let shapes = [
        shape(
            "works",
            [vec![title("q: job 7")], accepts.to_vec()].concat(),
            "its title does not say that it is idle",
        ),
        shape("accepts", [vec![title("q: waiting")], accepts.to_vec()].concat(), "new connections"),
        shape("sleeps", [title("q: waiting"), Op::Nanosleep(50_000)], "sleeps for 50 s, and its title says"),
    ];
    let workers = orphans(&scene, &agent, &shapes);
    stays(&agent, &workers[0], "busy", &shapes[0].says);
    goes(&agent, &workers[1], &shapes[1].says);
    goes(&agent, &workers[2], &shapes[2].says);
    agent.assert_unharmed(500, &workers[0]);
    agent.stop();
}

#[test]
fn only_job_threads_are_judged() {
    let scene = Scene::new();
    let (_other, at) = service();
    let agent = Agent::start(&scene, &Config::new(&scene).source().idle("job_threads = [\"job-*\"]"));
    let thread = |name: &str, ops: &[Op]| Op::Thread([vec![Op::Comm(name.into())], ops.to_vec()].concat());
    let accepts = [listens("127.0.0.1:0"), wait_in(Call::Accept, &["l"])];
    let asks = [connects("o", at), wait_in(Call::Read, &["o"])];
    let shapes = [
        shape(
            "waits",
            [thread("job-1", &accepts), thread("asks", &asks), Op::Forever],
            "(job-1) waits in accept4",
        ),
        shape(
            "works",
            [thread("job-1", &accepts), thread("job-2", &asks), Op::Forever],
            "(job-2) waits in read",
        ),
        shape("none", [thread("waits", &accepts), Op::Forever], "none of its threads is one of job_threads"),
    ];
    let workers = orphans(&scene, &agent, &shapes);
    goes(&agent, &workers[0], &shapes[0].says);
    stays(&agent, &workers[1], "busy", &shapes[1].says);
    stays(&agent, &workers[2], "unknown", &shapes[2].says);
    nobody_else_goes(&agent, &workers);
    agent.stop();
}

/// All but the first stay.
fn nobody_else_goes(agent: &Agent, workers: &[Proc]) {
    for worker in &workers[1..] {
        agent.assert_unharmed(300, worker);
    }
    agent.assert_signalled(&[&workers[0]]);
}
