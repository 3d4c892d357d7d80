//! Each rule on code fires on what it forbids, however that is written, and on nothing else.

use super::check;

const CORE: &str = "reaper-userspace/src/core/tree.rs";
const OUTSIDE: &str = "reaper-userspace/src/agent.rs";

/// The lines on which a rule fires; no other rule may.
fn lines(rule: &str, path: &str, content: &str) -> Vec<usize> {
    let found = check(path, content);
    assert!(found.iter().all(|(_, other, _)| *other == rule), "{found:?}");
    let mut lines: Vec<_> = found.into_iter().map(|(line, ..)| line).collect();
    lines.dedup();
    lines
}

#[test]
fn the_core_touches_nothing_outside() {
    for bad in [
        "use std::fs;",
        "use ::std::fs::File;",
        "use std::{collections::HashMap, net::TcpStream};",
        "use std::{collections::{HashMap}, io::{self, Read}};",
        "use std::{fmt, sync::{Arc, Mutex}};",
        "use std::sync::*;",
        "use std::*;",
        "use std as s;",
        "use std::{self as s};",
        "extern crate std as s;",
        "fn f() { let t = std::time::Instant::now(); }",
        "fn f() { let t = Instant::now(); }",
        "fn f() -> SystemTime { SystemTime::UNIX_EPOCH }",
        "fn f(_: std::time::Duration) {}",
        "fn f() { std::thread::sleep(d); }",
        "fn f() { println!(\"{}\", std::process::id()); }",
        "macro_rules! m { () => { std::env::var(\"A\") } }",
        "impl T for std::net::IpAddr {}",
        "fn f() -> <std::fs::File as T>::X {}",
        "use tokio::sync::mpsc;",
        "use nix;",
        "fn f() -> u8 { return ::std::fs::f() }",
        "fn f() { for x in 0..std::process::id() {} }",
        "use libc::{c_int, pid_t};",
        "type T = rustix::process::Pid;",
        "use procfs as p;",
        "use crate::{core::tree, procfs::Stat};",
        "use crate::event_log::Line;",
        "use crate::a_module_of_tomorrow::Thing;",
        "use crate::*;",
        "use crate as all;",
        "fn f() { crate::signal::send() }",
    ] {
        assert_eq!(lines("core-is-pure", CORE, bad), [1], "{bad}");
    }
}

#[test]
fn the_core_may_use_what_only_computes() {
    for good in [
        "use std::{collections::BTreeMap, fmt, sync::Arc};",
        "use core::time::Duration;",
        "//! Not std::fs, nor tokio::net.",
        "/* std::thread::sleep */ fn f() {}",
        "fn f() -> &'static str { \"std::fs::read\" }",
        "fn f() -> &'static str { r#\"use std::fs;\"# }",
        "fn f(sample: &S) -> u8 { sample.time.nix.io }",
        "struct S { time: u64, thread: u32, process: P, libc: bool }",
        "use crate::core::{ids::Pid, signal::Step};",
        "fn f(now: Now) { self.libc.now() }",
    ] {
        assert_eq!(lines("core-is-pure", CORE, good), [] as [usize; 0], "{good}");
    }
    assert_eq!(lines("core-is-pure", OUTSIDE, "use std::fs;"), [] as [usize; 0]);
}

#[test]
fn a_group_of_imports_is_found_on_the_line_of_the_name() {
    let content = "//! X.\nuse std::{\n    fmt,\n    fs,\n    net::{\n        TcpStream,\n    },\n};\n";
    assert_eq!(lines("core-is-pure", CORE, content), [4, 6]);
}

#[test]
fn one_module_signals() {
    for bad in [
        "use nix::sys::signal::kill;",
        "use nix::sys::signal::{self, kill as k};",
        "fn f() { unsafe { libc::kill(1, 9) }; }",
        "fn f() { kill(pid, signal); }",
        "fn f() { rustix::process::pidfd_send_signal(fd, s); }",
        "fn f() { let k = nix::sys::signal::killpg; }",
        "fn f() { unsafe { libc::syscall(libc::SYS_tgkill, 1, 1, 9) }; }",
        "use libc::SYS_rt_sigqueueinfo;",
        "fn f() { vec![rustix::process::kill_process(pid, s)]; }",
    ] {
        assert_eq!(lines("one-module-signals", OUTSIDE, bad), [1], "{bad}");
        assert_eq!(lines("one-module-signals", "tests/tests/orphans.rs", bad), [1], "{bad}");
        for allowed in ["reaper-userspace/src/signal.rs", "tests/src/process.rs", "xtask/src/run.rs"] {
            assert_eq!(lines("one-module-signals", allowed, bad), [] as [usize; 0], "{bad}");
        }
    }
    let own_child = "fn f() { child.kill().unwrap(); }";
    assert_eq!(lines("one-module-signals", OUTSIDE, own_child), [1]);
    assert_eq!(lines("one-module-signals", "tests/tests/orphans.rs", own_child), [] as [usize; 0]);
    // A file of the same name elsewhere is not the module.
    assert_eq!(lines("one-module-signals", "reaper-userspace/src/cmd/signal.rs", "use libc::kill;"), [1]);
}

#[test]
fn kill_is_also_a_word() {
    for good in [
        "struct Stop { kill: bool, max_kills: u32 }",
        "fn f(stop: &Stop) -> bool { stop.kill && !stop.rules.kill }",
        "fn f() -> Stop { Stop { kill: true } }",
        "fn kill(step: Step) -> Effect { Effect::Kill(step) }",
        "//! Nobody calls libc::kill(pid, 9).",
        "fn f() -> &'static str { \"kill(1)\" }",
        "fn f() { let s = libc::SIGKILL; }",
    ] {
        assert_eq!(lines("one-module-signals", OUTSIDE, good), [] as [usize; 0], "{good}");
    }
}

#[test]
fn nothing_unfinished_is_left() {
    for bad in [
        "fn f() { todo!() }",
        "fn f() { unimplemented!(\"later\") }",
        "fn f() { g(dbg!(1)); }",
        "#[test] #[ignore] fn f() {}",
    ] {
        assert_eq!(lines("unfinished", "xtask/src/x.rs", bad), [1], "{bad}");
    }
    for good in [
        "#[test] #[ignore = \"needs two kernels\"] fn f() {}",
        "#[expect(clippy::todo, reason = \"a sample\")] fn todo() {}",
        "fn f() { let todo = 1; } // todo!()",
    ] {
        assert_eq!(lines("unfinished", "xtask/src/x.rs", good), [] as [usize; 0], "{good}");
    }
}

#[test]
fn what_is_not_rust_is_said() {
    assert_eq!(lines("syntax", OUTSIDE, "fn f() {"), [1]);
}
