//! Rules and programs for the simulated host.

use globset::Glob;
use reaper::core::ids::{MS, SECOND};
use reaper::core::rules::{Group, IdleRules, LogLevel, Matcher, Mode, Proof, Rules, Signal, StopRules, When};
use regex::Regex;

use super::kernel::Program;

pub const SHELL: Program = Program { comm: "sh", argv: "sh" };
pub const TOOL: Program = Program { comm: "tool", argv: "tool --once" };
pub const MASTER_A: Program = Program { comm: "alpha", argv: "alpha master" };
pub const WORKER_A: Program = Program { comm: "alpha", argv: "alpha worker" };
pub const JOB_A: Program = Program { comm: "alpha", argv: "alpha worker job" };
pub const MASTER_B: Program = Program { comm: "beta", argv: "beta serve" };
pub const WORKER_B: Program = Program { comm: "beta", argv: "beta child" };
pub const MASTER_C: Program = Program { comm: "gamma", argv: "gamma serve" };
pub const GUARDED: Program = Program { comm: "sshd", argv: "sshd -D" };

/// Group `a` names its workers, `b` does not.
pub fn group(name: &str, master: &str, worker: Option<&str>) -> Group {
    let matcher =
        |pattern: &str| Matcher { cmdline: Some(Regex::new(pattern).unwrap()), ..Matcher::default() };
    Group {
        name: name.to_owned(),
        profile: None,
        mode: Mode::Enforce,
        master: matcher(master),
        worker: worker.map(matcher),
        idle: IdleRules { proof: Proof::Asleep, quiet: 200 * MS, ..IdleRules::default() },
        stop: StopRules {
            when: When::Always,
            signals: vec![Signal(15)],
            grace: 2 * SECOND,
            kill: true,
            deadline: 0,
            max_kills: 50,
            window: 60 * SECOND,
            job_children: vec![Regex::new("job$").unwrap()],
        },
    }
}

pub fn alpha() -> Group {
    group("a", "^alpha master", Some("^alpha worker"))
}

pub fn beta() -> Group {
    group("b", "^beta serve", None)
}

pub fn gamma() -> Group {
    Group { mode: Mode::Observe, ..group("c", "^gamma serve", None) }
}

pub fn rules(groups: Vec<Group>) -> Rules {
    let protect = vec![Glob::new("sshd").unwrap().compile_matcher()];
    Rules::new(groups, protect, LogLevel::Decisions)
}
