//! What is valid and probably not meant.

use expect_test::{Expect, expect};

use super::super::Config;
use super::with;
use crate::core::rules::Mode;

fn warnings(text: &str, expected: &Expect) {
    let warnings = Config::parse("f", text).unwrap().warnings;
    let lines: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    expected.assert_eq(&lines.join("\n"));
}

#[test]
fn values_that_match_nothing_or_everything() {
    warnings(
        "",
        &expect![
            "f:1:1: there is no [[group]]: nothing is watched (without a file every built-in profile is; `reaper profiles NAME` prints one as a group)"
        ],
    );
    warnings(
        &with("stop.signals = ['TERM', 'kill']"),
        &expect!["f:4:25: signals: KILL is not graceful: `kill = true` sends it after the last grace"],
    );
    warnings(
        "agent.protect = ['containerd-shim-runc-v2', 'containerd-shim*', 'containerd-shim-*']\ngroup = []",
        &expect![[r#"
            f:1:18: protect: "containerd-shim-runc-v2" never matches: the kernel keeps 15 bytes of a name, "containerd-shim"
            f:1:65: protect: "containerd-shim-*" never matches: the kernel keeps 15 bytes of a name, "containerd-shim""#]],
    );
    warnings(
        &with("worker = { exe = 'php', cgroup = 'system.slice/**' }"),
        &expect![[r#"
        f:4:18: exe: "php" never matches: it is compared with a path, which begins with "/"
        f:4:34: cgroup: "system.slice/**" never matches: it is compared with a path, which begins with "/""#]],
    );
    warnings(
        &with("worker = { comm = 'y', cmdline = '.*' }"),
        &expect![
            "f:4:34: cmdline: this pattern also matches an empty command line, so it may match every process"
        ],
    );
    // The fifteenth byte is half a character: the name is cut before it.
    warnings(
        &with("idle.children = ['aaaaaaaaaaaaaaéé']"),
        &expect![[
            r#"f:4:18: children: "aaaaaaaaaaaaaaéé" never matches: the kernel keeps 15 bytes of a name, "aaaaaaaaaaaaaa""#
        ]],
    );
}

#[test]
fn metrics_for_everybody() {
    let at = |address| format!("agent.metrics = '{address}'\ngroup = []");
    warnings(&at("127.0.0.1:9797"), &expect![""]);
    warnings(&at("[::1]:9797"), &expect![""]);
    warnings(
        &at("0.0.0.0:9797"),
        &expect!["f:1:17: metrics: whoever reaches 0.0.0.0:9797 can read the metrics: there is no password"],
    );
}

#[test]
fn workers_that_look_like_masters() {
    let group = |master: &str, worker: &str| {
        format!(
            "[[group]]\nname = 'x'\n[group.master]\ncmdline = '{master}'\n[group.worker]\ncmdline = '{worker}'"
        )
    };
    warnings(
        &group("artisan horizon", "artisan horizon:(work|supervisor)"),
        &expect![[
            r#"f:5:1: the workers of group "x" also match its [group.master]: a worker such as "artisan horizon:work" that loses its master is taken for an heir or a new master, and is never stopped"#
        ]],
    );
    warnings(&group("artisan horizon$", "artisan horizon:(work|supervisor)"), &expect![[""]]);
    warnings(
        &with("worker.comm = 'x'"),
        &expect![[
            r#"f:4:1: the workers of group "x" also match its [group.master]: a worker that loses its master is taken for an heir or a new master, and is never stopped"#
        ]],
    );
    warnings(
        "[[group]]\nname = 'x'\nprofile = 'php-fpm'\n[group.worker]\ncmdline = '^php-fpm: master process'",
        &expect![[
            r#"f:1:1: the workers of group "x" also match its [group.master]: a worker such as "php-fpm: master process a" that loses its master is taken for an heir or a new master, and is never stopped"#
        ]],
    );
}

/// A profile that has not been run against the real framework does not enforce, unless its user wrote down the masters.
#[test]
fn profiles_that_only_observe() {
    let text = "[[group]]\nname = 'a'\nprofile = 'resque'\nmode = 'enforce'";
    warnings(
        text,
        &expect![[
            r#"f:4:8: the profile "resque" has not been run against the real framework yet, so this group observes: to enforce, write down its [group.master] (`reaper profiles resque` prints the profile's)"#
        ]],
    );
    assert_eq!(Config::parse("f", text).unwrap().rules.groups[0].mode, Mode::Observe);
    let own = format!("{text}\nmaster.cmdline = 'resque-pool$'");
    let config = Config::parse("f", &own).unwrap();
    assert_eq!((config.warnings, config.rules.groups[0].mode), (Vec::new(), Mode::Enforce));
}

/// PostgreSQL's processes are not signalled even for somebody who wrote down the masters.
#[test]
fn a_profile_that_never_enforces() {
    let text = "[[group]]\nname = 'a'\nprofile = 'postgresql'\nmode = 'enforce'\nmaster.comm = 'postgres'";
    warnings(
        text,
        &expect![[
            r#"f:4:8: the profile "postgresql" only observes, whatever a group says: so does this group"#
        ]],
    );
    assert_eq!(Config::parse("f", text).unwrap().rules.groups[0].mode, Mode::Observe);
}
