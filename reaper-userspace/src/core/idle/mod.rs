//! Whether a process is idle: the judgement over what a sample shows.
//!
//! In doubt the answer is "unknown", and unknown counts as busy. `proof` judges what threads wait for, `polls` the cycle of those
//! that poll by sleeping, `span` for how long it has lasted.

pub mod polls;
mod proof;
mod span;

use super::ids::Ns;
use super::records::{Evidence, ThreadView, Verdict, WaitsOn};
use super::rules::{self, IdleRules};
use super::sample::{Child, FileKind, Sample, Source, Thread, Wait};
use super::view::words;
use polls::Polls;
use proof::Proof;
pub use span::{CpuUse, IdleSpan};

/// What is known of a process besides what a sample shows.
#[derive(Clone, Copy)]
pub struct Around<'a> {
    /// Its pid.
    pub pid: u32,
    /// Its live children.
    pub children: &'a [Child],
    /// Pids of its ancestors by birth up to its master, nearest first.
    pub lineage: &'a [u32],
    /// How another process stands, if it is an orphan of the same group.
    pub mate: &'a dyn Fn(u32) -> Option<Standing>,
    /// How the other orphans stand that the same process forked.
    pub siblings: &'a dyn Fn() -> Vec<(u32, Standing)>,
    /// Polls that found nothing, in a row.
    pub polls: u32,
    /// The group says what an idle worker's title is, and this is it.
    pub title_says_idle: bool,
}

/// How an orphan stands, for those that are judged together with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It works, or nothing is known of it.
    #[default]
    Works,
    /// It waits for work.
    Waits,
    /// It waits for a pipe that only orphans of its group have open.
    WaitsForPool,
    /// It waits for a lock, as the members of a pool do whose turn it is not.
    WaitsForTurn,
}

impl Standing {
    /// It does nothing that another one may wait for.
    pub fn waits(self) -> bool {
        self != Self::Works
    }
}

/// What a sample led to.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// The judgement, for the records.
    pub evidence: Evidence,
    /// How it stands by itself.
    pub standing: Standing,
    /// Its polls so far.
    pub polls: Polls,
}

/// So much of what was judged is told, and no more: a record is no longer because somebody opens many descriptors.
const THREADS_TOLD: usize = 128;
/// Of each thread.
const FILES_TOLD: usize = 16;
/// Of each pipe.
const HOLDERS_TOLD: usize = 8;

/// The verdict and the reason for it.
type Finding = (Verdict, String);

