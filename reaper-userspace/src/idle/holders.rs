//! Which processes have a pipe or socket open: one walk over `/proc/*/fd`, shared by everybody who asks for a while.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use rustix::fs::{Dir, Mode, OFlags, fstat, open, openat, readlinkat};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use super::files::inode_of;

/// A walk is used for this long at least by those whose descriptors it has seen.
const SHORTEST: Duration = Duration::from_secs(1);

/// And this many times as long as it used a CPU, so that walking stays below a twentieth of one. On a machine that does much
/// else it takes longer, and need not be made less often for that.
const SHARE: u32 = 20;

/// The one process that outlives every other.
const INIT: u32 = 1;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Who holds what.
#[derive(Debug)]
pub(super) struct Holders {
    proc: PathBuf,
    walk: Option<Walk>,
}

#[derive(Debug)]
struct Walk {
    /// When it ended.
    end: Instant,
    /// How much CPU time it took.
    cost: Duration,
    /// By inode. `None`: somebody's descriptors could not be seen, so nothing is known of anybody's.
    by_inode: Option<FxHashMap<u64, Vec<u32>>>,
}

impl Holders {
    pub(super) fn new() -> Self {
        Self { proc: PathBuf::from("/proc"), walk: None }
    }

    /// Who besides `pid` has this pipe or socket open, by pid. `None` if that is not known, as of a descriptor that `pid` has
    /// got since the last walk.
    pub(super) fn besides(&mut self, pid: u32, inode: u64) -> Option<Vec<u32>> {
        if !self.knows(pid, inode) {
            self.walk = Some(Walk::now(&self.proc));
        }
        let all = self.walk.as_ref()?.by_inode.as_ref()?.get(&inode)?;
        let proc = open(&self.proc, DIRECTORY, Mode::empty()).ok()?;
        // Of the others, those that still have it: a job that was a child has often ended since the walk.
        let still = |p: &u32| match inodes(&proc, *p) {
            Ok(inodes) => inodes.contains(&inode),
            Err(Errno::NOENT | Errno::SRCH) => false,
            Err(_) => true,
        };
        all.contains(&pid).then(|| all.iter().copied().filter(|p| *p != pid && still(p)).collect())
    }

    /// Whether the walk need not be made anew: it is young, or it is not so old that it may be and knows of this descriptor.
    fn knows(&self, pid: u32, inode: u64) -> bool {
        let Some(walk) = &self.walk else { return false };
        let (age, least) = (walk.end.elapsed(), walk.cost * SHARE);
        let known =
            walk.by_inode.as_ref().is_some_and(|all| all.get(&inode).is_some_and(|p| p.contains(&pid)));
        age < if known { SHORTEST.max(least) } else { least }
    }
}

impl Walk {
    fn now(proc: &Path) -> Self {
        let before = cpu_time();
        let by_inode = walk(proc);
        Self { end: Instant::now(), cost: cpu_time().saturating_sub(before), by_inode }
    }
}

/// What this thread has used of a CPU (clock_gettime(2), `CLOCK_THREAD_CPUTIME_ID`).
fn cpu_time() -> Duration {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    // Neither is negative.
    Duration::new(used.tv_sec.unsigned_abs(), u32::try_from(used.tv_nsec).unwrap_or_default())
}

fn walk(proc: &Path) -> Option<FxHashMap<u64, Vec<u32>>> {
    let mut by_inode: FxHashMap<u64, Vec<u32>> = FxHashMap::default();
    let directory = open(proc, DIRECTORY, Mode::empty()).ok()?;
    for entry in Dir::read_from(&directory).ok()? {
        let entry = entry.ok()?;
        let Some(pid) = entry.file_name().to_str().ok().and_then(|n| n.parse::<u32>().ok()) else { continue };
        match inodes(&directory, pid) {
            Ok(inodes) => inodes.into_iter().for_each(|inode| by_inode.entry(inode).or_default().push(pid)),
            Err(Errno::NOENT | Errno::SRCH) => {}
            // Sandboxes hide the descriptors of their init even from root. It is no end of a pipe that brings work to an
            // orphan: while a master of that kind lives its workers have a master, and it does not die.
            Err(Errno::ACCESS | Errno::PERM) if pid == INIT => {}
            Err(e) => {
                tracing::debug!("/proc/{pid}/fd: {e}: who holds which pipe is not known");
                return None;
            }
        }
    }
    Some(by_inode)
}

