//! Races that need an exact order: doubled and late records, forks below the dead, adopters that the record does not
//! name, and dumps that are older and younger than the records behind them.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

mod sim;

use reaper::core::ids::MS;
use reaper::core::records::{Event, SparedBecause};

use sim::agent::{Host, Stream};
use sim::kernel::{Birth, Who};
use sim::rules::{MASTER_A, MASTER_B, SHELL, TOOL, WORKER_A, WORKER_B, alpha, beta, gamma, rules};
use sim::{count, spawn};

fn rest(mut host: Host) {
    host.check();
    host.come_to_rest();
    host.check_replay();
}

#[test]
fn an_exit_that_comes_twice_counts_once() {
    let mut host = Host::running(rules(vec![alpha()]));
    host.stream = Stream { double: true, ..Stream::default() };
    let master = spawn(&mut host, 0, MASTER_A);
    let worker = spawn(&mut host, master, WORKER_A);
    host.kernel.exit(master, 9);
    host.wait(500 * MS);
    assert!(!host.kernel.is_alive(worker));
    assert_eq!(count(&host, |e| matches!(e, Event::MasterLost { .. })), 1);
    assert_eq!(count(&host, |e| matches!(e, Event::Orphaned { .. })), 1);
    assert_eq!(count(&host, |e| matches!(e, Event::Reaped { .. })), 1);
    rest(host);
}

#[test]
fn a_late_second_exit_does_not_touch_the_next_owner_of_the_pid() {
    let mut host = Host::boot(rules(vec![alpha()]), 6);
    host.attach();
    host.finish_dump();
    host.stream = Stream { double: true, late: true, ..Stream::default() };
    let first = host.kernel.fork(0, Birth::Plain).unwrap();
    host.kernel.exit(first, 0);
    host.wait(10 * MS);
    let filler = host.kernel.fork(0, Birth::Plain).unwrap();
    let second = host.kernel.fork(0, Birth::Plain).unwrap();
    assert_eq!(host.kernel.procs[second].key.tgid, host.kernel.procs[first].key.tgid);
    host.stream.late = false;
    host.pump();
    host.check();
    assert!(host.core.tree().find(host.kernel.procs[second].key).is_some());
    assert!(host.core.tree().find(host.kernel.procs[filler].key).is_some());
}

#[test]
fn a_child_forked_to_a_dead_parent_has_its_lineage() {
    for group in [alpha(), beta()] {
        let named = group.worker.is_some();
        let mut host = Host::running(rules(vec![group]));
        let (master, worker) = if named { (MASTER_A, WORKER_A) } else { (MASTER_B, WORKER_B) };
        let master = spawn(&mut host, 0, master);
        let worker = spawn(&mut host, master, worker);
        host.pump();
        // CLONE_PARENT between the master's exit tracepoint and the reparenting.
        host.kernel.exit(master, 9);
        let sibling = host.kernel.fork(worker, Birth::Sibling).unwrap();
        host.pump();
        let id = host.core.tree().find(host.kernel.procs[sibling].key).unwrap();
        assert!(host.core.tree().is_unsettled(id));
        host.wait(2_500 * MS);
        assert!(!host.kernel.is_alive(worker) && !host.kernel.is_alive(sibling));
        rest(host);
    }
}

#[test]
fn who_is_overdue_and_cannot_be_held_is_not_aimed_at_all_the_time() {
    let mut group = alpha();
    group.stop.deadline = 1_000 * MS;
    let mut host = Host::running(rules(vec![group]));
    let master = spawn(&mut host, 0, MASTER_A);
    let worker = spawn(&mut host, master, WORKER_A);
    host.kernel.work(worker, 'R', 3_600_000 * MS);
    host.pump();
    host.cannot_hold = true;
    host.kernel.exit(master, 9);
    host.wait(20_000 * MS);
    assert!(host.kernel.is_alive(worker));
    assert!((3..=6).contains(&host.aims), "aimed at {} times", host.aims);
    host.cannot_hold = false;
    host.wait(40_000 * MS);
    assert!(!host.kernel.is_alive(worker));
    rest(host);
}

