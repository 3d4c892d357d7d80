//! What looking at a process costs: CPU time by the number of its sockets, and of finding out who holds a pipe.
//!
//! Measures, and asserts next to nothing: `cargo test --release -p reaper-tests --test sampler_cost -- --ignored --nocapture`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a measurement prints its figures"
)]

use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::{ClockId, clock_gettime};
use reaper::core::ids::ProcKey;
use reaper::core::input::Sampled;
use reaper::core::sample::Depth;
use reaper::idle::Sampler;
use reaper::procfs::start_ticks;
use reaper_tests::process::TICK_NS;

const LOOKS: u32 = 20;

/// CPU time of the calling thread.
fn cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

/// CPU time of the first look and the mean of the following ones, and how many sockets they showed.
fn looks(frozen: bool) -> (Duration, Duration, usize) {
    let pid = std::process::id();
    let key = ProcKey { tgid: pid, start_ns: start_ticks(pid).unwrap() * TICK_NS };
    let mut sampler = Sampler::new();
    let mut look = || {
        let Sampled::Seen(sample) = sampler.sample(1, key, Depth::Source, frozen) else {
            panic!("it is here")
        };
        sample.source.unwrap().files.iter().filter(|f| f.what.is_socket()).count()
    };
    let begin = cpu();
    look();
    let first = cpu() - begin;
    let begin = cpu();
    let sockets = (0..LOOKS).map(|_| look()).max().unwrap();
    (first, (cpu() - begin) / LOOKS, sockets)
}

#[test]
#[ignore = "a measurement"]
fn looking_at_sockets() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most.min(16_384), most).unwrap();
    let processes = procfs::process::all_processes().unwrap().count();
    println!("{processes} processes, whose descriptors the first look at a connection walks through");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let mut connections = Vec::new();
    for sockets in [2, 100, 1_000] {
        while connections.len() < sockets / 2 {
            let client = TcpStream::connect(at).unwrap();
            connections.push((client, listener.accept().unwrap().0));
        }
        for frozen in [false, true] {
            let (first, then, seen) = looks(frozen);
            println!("{seen:5} sockets, frozen {frozen:5}: first {first:9.1?}, then {then:9.1?}");
            assert!(seen >= sockets);
        }
    }
}
