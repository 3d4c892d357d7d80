//! What runs any program: node, pm2, Python's multiprocessing, supervisord. And PostgreSQL.

use super::{check, group, roles};
use crate::config::Config;
use crate::core::rules::Mode;

/// Seen on node 20:
/// ```text
///    PID    PPID COMM  ARGS
///    474       1 node  node c.js
///    482     474 node   \_ /usr/bin/node /srv/app/c.js
/// 482/482  281 (epoll_pwait, 30 s);  five more threads in a futex, one in epoll_pwait
/// ```
/// Primary killed: both gone within 0.2 s.
#[test]
fn node_cluster() {
    check(
        "node-cluster",
        &["node c.js", "node --max-old-space-size=4096 dist/main.js", "nodejs server"],
        &[],
        &[
            "node",
            "node /srv/app/app.js",
            "npm run start",
            "vim node c.js",
            "tail -f node.log",
            "nodemon c.js",
        ],
    );
}

/// Seen on pm2 7.0.4, one program in fork mode and one in cluster mode:
/// ```text
///    PID    PPID     SID COMM             ARGS
///    598       1     598 PM2 v7.0.4: God  PM2 v7.0.4: God Daemon (/srv/.pm2)
///    609     598     609 node /srv/app/a   \_ node /srv/app/app.js
///    631     598     598 node /srv/app/c   \_ node /srv/app/c.js
/// 609/609  281 (epoll_pwait)
/// ```
/// Daemon killed: half a second later 609 was there, 631 was not.
#[test]
fn pm2() {
    check(
        "pm2",
        &["PM2 v7.0.4: God|PM2 v7.0.4: God Daemon (/srv/.pm2)"],
        &["node /srv/app/a|node /srv/app/app.js", "bun /srv/app/ap|bun /srv/app/app.ts"],
        &[
            "node app.js",
            "/usr/bin/node /srv/app/app.js",
            "pm2 logs",
            "vim node /srv/app/app.js",
            "tail -f pm2.log",
        ],
    );
}

/// Seen on Python 3.11, a Pool of two with each start method:
/// ```text
///    PID    PPID COMM     ARGS
///    330       1 python3  /usr/bin/python3 mp.py spawn
///    372     330 python3   \_ /usr/bin/python3 -B -c from multiprocessing.resource_tracker import main;main(5)
///    373     330 python3   \_ /usr/bin/python3 -B -c from multiprocessing.spawn import spawn_main; …
///    447     404 python3   \_ /usr/bin/python3 -B -c from multiprocessing.forkserver import main; …
///    448     447 python3       \_ /usr/bin/python3 -B -c from multiprocessing.forkserver import main; …
/// 373/373  0 (read, the pool's pipe);  374/374  202 (futex, no timeout)
/// ```
/// Master killed: within 0.5 s all of them were gone, with each start method.
#[test]
fn python_multiprocessing() {
    check(
        "python-multiprocessing",
        &[
            "/usr/bin/python3 mp.py spawn",
            "python3 -u /srv/job.py",
            "python3.12 -X dev -W ignore job.py --n 4",
        ],
        &[],
        &[
            "/usr/bin/python3 -B -c from multiprocessing.spawn import spawn_main; spawn_main(tracker_fd=6)",
            "/usr/bin/python3 -c from multiprocessing.forkserver import main; main(11, 12, ['__main__'])",
            "python3 -m joblib.externals.loky.backend.popen_loky_posix --process-name LokyProcess-1 --pipe 20",
            "/usr/bin/python3 -B -c from multiprocessing.resource_tracker import main;main(5)",
            "python3 -m joblib.externals.loky_tracker 3",
            "python3 -c print('job.py')",
            "vim job.py",
            "tail -f job.py",
            "sh -c python3 job.py",
            "/usr/bin/python3 /usr/bin/gunicorn app:app",
        ],
    );
}

#[test]
fn supervisord() {
    let group = group("supervisord");
    assert!(group.worker.is_none(), "whatever it runs");
    for row in [
        "/usr/bin/python3 /usr/bin/supervisord -n -c /etc/supervisor/supervisord.conf",
        "supervisord -c /app/supervisord.conf",
    ] {
        assert!(roles(group, row).0, "{row}");
    }
    for row in ["supervisorctl status", "vim supervisord", "runsv worker", "tail -f supervisord.log"] {
        assert!(!roles(group, row).0, "{row}");
    }
}

/// Seen on PostgreSQL 15:
/// ```text
///    PID    PPID COMM      ARGS
///   1066       1 postgres  /usr/lib/postgresql/15/bin/postgres -D /var/lib/postgresql/15/main
///   1080    1066 postgres   \_ postgres: checkpointer
///   1092    1066 postgres   \_ postgres: postgres postgres 127.0.0.1(46942) idle
/// ```
#[test]
fn postgresql() {
    check(
        "postgresql",
        &[
            "/usr/lib/postgresql/15/bin/postgres -D /var/lib/postgresql/15/main",
            "postgres",
            "postmaster -D /data",
        ],
        &[
            "postgres|postgres: checkpointer ",
            "postgres|postgres: postgres postgres 127.0.0.1(46942) idle",
            "postgres|postgres: 15/main: app app [local] SELECT",
        ],
        &["psql -h 127.0.0.1 postgres", "su postgres -c psql", "vim postgres: x", "pg_dump postgres"],
    );
    let title = group("postgresql").idle.title.as_ref().unwrap();
    assert!(title.is_match("postgres: postgres postgres 127.0.0.1(46942) idle"));
    assert!(!title.is_match("postgres: app app [local] idle in transaction"));
    assert!(!title.is_match("postgres: app app [local] SELECT"));
}

/// Its printed group has no profile that could forbid it; the names that are never signalled do.
#[test]
fn postgresql_is_protected_in_any_group() {
    let pasted = super::find("postgresql").unwrap().as_group().replace("\"observe\"", "\"enforce\"");
    let rules = Config::parse("f", &pasted).unwrap().rules;
    assert_eq!(rules.groups[0].mode, Mode::Enforce);
    assert!(rules.protect.iter().any(|g| g.is_match("postgres")));
}
