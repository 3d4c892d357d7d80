//! Holding a process still, on the real kernel: who can be held, who cannot, and that nobody notices.
//!
//! Whoever is frozen here is a grandchild: a tracer that is the parent too would take the parent's wait results away.
#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a broken assumption is a failure")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reaper::core::ids::ProcKey;
use reaper::core::input::Sampled;
use reaper::core::rules::Signal as ToSend;
use reaper::core::sample::{Depth, Sample, Wait};
use reaper::freeze::{FireError, FreezeError, Frozen, Halt, LONGEST, freeze};
use reaper::signal::{Held, SignalError};
use reaper_tests::process::{PATIENCE, Proc, Signal, TICK_NS, comes_true, wait_until};
use reaper_tests::scene::Scene;
use reaper_tests::script::{Op, exec, gate, note, worker_doing};

const KILL: ToSend = ToSend(libc::SIGKILL);
const TERM: ToSend = ToSend(libc::SIGTERM);

/// A master that waits for its worker `w`, which does `ops`.
fn target(scene: &Scene, ops: impl Into<Vec<Op>>) -> Proc {
    scene.spawn("master", [worker_doing("w", ops), Op::WaitChildren]);
    scene.proc("w")
}

fn key(who: &Proc) -> ProcKey {
    ProcKey { tgid: who.pid().unsigned_abs(), start_ns: who.start_ticks() * TICK_NS }
}

fn try_freeze(who: &Proc) -> Result<Frozen, FreezeError> {
    match Held::open(key(who)) {
        Ok(held) => freeze(Arc::new(held)),
        // While another thread takes the place of the leader, /proc shows a zombie.
        Err(SignalError::Gone) => Err(FreezeError::Gone),
        Err(e) => panic!("{e}"),
    }
}

#[track_caller]
fn frozen(who: &Proc) -> Frozen {
    try_freeze(who).unwrap()
}

#[track_caller]
fn look(who: &Proc) -> Sample {
    let seen = reaper::idle::Sampler::new().sample(0, key(who), Depth::Threads, true);
    assert!(matches!(seen, Sampled::Seen(_)), "{seen:?}");
    let Sampled::Seen(sample) = seen else { unreachable!() };
    sample
}

/// A field of every thread's status, by thread id.
fn statuses(who: &Proc, name: &str) -> BTreeMap<i32, String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", who.pid())).into_iter().flatten().flatten();
    let status = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("status")).ok()?;
        let value = text.lines().find_map(|l| l.strip_prefix(name))?.trim().to_owned();
        Some((task.file_name().to_str()?.parse().ok()?, value))
    };
    tasks.filter_map(status).collect()
}

fn is_traced(who: &Proc) -> bool {
    statuses(who, "TracerPid:").values().any(|tracer| tracer != "0")
}

#[track_caller]
fn is_let_go(who: &Proc) {
    assert!(comes_true(Duration::from_secs(1), || !is_traced(who)), "{} is still traced", who.pid());
}

fn sleepers(n: usize) -> Vec<Op> {
    let mut ops: Vec<Op> = (0..n).map(|_| Op::Thread(vec![Op::Forever])).collect();
    ops.push(Op::Forever);
    ops
}

/// Waits until so many threads sleep.
fn settled(who: &Proc, threads: usize) {
    wait_until("every thread to sleep", || {
        let states = statuses(who, "State:");
        states.len() == threads && states.values().all(|s| s.starts_with('S'))
    });
}

#[test]
fn a_sleeper_is_held_and_let_go() {
    let scene = Scene::new();
    let w = target(&scene, [Op::Forever]);
    settled(&w, 1);
    let held = frozen(&w);
    assert_eq!(held.halts().values().collect::<Vec<_>>(), [&Halt::Blocked]);
    let mut sample = look(&w);
    assert_eq!(sample.threads[0].state, 't');
    held.mark(&mut sample);
    assert!(sample.frozen && sample.threads[0].wait == Wait::NotAsked, "{sample:?}");
    drop(held);
    assert!(!is_traced(&w), "dropping it has let go already");
    settled(&w, 1);
}

#[test]
fn a_timed_sleep_ends_when_it_would_have() {
    let scene = Scene::new();
    let w = target(&scene, [Op::Sleep(600), note("awake"), Op::Forever]);
    let begun = scene.entry("w").boot_ns;
    settled(&w, 1);
    for _ in 0..20 {
        drop(frozen(&w));
    }
    let slept = scene.entry("awake").boot_ns - begun;
    assert!(slept >= 600_000_000, "it slept {slept} ns");
}

