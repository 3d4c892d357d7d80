//! Every table and key that a configuration may have, with what people need to know about it.
//!
//! The reader takes the names from here, so a key that is not described is unknown; `docs/configuration.md` is written from
//! here, so what is described there exists.

use std::fmt::Write as _;

/// Which keys a table may have.
pub(super) struct Schema {
    /// As people write it.
    pub(super) title: &'static str,
    /// What the table is, in a sentence or two.
    says: &'static str,
    pub(super) keys: &'static [Key],
}

/// A key of a table.
pub(super) struct Key {
    pub(super) name: &'static str,
    /// What its value looks like.
    form: &'static str,
    /// What stands for it if it is absent, as it would be written; none if nothing does.
    default: Option<&'static str>,
    /// An example, where there is no default to show.
    example: Option<&'static str>,
    says: &'static str,
}

impl Schema {
    pub(super) fn has(&self, key: &str) -> bool {
        self.names().any(|name| name == key)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.keys.iter().map(|key| key.name)
    }

    /// The names for an error.
    pub(super) fn known(&self) -> String {
        self.names().collect::<Vec<_>>().join(", ")
    }
}

/// A key that has a default.
const fn key(name: &'static str, form: &'static str, default: &'static str, says: &'static str) -> Key {
    Key { name, form, default: Some(default), example: None, says }
}

/// A key that stands for nothing if it is absent.
const fn optional(name: &'static str, form: &'static str, example: &'static str, says: &'static str) -> Key {
    Key { name, form, default: None, example: Some(example), says }
}

/// A table in a table.
const fn table(name: &'static str) -> Key {
    Key { name, form: "table", default: None, example: None, says: "" }
}

const FLAG: &str = "`true` or `false`";
const GLOB: &str = "glob";
const REGEX: &str = "regular expression";
const TIME: &str = "time";