#[test]
fn an_unnamed_adopter_is_asked_for() {
    let mut host = Host::running(rules(vec![alpha()]));
    let master = spawn(&mut host, 0, MASTER_A);
    let keeper = spawn(&mut host, master, TOOL);
    host.kernel.become_subreaper(keeper);
    let kept = spawn(&mut host, keeper, SHELL);
    let kept_worker = spawn(&mut host, kept, WORKER_A);
    // Its own children wait for it: they cannot be judged before it is known who is above.
    let grandchild = spawn(&mut host, kept_worker, WORKER_A);
    let loose = spawn(&mut host, master, SHELL);
    let loose_worker = spawn(&mut host, loose, WORKER_A);
    host.pump();
    host.stream.deep = true;
    host.kernel.exit(kept, 9);
    host.pump();
    let id = host.core.tree().find(host.kernel.procs[kept_worker].key).unwrap();
    assert!(host.core.tree().is_unsettled(id));
    host.wait(1_000 * MS);
    assert!(host.kernel.is_alive(kept_worker) && host.kernel.is_alive(grandchild));
    assert_ne!(count(&host, |e| matches!(e, Event::Spared { because: SparedBecause::Adopted, .. })), 0);
    // Above it is no other subreaper: init adopts.
    host.kernel.exit(keeper, 9);
    host.wait(1_000 * MS);
    assert!(!host.kernel.is_alive(kept_worker));
    assert!(host.kernel.is_alive(loose_worker));
    rest(host);
}

#[test]
fn who_was_adopted_has_not_left() {
    let mut host = Host::running(rules(vec![alpha()]));
    let master = spawn(&mut host, 0, MASTER_A);
    host.kernel.become_subreaper(master);
    let middle = spawn(&mut host, master, WORKER_A);
    host.pump();
    // It would be a daemon, if its master had not adopted it, which the record does not say.
    host.stream.deep = true;
    let worker = host.kernel.fork(middle, Birth::Plain).unwrap();
    host.kernel.setsid(worker);
    host.kernel.exit(middle, 0);
    host.wait(1_500 * MS);
    host.stream.deep = false;
    host.kernel.exit(master, 9);
    host.wait(1_500 * MS);
    assert!(!host.kernel.is_alive(worker));
    rest(host);
}

#[test]
fn what_was_forked_before_the_exec_stays_somebody_elses_when_the_one_between_is_gone() {
    let mut host = Host::running(rules(vec![alpha()]));
    let script = spawn(&mut host, 0, SHELL);
    let helper = host.kernel.fork(script, Birth::Plain).unwrap();
    host.pump();
    host.kernel.exec(script, TOOL);
    host.pump();
    let own = spawn(&mut host, helper, WORKER_A);
    host.pump();
    host.kernel.exit(helper, 9);
    host.pump();
    // Only now it looks like a master: nobody has kept the helper.
    host.kernel.retitle(script, MASTER_A);
    let worker = spawn(&mut host, script, WORKER_A);
    host.wait(1_500 * MS);
    host.kernel.exit(script, 9);
    host.wait(3_000 * MS);
    assert!(!host.kernel.is_alive(worker) && host.kernel.is_alive(own));
    rest(host);
}

