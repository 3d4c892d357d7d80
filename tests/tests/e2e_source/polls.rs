//! Workers that poll their queue by sleeping, and jobs that sleep as long as their framework does.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::*;

/// How long the framework sleeps between polls, in milliseconds.
const SLEEP: u64 = 300;

/// Answers everything that is asked with so many bytes as `answer` says, until its clients are gone.
fn answering(answer: impl Fn() -> usize + Send + Sync + 'static) -> SocketAddr {
    let (listener, at) = service();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let answer = answer.clone();
            std::thread::spawn(move || {
                let mut room = [0; 4096];
                while client.read(&mut room).is_ok_and(|n| n > 0) {
                    if client.write_all(&vec![b'x'; answer()]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    at
}

/// One exchange.
fn asks(whom: &str) -> [Op; 2] {
    [Op::Send(whom.into(), 50), wait_in(Call::Read, &[whom])]
}

/// Sleeps as the framework does, and does this in between.
fn between_sleeps(ops: impl IntoIterator<Item = Op>) -> Op {
    Op::Repeat([Op::Nanosleep(SLEEP)].into_iter().chain(ops).collect())
}

fn with_sleep(scene: &Scene, queue: SocketAddr) -> Config {
    with_queue(scene, queue).idle(&format!("sleep = \"{SLEEP}ms\""))
}

/// Orphans one that never rests for long.
fn orphans_awake(scene: &Scene, agent: &Agent, shapes: &[Shape]) -> Vec<Proc> {
    let workers = shapes.iter().map(|s| worker_doing(s.name, s.program.clone()));
    let master = scene.spawn("master", workers.chain([Op::Forever]).collect::<Vec<_>>());
    let workers = shapes.iter().map(|s| scene.proc(s.name)).collect();
    agent.knows_master(&master);
    master.kill();
    workers
}

#[test]
fn who_polls_by_sleeping_goes_after_two_polls_and_a_job_that_sleeps_does_not() {
    let scene = Scene::new();
    let queue = answering(|| 5);
    let other = answering(|| 5);
    let agent = Agent::start(&scene, &with_sleep(&scene, queue));
    let connected = [connects("q", queue), connects("o", other)];
    let polls = |first: &[Op], ops: Vec<Op>| [first.to_vec(), vec![between_sleeps(ops)]].concat();
    let shapes = [
        shape("polls", polls(&connected, asks("q").into()), "sleeps for 300 ms between polls, and the last"),
        shape("only sleeps", polls(&connected, Vec::new()), ""),
        shape("asks both", polls(&connected, [asks("q"), asks("o")].concat()), ""),
        shape("asks another", polls(&connected, asks("o").into()), ""),
    ];
    let shapes = shapes.map(|s| Shape { name: s.name.split(' ').next_back().unwrap(), ..s });
    let workers = orphans_awake(&scene, &agent, &shapes);
    let orphaned = agent.wait("orphaned", &workers[0]).boot_ns();
    let signal = goes(&agent, &workers[0], &shapes[0].says);
    assert!(signal.boot_ns() >= orphaned + 2 * SLEEP * 1_000_000, "before two polls: {signal:?}");
    agent.assert_never(2_000, "a signal to a job", |r| is_shot(r) && !r.about(&workers[0]));
    for worker in &workers[1..] {
        assert!(worker.is_alive());
        let never_idle = |r: &Record| r.is("idle", worker);
        assert_eq!(agent.find(never_idle), None);
    }
    agent.assert_signalled(&[&workers[0]]);
    agent.stop();
}

#[test]
fn who_got_a_large_answer_has_a_job() {
    let scene = Scene::new();
    let (asked, last_job) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
    let (count, at) = (asked.clone(), last_job.clone());
    // Every other answer is a job at first: there are never two polls that find nothing in a row.
    let queue = answering(move || {
        let n = count.fetch_add(1, Ordering::SeqCst);
        if n < 9 && n.is_multiple_of(2) {
            at.store(reaper::clock::now(), Ordering::SeqCst);
            500
        } else {
            5
        }
    });
    let agent = Agent::start(&scene, &with_sleep(&scene, queue));
    let polls = [connects("q", queue), between_sleeps(asks("q"))];
    let workers = orphans_awake(&scene, &agent, &[shape("w", polls, "")]);
    let signal = goes(&agent, &workers[0], "and the last 2 found nothing");
    let job = last_job.load(Ordering::SeqCst);
    assert!(asked.load(Ordering::SeqCst) >= 9, "it was signalled before its last job");
    assert!(signal.boot_ns() >= job + 2 * SLEEP * 1_000_000, "the last job came at {job}: {signal:?}");
    agent.stop();
}

#[test]
fn without_a_length_of_sleep_whoever_sleeps_works() {
    let scene = Scene::new();
    let queue = answering(|| 5);
    let agent = Agent::start(&scene, &with_queue(&scene, queue));
    let workers =
        orphans_awake(&scene, &agent, &[shape("w", [connects("q", queue), Op::Nanosleep(50_000)], "")]);
    stays(&agent, &workers[0], "busy", "sleeps for 50 s, and its group does not poll by sleeping");
    nobody_goes(&agent, 500, &workers);
    agent.stop();
}
