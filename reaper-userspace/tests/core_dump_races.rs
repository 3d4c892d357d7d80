//! What happens while a dump is taken is told after it, of processes that the dump has shown elsewhere already.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

mod sim;

use reaper::core::Core;
use reaper::core::ids::{MS, Ns, ProcKey, SECOND};
use reaper::core::input::{Exit, Fork, Input, Parent, Task};
use reaper::core::records::Event;

use sim::agent::Host;
use sim::kernel::{Birth, Who};
use sim::rules::{MASTER_B, WORKER_A, WORKER_B, beta, rules};
use sim::spawn;

fn is_orphan(host: &Host, who: Who) -> bool {
    let pid = host.kernel.procs[who].key.tgid;
    host.log.iter().any(|r| matches!(&r.event, Event::Orphaned { proc, .. } if proc.pid == pid))
}

/// A host whose agent has just attached, with a master of a group that does not name its workers. The dump is under way.
fn dumping() -> (Host, Who) {
    let mut host = Host::boot(rules(vec![beta()]), 200);
    host.attach();
    let master = spawn(&mut host, 0, MASTER_B);
    (host, master)
}

fn rest(mut host: Host) {
    host.check();
    host.come_to_rest();
    host.check_replay();
}

/// Its parent, its only child, and that one's child; the parent exits as those of daemons do. The dump is read afterwards: it
/// shows the child below init.
fn daemonise(host: &mut Host, master: Who, setsid: bool) -> [Who; 2] {
    let middle = spawn(host, master, WORKER_A);
    let daemon = host.kernel.fork(middle, Birth::Plain).unwrap();
    if setsid {
        host.kernel.setsid(daemon);
    }
    host.kernel.exit(middle, 0);
    let now = host.kernel.now;
    host.kernel.advance_to(now + 10 * MS);
    let child = host.kernel.fork(daemon, Birth::Plain).unwrap();
    host.finish_dump();
    host.pump();
    [daemon, child]
}

#[test]
fn a_daemon_that_is_made_while_a_dump_is_taken_has_left() {
    let (mut host, master) = dumping();
    let [daemon, child] = daemonise(&mut host, master, true);
    host.wait(5 * SECOND);
    assert!(host.kernel.is_alive(daemon) && host.kernel.is_alive(child), "a daemon was stopped");
    assert!(!is_orphan(&host, daemon) && !is_orphan(&host, child));
    rest(host);
}

#[test]
fn one_that_may_still_become_a_daemon_has_its_second_although_it_was_made_during_the_dump() {
    let (mut host, master) = dumping();
    let [late, child] = daemonise(&mut host, master, false);
    host.wait(500 * MS);
    assert!(!is_orphan(&host, late) && !is_orphan(&host, child), "decided too early");
    host.kernel.setsid(late);
    host.wait(5 * SECOND);
    assert!(host.kernel.is_alive(late) && host.kernel.is_alive(child), "a daemon was stopped");
    rest(host);
}

#[test]
fn one_that_makes_no_session_is_an_orphan_a_second_later() {
    let (mut host, master) = dumping();
    let [late, child] = daemonise(&mut host, master, false);
    host.wait(500 * MS);
    assert!(!is_orphan(&host, late) && !is_orphan(&host, child), "decided too early");
    host.wait(4 * SECOND);
    assert!(
        is_orphan(&host, late) && host.kernel.is_alive(late),
        "what it forked since its parent left is its work"
    );
    host.kernel.exit(child, 0);
    host.wait(SECOND);
    assert!(!host.kernel.is_alive(late));
    rest(host);
}

/// The one that exits never was about to leave: it has two alike.
#[test]
fn an_intermediate_that_dies_while_a_dump_is_taken_leaves_orphans() {
    let (mut host, master) = dumping();
    let middle = spawn(&mut host, master, WORKER_B);
    let workers = [middle; 2].map(|m| host.kernel.fork(m, Birth::Plain).unwrap());
    host.kernel.exit(middle, 0);
    let now = host.kernel.now;
    host.kernel.advance_to(now + 10 * MS);
    host.finish_dump();
    host.pump();
    assert!(workers.iter().all(|&w| is_orphan(&host, w)), "nobody has lost anything");
    host.wait(SECOND);
    assert!(workers.iter().all(|&w| !host.kernel.is_alive(w)));
    rest(host);
}

/// A record that names somebody's own descendant as its parent is not believed: found by `tests/fuzz`, where the tree had a
/// circle and the core did not come to an end.
#[test]
fn nobody_comes_below_his_own_descendants() {
    const START: Ns = 10;
    let key = |tgid| ProcKey { tgid, start_ns: START };
    let row = |tgid, parent| Task {
        key: key(tgid),
        parent: Parent::Known(key(parent)),
        comm: "x".into(),
        uid: 0,
        session: 1,
        kernel_thread: false,
        reaper: false,
    };
    let mut core = Core::new(1);
    // Two that are each other's parents, and one that is its own.
    let tasks = vec![row(2, 3), row(3, 2), row(4, 4)];
    core.handle(START, Input::Snapshot { at: START, took_ns: 0, tasks });
    core.handle(START, Input::Merged { at: START });
    for (child, parent) in [(6, 2), (7, 6), (8, 7)] {
        core.handle(
            START,
            Input::Fork(Fork {
                at: START,
                child: key(child),
                parent: key(parent),
                comm: "x".into(),
                uid: 0,
                session: 1,
                kernel_thread: false,
            }),
        );
    }
    // Its children go to one of them.
    let adopter = Parent::Known(key(8));
    core.handle(START, Input::Exit(Exit { at: START, key: key(6), status: 0, adopter }));
    let tree = core.tree();
    for id in tree.live() {
        assert!(!tree.ancestors(id).any(|up| up == id), "{} is above itself", tree[id].key());
        assert!(!tree.lineage(id).any(|up| up == id), "{} is its own ancestor", tree[id].key());
    }
    let seven = tree.find(key(7)).unwrap();
    assert!(tree.is_unsettled(seven), "/proc is asked for its parent");
    assert_eq!(tree.descendants(seven).len(), 1);
}