#[test]
fn a_dump_and_the_records_behind_it_tell_the_same() {
    let mut host = Host::boot(rules(vec![alpha(), beta()]), 12);
    let parent = host.kernel.fork(0, Birth::Plain).unwrap();
    let child = host.kernel.fork(parent, Birth::Plain).unwrap();
    let gone = host.kernel.fork(parent, Birth::Plain).unwrap();
    host.attach();
    // All of this is in the ring buffer, and in the rows as well.
    let born = host.kernel.fork(child, Birth::Plain).unwrap();
    host.kernel.exec(child, MASTER_B);
    host.kernel.exit(gone, 0);
    host.wait(10 * MS);
    host.dump_some(6);
    // The iterator is past these pids, or not there yet.
    host.kernel.exit(child, 9);
    host.wait(10 * MS);
    host.kernel.reap(parent);
    let behind = host.kernel.fork(born, Birth::Plain).unwrap();
    let later = host.kernel.fork(behind, Birth::Plain).unwrap();
    let pids = |who: &[Who]| who.iter().map(|&w| host.kernel.procs[w].key.tgid).collect::<Vec<_>>();
    let taken = pids(&[parent, child, gone, born, behind, later]);
    assert!(taken.len() == 6, "{taken:?}");
    host.finish_dump();
    host.check();
    assert!(host.core.is_clear());
    assert_eq!(host.core.tree().live_count(), host.kernel.alive().count());
    rest(host);
}

#[test]
fn a_pid_is_used_again_while_it_is_dumped() {
    let mut host = Host::running(rules(vec![alpha()]));
    host.kernel.pid_max = 7;
    let master = spawn(&mut host, 0, MASTER_A);
    let worker = spawn(&mut host, master, WORKER_A);
    host.pump();
    // The deaths of both are lost, and the worker's pid has another owner when the tree is rebuilt.
    host.stream.lossy = true;
    host.kernel.exit(master, 9);
    host.kernel.exit(worker, 9);
    host.wait(10 * MS);
    host.stream.lossy = false;
    let mut others: Vec<Who> = Vec::new();
    while let Some(other) = host.kernel.fork(0, Birth::Plain) {
        others.push(other);
    }
    let reused = host.kernel.procs[worker].key.tgid;
    assert!(others.iter().any(|&w| host.kernel.procs[w].key.tgid == reused));
    host.pump();
    host.finish_dump();
    host.wait(3_000 * MS);
    assert!(host.fired.is_empty() && others.iter().all(|&w| host.kernel.is_alive(w)));
    assert_eq!(host.core.status()[0].masters, 0);
    rest(host);
}

#[test]
fn nobody_is_a_stray_before_everybody_has_been_looked_at() {
    let mut host = Host::boot(rules(vec![alpha()]), 8);
    let dummy = host.kernel.fork(0, Birth::Plain).unwrap();
    let master = spawn(&mut host, 0, MASTER_A);
    host.kernel.become_subreaper(master);
    let mother = spawn(&mut host, master, SHELL);
    spawn(&mut host, 0, TOOL);
    host.kernel.exit(dummy, 0);
    host.wait(10 * MS);
    host.attach();
    host.dump_some(6);
    // Born behind the iterator to a mother that is dead when it comes to her: the worker is known by records only, and
    // two looks at it are asked for.
    let worker = spawn(&mut host, mother, WORKER_A);
    assert_eq!(host.kernel.procs[worker].key.tgid, host.kernel.procs[dummy].key.tgid);
    host.kernel.exit(mother, 9);
    host.wait(10 * MS);
    host.finish_dump();
    host.wait(2_000 * MS);
    assert!(host.kernel.is_alive(worker), "its master lives");
    assert_eq!(count(&host, |e| matches!(e, Event::Orphaned { .. })), 0);
    rest(host);
}

#[test]
fn the_child_of_a_daemon_in_the_making_waits_for_its_fate() {
    let mut host = Host::running(rules(vec![alpha()]));
    let first = spawn(&mut host, 0, MASTER_A);
    let daemon = host.kernel.fork(first, Birth::Plain).unwrap();
    let worker = spawn(&mut host, daemon, WORKER_A);
    host.wait(900 * MS);
    host.kernel.exit(first, 0);
    // The worker's own look comes due while the daemon still has time for its setsid.
    host.wait(500 * MS);
    host.kernel.setsid(daemon);
    host.wait(3_000 * MS);
    assert!(host.kernel.is_alive(daemon) && host.kernel.is_alive(worker));
    assert!(host.fired.is_empty());
    rest(host);
}