/// Judges a sample, given the stretch of idleness that it would continue.
pub fn judge(
    sample: &Sample,
    around: Around<'_>,
    span: Option<&IdleSpan>,
    polls: &Polls,
    rules: &IdleRules,
) -> Judged {
    let children: Vec<_> =
        around.children.iter().filter(|c| !rules.children.iter().any(|g| g.is_match(&*c.comm))).collect();
    let cpu = span.map(|s| s.used(sample)).unwrap_or_default();
    let quiet_ns = span.map_or(0, |s| sample.at.saturating_sub(s.since));
    let polls = if children.is_empty() { polls.after(sample, rules) } else { Polls::default() };

    let mut standing = Standing::Works;
    let (verdict, because) = unrest(sample, &children, span, cpu).unwrap_or_else(|| match rules.proof {
        rules::Proof::Asleep => {
            standing = Standing::Waits;
            (Verdict::Idle, describe_asleep(sample, cpu.used, quiet_ns))
        }
        rules::Proof::Source => {
            let around = Around { polls: polls.seen, ..around };
            let (own, finding) = of_source(sample, around, span, rules);
            standing = own;
            match finding {
                (Verdict::Idle, because) => {
                    (Verdict::Idle, format!("{because}; quiet for {}", words::span(quiet_ns)))
                }
                finding => finding,
            }
        }
    });
    let told = sample.threads.iter().take(THREADS_TOLD);
    let evidence = Evidence {
        verdict,
        because,
        threads: told.map(|t| view(t, sample.source.as_ref(), rules)).collect(),
        cpu_us: cpu.used / 1_000,
        children: children.len(),
        quiet_us: quiet_ns / 1_000,
    };
    Judged { evidence, standing, polls }
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

/// What keeps a process from being idle whatever it waits for.
fn unrest(sample: &Sample, children: &[&Child], span: Option<&IdleSpan>, cpu: CpuUse) -> Option<Finding> {
    if !sample.threads.iter().any(is_alive) {
        return Some((Verdict::Unknown, "no live thread was found".to_owned()));
    }
    let awake = sample.threads.iter().filter(|t| is_alive(t)).find_map(|t| awake(t, sample.frozen));
    if awake.is_some() {
        return awake;
    }
    if let Some(child) = children.first() {
        let more = match children.len() {
            1 => String::new(),
            n => format!(" and {} more", n - 1),
        };
        let because = format!("it has a live child, {} ({}){more}", child.key.tgid, child.comm);
        return Some((Verdict::Busy, because));
    }
    if span.is_some_and(|s| !s.has_threads_of(sample)) {
        return Some((Verdict::Busy, "threads came or went since it was last seen idle".to_owned()));
    }
    cpu.is_work().then(|| {
        let (used, over) = (words::span(cpu.used), words::span(cpu.over));
        (Verdict::Busy, format!("it used {used} of CPU time in {over}"))
    })
}

/// Whether it waits for its source of work.
fn of_source(
    sample: &Sample,
    around: Around<'_>,
    span: Option<&IdleSpan>,
    rules: &IdleRules,
) -> (Standing, Finding) {
    let works = |verdict, because| (Standing::Works, (verdict, because));
    let Some(source) = &sample.source else {
        return works(Verdict::Unknown, "what it waits for was not looked at".to_owned());
    };
    let mut around = around;
    if let Some(title) = &rules.title {
        if !title.is_match(&source.title) {
            return works(
                Verdict::Busy,
                format!("its title does not say that it is idle: {:?}", source.title),
            );
        }
        around.title_says_idle = true;
    }
    let proofs: Vec<Proof> = proof::job_threads(sample, rules)
        .map(|thread| proof::of_thread(sample, source, thread, &around, rules))
        .collect();
    if proofs.is_empty() {
        return works(Verdict::Unknown, "none of its threads is one of job_threads".to_owned());
    }
    for proof in &proofs {
        if let Proof::Busy(because) = proof {
            return works(Verdict::Busy, because.clone());
        }
    }
    for proof in &proofs {
        if let Proof::Unknown(because) = proof {
            return works(Verdict::Unknown, because.clone());
        }
    }
    if let Some(why) = &source.incomplete {
        return works(Verdict::Unknown, format!("not all of its descriptors could be looked at: {why}"));
    }
    if let Some(file) = proof::unread(sample, source, rules) {
        let what = describe(&file.what, false);
        return works(Verdict::Busy, format!("something unread waits on descriptor {} ({what})", file.fd));
    }
    if let Some(file) = proof::accepted(source) {
        let what = describe(&file.what, true);
        return works(Verdict::Busy, format!("a client is connected on descriptor {} ({what})", file.fd));
    }
    if let Some(thread) = proof::may_lock_in_a_job(sample, source, &around, rules) {
        let who = proof::name(thread);
        return works(
            Verdict::Unknown,
            format!("{who} waits for a lock, and may do so in the middle of a job"),
        );
    }
    let idle =
        proofs.iter().find_map(|p| if let Proof::Idle(because) = p { Some(because.clone()) } else { None });
    match idle {
        Some(because) => (Standing::Waits, (Verdict::Idle, because)),
        None => of_pool(sample, &proofs, &around, span, rules),
    }
}

/// No thread waits for a source of work by itself: whether the process is a member of a pool that nobody can wake any more.
fn of_pool(
    sample: &Sample,
    proofs: &[Proof],
    around: &Around<'_>,
    span: Option<&IdleSpan>,
    rules: &IdleRules,
) -> (Standing, Finding) {
    let holders: Vec<u32> = proofs
        .iter()
        .flat_map(|p| if let Proof::Pool(pids) = p { pids.clone() } else { Vec::new() })
        .collect();
    if !holders.is_empty() {
        let finding = match proof::all_wait(&holders, around) {
            Ok(()) => (
                Verdict::Idle,
                "it waits for a pipe that only orphans have open, and all of them wait".to_owned(),
            ),
            Err(pid) => (
                Verdict::Busy,
                format!("it waits for a pipe that process {pid} has open, an orphan with work"),
            ),
        };
        return (Standing::WaitsForPool, finding);
    }
    let locked = rules.pool && proofs.contains(&Proof::Neutral(true));
    if !locked && span.is_some_and(|s| s.has_slept_until(sample)) {
        // The others of its pool are gone, and nobody has the pipe any more that it reads: it still waits as it did when they
        // were there.
        let because = "it has not run since it was idle, and nobody can wake it any more".to_owned();
        return (Standing::Waits, (Verdict::Idle, because));
    }
    if !locked {
        let because = "nothing that its threads wait for brings work".to_owned();
        return (Standing::Works, (Verdict::Unknown, because));
    }
    let siblings = (around.siblings)();
    let finding = if let Some((pid, _)) = siblings.iter().find(|(_, standing)| !standing.waits()) {
        (Verdict::Busy, format!("it waits for a lock, and process {pid} of the same pool has work"))
    } else if siblings.iter().any(|(_, standing)| *standing == Standing::WaitsForPool)
        || span.is_some_and(|s| s.has_slept_until(sample))
    {
        // Whoever held the lock may be gone by now: who has not run since it was idle still is.
        (Verdict::Idle, "it waits for its turn in a pool that nobody can wake any more".to_owned())
    } else {
        (Verdict::Unknown, "it waits for a lock, and nobody of its pool waits for work".to_owned())
    };
    (Standing::WaitsForTurn, finding)
}

fn describe_asleep(sample: &Sample, cpu_ns: Ns, quiet_ns: Ns) -> String {
    let threads = match sample.threads.iter().filter(|t| is_alive(t)).count() {
        1 => "its thread is".to_owned(),
        n => format!("all {n} threads are"),
    };
    let cpu =
        if cpu_ns == 0 { "no CPU time".to_owned() } else { format!("{} of CPU time", words::span(cpu_ns)) };
    format!("{threads} asleep for {}, it has no child and used {cpu}", words::span(quiet_ns))
}

/// A descriptor for people. `from` for what has come to it.
fn describe(what: &FileKind, from: bool) -> String {
    match what {
        FileKind::Listening(at) => format!("listening at {at}"),
        FileKind::Connected { peer, .. } if from => format!("from {peer}"),
        FileKind::Connected { peer, .. } => format!("connected to {peer}"),
        FileKind::Pair { peer } => format!("socketpair with process {peer}"),
        FileKind::Unconnected { family, .. } => format!("{family} socket"),
        FileKind::Pipe => "pipe".to_owned(),
        FileKind::Neutral(what) | FileKind::Other(what) => what.clone(),
    }
}

fn view(thread: &Thread, source: Option<&Source>, rules: &IdleRules) -> ThreadView {
    let fds = if let Wait::Files { fds, .. } = &thread.wait { fds.as_slice() } else { &[] };
    let row = |fd: &i32| {
        let file = source?.files.iter().find(|f| f.fd == *fd)?;
        let (what, peer) = match &file.what {
            FileKind::Listening(at) => (format!("listening at {at}"), None),
            FileKind::Connected { peer, .. } if proof::is_queue(file, rules) => {
                ("queue".to_owned(), Some(peer.to_string()))
            }
            FileKind::Connected { peer, .. } => ("socket".to_owned(), Some(peer.to_string())),
            FileKind::Pair { peer } => ("socketpair".to_owned(), Some(format!("pid {peer}"))),
            FileKind::Pipe => {
                let pids = file.holders.iter().flatten().take(HOLDERS_TOLD);
                let pids = pids.map(|pid| format!("pid {pid}")).collect::<Vec<_>>();
                ("pipe".to_owned(), (!pids.is_empty()).then(|| pids.join(", ")))
            }
            other => (describe(other, false), None),
        };
        Some(WaitsOn { fd: *fd, what, peer })
    };
    ThreadView {
        tid: thread.tid,
        comm: thread.comm.clone(),
        state: thread.state,
        syscall: thread.syscall.clone(),
        waits_on: fds.iter().filter_map(row).take(FILES_TOLD).collect(),
    }
}

fn is_alive(thread: &Thread) -> bool {
    !matches!(thread.state, 'Z' | 'X')
}

/// What a thread does that is not asleep. The state letter of one that the agent itself holds says nothing: what it was in does.
fn awake(thread: &Thread, frozen: bool) -> Option<Finding> {
    let who = proof::name(thread);
    let doing = match thread.state {
        'S' | 'I' => return None,
        't' if frozen => match &thread.wait {
            Wait::Nothing => "was running when it was held",
            Wait::Unknown(why) => {
                return Some((Verdict::Unknown, format!("what {who} was doing is not known: {why}")));
            }
            _ => return None,
        },
        'R' => "is running",
        'D' => "is in uninterruptible sleep",
        'T' => "is stopped",
        't' => "is stopped by a tracer",
        _ => "is in an unknown state",
    };
    Some((Verdict::Busy, format!("{who} {doing}")))
}

#[cfg(test)]
mod tests;
