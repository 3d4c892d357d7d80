//! Each operation of an actor does what it says: the tests of the tests' own tool, through /proc.
#![allow(clippy::unwrap_used, reason = "in a test a broken assumption is a failure")]

use std::time::Duration;

use procfs::process::Process;
use reaper_tests::process::{PATIENCE, Proc, Signal, assert_no_process_left, wait_until, with_token};
use reaper_tests::scene::Scene;
use reaper_tests::script::{Op, exec, fork, gate, note, title, twin, worker, worker_doing};

fn ppid(p: &Proc) -> i32 {
    p.stat().unwrap().ppid
}

#[test]
fn command_line_is_role_and_token() {
    let scene = Scene::new();
    let p = scene.spawn("master", [note("up"), Op::Forever]);
    let entry = scene.entry("up");
    assert_eq!((entry.pid, entry.start_ticks), (p.pid(), p.start_ticks()));
    assert_eq!(i64::from(entry.ppid), i64::from(std::process::id()));
    let cmdline = p.cmdline();
    assert!(cmdline.ends_with(&format!("/actor master {}", scene.token())), "{cmdline}");
}

#[test]
fn fork_has_the_same_image_and_exec_another_role() {
    let scene = Scene::new();
    let p = scene.spawn("master", [twin("twin"), worker("worker"), Op::Forever]);
    let (twin, worker) = (scene.proc("twin"), scene.proc("worker"));
    assert_eq!((ppid(&twin), ppid(&worker)), (p.pid(), p.pid()));
    assert_eq!(twin.cmdline(), p.cmdline());
    assert!(worker.cmdline().ends_with(&format!(" worker {}", scene.token())));
}

#[test]
fn exec_keeps_the_process() {
    let scene = Scene::new();
    let p = scene.spawn("master", [exec("other", [note("again"), Op::Forever])]);
    let again = scene.entry("again");
    assert_eq!((again.pid, again.start_ticks), (p.pid(), p.start_ticks()));
    assert!(p.cmdline().contains(" other "));
}

#[test]
fn exec_from_another_thread_keeps_the_process() {
    let scene = Scene::new();
    let p =
        scene.spawn("master", [Op::Thread(vec![exec("other", [note("again"), Op::Forever])]), Op::Forever]);
    let again = scene.entry("again");
    assert_eq!((again.pid, again.start_ticks), (p.pid(), p.start_ticks()));
}

#[test]
fn a_process_outlives_its_leader() {
    let scene = Scene::new();
    let p = scene.spawn(
        "master",
        [Op::Thread(vec![Op::Sleep(50), note("thread"), gate("end"), Op::Exit(0)]), Op::ExitThread],
    );
    scene.entry("thread");
    wait_until("the leader is a zombie", || {
        Process::new(p.pid()).and_then(|p| p.stat()).is_ok_and(|s| s.state == 'Z')
    });
    assert!(p.is_alive());
    assert_eq!(with_token(scene.token()).len(), 1);
    scene.open_gate("end");
    assert!(p.wait_gone(PATIENCE));
}

#[test]
fn sibling_is_a_child_of_the_parent() {
    let scene = Scene::new();
    let p = scene.spawn(
        "master",
        [
            fork([note("child"), Op::ForkSibling(vec![note("sibling"), Op::Forever]), Op::Forever]),
            Op::Forever,
        ],
    );
    let (child, sibling) = (scene.proc("child"), scene.proc("sibling"));
    assert_eq!((ppid(&child), ppid(&sibling)), (p.pid(), p.pid()));
}

#[test]
fn setsid_makes_a_session() {
    let scene = Scene::new();
    scene.spawn("master", [fork([Op::Setsid, note("child"), Op::Forever]), Op::Forever]);
    let child = scene.proc("child");
    assert_eq!(child.stat().unwrap().session, child.pid());
}

#[test]
fn a_subreaper_adopts_until_it_stops_being_one() {
    let scene = Scene::new();
    let orphan = |name: &str| fork([fork([note(name), Op::Forever]), Op::Sleep(20)]);
    let p = scene.spawn(
        "master",
        [
            Op::Subreaper(true),
            orphan("adopted"),
            gate("on"),
            Op::Subreaper(false),
            orphan("not-adopted"),
            Op::Forever,
        ],
    );
    let adopted = scene.proc("adopted");
    wait_until("adoption", || ppid(&adopted) == p.pid());
    scene.open_gate("on");
    let stray = scene.proc("not-adopted");
    let first = scene.entry("not-adopted").ppid;
    wait_until("reparenting", || ppid(&stray) != first);
    assert_ne!(ppid(&stray), p.pid());
}

