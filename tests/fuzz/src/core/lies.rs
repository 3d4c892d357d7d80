//! Whatever may be told to the core: a dozen pids, few names, times that go forward.

use std::net::{IpAddr, Ipv4Addr};

use arbitrary::{Result, Unstructured};
use reaper::core::argv::Argv;
use reaper::core::ids::{MS, Ns, ProcKey};
use reaper::core::input::{Comm, Exec, Exit, Fork, Identified, Identity, Input, Parent, Sampled, Task};
use reaper::core::sample::{Address, File, FileKind, Operation, Sample, Source, Thread, Traffic, Wait};

const COMMS: [&str; 6] = ["worker", "boss", "guarded", "helper", "sshd", ""];
const TITLES: [&str; 6] = ["master 1", "worker 1", "worker job", "boss x", "sh -c x", ""];
const STATES: [char; 7] = ['S', 'S', 'S', 'R', 'D', 't', 'Z'];

pub(super) fn input(u: &mut Unstructured<'_>, now: Ns) -> Result<Input> {
    let at = now;
    Ok(match u.int_in_range(0..=13)? {
        0..=3 => Input::Fork(Fork {
            at,
            child: key(u)?,
            parent: key(u)?,
            comm: comm(u)?,
            uid: u.int_in_range(0..=1)?,
            session: u.int_in_range(0..=12)?,
            kernel_thread: u.ratio(1, 16)?,
        }),
        4..=6 => Input::Exec(Exec {
            at,
            key: key(u)?,
            comm: comm(u)?,
            uid: u.int_in_range(0..=1)?,
            session: u.int_in_range(0..=12)?,
            filename: "/bin/x".into(),
            argv: argv(u)?,
            truncated: u.ratio(1, 8)?,
        }),
        7..=9 => Input::Exit(Exit {
            at,
            key: key(u)?,
            status: *u.choose(&[0, 9, 256, u32::MAX])?,
            adopter: parent(u)?,
        }),
        10 => Input::Snapshot { at, took_ns: 1_000, tasks: rows(u)? },
        11 => Input::Merged { at },
        12 => Input::Lost { at, count: u.int_in_range(1..=3)? },
        _ => Input::SignalSeen {
            at,
            target: key(u)?,
            signal: u.int_in_range(0..=64)?,
            sender: u.int_in_range(0..=12)?,
        },
    })
}

fn key(u: &mut Unstructured<'_>) -> Result<ProcKey> {
    // Now and then a pid has had another owner.
    Ok(ProcKey {
        tgid: u.int_in_range(1..=12)?,
        start_ns: *u.choose(&[1_000, 1_000, 1_000, 2_000, 9_000 * MS])?,
    })
}

fn parent(u: &mut Unstructured<'_>) -> Result<Parent> {
    Ok(match u.int_in_range(0..=7)? {
        0 => Parent::Unknown,
        1 => Parent::None,
        2 => Parent::NamespaceDies,
        _ => Parent::Known(key(u)?),
    })
}

fn rows(u: &mut Unstructured<'_>) -> Result<Vec<Task>> {
    let row = |u: &mut Unstructured<'_>| -> Result<Task> {
        Ok(Task {
            key: key(u)?,
            parent: parent(u)?,
            comm: comm(u)?,
            uid: 0,
            session: u.int_in_range(0..=12)?,
            kernel_thread: u.ratio(1, 16)?,
            reaper: u.ratio(1, 4)?,
        })
    };
    (0..u.int_in_range(0..=8)?).map(|_| row(u)).collect()
}

fn comm(u: &mut Unstructured<'_>) -> Result<Comm> {
    Ok((*u.choose(&COMMS)?).into())
}

fn argv(u: &mut Unstructured<'_>) -> Result<Argv> {
    Ok(u.choose(&TITLES)?.split(' ').filter(|w| !w.is_empty()).collect())
}

