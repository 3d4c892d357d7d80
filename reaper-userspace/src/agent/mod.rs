//! The agent: one loop, one owner of all state.
//!
//! Events come out of the ring buffer, become inputs of the core, and the core's effects are carried out here, their
//! results going back in as inputs. Nothing in this file decides anything. There is no timer of its own: the loop
//! sleeps until the kernel wakes it, the core's next deadline comes, or a signal asks for something.

mod about;
mod answers;
pub mod client;
mod grip;
mod heap;
mod intake;
mod journal;
mod kept;
mod lookout;
pub mod peers;
pub mod preflight;
pub mod protocol;
mod service;
mod settings;
pub mod snapshot;
pub mod socket;
pub mod state;
mod waiting;

use std::future::Future;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::signal::unix::Signal as UnixSignal;

use crate::clock;
use crate::config::{AgentSettings, Config};
use crate::confine::confine;
use crate::core::Core;
use crate::core::effect::Effect;
use crate::core::errors::Limit;
use crate::core::ids::{MS, Ns, ProcKey};
use crate::core::input::{Armed, Fired, Input, Sampled};
use crate::core::records::{Event, Record};
use crate::core::rules::{Group, Signal};
use crate::core::sample::Depth;
use crate::event_log::{EventLog, LogTarget};
use crate::freeze::FireError;
use crate::idle::Sampler;
use crate::kernel::{Events, Probes};
use crate::metrics::{self, Metrics};
use crate::procfs;
use crate::recording::Recorder;
use crate::signal::SignalError;
use about::About;
use grip::Grip;
use intake::Intake;
use lookout::Lookout;
use peers::Peers;
use service::Service;
pub use settings::{DEFAULT_CONFIG, Settings};
use socket::Socket;
use state::{State, StateDir};
use waiting::{Asked, hang_up, metrics_asked, reader_gone, sleep_until, watch_stdout};

/// After so many effects the ring buffer is emptied before the next: a thousand samples take longer than a burst of
/// forks takes to fill it.
const EFFECTS_BEFORE_DRAIN: usize = 64;

/// So long the loop carries out effects before it looks up: a storm of processes can want more than can be done, and a
/// SIGTERM must be heard all the same.
const TURN: Ns = 50 * MS;

/// The same before the agent says that it is ready: on most hosts everybody has been looked at by then; on a large one that goes on
/// meanwhile.
const FIRST_TURN: Ns = 20 * MS;

/// So often the loop asks how many events the kernel has left out. Whoever is to be signalled is asked about it each time.
const ASK_MISSED: Ns = 100 * MS;

/// A running agent.
pub struct Agent {
    settings: Settings,
    core: Intake,
    probes: Probes,
    lookout: Lookout,
    events: Events,
    log: EventLog,
    socket: Socket,
    service: Service,
    /// What Prometheus reads, and who asks for it; `None` if nobody is to.
    metrics: Option<(metrics::Server, Metrics)>,
    state_dir: StateDir,
    state: State,
    about: About,
    /// A pattern asks for executables or cgroups.
    needs_place: bool,
    /// Who is aimed at.
    grip: Option<Grip>,
    sampler: Sampler,
    /// Events that the kernel did not hand to the programs, as far as they are made up for.
    missed: u64,
    /// When they are asked for again.
    ask_missed_at: Ns,
    /// When a dump that failed is tried again.
    resync_at: Option<Ns>,
    /// Why the log could not be written last time, as far as that was said.
    log_failure: Option<String>,
    /// How many of its own errors it has told: those of the core are counted there.
    errors: Limit,
    logs_to_stdout: bool,
    /// The `[agent]` it was started with.
    running: AgentSettings,
    /// Whoever read the log from stdout has gone: that is the end.
    reader_gone: bool,
}