#[test]
fn an_orphan_of_an_observing_group_can_be_one_of_an_enforcing_group_too() {
    let mut host = Host::running(rules(vec![gamma(), beta()]));
    let outer = spawn(&mut host, 0, MASTER_B);
    host.kernel.become_subreaper(outer);
    let inner = spawn(&mut host, outer, sim::rules::MASTER_C);
    let worker = spawn(&mut host, inner, TOOL);
    host.kernel.exit(inner, 9);
    host.wait(1_000 * MS);
    assert!(host.kernel.is_alive(worker), "its group observes, and the other one has its master");
    host.kernel.exit(outer, 9);
    host.wait(1_500 * MS);
    assert!(!host.kernel.is_alive(worker));
    rest(host);
}

#[test]
fn what_would_be_done_is_told_once() {
    let mut host = Host::running(rules(vec![gamma()]));
    let master = spawn(&mut host, 0, sim::rules::MASTER_C);
    let worker = spawn(&mut host, master, TOOL);
    host.wait(1_500 * MS);
    host.kernel.exit(master, 9);
    host.wait(2_000 * MS);
    // Nothing about it has changed.
    spawn(&mut host, 0, sim::rules::MASTER_C);
    host.wait(3_000 * MS);
    assert!(host.kernel.is_alive(worker));
    assert_eq!(count(&host, |e| matches!(e, Event::Signal { dry_run: true, .. })), 1);
    assert_eq!(count(&host, |e| matches!(e, Event::Spared { .. })), 1);
    rest(host);
}

/// A worker of a master that lives leaves a daemon, which forks twice and dies in the same millisecond.
fn a_short_lived_daemon(host: &mut Host, subreaper: bool) -> [Who; 3] {
    let master = spawn(host, 0, MASTER_A);
    if subreaper {
        host.kernel.become_subreaper(master);
    }
    let worker = spawn(host, master, WORKER_A);
    host.pump();
    let daemon = host.kernel.fork(worker, Birth::Plain).unwrap();
    host.kernel.setsid(daemon);
    host.kernel.exit(worker, 0);
    host.pump();
    let child = host.kernel.fork(daemon, Birth::Plain).unwrap();
    let grandchild = host.kernel.fork(child, Birth::Plain).unwrap();
    host.kernel.exit(daemon, 1 << 8);
    host.pump();
    [master, child, grandchild]
}

#[test]
fn a_daemon_that_dies_before_its_fate_is_known_took_its_children_along() {
    // Nobody has looked at it, or nobody knew who had adopted it.
    for stream in [Stream { late: true, ..Stream::default() }, Stream { deep: true, ..Stream::default() }] {
        let mut host = Host::running(rules(vec![alpha()]));
        host.stream = stream;
        let [master, child, grandchild] = a_short_lived_daemon(&mut host, false);
        host.wait(10 * MS);
        host.stream = Stream::default();
        host.wait(3_000 * MS);
        host.kernel.exit(master, 9);
        host.wait(3_000 * MS);
        assert!(host.kernel.is_alive(child) && host.kernel.is_alive(grandchild));
        assert_eq!(count(&host, |e| matches!(e, Event::Orphaned { .. })), 0);
        assert_ne!(count(&host, |e| matches!(e, Event::Spared { because: SparedBecause::Detached, .. })), 0);
        rest(host);
    }
}

#[test]
fn a_daemon_that_its_master_adopts_has_not_left_even_if_it_dies_before_that_is_known() {
    let mut host = Host::running(rules(vec![alpha()]));
    host.stream.deep = true;
    let [master, child, grandchild] = a_short_lived_daemon(&mut host, true);
    host.stream.deep = false;
    host.wait(3_000 * MS);
    assert!(host.kernel.is_alive(child) && host.kernel.is_alive(grandchild));
    assert_ne!(count(&host, |e| matches!(e, Event::Spared { because: SparedBecause::Adopted, .. })), 0);
    host.kernel.exit(master, 9);
    host.wait(3_000 * MS);
    assert!(!host.kernel.is_alive(child) && !host.kernel.is_alive(grandchild));
    rest(host);
}

