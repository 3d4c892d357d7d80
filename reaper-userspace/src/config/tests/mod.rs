//! What a configuration means, and what is said about one that means nothing.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::core::ids::{MS, SECOND};
use crate::core::rules::{Group, IdleRules, LogLevel, Mode, Proof, Signal, When};
use crate::event_log::LogTarget;

mod errors;
mod fuzz;
mod warnings;

fn endpoints(idle: &IdleRules) -> Vec<String> {
    idle.queue.iter().map(ToString::to_string).collect()
}

/// The example of the contract, whole.
const CONTRACT: &str = r#"
[agent]
log = "/var/log/reaper/events.jsonl"   # "-" is stdout
log_level = "decisions"                # decisions | lineage (tracked groups' fork/exec/exit too) | all (every process)
log_max_size = "64MiB"                 # rotated, log_keep files are kept
log_keep = 8
socket = "/run/reaper/reaper.sock"     # status for the other commands; mode 0600
state = "/run/reaper"                  # what survives a restart of the agent
metrics = "127.0.0.1:9797"             # Prometheus; absent = off
protect = ["sshd", "systemd*", "dbus-daemon", "containerd*", "dockerd"]   # comm globs, added to the built-in ones

[[group]]
name = "horizon"
mode = "enforce"                       # observe (default) | enforce

[group.master]                         # all that are given must match
cmdline = 'artisan horizon$'           # regex over argv joined with spaces
exe = "/usr/bin/php*"                  # glob over the resolved executable
comm = "php*"                          # glob
user = "root"                          # name or number
cgroup = "**/horizon.service"          # glob over the cgroup path
unit = "horizon.service"               # systemd unit, short for the cgroup

[group.worker]                         # same keys; absent = every descendant
cmdline = 'artisan horizon:work'

[group.idle]
proof = "source"                       # source (design section 4) | asleep (state S and no CPU)
quiet = "200ms"
queue = ["tcp/6379", "tcp/10.0.0.5:6379", "unix:/run/redis/redis.sock"]
sleep = "3s"                           # the framework polls by sleeping this long; absent = a sleep is not idle
job_threads = ["*"]                    # thread name globs that are judged
children = []                          # comm globs of children that do not mean busy

[group.stop]
when = "always"                        # always | replaced
signals = ["TERM"]                     # graceful first
grace = "30s"                          # then the next signal, when idle again
kill = true                            # KILL after the last grace, when idle
deadline = "0s"                        # after this long as an orphan, stop it even if busy; 0 = never
max_kills = 50                         # per window, else the group stops enforcing
window = "1m"
job_children = []                      # cmdline regexes of processes that are the job itself: never signalled
"#;

/// A group that is complete but for `rest`.
fn with(rest: &str) -> String {
    format!("[[group]]\nname = 'x'\nmaster.comm = 'x'\n{rest}")
}

fn parse(text: &str) -> Config {
    Config::parse("reaper.toml", text).unwrap()
}

/// The only group of a configuration.
fn group(text: &str) -> Group {
    let mut groups = parse(text).rules.groups;
    assert_eq!(groups.len(), 1);
    groups.remove(0)
}

fn names(signals: &[Signal]) -> Vec<String> {
    signals.iter().map(ToString::to_string).collect()
}

#[test]
fn the_contract_is_read_as_it_is_written() {
    let config = parse(CONTRACT);
    assert_eq!(config.warnings, []);
    assert_eq!(config.file, "reaper.toml");
    let metrics = "127.0.0.1:9797".parse().unwrap();
    assert_eq!(config.agent, AgentSettings { metrics: Some(metrics), ..AgentSettings::default() });
    let group = &config.rules.groups[0];
    assert_eq!((&*group.name, group.mode, group.profile.as_deref()), ("horizon", Mode::Enforce, None));
    assert_eq!(group.master.uid, Some(0));
    assert_eq!(group.idle.proof, Proof::Source);
    assert_eq!(endpoints(&group.idle), ["tcp/6379", "tcp/10.0.0.5:6379", "unix:/run/redis/redis.sock"]);
    assert_eq!(group.idle.sleep, Some(3 * SECOND));
    assert!(group.worker.as_ref().unwrap().cmdline.as_ref().unwrap().is_match("php artisan horizon:work"));
}

#[test]
fn a_ring_buffer_has_the_size_that_is_written() {
    assert_eq!(parse("agent = { ring = '64KiB' }").agent.ring, 64 << 10);
    assert_eq!(parse("agent = { ring = 1073741824 }").agent.ring, 1 << 30);
}

