//! What `reaper top` shows and what its keys do. No terminal in here.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::agent::protocol::Overview;
use crate::core::ids::{Ns, SECOND};
use crate::core::view::{Explanation, OrphanView};

/// A page of the list, for the keys; about what a small terminal shows.
const PAGE: usize = 10;

/// Everything that is shown.
#[derive(Debug, Default)]
pub(super) struct App {
    /// Whether colours may be used.
    pub(super) color: bool,
    /// What the agent said last.
    pub(super) overview: Option<Overview>,
    /// Why it says nothing now.
    pub(super) trouble: Option<String>,
    /// Events per second between the last two answers.
    pub(super) rate: Option<u64>,
    /// What is in front of the list.
    pub(super) pane: Pane,
    /// Only what contains this, in any case.
    pub(super) filter: String,
    /// The filter is being typed.
    pub(super) typing: bool,
    /// Only this group.
    pub(super) group: Option<String>,
    /// Which entry is chosen.
    pub(super) selected: usize,
    /// Who that is: the entry moves when others come and go.
    pub(super) chosen: Option<(u32, Ns)>,
}

/// What is in front.
#[derive(Debug, Default)]
pub(super) enum Pane {
    /// The list.
    #[default]
    List,
    /// The keys.
    Help,
    /// One process explained.
    Explanation {
        /// Which.
        pid: u32,
        /// What the agent says; `None` until it has, and an error if it cannot.
        known: Option<Result<Box<Explanation>, String>>,
        /// The first line that is shown.
        scroll: usize,
    },
}

/// One line of the list.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) pid: u32,
    pub(super) start_ns: Ns,
    pub(super) group: &'a str,
    /// Since when it is what it is, nanoseconds.
    pub(super) age: Ns,
    /// `None` for a master.
    pub(super) orphan: Option<&'a OrphanView>,
    pub(super) command: String,
}

/// What a key asks for that the application cannot do by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Nothing,
    Quit,
    Explain(u32),
}

impl App {
    /// The agent has answered.
    pub(super) fn take(&mut self, overview: Overview) {
        self.rate = self.overview.as_ref().and_then(|before| rate(before, &overview));
        self.trouble = None;
        if self.group.as_ref().is_some_and(|name| !overview.status.groups.iter().any(|g| g.name == *name)) {
            self.group = None;
        }
        self.overview = Some(overview);
        self.follow_chosen();
    }

    /// It has explained a process, or cannot; `None` if there is no such process any more.
    pub(super) fn take_explanation(&mut self, of: u32, told: Result<Option<Box<Explanation>>, String>) {
        if let Pane::Explanation { pid, known, .. } = &mut self.pane
            && *pid == of
        {
            let gone = || format!("process {of} is gone. `reaper tail --pid {of}` shows its records");
            *known = Some(told.and_then(|k| k.ok_or_else(gone)));
        }
    }

