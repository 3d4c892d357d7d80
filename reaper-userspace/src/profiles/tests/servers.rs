//! Servers: a master that listens, and workers that accept.

use super::{check, check_alike, group};

#[test]
fn gunicorn() {
    check(
        "gunicorn",
        &[
            "gunicorn: master [app:app]",
            "gunicorn: master [x]",
            "gunicorn: master (old) [x]",
            "/usr/bin/python3 /usr/bin/gunicorn app:app -w 4",
            "/srv/venv/bin/python -m gunicorn app:app",
            "gunicorn app:app",
            "/srv/venv/bin/gunicorn -c conf.py app:app",
        ],
        &["gunicorn: worker [app:app]", "gunicorn: worker [x]"],
        &[
            "vim gunicorn.conf.py",
            "vim gunicorn",
            "tail -f gunicorn: worker [app:app]",
            "sh -c gunicorn app:app",
            "python3 app.py",
            "python3 deploy.py gunicorn",
            "gunicorn-exporter",
        ],
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
        &[
            "php artisan horizon",
            "grep php-fpm",
            "tail -f php-fpm: pool www",
            "php-fpm-exporter --addr :9253",
        ],
    );
}

/// Seen on nginx 1.22:
/// ```text
///    PID    PPID COMM   ARGS
///      7       1 nginx  nginx: master process /usr/sbin/nginx -c /tmp/ng/nginx.conf -p /tmp
///      9       7 nginx   \_ nginx: worker process
///     10       7 nginx   \_ nginx: worker process
/// 9/9    232 (epoll_wait, timeout -1)
/// ```
/// Master killed: both stay. QUIT to an idle orphan: gone within 0.2 s.
#[test]
fn nginx() {
    check(
        "nginx",
        &[
            "nginx|nginx: master process /usr/sbin/nginx -g daemon on; master_process on;",
            "nginx|nginx: master process nginx -g daemon off;",
            "openresty|nginx: master process /usr/local/openresty/nginx/sbin/nginx",
        ],
        &["nginx|nginx: worker process", "nginx|nginx: cache manager process"],
        &[
            "nginx|nginx: worker process is shutting down",
            "nginx|nginx: cache loader process",
            "nginx -s reload",
            "nginx -t",
            "vim nginx: worker process",
            "tail -f /var/log/nginx/access.log",
            "nginx-prometheus-exporter",
        ],
    );
}

/// Seen on Apache 2.4, prefork:
/// ```text
///    PID    PPID COMM     ARGS
///     11       1 apache2  /usr/sbin/apache2 -f /tmp/ap.conf -D FOREGROUND
///     13      11 apache2   \_ /usr/sbin/apache2 -f /tmp/ap.conf -D FOREGROUND
///     14      11 apache2   \_ /usr/sbin/apache2 -f /tmp/ap.conf -D FOREGROUND
/// 13/13    288 (accept4);  in a request 7 (poll, the client)
/// ```
/// Master killed: both stay. USR1 to the idle one: gone within 0.5 s; to the one in a request: it answers, then goes.
#[test]
fn apache() {
    check_alike(
        "apache",
        &[
            "apache2|/usr/sbin/apache2 -k start",
            "apache2|/usr/sbin/apache2 -DFOREGROUND",
            "httpd|/usr/sbin/httpd -DFOREGROUND",
        ],
        &[],
        &[
            "/usr/bin/rotatelogs /var/log/apache2/access.log 86400",
            "/bin/sh /usr/sbin/apachectl start",
            "apache2ctl graceful",
            "vim apache2.conf",
            "tail -f /var/log/apache2/error.log",
            "htcacheclean -d 120 -p /var/cache/apache2/mod_cache_disk",
        ],
    );
}