#[test]
fn the_sockets_group_is_a_name_or_a_number() {
    assert_eq!(parse("agent = { socket_group = 'root' }").agent.socket_group, Some(0));
    assert_eq!(parse("agent = { socket_group = 1234 }").agent.socket_group, Some(1234));
}

#[test]
fn defaults_are_those_of_the_contract() {
    let config = parse("[[group]]\nname = 'x'\nmaster = { comm = 'x' }");
    let AgentSettings { log, log_max_size, log_keep, socket, socket_group, state, ring, metrics } =
        config.agent;
    assert_eq!(log, LogTarget::File(PathBuf::from("/var/log/reaper/events.jsonl")));
    assert_eq!((log_max_size, log_keep, ring, metrics), (64 << 20, 8, 8 << 20, None));
    assert_eq!((&*socket, &*state), (Path::new("/run/reaper/reaper.sock"), Path::new("/run/reaper")));
    assert_eq!(socket_group, None);
    assert_eq!(config.rules.log_level, LogLevel::Decisions);
    assert!(config.rules.protect.iter().any(|g| g.is_match("sshd")));

    let Group { mode, worker, idle, stop, .. } = &config.rules.groups[0];
    assert_eq!(*mode, Mode::Observe);
    assert!(worker.is_none());
    assert_eq!((idle.proof, idle.quiet, idle.sleep), (Proof::default(), 200 * MS, None));
    assert!(idle.queue.is_empty() && idle.children.is_empty());
    assert!(idle.job_threads.len() == 1 && idle.job_threads[0].is_match("any thing/0"));
    assert_eq!((stop.when, names(&stop.signals)), (When::Always, vec!["TERM".to_owned()]));
    assert_eq!((stop.grace, stop.kill, stop.deadline), (30 * SECOND, true, 0));
    assert_eq!((stop.max_kills, stop.window), (50, 60 * SECOND));
    assert!(stop.job_children.is_empty());
}

#[test]
fn a_group_wins_over_its_profile_key_by_key() {
    let plain = group("[[group]]\nname = 'x'\nprofile = 'gunicorn'");
    let own = group(
        "[[group]]\nname = 'x'\nprofile = 'gunicorn'\n[group.master]\ncomm = 'g*'\n[group.worker]\ncmdline = 'w'\n\
         [group.stop]\nsignals = ['SIGQUIT', 'int']\n[group.idle]\nsleep = '1s'",
    );
    assert_eq!(own.profile.as_deref(), Some("gunicorn"));
    // What is not written comes from the profile, what is written does not.
    let pattern = |g: &Group| g.master.cmdline.as_ref().unwrap().as_str().to_owned();
    assert_eq!(pattern(&own), pattern(&plain));
    assert!(own.master.comm.unwrap().is_match("gunicorn") && plain.master.comm.is_none());
    assert_eq!(own.worker.unwrap().cmdline.unwrap().as_str(), "w");
    assert_eq!(
        (own.stop.when, names(&own.stop.signals)),
        (When::Replaced, vec!["QUIT".into(), "INT".into()])
    );
    assert_eq!((own.idle.quiet, own.idle.sleep), (20 * SECOND, Some(SECOND)));
    assert_eq!((plain.idle.quiet, plain.idle.sleep), (20 * SECOND, None));
}

#[test]
fn globs_and_units() {
    let master = group(
        r"
        [[group]]
        name = 'x'
        [group.master]
        exe = '/usr/bin/*'
        cgroup = '/kubepods/**'
        unit = 'my-worker@*.service'
        ",
    )
    .master;
    let exe = master.exe.unwrap();
    assert!(exe.is_match("/usr/bin/php") && !exe.is_match("/usr/bin/sub/php"));
    let cgroup = &master.cgroup.unwrap()[0];
    assert!(cgroup.is_match("/kubepods/a/b") && !cgroup.is_match("/other/kubepods/a"));
    let unit = master.unit.unwrap();
    let in_unit = |path: &str| unit.iter().any(|g| g.is_match(path));
    assert!(in_unit("/system.slice/my-worker@1.service"));
    assert!(in_unit("/system.slice/system-x.slice/my-worker@1.service/sub/cgroup"));
    assert!(!in_unit("/system.slice/my-worker.service"));
    assert!(!in_unit("/system.slice/not-my-worker@1.service"));

    // systemd's own escape stands in the path as it is.
    let escaped =
        group("[[group]]\nname = 'x'\n[group.master]\nunit = 'a\\x2db.service'").master.unit.unwrap();
    assert!(escaped[0].is_match("/system.slice/a\\x2db.service"));
}

