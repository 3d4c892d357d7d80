//! What the core says to whoever asks, on the simulated kernel: roles, tombstones, what comes next, explanations.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

mod sim;

use std::fmt::Write as _;

use expect_test::{Expect, expect};
use reaper::core::ids::{MS, SECOND};
use reaper::core::rules::{Endpoint, Group, IdleRules, Mode, Proof, StopRules, When};
use reaper::core::view::{Does, Next, Role, Which};

use sim::agent::Host;
use sim::kernel::{Birth, Manner, Program, Who};
use sim::rules::{
    GUARDED, JOB_A, MASTER_A, MASTER_B, SHELL, TOOL, WORKER_A, WORKER_B, alpha, beta, gamma, rules,
};

/// The first process of every simulated host.
const INIT: Who = 0;

fn host(groups: Vec<Group>) -> Host {
    Host::running(rules(groups))
}

fn spawn(host: &mut Host, by: Who, program: Program) -> Who {
    let child = host.kernel.fork(by, Birth::Plain).unwrap();
    host.pump();
    host.kernel.exec(child, program);
    host.pump();
    child
}

fn dies(host: &mut Host, who: Who) {
    host.kernel.exit(who, 9);
    host.pump();
}

fn wait(host: &mut Host, ms: u64) {
    host.wait(ms * MS);
}

fn pid(host: &Host, who: Who) -> u32 {
    host.kernel.procs[who].key.tgid
}

/// A line for each row: pid, parent, arguments, roles, lineage.
fn tree(host: &Host, which: &Which) -> String {
    let mut text = String::new();
    for row in host.core.rows(which).unwrap() {
        let roles: Vec<_> = row.roles.iter().map(|p| format!("{} of {}", p.role, p.group)).collect();
        let line: Vec<_> =
            row.lineage.iter().map(|a| format!("{}{}", if a.alive { "" } else { "+" }, a.pid)).collect();
        let dead = if row.alive { "" } else { "+" };
        let (pid, ppid, argv) = (row.proc.pid, row.proc.ppid, row.proc.argv.line());
        writeln!(text, "{dead}{pid} < {ppid} {argv:?} {roles:?} born of {line:?}").unwrap();
    }
    text
}

fn role(host: &Host, who: Who) -> Vec<Role> {
    let rows = host.core.rows(&Which { all: true, group: None }).unwrap();
    let row = rows.iter().find(|r| r.alive && r.proc.pid == pid(host, who)).unwrap();
    row.roles.iter().map(|p| p.role).collect()
}

fn next(host: &Host, who: Who) -> Next {
    let all = host.core.orphan_views(host.kernel.now, usize::MAX);
    all.into_iter().find(|o| o.proc.pid == pid(host, who)).unwrap_or_else(|| panic!("no orphan")).next
}

/// What `reaper explain` has to say, without the numbers.
fn explained(host: &Host, who: Who) -> String {
    let known = host.core.explain(host.kernel.now, pid(host, who)).unwrap();
    let mut says = known.says;
    for group in known.groups {
        says.push(format!("{} of {}: {}", group.role, group.group, group.says.join(" ")));
    }
    says.extend(known.next.map(|n| format!("{} [{}]", n.says, n.rule)));
    says.join("\n")
}

fn check(told: &str, expected: &Expect) {
    expected.assert_eq(&format!("{told}\n"));
}

/// A master with a worker that has a worker and a job below it, in a group that names its workers.
struct Family {
    master: Who,
    outer: Who,
    inner: Who,
    tool: Who,
    job: Who,
}

fn family(host: &mut Host) -> Family {
    let shell = spawn(host, INIT, SHELL);
    let master = spawn(host, shell, MASTER_A);
    let outer = spawn(host, master, WORKER_A);
    let inner = spawn(host, outer, WORKER_A);
    let tool = spawn(host, outer, TOOL);
    let job = spawn(host, inner, JOB_A);
    spawn(host, INIT, TOOL);
    wait(host, 2_000);
    Family { master, outer, inner, tool, job }
}

