//! The shell around the core, on the simulated kernel: carries the stream, answers effects from the truth of the moment,
//! and holds every signal against the oracle before it is delivered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;

use reaper::core::effect::Effect;
use reaper::core::ids::{MS, Ns, ProcKey, SECOND};
use reaper::core::input::{Armed, Fired, Identified, Identity, Input, Parent, Sampled};
use reaper::core::memory::Memory;
use reaper::core::records::{Event, Record};
use reaper::core::rules::{Rules, Signal, When};
use reaper::core::sample::Depth;
use reaper::core::{Core, GroupStatus};

use super::kernel::{Kernel, News, Who};
use super::oracle::{Oracle, Shot};
pub(super) use super::stream::{Dump, Entry};
pub use super::stream::{Stream, Traffic};

/// What a look at /proc takes.
const LOOK: Ns = 20_000;

#[derive(Debug)]
pub struct Host {
    pub kernel: Kernel,
    pub core: Core,
    pub oracle: Oracle,
    pub rules: Rules,
    pub stream: Stream,
    /// Nobody can be held for the last look.
    pub cannot_hold: bool,
    /// How often somebody was aimed at.
    pub aims: usize,
    pub log: Vec<Record>,
    pub traffic: Vec<Traffic>,
    pub story: Vec<String>,
    pub fired: Vec<(Ns, ProcKey, Signal)>,
    pub ever_lossy: bool,
    pub(super) entries: VecDeque<Entry>,
    pub(super) lost: u64,
    pub(super) dump: Option<Dump>,
    attached: bool,
    configured: bool,
    pub(super) announced: Option<(u32, String, String)>,
    open_orphans: BTreeMap<(u32, Ns), String>,
    pub(super) held: BTreeSet<ProcKey>,
    pub(super) watched: BTreeSet<ProcKey>,
    /// Whom the core has called a master: it may have looked in another order than the oracle.
    called_masters: BTreeSet<ProcKey>,
    looks: Vec<(Ns, ProcKey, Identity, bool)>,
    /// No agent runs.
    pub away: bool,
    /// The agent dies with its next signal, before it can keep that it has sent it.
    pub dies_at_signal: bool,
    /// What an agent has kept: groups that are armed, breakers that are open, and the rest.
    pub(super) kept: (Vec<Armed>, Vec<String>, Memory),
    /// Signals that no agent has read yet.
    pub(super) unread: Vec<Input>,
}

impl Host {
    /// A host on which the agent is not yet attached.
    pub fn boot(rules: Rules, pid_max: u32) -> Self {
        let kernel = Kernel::boot(pid_max);
        let core = Core::new(kernel.procs[kernel.agent].key.tgid);
        Self {
            kernel,
            core,
            oracle: Oracle::default(),
            rules,
            stream: Stream::default(),
            cannot_hold: false,
            aims: 0,
            log: Vec::new(),
            traffic: Vec::new(),
            story: Vec::new(),
            fired: Vec::new(),
            ever_lossy: false,
            entries: VecDeque::new(),
            lost: 0,
            dump: None,
            attached: false,
            configured: false,
            announced: None,
            open_orphans: BTreeMap::new(),
            held: BTreeSet::new(),
            watched: BTreeSet::new(),
            called_masters: BTreeSet::new(),
            looks: Vec::new(),
            away: false,
            dies_at_signal: false,
            kept: Default::default(),
            unread: Vec::new(),
        }
    }

    /// A host with an agent that has seen nothing but init.
    pub fn running(rules: Rules) -> Self {
        let mut host = Self::boot(rules, 200);
        host.attach();
        host.finish_dump();
        host
    }

    /// The programs are attached and the dump begins; [`Self::dump_some`] goes on with it.
    pub fn attach(&mut self) {
        self.kernel.take_news();
        self.kernel.keep_lineages();
        self.attached = true;
        self.tell("the agent attaches");
        self.configure(self.rules.clone());
        self.begin_dump();
    }