const MATCHER: &[Key] = &[
    optional(
        "cmdline",
        REGEX,
        r"'artisan horizon$'",
        "Over the arguments joined with spaces, as the process shows them now: titles count.",
    ),
    optional(
        "exe",
        GLOB,
        r#""/usr/bin/php*""#,
        "Over the executable, links resolved. `*` stays within a directory, `**` does not.",
    ),
    optional("comm", GLOB, r#""php*""#, "Over the name, of which the kernel keeps 15 bytes."),
    optional("user", "name or number", r#""www-data""#, "The real user."),
    optional("cgroup", GLOB, r#""**/horizon.service""#, "Over the cgroup's path."),
    optional("unit", "systemd unit", r#""horizon.service""#, "Short for its cgroup and those below."),
];

pub(super) static ROOT: Schema =
    Schema { title: "this file", says: "", keys: &[table("agent"), table("group")] };

pub(super) static AGENT: Schema = Schema {
    title: "[agent]",
    says: "Where the agent writes and whom nobody may signal.",
    keys: &[
        key(
            "log",
            "path, or `\"-\"`",
            r#""/var/log/reaper/events.jsonl""#,
            "The event log; `\"-\"` is standard output.",
        ),
        key(
            "log_level",
            "`\"decisions\"`, `\"lineage\"` or `\"all\"`",
            r#""decisions""#,
            "`lineage` adds births, execs and deaths of the groups' processes, `all` those of every process.",
        ),
        key(
            "log_max_size",
            "size",
            r#""64MiB""#,
            "The log is rotated before it grows above this; at least 4 KiB.",
        ),
        key("log_keep", "number", "8", "How many rotated files are kept, at most 10000."),
        key(
            "socket",
            "path",
            r#""/run/reaper/reaper.sock""#,
            "Where `tree`, `orphans`, `explain` and `top` ask the agent.",
        ),
        optional(
            "socket_group",
            "name or number",
            "1000",
            "A group whose members may ask, besides root: the socket's mode is 0660 then and not 0600.",
        ),
        key(
            "state",
            "folder",
            r#""/run/reaper""#,
            "What survives a restart of the agent; what is pinned in the kernel is named after it.",
        ),
        key(
            "ring",
            "size",
            r#""8MiB""#,
            "The buffer for what the kernel has to tell: a power of two from 64 KiB to 1 GiB. 8 MiB hold about 90,000 births or \
             deaths. If it overflows, nobody is signalled until the tree is rebuilt.",
        ),
        optional("metrics", "address", r#""127.0.0.1:9797""#, "Where Prometheus reads."),
        key(
            "protect",
            "list of globs",
            "[]",
            "Names (comm) that are never signalled, besides init, sshd, container runtimes, terminal multiplexers and their like.",
        ),
    ],
};

pub(super) static GROUP: Schema = Schema {
    title: "[[group]]",
    says: "A framework or an application. An orphan of several groups is acted on by the first of them that enforces.",
    keys: &[
        Key {
            name: "name",
            form: "letters, digits, `_`, `.`, `-`",
            default: None,
            example: Some(r#""horizon""#),
            says: "Needed, and unique.",
        },
        optional(
            "profile",
            "name",
            r#""laravel-horizon""#,
            "A built-in profile (`reaper profiles` lists them), from which every key below comes that is not written here. Without one, \
             `[group.master]` is needed.",
        ),
        key(
            "mode",
            "`\"observe\"` or `\"enforce\"`",
            r#""observe""#,
            "Say what would be done, or do it. Profiles that were not run against their framework enforce only with a \
             `[group.master]` of your own.",
        ),
        table("master"),
        table("worker"),
        table("idle"),
        table("stop"),
    ],
};

/// A file in `profiles/`.
pub(super) static PROFILE: Schema = Schema {
    title: "a profile",
    says: "",
    keys: &[
        key("observe_only", FLAG, "false", ""),
        key("never_enforce", FLAG, "false", ""),
        table("master"),
        table("worker"),
        table("idle"),
        table("stop"),
    ],
};

pub(super) static MASTER: Schema = Schema {
    title: "[group.master]",
    says: "Which processes are masters. All keys that are given must match; at least one is needed.",
    keys: MATCHER,
};

pub(super) static WORKER: Schema = Schema {
    title: "[group.worker]",
    says: "Which descendants of a master are workers: the same keys. Without it, every descendant is.",
    keys: MATCHER,
};

pub(super) static IDLE: Schema = Schema {
    title: "[group.idle]",
    says: "When an orphan is idle.",
    keys: &[
        key(
            "proof",
            "`\"source\"` or `\"asleep\"`",
            r#""source""#,
            "`source`: every job thread waits for the worker's source of work. `asleep`: every one sleeps and no CPU time is used; \
             a job that merely waits looks the same.",
        ),
        key("quiet", TIME, r#""200ms""#, "For this long without a break."),
        key(
            "queue",
            "list of endpoints",
            "[]",
            "The source of work: `tcp/PORT`, `tcp/ADDRESS:PORT`, `unix:PATH`. Listening sockets and the master's pipes are sources \
             without being named.",
        ),
        optional(
            "sleep",
            TIME,
            r#""3s""#,
            "The framework polls by sleeping so long; without it a sleep is not idle.",
        ),
        key(
            "poll_request",
            "bytes",
            "1",
            "A poll sends at least so much between two sleeps; less is a job that sleeps.",
        ),
        key("poll_reply", "bytes", "64", "One that finds nothing receives at most so much; more is a job."),
        key(
            "alarm",
            FLAG,
            "false",
            "An alarm(2) runs while the worker has a job, and none while it waits on its queue.",
        ),
        optional("no_alarm", REGEX, r"'--timeout=0( |$)'", "Command lines of workers that never arm one."),
        optional(
            "title",
            REGEX,
            r"'worker \[0 of'",
            "The title of an idle worker, for frameworks whose titles tell the truth.",
        ),
        key("job_in_child", FLAG, "false", "The worker's jobs are always child processes."),
        key(
            "job_by_pipe",
            FLAG,
            "false",
            "The master hands jobs out over a pipe, and only a job waits on the queue.",
        ),
        key("pool", FLAG, "false", "The workers take turns at one pipe and are judged together."),
        key(
            "job_threads",
            "list of globs",
            r#"["*"]"#,
            "Names of the threads that are judged; at least one.",
        ),
        key("children", "list of globs", "[]", "Names (comm) of children that do not mean busy."),
    ],
};

pub(super) static STOP: Schema = Schema {
    title: "[group.stop]",
    says: "How an idle orphan is stopped.",
    keys: &[
        key(
            "when",
            "`\"always\"` or `\"replaced\"`",
            r#""always""#,
            "`replaced`: only once a live master of the group exists, of the same user or root's; orphans of a web server may be the only ones \
             that serve.",
        ),
        key("signals", "list of signals", r#"["TERM"]"#, "Graceful first."),
        key("grace", TIME, r#""30s""#, "After this long the next one, when the orphan is idle again."),
        key("kill", FLAG, "true", "KILL after the last grace, when it is idle."),
        key(
            "deadline",
            TIME,
            r#""0s""#,
            "After this long as an orphan it is stopped even if it is busy; `0s` is never.",
        ),
        key(
            "max_kills",
            "number",
            "50",
            "More than this in a `window`: the group stops enforcing, and says so (`breaker_open`).",
        ),
        key("window", TIME, r#""1m""#, "See `max_kills`."),
        key(
            "job_children",
            "list of regular expressions",
            "[]",
            "Command lines of processes that are the job itself: never signalled.",
        ),
    ],
};

/// Where a key may belong that stands in the wrong table.
pub(super) static TABLES: [&Schema; 6] = [&AGENT, &GROUP, &MASTER, &WORKER, &IDLE, &STOP];

/// The reference for people, in Markdown.
pub fn reference() -> String {
    let mut text = String::from(
        "# Configuration\n\n\
         TOML. `reaper check FILE` validates a file; a key that is not listed here is an error. The installed \
         `/etc/reaper/reaper.toml` has every key as a comment.\n\n\
         A *time* is a number and a unit, as in `200ms`, `1m 30s`. A *size* is a number and a unit, as in `64MiB`. A *glob* has `*`, `?`, `[…]` and \
         `{…}`. *Regular expressions* are Rust's (crate `regex`), unanchored.\n\n\
         (Made from the definitions that the agent reads a configuration by.)\n",
    );
    for schema in TABLES {
        // A string takes everything.
        _ = write!(text, "\n## {}\n\n{}\n", schema.title, schema.says);
        if schema.title != WORKER.title {
            _ = write!(text, "\n| key | value | default | |\n| --- | --- | --- | --- |\n");
            for key in schema.keys.iter().filter(|key| key.form != "table") {
                text.push_str(&key.row());
            }
        }
    }
    text
}

impl Key {
    fn row(&self) -> String {
        let shown = match (self.default, self.example) {
            (Some(default), _) => format!("`{default}`"),
            (None, Some(example)) => format!("none; e.g. `{example}`"),
            (None, None) => "none".to_owned(),
        };
        // A bar would end the cell.
        let cell = |text: &str| text.replace('|', "\\|");
        format!("| `{}` | {} | {} | {} |\n", self.name, cell(self.form), cell(&shown), cell(self.says))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    /// A file with one key of one table, and what a group needs besides.
    fn with(schema: &Schema, line: &str) -> Config {
        let group = "[[group]]\nname = 'x'\nprofile = 'celery'\n[group.master]\ncomm = 'celery'\n";
        let bare = "[[group]]\nname = 'x'\n";
        let text = match schema.title {
            "[agent]" => format!("[agent]\n{line}\n"),
            "[[group]]" if line.contains("name") => {
                format!("[[group]]\n{line}\n[group.master]\ncomm = 'celery'\n")
            }
            "[[group]]" => format!("{bare}{line}\n[group.master]\ncomm = 'celery'\n"),
            "[group.master]" => format!("{bare}{}\n{line}\n", schema.title),
            "[group.worker]" => format!("{group}{}\n{line}\n", schema.title),
            _ => format!("{bare}[group.master]\ncomm = 'celery'\n{}\n{line}\n", schema.title),
        };
        Config::parse("test.toml", &text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    /// Whoever writes down a default has changed nothing, and whoever writes down an example has.
    #[test]
    fn the_defaults_and_examples_are_true() {
        for schema in TABLES {
            for key in schema.keys.iter().filter(|key| key.form != "table") {
                let beside = match (schema.title, key.name) {
                    // One key is needed, and this one's exception is nothing without its rule.
                    ("[group.master]", "exe") => "comm = 'x'",
                    ("[group.master]", _) => "exe = '/x'",
                    ("[group.worker]", "comm") => "exe = '/x'",
                    ("[group.worker]", _) => "comm = 'x'",
                    (_, "no_alarm") => "alarm = true",
                    _ => "",
                };
                let absent = format!("{:?}", with(schema, beside));
                let text =
                    |value| format!("{:?}", with(schema, &format!("{beside}\n{} = {value}", key.name)));
                if let Some(default) = key.default {
                    assert_eq!(text(default), absent, "{} {}", schema.title, key.name);
                }
                if let Some(example) = key.example {
                    assert_ne!(text(example), absent, "{} {}", schema.title, key.name);
                }
            }
        }
    }

    #[test]
    fn the_document_says_the_same() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&path, reference()).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(kept, reference(), "docs/configuration.md: UPDATE_EXPECT=1 cargo test writes it anew");
    }
}