#[test]
fn an_heir_that_dies_before_anybody_looks_leaves_orphans_of_its_own() {
    let mut host = Host::running(rules(vec![alpha()]));
    let first = spawn(&mut host, 0, MASTER_A);
    host.pump();
    host.stream.late = true;
    let heir = host.kernel.fork(first, Birth::Plain).unwrap();
    host.kernel.setsid(heir);
    host.kernel.exit(first, 0);
    host.wait(10 * MS);
    let worker = spawn(&mut host, heir, WORKER_A);
    host.kernel.exit(heir, 9);
    host.wait(10 * MS);
    host.stream.late = false;
    host.wait(1_500 * MS);
    assert_eq!(count(&host, |e| matches!(e, Event::Heir { .. })), 1);
    assert_eq!(count(&host, |e| matches!(e, Event::MasterLost { .. })), 2);
    assert!(!host.kernel.is_alive(worker));
    rest(host);
}

#[test]
fn a_master_of_two_groups_that_becomes_something_else_leaves_orphans_of_both() {
    let mut host = Host::running(rules(vec![alpha(), beta()]));
    let master = spawn(&mut host, 0, MASTER_A);
    host.pump();
    host.kernel.exec(master, MASTER_B);
    host.pump();
    // They look like masters themselves, but an orphan does not become one by its title alone.
    let child = host.kernel.fork(master, Birth::Plain).unwrap();
    let grandchild = host.kernel.fork(child, Birth::Plain).unwrap();
    host.pump();
    host.kernel.exec(master, WORKER_A);
    host.wait(5_000 * MS);
    assert!(host.kernel.is_alive(master));
    assert!(!host.kernel.is_alive(child) && !host.kernel.is_alive(grandchild));
    rest(host);
}

#[test]
fn who_is_born_to_a_dead_nobody_is_no_stray() {
    let mut host = Host::running(rules(vec![alpha()]));
    let script = spawn(&mut host, 0, WORKER_A);
    let helper = host.kernel.fork(script, Birth::Plain).unwrap();
    host.pump();
    host.kernel.exit(script, 0);
    host.pump();
    // The script is forgotten, since it was of no group: but that is known of it.
    let sibling = host.kernel.fork(helper, Birth::Sibling).unwrap();
    let master = spawn(&mut host, 0, MASTER_A);
    host.wait(5_000 * MS);
    assert!(host.kernel.is_alive(helper) && host.kernel.is_alive(sibling) && host.kernel.is_alive(master));
    assert_eq!(count(&host, |e| matches!(e, Event::Orphaned { .. })), 0);
    rest(host);
}

#[test]
fn a_stray_that_looks_like_something_else_is_none() {
    for execs in [true, false] {
        let mut host = Host::boot(rules(vec![alpha()]), 60);
        let other = spawn(&mut host, 0, WORKER_A);
        let stray = spawn(&mut host, 0, WORKER_A);
        host.attach();
        host.finish_dump();
        host.wait(1_500 * MS);
        assert_eq!(count(&host, |e| matches!(e, Event::Orphaned { stray: true, .. })), 2);
        if execs {
            host.kernel.exec(other, TOOL);
        } else {
            host.kernel.retitle(other, TOOL);
        }
        // From now on the group is armed, and its strays are stopped.
        let master = spawn(&mut host, 0, MASTER_A);
        host.wait(5_000 * MS);
        assert!(host.kernel.is_alive(other) && host.kernel.is_alive(master) && !host.kernel.is_alive(stray));
        assert_eq!(count(&host, |e| matches!(e, Event::Left { .. })), 1);
        rest(host);
    }
}