    pub fn configure(&mut self, rules: Rules) {
        let now = self.kernel.now;
        self.rules = rules.clone();
        self.oracle.configure(now, rules.clone());
        self.hand(Input::Configured {
            at: now,
            rules: Arc::new(rules),
            armed: Vec::new(),
            broken: Vec::new(),
        });
        self.configured = true;
        self.pump();
    }

    pub fn tell(&mut self, what: impl std::fmt::Display) {
        let ms = self.kernel.now / MS;
        self.story.push(format!("{ms:>7} ms  {what}"));
    }

    /// Lets time pass: for the world, and for the agent as far as it has asked to be woken.
    pub fn wait(&mut self, time: Ns) {
        let end = self.kernel.now + time;
        self.pump();
        let mut stuck = (0, 0);
        loop {
            let awake = self.dump.is_none();
            let deadline = self.core.next_deadline().filter(|_| awake);
            let Some(next) = deadline.into_iter().chain(self.kernel.next_due()).min().filter(|&n| n <= end)
            else {
                break;
            };
            self.kernel.advance_to(next.max(self.kernel.now));
            self.pump();
            if awake && self.core.next_deadline().is_some_and(|d| d <= self.kernel.now) {
                self.hand(Input::Tick);
                self.pump();
            }
            stuck = if stuck.0 + MS / 2 > self.kernel.now {
                (stuck.0, stuck.1 + 1)
            } else {
                (self.kernel.now, 0)
            };
            if stuck.1 > 500 {
                self.fail("the agent is woken again and again and time does not pass");
            }
        }
        self.kernel.advance_to(end.max(self.kernel.now));
        self.pump();
    }

    /// Takes up what has happened and does what the core wants, until neither is left.
    pub fn pump(&mut self) {
        loop {
            self.collect();
            if self.dump.is_some() || self.away {
                return;
            }
            if self.serve() {
                continue;
            }
            if self.dump.is_some() || self.stream.late {
                return;
            }
            let Some(entry) = self.entries.pop_front() else { return };
            self.deliver(entry);
        }
    }

    /// Writes what has happened into the ring buffer.
    pub fn collect(&mut self) {
        for News { mut input, adopter } in self.kernel.take_news() {
            if !self.attached {
                continue;
            }
            let adopter = adopter.map(|a| self.kernel.procs[a].key);
            if let (Input::Exit(exit), true) = (&mut input, self.stream.deep)
                && matches!(exit.adopter, Parent::Known(_))
            {
                exit.adopter = Parent::Unknown;
            }
            if self.stream.lossy {
                self.lost += 1;
                self.ever_lossy = true;
                self.entries.push_back(Entry::Dropped { input, adopter });
                continue;
            }
            let at = self.kernel.now;
            if self.lost > 0 {
                let input = Input::Lost { at, count: std::mem::take(&mut self.lost) };
                self.entries.push_back(Entry::Written { input, adopter: None, replay: false });
            }
            let twice = self.stream.double && matches!(input, Input::Exit(_));
            self.entries.push_back(Entry::Written { input: input.clone(), adopter, replay: false });
            if twice {
                self.entries.push_back(Entry::Written { input, adopter, replay: true });
            }
        }
    }

    fn deliver(&mut self, entry: Entry) {
        self.tell_looks();
        let clear = self.core.is_clear();
        match entry {
            Entry::Dropped { input, adopter } => self.enlighten(&input, adopter, true),
            Entry::Written { input, adopter, replay } => {
                if !replay {
                    self.enlighten(&input, adopter, !clear);
                }
                if matches!(input, Input::Lost { .. }) {
                    self.oracle.blind = true;
                    self.oracle.blur();
                }
                self.hand(input);
            }
        }
    }

    /// Tells the oracle.
    pub(super) fn enlighten(&mut self, input: &Input, adopter: Option<ProcKey>, blurred: bool) {
        match input {
            Input::Fork(fork) => self.oracle.fork(fork, blurred),
            Input::Exec(exec) => self.oracle.exec(exec, blurred),
            Input::Exit(exit) => {
                self.oracle.exit(exit, adopter, exit.adopter == Parent::NamespaceDies, blurred);
            }
            Input::SignalSeen { target, signal, sender, .. } => {
                let own = *sender == self.kernel.procs[self.kernel.agent].key.tgid;
                if !own && !blurred {
                    self.oracle.signal_seen(*target, *signal);
                }
            }
            _ => {}
        }
    }