#[test]
fn who_runs_is_seen_to_run() {
    let scene = Scene::new();
    let w = target(&scene, [Op::Busy(20_000)]);
    wait_until("it to run", || w.stat().is_some_and(|s| s.state == 'R'));
    for _ in 0..50 {
        let held = frozen(&w);
        assert_eq!(held.halts().values().collect::<Vec<_>>(), [&Halt::Running]);
        let mut sample = look(&w);
        held.mark(&mut sample);
        assert!(sample.frozen && sample.threads[0].wait == Wait::Nothing, "{sample:?}");
    }
    is_let_go(&w);
}

/// Whose call has just come to its end has its job; /proc shows the call's number all the same.
#[test]
fn a_call_that_has_ended_is_not_taken_for_one_that_waits() {
    let scene = Scene::new();
    let w = target(&scene, [Op::ReadOn]);
    wait_until("it to run", || w.stat().is_some_and(|s| s.state == 'R'));
    let mut in_call = 0;
    for _ in 0..200 {
        let held = frozen(&w);
        let line = fs::read_to_string(format!("/proc/{}/syscall", w.pid())).unwrap();
        in_call += usize::from(!line.starts_with('-') && !line.starts_with("running"));
        assert_eq!(held.halts().values().collect::<Vec<_>>(), [&Halt::Running], "{line}");
    }
    assert!(in_call > 0, "it was never in the call when it was stopped: this shows nothing");
}

#[test]
fn threads_that_come_and_go_are_all_held() {
    // A slow machine cannot look at so many in time, and then shows the same with fewer.
    let counts = [50, 10, 3];
    assert!(counts.into_iter().any(churning_threads_are_held), "it was never held");
}

/// Whether a process with so many threads that come and go was held, all of them, at least once.
fn churning_threads_are_held(threads: usize) -> bool {
    let scene = Scene::new();
    let w = target(&scene, [Op::Churn(threads), Op::Forever]);
    wait_until("its threads", || statuses(&w, "State:").len() > threads * 4 / 5);
    let mut held_at_all = 0;
    let end = Instant::now() + PATIENCE;
    while held_at_all < 15 && Instant::now() < end {
        match try_freeze(&w) {
            Ok(held) => {
                let before = statuses(&w, "State:");
                let mut sample = look(&w);
                held.mark(&mut sample);
                // Else it was let go meanwhile, because this took too long.
                if held.fire(ToSend(libc::SIGCONT)).is_ok() {
                    let mut live = before.values().filter(|s| !s.starts_with(['Z', 'X']));
                    assert!(live.all(|s| s.starts_with('t')), "{before:?}");
                    assert!(sample.frozen, "{sample:?}");
                    held_at_all += 1;
                }
            }
            Err(
                FreezeError::Unsettled
                | FreezeError::NotStopped(_)
                | FreezeError::NoAnswer
                | FreezeError::Held,
            ) => {}
            Err(e) => panic!("{e}"),
        }
    }
    is_let_go(&w);
    // Not whom a listing shows: on 5.10 it ends before the newest thread, as long as others die.
    let switches = |w: &Proc| statuses(w, "voluntary_ctxt_switches:");
    let then = switches(&w);
    wait_until("its threads to go on", || switches(&w) != then);
    held_at_all > 0
}

#[test]
fn a_leader_that_has_exited_is_no_obstacle() {
    let scene = Scene::new();
    let w = target(&scene, [Op::Thread(vec![Op::Forever]), Op::ExitThread]);
    w.wait_state('Z');
    let held = frozen(&w);
    assert_eq!(held.halts().len(), 1);
    held.fire(KILL).unwrap();
    assert!(w.wait_gone(PATIENCE));
}

/// Uninterruptible sleep: it is given up in time, and nobody stays traced.
#[test]
fn who_does_not_stop_is_let_go_with_all_its_threads() {
    let scene = Scene::new();
    let d = Op::Uninterruptible("sibling".into());
    let w = target(&scene, [Op::Thread(vec![Op::Forever]), d, note("after"), Op::Forever]);
    let sibling = scene.proc("sibling");
    w.wait_state('D');
    for _ in 0..3 {
        let begun = Instant::now();
        let outcome = try_freeze(&w);
        assert_eq!(outcome.unwrap_err(), FreezeError::NotStopped(w.pid()));
        let took = begun.elapsed();
        assert!(took >= LONGEST && took < PATIENCE, "{took:?}");
        println!("given up after {took:?}, of {LONGEST:?}");
        is_let_go(&w);
    }
    assert!(statuses(&w, "State:").values().all(|s| !s.starts_with('t')));
    sibling.kill();
    scene.entry("after");
}

