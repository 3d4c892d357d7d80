//! What cannot be known: who is not shown by /proc, and what was done before anybody looked. In doubt nobody is signalled.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

mod sim;

use reaper::core::ids::MS;
use reaper::core::records::{Event, SparedBecause};

use sim::agent::Host;
use sim::kernel::Birth;
use sim::rules::{MASTER_A, MASTER_B, TOOL, WORKER_A, alpha, beta, rules};
use sim::{count, spawn};

#[test]
fn below_somebody_who_cannot_be_read_nobody_is_a_stray() {
    let mut host = Host::boot(rules(vec![alpha()]), 60);
    // The group has had a master that looks the same: its strays are stopped.
    spawn(&mut host, 0, MASTER_A);
    let stray = spawn(&mut host, 0, WORKER_A);
    let hidden = spawn(&mut host, 0, MASTER_A);
    let worker = spawn(&mut host, hidden, WORKER_A);
    host.kernel.hidden = Some(hidden);
    host.attach();
    host.finish_dump();
    host.wait(5_000 * MS);
    assert!(!host.kernel.is_alive(stray) && host.kernel.is_alive(worker));
    assert!(count(&host, |e| matches!(e, Event::Error { .. })) > 0, "nobody is told");
    host.kernel.hidden = None;
    host.wait(2_500 * MS);
    host.kernel.exit(hidden, 9);
    host.wait(1_000 * MS);
    assert!(!host.kernel.is_alive(worker), "it was looked at again, and its master is known by now");
}

#[test]
fn who_led_a_session_before_the_agent_came_may_have_walked_off() {
    let mut host = Host::boot(rules(vec![beta()]), 60);
    let master = spawn(&mut host, 0, MASTER_B);
    let worker = spawn(&mut host, master, TOOL);
    let daemon = host.kernel.fork(master, Birth::Plain).unwrap();
    host.kernel.setsid(daemon);
    host.kernel.exec(daemon, TOOL);
    host.attach();
    host.finish_dump();
    host.wait(1_500 * MS);
    host.kernel.exit(master, 9);
    host.wait(3_000 * MS);
    assert!(!host.kernel.is_alive(worker) && host.kernel.is_alive(daemon));
    let detached = |e: &Event| matches!(e, Event::Spared { because: SparedBecause::Detached, .. });
    assert_eq!(count(&host, detached), 1);
}