    pub(super) fn hand(&mut self, input: Input) {
        let now = self.kernel.now;
        if std::env::var_os("SIM_TRACE").is_some() && !matches!(input, Input::Configured { .. }) {
            self.tell(format!("  in: {}", serde_json::to_string(&input).unwrap_or_default()));
        }
        self.traffic.push(Traffic::In(now, Box::new(input.clone())));
        self.core.handle(now, input);
    }

    /// Does one thing that the core wants. False if there is none.
    fn serve(&mut self) -> bool {
        let effect = self.core.poll_effect();
        self.traffic.push(Traffic::Out(effect.clone().map(Box::new)));
        if !matches!(effect, Some(Effect::Identify(_))) {
            self.tell_looks();
        }
        let Some(effect) = effect else { return false };
        match effect {
            Effect::Record(record) => self.record(*record),
            Effect::Identify(key) => self.identify(key),
            Effect::Watch { key, .. } => {
                if !self.watched.insert(key) {
                    self.fail("the core watches somebody twice");
                }
            }
            Effect::Unwatch(key) => {
                if !self.watched.remove(&key) {
                    self.fail("the core unwatches somebody who is not watched");
                }
            }
            Effect::Sample { key, depth } => {
                if depth == Depth::Source && !self.watched.contains(&key) {
                    self.fail("the core looks closely at somebody who is not watched");
                }
                self.pass(LOOK);
                let outcome = self.kernel.sample(key, depth);
                self.hand(Input::Sampled { key, outcome });
            }
            Effect::Aim { key, depth } => self.aim(key, depth),
            Effect::Fire { key, signal } => self.fire(key, signal),
            Effect::Release(key) => {
                if !self.held.remove(&key) {
                    self.fail("the core lets go of somebody who is not held");
                }
            }
            Effect::Resync => self.begin_dump(),
            Effect::Persist => {
                if !self.held.is_empty() {
                    self.fail("the core writes a file while it holds somebody");
                }
                let status = self.core.status();
                let named = |open: fn(&GroupStatus) -> bool| {
                    status.iter().filter(|g| open(g)).map(|g| g.name.clone()).collect::<Vec<_>>()
                };
                self.kept = (self.core.armed(), named(|g| g.breaker_open), self.core.memory());
            }
            Effect::PersistSignal(signal) => self.kept.2.add(*signal),
        }
        true
    }

    /// Looks that follow each other count as one, elders first: when everybody is looked at, nobody is judged before.
    pub(super) fn tell_looks(&mut self) {
        let mut looks = std::mem::take(&mut self.looks);
        looks.sort_by_key(|(_, key, ..)| key.start_ns);
        for (at, key, who, clear) in looks {
            self.oracle.look(at, key, &who, clear, self.called_masters.contains(&key));
        }
    }

    fn pass(&mut self, time: Ns) {
        self.kernel.advance_to(self.kernel.now + time);
        self.collect();
    }

    fn identify(&mut self, key: ProcKey) {
        self.pass(LOOK);
        let outcome = self.kernel.identify(key);
        if let Identified::Alive(who) = &outcome {
            self.looks.push((self.kernel.now, key, who.clone(), self.core.is_clear()));
        }
        self.hand(Input::Identified { key, outcome });
    }

    fn aim(&mut self, key: ProcKey, depth: Depth) {
        self.held.insert(key);
        self.aims += 1;
        self.pass(LOOK);
        let mut outcome = self.kernel.sample(key, depth);
        if self.cannot_hold {
            outcome = Sampled::Unreadable("it could not be stopped".to_owned());
        }
        if let Sampled::Seen(sample) = &mut outcome {
            sample.frozen = true;
        }
        self.collect();
        while let Some(entry) = self.entries.pop_front() {
            self.deliver(entry);
        }
        self.hand(Input::Aimed { key, outcome });
    }

