//! A shell around the core that makes everything up, and holds every effect against what it has made up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use reaper::config::Config;
use reaper::core::Core;
use reaper::core::effect::Effect;
use reaper::core::ids::{MS, Ns, ProcKey};
use reaper::core::input::{Comm, Fired, Identified, Input, Sampled};
use reaper::core::records::Event;
use reaper::core::rules::{Mode, Rules};

use super::lies;

/// The agent's own pid.
const AGENT: u32 = 3;

/// More effects than this no input has among a dozen processes.
const MOST_EFFECTS: usize = 2_000;

/// One that acts on named workers, one that acts on everybody, one that only looks.
const RULES: &str = r#"
[agent]
log_level = "all"
protect = ["guarded"]

[[group]]
name = "named"
mode = "enforce"
master.cmdline = "^master"
worker.cmdline = "^worker"
idle.proof = "source"
idle.queue = ["tcp/6379"]
idle.sleep = "3s"
idle.children = ["helper"]
stop.signals = ["TERM", "INT"]
stop.grace = "1s"
stop.job_children = ["job$"]
stop.max_kills = 3

[[group]]
name = "everybody"
mode = "enforce"
master.comm = "boss"
idle.proof = "asleep"
idle.quiet = "0s"
stop.deadline = "5s"
stop.when = "replaced"

[[group]]
name = "observed"
master.cmdline = "^master"
"#;

pub(super) struct Host {
    now: Ns,
    core: Core,
    rules: Rules,
    /// Who was named to the core as a kernel thread.
    kernel_threads: BTreeSet<ProcKey>,
    /// What was last told of its thread name.
    comms: BTreeMap<ProcKey, Comm>,
    /// Orphans by the records.
    orphans: BTreeSet<(u32, Ns, String)>,
    /// Aimed at, and what was seen then: nothing before it was answered.
    held: BTreeMap<ProcKey, Option<Sampled>>,
    watched: BTreeSet<ProcKey>,
    /// To be answered.
    asked: Vec<Effect>,
    /// The last `signal` record, until its signal.
    announced: Option<(u32, Ns, String, String)>,
}

impl Host {
    pub(super) fn new() -> Self {
        let rules = Config::parse("rules", RULES).expect("rules").rules;
        let mut host = Self {
            now: 10_000 * MS,
            core: Core::new(AGENT),
            rules,
            kernel_threads: BTreeSet::new(),
            comms: BTreeMap::new(),
            orphans: BTreeSet::new(),
            held: BTreeMap::new(),
            watched: BTreeSet::new(),
            asked: Vec::new(),
            announced: None,
        };
        host.configure();
        host
    }

    /// One thing that happens.
    pub(super) fn step(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        self.now += Ns::from(*u.choose(&[0u32, 1, 1_000, 20_000])?) * 1_000;
        match u.int_in_range(0..=15)? {
            0..=5 => self.happens(u)?,
            6..=11 if !self.asked.is_empty() => {
                let n = u.choose_index(self.asked.len())?;
                let asked = self.asked.swap_remove(n);
                self.answer(u, asked)?;
            }
            12 => self.configure(),
            13 => {
                self.now += u.int_in_range(0..=6_000)? * MS;
                self.hand(Input::Tick);
            }
            _ => {
                // As the agent does: it sleeps until it is needed.
                let Some(deadline) = self.core.next_deadline() else { return Ok(()) };
                self.now = self.now.max(deadline);
                self.hand(Input::Tick);
            }
        }
        Ok(())
    }

    fn configure(&mut self) {
        let (at, rules) = (self.now, Arc::new(self.rules.clone()));
        self.hand(Input::Configured { at, rules, armed: Vec::new(), broken: Vec::new() });
    }

    fn happens(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let input = lies::input(u, self.now)?;
        match &input {
            Input::Fork(fork) => self.learn(fork.child, &fork.comm, fork.kernel_thread),
            Input::Exec(exec) => self.learn(exec.key, &exec.comm, false),
            Input::Snapshot { tasks, .. } => {
                for task in tasks {
                    self.learn(task.key, &task.comm, task.kernel_thread);
                }
            }
            _ => {}
        }
        self.hand(input);
        Ok(())
    }

    /// The core believes the first that it hears of whether somebody is a kernel thread.
    fn learn(&mut self, key: ProcKey, comm: &Comm, kernel_thread: bool) {
        let known = self.comms.insert(key, comm.clone()).is_some();
        if kernel_thread && !known {
            self.kernel_threads.insert(key);
        } else if !kernel_thread {
            self.kernel_threads.remove(&key);
        }
    }

