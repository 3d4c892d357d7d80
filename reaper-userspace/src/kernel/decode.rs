//! From the bytes of a record to an input of the core. Pure: no clock, no state, and no bytes make it panic.
//!
//! Text is the one thing that is changed on the way: what is not UTF-8 is replaced, as in `String::from_utf8_lossy`.

use std::sync::Arc;

use reaper_common::{self as wire, adopter, flag, kind, observed::armed};
use thiserror::Error;
use zerocopy::FromBytes;

use crate::core::argv::Argv;
use crate::core::ids::{Ns, ProcKey};
use crate::core::input::{Comm, Exec, Exit, Fork, Input, Parent, Task};

/// A record from the ring buffer.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The CPU it comes from.
    pub cpu: u32,
    /// Records that this CPU could not write since the programs were loaded. It only rises.
    pub lost: u64,
    /// `CLOCK_BOOTTIME` of the event.
    pub at: Ns,
    /// The event: a fork, an exec, an exit or a stop signal.
    pub input: Input,
}

/// Why bytes are not a record.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Fewer bytes than its kind needs, or than it says follow.
    #[error("a record of {len} bytes is too short")]
    TooShort {
        /// Bytes there are.
        len: usize,
    },
    /// A kind that does not belong here.
    #[error("a record of kind {0} does not belong here")]
    Kind(u32),
    /// A value that `reaper_common::adopter` does not have.
    #[error("a record with adopter kind {0}")]
    Adopter(u32),
}

/// Decodes a record of the ring buffer.
///
/// # Errors
/// Every [`DecodeError`].
pub fn decode(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let (header, _) = prefix::<wire::Header>(bytes)?;
    let at = header.boot_ns;
    let input = match header.kind {
        kind::FORK => Input::Fork(fork(at, &prefix::<wire::Fork>(bytes)?.0)),
        kind::EXEC => {
            let (record, tail) = prefix::<wire::Exec>(bytes)?;
            Input::Exec(exec(at, &record, tail).ok_or(DecodeError::TooShort { len: bytes.len() })?)
        }
        kind::SIGNAL => signal_seen(at, &prefix::<wire::StopSignal>(bytes)?.0),
        kind::EXIT => Input::Exit(exit(at, &prefix::<wire::Exit>(bytes)?.0)?),
        kind => return Err(DecodeError::Kind(kind)),
    };
    Ok(Decoded { cpu: header.cpu, lost: header.lost, at, input })
}

/// Decodes the rows of the task iterator.
///
/// # Errors
/// Every [`DecodeError`]; one bad row spoils the dump.
pub fn decode_tasks(bytes: &[u8]) -> Result<Vec<Task>, DecodeError> {
    let mut rest = bytes;
    let mut tasks = Vec::with_capacity(bytes.len() / size_of::<wire::Task>());
    while !rest.is_empty() {
        let (row, after) = prefix::<wire::Task>(rest)?;
        if row.header.kind != kind::TASK {
            return Err(DecodeError::Kind(row.header.kind));
        }
        tasks.push(task(&row)?);
        rest = after;
    }
    Ok(tasks)
}

/// Decodes the rows of the iterator over watched processes: whether an alarm runs for each, if the kernel tells.
///
/// # Errors
/// [`DecodeError::TooShort`].
pub fn decode_alarms(bytes: &[u8]) -> Result<Vec<(ProcKey, Option<bool>)>, DecodeError> {
    let mut rest = bytes;
    let mut alarms = Vec::new();
    while !rest.is_empty() {
        let (row, after) = prefix::<wire::observed::Alarm>(rest)?;
        let armed = match row.armed {
            armed::NO => Some(false),
            armed::YES => Some(true),
            _ => None,
        };
        alarms.push((key(row.proc), armed));
        rest = after;
    }
    Ok(alarms)
}

/// Copies a struct from the front, wherever it is aligned.
fn prefix<T: FromBytes>(bytes: &[u8]) -> Result<(T, &[u8]), DecodeError> {
    T::read_from_prefix(bytes).map_err(|_| DecodeError::TooShort { len: bytes.len() })
}

