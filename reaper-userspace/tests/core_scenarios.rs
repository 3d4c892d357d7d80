//! What the agent says, story by story: recorded inputs in, event log out.
//!
//! `golden/NAME.jsonl` holds the inputs, a line each with the time of its arrival, `golden/NAME.log` what the core makes of
//! them. The inputs were recorded from the story's script on the simulated kernel; the script is run every time too, with
//! every signal held against the law. `UPDATE_EXPECT=1` records both anew.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

mod sim;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use expect_test::expect_file;
use jiff::Timestamp;
use reaper::core::Core;
use reaper::core::effect::Effect;
use reaper::core::ids::{MS, Ns, SECOND};
use reaper::core::input::Input;
use reaper::core::records::{Event, Record};
use reaper::core::rules::{Group, LogLevel, Mode, Rules, When};
use reaper::recording::Recording;
use reaper::replay::{Fate, Script, replay};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use sim::agent::{Host, Traffic};
use sim::kernel::{Birth, Manner, Program, Who};
use sim::rules::{JOB_A, MASTER_A, MASTER_B, SHELL, TOOL, WORKER_A, WORKER_B, alpha, beta, gamma, rules};

#[derive(Serialize, Deserialize)]
struct Line {
    now: Ns,
    #[serde(flatten)]
    input: Input,
}

/// A host on which things are done one after the other, and the agent keeps up.
struct Story(Host);

impl Story {
    fn new(groups: Vec<Group>) -> Self {
        Self(Host::running(rules(groups)))
    }

    fn fork(&mut self, by: Who) -> Who {
        let child = self.0.kernel.fork(by, Birth::Plain).unwrap();
        self.0.pump();
        child
    }

    fn exec(&mut self, who: Who, program: Program) {
        self.0.kernel.exec(who, program);
        self.0.pump();
    }

    fn spawn(&mut self, by: Who, program: Program) -> Who {
        let child = self.fork(by);
        self.exec(child, program);
        child
    }

    fn title(&mut self, who: Who, program: Program) {
        self.0.kernel.retitle(who, program);
    }

    fn setsid(&mut self, who: Who) {
        self.0.kernel.setsid(who);
    }

    fn exit(&mut self, who: Who, status: u32) {
        self.0.kernel.exit(who, status << 8);
        self.0.pump();
    }

    fn kill(&mut self, who: Who) {
        self.0.kernel.exit(who, 9);
        self.0.pump();
    }

    fn wait(&mut self, ms: u64) {
        self.0.wait(ms * MS);
    }

    fn alive(&self, who: Who) -> bool {
        self.0.kernel.is_alive(who)
    }

    fn pid(&self, who: Who) -> u32 {
        self.0.kernel.procs[who].key.tgid
    }

