//! The patterns against processes as they were seen, or as the frameworks' sources build them.
//!
//! A table names processes as `comm|command line`, as `ps -o comm,args` shows them; without a comm it is the first word's
//! last part, cut as the kernel does. Where a table says "seen", the lines come from the real program of that version,
//! run on this kind of machine, with its idle workers' /proc/PID/syscall beside them.

use std::sync::LazyLock;

use super::*;
use crate::config::Config;
use crate::core::input::Identity;
use crate::core::rules::{Group, Mode};

mod anything;
mod lookalikes;
mod queues;
mod servers;

/// The groups of the embedded default: one of each profile.
static GROUPS: LazyLock<Vec<Group>> = LazyLock::new(|| Config::embedded().rules.groups);

fn group(name: &str) -> &'static Group {
    GROUPS.iter().find(|g| g.name == name).unwrap()
}

/// Who a row of a table is.
fn process(row: &str) -> Identity {
    let (comm, line) = row.split_once('|').unwrap_or_else(|| {
        let first = row.split(' ').next().unwrap_or_default();
        (first.rsplit('/').next().unwrap_or_default(), row)
    });
    Identity {
        comm: comm.chars().take(15).collect::<String>().into(),
        argv: line.split(' ').collect(),
        at: 0,
        exe: "".into(),
        uid: 0,
        ppid: 1,
        session: 0,
        cgroups: Vec::new(),
    }
}

fn roles(group: &Group, row: &str) -> (bool, bool) {
    let who = process(row);
    (group.master.matches(&who), group.worker.as_ref().is_some_and(|w| w.matches(&who)))
}

fn check(name: &str, masters: &[&str], workers: &[&str], neither: &[&str]) {
    let group = group(name);
    for row in masters {
        assert_eq!(roles(group, row), (true, false), "{name}: a master: {row}");
    }
    for row in workers {
        assert_eq!(roles(group, row), (false, true), "{name}: a worker: {row}");
    }
    for row in neither {
        assert_eq!(roles(group, row), (false, false), "{name}: neither: {row}");
    }
}

/// For frameworks whose workers keep their master's command line: who forked whom decides, and only the name narrows it.
fn check_alike(name: &str, alike: &[&str], workers: &[&str], neither: &[&str]) {
    let group = group(name);
    for row in alike {
        assert_eq!(roles(group, row), (true, true), "{name}: master or worker: {row}");
    }
    check(name, &[], workers, neither);
}

#[test]
fn every_profile_loads_without_a_warning_and_observes() {
    let config = Config::embedded();
    assert_eq!(config.warnings, []);
    let names: Vec<&str> = config.rules.groups.iter().map(|g| &*g.name).collect();
    assert_eq!(names, all().iter().map(|p| p.name).collect::<Vec<_>>());
    assert!(config.rules.groups.iter().all(|g| g.mode == Mode::Observe));
    assert_eq!(names.len(), 20);
}

/// The file is read as text in two places; both see what its TOML says.
#[test]
fn what_a_file_says_above_its_tables() {
    for profile in all() {
        let table: toml::Table = profile.toml.parse().unwrap();
        let says = |key: &str| table.get(key).and_then(toml::Value::as_bool).unwrap_or_default();
        assert_eq!(profile.observes_only(), says("observe_only"), "{}", profile.name);
        assert_eq!(profile.never_enforces(), says("never_enforce"), "{}", profile.name);
    }
    assert!(find("postgresql").unwrap().never_enforces());
}

#[test]
fn profiles_that_have_not_been_run_say_so() {
    for profile in all().iter().filter(|p| p.observes_only() && !p.never_enforces()) {
        assert!(profile.toml.contains("has not been run against the real framework yet"), "{}", profile.name);
    }
}

#[test]
fn every_profile_names_its_source_and_its_idle_wait() {
    for profile in all() {
        assert!(profile.toml.contains("\n# Source: "), "{}", profile.name);
        let (_, idle) = profile.toml.split_once("\n[idle]\n").unwrap();
        let (idle, _) = idle.split_once("\n[stop]\n").unwrap();
        assert!(idle.contains('#'), "{}: nothing is said about its idle wait", profile.name);
    }
}

#[test]
fn signals_are_the_graceful_ones() {
    for (names, signal) in [
        (
            &["laravel-horizon", "laravel-queue", "celery", "rq", "sidekiq", "dramatiq", "supervisord"][..],
            "TERM",
        ),
        (&["gunicorn", "uvicorn", "puma", "node-cluster", "python-multiprocessing", "postgresql"], "TERM"),
        (&["nginx", "php-fpm", "unicorn", "resque"], "QUIT"),
        (&["uwsgi"], "HUP"),
        (&["apache"], "USR1"),
        (&["pm2"], "INT"),
    ] {
        for name in names {
            let signals: Vec<_> = group(name).stop.signals.iter().map(ToString::to_string).collect();
            assert_eq!(signals, [signal], "{name}");
        }
    }
}

/// Orphans of a server may be the only ones that still serve.
#[test]
fn servers_wait_to_be_replaced() {
    use crate::core::rules::When;
    let servers = ["gunicorn", "uvicorn", "uwsgi", "unicorn", "puma", "php-fpm", "nginx", "apache"];
    for profile in all() {
        let server =
            servers.contains(&profile.name) || ["node-cluster", "postgresql"].contains(&profile.name);
        assert_eq!(group(profile.name).stop.when == When::Replaced, server, "{}", profile.name);
    }
}

