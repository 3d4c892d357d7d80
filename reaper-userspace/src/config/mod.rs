//! The configuration: parse TOML, then resolve it into what the core decides by. After this nothing validates again.
//!
//! Kept true here: a [`Config`] is complete and consistent; a file that is not gives every error at once, each with its
//! place; no input makes this module panic. Not here: which file is read, and what happens when it changes.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use toml::Spanned;
use toml::de::DeTable;

use crate::core::rules::Rules;
use crate::profiles;

mod agent;
mod diagnostic;
mod group;
mod names;
mod overlap;
mod patterns;
mod protect;
mod reader;
mod schema;
#[cfg(test)]
mod tests;
mod values;

pub use agent::AgentSettings;
pub use diagnostic::{ConfigErrors, Diagnostic, Position};
pub use schema::reference;

/// A configuration is written by people: what is larger is another kind of file, bytes.
const LARGEST_FILE: u64 = 1 << 20;

/// A valid configuration, resolved.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the agent writes and listens.
    pub agent: AgentSettings,
    /// What the core decides by.
    pub rules: Rules,
    /// The file as it was given, for people.
    pub file: String,
    /// What is valid and probably not meant, in the order of the file.
    pub warnings: Vec<Diagnostic>,
}

/// What a file says of the agent itself.
#[derive(Clone, Debug)]
pub struct AgentPart {
    /// Where the agent writes and listens.
    pub settings: AgentSettings,
    /// What is wrong with the rest of the file, for which no agent would start with it.
    pub errors: Option<ConfigErrors>,
}

/// A size as configurations write it: `64MiB`, `1GB`, or a number of bytes.
pub fn parse_size(text: &str) -> Option<u64> {
    values::parse_size(text)
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// Everything that is wrong with it; [`ConfigErrors::is_unreadable`] if it is not a text that can be read.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let name = path.display().to_string();
        Self::parse(&name, &read_text(path, &name)?)
    }

    /// Reads of a file what it says of the agent itself, for whoever only looks for a running agent or its log: what is
    /// wrong elsewhere does not matter to them.
    ///
    /// # Errors
    /// Everything that is wrong with the file, if it is not TOML or `[agent]` is among what is wrong.
    pub fn load_agent(path: &Path) -> Result<AgentPart, ConfigErrors> {
        let name = path.display().to_string();
        let text = read_text(path, &name)?;
        match Self::parse(&name, &text) {
            Ok(config) => Ok(AgentPart { settings: config.agent, errors: None }),
            Err(errors) => match agent_alone(&name, &text) {
                Some(settings) => Ok(AgentPart { settings, errors: Some(errors) }),
                None => Err(errors),
            },
        }
    }

    /// Adds a warning about the file as a whole.
    pub fn warn(&mut self, message: &str) {
        self.warnings.push(Diagnostic::new(&self.file, None, message));
    }

    /// Reads the text of a file that is called `file_name`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(file_name: &str, text: &str) -> Result<Self, ConfigErrors> {
        let document = parse_toml(file_name, text)?;
        let mut cx = reader::Cx::new(file_name, text);
        let root = reader::Table::of(&mut cx, 0, document.get_ref(), &schema::ROOT);
        let agent = root.get(&mut cx, "agent", agent::read).unwrap_or_default();
        let groups = root.get(&mut cx, "group", |cx, n| Some(group::read_all(cx, n))).unwrap_or_default();
        if !root.has("group") {
            cx.warn(0, "there is no [[group]]: nothing is watched (without a file every built-in profile is; `reaper profiles NAME` prints one as a group)");
        }
        let (errors, warnings) = cx.finish();
        if !errors.is_empty() {
            return Err(ConfigErrors::invalid(errors));
        }
        let rules = Rules::new(groups, agent.protect, agent.log_level);
        Ok(Self { agent: agent.settings, rules, file: file_name.to_owned(), warnings })
    }

    /// What the agent does without a file: it observes with every built-in profile and signals nobody.
    pub fn embedded() -> Self {
        let mut groups = Vec::new();
        let mut warnings = Vec::new();
        for profile in profiles::all() {
            match group::from_profile(profile) {
                Ok(group) => groups.push(group),
                // A test loads every profile, so this is never seen; a broken one must not take the others along.
                Err(errors) => warnings.extend_from_slice(errors.diagnostics()),
            }
        }
        let agent::Agent { settings, log_level, protect } = agent::Agent::default();
        let rules = Rules::new(groups, protect, log_level);
        Self { agent: settings, rules, file: "embedded default".to_owned(), warnings }
    }
}

/// What `[agent]` says in a text that has errors; `None` if some are in it.
fn agent_alone(file_name: &str, text: &str) -> Option<AgentSettings> {
    let document = parse_toml(file_name, text).ok()?;
    let mut cx = reader::Cx::new(file_name, text);
    let root = reader::Table::of(&mut cx, 0, document.get_ref(), &schema::ROOT);
    let elsewhere = cx.errors.len();
    let agent = root.get(&mut cx, "agent", agent::read).unwrap_or_default();
    (cx.errors.len() == elsewhere).then_some(agent.settings)
}

/// The text of a file that is called `name`.
fn read_text(path: &Path, name: &str) -> Result<String, ConfigErrors> {
    let bytes = read_file(path).map_err(|reason| ConfigErrors::unreadable(name, &reason))?;
    String::from_utf8(bytes).map_err(|e| {
        let valid = e.as_bytes().get(..e.utf8_error().valid_up_to()).unwrap_or_default();
        let valid = String::from_utf8_lossy(valid);
        let at = Position::of(&valid, valid.len());
        ConfigErrors::invalid(vec![Diagnostic::new(name, Some(at), "this is not UTF-8 text")])
    })
}

/// At most [`LARGEST_FILE`] bytes, or why not.
fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let kind = std::fs::metadata(path).map_err(|e| format!("cannot be opened: {e}"))?.file_type();
    if !kind.is_file() && !kind.is_dir() {
        return Err("is not a regular file".to_owned());
    }
    let mut file = File::open(path).map_err(|e| format!("cannot be opened: {e}"))?;
    let metadata = file.metadata().map_err(|e| format!("cannot be examined: {e}"))?;
    if metadata.is_dir() {
        return Err("is a directory, expected a file".to_owned());
    }
    let mut bytes = Vec::new();
    file.by_ref()
        .take(LARGEST_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| format!("cannot be read: {e}"))?;
    if u64::try_from(bytes.len()).is_ok_and(|n| n > LARGEST_FILE) {
        return Err(format!("is larger than {LARGEST_FILE} bytes, which no configuration is"));
    }
    Ok(bytes)
}

/// The syntax tree, or every syntax error. A text with syntax errors is not looked at any further: what could be
/// recovered of it would be blamed for keys that the error swallowed.
fn parse_toml<'t>(file: &str, text: &'t str) -> Result<Spanned<DeTable<'t>>, ConfigErrors> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(document);
    }
    let mut errors: Vec<Diagnostic> = errors
        .iter()
        .map(|e| {
            let at = Position::of(text, e.span().map_or(0, |span| span.start));
            Diagnostic::new(file, Some(at), &format!("bad TOML: {}", e.message()))
        })
        .collect();
    errors.sort_by_key(|e| e.at);
    errors.dedup();
    Err(ConfigErrors::invalid(errors))
}