    /// Replays the golden inputs and compares; first ends the script and holds it against the law.
    fn ends(mut self, name: &str) {
        self.0.check();
        let recorded = recorded(&self.0);
        self.0.come_to_rest();
        self.0.check_replay();
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.jsonl"));
        let update = std::env::var_os("UPDATE_EXPECT").is_some();
        if update {
            std::fs::write(&file, recorded).unwrap();
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let rules: Vec<_> = self
            .0
            .traffic
            .iter()
            .filter_map(|t| match t {
                Traffic::In(_, input) => match &**input {
                    Input::Configured { rules, .. } => Some(rules.clone()),
                    _ => None,
                },
                Traffic::Out(_) => None,
            })
            .collect();
        let agent = self.pid(self.0.kernel.agent);
        let log = replayed(agent, &text, rules.iter().cloned());
        expect_file![file.with_extension("log")].assert_eq(&log);
        // A replay uses one configuration from the beginning.
        if let [rules] = &*rules {
            assert_replays(agent, &file, &text, rules);
        }
    }
}

/// `reaper replay` of these inputs by the same rules makes the same records; of the event log that they lead to, the same
/// decisions.
fn assert_replays(agent: u32, file: &Path, text: &str, rules: &Rules) {
    let script = Script::of_recording(Recording::read(file, |_| {}).unwrap(), Some(agent));
    let again = replay(&script, rules, |_, _| {});
    assert_eq!(again.records, records(agent, text, rules));
    assert!(again.fates.values().all(|fate| *fate != Fate::StoppedThere), "{:?}", again.fates);

    let all = Rules::new(rules.groups.clone(), rules.protect.clone(), LogLevel::All);
    let told = records(agent, text, &all);
    let wall = |record: &Record| Timestamp::from_nanosecond(i128::from(record.boot_ns)).unwrap();
    let lines = told.iter().map(|record| (wall(record), as_sent(record.clone()))).collect();
    let again = replay(&Script::of_log(lines, &all), &all, |_, _| {});
    assert_eq!(decisions(&again.records), decisions(&told), "from the event log");
}

/// What the core makes of recorded inputs, every signal as one that would be sent.
fn records(agent: u32, text: &str, rules: &Rules) -> Vec<Record> {
    let (mut core, mut records) = (Core::new(agent), Vec::new());
    for line in text.lines() {
        let Line { now, mut input } = serde_json::from_str(line).unwrap();
        if let Input::Configured { rules: slot, .. } = &mut input {
            *slot = Arc::new(rules.clone());
        }
        core.handle(now, input);
        while let Some(effect) = core.poll_effect() {
            if let Effect::Record(mut record) = effect {
                if let Event::Signal { dry_run, .. } = &mut record.event {
                    *dry_run = true;
                }
                records.push(*record);
            }
        }
    }
    records
}

/// As an agent that enforces writes it.
fn as_sent(mut record: Record) -> Record {
    if let Event::Signal { dry_run, .. } = &mut record.event {
        *dry_run = false;
    }
    record
}

/// Who became what, and what was done about it.
fn decisions(records: &[Record]) -> BTreeSet<String> {
    let decides = |r: &&Record| {
        matches!(
            r.event.kind(),
            "master_found"
                | "master_lost"
                | "heir"
                | "orphaned"
                | "signal"
                | "reaped"
                | "left"
                | "spared"
                | "breaker_open"
        )
    };
    let told = records.iter().filter(decides).map(|record| {
        let value = serde_json::to_value(record).unwrap();
        let fields = ["group", "signal", "step", "because", "stray"].map(|name| value[name].to_string());
        format!("{} {} {}", record.event.kind(), value["proc"]["pid"], fields.join(" "))
    });
    told.collect()
}

fn recorded(host: &Host) -> String {
    let mut text = String::new();
    for traffic in &host.traffic {
        if let Traffic::In(now, input) = traffic {
            let line = Line { now: *now, input: (**input).clone() };
            let _ = writeln!(text, "{}", serde_json::to_string(&line).unwrap());
        }
    }
    text
}

/// The rules are not in the recording: they come from the story, in order.
fn replayed(agent: u32, text: &str, rules: impl Iterator<Item = Arc<Rules>>) -> String {
    let (mut core, mut rules, mut log) = (Core::new(agent), rules, String::new());
    for line in text.lines() {
        let Line { now, mut input } = serde_json::from_str(line).unwrap();
        if let Input::Configured { rules: slot, .. } = &mut input {
            *slot = rules.next().unwrap();
        }
        core.handle(now, input);
        while let Some(effect) = core.poll_effect() {
            match effect {
                Effect::Record(record) => log.push_str(&told(&record)),
                Effect::Fire { key, signal } => {
                    let _ = writeln!(log, "{:>14} => {signal} to {}", "", key.tgid);
                }
                _ => {}
            }
        }
    }
    log
}

/// One record on one line: a process is its pid and what it runs, evidence its sentence.
fn told(record: &Record) -> String {
    let Value::Object(fields) = serde_json::to_value(record).unwrap() else { return String::new() };
    let us = record.boot_ns / 1_000;
    let kind = fields["kind"].as_str().unwrap();
    let mut line = format!("{:>7}.{:06} {kind}", us / 1_000_000, us % 1_000_000);
    for (name, value) in fields.iter().filter(|(name, _)| !matches!(name.as_str(), "kind" | "boot_ns")) {
        let short = match value {
            Value::Object(o) if o.contains_key("start_ns") => {
                let argv: Vec<&str> =
                    o["argv"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
                format!("{} ({})", o["pid"], argv.join(" "))
            }
            Value::Object(o) if o.contains_key("because") => o["because"].to_string(),
            other => other.to_string(),
        };
        let _ = write!(line, "  {name}={short}");
    }
    line.push('\n');
    line
}

#[test]
fn master_killed_with_two_workers() {
    let mut s = Story::new(vec![alpha()]);
    let master = s.spawn(0, MASTER_A);
    let idle = s.spawn(master, WORKER_A);
    let busy = s.spawn(master, WORKER_A);
    s.0.kernel.work(busy, 'R', 700 * MS);
    s.kill(master);
    s.wait(300);
    assert!(!s.alive(idle) && s.alive(busy));
    s.wait(1_000);
    assert!(!s.alive(busy));
    s.ends("master_killed");
}

#[test]
fn master_exits_by_itself() {
    let mut s = Story::new(vec![beta()]);
    let master = s.spawn(0, MASTER_B);
    let worker = s.fork(master);
    s.wait(1_500);
    s.exit(master, 0);
    s.wait(900);
    assert!(s.alive(worker), "it may still make a session of its own");
    s.wait(500);
    assert!(!s.alive(worker));
    s.ends("master_exits");
}

#[test]
fn intermediate_dies() {
    let mut s = Story::new(vec![alpha()]);
    let master = s.spawn(0, MASTER_A);
    let supervisor = s.spawn(master, TOOL);
    let worker = s.spawn(supervisor, WORKER_A);
    let other = s.spawn(master, WORKER_A);
    s.kill(supervisor);
    s.wait(300);
    assert!(!s.alive(worker) && s.alive(other) && s.alive(master));
    s.ends("intermediate_dies");
}

#[test]
fn subreaper_below_the_master_adopts() {
    let mut s = Story::new(vec![alpha()]);
    let master = s.spawn(0, MASTER_A);
    let keeper = s.spawn(master, TOOL);
    s.0.kernel.become_subreaper(keeper);
    let supervisor = s.spawn(keeper, SHELL);
    let worker = s.spawn(supervisor, WORKER_A);
    s.kill(supervisor);
    s.wait(2_000);
    assert!(s.alive(worker));
    s.ends("subreaper_adopts");
}

#[test]
fn deploy_with_overlap() {
    let mut s = Story::new(vec![alpha()]);
    let old = s.spawn(0, MASTER_A);
    let old_worker = s.spawn(old, WORKER_A);
    let new = s.spawn(0, MASTER_A);
    let new_worker = s.spawn(new, WORKER_A);
    s.kill(old);
    s.wait(1_000);
    assert!(!s.alive(old_worker) && s.alive(new_worker) && s.alive(new));
    s.ends("deploy_overlap");
}

#[test]
fn exec_in_place() {
    let mut s = Story::new(vec![beta()]);
    let master = s.spawn(0, MASTER_B);
    let worker = s.spawn(master, WORKER_B);
    s.wait(100);
    s.exec(master, MASTER_B);
    s.wait(2_000);
    assert!(s.alive(worker));
    s.kill(master);
    s.wait(300);
    assert!(!s.alive(worker));
    s.ends("exec_in_place");
}

#[test]
fn heir_by_exec() {
    let mut s = Story::new(vec![beta()]);
    let old = s.spawn(0, MASTER_B);
    let old_worker = s.fork(old);
    s.title(old_worker, WORKER_B);
    let new = s.spawn(old, MASTER_B);
    let new_worker = s.fork(new);
    s.title(new_worker, WORKER_B);
    s.wait(1_200);
    s.exit(old, 0);
    s.wait(1_000);
    assert!(s.alive(new) && s.alive(new_worker) && !s.alive(old_worker));
    s.ends("heir_by_exec");
}

#[test]
fn heir_by_session_with_one_fork() {
    let mut s = Story::new(vec![beta()]);
    let first = s.spawn(0, MASTER_B);
    let daemon = s.fork(first);
    s.exit(first, 0);
    // It takes its time.
    s.wait(600);
    s.setsid(daemon);
    s.wait(500);
    let worker = s.fork(daemon);
    s.wait(2_000);
    assert!(s.alive(daemon) && s.alive(worker));
    s.ends("heir_one_fork");
}

#[test]
fn heir_by_session_with_two_forks() {
    let mut s = Story::new(vec![beta()]);
    let first = s.spawn(0, MASTER_B);
    let middle = s.fork(first);
    s.setsid(middle);
    let daemon = s.fork(middle);
    s.exit(middle, 0);
    s.exit(first, 0);
    let worker = s.fork(daemon);
    s.wait(2_000);
    assert!(s.alive(daemon) && s.alive(worker));
    s.ends("heir_two_forks");
}

#[test]
fn heir_by_session_while_the_first_waits() {
    let mut s = Story::new(vec![beta()]);
    let first = s.spawn(0, MASTER_B);
    let middle = s.fork(first);
    s.setsid(middle);
    let daemon = s.fork(middle);
    s.exit(middle, 0);
    s.wait(3_000);
    assert!(s.alive(daemon));
    s.exit(first, 0);
    s.wait(2_000);
    assert!(s.alive(daemon));
    s.ends("heir_first_waits");
}

#[test]
fn detached_on_purpose() {
    let mut s = Story::new(vec![beta()]);
    let master = s.spawn(0, MASTER_B);
    let worker = s.spawn(master, WORKER_B);
    let helper = s.spawn(worker, TOOL);
    let daemon = s.fork(helper);
    s.setsid(daemon);
    s.exit(helper, 0);
    s.wait(2_000);
    s.kill(master);
    s.wait(2_000);
    assert!(s.alive(daemon) && !s.alive(worker));
    s.ends("detached");
}

#[test]
fn title_is_rewritten_later() {
    let mut s = Story::new(vec![alpha()]);
    let master = s.spawn(0, SHELL);
    s.title(master, MASTER_A);
    let worker = s.fork(master);
    s.title(worker, WORKER_A);
    s.wait(1_500);
    s.kill(master);
    s.wait(300);
    assert!(!s.alive(worker));
    s.ends("title_rewritten");
}

#[test]
fn pid_1_of_a_container_execs_a_new_master() {
    let mut s = Story::new(vec![alpha()]);
    let entry = s.0.kernel.fork(0, Birth::NewNs).unwrap();
    s.exec(entry, SHELL);
    let old = s.spawn(entry, MASTER_A);
    let idle = s.spawn(old, WORKER_A);
    let busy = s.spawn(old, WORKER_A);
    s.0.kernel.work(busy, 'R', 3_000 * MS);
    s.kill(old);
    s.exec(entry, MASTER_A);
    let own = s.spawn(entry, WORKER_A);
    s.wait(4_000);
    assert!(!s.alive(idle) && !s.alive(busy) && s.alive(own));
    s.ends("pid_1_execs");
}

/// The kernel kills everybody in the namespace, a moment later and one after the other: nobody is orphaned meanwhile, and the
/// orphan that there was is left alone.
#[test]
fn pid_1_of_a_container_dies() {
    let mut s = Story::new(vec![alpha()]);
    let entry = s.0.kernel.fork(0, Birth::NewNs).unwrap();
    s.exec(entry, SHELL);
    let old = s.spawn(entry, MASTER_A);
    let orphan = s.spawn(old, WORKER_A);
    s.kill(old);
    let new = s.spawn(entry, MASTER_A);
    s.spawn(new, WORKER_A);
    s.wait(100);
    s.kill(entry);
    s.wait(1_000);
    assert!(!s.alive(orphan) && !s.alive(new) && s.0.fired.is_empty());
    s.ends("pid_1_dies");
}

#[test]
fn pid_1_execs_while_it_is_open_whether_the_worker_leaves() {
    let mut s = Story::new(vec![alpha()]);
    let entry = s.0.kernel.fork(0, Birth::NewNs).unwrap();
    s.exec(entry, SHELL);
    let old = s.spawn(entry, MASTER_A);
    let worker = s.spawn(old, WORKER_A);
    s.exit(old, 0);
    s.wait(100);
    s.exec(entry, MASTER_A);
    let own = s.spawn(entry, WORKER_A);
    s.wait(2_000);
    assert!(!s.alive(worker) && s.alive(own));
    s.ends("pid_1_execs_soon");
}

#[test]
fn strays_wait_until_the_group_is_armed() {
    let mut s = Story(Host::boot(rules(vec![alpha()]), 200));
    let master = s.0.kernel.fork(0, Birth::Plain).unwrap();
    s.0.kernel.exec(master, MASTER_A);
    let stray = s.0.kernel.fork(master, Birth::Plain).unwrap();
    s.0.kernel.exec(stray, WORKER_A);
    // A service that init started by itself: nobody can tell it from a stray, except that it leads a session.
    let service = s.0.kernel.fork(0, Birth::Plain).unwrap();
    s.0.kernel.setsid(service);
    s.0.kernel.exec(service, WORKER_A);
    s.0.kernel.exit(master, 9);
    s.wait(10);
    s.0.attach();
    s.0.finish_dump();
    s.wait(3_000);
    assert!(s.alive(stray), "no master has ever been seen");
    s.spawn(0, MASTER_A);
    s.wait(1_000);
    assert!(!s.alive(stray) && s.alive(service));
    s.ends("strays");
}

#[test]
fn breaker_opens() {
    let mut group = alpha();
    group.stop.max_kills = 2;
    let mut s = Story::new(vec![group]);
    let master = s.spawn(0, MASTER_A);
    let workers: Vec<Who> = (0..4).map(|_| s.spawn(master, WORKER_A)).collect();
    s.kill(master);
    s.wait(3_000);
    assert_eq!(workers.iter().filter(|&&w| s.alive(w)).count(), 2);
    s.0.configure(s.0.rules.clone());
    s.wait(1_000);
    assert_eq!(workers.iter().filter(|&&w| s.alive(w)).count(), 0);
    s.ends("breaker");
}

#[test]
fn deadline_passes() {
    let mut group = alpha();
    group.stop.deadline = 2 * SECOND;
    let mut s = Story::new(vec![group]);
    let master = s.spawn(0, MASTER_A);
    let busy = s.spawn(master, WORKER_A);
    s.0.kernel.work(busy, 'R', 3_600 * SECOND);
    s.0.kernel.procs[busy].manner = Manner::Ignores;
    s.kill(master);
    s.wait(1_900);
    assert!(s.0.fired.is_empty());
    s.wait(3_000);
    assert!(!s.alive(busy));
    s.ends("deadline");
}

#[test]
fn only_when_replaced() {
    let mut group = alpha();
    group.stop.when = When::Replaced;
    let mut s = Story::new(vec![group]);
    let master = s.spawn(0, MASTER_A);
    let worker = s.spawn(master, WORKER_A);
    s.kill(master);
    s.wait(3_000);
    assert!(s.alive(worker));
    s.spawn(0, MASTER_A);
    s.wait(500);
    assert!(!s.alive(worker));
    s.ends("replaced");
}

#[test]
fn nobody_is_replaced_by_another_users_master() {
    let mut group = alpha();
    group.stop.when = When::Replaced;
    let mut s = Story::new(vec![group]);
    let start_master = |s: &mut Story, uid| {
        let master = s.fork(0);
        s.0.kernel.procs[master].uid = uid;
        s.exec(master, MASTER_A);
        master
    };
    let master = start_master(&mut s, 33);
    let worker = s.spawn(master, WORKER_A);
    s.kill(master);
    for (uid, ms, stays) in [(34, 3_000, true), (33, 500, false)] {
        start_master(&mut s, uid);
        s.wait(ms);
        assert_eq!(s.alive(worker), stays);
    }
    s.ends("replaced_by_another_user");
}

#[test]
fn a_long_rest_does_not_pay_for_a_job() {
    let mut group = alpha();
    group.stop.when = When::Replaced;
    let mut s = Story::new(vec![group]);
    let master = s.spawn(0, MASTER_A);
    let worker = s.spawn(master, WORKER_A);
    s.kill(master);
    s.wait(60_300);
    // Between two looks it works, and rests again just when the new master comes.
    s.0.kernel.work(worker, 'R', 500 * MS);
    s.wait(550);
    s.spawn(0, MASTER_A);
    s.wait(100);
    assert!(s.alive(worker));
    s.wait(500);
    assert!(!s.alive(worker));
    s.ends("long_rest");
}

#[test]
fn draining_worker_is_left_to_finish() {
    let mut s = Story::new(vec![alpha()]);
    let master = s.spawn(0, MASTER_A);
    let worker = s.spawn(master, WORKER_A);
    s.0.kernel.procs[worker].manner = Manner::Ignores;
    s.0.kernel.signal(worker, 15, master);
    s.0.pump();
    s.kill(master);
    s.wait(5_000);
    assert!(s.alive(worker) && s.0.fired.is_empty());
    s.exit(worker, 0);
    s.ends("draining");
}

/// Whoever imitates a worker of somebody else's, or a master to go with it, has nobody signalled but processes of its own user and
/// executable.
#[test]
fn strays_are_of_a_user_and_executable_that_the_group_has_had() {
    const ELSEWHERE: Program = Program { comm: "other", argv: "alpha worker" };
    let mut s = Story(Host::boot(rules(vec![alpha()]), 200));
    let strays = [(33, WORKER_A), (0, ELSEWHERE), (0, WORKER_A)].map(|(uid, program)| {
        let stray = s.0.kernel.fork(0, Birth::Plain).unwrap();
        s.0.kernel.exec(stray, program);
        s.0.kernel.procs[stray].uid = uid;
        stray
    });
    s.0.attach();
    s.0.finish_dump();
    // A master that nobody has to do with: it arms the group, and no stray is of its user.
    let imitation = s.fork(0);
    s.0.kernel.procs[imitation].uid = 34;
    s.exec(imitation, MASTER_A);
    s.wait(2_000);
    assert!(strays.iter().all(|&stray| s.alive(stray)));
    s.spawn(0, MASTER_A);
    s.wait(1_500);
    assert!(s.alive(strays[0]) && s.alive(strays[1]) && !s.alive(strays[2]));
    s.ends("strays_alike");
}

#[test]
fn draining_stray_is_left_to_finish() {
    let mut s = Story(Host::boot(rules(vec![alpha()]), 200));
    let stray = s.0.kernel.fork(0, Birth::Plain).unwrap();
    s.0.kernel.exec(stray, WORKER_A);
    s.0.kernel.procs[stray].manner = Manner::Ignores;
    s.0.attach();
    s.0.finish_dump();
    s.wait(500);
    let keeper = s.0.kernel.parent(s.0.kernel.agent).unwrap();
    s.0.kernel.signal(stray, 15, keeper);
    s.0.pump();
    s.spawn(0, MASTER_A);
    s.wait(3_000);
    assert!(s.alive(stray) && s.0.fired.is_empty());
    s.ends("draining_stray");
}

#[test]
fn job_child_is_never_signalled() {
    let mut s = Story::new(vec![alpha()]);
    let master = s.spawn(0, MASTER_A);
    let worker = s.spawn(master, WORKER_A);
    let job = s.spawn(worker, JOB_A);
    s.kill(master);
    s.wait(2_000);
    assert!(s.alive(worker) && s.alive(job));
    s.exit(job, 0);
    s.wait(500);
    assert!(!s.alive(worker));
    s.ends("job_child");
}

#[test]
fn lost_records_are_repaired() {
    let mut s = Story::new(vec![alpha()]);
    let master = s.spawn(0, MASTER_A);
    let worker = s.spawn(master, WORKER_A);
    s.0.stream.lossy = true;
    let unseen = s.spawn(master, WORKER_A);
    s.kill(master);
    s.0.stream.lossy = false;
    let tool = s.spawn(0, TOOL);
    assert!(!s.0.core.is_clear() && s.0.fired.is_empty());
    s.0.finish_dump();
    assert!(s.0.core.is_clear());
    s.wait(1_000);
    assert!(!s.alive(worker) && !s.alive(unseen) && s.alive(tool));
    s.ends("lost_and_resynced");
}

#[test]
fn configuration_is_read_again() {
    let mut s = Story::new(vec![Group { mode: Mode::Observe, ..alpha() }, gamma()]);
    let master = s.spawn(0, MASTER_A);
    let worker = s.spawn(master, WORKER_A);
    s.kill(master);
    s.wait(1_000);
    assert!(s.alive(worker));
    // In another order, and enforcing: the orphan stays one.
    s.0.configure(rules(vec![beta(), gamma(), alpha()]));
    s.wait(1_500);
    assert!(!s.alive(worker));
    s.ends("reload");
}