/// Seen on uvicorn 0.54:
/// ```text
///    PID    PPID COMM     ARGS
///    149       1 uvicorn  /srv/venv/bin/python3 /srv/venv/bin/uvicorn u:app --port 8003 --workers 2
///    151     149 python3   \_ /srv/venv/bin/python3 -B -c from multiprocessing.resource_tracker import main;main(6)
///    152     149 python3   \_ /srv/venv/bin/python3 -B -c from multiprocessing.spawn import spawn_main; …
/// 152/152  232 (epoll_wait, 100 ms);  152/154  0 (read, the master's pipe)
/// ```
/// Master killed: the workers stay. TERM to an idle one: gone in 0.3 s.
#[test]
fn uvicorn() {
    check(
        "uvicorn",
        &[
            "uvicorn|/srv/venv/bin/python3 /srv/venv/bin/uvicorn u:app --port 8003 --workers 2",
            "python3 -m uvicorn app.main:app --workers 4",
            "uvicorn app:app --workers 2",
        ],
        &[],
        &[
            "python3|/srv/venv/bin/python3 -B -c from multiprocessing.resource_tracker import main;main(6)",
            "vim uvicorn",
            "tail -f /var/log/uvicorn",
            "sh -c uvicorn app:app",
            "gunicorn: worker [app:app]",
        ],
    );
    assert!(group("uvicorn").worker.is_none(), "a spawned worker may be any program's");
}

#[test]
fn uwsgi() {
    check_alike(
        "uwsgi",
        &[
            "uwsgi|uwsgi --http 127.0.0.1:8000 --wsgi-file app.py --processes 2",
            "uwsgi|/srv/venv/bin/uwsgi --ini app.ini",
            "uwsgi-core|/usr/bin/uwsgi-core --ini app.ini",
            "uwsgi|uWSGI master",
        ],
        &["uwsgi|uWSGI worker 1", "uwsgi|shop uWSGI worker 2"],
        &[
            "vim uwsgi.ini",
            "tail -f /var/log/uwsgi.log",
            "sh -c uwsgi --ini app.ini",
            "python3 uwsgitop 127.0.0.1:9191",
        ],
    );
}

/// Seen on unicorn 6.0, before and after USR2:
/// ```text
///    PID    PPID COMM     ARGS
///    979       1 unicorn  unicorn master (old) -c un.rb -l 127.0.0.1:8006 config.ru
///    981     979 unicorn   \_ unicorn worker[0] -c un.rb -l 127.0.0.1:8006 config.ru
///    999     979 unicorn   \_ unicorn master -c un.rb -l 127.0.0.1:8006 config.ru
///   1000     999 unicorn       \_ unicorn worker[0] -c un.rb -l 127.0.0.1:8006 config.ru
/// 981/981  270 (pselect6)
/// ```
/// The old master killed: its two workers were gone within 0.5 s.
#[test]
fn unicorn() {
    check(
        "unicorn",
        &[
            "unicorn|unicorn master -c un.rb -l 127.0.0.1:8006 config.ru",
            "unicorn|unicorn master (old) -c un.rb -l 127.0.0.1:8006 config.ru",
            "unicorn_rails|unicorn_rails master -E production",
            "unicorn|/usr/bin/ruby3.1 /usr/bin/unicorn -c un.rb",
            "ruby /usr/bin/bundle exec unicorn -c un.rb",
        ],
        &["unicorn|unicorn worker[0] -c un.rb", "unicorn_rails|unicorn_rails worker[12] -E production"],
        &[
            "vim unicorn worker[0]",
            "tail -f unicorn.log",
            "ruby /opt/exporter.rb unicorn",
            "sh -c unicorn master",
        ],
    );
}

/// Seen on puma 5.6.5:
/// ```text
///    PID    PPID COMM  ARGS
///    855       1 puma  puma 5.6.5 (tcp://127.0.0.1:8005) [app]
///    857     855 puma   \_ puma: cluster worker 0: 855 [app]
/// 857/867 puma srv tp 001  202 (futex, no timeout)
/// 857/868 puma reactor     232 (epoll_wait)
/// 857/869 puma srv thread  202 (futex, timed), twice
/// 857/871 puma srv         270 (pselect6)
/// ```
/// Master killed: both gone within 0.3 s.
#[test]
fn puma() {
    check(
        "puma",
        &["puma|puma 5.6.5 (tcp://127.0.0.1:8005) [app]", "puma|puma 6.6.0 (unix:///run/puma.sock)"],
        &["puma|puma: cluster worker 0: 855 [app]", "puma|puma: cluster worker 11: 855"],
        &["puma -w 2 config.ru", "vim puma: cluster worker 0: 855", "tail -f puma.log", "bundle exec puma"],
    );
    let idle = &group("puma").idle;
    let job = |comm: &str| idle.job_threads.iter().any(|g| g.is_match(comm));
    assert!(job("puma srv") && job("puma srv tp 001"));
    assert!(!job("puma srv thread") && !job("puma reactor") && !job("puma wrkr check") && !job("puma"));
}