impl Agent {
    /// Checks the host, loads and attaches the programs, dumps all processes. When it returns, everybody alive is in the tree; that
    /// everybody has been looked at may take longer.
    ///
    /// # Errors
    /// The host is not what the agent needs, a file or socket of the configuration cannot be used, or the first dump failed.
    pub fn start(settings: Settings, config: Config) -> anyhow::Result<Self> {
        heap::keep_small();
        preflight::require()?;
        let log = EventLog::open(&config.agent.log, config.agent.log_max_size, config.agent.log_keep)?;
        let socket = Socket::bind(&config.agent.socket, Peers { group: config.agent.socket_group })?;
        let metrics = config.agent.metrics.map(metrics::Server::bind).transpose()?;
        let metrics = metrics.map(|server| (server, Metrics::new(&version(), &preflight::kernel_release())));
        let state_dir = StateDir::open(&config.agent.state)?;
        let state = state_dir.load()?;
        let recorder = settings
            .record
            .as_ref()
            .map(|(path, limit)| Recorder::create(path, *limit, std::process::id(), clock::now()));
        let recorder = recorder.transpose()?;
        // Last, because what is pinned stays when this fails.
        let mut probes = kept::load(&settings, &config.agent, &state_dir)?;
        let events = probes.events()?;
        probes.attach()?;
        let (kept, trouble) = kept::take_over(&mut probes);
        let lookout = Lookout::new(probes.observer());
        if settings.confine {
            confine()?;
        }
        let about = About::of(&config);
        let mut agent = Self {
            settings,
            core: Intake::new(Core::new(std::process::id()), recorder),
            probes,
            lookout,
            events,
            log,
            socket,
            service: Service::of_environment(),
            metrics,
            state_dir,
            state,
            about,
            needs_place: false,
            grip: None,
            sampler: Sampler::new(),
            missed: 0,
            ask_missed_at: 0,
            resync_at: None,
            log_failure: None,
            errors: Limit::default(),
            logs_to_stdout: config.agent.log == LogTarget::Stdout,
            reader_gone: false,
            running: config.agent.clone(),
        };
        agent.say_started();
        if let Some(what) = trouble {
            tracing::warn!("{what}");
            agent.record(Event::Error { what, proc: None });
        }
        agent.configure(config);
        agent.begin(kept)?;
        agent.settle(FIRST_TURN);
        Ok(agent)
    }

    /// For whoever started it by hand: without a word it would look as if it did nothing.
    pub fn say_where(&self) {
        tracing::info!("{}", self.about.words(&self.core.status(), &self.running));
    }

    /// Runs until `shutdown` comes, or nobody reads the log on stdout any more. `hangup` reloads.
    pub async fn run(
        mut self,
        mut hangup: UnixSignal,
        shutdown: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let programs_log = self.probes.forward_log()?;
        tokio::pin!(programs_log);
        let stdout = self.logs_to_stdout.then(watch_stdout).flatten();
        tokio::pin!(shutdown);
        self.say_ready();
        loop {
            let settled = self.settle(TURN);
            self.service.turned(clock::now());
            if self.reader_gone {
                return Ok(());
            }
            // The runtime looks for signals only when it gets a turn, and in a storm there is never nothing to do.
            tokio::task::yield_now().await;
            let deadline = self.next_deadline();
            let asked = tokio::select! {
                () = &mut shutdown => break,
                ready = self.events.readable() => Asked::Events(ready),
                () = sleep_until(deadline) => Asked::Tick,
                () = std::future::ready(()), if !settled => Asked::Nothing,
                _ = hang_up(&mut hangup) => Asked::Reload,
                () = reader_gone(stdout.as_ref()) => return Ok(()),
                query = self.socket.asked() => Asked::Query(query),
                ask = metrics_asked(&mut self.metrics) => Asked::Metrics(ask),
                ended = &mut programs_log => Asked::Events(ended),
            };
            match asked {
                Asked::Events(ready) => ready.context("cannot wait for the ring buffer")?,
                Asked::Tick => self.core.handle(clock::now(), Input::Tick),
                Asked::Nothing => {}
                Asked::Reload => self.reload(),
                Asked::Metrics(ask) => self.answer_metrics(ask),
                Asked::Query(query) => {
                    // Whoever asks about a process has seen it: its birth may still wait to be read.
                    self.drain();
                    let answer = self.answer(&query.request);
                    query.answer(answer);
                }
            }
        }
        self.stop()
    }

