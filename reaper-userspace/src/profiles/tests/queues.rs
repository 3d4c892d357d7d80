//! Queues: a master, or a supervisor of processes, and workers that take jobs.

use super::{check, check_alike, group, roles};

#[test]
fn horizon() {
    check(
        "laravel-horizon",
        &[
            "php artisan horizon",
            "/usr/bin/php8.2 /var/www/app/artisan horizon",
            "php -d memory_limit=512M artisan horizon --environment=production",
            "/usr/local/bin/php /app/artisan horizon -q",
        ],
        &[
            "php artisan horizon:supervisor web1-a8Xk:supervisor-1 redis --workers-name=default --balance=auto \
             --parent-id=4711",
            "/usr/bin/php8.2 artisan horizon:work redis --name=default --supervisor=web1-a8Xk:supervisor-1 --backoff=0",
            "/usr/local/bin/php /app/artisan horizon:work redis",
        ],
        &[
            "php artisan horizon:terminate",
            "php artisan horizon:status",
            "php artisan queue:work redis",
            "sh -c php artisan horizon",
            "sudo -u www-data php artisan horizon",
            "grep artisan horizon",
            "vim artisan horizon",
            "tail -f artisan horizon",
            "php artisan tinker",
        ],
    );
}

#[test]
fn laravel_queue() {
    check(
        "laravel-queue",
        &[],
        &[
            "php artisan queue:work redis --sleep=3",
            "/usr/bin/php8.1 /var/www/app/artisan queue:work sqs --sleep=3 --tries=3 --max-time=3600",
            "php -d memory_limit=-1 artisan queue:listen",
        ],
        &[
            "php artisan queue:restart",
            "php artisan horizon:work redis",
            "sh -c php artisan queue:work",
            "tail -f artisan queue:work",
        ],
    );
}

/// Their jobs come over pipes, whatever somebody names as the queue.
#[test]
fn pools_do_not_wait_on_a_queue() {
    for name in ["celery", "python-multiprocessing"] {
        assert!(group(name).idle.job_by_pipe, "{name}");
    }
}

/// Those that never arm an alarm: for them its absence says nothing.
#[test]
fn laravel_without_an_alarm() {
    for name in ["laravel-queue", "laravel-horizon"] {
        let except = group(name).idle.alarm.as_ref().unwrap().except.as_ref().unwrap();
        for line in
            ["php artisan queue:work --timeout=0", "php artisan queue:work redis --timeout=0 --sleep=3"]
        {
            assert!(except.is_match(line), "{name}: {line}");
        }
        for line in [
            "php artisan queue:work",
            "php artisan queue:work --timeout=05",
            "php artisan queue:work --timeout=60",
        ] {
            assert!(!except.is_match(line), "{name}: {line}");
        }
    }
    for name in ["laravel-queue", "laravel-horizon"] {
        let idle = &group(name).idle;
        // Measured: the least that a poll sends is 1394 bytes, and a job is never less than 600.
        assert!(idle.poll_request < 1394 && idle.poll_reply < 600 && idle.sleep.is_some(), "{name}");
    }
    let except = group("laravel-queue").idle.alarm.as_ref().unwrap().except.as_ref().unwrap();
    assert!(except.is_match("php artisan queue:work --once") && except.is_match("php artisan queue:listen"));
}

#[test]
fn celery() {
    check(
        "celery",
        &[
            "[celeryd: w1@h:MainProcess] -active- (worker -A app)",
            "[celeryd: w1@h:MainProcess]",
            "/usr/bin/python3 /usr/local/bin/celery -A proj worker -l INFO",
            "/usr/bin/python3 -m celery -A proj worker --concurrency=4",
            "/usr/bin/python3 -X dev -m celery --app=proj worker",
            "celery -A proj worker",
            "celery --app proj --workdir /srv -q worker",
            "/srv/venv/bin/celery worker -A proj",
        ],
        &[
            "[celeryd: w1@h:ForkPoolWorker-1]",
            "[celeryd: celery@host.example.com:ForkPoolWorker-12]",
            "[celeryd: w1@h:PoolWorker-3]",
        ],
        &[
            "celery -A proj beat",
            "celery -A worker inspect active",
            "celery -A proj inspect worker",
            "celery -A proj multi start worker",
            "[celery beat]",
            "/usr/bin/python3 /usr/local/bin/celery -A proj flower",
            "/usr/bin/python3 /opt/exporter.py celery worker",
            "tail -f /var/log/celery worker.log",
            "vim celery worker",
            "sh -c celery -A proj worker",
        ],
    );
}

