//! Whether a process is idle: the judgement over what a sample shows (design, section 4).
//!
//! In doubt the answer is "unknown", and unknown counts as busy.

use super::ids::{MS, Ns};
use super::records::{Evidence, Verdict};
use super::rules::IdleRules;
use super::sample::{Child, Sample, Thread};

/// CPU time that a process may use while it counts as asleep: waking up for house-keeping is not work. The larger of
/// this and [`CPU_SHARE`] of the time it has been idle.
const CPU_FLOOR: Ns = MS;

/// One part in this many.
const CPU_SHARE: u64 = 100;

/// A stretch of idleness, from the first sample that showed it.
#[derive(Clone, Debug, PartialEq)]
pub struct IdleSpan {
    /// When that sample was taken.
    pub since: Ns,
    cpu_ns: Ns,
    tids: Vec<u32>,
}

impl IdleSpan {
    /// The stretch that begins with `first`.
    pub fn begin(first: &Sample) -> Self {
        Self { since: first.at, cpu_ns: first.cpu_ns, tids: tids(first) }
    }
}

/// Judges a sample and the live children the tree knows, given the stretch of idleness that it would continue.
pub fn judge(sample: &Sample, children: &[Child], span: Option<&IdleSpan>, rules: &IdleRules) -> Evidence {
    let children: Vec<_> =
        children.iter().filter(|c| !rules.children.iter().any(|g| g.is_match(&*c.comm))).collect();
    let awake = sample.threads.iter().find(|t| !matches!(t.state, 'S' | 'I' | 'Z' | 'X'));
    let cpu_ns = span.map_or(0, |s| sample.cpu_ns.saturating_sub(s.cpu_ns));
    let quiet_ns = span.map_or(0, |s| sample.at.saturating_sub(s.since));
    let allowed = CPU_FLOOR.max(quiet_ns / CPU_SHARE);
    let living = sample.threads.iter().filter(|t| !matches!(t.state, 'Z' | 'X')).count();

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
    } else if cpu_ns > allowed {
        (Verdict::Busy, format!("it used {} us of CPU time in {} ms", cpu_ns / 1_000, quiet_ns / MS))
    } else {
        let threads =
            if living == 1 { "its thread is".to_owned() } else { format!("all {living} threads are") };
        (
            Verdict::Idle,
            format!("{threads} asleep, it has no child and used no CPU time for {} ms", quiet_ns / MS),
        )
    };
    Evidence {
        verdict,
        because,
        threads: sample.threads.clone(),
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
    sample.threads.iter().filter(|t| !matches!(t.state, 'Z' | 'X')).map(|t| t.tid).collect()
}
