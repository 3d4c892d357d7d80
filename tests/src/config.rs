//! Configurations bound to a scene: one group that can only match the scene's own processes.

use std::fmt::Write;
use std::path::PathBuf;

use crate::scene::Scene;

/// A configuration in the making. By default: one enforcing group `g`, masters are `… master TOKEN`, every descendant
/// is a worker, `proof = "asleep"`, a tenth of a second of quiet.
#[derive(Clone, Debug)]
pub struct Config {
    /// Names the files of the agent that runs it.
    name: String,
    token: String,
    /// The event log.
    pub log: PathBuf,
    /// The status socket.
    pub socket: PathBuf,
    /// What survives a restart.
    pub state: PathBuf,
    agent: String,
    mode: &'static str,
    /// More lines in `[group.master]`, and in `[group.worker]`.
    master: String,
    worker: Option<String>,
    proof: &'static str,
    quiet: &'static str,
    idle: String,
    stop: String,
    more: String,
}

impl Config {
    /// An enforcing group for a scene.
    pub fn new(scene: &Scene) -> Self {
        Self {
            name: "agent".into(),
            token: scene.token().into(),
            log: scene.path("agent.jsonl"),
            socket: scene.path("agent.sock"),
            state: scene.path("state"),
            agent: String::new(),
            mode: "enforce",
            master: String::new(),
            worker: None,
            proof: "asleep",
            quiet: "100ms",
            idle: String::new(),
            stop: String::new(),
            more: String::new(),
        }
    }

    /// For a further agent in the same scene: the same state, other files for everything else.
    pub fn named(mut self, name: &str) -> Self {
        self.log.set_file_name(format!("{name}.jsonl"));
        self.socket.set_file_name(format!("{name}.sock"));
        self.name = name.into();
        self
    }

    /// The name of its files.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The group only looks on.
    pub fn observe(mut self) -> Self {
        self.mode = "observe";
        self
    }

    /// Workers are `… worker TOKEN` only.
    pub fn worker_matcher(mut self) -> Self {
        self.worker = Some(String::new());
        self
    }

    /// Masters and workers must also belong to this user; there is a worker matcher.
    pub fn user(mut self, user: &str) -> Self {
        let line = format!("user = \"{user}\"\n");
        self.master.clone_from(&line);
        self.worker = Some(line);
        self
    }

    /// Masters must also run this executable (a glob).
    pub fn master_exe(mut self, exe: &str) -> Self {
        writeln!(self.master, "exe = \"{exe}\"").unwrap();
        self
    }

    /// Another quiet time.
    pub fn quiet(mut self, quiet: &'static str) -> Self {
        self.quiet = quiet;
        self
    }

    /// What waits for its source of work is idle, and not whoever sleeps.
    pub fn source(mut self) -> Self {
        self.proof = "source";
        self
    }

    /// A line in `[group.idle]`.
    pub fn idle(mut self, line: &str) -> Self {
        writeln!(self.idle, "{line}").unwrap();
        self
    }

    /// A line in `[group.stop]`.
    pub fn stop(mut self, line: &str) -> Self {
        writeln!(self.stop, "{line}").unwrap();
        self
    }

    /// A line in `[agent]`.
    pub fn agent(mut self, line: &str) -> Self {
        writeln!(self.agent, "{line}").unwrap();
        self
    }

    /// Anything more at the end.
    pub fn more(mut self, text: &str) -> Self {
        writeln!(self.more, "{text}").unwrap();
        self
    }

    /// The configuration as TOML.
    pub fn text(&self) -> String {
        let Self { token, log, socket, state, agent, mode, master, proof, quiet, idle, stop, more, .. } =
            self;
        let worker = self.worker.as_ref().map_or_else(String::new, |user| {
            format!("[group.worker]\ncmdline = '\\bworker {token}$'\n{user}")
        });
        let [log, socket, state] = [log, socket, state].map(|p| p.display().to_string());
        format!(
            "[agent]\nlog = \"{log}\"\nsocket = \"{socket}\"\nstate = \"{state}\"\n{agent}\n\
             [[group]]\nname = \"g\"\nmode = \"{mode}\"\n\
             [group.master]\ncmdline = '\\bmaster {token}$'\n{master}{worker}\
             [group.idle]\nproof = \"{proof}\"\nquiet = \"{quiet}\"\n{idle}\
             [group.stop]\n{stop}{more}"
        )
    }
}
