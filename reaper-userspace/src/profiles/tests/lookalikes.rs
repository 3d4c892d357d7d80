//! What looks like an orphan and is not: no built-in profile takes it for a worker.

use super::{GROUPS, process, roles};

/// Live restore, soft stop, upgrade, detached on purpose, and people with a framework's name in their arguments.
const NOBODYS: &[&str] = &[
    // They live on while their daemon restarts, and carry containers and machines.
    "containerd-shim|/usr/bin/containerd-shim-runc-v2 -namespace moby -id 0f3c -address /run/containerd/containerd.sock",
    "docker-proxy|/usr/bin/docker-proxy -proto tcp -host-ip 0.0.0.0 -host-port 80 -container-ip 172.17.0.2 \
     -container-port 80",
    "conmon|/usr/bin/conmon --api-version 1 -c 0f3c -u 0f3c -r /usr/bin/crun",
    "qemu-system-x86|/usr/bin/qemu-system-x86_64 -name guest=web,debug-threads=on -S",
    // They finish their connections and go.
    "haproxy|/usr/sbin/haproxy -Ws -f /etc/haproxy/haproxy.cfg -p /run/haproxy.pid",
    "haproxy|haproxy -f /etc/haproxy/haproxy.cfg -p /run/haproxy.pid -sf 4711",
    "nginx|nginx: worker process is shutting down",
    "unicorn|unicorn master (old) -c conf.rb",
    "gunicorn|gunicorn: master (old) [app:app]",
    "sidekiq|sidekiq 7.3.0 app [1 of 5 busy] stopping",
    // New masters, which an old one started and left.
    "nginx|nginx: master process /usr/sbin/nginx",
    "unicorn|unicorn master -c conf.rb",
    "gunicorn|gunicorn: master [app:app]",
    "puma|puma 6.6.0 (tcp://0.0.0.0:9292) [app]",
    "php-fpm8.2|php-fpm: master process (/etc/php/8.2/fpm/php-fpm.conf)",
    "php artisan horizon",
    // Detached on purpose.
    "tmux: server|tmux new -d php artisan queue:work",
    "screen|SCREEN -dmS q php artisan queue:work",
    "nohup php artisan queue:work",
    "setsid php artisan queue:work",
    "atd -f",
    "ssh-agent|/usr/bin/ssh-agent -s",
    "gpg-agent|/usr/bin/gpg-agent --supervised",
    "systemd|/lib/systemd/systemd --user",
    "(sd-pam)|(sd-pam)",
    // People and scripts.
    "sh -c php artisan queue:work",
    "bash /usr/local/bin/deploy nginx: worker process",
    "sudo -u www-data php artisan horizon:work redis",
    "su - www-data -c php artisan queue:work",
    "tail -f gunicorn: worker [app:app]",
    "vim /var/www/artisan queue:work",
    "grep -r horizon:work /var/www",
    "strace -p 4711 php-fpm: pool www",
    "python3 /opt/check.py --match [celeryd: w1@h:ForkPoolWorker-1]",
    "watch ps -C node",
    "less node.log",
    "psql postgres",
];

#[test]
fn are_no_workers() {
    for row in NOBODYS {
        for group in GROUPS.iter() {
            assert!(!roles(group, row).1, "{row} is taken for a worker by {}", group.name);
        }
    }
}

/// Those that a master of theirs may have above it: it stays a master while it drains, so that its workers keep it.
#[test]
fn an_old_master_that_drains_is_a_master() {
    for row in ["unicorn|unicorn master (old) -c conf.rb", "gunicorn|gunicorn: master (old) [app:app]"] {
        assert!(GROUPS.iter().any(|g| g.master.matches(&process(row))), "{row}");
    }
}
