//! The load: jobs at random moments, all the time, few enough that a worker is idle now and then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::random::Random;
use super::{Framework, Instance, Job, Kind, Stage, ledger};

/// Requests under way at once, for those that wait for their answer.
const CLIENTS: u64 = 5;
/// Jobs handed in and not started before the load waits: a queue must not hide idle workers behind a backlog.
const BACKLOG: u64 = 3;

/// What was handed in.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) submitted: AtomicU64,
    pub(super) refused: AtomicU64,
    next: AtomicU64,
}

/// Threads that hand jobs in until they are told to stop.
pub(super) struct Load {
    pub(super) counters: Arc<Counters>,
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    pub(super) fn start(framework: &Arc<dyn Framework>, stage: &Arc<Stage>, seed: u64) -> Self {
        let counters = Arc::new(Counters::default());
        let end = Arc::new(AtomicBool::new(false));
        let clients = if framework.answers() { CLIENTS } else { 1 };
        let client = |n| {
            let (framework, stage) = (framework.clone(), stage.clone());
            let (counters, end) = (counters.clone(), end.clone());
            std::thread::spawn(move || {
                work(&*framework, &stage, &counters, &end, Random::new(seed ^ (n << 32)));
            })
        };
        let threads = (1..=clients).map(client).collect();
        Self { counters, end, threads }
    }

    /// Stops it and waits for the requests under way.
    pub(super) fn stop(mut self) -> Arc<Counters> {
        self.end.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
        self.counters.clone()
    }
}

impl Drop for Load {
    /// A drill that fails leaves nobody at work.
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn work(framework: &dyn Framework, stage: &Stage, counters: &Counters, end: &AtomicBool, mut random: Random) {
    let kinds = framework.kinds();
    let rest = if framework.answers() { 900 } else { 400 };
    while !end.load(Ordering::Relaxed) {
        std::thread::sleep(random.millis(0, rest));
        let job = draw(&kinds, &mut random, counters.next.fetch_add(1, Ordering::Relaxed));
        // Some go to the second application, which has to have something to do too.
        let which = if random.between(0, 5) == 0 { Instance::Beside } else { Instance::Drilled };
        counters.submitted.fetch_add(1, Ordering::Relaxed);
        if framework.submit(stage, which, job).is_err() {
            counters.refused.fetch_add(1, Ordering::Relaxed);
        }
        if !framework.answers() {
            let since = Instant::now();
            while backlog(stage, counters) > BACKLOG && since.elapsed() < Duration::from_secs(2) {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

fn backlog(stage: &Stage, counters: &Counters) -> u64 {
    let started = ledger::read(&stage.ledger()).len() as u64;
    counters.submitted.load(Ordering::Relaxed).saturating_sub(started)
}

/// Mostly short, one in eight so long that it outlives the pause between two kills.
fn draw(kinds: &[Kind], random: &mut Random, id: u64) -> Job {
    let kind = random.pick(kinds);
    let long = random.between(0, 8) == 0;
    let ms = match (kind, long) {
        (Kind::Cpu, _) => random.between(20, 200),
        (_, true) => random.between(1_000, 2_500),
        (_, false) => random.between(30, 500),
    };
    Job { id, kind, ms }
}
