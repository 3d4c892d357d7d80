//! What the agent needs of the host, found out before anything is loaded. `reaper doctor` prints all of it, `reaper
//! run` stops at the first that is missing.

use std::fs;
use std::path::Path;

use rustix::system::uname;
use serde::Serialize;

use crate::confine::KEPT;

/// The kernel's own types; without them no field of a kernel struct can be found.
pub const BTF: &str = "/sys/kernel/btf/vmlinux";

/// The inode of the initial pid namespace (kernel: `PROC_PID_INIT_INO`).
const INITIAL_PID_NS: &str = "pid:[4026531836]";

/// The inode of the initial time namespace (kernel: `PROC_TIME_INIT_INO`).
const INITIAL_TIME_NS: &str = "time:[4026531834]";

/// How one check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// It works, with less.
    Warning,
    /// The agent cannot run.
    Missing,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it came out.
    pub outcome: Outcome,
    /// What was found.
    pub found: String,
    /// What to do about it; empty if nothing.
    pub mend: String,
}

impl Check {
    /// One that is fine.
    pub fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, outcome: Outcome::Ok, found: found.into(), mend: String::new() }
    }

    /// One that is not.
    pub fn bad(
        name: &'static str,
        outcome: Outcome,
        found: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self { name, outcome, found: found.into(), mend: mend.into() }
    }
}

/// Fails with everything that keeps the agent from running on this host.
pub fn require() -> anyhow::Result<()> {
    let missing: Vec<String> = checks()
        .into_iter()
        .filter(|c| c.outcome == Outcome::Missing)
        .map(|c| format!("{}: {}. {}", c.name, c.found, c.mend))
        .collect();
    anyhow::ensure!(missing.is_empty(), "{}", missing.join("\n"));
    Ok(())
}

/// What can be found out without loading anything.
pub fn checks() -> Vec<Check> {
    vec![kernel(), pid_namespace(), time_namespace(), capabilities(), btf()]
}

/// `uname -r`.
pub fn kernel_release() -> String {
    uname().release().to_string_lossy().into_owned()
}

fn kernel() -> Check {
    let release = kernel_release();
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or_default());
    let version = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    if version < (5, 10) {
        let mend = "reaper needs Linux 5.10 or newer, the oldest kernel that it is tested on.";
        return Check::bad("kernel", Outcome::Missing, format!("Linux {release}"), mend);
    }
    Check::ok("kernel", format!("Linux {release}"))
}

fn pid_namespace() -> Check {
    match fs::read_link("/proc/self/ns/pid") {
        Ok(ns) if ns == Path::new(INITIAL_PID_NS) => Check::ok("pid namespace", "the initial one"),
        Ok(ns) => Check::bad(
            "pid namespace",
            Outcome::Missing,
            format!("{}, not the host's", ns.display()),
            "Run the agent in the host's pid namespace (docker: --pid=host, Kubernetes: hostPID: true): it must see \
             every process under the pid the kernel knows.",
        ),
        Err(e) => Check::bad(
            "pid namespace",
            Outcome::Missing,
            format!("cannot be read: {e}"),
            "Mount proc on /proc.",
        ),
    }
}

/// In another one the clock and the start times in /proc are shifted, those in the kernel's records are not: a process would
/// never be the one that a record names.
fn time_namespace() -> Check {
    match fs::read_link("/proc/self/ns/time") {
        Ok(ns) if ns != Path::new(INITIAL_TIME_NS) => Check::bad(
            "time namespace",
            Outcome::Missing,
            format!("{}, not the host's", ns.display()),
            "Run the agent in the host's time namespace: it must count time as the kernel does.",
        ),
        // Before Linux 5.6 there is none but the host's.
        Ok(_) | Err(_) => Check::ok("time namespace", "the initial one"),
    }
}

fn capabilities() -> Check {
    let status = match fs::read_to_string("/proc/self/status") {
        Ok(status) => status,
        Err(e) => {
            let mend = "Mount proc on /proc.";
            return Check::bad("capabilities", Outcome::Missing, format!("/proc/self/status: {e}"), mend);
        }
    };
    let effective = status
        .lines()
        .find_map(|l| l.strip_prefix("CapEff:"))
        .and_then(|l| u64::from_str_radix(l.trim(), 16).ok())
        .unwrap_or_default();
    let missing: Vec<String> = KEPT
        .iter()
        .filter(|(cap, _)| effective & (1 << cap.index()) == 0)
        .map(|(cap, what)| format!("{cap} ({what})"))
        .collect();
    if missing.is_empty() {
        return Check::ok("capabilities", "all that are needed");
    }
    let found = format!("missing {}", missing.join(", "));
    Check::bad("capabilities", Outcome::Missing, found, "Run it as root, or give it these capabilities.")
}

fn btf() -> Check {
    match fs::metadata(BTF) {
        Ok(_) => Check::ok("BTF", BTF),
        Err(e) => Check::bad(
            "BTF",
            Outcome::Missing,
            format!("{BTF}: {e}"),
            "The kernel must be built with CONFIG_DEBUG_INFO_BTF (every current distribution's is), and sysfs mounted.",
        ),
    }
}