#[test]
fn below_somebody_who_may_inherit_one_group_those_of_another_have_lost_theirs() {
    let mut host = Host::running(rules(vec![alpha(), beta()]));
    let master = spawn(&mut host, 0, MASTER_A);
    let middle = host.kernel.fork(master, Birth::Plain).unwrap();
    let heir = host.kernel.fork(middle, Birth::Plain).unwrap();
    host.kernel.become_subreaper(heir);
    let second = spawn(&mut host, heir, MASTER_B);
    let worker = spawn(&mut host, second, WORKER_B);
    host.pump();
    // Above the worker there is another master of its group, as long as the one in the middle lives.
    host.kernel.exec(master, MASTER_B);
    host.pump();
    host.kernel.exit(second, 9);
    host.wait(500 * MS);
    assert!(host.kernel.is_alive(worker));
    host.kernel.setsid(heir);
    host.kernel.exit(middle, 0);
    host.wait(1_500 * MS);
    assert!(host.kernel.is_alive(heir) && !host.kernel.is_alive(worker));
    rest(host);
}

#[test]
fn what_a_master_forks_after_it_was_something_else_for_a_moment_is_its_worker() {
    let mut host = Host::running(rules(vec![beta()]));
    let master = spawn(&mut host, 0, MASTER_B);
    host.pump();
    host.kernel.exec(master, WORKER_B);
    host.wait(1_100 * MS);
    host.kernel.exec(master, MASTER_B);
    host.pump();
    let worker = host.kernel.fork(master, Birth::Plain).unwrap();
    host.pump();
    host.kernel.exit(master, 0);
    host.wait(3_000 * MS);
    assert!(!host.kernel.is_alive(worker));
    rest(host);
}

#[test]
fn a_daemon_that_one_of_two_masters_adopts_has_left_both() {
    let mut host = Host::running(rules(vec![alpha(), beta()]));
    let outer = spawn(&mut host, 0, MASTER_B);
    host.kernel.become_subreaper(outer);
    let master = spawn(&mut host, outer, MASTER_A);
    let worker = spawn(&mut host, master, WORKER_A);
    host.pump();
    host.stream.deep = true;
    let daemon = host.kernel.fork(worker, Birth::Plain).unwrap();
    host.kernel.setsid(daemon);
    host.kernel.exit(worker, 0);
    host.pump();
    let child = host.kernel.fork(daemon, Birth::Plain).unwrap();
    host.kernel.exit(daemon, 1 << 8);
    host.wait(1_500 * MS);
    host.stream.deep = false;
    host.kernel.exit(master, 9);
    host.wait(1_500 * MS);
    assert!(host.kernel.is_alive(child), "it is no worker of the master that its parent left");
    rest(host);
}

#[test]
fn a_daemon_has_left_a_master_that_is_recognised_only_later() {
    for setsid_first in [true, false] {
        let mut host = Host::running(rules(vec![alpha(), beta()]));
        let master = spawn(&mut host, 0, SHELL);
        let worker = spawn(&mut host, master, WORKER_A);
        let daemon = host.kernel.fork(worker, Birth::Plain).unwrap();
        host.pump();
        if setsid_first {
            host.kernel.setsid(daemon);
        }
        host.kernel.exit(worker, 0);
        host.wait(100 * MS);
        host.kernel.setsid(daemon);
        host.wait(100 * MS);
        host.kernel.retitle(master, MASTER_A);
        let other = spawn(&mut host, master, WORKER_A);
        host.wait(5_000 * MS);
        assert!(host.kernel.is_alive(daemon) && host.kernel.is_alive(other));
        host.kernel.exit(master, 9);
        host.wait(3_000 * MS);
        assert!(host.kernel.is_alive(daemon) && !host.kernel.is_alive(other));
        rest(host);
    }
}