    fn fire(&mut self, key: ProcKey, signal: Signal) {
        if !self.held.remove(&key) {
            self.fail("a signal to somebody who is not held");
        }
        let who = self.kernel.find(key).unwrap();
        let Some((pid, name, group)) = self.announced.take() else {
            self.fail("a signal without a record before it");
        };
        let Identified::Alive(mut identity) = self.kernel.identify(key) else {
            self.fail("a signal to somebody who is dead");
        };
        // Also where /proc cannot tell any more.
        identity.argv.clone_from(&self.kernel.procs[who].argv);
        let now = self.kernel.now;
        self.tell(format!("agent: {signal} to {pid}"));
        if pid != key.tgid || name != signal.to_string() {
            self.fail("the record before a signal is of another one");
        }
        let mut up = Some(self.kernel.agent);
        let mut of_the_agent = false;
        while let Some(above) = up {
            of_the_agent |= above == who;
            up = self.kernel.parent(above);
        }
        let alive = self.kernel.is_alive(who);
        let shot = Shot {
            at: now,
            key,
            signal,
            group: &group,
            who: identity,
            idle_since: self.kernel.is_idle(who).then(|| self.kernel.idle_since(who)),
            unnoticed_loss: self.lost > 0,
            alive,
            // It was identified above.
            dying: !alive,
            of_the_agent,
            called_masters: &self.called_masters,
        };
        if let Err(why) = self.oracle.judge(&shot) {
            self.fail(&format!("{signal} to {} for group {group} is forbidden: {why}", key.tgid));
        }
        self.fired.push((now, key, signal));
        self.kernel.signal(who, signal.0, self.kernel.agent);
        self.collect();
        if self.dies_at_signal {
            return self.crash();
        }
        self.hand(Input::Fired { key, at: self.kernel.now, outcome: Fired::Sent });
        if !self.core.must_persist() {
            self.fail("something else comes before keeping that a signal was sent");
        }
    }

    fn record(&mut self, record: Record) {
        match &record.event {
            Event::Signal { group, proc, signal, dry_run: false, verified: true, .. } => {
                self.announced = Some((proc.pid, signal.clone(), group.clone()));
            }
            Event::Orphaned { proc, group, .. } => {
                self.tell(format!("agent: {} is an orphan of {group}", proc.pid));
                self.open_orphans.insert((proc.pid, proc.start_ns), group.clone());
            }
            Event::Reaped { proc, .. } | Event::Left { proc, .. }
                if self.open_orphans.remove(&(proc.pid, proc.start_ns)).is_none() =>
            {
                self.fail(&format!("the end of {} is told, who is no orphan", proc.pid));
            }
            Event::MasterFound { proc, group } | Event::Heir { proc, group, .. } => {
                self.tell(format!("agent: {} is a master of {group}", proc.pid));
                self.open_orphans.remove(&(proc.pid, proc.start_ns));
                let matcher = self.rules.groups.iter().find(|g| g.name == *group).map(|g| &g.master);
                if !matcher.is_some_and(|m| m.cmdline.as_ref().unwrap().is_match(&proc.argv.line())) {
                    self.fail(&format!(
                        "{} is taken for a master of {group} and does not look like one",
                        proc.pid
                    ));
                }
                self.called_masters.insert(ProcKey { tgid: proc.pid, start_ns: proc.start_ns });
            }
            Event::Spared { proc, because, .. } => {
                self.tell(format!("agent: {} spared, {because:?}", proc.pid));
            }
            Event::BreakerOpen { group, .. } => self.oracle.breaker_opened(&group.clone()),
            _ => {}
        }
        self.log.push(record);
    }

    pub(super) fn begin_dump(&mut self) {
        if self.dump.is_none() {
            self.dump = Some(Dump { at: self.kernel.now, rows: Vec::new(), next_pid: 0 });
        }
    }