#[test]
fn titles_shrink_and_grow() {
    let scene = Scene::new();
    let long = "a title that is much longer than the command line was, ".repeat(4);
    let p = scene
        .spawn("master", [title("m"), note("short"), gate("on"), title(&long), note("long"), Op::Forever]);
    scene.entry("short");
    assert_eq!(p.cmdline(), format!("m {}", scene.token()));
    scene.open_gate("on");
    scene.entry("long");
    assert_eq!(p.cmdline(), format!("{long} {}", scene.token()));
}

#[test]
fn a_title_does_not_hinder_an_exec() {
    let scene = Scene::new();
    let long = "x".repeat(300);
    let p = scene.spawn("master", [title(&long), exec("other", [note("again"), Op::Forever])]);
    scene.entry("again");
    assert!(p.cmdline().ends_with(&format!(" other {}", scene.token())), "{}", p.cmdline());
}

#[test]
fn comm_changes() {
    let scene = Scene::new();
    let p = scene.spawn("master", [Op::Comm("other name".into()), note("up"), Op::Forever]);
    scene.entry("up");
    assert_eq!(p.stat().unwrap().comm, "other name");
}

#[test]
fn busy_burns_cpu_and_sleep_does_not() {
    let scene = Scene::new();
    let p = scene.spawn("master", [note("up"), Op::Busy(400), note("done"), Op::Forever]);
    scene.entry("done");
    p.wait_state('S');
    let stat = p.stat().unwrap();
    // Of 40 ticks, on a machine that others use too.
    assert!(stat.utime + stat.stime >= 2, "{stat:?}");
    let (up, done) = (scene.entry("up").boot_ns, scene.entry("done").boot_ns);
    assert!(done - up >= 400_000_000);
}

#[test]
fn who_is_busy_until_a_gate_opens_burns_cpu_until_then() {
    let scene = Scene::new();
    let p = scene.spawn("master", [note("up"), Op::BusyUntil("g".into()), note("done"), Op::Forever]);
    scene.entry("up");
    wait_until("CPU time", || p.stat().is_some_and(|stat| stat.utime + stat.stime >= 2));
    assert!(!scene.said("done"));
    scene.open_gate("g");
    scene.entry("done");
    p.wait_state('S');
}

#[test]
fn a_gate_holds_until_it_is_opened() {
    let scene = Scene::new();
    let p = scene.spawn("master", [note("up"), gate("g"), note("through"), gate("g"), note("again")]);
    scene.entry("up");
    p.wait_state('S');
    assert!(!scene.said("through"));
    scene.open_gate("g");
    scene.entry("again");
    assert!(p.wait_gone(PATIENCE));
}

#[test]
fn term_kills_is_ignored_or_is_served() {
    let scene = Scene::new();
    scene.spawn(
        "master",
        [
            worker("plain"),
            worker_doing("deaf", [Op::IgnoreTerm, note("deaf-now"), Op::Forever]),
            worker_doing(
                "polite",
                [Op::OnTerm(vec![note("term"), Op::Exit(3)]), note("polite-now"), Op::Forever],
            ),
            worker_doing(
                "finisher",
                [
                    Op::OnTerm(vec![Op::Exit(0)]),
                    note("finisher-now"),
                    Op::Busy(500),
                    note("finished"),
                    Op::Forever,
                ],
            ),
            worker_doing(
                "reset",
                [
                    Op::OnTerm(vec![Op::Exit(0)]),
                    Op::DefaultTerm,
                    note("reset-now"),
                    Op::Busy(20_000),
                    note("never"),
                ],
            ),
            Op::Forever,
        ],
    );
    let plain = scene.proc("plain");
    plain.signal(Signal::TERM);
    assert!(plain.wait_gone(PATIENCE));
    let polite = scene.proc("polite-now");
    polite.signal(Signal::TERM);
    assert!(polite.wait_gone(PATIENCE) && scene.said("term"));
    let finisher = scene.proc("finisher-now");
    finisher.signal(Signal::TERM);
    assert!(finisher.wait_gone(PATIENCE) && scene.said("finished"));
    let reset = scene.proc("reset-now");
    reset.signal(Signal::TERM);
    assert!(reset.wait_gone(PATIENCE) && !scene.said("never"));
    let deaf = scene.proc("deaf-now");
    deaf.signal(Signal::TERM);
    assert!(!deaf.wait_gone(Duration::from_millis(200)));
    deaf.kill();
}

#[test]
fn another_user_can_do_all_that_root_can() {
    let scene = Scene::new();
    let p = scene
        .spawn("start", [Op::User("nobody".into()), exec("master", [worker("w"), gate("g"), note("end")])]);
    let worker = scene.proc("w");
    for held in [&p, &worker] {
        assert_eq!(Process::new(held.pid()).unwrap().status().unwrap().ruid, 65534);
    }
    scene.open_gate("g");
    scene.entry("end");
}

