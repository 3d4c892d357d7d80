//! What a thread's wait proves: does it wait for its source of work, or in the middle of a job?
//!
//! Each descriptor of a wait set is a source of work, neutral, or something else; something else is work in progress. What is not
//! known for certain is unknown.

use super::super::ids::{MS, Ns};
use super::super::rules::{Endpoint, IdleRules};
use super::super::sample::{Address, File, FileKind, Sample, Source, Thread, Wait};
use super::super::view::words;
use super::{Around, Standing, is_alive};

/// How exactly a sleep must be as long as the framework's.
const SLEEP_TOLERANCE: Ns = MS;

/// TERM and ALRM in a mask of signals that are caught. A program whose framework arms alarms handles one of them; without either
/// (a PHP without pcntl) no alarm is ever armed, and none says nothing.
const ALARMS_MAY_COME: u64 = 1 << 14 | 1 << 13;

/// What one thread, or one descriptor, says about the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// It waits for work: how.
    Idle(String),
    /// It waits for a pipe that nobody but these has open, all of them orphans of its group.
    Pool(Vec<u32>),
    /// It says nothing by itself. True if it is a futex without a timeout.
    Neutral(bool),
    /// It is in the middle of something: what.
    Busy(String),
    /// That cannot be told: why.
    Unknown(String),
}

/// The one thread that polls by sleeping, as a sample shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sleeper {
    /// It sleeps as long as the framework does between polls.
    Rests {
        /// Who.
        tid: u32,
        /// How often it has been switched away from a CPU.
        switches: u64,
    },
    /// It is awake, or waits for the queue.
    Awake,
    /// It waits for something that no poll waits for.
    Works,
}

/// What the job threads of a sample do between polls.
pub(super) fn sleeper(sample: &Sample, rules: &IdleRules) -> Sleeper {
    let Some(source) = &sample.source else { return Sleeper::Works };
    let mut found = Sleeper::Works;
    for thread in job_threads(sample, rules) {
        let now = match &thread.wait {
            Wait::Sleep { length } if is_poll_sleep(*length, rules) => match thread.switches {
                Some(switches) => Sleeper::Rests { tid: thread.tid, switches },
                None => Sleeper::Works,
            },
            Wait::Nothing => Sleeper::Awake,
            Wait::Files { fds, .. } if fds.iter().all(|fd| leads_to_queue(source, *fd, rules)) => {
                Sleeper::Awake
            }
            Wait::Futex { .. } => continue,
            _ => return Sleeper::Works,
        };
        if found != Sleeper::Works {
            // Two threads that might poll: whose exchanges they are is not known.
            return Sleeper::Works;
        }
        found = now;
    }
    found
}

/// A thread in a futex where each of several others waits for jobs by itself: it may wait for its turn, or in the middle of a job
/// (in Ruby, sleeps, joins and locks are futexes). With one that waits for all of them the law is that a futex is neutral, and
/// a server's jobs show as clients.
pub(super) fn may_lock_in_a_job<'a>(
    sample: &'a Sample,
    source: &Source,
    around: &Around<'_>,
    rules: &'a IdleRules,
) -> Option<&'a Thread> {
    let waits_on_queue = |t: &&Thread| {
        let queue = |fd: &i32| source.files.iter().any(|f| f.fd == *fd && is_queue(f, rules));
        waited(&t.wait).iter().any(queue)
    };
    let several = job_threads(sample, rules).filter(waits_on_queue).count() > 1;
    if !several || rules.job_in_child || around.title_says_idle {
        return None;
    }
    job_threads(sample, rules).find(|t| matches!(t.wait, Wait::Futex { .. }))
}

/// The threads that are judged.
pub(super) fn job_threads<'a>(sample: &'a Sample, rules: &'a IdleRules) -> impl Iterator<Item = &'a Thread> {
    let judged = |t: &&Thread| is_alive(t) && rules.job_threads.iter().any(|g| g.is_match(&t.comm));
    sample.threads.iter().filter(judged)
}

