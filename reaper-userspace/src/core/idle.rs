//! Whether a process is idle: the judgement over what a sample shows (design, section 4).
//!
//! In doubt the answer is "unknown", and unknown counts as busy.

use super::ids::{MS, Ns, SECOND};
use super::records::{Evidence, ThreadView, Verdict};
use super::rules::{IdleRules, Proof};
use super::sample::{Child, Sample, Thread};

/// CPU time that a process may use within [`WINDOW`] while it counts as asleep: waking up for house-keeping is not work.
/// The larger of this and [`CPU_SHARE`] of the time.
const CPU_FLOOR: Ns = MS;

/// One part in this many.
const CPU_SHARE: u64 = 100;

/// The time that CPU use is judged over. What was used long before does not count, and what a long time allows in total
/// cannot be used at once.
const WINDOW: Ns = SECOND;

/// A stretch of idleness, from the first sample that showed it.
#[derive(Clone, Debug, PartialEq)]
pub struct IdleSpan {
    /// When that sample was taken.
    pub since: Ns,
    tids: Vec<u32>,
    /// The sample that CPU time is counted from: when, and how much had been used by then.
    from: (Ns, Ns),
    /// The last sample, likewise.
    last: (Ns, Ns),
}

impl IdleSpan {
    /// The stretch that begins with `first`.
    pub fn begin(first: &Sample) -> Self {
        let point = (first.at, first.cpu_ns);
        Self { since: first.at, tids: tids(first), from: point, last: point }
    }

    /// Goes on with a sample that was judged idle.
    pub fn extend(&mut self, sample: &Sample) {
        if sample.at.saturating_sub(self.from.0) >= WINDOW {
            self.from = self.last;
        }
        self.last = (sample.at, sample.cpu_ns);
    }

    /// How long it counts back, and the CPU time that was used since.
    fn used(&self, sample: &Sample) -> (Ns, Ns) {
        (sample.at.saturating_sub(self.from.0), sample.cpu_ns.saturating_sub(self.from.1))
    }
}

/// Judges a sample and the live children the tree knows, given the stretch of idleness that it would continue.
pub fn judge(sample: &Sample, children: &[Child], span: Option<&IdleSpan>, rules: &IdleRules) -> Evidence {
    let children: Vec<_> =
        children.iter().filter(|c| !rules.children.iter().any(|g| g.is_match(&*c.comm))).collect();
    let (window_ns, cpu_ns) = span.map_or((0, 0), |s| s.used(sample));
    let quiet_ns = span.map_or(0, |s| sample.at.saturating_sub(s.since));
    let living = sample.threads.iter().filter(|t| is_alive(t)).count();
    let awake = sample.threads.iter().find(|t| is_alive(t) && !matches!(t.state, 'S' | 'I'));

    let (verdict, because) = if living == 0 {
        (Verdict::Unknown, "no live thread was found".to_owned())
    } else if let Some(thread) = awake {
        (Verdict::Busy, describe_awake(thread))
    } else if let Some(child) = children.first() {
        let more = match children.len() {
            1 => String::new(),
            n => format!(" and {} more", n - 1),
        };
        (Verdict::Busy, format!("it has a live child, {} ({}){more}", child.key.tgid, child.comm))
    } else if span.is_some_and(|s| s.tids != tids(sample)) {
        (Verdict::Busy, "threads came or went since it was last seen asleep".to_owned())
    } else if cpu_ns > CPU_FLOOR.max(window_ns.min(WINDOW) / CPU_SHARE) {
        (Verdict::Busy, format!("it used {} us of CPU time in {} ms", cpu_ns / 1_000, window_ns / MS))
    } else if rules.proof == Proof::Source {
        let because =
            "it is asleep, but whether it waits for work or in the middle of a job is not known".to_owned();
        (Verdict::Unknown, because)
    } else {
        (Verdict::Idle, describe_idle(living, cpu_ns, quiet_ns))
    };
    Evidence {
        verdict,
        because,
        threads: sample.threads.iter().map(view).collect(),
        cpu_us: cpu_ns / 1_000,
        children: children.len(),
        quiet_us: quiet_ns / 1_000,
    }
}

/// What is to be said of a process that could not be looked at.
pub fn unreadable(why: &str) -> Evidence {
    Evidence {
        verdict: Verdict::Unknown,
        because: format!("it could not be looked at: {why}"),
        threads: Vec::new(),
        cpu_us: 0,
        children: 0,
        quiet_us: 0,
    }
}

fn describe_idle(threads: usize, cpu_ns: Ns, quiet_ns: Ns) -> String {
    let threads =
        if threads == 1 { "its thread is".to_owned() } else { format!("all {threads} threads are") };
    let cpu =
        if cpu_ns == 0 { "no CPU time".to_owned() } else { format!("{} us of CPU time", cpu_ns / 1_000) };
    format!("{threads} asleep for {} ms, it has no child and used {cpu}", quiet_ns / MS)
}

fn view(thread: &Thread) -> ThreadView {
    ThreadView {
        tid: thread.tid,
        comm: thread.comm.clone(),
        state: thread.state,
        syscall: thread.syscall.clone(),
        waits_on: Vec::new(),
    }
}

fn is_alive(thread: &Thread) -> bool {
    !matches!(thread.state, 'Z' | 'X')
}

fn describe_awake(thread: &Thread) -> String {
    let doing = match thread.state {
        'R' => "is running",
        'D' => "is in uninterruptible sleep",
        'T' => "is stopped",
        't' => "is stopped by a tracer",
        _ => "is in an unknown state",
    };
    format!("thread {} ({}) {doing}", thread.tid, thread.comm)
}

fn tids(sample: &Sample) -> Vec<u32> {
    sample.threads.iter().filter(|t| is_alive(t)).map(|t| t.tid).collect()
}