    /// The iterator passes so many pids.
    pub fn dump_some(&mut self, pids: u32) {
        self.collect();
        let Some(mut dump) = self.dump.take() else { return };
        let end = dump.next_pid.saturating_add(pids);
        let mut passed: Vec<Who> = self
            .kernel
            .alive()
            .filter(|&w| (dump.next_pid..end).contains(&self.kernel.procs[w].key.tgid))
            .collect();
        passed.sort_unstable_by_key(|&w| self.kernel.procs[w].key.tgid);
        dump.rows.extend(passed.into_iter().map(|w| self.kernel.row(w)));
        dump.next_pid = end;
        self.dump = Some(dump);
        if end > 4_000 {
            self.end_dump();
        }
    }

    pub fn finish_dump(&mut self) {
        if self.dump.is_some() {
            self.dump_some(u32::MAX / 2);
        }
    }

    pub fn is_dumping(&self) -> bool {
        self.dump.is_some()
    }

    fn end_dump(&mut self) {
        let Some(dump) = self.dump.take() else { return };
        self.collect();
        let parents: Vec<_> = dump
            .rows
            .iter()
            .map(|row| match row.parent {
                Parent::Known(parent) => (row.key, Some(parent)),
                _ => (row.key, None),
            })
            .collect();
        for (row, (_, parent)) in dump.rows.iter().zip(&parents) {
            self.oracle.row(row, *parent);
        }
        self.oracle.row_parents(&parents);
        let took_ns = self.kernel.now - dump.at;
        self.hand(Input::Snapshot { at: dump.at, took_ns, tasks: dump.rows });
        for signal in std::mem::take(&mut self.unread) {
            self.hand(signal);
        }
        while let Some(entry) = self.entries.pop_front() {
            self.deliver(entry);
        }
        self.hand(Input::Merged { at: self.kernel.now });
        if self.core.is_clear() {
            self.oracle.blind = false;
            self.tell("the tree is built");
        }
        self.pump();
    }

    /// What must hold after everything that happens.
    pub fn check(&self) {
        self.check_shape();
        if self.entries.is_empty() && self.dump.is_none() && self.core.is_clear() && self.lost == 0 {
            self.check_tree();
        }
    }

    fn check_shape(&self) {
        let tree = self.core.tree();
        let mut children = 0;
        for id in tree.live() {
            if tree.find(tree[id].key()) != Some(id) {
                self.fail(&format!("{} is not found by its pid", tree[id].key()));
            }
            for child in tree.children(id) {
                children += 1;
                if tree.parent(child) != Some(id) || !tree[child].is_live() {
                    self.fail(&format!("{} has two parents", tree[child].key()));
                }
            }
        }
        let with_parent = tree.live().filter(|&id| tree.parent(id).is_some()).count();
        if children != with_parent {
            self.fail("somebody has a parent that does not know it");
        }
        if !self.ever_lossy && !self.core.is_clear() && tree.tombstone_count() > 0 && self.log.is_empty() {
            self.fail("dead processes before anybody was a master");
        }
    }

    fn check_tree(&self) {
        let (tree, kernel) = (self.core.tree(), &self.kernel);
        for who in kernel.alive() {
            let (key, comm) = (kernel.procs[who].key, &kernel.procs[who].comm);
            let Some(id) = tree.find(key) else { self.fail(&format!("{key} is alive and not in the tree")) };
            if tree.is_unsettled(id) {
                continue;
            }
            let parent = tree.parent(id).map(|p| tree[p].key());
            let truth = kernel.parent(who).map(|p| kernel.procs[p].key);
            if parent != truth {
                self.fail(&format!("the parent of {key} is {truth:?}, the tree says {parent:?}"));
            }
            if tree[id].comm() != comm {
                self.fail(&format!("{key} is called {comm}, the tree says {}", tree[id].comm()));
            }
        }
        if tree.live_count() != kernel.alive().count() {
            self.fail("the tree has processes that are dead");
        }
        let dead = self.oracle.dead_ancestors();
        if !self.ever_lossy && tree.tombstone_count() > dead {
            let kept: Vec<_> =
                tree.all().filter(|&id| !tree[id].is_live()).map(|id| tree[id].key()).collect();
            self.fail(&format!("{dead} dead processes are needed, kept are {kept:?}"));
        }
    }