/// Whether a socket is a connection to a declared queue.
pub(super) fn is_queue(file: &File, rules: &IdleRules) -> bool {
    let FileKind::Connected { peer, .. } = &file.what else { return false };
    rules.queue.iter().any(|endpoint| match (endpoint, peer) {
        (Endpoint::Tcp { ip, port }, Address::Tcp(peer_ip, peer_port)) => {
            port == peer_port && ip.is_none_or(|ip| ip == *peer_ip)
        }
        (Endpoint::Unix(path), Address::Unix(peer)) => path == peer,
        _ => false,
    })
}

/// A socket that a client has connected to one of the process's listening sockets.
pub(super) fn accepted(source: &Source) -> Option<&File> {
    let listens_at = |local: &Address| {
        source.files.iter().any(|f| match (&f.what, local) {
            (FileKind::Listening(Address::Tcp(_, at)), Address::Tcp(_, port)) => at == port,
            (FileKind::Listening(at), local) => at == local,
            _ => false,
        })
    };
    source.files.iter().find(|f| match &f.what {
        FileKind::Connected { local, .. } | FileKind::Unconnected { local: Some(local), .. } => {
            listens_at(local)
        }
        _ => false,
    })
}

/// What is unread on something that a thread waits for, or on a connection to the queue.
pub(super) fn unread<'a>(sample: &Sample, source: &'a Source, rules: &IdleRules) -> Option<&'a File> {
    let waited: Vec<i32> = job_threads(sample, rules).flat_map(|t| waited(&t.wait)).copied().collect();
    source.files.iter().find(|f| {
        let matters = waited.contains(&f.fd) || (is_queue(f, rules) && !is_shared(f));
        matters && f.readable == Some(true) && !matches!(f.what, FileKind::Neutral(_))
    })
}

/// What `thread` proves.
pub(super) fn of_thread(
    sample: &Sample,
    source: &Source,
    thread: &Thread,
    around: &Around<'_>,
    rules: &IdleRules,
) -> Proof {
    let who = || name(thread);
    let call = || thread.syscall.as_deref().unwrap_or("a system call");
    match &thread.wait {
        Wait::NotAsked => Proof::Unknown(format!("what {} waits for was not looked at", who())),
        Wait::Unknown(why) => Proof::Unknown(format!("what {} waits for is not known: {why}", who())),
        Wait::Nothing => Proof::Busy(format!("{} was running", who())),
        Wait::Futex { timed } => Proof::Neutral(!timed),
        Wait::Child => Proof::Busy(format!("{} waits for a child", who())),
        Wait::Other => Proof::Busy(format!("{} is in {}, which waits for no work", who(), call())),
        Wait::Sleep { length } => of_sleep(source, thread, *length, around, rules),
        Wait::Files { fds, .. } => {
            let mut queue = None;
            let mut found = Proof::Neutral(false);
            for &fd in fds {
                let Some(file) = source.files.iter().find(|f| f.fd == fd) else {
                    return Proof::Unknown(format!(
                        "{} waits for descriptor {fd}, of which nothing is known",
                        who()
                    ));
                };
                let proof = of_file(file, around, rules);
                if is_queue(file, rules) && matches!(proof, Proof::Idle(_)) {
                    queue = Some(file);
                }
                found = found.and(proof);
            }
            let found = found.said_of(thread, call());
            match queue {
                Some(file) if matches!(found, Proof::Idle(_)) => {
                    of_queue(sample, source, file, around, rules)
                        .map_or(found, |doubt| doubt.said_of(thread, call()))
                }
                _ => found,
            }
        }
    }
}