/// Titles: procline in rq/worker/base.py.
#[test]
fn rq() {
    check(
        "rq",
        &[
            "/usr/bin/python3 /usr/bin/rq worker-pool default -n 3",
            "rq worker-pool high default",
            "python -m rq worker-pool",
        ],
        &[
            "rq|rq:worker:3f9a: Listening on high, default...",
            "rq|rq:worker:3f9a: Forked 4711 at 1763710000.1",
            "rq|rq:worker:3f9a: Spawned 4711 at 1763710000.1",
            "rq|rq:worker:3f9a: Processing app.jobs.mail from default since 1763710000.2",
        ],
        &[
            "/usr/bin/python3 /usr/bin/rq worker default",
            "/usr/bin/python3 /usr/bin/rq info",
            "sh -c rq worker-pool default",
            "tail -f rq:worker:3f9a: Listening on default",
            "rq|rq:scheduler: 1",
        ],
    );
    let stop = &group("rq").stop;
    let job = |line: &str| stop.job_children.iter().any(|r| r.is_match(line));
    assert!(job("rq:worker:3f9a: Processing app.jobs.mail from default since 1763710000.2"));
    assert!(!job("rq:worker:3f9a: Listening on Processing ..."));
}

/// Titles: procline in lib/resque/worker.rb.
#[test]
fn resque() {
    check(
        "resque",
        &["ruby|resque-pool-master[app]: managing [4711, 4712]"],
        &[
            "ruby|resque-2.6.0: Waiting for high,default",
            "ruby|resque-2.6.0: Forked 4713 at 1763710000",
            "ruby|resque-3.0.0: Processing default since 1763710000 [Mail]",
        ],
        &[
            "ruby|resque-2.6.0: Paused",
            "ruby|resque-2.6.0: Starting",
            "ruby /usr/bin/rake resque:work",
            "ruby /usr/bin/rake resque:workers",
            "ruby /usr/bin/resque-web",
            "tail -f resque-2.6.0: Waiting for x",
            "vim resque-pool-master.rb",
        ],
    );
    let group = group("resque");
    let title = group.idle.title.as_ref().unwrap();
    assert!(title.is_match("resque-2.6.0: Waiting for *") && !title.is_match("resque-2.6.0: Paused"));
    assert!(group.stop.job_children[0].is_match("resque-2.6.0: Processing default since 1 [Mail]"));
}

/// Seen on Sidekiq 6.4.1, with an empty tag:
/// ```text
///    PID    PPID COMM     ARGS
///   1011       1 sidekiq  sidekiq 6.4.1  [0 of 2 busy]
/// 1011/1013 heartbeat  202 (futex, timed)
/// 1011/1014 scheduler  202 (futex, timed)
/// 1011/1015 processor  271 (ppoll, one descriptor, timed)
/// 1011/1016 processor  271 (ppoll, one descriptor, timed)
/// ```
/// TSTP and 11 s later `… [0 of 2 busy] stopping`; TERM to the idle one: gone in 0.6 s.
#[test]
fn sidekiq() {
    check(
        "sidekiq",
        &["sidekiqswarm, managing pid 4711 4712", "ruby /srv/bin/sidekiqswarm -e production"],
        &[
            "sidekiq|sidekiq 6.4.1  [0 of 2 busy]",
            "sidekiq|sidekiq 7.3.0 app [5 of 5 busy]",
            "sidekiq|sidekiq 7.3.0 my app [0 of 5 busy] leader",
        ],
        &[
            "sidekiq|sidekiq 6.4.1  [0 of 2 busy] stopping",
            "ruby /usr/bin/sidekiq -r ./job.rb -c 2",
            "bundle exec sidekiq",
            "tail -f sidekiq 6.4.1  [0 of 2 busy]",
            "vim sidekiq.yml",
        ],
    );
    let idle = &group("sidekiq").idle;
    let job = |comm: &str| idle.job_threads.iter().any(|g| g.is_match(comm));
    assert!(job("processor") && job("sidekiq.process"));
    assert!(!job("heartbeat") && !job("scheduler") && !job("sidekiq.heartbe") && !job("sidekiq"));
    assert!(idle.title.is_none(), "its title is up to 10 s old");
}

/// Seen on Dramatiq 2.2.1 with Redis:
/// ```text
///    PID    PPID COMM      ARGS
///     12       1 dramatiq  /srv/venv/bin/python3 /srv/venv/bin/dramatiq jobs -p 2 -t 2
///     14      12 dramatiq   \_ /srv/venv/bin/python3 /srv/venv/bin/dramatiq jobs -p 2 -t 2
///     15      12 dramatiq   \_ /srv/venv/bin/python3 /srv/venv/bin/dramatiq jobs -p 2 -t 2
/// 14/14, 14/17, 14/19, 14/20  230 (clock_nanosleep, TIMER_ABSTIME)
/// 14/23, 14/25                202 (futex, timed)      every thread is called "dramatiq"
/// ```
/// Both stay when the master is killed; TERM to one: gone in 1.8 and 0.9 s.
#[test]
fn dramatiq() {
    check_alike(
        "dramatiq",
        &[
            "dramatiq|/srv/venv/bin/python3 /srv/venv/bin/dramatiq jobs -p 2 -t 2",
            "dramatiq|/usr/bin/python3 -X dev /usr/bin/dramatiq app",
        ],
        &[],
        &[
            "tail -f /var/log/dramatiq.log",
            "vim dramatiq",
            "sh -c dramatiq jobs",
            "python3 /opt/exporter.py dramatiq",
            "python3 report.py",
        ],
    );
    assert_eq!(roles(group("dramatiq"), "python3 -m dramatiq app"), (true, false));
}
