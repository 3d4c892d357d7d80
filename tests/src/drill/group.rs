//! The group that a drill enforces: the built-in profile as it is written, bound to the drill's own processes.
//!
//! The profile's text is laid into the configuration rather than named, because a profile that has not been run against
//! its framework (`observe_only`) cannot be enforced by name; and a drill is that run.

use anyhow::{Context, Result};
use reaper::profiles;
use toml::{Table, Value};

use super::Stage;

/// A built-in profile with some of its keys replaced.
#[derive(Clone, Debug)]
pub struct Group {
    profile: &'static str,
    keys: Table,
    quiet_ms: u64,
    beside: Vec<Group>,
}

impl Group {
    /// A profile, with patterns that only this drill's processes match. `worker` is also what the drill itself takes for a
    /// worker.
    pub fn new(profile: &'static str, master: &str, worker: &str) -> Self {
        let empty = Self { profile, keys: Table::new(), quiet_ms: 200, beside: Vec::new() };
        empty
            .with("master", "cmdline", master)
            .with("worker", "cmdline", worker)
            .with("master", "user", "root")
            .with("worker", "user", "root")
            .with("idle", "quiet", "200ms")
            .with("stop", "max_kills", 1_000_000)
    }

    /// Another value for a key: `with("idle", "queue", vec!["tcp/6379"])`.
    pub fn with(mut self, section: &str, key: &str, value: impl Into<Value>) -> Self {
        let section = self.keys.entry(section).or_insert_with(|| Value::Table(Table::new()));
        section.as_table_mut().unwrap().insert(key.into(), value.into());
        self
    }

    /// Another `quiet`.
    pub fn quiet(mut self, ms: u64) -> Self {
        self.quiet_ms = ms;
        self.with("idle", "quiet", format!("{ms}ms"))
    }

    /// A group for others of the same drill, such as intermediate supervisors.
    pub fn beside(mut self, group: Self) -> Self {
        self.beside.push(group);
        self
    }

    pub(super) fn quiet_ms(&self) -> u64 {
        self.quiet_ms
    }

    /// The pattern of workers.
    pub(super) fn worker(&self) -> &str {
        self.keys.get("worker").and_then(|w| w.get("cmdline")).and_then(Value::as_str).unwrap()
    }

    /// The whole configuration.
    pub(super) fn config(&self, stage: &Stage) -> Result<String> {
        let groups = [self].into_iter().chain(&self.beside).enumerate();
        let groups: Result<Vec<_>> = groups.map(|(n, group)| Ok(group.laid_out(n)?.into())).collect();
        let mut agent = Table::new();
        for (key, file) in [("log", "agent.jsonl"), ("socket", "agent.sock"), ("state", "state")] {
            agent.insert(key.into(), super::env::text(stage.scene.path(file)).into());
        }
        agent.insert("log_max_size".into(), "4GiB".into());
        let mut config = Table::new();
        config.insert("agent".into(), agent.into());
        config.insert("group".into(), Value::Array(groups?));
        Ok(toml::to_string(&config)?)
    }

    /// The profile with its keys replaced.
    fn laid_out(&self, n: usize) -> Result<Table> {
        let profile = profiles::find(self.profile).with_context(|| format!("no profile {}", self.profile))?;
        let mut group: Table = profile.toml.parse()?;
        group.remove("observe_only");
        for (section, keys) in &self.keys {
            let into = group.entry(section.clone()).or_insert_with(|| Value::Table(Table::new()));
            let into = into.as_table_mut().unwrap();
            into.extend(keys.as_table().unwrap().clone());
        }
        group.insert("name".into(), format!("drill-{n}").into());
        group.insert("mode".into(), "enforce".into());
        Ok(group)
    }
}