/// A thread in a timed sleep.
fn of_sleep(
    source: &Source,
    thread: &Thread,
    length: Option<Ns>,
    around: &Around<'_>,
    rules: &IdleRules,
) -> Proof {
    let who = name(thread);
    let Some(length) = length else {
        return Proof::Busy(format!(
            "{who} sleeps until a point in time, which no poll of its framework does"
        ));
    };
    if around.title_says_idle {
        return Proof::Idle(format!(
            "{who} sleeps for {}, and its title says that it is idle",
            words::span(length)
        ));
    }
    let Some(sleep) = rules.sleep else {
        return Proof::Busy(format!(
            "{who} sleeps for {}, and its group does not poll by sleeping",
            words::span(length)
        ));
    };
    if !is_poll_sleep(Some(length), rules) {
        let (length, sleep) = (words::span(length), words::span(sleep));
        return Proof::Busy(format!("{who} sleeps for {length}, and between polls it would be {sleep}"));
    }
    let length = words::span(length);
    match around.polls {
        seen if seen >= super::polls::ENOUGH => {
            Proof::Idle(format!("{who} sleeps for {length} between polls, and the last {seen} found nothing"))
        }
        seen => Proof::Unknown(format!(
            "{who} sleeps for {length} as between polls, but a job may, too: {seen} of {} polls that find nothing have been seen{}",
            super::polls::ENOUGH,
            queue_elsewhere(source, rules).unwrap_or_default()
        )),
    }
}

/// The connection of a process that is connected, but to no queue that its group names: its polls are not seen.
fn queue_elsewhere(source: &Source, rules: &IdleRules) -> Option<String> {
    if source.files.iter().any(|file| is_queue(file, rules)) {
        return None;
    }
    let mut peers = source.files.iter().filter_map(|file| match &file.what {
        FileKind::Connected { peer, .. } => Some(peer),
        _ => None,
    });
    let peer = peers.next()?;
    Some(format!("; it has no connection to a queue of its group, and one to {peer}"))
}

/// What speaks against a wait on a connection to the queue being the wait for the next job.
fn of_queue(
    sample: &Sample,
    source: &Source,
    file: &File,
    around: &Around<'_>,
    rules: &IdleRules,
) -> Option<Proof> {
    if rules.job_by_pipe {
        return Some(Proof::Busy(
            "its queue, and its master hands the jobs out over a pipe: a job's wait".to_owned(),
        ));
    }
    if let Some(alarms) = &rules.alarm {
        let never = alarms.except.as_ref().is_some_and(|r| r.is_match(&source.title))
            || source.caught.is_none_or(|caught| caught & ALARMS_MAY_COME == 0);
        return match source.alarm {
            Some(true) => Some(Proof::Busy("its queue, while an alarm limits the time of a job".to_owned())),
            _ if never => Some(Proof::Unknown(
                "its queue, but no alarm would limit the time of a job, so it may be one".to_owned(),
            )),
            Some(false) => None,
            None => Some(Proof::Unknown(
                "its queue, and whether an alarm limits the time of a job is not known".to_owned(),
            )),
        };
    }
    if rules.job_in_child || around.title_says_idle {
        return None;
    }
    let waited: Vec<i32> = sample.threads.iter().flat_map(|t| waited(&t.wait)).copied().collect();
    // A job may have come over any of those that are waited for.
    let own = |f: &&File| f.fd == file.fd || (waited.contains(&f.fd) && is_queue(f, rules) && !is_shared(f));
    for own in source.files.iter().filter(own) {
        let last =
            own.traffic.and_then(|t| t.last).filter(|last| !last.sent && last.bytes > rules.poll_reply);
        if let Some(last) = last {
            return Some(Proof::Busy(format!(
                "its queue, from which the last thing were {} bytes: a job",
                last.bytes
            )));
        }
    }
    let others =
        source.files.iter().filter(|f| is_queue(f, rules) && !is_shared(f) && !waited.contains(&f.fd));
    match others.count() {
        0 => None,
        n => Some(Proof::Unknown(format!(
            "its queue, over one of {} connections, and which of them brings the jobs is not known",
            n + 1
        ))),
    }
}

/// One descriptor of a wait set.
fn of_file(file: &File, around: &Around<'_>, rules: &IdleRules) -> Proof {
    match &file.what {
        FileKind::Listening(at) => Proof::Idle(format!("new connections at {at}")),
        FileKind::Connected { peer, .. } if is_queue(file, rules) => match &file.holders {
            None => Proof::Unknown(format!("its queue {peer}, a connection that others may share")),
            Some(others) if !others.is_empty() => Proof::Unknown(format!(
                "its queue {peer}, over a connection that process {} shares",
                others[0]
            )),
            Some(_) => Proof::Idle(format!("its queue {peer}")),
        },
        FileKind::Connected { peer, .. } => Proof::Busy(format!("{peer}, which is not its source of work")),
        FileKind::Pair { peer } => of_pair(file, *peer, around),
        FileKind::Unconnected { family, .. } => Proof::Busy(format!("a {family} socket")),
        FileKind::Pipe => of_pipe(file, around),
        FileKind::Neutral(_) => Proof::Neutral(false),
        FileKind::Other(what) => Proof::Busy(what.clone()),
    }
}

