//! The README's pictures: `reaper top` as a terminal shows it, and a page of `reaper report` as a browser does, both of the
//! same short story with processes of its own. `cargo xtask pictures` writes them to `docs/pictures`.
#![allow(clippy::unwrap_used, reason = "a picture that cannot be made has failed")]

mod screen;

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use reaper_tests::agent::{Agent, binary, run_to_end};
use reaper_tests::browser;
use reaper_tests::config::Config;
use reaper_tests::drill::env;
use reaper_tests::log::Record;
use reaper_tests::process::wait_until;
use reaper_tests::scene::Scene;
use reaper_tests::terminal::Session;

/// Of the terminal that everybody has.
const COLUMNS: u16 = 80;

/// The distribution's.
const PYTHON: &str = "/usr/bin/python3";

/// A master that forks a process for each word: `idle` waits for clients, `busy` for an answer.
const MAILER: &str = r#"
import os, socket, sys
port, words = int(sys.argv[2]), sys.argv[3].split(",")
server = socket.create_server(("127.0.0.1", 0))
for word in words:
    if os.fork() == 0:
        os.set_inheritable(server.fileno(), True)
        os.execv(os.readlink("/proc/self/exe"), ["python3", "bin/mailer", "work", str(port), word, str(server.fileno())] + sys.argv[4:])
while True:
    os.wait()
"#;
const WORK: &str = r#"
import socket, sys
port, word = int(sys.argv[2]), sys.argv[3]
server = socket.socket(fileno=int(sys.argv[4]))
if word == "busy":
    socket.create_connection(("127.0.0.1", port)).recv(1)
while True:
    server.accept()[0].close()
"#;

fn main() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/pictures");
    fs::create_dir_all(&folder).unwrap();
    let scene = Scene::new();
    fs::create_dir(scene.path("bin")).unwrap();
    fs::write(
        scene.path("bin/mailer"),
        format!("import sys\nif sys.argv[1] == \"work\":\n{}\nelse:\n{}\n", indented(WORK), indented(MAILER)),
    )
    .unwrap();
    let database = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = database.local_addr().unwrap().port();

    let group = |name: &str, mode: &str| {
        format!(
            "[[group]]\nname = \"{name}\"\nmode = \"{mode}\"\n[group.master]\ncmdline = 'mailer serve .* --{name} {token}$'\n\
             [group.worker]\ncmdline = 'mailer work .* --{name} {token}$'\n",
            token = scene.token()
        )
    };
    let config = Config::new(&scene)
        .agent("log_level = \"lineage\"")
        .more(&group("news", "observe"))
        .more(&group("mails", "enforce"));
    let agent = Agent::start(&scene, &config);
    let mut old = serve(&scene, port, "mails", "idle,busy,idle,busy");
    let mut news = serve(&scene, port, "news", "idle,busy");
    let mut new = serve(&scene, port, "mails", "idle,idle");
    let found = |n: usize| agent.records().iter().filter(|r| r.kind() == "master_found").count() == n;
    wait_until("three masters", || found(3));
    let is_worker = |r: &Record| r.kind() == "exec" && r.text("/proc/argv/2") == "work";
    wait_until("eight workers", || agent.records().iter().filter(|r| is_worker(r)).count() == 8);
    thread::sleep(Duration::from_secs(2));
    old.kill().unwrap();
    news.kill().unwrap();
    let count = |kind: &str| agent.records().iter().filter(|r| r.kind() == kind).count();
    wait_until("two reaped, and one that would be", || count("reaped") == 2 && count("signal") == 3);
    fs::write(folder.join("top.svg"), screen::svg(&top(&scene, &config))).unwrap();
    // The jobs end.
    drop(database);
    thread::sleep(Duration::from_secs(1));
    agent.stop();
    let page = scene.path("page.html");
    let outcome = run_to_end(
        &scene,
        Command::new(binary()).current_dir(scene.path("")).args(["report", "agent.jsonl", "-o", "page.html"]),
        browser::SLOW,
    );
    assert!(outcome.status.success(), "{outcome:#?}");
    browser::picture(&scene, &page, &folder.join("report.png"), (1000, 1080));
    new.kill().unwrap();
    for mut master in [old, news, new] {
        master.wait().unwrap();
    }
}

fn indented(text: &str) -> String {
    text.trim().lines().map(|line| format!("    {line}\n")).collect()
}

/// A master with these workers.
fn serve(scene: &Scene, port: u16, site: &str, words: &str) -> Child {
    // Not what a shell might find first.
    if !Path::new(PYTHON).exists() {
        env::apt(&["python3"]).unwrap();
    }
    Command::new(PYTHON)
        .arg0("python3")
        .args(["bin/mailer", "serve", &port.to_string(), words, &format!("--{site}"), scene.token()])
        .current_dir(scene.path(""))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// What `reaper top` has drawn when it is done for now: it draws once a second.
fn top(scene: &Scene, config: &Config) -> vt100::Screen {
    let mut command = Command::new(binary());
    command.arg("top").arg("--socket").arg(&config.socket).env_remove("NO_COLOR");
    let mut session = Session::start(scene, command, COLUMNS);
    session.settles("an idle orphan", |screen| screen.contents().contains("idle"));
    session.screen().clone()
}