fn fork(at: Ns, record: &wire::Fork) -> Fork {
    Fork {
        at,
        child: key(record.child),
        parent: key(record.parent),
        comm: comm(&record.comm),
        uid: record.uid,
        session: record.sid,
        kernel_thread: record.flags & flag::KERNEL_THREAD != 0,
    }
}

fn exec(at: Ns, record: &wire::Exec, tail: &[u8]) -> Option<Exec> {
    let (filename, tail) = tail.split_at_checked(record.filename_len.into())?;
    let (argv, _) = tail.split_at_checked(record.argv_len.into())?;
    Some(Exec {
        at,
        key: key(record.proc),
        comm: comm(&record.comm),
        uid: record.uid,
        session: record.sid,
        filename: text(filename),
        argv: Argv::from_memory(argv),
        truncated: record.flags & flag::TRUNCATED != 0,
    })
}

fn exit(at: Ns, record: &wire::Exit) -> Result<Exit, DecodeError> {
    Ok(Exit {
        at,
        key: key(record.proc),
        status: record.status,
        adopter: parent(record.adopter_kind, record.adopter)?,
    })
}

fn signal_seen(at: Ns, record: &wire::StopSignal) -> Input {
    // Signals are numbers below 65.
    let signal = i32::try_from(record.signal).unwrap_or_default();
    Input::SignalSeen { at, target: key(record.target), signal, sender: record.sender }
}

fn task(row: &wire::Task) -> Result<Task, DecodeError> {
    Ok(Task {
        key: key(row.proc),
        parent: parent(row.parent_kind, row.parent)?,
        comm: comm(&row.comm),
        uid: row.uid,
        session: row.sid,
        kernel_thread: row.flags & flag::KERNEL_THREAD != 0,
        reaper: row.flags & (flag::SUBREAPER | flag::CHILD_REAPER) != 0,
    })
}

fn parent(kind: u32, by: wire::Proc) -> Result<Parent, DecodeError> {
    match kind {
        adopter::KNOWN => Ok(Parent::Known(key(by))),
        adopter::UNKNOWN => Ok(Parent::Unknown),
        adopter::NAMESPACE_DIES => Ok(Parent::NamespaceDies),
        adopter::NONE => Ok(Parent::None),
        other => Err(DecodeError::Adopter(other)),
    }
}

pub(super) fn key(process: wire::Proc) -> ProcKey {
    ProcKey { tgid: process.tgid, start_ns: process.start_ns }
}

/// The bytes before the first NUL.
fn comm(bytes: &[u8]) -> Comm {
    let bytes = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    match std::str::from_utf8(bytes) {
        Ok(name) => name.into(),
        Err(_) => String::from_utf8_lossy(bytes).into(),
    }
}