/// A socketpair: to itself (a wake-up), to the master that made it, or to somebody else.
fn of_pair(file: &File, maker: u32, around: &Around<'_>) -> Proof {
    if around.lineage.contains(&maker) {
        // Its siblings may have inherited the other end, and may answer on it.
        let siblings: Vec<u32> = (around.siblings)().into_iter().map(|(pid, _)| pid).collect();
        return if siblings.is_empty() {
            Proof::Idle(format!("process {maker}, which made the socketpair and was its master"))
        } else {
            Proof::Pool(siblings)
        };
    }
    match &file.holders {
        Some(others) if maker == around.pid && others.is_empty() => Proof::Neutral(false),
        _ => Proof::Busy(format!("a socketpair with process {maker}")),
    }
}

/// A pipe: to itself (a wake-up), in a pool that nobody else can wake, or to somebody else.
fn of_pipe(file: &File, around: &Around<'_>) -> Proof {
    let Some(others) = &file.holders else {
        return Proof::Unknown("a pipe, and who else has it open is not known".to_owned());
    };
    match others.iter().find(|&&pid| (around.mate)(pid).is_none()) {
        Some(pid) => Proof::Busy(format!("a pipe that process {pid} has open, too")),
        None if others.is_empty() => Proof::Neutral(false),
        None => Proof::Pool(others.clone()),
    }
}

impl Proof {
    /// Two descriptors of one wait set: something else is work, whatever the other one is.
    fn and(self, other: Self) -> Self {
        let rank = |p: &Self| match p {
            Self::Busy(_) => 4,
            Self::Unknown(_) => 3,
            Self::Idle(_) => 2,
            Self::Pool(_) => 1,
            Self::Neutral(_) => 0,
        };
        match (self, other) {
            (Self::Pool(mut a), Self::Pool(b)) => {
                a.extend(b);
                Self::Pool(a)
            }
            (Self::Idle(a), Self::Idle(b)) if a != b => Self::Idle(format!("{a} and {b}")),
            (a, b) if rank(&a) >= rank(&b) => a,
            (_, b) => b,
        }
    }

    /// The sentence about a descriptor, made one about the thread.
    fn said_of(self, thread: &Thread, call: &str) -> Self {
        let said = |what: String| format!("{} waits in {call} for {what}", name(thread));
        match self {
            Self::Idle(what) => Self::Idle(said(what)),
            Self::Busy(what) => Self::Busy(said(what)),
            Self::Unknown(what) => Self::Unknown(said(what)),
            other => other,
        }
    }
}

/// Whether each of these orphans waits, too.
pub(super) fn all_wait(pids: &[u32], around: &Around<'_>) -> Result<(), u32> {
    pids.iter().find(|&&pid| !(around.mate)(pid).is_some_and(Standing::waits)).map_or(Ok(()), |&pid| Err(pid))
}

/// "thread 4711 (php)".
pub(super) fn name(thread: &Thread) -> String {
    format!("thread {} ({})", thread.tid, thread.comm)
}

fn waited(wait: &Wait) -> &[i32] {
    if let Wait::Files { fds, .. } = wait { fds } else { &[] }
}

fn is_shared(file: &File) -> bool {
    file.holders.as_ref().is_none_or(|others| !others.is_empty())
}

fn leads_to_queue(source: &Source, fd: i32, rules: &IdleRules) -> bool {
    source.files.iter().any(|f| f.fd == fd && (is_queue(f, rules) || matches!(f.what, FileKind::Neutral(_))))
}

fn is_poll_sleep(length: Option<Ns>, rules: &IdleRules) -> bool {
    matches!((length, rules.sleep), (Some(length), Some(sleep)) if length.abs_diff(sleep) <= SLEEP_TOLERANCE)
}
