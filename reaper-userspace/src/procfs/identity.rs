//! Who a process is: name, arguments, executable, user, parent, session, cgroups.

use std::sync::Arc;

use super::{Opened, ReadError, read_error};
use crate::core::argv::Argv;
use crate::core::ids::{Ns, ProcKey};
use crate::core::input::{Identified, Identity};

/// So much of a command line is read, bytes: no pattern matches what comes after that.
const LONGEST_CMDLINE: usize = 128 << 10;

/// Reads who `key` is. `now` is the time of reading. Executable and cgroup are in every record; only if `needs_place`, because a
/// pattern asks for them, they are something that has to be known.
pub fn identify(now: Ns, key: ProcKey, needs_place: bool) -> Identified {
    match try_identify(now, key, needs_place) {
        Ok(who) => Identified::Alive(who),
        Err(ReadError::Gone) => Identified::Gone,
        Err(e @ ReadError::Unreadable { .. }) => Identified::Unreadable(e.to_string()),
    }
}

fn try_identify(now: Ns, key: ProcKey, needs_place: bool) -> Result<Identity, ReadError> {
    let opened = Opened::open(key)?;
    let number = |n: i32| u32::try_from(n).unwrap_or_default();
    let argv = split(&opened.read_start("cmdline", LONGEST_CMDLINE)?);
    // Kernel threads and processes that are dying have no executable, and no arguments either.
    let exe = match opened.dir.exe() {
        Ok(path) => path.to_string_lossy().trim_end_matches(" (deleted)").to_owned(),
        Err(e) if needs_place && !argv.is_empty() => return Err(read_error(opened.pid, "exe", &e)),
        Err(_) => String::new(),
    };
    let cgroups = match opened.read("cgroup") {
        Ok(text) => cgroups(&text),
        Err(e) if needs_place => return Err(e),
        // A kernel without cgroups has no such file.
        Err(_) => Vec::new(),
    };
    Ok(Identity {
        at: now,
        comm: opened.stat.comm.as_str().into(),
        argv,
        exe: exe.into(),
        uid: real_uid(&opened)?,
        ppid: number(opened.stat.ppid),
        session: number(opened.stat.session),
        cgroups,
    })
}

/// Splits `/proc/PID/cmdline`. A rewritten title is one argument, padded with NULs.
pub(crate) fn split(cmdline: &str) -> Argv {
    let text = cmdline.trim_end_matches('\0');
    Argv::from_memory(text.as_bytes())
}

/// The paths of `/proc/PID/cgroup` (`hierarchy:controllers:path`), each once.
pub(super) fn cgroups(text: &str) -> Vec<Arc<str>> {
    let mut paths: Vec<Arc<str>> =
        text.lines().filter_map(|l| l.splitn(3, ':').nth(2)).map(Arc::from).collect();
    paths.sort_unstable();
    paths.dedup();
    paths
}

fn real_uid(opened: &Opened) -> Result<u32, ReadError> {
    uid_of(&opened.read("status")?).ok_or_else(|| ReadError::Unreadable {
        pid: opened.pid,
        file: "status".to_owned(),
        why: "it has no Uid line".to_owned(),
    })
}

/// The real uid, first of the four in `/proc/PID/status`.
pub(super) fn uid_of(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|l| l.strip_prefix("Uid:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_arguments_and_titles() {
        let all = |text| split(text).iter().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(all("php\0artisan\0horizon\0"), ["php", "artisan", "horizon"]);
        assert_eq!(all("gunicorn: worker [app]\0\0\0\0"), ["gunicorn: worker [app]"]);
        assert_eq!(all("a\0\0b\0"), ["a", "", "b"]);
        assert!(all("").is_empty());
    }

    #[test]
    fn names_each_cgroup_once() {
        let paths = cgroups("12:cpu,cpuacct:/a\n1:name=systemd:/a\n0::/system.slice/x:y.service\n");
        assert_eq!(paths.iter().map(|p| &**p).collect::<Vec<_>>(), ["/a", "/system.slice/x:y.service"]);
    }

    #[test]
    fn identifies_itself_and_not_its_predecessor() {
        let pid = std::process::id();
        let start = super::super::start_ticks(pid).expect("own stat");
        let key = ProcKey { tgid: pid, start_ns: start * 10_000_000 };
        let Identified::Alive(who) = identify(1, key, true) else { panic!("not alive") };
        assert_eq!(who.uid, nix::unistd::getuid().as_raw());
        assert!(!who.argv.is_empty() && !who.exe.is_empty());
        let older = ProcKey { start_ns: key.start_ns - 20_000_000, ..key };
        assert_eq!(identify(1, older, true), Identified::Gone);
    }
}