#[test]
fn pid_1_of_a_namespace() {
    let scene = Scene::new();
    let outer = scene.spawn(
        "outer",
        [
            Op::NewPidNamespace,
            fork([note("init"), fork([fork([note("orphan"), Op::Forever]), Op::Sleep(20)]), Op::Forever]),
            Op::Forever,
        ],
    );
    let (init, orphan) = (scene.proc("init"), scene.proc("orphan"));
    assert_eq!(ppid(&init), outer.pid());
    assert_eq!(Process::new(init.pid()).unwrap().status().unwrap().nspid, Some(vec![init.pid(), 1]));
    wait_until("adoption by the namespace's init", || ppid(&orphan) == init.pid());
    init.kill();
    assert!(orphan.wait_gone(PATIENCE), "the namespace dies with its init");
}

#[test]
fn uninterruptible_sleep_without_a_child() {
    let scene = Scene::new();
    let p = scene.spawn(
        "master",
        [worker_doing("w", [Op::Uninterruptible("sibling".into()), note("after"), Op::Forever]), Op::Forever],
    );
    let (w, sibling) = (scene.proc("w"), scene.proc("sibling"));
    sibling.wait_state('T');
    w.wait_state('D');
    assert_eq!((ppid(&w), ppid(&sibling)), (p.pid(), p.pid()));
    assert_ne!(w.pid(), sibling.pid());
    sibling.kill();
    scene.entry("after");
    w.wait_state('S');
}

#[test]
fn stop_and_go_on() {
    let scene = Scene::new();
    let p = scene.spawn("master", [Op::Stop, note("on"), Op::Forever]);
    p.wait_state('T');
    assert!(!scene.said("on"));
    p.signal(Signal::CONT);
    scene.entry("on");
}

#[test]
fn run_and_exit_like_the_child() {
    let scene = Scene::new();
    let run = Op::Run(vec!["/bin/sh".into(), "-c".into(), "exit 7".into()]);
    let mut child = scene.command("outer", &[fork([run]), Op::ExitLikeChild]).spawn().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(7));
}

#[test]
fn a_proc_of_its_own() {
    let scene = Scene::new();
    let look = format!("readlink /proc/self > {}", scene.path("self").display());
    let run = Op::Run(vec!["/bin/sh".into(), "-c".into(), format!("{look}; :")]);
    let inside = fork([Op::MountProc, run]);
    let mut child =
        scene.command("outer", &[Op::NewPidNamespace, inside, Op::ExitLikeChild]).spawn().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let seen: i32 = std::fs::read_to_string(scene.path("self")).unwrap().trim().parse().unwrap();
    assert!(seen < 10, "pid {seen} inside");
}

#[test]
fn copy_is_whole() {
    let scene = Scene::new();
    std::fs::write(scene.path("a"), "text").unwrap();
    let p = scene.spawn("master", [Op::Copy("a".into(), "b".into())]);
    assert!(p.wait_gone(PATIENCE));
    assert_eq!(std::fs::read_to_string(scene.path("b")).unwrap(), "text");
}

#[test]
fn waits_for_children_and_runs_out() {
    let scene = Scene::new();
    let p = scene.spawn("master", [fork([Op::Sleep(50), note("child")]), Op::WaitChildren, note("master")]);
    assert!(p.wait_gone(PATIENCE));
    assert!(scene.entry("child").boot_ns < scene.entry("master").boot_ns);
}

#[test]
fn every_process_bounds_its_own_life() {
    let scene = Scene::new();
    scene.spawn("master", [twin("twin"), worker("worker"), note("master"), Op::Forever]);
    for name in ["master", "twin", "worker"] {
        let held = scene.proc(name);
        let timers = std::fs::read_to_string(format!("/proc/{}/timers", held.pid())).unwrap();
        assert!(timers.contains("signal: 9/"), "{name}: {timers:?}");
    }
}

#[test]
fn nobody_is_left_when_a_scene_ends_or_a_test_panics() {
    let scene = Scene::new();
    let token = scene.token().to_owned();
    let program =
        [worker_doing("stopped", [Op::Stop]), fork([Op::Setsid, twin("deep")]), note("up"), Op::Forever];
    scene.spawn("master", program);
    scene.proc("stopped").wait_state('T');
    scene.entry("deep");
    scene.entry("up");
    assert!(with_token(&token).len() >= 3);
    let result = std::thread::spawn(move || {
        let _scene = scene;
        std::panic::resume_unwind(Box::new("a test fails"));
    })
    .join();
    assert!(result.is_err());
    assert_no_process_left(&token);
}
