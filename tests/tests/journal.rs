//! Where the agent's own messages go under systemd: to journald, which a test plays in a file system of its own.
#![allow(clippy::unwrap_used, reason = "in a test a broken assumption is a failure")]

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use reaper_tests::agent::{Outcome, binary, run_to_end};
use reaper_tests::scene::Scene;

/// How long a command may take on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// Runs a command that has one message, with journald's socket in its `/run`, and stderr as the stream that `stream` prints.
/// Returns what journald got, too.
fn run_with_journal(scene: &Scene, stream: &str) -> (Outcome, Vec<String>) {
    let run = scene.path("run");
    let folder = run.join("systemd/journal");
    fs::create_dir_all(&folder).unwrap();
    let socket = UnixDatagram::bind(folder.join("socket")).unwrap();
    socket.set_nonblocking(true).unwrap();
    let script = format!(
        "mount --bind {} /run && export JOURNAL_STREAM=$({stream}) && exec {} run --unpin --state {}",
        run.display(),
        binary().display(),
        scene.path("state").display()
    );
    let mut command = Command::new("unshare");
    let outcome = run_to_end(scene, command.args(["--mount", "sh", "-c", &script]), LONG);
    assert!(outcome.status.success(), "{outcome:#?}");
    let mut got = Vec::new();
    let mut buffer = [0; 65536];
    while let Ok(length) = socket.recv(&mut buffer) {
        // Each time it is asked whether it is there, with nothing.
        if length > 0 {
            got.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
    }
    (outcome, got)
}

#[test]
fn journald_gets_messages_with_their_fields() {
    let scene = Scene::new();
    let (outcome, got) = run_with_journal(&scene, "stat --dereference --format=%d:%i /proc/self/fd/2");
    let [message] = got.as_slice() else { panic!("not one message: {got:#?}") };
    // The name, how long the value is in eight bytes, the value.
    let field = |name: &str, value: &str| {
        let length = char::from(u8::try_from(value.len()).unwrap());
        format!("{name}\n{length}\0\0\0\0\0\0\0{value}\n")
    };
    let fields = [("PRIORITY", "6"), ("SYSLOG_IDENTIFIER", "reaper"), ("TARGET", "reaper::cmd::run")];
    for (name, value) in fields {
        assert!(message.contains(&field(name, value)), "no {name}={value} in {message:?}");
    }
    assert!(message.contains("\nMESSAGE\n") && message.contains("nothing is pinned in "), "{message:?}");
    assert_eq!(outcome.stderr, "", "said twice");
}

/// Somebody below a service, with a stderr of their own.
#[test]
fn another_stderr_than_journalds_gets_them_in_words() {
    let scene = Scene::new();
    let (outcome, got) = run_with_journal(&scene, "echo 1:2");
    assert!(outcome.stderr.contains("nothing is pinned in "), "{outcome:#?}");
    assert_eq!(got, Vec::<String>::new());
}