#[test]
fn an_orphan_that_execs_is_looked_at_anew() {
    let mut host = Host::running(rules(vec![alpha()]));
    let master = spawn(&mut host, 0, MASTER_A);
    let worker = spawn(&mut host, master, WORKER_A);
    host.kernel.exit(master, 9);
    host.wait(150 * MS);
    host.kernel.exec(worker, WORKER_A);
    host.wait(100 * MS);
    assert!(host.kernel.is_alive(worker), "the image that it runs now has not been idle for long enough");
    host.wait(300 * MS);
    assert!(!host.kernel.is_alive(worker));
    rest(host);
}

#[test]
fn what_its_mother_was_may_have_been_lost() {
    let mut host = Host::running(rules(vec![alpha()]));
    let master = spawn(&mut host, 0, MASTER_A);
    let known = spawn(&mut host, master, WORKER_A);
    let another = host.kernel.fork(0, Birth::Plain).unwrap();
    host.pump();
    host.stream.lossy = true;
    host.kernel.exec(another, MASTER_A);
    host.collect();
    host.stream.lossy = false;
    let worker = spawn(&mut host, another, WORKER_A);
    let helper = spawn(&mut host, another, TOOL);
    let below = spawn(&mut host, helper, WORKER_A);
    host.kernel.exit(another, 9);
    host.pump();
    host.finish_dump();
    host.wait(5_000 * MS);
    assert!(!host.kernel.is_alive(worker) && !host.kernel.is_alive(below), "they are strays");
    assert!(host.kernel.is_alive(helper) && host.kernel.is_alive(known) && host.kernel.is_alive(master));
    rest(host);
}

#[test]
fn a_daemon_that_its_master_adopts_is_an_heir_when_that_one_goes() {
    // With a record that says who adopted it, and with one that does not.
    for deep in [false, true] {
        let mut host = Host::running(rules(vec![beta()]));
        let master = spawn(&mut host, 0, MASTER_B);
        host.kernel.become_subreaper(master);
        let other = spawn(&mut host, master, WORKER_B);
        let middle = host.kernel.fork(master, Birth::Plain).unwrap();
        host.kernel.setsid(middle);
        let daemon = host.kernel.fork(middle, Birth::Plain).unwrap();
        host.pump();
        host.stream.deep = deep;
        host.kernel.exit(middle, 0);
        host.wait(1_500 * MS);
        host.stream.deep = false;
        assert_eq!(count(&host, |e| matches!(e, Event::Spared { because: SparedBecause::Adopted, .. })), 1);
        host.kernel.exit(master, 0);
        host.wait(5_000 * MS);
        assert!(host.kernel.is_alive(daemon), "a master was stopped");
        assert!(!host.kernel.is_alive(other));
        assert_eq!(count(&host, |e| matches!(e, Event::Heir { .. })), 1);
        rest(host);
    }
}

#[test]
fn a_daemon_of_nobody_stays_one_when_somebody_above_it_becomes_a_master_unseen() {
    let mut host = Host::running(rules(vec![alpha()]));
    let top = host.kernel.fork(0, Birth::Plain).unwrap();
    let above = host.kernel.fork(top, Birth::Plain).unwrap();
    let middle = spawn(&mut host, above, WORKER_A);
    host.pump();
    // A master of those only that it forks from now on.
    host.kernel.exec(top, MASTER_A);
    host.pump();
    let heir = host.kernel.fork(top, Birth::Plain).unwrap();
    host.kernel.setsid(heir);
    host.pump();
    host.kernel.exit(top, 0);
    host.pump();
    let daemon = host.kernel.fork(middle, Birth::Plain).unwrap();
    host.kernel.setsid(daemon);
    host.kernel.exit(middle, 0);
    host.collect();
    host.stream.lossy = true;
    host.kernel.exec(above, MASTER_A);
    host.collect();
    host.stream.lossy = false;
    host.kernel.fork(0, Birth::Plain).unwrap();
    host.pump();
    host.finish_dump();
    host.wait(5_000 * MS);
    assert!(host.kernel.is_alive(daemon), "a daemon was stopped");
    rest(host);
}