#[test]
fn values_in_every_notation() {
    let config = parse(
        "[agent]\nlog = '-'\nlog_level = 'all'\nlog_max_size = 1048576\nmetrics = '[::1]:1'\nprotect = ['mine']\n\
         [[group]]\nname = 'A.b_c-1'\nmaster.user = '33'\nidle.queue = ['tcp/[fe80::1]:6379', 'tcp/65535']\n\
         stop = { max_kills = 0x10, deadline = '1h 30m', kill = false, when = 'replaced' }",
    );
    assert_eq!((&config.agent.log, config.agent.log_max_size), (&LogTarget::Stdout, 1 << 20));
    assert_eq!(config.rules.log_level, LogLevel::All);
    assert!(["mine", "sshd"].iter().all(|comm| config.rules.protect.iter().any(|g| g.is_match(comm))));
    let Group { master, idle, stop, .. } = &config.rules.groups[0];
    assert_eq!(master.uid, Some(33));
    assert_eq!(endpoints(idle), ["tcp/[fe80::1]:6379", "tcp/65535"]);
    assert_eq!((stop.max_kills, stop.deadline, stop.kill), (16, 5400 * SECOND, false));
}

#[test]
fn the_embedded_default_observes_and_is_what_gets_installed() {
    let embedded = Config::embedded();
    assert!(!embedded.rules.groups.is_empty());
    assert!(embedded.rules.groups.iter().all(|g| g.mode == Mode::Observe));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/reaper.toml");
    let installed = Config::load(&path).unwrap();
    assert_eq!(installed.warnings, []);
    assert_eq!(installed.agent, embedded.agent);
    // `Rules` compares names and modes; the profiles are the other half.
    assert!(installed.rules == embedded.rules);
    let profiles = |c: &Config| c.rules.groups.iter().map(|g| g.profile.clone()).collect::<Vec<_>>();
    assert_eq!(profiles(&installed), profiles(&embedded));
}

/// The keys that are commented out in the installed file are examples that work, and show the defaults.
#[test]
fn the_installed_file_is_right_in_its_comments_too() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/reaper.toml");
    let text = fs::read_to_string(path).unwrap();
    // A comment is "# text", a key is "#key".
    let uncommented: Vec<&str> = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()) => rest,
            _ => line,
        })
        .collect();
    let config = parse(&uncommented.join("\n"));
    assert_eq!(config.warnings, []);
    let off =
        AgentSettings { metrics: config.agent.metrics, socket_group: Some(0), ..AgentSettings::default() };
    assert_eq!(config.agent, off);
    let shown = config.rules.groups.iter().find(|g| g.name == "importer").unwrap();
    let default = group("[[group]]\nname = 'x'\n[group.master]\ncomm = 'x'");
    let key = |g: &Group| (g.mode, g.idle.quiet, g.stop.when, g.stop.grace, g.stop.kill, g.stop.deadline);
    assert_eq!(key(shown), key(&default));
    let limits =
        |g: &Group| (names(&g.stop.signals), g.stop.max_kills, g.stop.window, g.idle.job_threads.len());
    assert_eq!(limits(shown), limits(&default));
}

#[test]
fn files_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let message = |path: &Path| {
        let errors = Config::load(path).unwrap_err();
        let text = errors.to_string();
        (errors.is_unreadable(), text.strip_prefix(&format!("{}:", path.display())).unwrap().to_owned())
    };
    assert_eq!(message(dir.path()), (true, " is a directory, expected a file".to_owned()));
    assert_eq!(
        message(&at("absent")),
        (true, " cannot be opened: No such file or directory (os error 2)".to_owned())
    );
    fs::write(at("latin1"), b"# ok\n# na\xc3\xafve\xff").unwrap();
    assert_eq!(message(&at("latin1")), (false, "2:8: this is not UTF-8 text".to_owned()));
    fs::write(at("huge"), vec![b'#'; 2 << 20]).unwrap();
    assert_eq!(
        message(&at("huge")),
        (true, " is larger than 1048576 bytes, which no configuration is".to_owned())
    );
    // Endless, and not a regular file.
    assert!(message(Path::new("/dev/zero")).0);
    fs::write(at("good"), CONTRACT).unwrap();
    assert_eq!(Config::load(&at("good")).unwrap().file, at("good").display().to_string());
}