#[test]
fn who_was_stopped_by_somebody_else_stays_stopped() {
    let scene = Scene::new();
    let w = target(&scene, [Op::Thread(vec![Op::Forever]), note("ready"), Op::Forever]);
    scene.entry("ready");
    w.signal(Signal::STOP);
    w.wait_state('T');
    for _ in 0..20 {
        let held = frozen(&w);
        assert!(held.was_stopped());
        let mut sample = look(&w);
        held.mark(&mut sample);
        assert!(sample.threads.iter().all(|t| t.state == 'T'), "{sample:?}");
        drop(held);
        wait_until("it to be stopped again", || statuses(&w, "State:").values().all(|s| s.starts_with('T')));
    }
    w.signal(Signal::CONT);
    settled(&w, 2);
}

#[test]
fn a_stop_and_a_continuation_while_it_is_held_take_effect_after() {
    let scene = Scene::new();
    let w = target(&scene, [Op::Forever]);
    let held = frozen(&w);
    w.signal(Signal::STOP);
    drop(held);
    w.wait_state('T');
    let held = frozen(&w);
    w.signal(Signal::CONT);
    drop(held);
    w.wait_state('S');
}

fn values(path: &Path) -> Vec<u32> {
    let bytes = fs::read(path).unwrap_or_default();
    bytes.as_chunks().0.iter().map(|b| u32::from_ne_bytes(*b)).collect()
}

/// Sends so many signals with values; each pause is `pause`.
fn send_values(scene: &Scene, count: u32, pause: Duration) -> std::thread::JoinHandle<()> {
    let w = scene.proc("w");
    std::thread::spawn(move || {
        for value in 0..count {
            w.queue(libc::SIGRTMIN() + 1, value);
            std::thread::sleep(pause);
        }
    })
}

#[track_caller]
fn all_arrived(path: &Path, count: u32) {
    comes_true(PATIENCE, || values(path).len() >= count as usize);
    assert!(values(path).iter().copied().eq(0..count), "not {count} in their order: {:?}", values(path));
}

#[test]
fn no_signal_is_lost() {
    let scene = Scene::new();
    let w = target(&scene, [Op::NoteValues("values".into()), note("ready"), Op::Forever]);
    scene.entry("ready");
    let sender = send_values(&scene, 3_000, Duration::from_micros(50));
    let (mut holds, mut on_the_way) = (0, 0);
    while !sender.is_finished() {
        let held = frozen(&w);
        holds += 1;
        on_the_way += held.halts().values().filter(|h| matches!(h, Halt::Signalled(_))).count();
    }
    sender.join().unwrap();
    all_arrived(&scene.path("values"), 3_000);
    assert!(holds > 10, "only {holds} holds");
    println!("{holds} holds, {on_the_way} of them with a signal on its way");
}

/// The process that holds it is killed: the kernel lets go, and a signal on its way arrives all the same.
#[test]
fn the_freezers_death_goes_unnoticed() {
    let scene = Scene::new();
    let w = target(&scene, [Op::NoteValues("values".into()), note("ready"), Op::Forever]);
    scene.entry("ready");
    let sender = send_values(&scene, 2_000, Duration::from_micros(100));
    for n in 1..=25 {
        let freezer = scene.spawn("freezer", [Op::FreezeAndDie("w".into())]);
        assert!(freezer.wait_gone(PATIENCE));
        assert_eq!(scene.ledger().iter().filter(|e| e.event == "frozen").count(), n, "it never froze");
        is_let_go(&w);
    }
    sender.join().unwrap();
    all_arrived(&scene.path("values"), 2_000);
    settled(&w, 1);
}

#[test]
fn the_parent_notices_nothing() {
    let scene = Scene::new();
    scene.spawn("master", [worker_doing("w", sleepers(3)), Op::TellChildren]);
    let w = scene.proc("w");
    scene.entry("watching");
    settled(&w, 4);
    for _ in 0..100 {
        drop(frozen(&w));
    }
    let tells =
        || scene.ledger().into_iter().map(|e| e.event).filter(|e| e.contains('(')).collect::<Vec<_>>();
    let sigchlds = || fs::read(scene.path("sigchld")).unwrap().len();
    assert_eq!((tells(), sigchlds()), (vec![], 0));
    // And it would have: what is real it hears of, once.
    frozen(&w).fire(KILL).unwrap();
    wait_until("the parent to hear of the death", || !tells().is_empty());
    assert_eq!((tells().len(), sigchlds()), (1, 1), "{:?}", tells());
    assert!(tells()[0].starts_with("Signaled"), "{:?}", tells());
}

#[test]
fn a_signal_reaches_who_is_held() {
    let scene = Scene::new();
    let polite = Op::OnTerm(vec![note("asked"), Op::Exit(0)]);
    let w = target(&scene, [polite, note("ready"), Op::Forever]);
    scene.entry("ready");
    frozen(&w).fire(TERM).unwrap();
    scene.entry("asked");
    assert!(w.wait_gone(PATIENCE));
}

