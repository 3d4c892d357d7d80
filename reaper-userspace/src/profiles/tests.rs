//! The patterns against command lines as they were seen, or as the frameworks' sources build them.

use super::*;
use crate::config::Config;
use crate::core::rules::Group;

/// The group that the embedded default makes of a profile.
fn group(name: &str) -> Group {
    Config::embedded().rules.groups.into_iter().find(|g| g.name == name).unwrap()
}

fn check(name: &str, masters: &[&str], workers: &[&str], neither: &[&str]) {
    let group = group(name);
    let master = group.master.cmdline.unwrap();
    let worker = group.worker.unwrap().cmdline.unwrap();
    let verdict = |line: &&str| (master.is_match(line), worker.is_match(line));
    for line in masters {
        assert_eq!(verdict(line), (true, false), "{name}: a master: {line}");
    }
    for line in workers {
        assert_eq!(verdict(line), (false, true), "{name}: a worker: {line}");
    }
    for line in neither {
        assert_eq!(verdict(line), (false, false), "{name}: neither: {line}");
    }
}

#[test]
fn every_profile_loads_without_a_warning() {
    let config = Config::embedded();
    assert_eq!(config.warnings, []);
    let names: Vec<&str> = config.rules.groups.iter().map(|g| &*g.name).collect();
    assert_eq!(names, all().iter().map(|p| p.name).collect::<Vec<_>>());
    assert!(names.is_sorted());
}

#[test]
fn profiles_that_have_not_been_run_say_so() {
    for profile in all().iter().filter(|p| p.toml.contains("observe_only = true")) {
        assert!(profile.toml.contains("has not been run against the real framework yet"), "{}", profile.name);
    }
}

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
            "php artisan tinker",
        ],
    );
}

#[test]
fn laravel_queue() {
    check(
        "laravel-queue",
        &[
            "/usr/bin/python3 /usr/bin/supervisord -n -c /etc/supervisor/supervisord.conf",
            "/usr/bin/python3 -s /usr/bin/supervisord -c /etc/supervisor/supervisord.conf",
            "supervisord -c /app/supervisord.conf",
            "/usr/local/bin/supervisord",
        ],
        &[
            "php artisan queue:work redis --sleep=3",
            "/usr/bin/php8.1 /var/www/app/artisan queue:work sqs --sleep=3 --tries=3 --max-time=3600",
            "php -d memory_limit=-1 artisan queue:listen",
        ],
        &[
            "php artisan queue:restart",
            "php artisan horizon:work redis",
            "/usr/bin/python3 /usr/bin/supervisorctl status",
            "cat /etc/supervisor/supervisord.conf",
            "sh -c php artisan queue:work",
            "/usr/bin/python3 /opt/exporter.py --process supervisord",
        ],
    );
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
            "celery -A proj worker",
            "/srv/venv/bin/celery worker -A proj",
        ],
        &[
            "[celeryd: w1@h:ForkPoolWorker-1]",
            "[celeryd: celery@host.example.com:ForkPoolWorker-12]",
            "[celeryd: w1@h:PoolWorker-3]",
        ],
        &[
            "celery -A proj beat",
            "[celery beat]",
            "/usr/bin/python3 /usr/local/bin/celery -A proj flower",
            "tail -f /var/log/celery worker.log",
            "sh -c celery -A proj worker",
        ],
    );
}

#[test]
fn gunicorn() {
    check(
        "gunicorn",
        &[
            "gunicorn: master [app:app]",
            "gunicorn: master [x]",
            "/usr/bin/python3 /usr/bin/gunicorn app:app -w 4",
            "/srv/venv/bin/python -m gunicorn app:app",
            "gunicorn app:app",
            "/srv/venv/bin/gunicorn -c conf.py app:app",
        ],
        &["gunicorn: worker [app:app]", "gunicorn: worker [x]"],
        &["vim gunicorn.conf.py", "sh -c gunicorn app:app", "python3 app.py", "gunicorn-exporter"],
    );
}

#[test]
fn php_fpm() {
    check(
        "php-fpm",
        &[
            "php-fpm: master process (/etc/php/8.2/fpm/php-fpm.conf)",
            "/usr/sbin/php-fpm8.2 --nodaemonize --fpm-config /etc/php/8.2/fpm/php-fpm.conf",
            "php-fpm",
            "php-fpm -F",
        ],
        &["php-fpm: pool www", "php-fpm: pool www-data.example.com"],
        &["php artisan horizon", "grep php-fpm", "php-fpm-exporter --addr :9253"],
    );
}

#[test]
fn signals_are_the_graceful_ones() {
    let signals = |name: &str| group(name).stop.signals.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(signals("laravel-horizon"), ["TERM"]);
    assert_eq!(signals("laravel-queue"), ["TERM"]);
    assert_eq!(signals("celery"), ["TERM"]);
    assert_eq!(signals("gunicorn"), ["TERM"]);
    assert_eq!(signals("php-fpm"), ["QUIT"]);
}