    fn answer(&mut self, u: &mut Unstructured<'_>, asked: Effect) -> Result<()> {
        match asked {
            Effect::Identify(key) => {
                let outcome = lies::identified(u, self.now)?;
                if let Identified::Alive(who) = &outcome {
                    self.comms.insert(key, who.comm.clone());
                }
                self.hand(Input::Identified { key, outcome });
            }
            Effect::Sample { key, .. } => {
                let outcome = lies::sampled(u, self.now, false)?;
                self.hand(Input::Sampled { key, outcome });
            }
            Effect::Aim { key, .. } => {
                let outcome = lies::sampled(u, self.now, true)?;
                self.held.insert(key, Some(outcome.clone()));
                self.hand(Input::Aimed { key, outcome });
            }
            Effect::Fire { key, .. } => {
                let outcome = match u.int_in_range(0..=9)? {
                    0 => Fired::Gone,
                    1 => Fired::Failed("no".to_owned()),
                    _ => Fired::Sent,
                };
                self.hand(Input::Fired { key, at: self.now, outcome });
            }
            other => panic!("{other:?} has no answer"),
        }
        Ok(())
    }

    fn hand(&mut self, input: Input) {
        self.core.handle(self.now, input);
        let mut effects = 0;
        while let Some(effect) = self.core.poll_effect() {
            effects += 1;
            assert!(effects < MOST_EFFECTS, "one input has effects without end");
            self.take(effect);
        }
        assert!(self.core.tree().live_count() <= 64, "the tree has more than there are");
    }

    fn take(&mut self, effect: Effect) {
        match effect {
            Effect::Record(record) => self.record(record.event),
            Effect::Watch { key, .. } => assert!(self.watched.insert(key), "{key} is watched twice"),
            Effect::Unwatch(key) => assert!(self.watched.remove(&key), "{key} was not watched"),
            Effect::Aim { key, .. } => {
                assert!(self.held.insert(key, None).is_none(), "{key} is held twice");
                self.asked.push(effect);
            }
            Effect::Release(key) => assert!(self.held.remove(&key).is_some(), "{key} was not held"),
            Effect::Fire { key, ref signal } => {
                self.judge(key, &signal.to_string());
                self.asked.push(effect);
            }
            Effect::Identify(_) | Effect::Sample { .. } => self.asked.push(effect),
            Effect::Resync | Effect::Persist | Effect::PersistSignal(_) => {}
        }
    }

    fn record(&mut self, event: Event) {
        match event {
            Event::Orphaned { group, proc, .. } => {
                self.orphans.insert((proc.pid, proc.start_ns, group));
            }
            Event::Signal { group, proc, signal, dry_run: false, .. } => {
                self.announced = Some((proc.pid, proc.start_ns, group, signal));
            }
            _ => {}
        }
    }

    /// Design, section 3, as far as it does not depend on what is true.
    fn judge(&mut self, key: ProcKey, signal: &str) {
        let (pid, start_ns, group, told) = self.announced.take().expect("a record before the signal");
        assert_eq!((pid, start_ns, told.as_str()), (key.tgid, key.start_ns, signal), "another one's record");
        let seen =
            self.held.remove(&key).expect("a signal to somebody who is not held").expect("no last look");
        assert!(self.core.is_clear(), "a signal while events are lost");
        assert!(key.tgid != 1, "a signal to pid 1");
        assert!(!self.kernel_threads.contains(&key), "a signal to a kernel thread");
        let tree = self.core.tree();
        let id = tree.find(key).expect("a signal to somebody who is dead");
        let agent = tree.find_pid(AGENT);
        let of_the_agent = agent.is_some_and(|a| a == id || tree.ancestors(a).any(|up| up == id));
        assert!(!of_the_agent, "a signal to the agent or above it");
        let comm = tree[id].comm();
        assert!(!self.rules.protect.iter().any(|p| p.is_match(&**comm)), "a signal to a protected process");
        assert_eq!(self.comms.get(&key), Some(comm), "the core knows another name");
        let rules = self.rules.groups.iter().find(|g| g.name == group).expect("a group");
        assert!(rules.mode == Mode::Enforce, "a signal of a group that observes");
        assert!(
            self.orphans.contains(&(pid, start_ns, group.clone())),
            "a signal to somebody who is no orphan"
        );
        assert!(self.core.orphans().any(|o| o.key == key), "a signal to somebody who is none any more");
        match seen {
            Sampled::Seen(sample) => {
                let still = |state| matches!(state, 'S' | 't' | 'I' | 'Z' | 'X');
                let idle = sample.threads.iter().all(|t| still(t.state));
                assert!(idle || rules.stop.deadline > 0, "a signal to somebody who runs");
            }
            other => assert!(rules.stop.deadline > 0, "a signal to somebody who was not seen: {other:?}"),
        }
    }
}