    /// Takes in what the kernel has written and does what the core wants, until there is neither. False if that would have
    /// taken longer than `longest`.
    fn settle(&mut self, longest: Ns) -> bool {
        let end = clock::now().saturating_add(longest);
        let mut settled = true;
        if self.drain() && clock::now() >= self.ask_missed_at {
            self.note_missed();
        }
        let mut done = 0;
        while let Some(effect) = self.core.poll_effect() {
            self.perform(effect);
            done += 1;
            // Not between taking hold and the signal: the core's last word rests on what was taken in by then.
            if done % EFFECTS_BEFORE_DRAIN == 0 && self.grip.is_none() && !self.core.must_persist() {
                self.drain();
                if clock::now() > end {
                    settled = false;
                    break;
                }
            }
        }
        self.core.rest(settled);
        // What could not be written is kept and tried again; `aim` refuses to signal meanwhile.
        let outcome = self.log.flush();
        self.reader_gone |= self.logs_to_stdout && is_broken_pipe(&outcome);
        self.say_log_failure(outcome.err().map(|e| e.to_string()));
        if self.resync_at.is_some_and(|at| at <= clock::now()) {
            self.perform(Effect::Resync);
        }
        settled
    }

    /// Everything that the kernel has written by now. Whether it was anything.
    fn drain(&mut self) -> bool {
        let core = &mut self.core;
        let drained = self.events.drain(|input| core.handle(clock::now(), input));
        if drained.records == 0 {
            return false;
        }
        // A loss may be the last thing that a CPU had to say.
        match self.events.losses() {
            Ok(loss) => loss.into_iter().for_each(|lost| self.core.handle(clock::now(), lost)),
            Err(e) => tracing::error!("cannot read the loss counters: {e}"),
        }
        true
    }

    /// Whether the kernel has left programs out: what they would have told is lost as what does not fit into the ring buffer.
    fn note_missed(&mut self) {
        self.ask_missed_at = clock::now().saturating_add(ASK_MISSED);
        let missed = self.probes.missed();
        if let Some(count) = missed.checked_sub(self.missed).filter(|n| *n > 0) {
            self.missed = missed;
            let at = clock::now();
            self.core.handle(at, Input::Lost { at, count });
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Record(record) => self.write(&record),
            Effect::Identify(key) => {
                let now = clock::now();
                let outcome = procfs::identify(now, key, self.needs_place);
                self.core.handle(now, Input::Identified { key, outcome });
            }
            Effect::Sample { key, depth } => {
                let now = clock::now();
                let mut outcome = self.sampler.sample(now, key, depth, false);
                self.lookout.complete(now, key, &mut outcome);
                self.core.handle(now, Input::Sampled { key, outcome });
            }
            Effect::Aim { key, depth } => self.aim(key, depth),
            Effect::Fire { key, signal } => {
                let outcome = self.fire(key, signal);
                let at = clock::now();
                self.core.handle(at, Input::Fired { key, at, outcome });
            }
            Effect::Watch { key, wants } => {
                if let Err(what) = self.lookout.watch(clock::now(), key, wants) {
                    tracing::warn!("{what}");
                    self.record(Event::Error { what, proc: None });
                }
            }
            Effect::Unwatch(key) => {
                self.sampler.forget(key);
                self.lookout.unwatch(key);
            }
            Effect::Release(_) => self.grip = None,
            Effect::Resync => self.resync(),
            Effect::Persist => self.persist(),
            Effect::PersistSignal(signal) => self.persist_signal(&signal),
        }
    }

    /// Holds a process still and looks at it. Whatever the kernel wrote until then is taken in first: the core's last word
    /// is about the present.
    fn aim(&mut self, key: ProcKey, depth: Depth) {
        self.grip = None;
        let outcome = match self.log.flush() {
            Err(e) => {
                Sampled::Unreadable(format!("the event log cannot be written, so nobody is signalled: {e}"))
            }
            Ok(()) => match Grip::take(key) {
                Ok(grip) => {
                    // First what may take long, then the look, then what has come meanwhile.
                    self.drain();
                    self.note_missed();
                    let frozen = matches!(grip, Grip::Frozen(_));
                    let now = clock::now();
                    let mut outcome = self.sampler.sample(now, key, depth, frozen);
                    self.lookout.complete(now, key, &mut outcome);
                    let outcome = grip.look(outcome);
                    self.grip = Some(grip);
                    outcome
                }
                Err(SignalError::Gone) => Sampled::Gone,
                Err(e) => Sampled::Unreadable(e.to_string()),
            },
        };
        self.drain();
        self.core.handle(clock::now(), Input::Aimed { key, outcome });
    }

