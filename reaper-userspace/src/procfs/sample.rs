//! One look at every thread of a process.

use super::{Opened, ReadError, stat_of};
use crate::core::ids::{Ns, ProcKey};
use crate::core::input::Sampled;
use crate::core::sample::{Sample, Thread, Wait};

/// Looks at every thread of `key`. `now` is the time of looking.
pub fn sample(now: Ns, key: ProcKey) -> Sampled {
    match try_sample(now, key) {
        Ok(sample) => Sampled::Seen(sample),
        Err(ReadError::Gone) => Sampled::Gone,
        Err(e @ ReadError::Unreadable { .. }) => Sampled::Unreadable(e.to_string()),
    }
}

fn try_sample(now: Ns, key: ProcKey) -> Result<Sample, ReadError> {
    let opened = Opened::open(key)?;
    let unreadable = |why: String| ReadError::Unreadable { pid: opened.pid, file: "task".to_owned(), why };
    let mut threads = Vec::new();
    let mut cpu_ns = 0;
    for task in opened.dir.tasks().map_err(|e| unreadable(e.to_string()))? {
        let tid = task.map_err(|e| unreadable(e.to_string()))?.tid;
        match look(&opened, tid) {
            Ok((thread, used)) => {
                threads.push(thread);
                cpu_ns += used;
            }
            // A thread that ended meanwhile. The next sample shows that threads went.
            Err(ReadError::Gone) => {}
            Err(e) => return Err(e),
        }
    }
    threads.sort_unstable_by_key(|t| t.tid);
    Ok(Sample { at: now, threads, cpu_ns, ..Sample::default() })
}

fn look(opened: &Opened, tid: i32) -> Result<(Thread, Ns), ReadError> {
    let stat = stat_of(opened.pid, &opened.read(&format!("task/{tid}/stat"))?)?;
    let schedstat = opened.read(&format!("task/{tid}/schedstat"))?;
    let used = schedstat.split_whitespace().next().and_then(|n| n.parse().ok());
    let used = used.ok_or_else(|| ReadError::Unreadable {
        pid: opened.pid,
        file: format!("task/{tid}/schedstat"),
        why: "it does not begin with the time spent on the CPU".to_owned(),
    })?;
    let thread = Thread {
        tid: u32::try_from(tid).unwrap_or_default(),
        comm: stat.comm,
        state: stat.state,
        syscall: None,
        wait: Wait::NotAsked,
        switches: None,
    };
    Ok((thread, used))
}
