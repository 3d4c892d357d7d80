//! Clients of every kind against a socket whose loop answers at once.

use std::io::{Read as _, Write as _};
use std::thread;
use std::time::Instant;

use super::*;
use crate::agent::client::{self, AskError};
use crate::agent::peers::Peers;
use crate::agent::protocol::{Counters, Status};
use crate::core::records::ProcView;
use crate::core::view::{Row, Which};

/// Patience of a test on a busy machine.
const LONG: Duration = Duration::from_secs(60);

fn status() -> Status {
    Status {
        version: "1".to_owned(),
        pid: 7,
        config: "x.toml".to_owned(),
        processes: 3,
        groups: vec![],
        counters: Counters::default(),
        boot_ns: 1,
    }
}

fn rows(n: u32) -> Vec<Row> {
    let row = |pid| Row {
        proc: ProcView {
            pid,
            comm: "worker".into(),
            argv: ["x".repeat(200)].into_iter().collect(),
            ..ProcView::default()
        },
        alive: true,
        kernel_thread: false,
        roles: vec![],
        lineage: vec![],
    };
    (0..n).map(row).collect()
}

/// Runs a loop that answers while `client` runs; a tree has so many rows.
fn with_loop<T: Send + 'static>(tree: u32, client: impl FnOnce(&Path) -> T + Send + 'static) -> T {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut socket = Socket::bind(&path, Peers::default()).unwrap();
        let client = tokio::task::spawn_blocking(move || client(&path));
        tokio::pin!(client);
        loop {
            tokio::select! {
                query = socket.asked() => {
                    let answer = match &query.request {
                        Request::Tree(_) => Answer::Tree(rows(tree)),
                        Request::Status => Answer::Status(Box::new(status())),
                        other => Answer::Refused(format!("not here: {other:?}")),
                    };
                    query.answer(answer);
                }
                done = &mut client => return done.unwrap(),
            }
        }
    })
}

fn say(path: &Path, bytes: &[u8]) -> String {
    let mut stream = Blocking::connect(path).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut text = String::new();
    if let Err(e) = stream.read_to_string(&mut text) {
        // It was not all read before the end.
        assert_eq!(e.kind(), io::ErrorKind::ConnectionReset, "{text}");
    }
    text
}

#[test]
fn silence_is_answered_with_the_status() {
    with_loop(0, |path| {
        for silent in [Some(std::net::Shutdown::Write), None] {
            let mut stream = Blocking::connect(path).unwrap();
            stream.set_read_timeout(Some(LONG)).unwrap();
            if let Some(how) = silent {
                stream.shutdown(how).unwrap();
            }
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status(), "{text}");
            assert_eq!(text.lines().count(), 1, "{text}");
        }
        assert_eq!(client::status(path).unwrap(), Some(status()));
    });
}

#[test]
fn a_hundred_thousand_rows_arrive() {
    let got = with_loop(100_000, |path| client::ask(path, &Request::Tree(Which::default())));
    let got = got.unwrap();
    assert_eq!(got.len(), 100_000);
    let last: Row = serde_json::from_str(&got[99_999]).unwrap();
    assert_eq!(last.proc.pid, 99_999);
}

#[test]
fn nonsense_is_refused() {
    with_loop(0, |path| {
        for nonsense in [&b"reboot\n"[..], b"\xff\xfe\n", b"{\"ask\":\n", b"\0\n"] {
            let said = say(path, nonsense);
            assert!(said.starts_with("{\"refused\":\""), "{nonsense:?}: {said}");
        }
        let said = say(path, b"overview\nand more\n");
        assert!(said.contains("not here: Overview"), "only the first line counts: {said}");
        let error = client::ask(path, &Request::Orphans).unwrap_err();
        assert_eq!(error.to_string(), "not here: Orphans");
    });
}

/// A request without an end is cut off by its length, and by its time.
#[test]
fn an_endless_request_is_refused() {
    with_loop(0, |path| {
        let said = say(path, &[b'x'; LONGEST_REQUEST + 1]);
        assert!(said.contains("longer than 4096 bytes"), "{said}");
        let said = say(path, b"tre");
        assert!(said.contains("did not end in time"), "{said}");
    });
}

/// Whoever does not read their answer keeps nobody else from theirs, and only so many may try.
#[test]
fn slow_readers_hold_nobody_up() {
    with_loop(100_000, |path| {
        let ask = |path: &Path| {
            let mut stream = Blocking::connect(path).unwrap();
            stream.write_all(b"tree\n").unwrap();
            stream
        };
        let mut slow: Vec<_> = (1..AT_ONCE).map(|_| ask(path)).collect();
        // Every one of them has begun to be answered.
        for stream in &mut slow {
            stream.set_read_timeout(Some(LONG)).unwrap();
            stream.read_exact(&mut [0; 1]).unwrap();
        }
        assert_eq!(client::status(path).unwrap(), Some(status()));
        slow.push(ask(path));
        slow.last_mut().unwrap().read_exact(&mut [0; 1]).unwrap();
        let error = client::ask(path, &Request::Tree(Which::default())).unwrap_err();
        assert!(matches!(&error, AskError::Refused(why) if why.contains("too many")), "{error:?}");
        // Who goes makes room.
        slow.clear();
        let begin = Instant::now();
        while client::status(path).is_err() {
            assert!(begin.elapsed() < LONG, "nobody is let in any more");
            thread::sleep(Duration::from_millis(10));
        }
    });
}

/// Somebody who cannot be asked, is not there, or answers half.
#[test]
fn what_a_client_says_of_bad_answers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    assert!(matches!(client::ask(&path, &Request::Orphans), Err(AskError::Nobody(_))));
    assert_eq!(client::status(&path).unwrap(), None);
    let old = serde_json::to_string(&status()).unwrap();
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let answers = ["", "{\"end\":1}\n", "{\"x\":1}\n{\"x\":2}\n", "{\"x\":1}\n{\"end\":", &old];
    let serve = {
        let answers = answers.map(str::to_owned);
        thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let _request = stream.read(&mut [0; 100]).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
            }
        })
    };
    for answer in answers {
        let error = client::ask(&path, &Request::Orphans).unwrap_err();
        match &error {
            AskError::Other { version, .. } => assert_eq!((version.as_str(), answer), ("1", &*old)),
            AskError::CutShort(_) => assert_ne!(answer, old),
            other => panic!("{answer:?}: {other:?}"),
        }
    }
    serve.join().unwrap();
}