/// Frameworks that die with their master are given the time to do so.
#[test]
fn those_that_die_by_themselves_are_left_to_it() {
    for name in ["celery", "gunicorn", "puma", "node-cluster", "pm2", "python-multiprocessing", "postgresql"]
    {
        assert_eq!(group(name).idle.quiet, 20_000_000_000, "{name}");
    }
}

/// What matches a worker pattern and was there before the agent, with no master above it, is a stray: a pattern must not
/// fit what other programs run.
#[test]
fn a_worker_belongs_to_one_framework() {
    let of = |row: &str| -> Vec<&str> {
        let found = GROUPS.iter().filter(|g| roles(g, row).1);
        found.map(|g| &*g.name).collect()
    };
    for (row, expected) in [
        ("php artisan horizon:work redis --supervisor=web1-a8Xk:supervisor-1", &["laravel-horizon"][..]),
        ("php artisan queue:work redis --sleep=3", &["laravel-queue"]),
        ("[celeryd: w1@h:ForkPoolWorker-1]", &["celery"]),
        ("gunicorn|gunicorn: worker [app:app]", &["gunicorn"]),
        ("rq|rq:worker:a1b2: Listening on default...", &["rq"]),
        ("ruby|resque-2.6.0: Waiting for *", &["resque"]),
        ("sidekiq|sidekiq 6.4.1 app [0 of 2 busy]", &["sidekiq"]),
        ("dramatiq|/usr/bin/python3 /usr/bin/dramatiq jobs -p 2 -t 2", &["dramatiq"]),
        ("nginx|nginx: worker process", &["nginx"]),
        ("php-fpm8.2|php-fpm: pool www", &["php-fpm"]),
        ("unicorn|unicorn worker[0] -c un.rb", &["unicorn"]),
        ("puma|puma: cluster worker 0: 855 [app]", &["puma"]),
        ("uwsgi|uwsgi --ini app.ini", &["uwsgi"]),
        ("apache2|/usr/sbin/apache2 -k start", &["apache"]),
        ("node /srv/app|node /srv/app/app.js", &["pm2"]),
        // Started by hand or by systemd: it may be anything.
        ("node|/usr/bin/node /srv/app/server.js", &[]),
        ("node|node /srv/app/server.js", &[]),
        ("postgres|postgres: app app 127.0.0.1(46942) idle", &["postgresql"]),
        (
            "python3|/usr/bin/python3 -c from multiprocessing.spawn import spawn_main; spawn_main(pipe_handle=9)",
            &[],
        ),
    ] {
        assert_eq!(of(row), expected, "{row}");
    }
}

/// Whoever is a master of any group is not stopped as the orphan of another: a worker of one framework must not look
/// like the master of a second one.
#[test]
fn a_worker_is_no_master_of_another_framework() {
    for row in [
        "php artisan queue:work redis",
        "php artisan horizon:work redis",
        "[celeryd: w1@h:ForkPoolWorker-1]",
        "gunicorn|gunicorn: worker [app:app]",
        "rq|rq:worker:a1b2: Listening on default...",
        "ruby|resque-2.6.0: Waiting for *",
        "sidekiq|sidekiq 6.4.1 app [0 of 2 busy]",
        "nginx|nginx: worker process",
        "php-fpm8.2|php-fpm: pool www",
        "unicorn|unicorn worker[0] -c un.rb",
        "puma|puma: cluster worker 0: 855 [app]",
        "node /srv/app|node /srv/app/app.js",
        "node|/usr/bin/node /srv/app/server.js",
        "postgres|postgres: checkpointer ",
        "python3|/usr/bin/python3 -B -c from multiprocessing.spawn import spawn_main; spawn_main(pipe_handle=9)",
        "python3|/usr/bin/python3 -m joblib.externals.loky.backend.popen_loky_posix --process-name L --pipe 20",
    ] {
        let who = process(row);
        let masters: Vec<_> = GROUPS.iter().filter(|g| g.master.matches(&who)).map(|g| &g.name).collect();
        assert!(masters.is_empty(), "{row}: {masters:?}");
    }
}

/// Profiles that take any supervisor of processes for a master mean the same ones.
#[test]
fn supervisors_of_processes_are_the_same_everywhere() {
    let names = ["laravel-queue", "resque", "rq", "sidekiq"];
    for row in [
        "/usr/bin/python3 /usr/bin/supervisord -n -c /etc/supervisor/supervisord.conf",
        "/usr/bin/python3 -s /usr/bin/supervisord -c /etc/supervisor/supervisord.conf",
        "/usr/bin/python3 -X utf8 /usr/bin/supervisord",
        "supervisord -c /app/supervisord.conf",
        "/usr/local/bin/supervisord",
        "/srv/venv/bin/python /srv/venv/bin/circusd circus.ini",
        "runsv worker",
        "s6-supervise worker",
    ] {
        for name in names {
            assert_eq!(roles(group(name), row), (true, false), "{name}: {row}");
        }
    }
    for row in [
        "/usr/bin/python3 /usr/bin/supervisorctl status",
        "cat /etc/supervisor/supervisord.conf",
        "/usr/bin/python3 /opt/exporter.py --process supervisord",
        "tail -f /var/log/supervisor/supervisord.log",
        "sudo supervisord -n",
        "sh -c supervisord -n",
        "vim supervisord",
        "runsvdir /service",
    ] {
        for name in names {
            assert_eq!(roles(group(name), row), (false, false), "{name}: {row}");
        }
    }
}