    /// Nothing happens any more; what has to be done is done within bounded time, and then the agent sleeps.
    pub fn come_to_rest(&mut self) {
        self.tell("nothing happens any more");
        self.restart();
        self.dies_at_signal = false;
        let double = self.stream.double;
        self.stream = Stream { double, ..Stream::default() };
        self.finish_dump();
        // One more record, so that a loss is noticed.
        self.kernel.pid_max += 8;
        let keeper = self.kernel.parent(self.kernel.agent).unwrap();
        if let Some(last) = self.kernel.fork(keeper, super::kernel::Birth::Plain) {
            self.kernel.exit(last, 0);
        }
        self.pump();
        while self.is_dumping() {
            self.finish_dump();
        }
        for _ in 0..40 {
            self.wait(SECOND);
            while self.is_dumping() {
                self.finish_dump();
            }
        }
        self.check();
        self.check_stopped();
        let settled = self.core.orphans().next().is_none();
        if let Some(deadline) = self.core.next_deadline().filter(|_| settled) {
            self.fail(&format!(
                "there is nothing to wait for, and the agent wants to be woken at {deadline}"
            ));
        }
        for (key, group) in &self.open_orphans {
            let key = ProcKey { tgid: key.0, start_ns: key.1 };
            if !self.kernel.find(key).is_some_and(|w| self.kernel.is_alive(w)) {
                self.fail(&format!("nothing was said of the end of {key}, an orphan of {group}"));
            }
        }
        if self.entries.is_empty() && !self.core.is_clear() {
            self.fail("the tree was never rebuilt");
        }
        if !self.held.is_empty() {
            self.fail("the core never let go of somebody");
        }
        if let Some(&key) = self.watched.iter().find(|&&key| !self.core.orphans().any(|o| o.key == key)) {
            self.fail(&format!("{key} is watched and is no orphan"));
        }
    }

    fn check_stopped(&self) {
        for (key, g) in self.oracle.must_stop() {
            let group = &self.rules.groups[g];
            let Some(who) = self.kernel.find(key).filter(|&w| self.kernel.is_alive(w)) else { continue };
            let proc = &self.kernel.procs[who];
            let cmdline = proc.argv.line();
            let overdue = group.stop.deadline > 0;
            let spared = self.called_masters.contains(&key)
                || self.rules.protect.iter().any(|p| p.is_match(&*proc.comm))
                || proc.kernel_thread
                || key.tgid == 1
                || group.stop.job_children.iter().any(|r| r.is_match(&cmdline))
                || self.oracle.is_broken(g)
                || (self.oracle.was_asked(key) && !overdue)
                || (!self.kernel.is_idle(who) && !overdue)
                || (group.stop.when == When::Replaced && self.oracle.masters(g).is_empty())
                || self.is_above_agent(who);
            let steps = group.stop.signals.len() + usize::from(group.stop.kill);
            if !spared && self.oracle.signals_sent(key) < steps {
                self.fail(&format!("{key} is an idle orphan of {} and was not stopped", group.name));
            }
        }
    }

    fn is_above_agent(&self, who: Who) -> bool {
        let mut up = Some(self.kernel.agent);
        while let Some(above) = up {
            if above == who {
                return true;
            }
            up = self.kernel.parent(above);
        }
        false
    }

    pub fn fail(&self, why: &str) -> ! {
        let mut text = format!("{why}\n\nwhat happened:\n");
        for line in &self.story {
            let _ = writeln!(text, "  {line}");
        }
        let _ = writeln!(text, "\nalive now (pid, parent, session, what it runs):");
        for who in self.kernel.alive() {
            let p = &self.kernel.procs[who];
            let parent = self.kernel.parent(who).map_or(0, |p| self.kernel.procs[p].key.tgid);
            let _ = writeln!(
                text,
                "  {:>4} {parent:>4} {:>4}  {:<20} {}",
                p.key.tgid,
                p.session,
                p.argv.line(),
                self.oracle.describe(p.key)
            );
        }
        panic!("{text}");
    }
}