    /// What is in the list: orphans first, then masters.
    pub(super) fn entries(&self) -> Vec<Entry<'_>> {
        let Some(overview) = &self.overview else { return Vec::new() };
        let orphans = overview.orphan_list.iter().map(|o| Entry {
            pid: o.proc.pid,
            start_ns: o.proc.start_ns,
            group: &o.group,
            age: o.age_us.saturating_mul(1_000),
            orphan: Some(o),
            command: command(&o.proc.argv.line(), &o.proc.comm),
        });
        let masters = overview.master_list.iter().map(|m| Entry {
            pid: m.proc.pid,
            start_ns: m.proc.start_ns,
            group: &m.group,
            age: overview.status.boot_ns.saturating_sub(m.proc.start_ns),
            orphan: None,
            command: command(&m.proc.argv.line(), &m.proc.comm),
        });
        orphans.chain(masters).filter(|e| self.passes(e)).collect()
    }

    fn passes(&self, entry: &Entry<'_>) -> bool {
        let wanted = self.filter.to_lowercase();
        self.group.as_deref().is_none_or(|g| g == entry.group)
            && (wanted.is_empty()
                || entry.pid.to_string().contains(&wanted)
                || entry.group.to_lowercase().contains(&wanted)
                || entry.command.to_lowercase().contains(&wanted))
    }

    /// A key was pressed.
    pub(super) fn key(&mut self, key: KeyEvent) -> Wish {
        if key.kind == KeyEventKind::Release {
            return Wish::Nothing;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Wish::Quit } else { Wish::Nothing };
        }
        if self.typing {
            self.type_filter(key.code);
            return Wish::Nothing;
        }
        match &mut self.pane {
            Pane::List => self.key_in_list(key.code),
            Pane::Help => self.leave(key.code),
            Pane::Explanation { scroll, .. } => {
                match key.code {
                    KeyCode::Up | KeyCode::Char('k') => *scroll = scroll.saturating_sub(1),
                    KeyCode::Down | KeyCode::Char('j') => *scroll = scroll.saturating_add(1),
                    KeyCode::PageUp => *scroll = scroll.saturating_sub(PAGE),
                    KeyCode::PageDown => *scroll = scroll.saturating_add(PAGE),
                    code => return self.leave(code),
                }
                Wish::Nothing
            }
        }
    }

    fn leave(&mut self, code: KeyCode) -> Wish {
        match code {
            KeyCode::Char('q') => return Wish::Quit,
            KeyCode::Char('?') if !matches!(self.pane, Pane::Help) => self.pane = Pane::Help,
            _ => self.pane = Pane::List,
        }
        Wish::Nothing
    }

    fn key_in_list(&mut self, code: KeyCode) -> Wish {
        let last = self.entries().len().saturating_sub(1);
        match code {
            KeyCode::Char('q') => return Wish::Quit,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.pane = Pane::Help,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('g') => self.next_group(),
            KeyCode::Esc => {
                self.filter.clear();
                self.group = None;
                self.follow_chosen();
            }
            KeyCode::Up | KeyCode::Char('k') => self.select(self.selected.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.select((self.selected + 1).min(last)),
            KeyCode::PageUp => self.select(self.selected.saturating_sub(PAGE)),
            KeyCode::PageDown => self.select(self.selected.saturating_add(PAGE).min(last)),
            KeyCode::Home => self.select(0),
            KeyCode::End => self.select(last),
            KeyCode::Enter => {
                let chosen = self.entries().get(self.selected).map(|e| e.pid);
                if let Some(pid) = chosen {
                    self.pane = Pane::Explanation { pid, known: None, scroll: 0 };
                    return Wish::Explain(pid);
                }
            }
            _ => {}
        }
        Wish::Nothing
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(c) => self.filter.push(c),
            _ => {}
        }
        self.follow_chosen();
    }

    /// All, then each group that has anybody, then all again.
    fn next_group(&mut self) {
        let Some(overview) = &self.overview else { return };
        let mut names = overview.status.groups.iter().filter(|g| g.masters + g.orphans > 0).map(|g| &g.name);
        self.group = match &self.group {
            None => names.next().cloned(),
            Some(now) => names.skip_while(|name| *name != now).nth(1).cloned(),
        };
        self.follow_chosen();
    }

    fn select(&mut self, at: usize) {
        let chosen = self.entries().get(at).map(|e| (e.pid, e.start_ns));
        self.selected = at;
        self.chosen = chosen;
    }

    /// The list has changed: the same process stays chosen if it is still in it.
    fn follow_chosen(&mut self) {
        let entries = self.entries();
        let same = entries.iter().position(|e| Some((e.pid, e.start_ns)) == self.chosen);
        let at = same.unwrap_or(self.selected).min(entries.len().saturating_sub(1));
        self.select(at);
    }
}

fn command(argv: &str, comm: &str) -> String {
    if argv.trim().is_empty() { format!("({comm})") } else { argv.to_owned() }
}

/// Events per second; `None` if the agent has been restarted between the two.
fn rate(before: &Overview, after: &Overview) -> Option<u64> {
    let (before, after) = (&before.status, &after.status);
    let time = after.boot_ns.checked_sub(before.boot_ns).filter(|&t| t > 0 && before.pid == after.pid)?;
    let events = after.counters.events.checked_sub(before.counters.events)?;
    u64::try_from(u128::from(events) * u128::from(SECOND) / u128::from(time)).ok()
}