pub(super) fn identified(u: &mut Unstructured<'_>, now: Ns) -> Result<Identified> {
    Ok(match u.int_in_range(0..=11)? {
        0 => Identified::Gone,
        1 => Identified::Unreadable("no".to_owned()),
        _ => Identified::Alive(Identity {
            at: now,
            comm: comm(u)?,
            argv: argv(u)?,
            exe: "/bin/x".into(),
            uid: 0,
            ppid: u.int_in_range(0..=12)?,
            session: u.int_in_range(0..=12)?,
            cgroups: Vec::new(),
        }),
    })
}

pub(super) fn sampled(u: &mut Unstructured<'_>, now: Ns, frozen: bool) -> Result<Sampled> {
    Ok(match u.int_in_range(0..=15)? {
        0 => Sampled::Gone,
        1 => Sampled::Unreadable("no".to_owned()),
        _ => {
            let threads = (0..u.int_in_range(1..=2)?).map(|n| thread(u, n)).collect::<Result<_>>()?;
            let cpu_ns = *u.choose(&[0, 0, 1_000, 50 * MS, u64::MAX])?;
            let source = if u.ratio(3, 4)? { Some(source(u)?) } else { None };
            Sampled::Seen(Sample { at: now, threads, cpu_ns, frozen: frozen && u.ratio(7, 8)?, source })
        }
    })
}

fn thread(u: &mut Unstructured<'_>, n: u32) -> Result<Thread> {
    let timeout = u.arbitrary()?;
    let wait = match u.int_in_range(0..=8)? {
        0 => Wait::NotAsked,
        1 => Wait::Nothing,
        2 => Wait::Futex { timed: u.arbitrary()? },
        3 => Wait::Sleep { length: timeout },
        4 => Wait::Child,
        5 => Wait::Other,
        6 => Wait::Unknown("no".to_owned()),
        _ => Wait::Files { fds: vec![u.int_in_range(3..=5)?], timeout },
    };
    let (comm, state) = (comm(u)?.to_string(), *u.choose(&STATES)?);
    Ok(Thread { tid: n + 1, comm, state, syscall: None, wait, switches: Some(u.int_in_range(0..=2)?) })
}

fn source(u: &mut Unstructured<'_>) -> Result<Source> {
    let files = (0..u.int_in_range(0..=3)?).map(|n| file(u, n)).collect::<Result<_>>()?;
    Ok(Source {
        files,
        incomplete: u.ratio(1, 8)?.then(|| "no".to_owned()),
        title: (*u.choose(&TITLES)?).into(),
        caught: u.arbitrary()?,
        alarm: u.arbitrary()?,
    })
}

fn file(u: &mut Unstructured<'_>, n: i32) -> Result<File> {
    let queue = |port| Address::Tcp(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let what = match u.int_in_range(0..=6)? {
        0 => FileKind::Listening(queue(80)),
        1 => FileKind::Connected { local: queue(40_000), peer: queue(6_379) },
        2 => FileKind::Connected { local: queue(80), peer: queue(50_000) },
        3 => FileKind::Pair { peer: u.int_in_range(0..=12)? },
        4 => FileKind::Pipe,
        5 => FileKind::Neutral("eventfd".to_owned()),
        _ => FileKind::Unconnected { family: "tcp".to_owned(), local: Some(queue(80)) },
    };
    let holders = if u.arbitrary()? { Some(vec![u.int_in_range(1..=12)?]) } else { None };
    let traffic = if u.arbitrary()? { Some(traffic(u)?) } else { None };
    let inode = u.int_in_range(1..=3)?;
    Ok(File { fd: 3 + n, what, inode, readable: u.arbitrary()?, holders, traffic })
}

fn traffic(u: &mut Unstructured<'_>) -> Result<Traffic> {
    let last = if u.arbitrary()? {
        Some(Operation { at: u.arbitrary()?, sent: u.arbitrary()?, bytes: u.arbitrary()? })
    } else {
        None
    };
    let [sends, sent, receives, received] = u.arbitrary()?;
    Ok(Traffic { sends, sent, receives, received, last })
}