/// As a signal to a process that is not held does. Interpreters run handlers in the main thread only.
#[test]
fn a_signal_goes_to_the_main_thread() {
    let scene = Scene::new();
    let ops = [vec![Op::NoteTermThreads("threads".into())], sleepers(8)].concat();
    let w = target(&scene, ops);
    settled(&w, 9);
    for n in 1..=20 {
        frozen(&w).fire(TERM).unwrap();
        wait_until("the signal to arrive", || values(&scene.path("threads")).len() == n);
        settled(&w, 9);
    }
    let main = u32::try_from(w.pid()).unwrap();
    assert_eq!(values(&scene.path("threads")), [main; 20]);
}

#[test]
fn who_is_killed_is_gone_at_once() {
    let scene = Scene::new();
    for n in [0, 20] {
        let name = format!("w{n}");
        scene.spawn("master", [worker_doing(&name, sleepers(n)), Op::WaitChildren]);
        let w = scene.proc(&name);
        settled(&w, n + 1);
        let begun = Instant::now();
        frozen(&w).fire(KILL).unwrap();
        let proc = format!("/proc/{}", w.pid());
        wait_until("not even a zombie to be left", || !Path::new(&proc).exists());
        println!("{} threads: frozen, killed and waited for in {:?}", n + 1, begun.elapsed());
    }
}

#[test]
fn who_is_killed_by_somebody_else_is_gone_at_once() {
    let scene = Scene::new();
    let w = target(&scene, sleepers(5));
    settled(&w, 6);
    let held = frozen(&w);
    w.signal(Signal::KILL);
    drop(held);
    wait_until("it to be gone", || !Path::new(&format!("/proc/{}", w.pid())).exists());
    assert_eq!(Held::open(key(&w)).map(|_| ()).unwrap_err().to_string(), "it is gone");
}

#[test]
fn time_is_up_whatever_the_agent_does() {
    let scene = Scene::new();
    let w = target(&scene, sleepers(2));
    settled(&w, 3);
    let held = frozen(&w);
    assert!(is_traced(&w));
    std::thread::sleep(LONGEST + Duration::from_millis(20));
    is_let_go(&w);
    settled(&w, 3);
    let outcome = held.fire(KILL);
    assert!(matches!(outcome, Err(FireError::LetGo)), "{outcome:?}");
    assert_eq!(outcome.unwrap_err().to_string(), "it was let go after 50 ms");
    assert!(!w.wait_gone(Duration::from_millis(50)), "it was signalled");
    // Even if nobody ever asks again.
    std::mem::forget(frozen(&w));
    is_let_go(&w);
}

#[test]
fn nobody_is_held_twice() {
    let scene = Scene::new();
    let w = target(&scene, sleepers(2));
    settled(&w, 3);
    let first = frozen(&w);
    assert_eq!(try_freeze(&w).unwrap_err(), FreezeError::Held);
    assert!(is_traced(&w), "the first still has it");
    drop(first);
    drop(frozen(&w));
}

/// execve(2) from a thread that is not the leader waits until every other thread has been waited for, by its tracer too.
/// The kernel does not let a tracer seize a thread meanwhile, so the two may wait for each other: the freezer gives in.
#[test]
fn an_exec_meanwhile_goes_through() {
    for _ in 0..5 {
        let scene = Scene::new();
        let again = |next| {
            let mut ops = vec![Op::Thread(vec![Op::Forever]); 3];
            ops.extend([Op::Thread(vec![exec("worker", next)]), Op::Forever]);
            ops
        };
        let execs = (0..20).fold(vec![note("end"), Op::Forever], |next, _| again(next));
        let w = target(&scene, [vec![gate("go")], execs].concat());
        scene.open_gate("go");
        let end = Instant::now() + PATIENCE;
        let (mut holds, mut misses) = (0, 0);
        while !scene.said("end") && Instant::now() < end {
            match try_freeze(&w) {
                Ok(_) => holds += 1,
                Err(e) => {
                    // While one thread takes the leader's place, /proc shows a zombie: that is "gone".
                    let busy = matches!(e, FreezeError::NotStopped(_) | FreezeError::Unsettled);
                    let late = matches!(e, FreezeError::NoAnswer | FreezeError::Held | FreezeError::Gone);
                    assert!(busy || late, "{e}");
                    misses += 1;
                }
            }
        }
        assert!(scene.said("end"), "{holds} holds, {misses} misses");
        println!("{holds} holds, {misses} misses");
        is_let_go(&w);
    }
}

#[test]
fn nobody_is_mistaken_for_who_had_its_pid() {
    let scene = Scene::new();
    let w = target(&scene, [gate("end")]);
    let held = Arc::new(Held::open(key(&w)).unwrap());
    scene.open_gate("end");
    assert!(w.wait_gone(PATIENCE));
    assert_eq!(freeze(held).unwrap_err(), FreezeError::Gone);
}
