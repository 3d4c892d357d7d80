//! A worker whose stop signal is immediate death, and its master: for the race drill.
//!
//! `racer master TOKEN PORT LEDGER N` starts N workers and sleeps. `racer worker TOKEN PORT LEDGER` connects to the queue on
//! 127.0.0.1, tells its pid, and then asks for one job after the other: sends a byte, blocks in read(2) until a line with a
//! job's number comes, writes "started" into the ledger, works, writes "ended". Neither lives longer than a minute.
#![allow(clippy::unwrap_used, reason = "a broken worker shows up as a drill that waits for it")]

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use nix::unistd::{alarm, getppid};
use reaper_tests::script::LIFETIME_S;

/// How long a job takes.
const JOB: Duration = Duration::from_millis(20);

fn main() {
    alarm::set(LIFETIME_S);
    let args: Vec<String> = std::env::args().collect();
    match &args[1..] {
        [role, rest @ .., count] if role == "master" => {
            let worker = |_| Command::new("/proc/self/exe").arg("worker").args(rest).spawn().unwrap();
            for mut worker in (0..count.parse::<usize>().unwrap()).map(worker).collect::<Vec<_>>() {
                worker.wait().unwrap();
            }
            std::thread::sleep(Duration::from_secs(u64::from(LIFETIME_S)));
        }
        [_worker, _token, port, ledger] => work(port.parse().unwrap(), ledger),
        _ => std::process::exit(2),
    }
}

fn work(port: u16, ledger: &str) {
    let queue = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut ledger = OpenOptions::new().append(true).open(ledger).unwrap();
    let mut note = |event: &str, job: &str| {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
        let ns = i128::from(now.tv_sec()) * 1_000_000_000 + i128::from(now.tv_nsec());
        let line = format!("{event} {job} {} {} {ns}\n", std::process::id(), getppid());
        ledger.write_all(line.as_bytes()).unwrap();
    };
    let (mut say, mut hear) = (&queue, BufReader::new(&queue));
    writeln!(say, "{}", std::process::id()).unwrap();
    loop {
        say.write_all(b"?").unwrap();
        let mut job = String::new();
        if hear.read_line(&mut job).unwrap() == 0 {
            return;
        }
        let job = job.trim();
        note("started", job);
        std::thread::sleep(JOB);
        note("ended", job);
    }
}