/// The pipes and sockets of one process, each once.
fn inodes(proc: impl AsFd, pid: u32) -> Result<Vec<u64>, Errno> {
    let mut inodes = Vec::new();
    let open = links(&proc, &format!("{pid}/fd"), &mut inodes)?;
    if open == 0 {
        // Of a process whose main thread has ended nothing is shown, although its other threads may have everything open.
        inodes_of_threads(&proc, pid, &mut inodes)?;
    }
    inodes.sort_unstable();
    inodes.dedup();
    Ok(inodes)
}

/// What the threads of a process have open, if there are several.
fn inodes_of_threads(proc: impl AsFd, pid: u32, inodes: &mut Vec<u64>) -> Result<(), Errno> {
    let directory = openat(&proc, format!("{pid}/task"), DIRECTORY, Mode::empty())?;
    // Two links and one for every thread (kernel: `proc_task_getattr`): those of the kernel have one.
    if fstat(&directory)?.st_nlink <= 3 {
        return Ok(());
    }
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let Some(tid) = entry.file_name().to_str().ok().and_then(|n| n.parse::<u32>().ok()) else { continue };
        match links(&directory, &format!("{tid}/fd"), inodes) {
            // It has ended meanwhile.
            Ok(_) | Err(Errno::NOENT | Errno::SRCH) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Adds the pipes and sockets in a directory of links. Returns how many links there are.
fn links(parent: impl AsFd, path: &str, inodes: &mut Vec<u64>) -> Result<usize, Errno> {
    let directory = openat(parent, path, DIRECTORY, Mode::empty())?;
    let mut buffer = Vec::with_capacity(256);
    let mut count = 0;
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        if entry.file_name().to_bytes().starts_with(b".") {
            continue;
        }
        count += 1;
        let link = match readlinkat(&directory, entry.file_name(), std::mem::take(&mut buffer)) {
            Ok(link) => link,
            // Closed meanwhile.
            Err(Errno::NOENT) => continue,
            Err(e) => return Err(e),
        };
        inodes.extend(link.to_str().ok().and_then(inode_of));
        buffer = link.into_bytes();
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A made-up /proc: who has which links.
    fn proc(processes: &[(u32, &[&str])]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        for (pid, links) in processes {
            let fd = root.path().join(pid.to_string()).join("fd");
            std::fs::create_dir_all(&fd).expect("made");
            for (n, link) in links.iter().enumerate() {
                symlink(link, fd.join(n.to_string())).expect("made");
            }
        }
        root
    }

    #[test]
    fn the_dead_hold_nothing() {
        let root = proc(&[(10, &["pipe:[7]"]), (11, &["pipe:[7]"])]);
        let mut holders = Holders { proc: root.path().into(), walk: None };
        assert_eq!(holders.besides(10, 7), Some(vec![11]));
        std::fs::remove_dir_all(root.path().join("11")).expect("removed");
        assert_eq!(holders.besides(10, 7), Some(vec![]), "the walk is as young as before");
    }

    #[test]
    fn finds_the_others() {
        let root = proc(&[
            (10, &["pipe:[7]", "socket:[8]", "/dev/null", "pipe:[7]"]),
            (11, &["pipe:[7]"]),
            (12, &["/pipe:[7]", "anon_inode:[eventpoll]"]),
        ]);
        std::fs::create_dir(root.path().join("13")).expect("one that is gone");
        // Its main thread has ended.
        std::fs::create_dir_all(root.path().join("14/fd")).expect("made");
        for tid in [14, 15] {
            std::fs::create_dir_all(root.path().join(format!("14/task/{tid}/fd"))).expect("made");
        }
        symlink("pipe:[20]", root.path().join("14/task/15/fd/3")).expect("made");
        let mut holders = Holders { proc: root.path().to_owned(), walk: None };
        assert_eq!(holders.besides(10, 7), Some(vec![11]));
        assert_eq!(holders.besides(10, 8), Some(vec![]));
        assert_eq!(holders.besides(11, 8), None, "it did not have it then");
        assert_eq!(holders.besides(10, 9), None, "nobody had");
        assert_eq!(holders.besides(14, 20), Some(vec![]));
    }

    #[test]
    fn knows_nothing_if_somebody_cannot_be_read() {
        let root = proc(&[(10, &["pipe:[7]"])]);
        std::fs::create_dir(root.path().join("11")).expect("made");
        std::fs::write(root.path().join("11/fd"), "").expect("not a directory");
        let mut holders = Holders { proc: root.path().to_owned(), walk: None };
        assert_eq!(holders.besides(10, 7), None);
    }
}
