//! A job arrives at the last moment: whoever has taken it finishes it.

use std::io::{ErrorKind, Read as _};
use std::os::unix::net::UnixStream;

use super::*;

/// Orphans, some at a time.
const ROUNDS: usize = 50;
const AT_ONCE: usize = 10;

/// When after its master's end a job is written to a worker: from well before the signal, which comes after 100 ms of quiet,
/// until after it.
const EARLIEST: Duration = Duration::from_millis(60);
const LATEST: Duration = Duration::from_millis(180);

/// What became of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Job {
    Done,
    /// The worker died without having read it, or before it was written.
    NotTaken,
    /// The worker died with it.
    CutShort,
}

/// Writes a job and waits for what becomes of it. The kernel tells exactly: whoever closes a unix socket with something unread
/// in it resets the connection, and whoever has read everything ends it.
fn job(worker: &mut UnixStream, delay: Duration) -> Job {
    std::thread::sleep(delay);
    worker.set_read_timeout(Some(PATIENCE)).unwrap();
    if worker.write_all(b"a job").is_err() {
        return Job::NotTaken;
    }
    match worker.read(&mut [0; 16]) {
        Ok(0) => Job::CutShort,
        Ok(_) => Job::Done,
        Err(e) if e.kind() == ErrorKind::ConnectionReset => Job::NotTaken,
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn a_job_that_was_taken_is_never_cut_short() {
    let scene = Scene::new();
    let queue = UnixListener::bind(scene.path("queue")).unwrap();
    let path = scene.path("queue").display().to_string();
    let config =
        Config::new(&scene).source().idle(&format!("queue = [\"unix:{path}\"]")).stop("max_kills = 1000");
    let agent = Agent::start(&scene, &config);
    let serves = [
        open("q", Open::Connection("queue".into())),
        Op::Repeat(vec![wait_in(Call::Read, &["q"]), Op::Busy(20), Op::Send("q".into(), 4)]),
    ];
    let mut outcomes = Vec::new();
    for round in 0..ROUNDS / AT_ONCE {
        let names: Vec<_> = (0..AT_ONCE).map(|n| format!("w{round}-{n}")).collect();
        let workers = names.iter().map(|name| worker_doing(name, serves.clone()));
        let master = scene.spawn("master", workers.chain([Op::Forever]).collect::<Vec<_>>());
        let clients: Vec<_> = (0..AT_ONCE).map(|_| queue.accept().unwrap().0).collect();
        let workers: Vec<_> = names.iter().map(|name| scene.proc(name)).collect();
        agent.knows_master(&master);
        workers.iter().for_each(rest);
        master.kill();
        let jobs = clients.into_iter().enumerate().map(|(n, mut client)| {
            let part = (round * AT_ONCE + n * 7) % ROUNDS;
            let delay = EARLIEST
                + (LATEST - EARLIEST) * u32::try_from(part).unwrap() / u32::try_from(ROUNDS).unwrap();
            std::thread::spawn(move || (job(&mut client, delay), client))
        });
        let jobs: Vec<_> = jobs.collect();
        let jobs: Vec<_> = jobs.into_iter().map(|job| job.join().unwrap()).collect();
        outcomes.extend(jobs.iter().map(|(outcome, _)| *outcome));
        for worker in &workers {
            agent.wait_reaped(worker);
        }
    }
    let count = |what| outcomes.iter().filter(|o| **o == what).count();
    assert_eq!(count(Job::CutShort), 0, "{outcomes:?}");
    assert!(count(Job::Done) > 0, "every job came too late to try anything: {outcomes:?}");
    agent.stop();
}
