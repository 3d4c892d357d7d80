#!/bin/sh
# The life of the package, as the one service of a Debian system with systemd: installed, used, killed, upgraded, purged.
# `cargo xtask dist --test` boots that system with this script and the packages in /package; every line that it says begins
# with "package:", and the last one with "package: done" if all went well.
exec >/dev/ttyS1 2>&1
cd /package || exit
# Workers are another user's, and leave a file here.
chmod 777 .
trap 'echo "package: the end"; systemctl --force --force poweroff' EXIT

log=/var/log/reaper/events.jsonl
pins=/sys/fs/bpf/reaper@run-reaper

say() { echo "package: $*"; }

fail() {
	say "FAILED: $*"
	systemctl status --no-pager --full reaper.service
	journalctl --no-pager --lines=40 --unit=reaper.service
	tail -n 20 "$log"
	exit 1
}

# until_so WHAT COMMAND...: waits until the command succeeds.
until_so() {
	what=$1
	shift
	tries=0
	until "$@" >/dev/null 2>&1; do
		tries=$((tries + 1))
		[ "$tries" -le 600 ] || fail "not in time: $what"
		sleep 0.2
	done
	say "ok: $what"
}

must() {
	what=$1
	shift
	"$@" || fail "$what"
	say "ok: $what"
}

logged() { [ "$(grep -c "$1" "$log")" -ge "${2:-1}" ]; }

# Masters of the test's group have no other name than this one.
start_master() { perl job.pl master & master=$!; until_so "a master with a worker ($master)" knows "$master"; }
knows() { logged "\"kind\":\"master_found\".*\"pid\":$1," && pgrep_worker; }
pgrep_worker() { worker=$(cat worker.pid) && [ -d "/proc/$worker" ]; }

# The worker of a master that is killed goes.
orphan_goes() {
	kill -KILL "$master"
	wait "$master"
	until_so "the orphan $worker was reaped" logged "\"kind\":\"reaped\".*\"pid\":$worker,"
	[ ! -d "/proc/$worker" ] || fail "the orphan $worker is still there"
	rm worker.pid
}

agent() { systemctl show --property=MainPID --value reaper.service; }
replaced() { new=$(agent) && [ "$new" != 0 ] && [ "$new" != "$1" ] && systemctl is-active reaper.service; }

say "systemd $(systemctl --version | sed -n '1s/systemd \([0-9]*\).*/\1/p'), kernel $(uname -r)"

# --- Installed: it runs, and signals nobody.
must "the package installs" dpkg -i reaper_*-1_*.deb
must "its files are what they were" dpkg --verify reaper
must "the service is active" systemctl is-active reaper.service
must "and starts with the system" systemctl is-enabled reaper.service
must "the host has all it takes" reaper doctor
must "as installed it observes" logged '"kind":"agent_started".*"mode":"observe"'
must "and what it does is pinned" test -e "$pins"
must "the manual is there" test -s /usr/share/man/man1/reaper-explain.1.gz
systemd-analyze security --no-pager reaper.service | tail -n 1 | sed 's/^/package: /'

# --- Used: a worker of another user is stopped, within what the unit lets the agent do.
cat >>/etc/reaper/reaper.toml <<-'END'
	[[group]]
	name = "package"
	mode = "enforce"
	[group.master]
	cmdline = 'job.pl master$'
	[group.worker]
	cmdline = 'job.pl worker$'
END
must "the configuration is good" reaper check
must "the service takes it over" systemctl reload reaper.service
until_so "and says so" sh -c "systemctl show --property=StatusText reaper.service | grep enforce"
until_so "its own messages are in the journal with their fields" sh -c \
	"journalctl --output=cat --unit=reaper.service PRIORITY=6 TARGET=reaper::agent | grep 'configuration reloaded'"
start_master
orphan_goes
must "it was held still for the last look" logged '"kind":"signal".*"verified":true'

# --- Killed, and hung: systemd starts another one, which knows what came before.
old=$(agent)
start_master
kill -KILL "$old"
until_so "systemd has replaced the killed agent" replaced "$old"
orphan_goes
old=$(agent)
kill -STOP "$old"
until_so "systemd has replaced the hung agent" replaced "$old"

# --- Upgraded, and a master that dies while no agent runs.
start_master
old=$(agent)
must "the upgrade installs" dpkg -i reaper_*-2_*.deb
until_so "another agent runs" replaced "$old"
must "the configuration was kept" grep -q 'name = "package"' /etc/reaper/reaper.toml
orphan_goes
start_master
must "the service stops" systemctl stop reaper.service
kill -KILL "$master"
wait "$master"
must "it starts again" systemctl start reaper.service
until_so "who was orphaned meanwhile was reaped" logged "\"kind\":\"reaped\".*\"pid\":$worker,"
must "nobody was taken for a stray" sh -c "! grep '\"stray\":true' $log"
must "nothing went wrong" sh -c "! grep -E '\"kind\":\"(error|events_lost)\"' $log"

# --- Purged.
must "the package is removed" dpkg --remove reaper
must "and nothing stays attached" sh -c "! ls -d /sys/fs/bpf/reaper*"
must "nor runs" sh -c '! pidof reaper'
must "its configuration waits" test -e /etc/reaper/reaper.toml
must "it is purged" dpkg --purge reaper
left=$(find / /run -xdev \( -path /proc -o -path /sys -o -path /package \) -prune -o -iname '*reaper*' -print)
[ -z "$left" ] || fail "left behind: $left"
must "systemd does not know it" sh -c "! systemctl cat reaper.service"
say "done"
