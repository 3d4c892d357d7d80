//! Each bad input with the exact words it gets and where they point.

use expect_test::{Expect, expect};

use super::super::Config;
use super::with;

/// The errors without the file's name, one per line.
fn errors(text: &str, expected: &Expect) {
    let errors = Config::parse("f", text).unwrap_err();
    assert!(!errors.is_unreadable());
    expected.assert_eq(&errors.to_string());
}

#[test]
fn syntax() {
    errors(
        "[agent]\nlog = \n[[group]]\nname = 'x\n",
        &expect![[r#"
        f:2:7: bad TOML: string values must be quoted, expected literal string
        f:4:10: bad TOML: invalid literal string, expected `'`"#]],
    );
    errors("[agent]\n[agent]\n", &expect!["f:2:2: bad TOML: duplicate key"]);
    errors("[agent]\nlog_keep = 1\nlog_keep = 2\n", &expect!["f:3:1: bad TOML: duplicate key"]);
    errors(
        "\u{feff}\u{0}",
        &expect![[r#"
        f:1:2: bad TOML: invalid unquoted key, expected letters, numbers, `-`, `_`
        f:1:3: bad TOML: key with no value, expected `=`"#]],
    );
}

#[test]
fn all_of_them_in_the_order_of_the_file() {
    errors(
        r#"
[agent]
log_levl = "all"
log_keep = -1

[[group]]
name = "ä"
mode = "enforced"
grace = "3s"
[group.master]
cmdlin = 'x'
[group.worker]
cmdline = '('
[group.stop]
signals = ["TREM", 9, "HUP"]

[[grup]]
"#,
        &expect![[r#"
            f:3:1: unknown key "log_levl" in [agent]: did you mean "log_level"?
            f:4:12: log_keep: expected a number from 0 to 10000, found -1
            f:7:8: name: expected a name of letters, digits, "_", "." and "-", found "ä"
            f:8:8: mode: expected "observe" or "enforce", found "enforced"; did you mean "enforce"?
            f:9:1: unknown key "grace" in [[group]]: it belongs in [group.stop]
            f:11:1: unknown key "cmdlin" in [group.master]: did you mean "cmdline"?
            f:13:11: cmdline: bad regular expression: unclosed group, at character 1 of the pattern
            f:15:12: signals: expected a signal's name such as "TERM" or "SIGQUIT", found "TREM"
            f:15:20: signals: expected a signal's name such as "TERM" or "SIGQUIT", found an integer
            f:17:3: unknown key "grup" in this file: did you mean "group"?"#]],
    );
}

#[test]
fn unknown_keys() {
    errors("zzz = 1", &expect![[r#"f:1:1: unknown key "zzz" in this file: known are agent, group"#]]);
    errors(
        "cmdline = 'x'",
        &expect![[r#"f:1:1: unknown key "cmdline" in this file: it belongs in [group.master]"#]],
    );
    errors(
        &with("zzz = 1\nsignals = ['TERM']\nmod = 'observe'"),
        &expect![[r#"
        f:4:1: unknown key "zzz" in [[group]]: known are name, profile, mode, master, worker, idle, stop
        f:5:1: unknown key "signals" in [[group]]: it belongs in [group.stop]
        f:6:1: unknown key "mod" in [[group]]: did you mean "mode"?"#]],
    );
    errors(
        &with("idle.zzz = 1\nidle.quit = '1s'\nidle.grace = '1s'"),
        &expect![[r#"
            f:4:6: unknown key "zzz" in [group.idle]: known are proof, quiet, queue, sleep, poll_request, poll_reply, alarm, no_alarm, title, job_in_child, job_by_pipe, pool, job_threads, children
            f:5:6: unknown key "quit" in [group.idle]: did you mean "quiet"?
            f:6:6: unknown key "grace" in [group.idle]: it belongs in [group.stop]"#]],
    );
    errors(
        &with("observe_only = false"),
        &expect![[
            r#"f:4:1: unknown key "observe_only" in [[group]]: known are name, profile, mode, master, worker, idle, stop"#
        ]],
    );
    errors(
        "\"a\\u001b[2J\" = 1",
        &expect![[r#"f:1:1: unknown key "a\u{1b}[2J" in this file: known are agent, group"#]],
    );
}

#[test]
fn wrong_types() {
    errors(
        "[agent]\nlog = 1\nlog_level = true\nlog_max_size = 1.5\nlog_keep = '8'\nsocket = []\nstate = {}\n\
         metrics = 9797\nprotect = 'sshd'",
        &expect![[r#"
            f:2:7: log: expected an absolute path or "-", found an integer
            f:3:13: log_level: expected "decisions" or "lineage" or "all", found a boolean
            f:4:16: log_max_size: expected a size such as "64MiB" or a number of bytes, found a number with a fraction
            f:5:12: log_keep: expected a number from 0 to 10000, found a string
            f:6:10: socket: expected an absolute path, found a list
            f:7:9: state: expected an absolute path, found a table
            f:8:11: metrics: expected an address and a port such as "127.0.0.1:9797" or "[::1]:9797", found an integer
            f:9:11: protect: expected a list of globs, found a string"#]],
    );
    errors(
        "agent = 1\ngroup = 1",
        &expect![[r#"
        f:1:9: expected the table [agent], found an integer
        f:2:9: groups are a list: write [[group]] and below it [group.master] and so on"#]],
    );
    errors(
        "[group]\nname = 'x'",
        &expect!["f:1:1: groups are a list: write [[group]] and below it [group.master] and so on"],
    );
    errors(
        "[group.master]\ncomm = 'x'",
        &expect!["f:1:2: groups are a list: write [[group]] and below it [group.master] and so on"],
    );
    errors(
        "group = [1, {}]",
        &expect![[r#"
        f:1:10: expected the table [[group]], found an integer
        f:1:13: this [[group]] has no name: write name = "…"
        f:1:13: this [[group]] has no [group.master] and no profile: one of them says what a master is"#]],
    );
    errors(
        "[[group]]\nname = 1\nprofile = 1\nmode = 1\nmaster = 1\nworker = 1\nidle = 1\nstop = 1",
        &expect![[r#"
            f:2:8: name: expected a name of letters, digits, "_", "." and "-", found an integer
            f:3:11: profile: expected the name of a built-in profile, found an integer
            f:4:8: mode: expected "observe" or "enforce", found an integer
            f:5:10: expected the table [group.master], found an integer
            f:6:10: expected the table [group.worker], found an integer
            f:7:8: expected the table [group.idle], found an integer
            f:8:8: expected the table [group.stop], found an integer"#]],
    );
    errors(
        &with(
            "worker = { cmdline = 1, exe = 1, comm = 1, user = 1.0, cgroup = 1, unit = 1 }\n\
             idle.proof = 1\nidle.quiet = 1\nidle.queue = 1\nidle.sleep = 1\nidle.job_threads = 1\n\
             idle.children = [1979-05-27]\n\
             stop.when = 1\nstop.signals = 'TERM'\nstop.grace = 30\nstop.kill = 'yes'\nstop.deadline = 1\n\
             stop.max_kills = '50'\nstop.window = 1\nstop.job_children = [1]",
        ),
        &expect![[r#"
            f:4:22: cmdline: expected a regular expression, found an integer
            f:4:31: exe: expected a glob, found an integer
            f:4:41: comm: expected a glob, found an integer
            f:4:51: user: expected a user's name or number, found a number with a fraction
            f:4:65: cgroup: expected a glob, found an integer
            f:4:75: unit: expected a systemd unit such as "horizon.service", found an integer
            f:5:14: proof: expected "source" or "asleep", found an integer
            f:6:14: quiet: expected a duration in quotes such as "200ms" or "30s", found an integer
            f:7:14: queue: expected a list of endpoints, as ["tcp/6379"], found an integer
            f:8:14: sleep: expected a duration in quotes such as "200ms" or "30s", found an integer
            f:9:20: job_threads: expected a list of globs, found an integer
            f:10:18: children: expected a glob, found a date or time
            f:11:13: when: expected "always" or "replaced", found an integer
            f:12:16: signals: expected a list of signals, found a string
            f:13:14: grace: expected a duration in quotes such as "200ms" or "30s", found an integer
            f:14:13: kill: expected true or false, found a string
            f:15:17: deadline: expected a duration in quotes such as "200ms" or "30s", found an integer
            f:16:18: max_kills: expected a number from 1 to 4294967295, found a string
            f:17:15: window: expected a duration in quotes such as "200ms" or "30s", found an integer
            f:18:22: job_children: expected a regular expression, found an integer"#]],
    );
}

#[test]
fn agent_values() {
    errors(
        "[agent]\nlog = 'events.jsonl'\nlog_level = 'decision'\nlog_max_size = '64 mib'\nlog_keep = 10001\n\
         socket = 'x.sock'\nstate = ''\nmetrics = 'localhost:9797'\nprotect = ['a', '[', '']",
        &expect![[r#"
            f:2:7: log: expected an absolute path or "-", found "events.jsonl"
            f:3:13: log_level: expected "decisions" or "lineage" or "all", found "decision"; did you mean "decisions"?
            f:4:16: log_max_size: expected a size such as "64MiB" or a number of bytes, found "64 mib"
            f:5:12: log_keep: expected a number from 0 to 10000, found 10001
            f:6:10: socket: expected an absolute path, found "x.sock"
            f:7:9: state: expected an absolute path, found ""
            f:8:11: metrics: expected an address and a port such as "127.0.0.1:9797" or "[::1]:9797", found "localhost:9797"
            f:9:17: protect: bad glob: unclosed character class; missing ']'
            f:9:22: protect: expected a glob, found an empty string, which matches nothing"#]],
    );
    errors(
        "[agent]\nlog_max_size = 100",
        &expect!["f:2:16: log_max_size: expected a size of at least 4096 bytes, found 100"],
    );
    errors(
        "[agent]\nlog_max_size = '99999999999GiB'",
        &expect![[
            r#"f:2:16: log_max_size: expected a size such as "64MiB" or a number of bytes, found "99999999999GiB""#
        ]],
    );
    errors(
        "[agent]\nsocket_group = 'no-such-group-here'",
        &expect![[r#"f:2:16: socket_group: no group "no-such-group-here" on this host"#]],
    );
    for (ring, found) in [("'96KiB'", 98_304_u64), ("'2GiB'", 2 << 30), ("4294967296", 1 << 32)] {
        let message = format!(
            "f:2:8: ring: expected a power of two from 64KiB to 1GiB, such as \"8MiB\", found {found} bytes"
        );
        let errors = Config::parse("f", &format!("[agent]\nring = {ring}")).unwrap_err();
        assert_eq!(errors.to_string(), message);
    }
    errors(
        "[agent]\nring = '4KiB'",
        &expect![[r#"f:2:8: ring: expected a size of at least 65536 bytes, found "4KiB""#]],
    );
    errors(
        &format!("[agent]\nsocket = '/{}'", "x".repeat(107)),
        &expect!["f:2:10: socket: expected a path of at most 107 bytes: sockets have no longer ones"],
    );
}

#[test]
fn groups_as_a_whole() {
    errors(
        "[[group]]\n[[group]]\nname = ''\n",
        &expect![[r#"
        f:1:1: this [[group]] has no name: write name = "…"
        f:1:1: this [[group]] has no [group.master] and no profile: one of them says what a master is
        f:2:1: this [[group]] has no [group.master] and no profile: one of them says what a master is
        f:3:8: name: expected a name of letters, digits, "_", "." and "-", found """#]],
    );
    errors(
        "[[group]]\nname = 'a b'\nmaster.comm = 'x'",
        &expect![[r#"f:2:8: name: expected a name of letters, digits, "_", "." and "-", found "a b""#]],
    );
    errors(
        "[[group]]\nname = 'a'\nmaster.comm = 'x'\n[[group]]\nname = 'b'\nmaster.comm = 'x'\n\
         [[group]]\nmaster.comm = 'x'\nname = 'a'",
        &expect![[r#"f:9:8: two groups are named "a": the first is in line 2"#]],
    );
    errors(
        "[[group]]\nname = 'a'\n[group.master]\n[group.worker]\n",
        &expect![[r#"
            f:3:1: this [group.master] is empty: give at least one of cmdline, exe, comm, user, cgroup, unit
            f:4:1: this [group.worker] is empty: give at least one of cmdline, exe, comm, user, cgroup, unit"#]],
    );
    errors(
        "[[group]]\nname = 'a'\n[group.worker]\ncomm = 'x'",
        &expect![
            "f:1:1: this [[group]] has no [group.master] and no profile: one of them says what a master is"
        ],
    );
}

#[test]
fn profiles() {
    errors(
        "[[group]]\nname = 'a'\nprofile = 'laravel-horison'",
        &expect![[
            r#"f:3:11: profile: no built-in profile "laravel-horison": there are apache, celery, dramatiq, gunicorn, laravel-horizon, laravel-queue, nginx, php-fpm, postgresql, puma, resque, rq, sidekiq, unicorn, uvicorn, uwsgi, node-cluster, pm2, python-multiprocessing, supervisord; did you mean "laravel-horizon"?"#
        ]],
    );
    errors(
        "[[group]]\nname = 'a'\nprofile = 'zzz'",
        &expect![[
            r#"f:3:11: profile: no built-in profile "zzz": there are apache, celery, dramatiq, gunicorn, laravel-horizon, laravel-queue, nginx, php-fpm, postgresql, puma, resque, rq, sidekiq, unicorn, uvicorn, uwsgi, node-cluster, pm2, python-multiprocessing, supervisord"#
        ]],
    );
}

#[test]
fn patterns() {
    errors(
        &with(
            "worker = { cmdline = 'é(b', exe = '/a{b', comm = '[z-a]', cgroup = '', unit = 'a/b.service' }",
        ),
        &expect![[r#"
            f:4:22: cmdline: bad regular expression: unclosed group, at character 2 of the pattern
            f:4:35: exe: bad glob: unclosed alternate group; missing '}' (maybe escape '{' with '[{]'?)
            f:4:50: comm: bad glob: invalid range; 'z' > 'a'
            f:4:68: cgroup: expected a glob, found an empty string, which matches nothing
            f:4:79: unit: expected a systemd unit such as "horizon.service", found "a/b.service""#]],
    );
    errors(
        &with("worker.cmdline = ''"),
        &expect![
            "f:4:18: cmdline: expected a regular expression, found an empty one, which matches every process"
        ],
    );
    errors(
        &with(r"worker.cmdline = '(?<a>x)(?<a>y)'"),
        &expect![
            "f:4:18: cmdline: bad regular expression: duplicate capture group name, at character 11 of the pattern"
        ],
    );
    errors(
        &with(r"worker.cmdline = '\p{Foo}'"),
        &expect![
            "f:4:18: cmdline: bad regular expression: Unicode property not found, at character 1 of the pattern"
        ],
    );
    errors(
        &with(r"worker.cmdline = '(\w{1000}){1000}'"),
        &expect!["f:4:18: cmdline: bad regular expression: it needs more than 10485760 bytes when compiled"],
    );
    errors(
        &with("worker.cmdline = '''a\n*(?z)'''"),
        &expect!["f:4:18: cmdline: bad regular expression: unrecognized flag, at character 6 of the pattern"],
    );
    errors(
        &with("worker.unit = 'horizon'"),
        &expect![[r#"f:4:15: unit: expected a systemd unit such as "horizon.service", found "horizon""#]],
    );
    errors(
        &with("stop.job_children = ['ok', '*']"),
        &expect![
            "f:4:28: job_children: bad regular expression: repetition operator missing expression, at character 1 of the pattern"
        ],
    );
}

#[test]
fn users() {
    errors(
        &with("worker.user = 'no-such-user'"),
        &expect![[r#"f:4:15: user: no user "no-such-user" on this host"#]],
    );
    errors(&with("worker.user = ''"), &expect![[r#"f:4:15: user: no user "" on this host"#]]);
    errors(
        &with("worker.user = '4294967295'"),
        &expect![[r#"f:4:15: user: expected a number from 0 to 4294967294, found "4294967295""#]],
    );
    errors(
        &with("worker.user = -1"),
        &expect!["f:4:15: user: expected a number from 0 to 4294967294, found -1"],
    );
    errors(&with("worker.user = \"a\\u0000b\""), &expect![[r#"f:4:15: user: no user "a\0b" on this host"#]]);
}

#[test]
fn durations_and_numbers() {
    errors(
        &with(
            "idle.quiet = '200'\nidle.sleep = '0s'\nstop.grace = '3 parsecs'\nstop.deadline = '11years'\n\
             stop.window = '0ms'\nstop.max_kills = 0",
        ),
        &expect![[r#"
            f:4:14: quiet: expected a duration in quotes such as "200ms" or "30s", found "200": time unit needed, for example 200sec or 200ms
            f:5:14: sleep: expected a duration above zero
            f:6:14: grace: expected a duration in quotes such as "200ms" or "30s", found "3 parsecs": unknown time unit "parsecs", supported units: ns, us/µs, ms, sec, min, hours, days, weeks, months, years (and few variations)
            f:7:17: deadline: expected a duration in quotes such as "200ms" or "30s", found "11years": longer than ten years
            f:8:15: window: expected a duration above zero
            f:9:18: max_kills: expected a number from 1 to 4294967295, found 0"#]],
    );
    errors(
        &with("stop.grace = ''\nstop.deadline = '-1s'\nstop.max_kills = 4294967296"),
        &expect![[r#"
        f:4:14: grace: expected a duration in quotes such as "200ms" or "30s", found "": value was empty
        f:5:17: deadline: expected a duration in quotes such as "200ms" or "30s", found "-1s": expected number at 0
        f:6:18: max_kills: expected a number from 1 to 4294967295, found 4294967296"#]],
    );
}

#[test]
fn endpoints() {
    errors(
        &with(
            "idle.queue = ['6379', 'tcp/0', 'tcp/65536', 'tcp/', 'tcp/redis:6379', 'tcp/10.0.0.5', 'tcp/::1:6379', \
             'tcp/[::1]:0', 'unix:redis.sock', 'unix:/', 'udp/53', 'tcp/+1']",
        ),
        &expect![[r#"
            f:4:15: queue: expected "tcp/PORT", "tcp/ADDRESS:PORT" or "unix:/PATH", found "6379"
            f:4:23: queue: expected "tcp/PORT", "tcp/ADDRESS:PORT" or "unix:/PATH", found "tcp/0"
            f:4:32: queue: expected "tcp/PORT", "tcp/ADDRESS:PORT" or "unix:/PATH", found "tcp/65536"
            f:4:45: queue: expected "tcp/PORT", "tcp/ADDRESS:PORT" or "unix:/PATH", found "tcp/"
            f:4:53: queue: expected "tcp/PORT", "tcp/ADDRESS:PORT" or "unix:/PATH", found "tcp/redis:6379" (the address as a number: names are not looked up)
            f:4:71: queue: expected "tcp/PORT", "tcp/ADDRESS:PORT" or "unix:/PATH", found "tcp/10.0.0.5"
            f:4:87: queue: expected "tcp/PORT", "tcp/ADDRESS:PORT" or "unix:/PATH", found "tcp/::1:6379"
            f:4:103: queue: expected "tcp/PORT", "tcp/ADDRESS:PORT" or "unix:/PATH", found "tcp/[::1]:0"
            f:4:118: queue: expected "tcp/PORT", "tcp/ADDRESS:PORT" or "unix:/PATH", found "unix:redis.sock"
            f:4:137: queue: expected "tcp/PORT", "tcp/ADDRESS:PORT" or "unix:/PATH", found "unix:/"
            f:4:147: queue: expected "tcp/PORT", "tcp/ADDRESS:PORT" or "unix:/PATH", found "udp/53"
            f:4:157: queue: expected "tcp/PORT", "tcp/ADDRESS:PORT" or "unix:/PATH", found "tcp/+1""#]],
    );
}

#[test]
fn signals_and_words() {
    errors(
        &with("stop.signals = []\nstop.when = 'replacd'"),
        &expect![[r#"
            f:4:16: signals: expected a list of signals, found an empty one
            f:5:13: when: expected "always" or "replaced", found "replacd"; did you mean "replaced"?"#]],
    );
    errors(
        &with("stop.signals = ['TERM', 'SIGFOO', '', '15']"),
        &expect![[r#"
        f:4:25: signals: expected a signal's name such as "TERM" or "SIGQUIT", found "SIGFOO"
        f:4:35: signals: expected a signal's name such as "TERM" or "SIGQUIT", found ""
        f:4:39: signals: expected a signal's name such as "TERM" or "SIGQUIT", found "15""#]],
    );
    errors(
        &with("idle.job_threads = []\nidle.proof = 'sleep'"),
        &expect![[r#"
            f:4:20: job_threads: expected a list of globs, found an empty one
            f:5:14: proof: expected "source" or "asleep", found "sleep"; did you mean "asleep"?"#]],
    );
}