fn text(bytes: &[u8]) -> Arc<str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => String::from_utf8_lossy(bytes).into(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;
    use wire::{Header, Proc};
    use zerocopy::IntoBytes as _;

    use super::*;

    fn header(kind: u32) -> Header {
        Header { kind, cpu: 3, boot_ns: 77, lost: 5 }
    }

    fn process(tgid: u32) -> Proc {
        Proc { start_ns: u64::from(tgid) * 10, tgid, _pad: 0 }
    }

    fn name(text: &str) -> [u8; wire::COMM_LEN] {
        let mut comm = [0; wire::COMM_LEN];
        comm[..text.len()].copy_from_slice(text.as_bytes());
        comm
    }

    fn exec_record(filename: &[u8], argv: &[u8], flags: u32) -> Vec<u8> {
        let record = wire::Exec {
            header: header(kind::EXEC),
            proc: process(8),
            comm: name("php"),
            uid: 33,
            sid: 8,
            flags,
            filename_len: u16::try_from(filename.len()).unwrap(),
            argv_len: u16::try_from(argv.len()).unwrap(),
        };
        [record.as_bytes(), filename, argv].concat()
    }

    #[test]
    fn a_fork() {
        let record = wire::Fork {
            header: header(kind::FORK),
            child: process(8),
            parent: process(7),
            comm: name("sixteen_bytes_ok"),
            uid: 33,
            sid: 6,
            flags: flag::KERNEL_THREAD,
            _pad: 0,
        };
        let decoded = decode(record.as_bytes()).unwrap();
        assert_eq!((decoded.cpu, decoded.lost, decoded.at), (3, 5, 77));
        let expected = Fork {
            at: 77,
            child: ProcKey { tgid: 8, start_ns: 80 },
            parent: ProcKey { tgid: 7, start_ns: 70 },
            comm: "sixteen_bytes_ok".into(),
            uid: 33,
            session: 6,
            kernel_thread: true,
        };
        assert_eq!(decoded.input, Input::Fork(expected));
    }

    #[test]
    fn an_exec_with_empty_and_broken_arguments() {
        let record = exec_record(b"/usr/bin/php", b"php\0\0art\xffisan\0", 0);
        let Input::Exec(exec) = decode(&record).unwrap().input else { unreachable!() };
        assert_eq!(&*exec.filename, "/usr/bin/php");
        assert_eq!(exec.argv, Argv::from_iter(["php", "", "art\u{fffd}isan"]));
        assert!(!exec.truncated);
    }

    #[test]
    fn an_exec_cut_short_keeps_the_beginning_of_the_last_argument() {
        let record = exec_record(b"", b"php\0arti", flag::TRUNCATED);
        let Input::Exec(exec) = decode(&record).unwrap().input else { unreachable!() };
        assert_eq!(exec.argv, Argv::from_iter(["php", "arti"]));
        assert!(exec.truncated);
    }

    #[test]
    fn an_exec_without_arguments() {
        let Input::Exec(exec) = decode(&exec_record(b"x", b"", 0)).unwrap().input else { unreachable!() };
        assert_eq!(exec.argv, Argv::default());
    }

    #[test]
    fn exits_by_adopter() {
        let record = |adopter_kind| wire::Exit {
            header: header(kind::EXIT),
            proc: process(8),
            adopter: process(1),
            adopter_kind,
            status: 0x300,
            comm: name("sh"),
        };
        let adopter_of = |kind| match decode(record(kind).as_bytes()) {
            Ok(Decoded { input: Input::Exit(exit), .. }) => Ok((exit.status, exit.adopter)),
            Ok(_) => unreachable!(),
            Err(error) => Err(error),
        };
        let init = ProcKey { tgid: 1, start_ns: 10 };
        assert_eq!(adopter_of(adopter::KNOWN), Ok((0x300, Parent::Known(init))));
        assert_eq!(adopter_of(adopter::UNKNOWN), Ok((0x300, Parent::Unknown)));
        assert_eq!(adopter_of(adopter::NAMESPACE_DIES), Ok((0x300, Parent::NamespaceDies)));
        assert_eq!(adopter_of(adopter::NONE), Ok((0x300, Parent::None)));
        assert_eq!(adopter_of(9), Err(DecodeError::Adopter(9)));
    }

    #[test]
    fn rows_of_a_snapshot() {
        let row = wire::Task {
            header: header(kind::TASK),
            proc: process(8),
            parent: process(7),
            parent_kind: adopter::KNOWN,
            flags: flag::SUBREAPER,
            uid: 33,
            sid: 8,
            comm: name("supervisord"),
        };
        let rows = [row.as_bytes(), row.as_bytes()].concat();
        let tasks = decode_tasks(&rows).unwrap();
        assert_eq!(tasks.len(), 2);
        assert!(tasks[0].reaper && !tasks[0].kernel_thread);
        assert_eq!(decode_tasks(&rows[..rows.len() - 1]), Err(DecodeError::TooShort { len: 87 }));
        assert_eq!(decode_tasks(&[]), Ok(Vec::new()));
    }

    #[test]
    fn every_shorter_record_is_refused() {
        let record = exec_record(b"/bin/sh", b"sh\0-c\0", 0);
        for len in 0..record.len() {
            assert_eq!(decode(&record[..len]), Err(DecodeError::TooShort { len }));
        }
        assert_eq!(decode(header(kind::TASK).as_bytes()), Err(DecodeError::Kind(kind::TASK)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_understood(kind in 0_u32..6, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut record = kind.to_ne_bytes().to_vec();
            record.extend(bytes);
            let _ = decode(&record);
            let _ = decode_tasks(&record);
        }
    }
}
