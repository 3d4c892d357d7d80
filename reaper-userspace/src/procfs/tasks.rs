//! Every process of the host as /proc shows it: what a dump of the kernel's tasks says, as far as it can be known from
//! outside. Start times are cut to clock ticks, and who is a subreaper is not told.

use std::collections::BTreeMap;

use super::{read_error, stat_of};
use crate::core::ids::ProcKey;
use crate::core::input::{Parent, Task};

/// `PF_KTHREAD` of `task_struct::flags`, the ninth field of `/proc/PID/stat`.
const PF_KTHREAD: u32 = 0x0020_0000;

/// A row for each process that is there for the whole of the reading, in the order of pids.
///
/// # Errors
/// /proc cannot be read at all.
pub fn tasks() -> Result<Vec<Task>, super::ReadError> {
    let all = ::procfs::process::all_processes().map_err(|e| read_error(0, "", &e))?;
    let mut stats = BTreeMap::new();
    for process in all.flatten() {
        let pid = u32::try_from(process.pid).unwrap_or_default();
        let Ok(stat) = super::read(pid, &process, "stat", usize::MAX).and_then(|text| stat_of(pid, &text))
        else {
            continue;
        };
        // A zombie is dead. (If only its leader is, the process goes on, and is left out here.)
        if !matches!(stat.state, 'Z' | 'X') {
            stats.insert(pid, stat);
        }
    }
    let tick_ns = 1_000_000_000 / ::procfs::ticks_per_second().max(1);
    let keys: BTreeMap<u32, ProcKey> = stats
        .iter()
        .map(|(&pid, stat)| (pid, ProcKey { tgid: pid, start_ns: stat.starttime * tick_ns }))
        .collect();
    let number = |n: i32| u32::try_from(n).unwrap_or_default();
    let row = |(pid, stat): (&u32, &::procfs::process::Stat)| Task {
        key: keys[pid],
        parent: match (stat.ppid, keys.get(&number(stat.ppid))) {
            (0, _) => Parent::None,
            (_, Some(&parent)) => Parent::Known(parent),
            (_, None) => Parent::Unknown,
        },
        comm: stat.comm.as_str().into(),
        uid: 0,
        session: number(stat.session),
        kernel_thread: stat.flags & PF_KTHREAD != 0,
        reaper: *pid == 1,
    };
    Ok(stats.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_this_process_below_its_parent() {
        let tasks = tasks().unwrap();
        let own = super::super::key(std::process::id()).unwrap();
        let row = tasks.iter().find(|t| t.key == own).unwrap();
        let Parent::Known(parent) = row.parent else { panic!("no parent: {row:?}") };
        assert_eq!(parent.tgid, std::os::unix::process::parent_id());
        assert!(tasks.iter().any(|t| t.key == parent) && !row.kernel_thread);
        assert!(tasks.iter().all(|t| t.key.start_ns > 0 || t.key.tgid <= 2 || t.kernel_thread));
    }
}