    /// The record of the signal is on its way to the disk before the signal is on its way to the process.
    fn fire(&mut self, key: ProcKey, signal: Signal) -> Fired {
        let Some(grip) = self.grip.take().filter(|g| g.key() == key) else {
            return Fired::Failed("it is not held".to_owned());
        };
        if let Err(e) = self.log.flush() {
            return Fired::Failed(format!("the event log cannot be written: {e}"));
        }
        match grip.fire(signal) {
            Ok(()) => Fired::Sent,
            Err(FireError::Signal(SignalError::Gone)) => Fired::Gone,
            Err(e) => Fired::Failed(e.to_string()),
        }
    }

    fn configure(&mut self, config: Config) {
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        let rules = config.rules;
        let groups: Vec<String> = rules.groups.iter().map(|g| g.name.clone()).collect();
        self.needs_place = rules.groups.iter().any(|g| {
            g.master.needs_proc() || g.worker.as_ref().is_some_and(crate::core::rules::Matcher::needs_proc)
        });
        self.record(Event::ConfigLoaded { file: config.file, groups });
        // Armed is a group by its master patterns, not by its name.
        let is_armed = |g: &&Group| self.state.armed.get(&g.name) == Some(&g.master.source());
        let likenesses = |g: &Group| self.state.likenesses.get(&g.name).cloned().unwrap_or_default();
        let armed = |g: &Group| Armed { group: g.name.clone(), likenesses: likenesses(g) };
        let armed = rules.groups.iter().filter(is_armed).map(armed).collect();
        let broken = self.state.broken.iter().cloned().collect();
        let at = clock::now();
        self.core.handle(at, Input::Configured { at, rules: Arc::new(rules), armed, broken });
    }

    fn reload(&mut self) {
        self.service.reloading();
        match self.settings.load() {
            Ok(config) => {
                tracing::info!("configuration reloaded from {}", config.file);
                // Re-arming is what a person does by reloading.
                self.state.broken.clear();
                self.about.mode = About::of(&config).mode;
                if config.agent != self.running {
                    tracing::warn!("what changed in [agent] besides log_level and protect takes a restart");
                }
                self.configure(config);
                self.persist();
            }
            Err(errors) => {
                tracing::error!("the configuration was not reloaded, the old one stays in force:\n{errors}");
                let errors = errors.diagnostics().iter().map(ToString::to_string).collect();
                self.record(Event::ConfigRejected { file: self.about.config.clone(), errors });
            }
        }
        self.say_ready();
    }

    fn stop(mut self) -> anyhow::Result<()> {
        self.service.stopping();
        let About { kernel, config, mode } = &self.about;
        let (kernel, config, mode) = (kernel.clone(), config.clone(), mode.clone());
        self.record(Event::AgentStopped { version: version(), kernel, config, mode });
        self.log.flush().context("the last records could not be written")
    }

    fn say_started(&mut self) {
        let About { kernel, config, mode } = &self.about;
        let (kernel, config, mode) = (kernel.clone(), config.clone(), mode.clone());
        self.record(Event::AgentStarted { version: version(), kernel, config, mode });
    }

    /// That it is in force, and what: a configuration that was rejected leaves the one before it.
    fn say_ready(&mut self) {
        let groups = self.core.status().len();
        self.service.ready(&format!("{}, groups: {groups}", self.about.mode));
    }

    fn record(&mut self, mut event: Event) {
        let boot_ns = clock::now();
        if self.errors.admits(boot_ns, &mut event) {
            self.write(&Record { boot_ns, event });
        }
    }

    fn write(&mut self, record: &Record) {
        if let Some((_, metrics)) = &self.metrics {
            metrics.observe(record);
        }
        if let Err(e) = self.log.write(record) {
            self.say_log_failure(Some(e.to_string()));
        }
    }

    /// Says once that the log fails, and once that it does not any more.
    fn say_log_failure(&mut self, failure: Option<String>) {
        if self.log_failure == failure || self.reader_gone {
            return;
        }
        match &failure {
            Some(why) => {
                tracing::error!("the event log cannot be written, nobody is signalled meanwhile: {why}");
            }
            None => tracing::info!("the event log is written again"),
        }
        self.log_failure = failure;
    }

    fn next_deadline(&self) -> Option<Ns> {
        [self.core.next_deadline(), self.resync_at, self.service.due()].into_iter().flatten().min()
    }
}

/// The version of this build.
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

fn is_broken_pipe(outcome: &std::io::Result<()>) -> bool {
    outcome.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