#[test]
fn the_tree_of_groups_has_their_members_and_who_is_above() {
    let mut host = host(vec![alpha(), beta()]);
    let family = family(&mut host);
    check(
        &tree(&host, &Which::default()),
        &expect![[r#"
        1 < 0 "init" [] born of []
        5 < 1 "sh" [] born of []
        6 < 5 "alpha master" ["master of a"] born of ["5", "1"]
        7 < 6 "alpha worker" ["worker of a"] born of ["6", "5", "1"]
        8 < 7 "alpha worker" ["worker of a"] born of ["7", "6", "5", "1"]
        9 < 7 "tool --once" ["member of a"] born of ["7", "6", "5", "1"]
        10 < 8 "alpha worker job" ["job child of a"] born of ["8", "7", "6", "5", "1"]

    "#]],
    );
    assert_eq!(role(&host, family.tool), [Role::Member]);
    let all = host.core.rows(&Which { all: true, group: None }).unwrap();
    assert_eq!(all.len(), host.core.tree().live_count());
    assert_eq!(host.core.rows(&Which { group: Some("b".into()), all: false }), Some(vec![]));
    assert_eq!(host.core.rows(&Which { group: Some("z".into()), all: false }), None);
}

#[test]
fn an_orphan_is_below_its_dead_master() {
    let mut host = host(vec![alpha()]);
    let family = family(&mut host);
    dies(&mut host, family.master);
    wait(&mut host, 20);
    check(
        &tree(&host, &Which::default()),
        &expect![[r#"
        1 < 0 "init" [] born of []
        +6 < 0 "alpha master" ["master of a"] born of ["5", "1"]
        7 < 1 "alpha worker" ["orphan of a"] born of ["+6", "5", "1"]
        8 < 7 "alpha worker" ["orphan of a"] born of ["7", "+6", "5", "1"]
        9 < 7 "tool --once" ["member of a"] born of ["7", "+6", "5", "1"]
        10 < 8 "alpha worker job" ["job child of a"] born of ["8", "7", "+6", "5", "1"]

    "#]],
    );
    assert_eq!(role(&host, family.outer), [Role::Orphan]);
    assert_eq!(role(&host, family.job), [Role::JobChild]);
    check(
        &explained(&host, family.inner),
        &expect![[r#"
        orphan of a: It has been an orphan for 20 ms: it descends from master 6 (alpha, dead), and no live master of the group is above it.
        TERM as soon as it has been idle for 200 ms [no signal to a busy process; not known counts as busy]
    "#]],
    );
    check(
        &explained(&host, family.job),
        &expect![[r#"
        job child of a: It has been an orphan for 20 ms: it descends from master 6 (alpha, dead), and no live master of the group is above it.
        nothing: it is a job itself, or has no command line to tell; jobs are never signalled [stop.job_children]
    "#]],
    );
    check(
        &explained(&host, family.master),
        &expect![[r#"
        It is dead, and remembered because 4 live processes descend from it.
        master of a: It is dead. When it died it was a master of the group.
    "#]],
    );
    dies(&mut host, family.job);
    dies(&mut host, family.tool);
    wait(&mut host, 5_000);
    assert!(!host.kernel.is_alive(family.outer), "it goes when it is idle");
    assert_eq!(
        host.core.explain(host.kernel.now, pid(&host, family.master)),
        None,
        "nobody needs it any more"
    );
}

#[test]
fn masters_workers_and_strangers_explained() {
    let mut host = host(vec![alpha(), gamma()]);
    let family = family(&mut host);
    for who in [family.master, family.outer, family.tool] {
        let told = explained(&host, who);
        assert!(!told.is_empty());
    }
    check(
        &explained(&host, family.master),
        &expect![[r#"
        master of a: It is a master: it matches the group's master patterns and has no master above it. Masters are never signalled. If it dies, 3 workers are left without a master: each would get TERM as soon as it has been idle for 200 ms.
    "#]],
    );
    check(
        &explained(&host, family.outer),
        &expect![[r#"
        worker of a: It is a worker of master 6 (alpha), which lives. Nothing happens to it while a master lives above it. If it loses that, it would get TERM as soon as it has been idle for 200 ms.
    "#]],
    );
    check(
        &explained(&host, family.tool),
        &expect![[r#"
        member of a: It is below a master of the group and does not match the group's worker patterns. It is never signalled for this group.
    "#]],
    );
    check(
        &explained(&host, INIT),
        &expect![[r#"
        It belongs to no group: nothing is done about it.
        It is protected: it is never signalled, whatever it is.
    "#]],
    );
    assert_eq!(host.core.explain(host.kernel.now, 99_999), None);
}

/// Who looks like a worker and has no master above is told why nobody watches it.
#[test]
fn who_only_looks_like_a_worker() {
    let mut host = host(vec![alpha(), gamma()]);
    family(&mut host);
    let shell = spawn(&mut host, INIT, SHELL);
    let alone = spawn(&mut host, shell, WORKER_A);
    check(
        &explained(&host, alone),
        &expect![[r#"
            It belongs to no group: nothing is done about it.
            It fits the worker patterns of group a, but none of its ancestors is a master of that group, so it is not watched: above it are 12 (sh) and 1 (init).
            It would be a worker if one of them matched the master patterns (group.master) of that group.
        "#]],
    );
    let mut inner = shell;
    for _ in 0..4 {
        inner = spawn(&mut host, inner, SHELL);
    }
    let deep = spawn(&mut host, inner, WORKER_A);
    assert!(explained(&host, deep).contains("(sh) and others."), "{}", explained(&host, deep));
    // A name alone is not what the group asks for.
    let mut exe = alpha();
    exe.worker.as_mut().unwrap().exe = Some(globset::Glob::new("/usr/bin/alpha").unwrap().compile_matcher());
    let mut host = Host::running(rules(vec![exe, Group { name: "a2".to_owned(), ..alpha() }]));
    let alone = spawn(&mut host, INIT, WORKER_A);
    check(
        &explained(&host, alone),
        &expect![[r#"
            It belongs to no group: nothing is done about it.
            It fits the worker patterns of groups a and a2, as far as its user, its name and its arguments tell, but none of its ancestors is a master of those groups, so it is not watched: above it is 1 (init).
            It would be a worker if one of them matched the master patterns (group.master) of those groups.
        "#]],
    );
}

/// Who waits for an endpoint that its group does not name may wait for its queue: where that is written down is said.
#[test]
fn an_endpoint_that_may_be_the_queue() {
    let queue = |queue: Vec<Endpoint>| {
        let mut group = alpha();
        group.idle = IdleRules { proof: Proof::Source, queue, ..group.idle };
        let mut host = host(vec![group]);
        let family = family(&mut host);
        host.kernel.work(family.outer, 'S', 30 * SECOND);
        dies(&mut host, family.master);
        wait(&mut host, 300);
        explained(&host, family.outer)
    };
    let redis = Endpoint::Tcp { ip: None, port: 6379 };
    let told = queue(vec![redis.clone()]);
    let hint = "The group's queue is tcp/6379. If its jobs come from unix:/run/source.sock, name that in [group.idle], too: \
                queue = [\"tcp/6379\", \"unix:/run/source.sock\"].";
    assert!(told.contains(hint), "{told}");
    let right = queue(vec![redis, Endpoint::Unix("/run/source.sock".to_owned())]);
    assert!(!right.contains("The group's queue"), "{right}");
    let server = queue(vec![]);
    assert!(!server.contains("The group's queue"), "{server}");
}

/// Looking changes nothing: the same is said twice, and what the core wants is the same with and without.
#[test]
fn looking_changes_nothing() {
    let mut host = host(vec![alpha(), gamma()]);
    let family = family(&mut host);
    dies(&mut host, family.master);
    let look = |host: &Host| format!("{}{}", tree(host, &Which::default()), explained(host, family.outer));
    let (before, deadline) = (look(&host), host.core.next_deadline());
    assert_eq!(look(&host), before);
    assert_eq!(host.core.next_deadline(), deadline);
    host.come_to_rest();
    host.check_replay();
}

#[test]
fn what_comes_next_for_an_idle_and_a_busy_one() {
    let mut host = host(vec![Group { stop: StopRules { deadline: 60 * SECOND, ..beta().stop }, ..beta() }]);
    let master = spawn(&mut host, INIT, MASTER_B);
    let idle = spawn(&mut host, master, WORKER_B);
    let busy = spawn(&mut host, master, WORKER_B);
    wait(&mut host, 2_000);
    host.kernel.work(busy, 'R', 30 * SECOND);
    dies(&mut host, master);
    wait(&mut host, 100);
    let (now, later) = (next(&host, idle), next(&host, busy));
    assert_eq!((now.does, now.signal.as_deref(), now.step), (Does::Signal, Some("TERM"), Some(0)));
    let left = now.in_us.unwrap();
    assert!((1..200_000).contains(&left), "{now:?}");
    assert!(now.says.contains("if it stays idle; in 59 s even if busy"), "{now:?}");
    assert_eq!((later.does, later.in_us), (Does::Signal, None));
    check(
        &later.says,
        &expect![[r#"
        TERM as soon as it has been idle for 200 ms; in 59 s even if busy
    "#]],
    );
    wait(&mut host, 70_000);
    assert!(!host.kernel.is_alive(idle) && !host.kernel.is_alive(busy));
}

#[test]
fn after_a_signal_comes_the_next_one() {
    let mut host = host(vec![beta()]);
    let master = spawn(&mut host, INIT, MASTER_B);
    let worker = spawn(&mut host, master, WORKER_B);
    host.kernel.procs[worker].manner = Manner::Ignores;
    wait(&mut host, 2_000);
    dies(&mut host, master);
    wait(&mut host, 500);
    let kill = next(&host, worker);
    assert_eq!((kill.signal.as_deref(), kill.step), (Some("KILL"), Some(1)));
    assert!(kill.says.ends_with("if it is idle then; TERM was sent"), "{kill:?}");
    assert_eq!(kill.rule, "stop.grace = 2 s");
}

#[test]
fn who_is_spared_and_by_which_rule() {
    let observed = Group { mode: Mode::Observe, ..beta() };
    let replaced = Group { stop: StopRules { when: When::Replaced, ..beta().stop }, ..beta() };
    let none_left = Group { stop: StopRules { max_kills: 0, ..beta().stop }, ..beta() };
    let mut told = String::new();
    for group in [observed, replaced, none_left] {
        let mut host = host(vec![group]);
        let master = spawn(&mut host, INIT, MASTER_B);
        let worker = spawn(&mut host, master, WORKER_B);
        wait(&mut host, 2_000);
        dies(&mut host, master);
        wait(&mut host, 50);
        let Next { does, spared, says, rule, .. } = next(&host, worker);
        writeln!(told, "{does:?} {spared:?}: {says} [{rule}]").unwrap();
        wait(&mut host, 5_000);
        // The same is said after it was decided as before.
        assert_eq!(next(&host, worker).spared, spared);
        assert!(host.kernel.is_alive(worker));
    }
    let mut guarded = host(vec![beta()]);
    let master = spawn(&mut guarded, INIT, MASTER_B);
    let worker = spawn(&mut guarded, master, GUARDED);
    wait(&mut guarded, 2_000);
    dies(&mut guarded, master);
    wait(&mut guarded, 50);
    let Next { does, spared, says, rule, .. } = next(&guarded, worker);
    writeln!(told, "{does:?} {spared:?}: {says} [{rule}]").unwrap();
    check(
        &told,
        &expect![[r#"
        Rehearse Some(Observe): nothing: its group only observes (else: TERM in 149 ms, if it stays idle) [mode = "observe"]
        Nothing Some(NotReplaced): nothing until a live master of its group exists: it may be the only one that still serves [stop.when = "replaced"]
        Nothing Some(Breaker): nothing: its group has stopped as many as it may; a reload (SIGHUP) arms it again [stop.max_kills = 0 within stop.window = 1 min]
        Nothing Some(Protected): nothing: it is protected [agent.protect and the built-in names, pid 1, kernel threads, the agent and its ancestors are never signalled]

    "#]],
    );
}

/// Somebody sends a worker its stop signal, and then its master dies: it is left to finish.
#[test]
fn who_was_asked_to_stop_is_draining() {
    let mut host = host(vec![beta()]);
    let master = spawn(&mut host, INIT, MASTER_B);
    let worker = spawn(&mut host, master, WORKER_B);
    host.kernel.procs[worker].manner = Manner::Ignores;
    wait(&mut host, 2_000);
    host.kernel.signal(worker, 15, INIT);
    host.pump();
    assert_eq!(role(&host, worker), [Role::Draining]);
    check(
        &explained(&host, worker),
        &expect![[r#"
        draining of b: It is a worker with a live master. Process 1 has sent it TERM: it is left to finish, also if it loses its master.
    "#]],
    );
    dies(&mut host, master);
    wait(&mut host, 500);
    assert_eq!(role(&host, worker), [Role::Draining]);
    check(
        &explained(&host, worker),
        &expect![[r#"
        draining of b: It has been an orphan for 500 ms: it descends from master 5 (beta, dead), and no live master of the group is above it.
        nothing: process 1 has sent it TERM, and it is left to finish [a stop signal is not sent a second time: that is a cold kill in several frameworks]
    "#]],
    );
}
