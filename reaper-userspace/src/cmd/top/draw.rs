//! One screen: state in, cells out. Whatever comes from a process is escaped, and cut on the boundaries of characters.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::app::{App, Entry, Pane};
use crate::agent::protocol::Overview;
use crate::cmd::{explain, orphans};
use crate::core::GroupStatus;
use crate::core::records::SparedBecause;
use crate::core::rules::Mode;
use crate::core::view::words::{count, span};
use crate::core::view::{Does, Next, OrphanView};
use crate::output::{escape, fit, pad, width_of, wrap};

/// Columns of the list that are as wide as that everywhere: pid and state.
const PID: usize = 7;
const STATE: usize = 8;

/// An age with both its units, and with the larger one alone.
const AGE: usize = 11;
const SHORT_AGE: usize = 6;

/// So much room what comes next has before ages and groups are shown whole: a signal and its condition.
const NEXT: usize = 36;

const KEYS: [(&str, &str); 10] = [
    ("up, down, k, j", "choose a process"),
    ("page up, page down, home, end", "the same, faster"),
    ("enter", "explain it"),
    ("/", "show only what contains a text"),
    ("g", "show only one group, then the next"),
    ("escape", "show everything; back to the list"),
    ("?, h", "this"),
    ("q, control-c", "quit"),
    ("", "Orphans come first, the oldest on top."),
    ("", "[observes]: its group only looks on; what it would do else."),
];

/// Draws everything.
pub(super) fn draw(app: &App, frame: &mut Frame<'_>) {
    let mut page = Page { area: frame.area(), y: 0, color: app.color, frame };
    page.head(app);
    match &app.pane {
        Pane::List => {
            if let Some(overview) = &app.overview {
                page.groups(app, overview);
                page.list(app, overview);
            }
        }
        Pane::Help => page.help(),
        Pane::Explanation { pid, known, scroll } => page.explanation(*pid, known.as_ref(), *scroll),
    }
    page.foot(app);
}

/// How wide the list's columns are that are not the same everywhere.
#[derive(Clone, Copy)]
struct Columns {
    group: usize,
    age: usize,
    /// What comes next: the one that is read.
    what: usize,
}

impl Columns {
    /// Whatever is not needed for what comes next goes to the groups' names and the ages.
    fn of(width: usize, entries: &[Entry<'_>]) -> Self {
        // Behind each column but the last there is a space.
        let room = width.saturating_sub(PID + STATE + 4);
        let longest = entries.iter().map(|e| width_of(&escape(e.group))).max().unwrap_or_default();
        let spare = room.saturating_sub(NEXT);
        let age = if spare >= AGE + "GROUP".len() { AGE } else { SHORT_AGE };
        let group = spare.saturating_sub(age).min(longest).clamp("GROUP".len(), 20);
        Self { group, age, what: room.saturating_sub(group + age) }
    }
}

/// A length of time in so many columns: without its smaller unit if that is too much.
fn short(age: &str, width: usize) -> String {
    if width_of(age) <= width {
        return age.to_owned();
    }
    age.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// What comes next for an orphan: in a sentence where there is room for it, else in a few words.
fn comes_next(orphan: &OrphanView, room: usize) -> String {
    let Next { does, signal, in_us, spared, says, .. } = &orphan.next;
    if width_of(says) <= room {
        return says.clone();
    }
    let step = || {
        let signal = signal.as_deref().unwrap_or_default();
        match in_us {
            Some(0) => format!("{signal} now"),
            Some(us) => format!("{signal} in {}, if idle", span(us.saturating_mul(1_000))),
            None => format!("{signal} when idle"),
        }
    };
    let few = match (does, spared) {
        (Does::Signal, _) => return step(),
        (Does::Rehearse, _) => return format!("[observes] {}", step()),
        (Does::Nothing, Some(SparedBecause::Unarmed)) => "never had a master",
        (Does::Nothing, Some(SparedBecause::Protected)) => "protected",
        (Does::Nothing, Some(SparedBecause::Breaker)) => "its group has stopped too many",
        (Does::Nothing, Some(SparedBecause::JobChild)) => "a job itself",
        (Does::Nothing, Some(SparedBecause::Adopted)) => "below its master again",
        (Does::Nothing, Some(SparedBecause::Detached)) => "left on purpose",
        (Does::Nothing, Some(SparedBecause::NotReplaced)) => "waits for a new master",
        (Does::Nothing, _) if orphan.draining => "it is left to finish",
        (Does::Nothing, _) => return says.clone(),
    };
    format!("nothing: {few}")
}

/// A screen that is filled from the top; its last line is for the keys.
struct Page<'a, 'b> {
    area: Rect,
    y: u16,
    color: bool,
    frame: &'a mut Frame<'b>,
}

impl Page<'_, '_> {
    fn width(&self) -> usize {
        usize::from(self.area.width)
    }

    /// Lines that are left above the last one.
    fn left(&self) -> usize {
        usize::from(self.area.height.saturating_sub(1).saturating_sub(self.y))
    }

    fn style(&self, color: Color) -> Style {
        if self.color { Style::new().fg(color) } else { Style::new() }
    }

    fn line(&mut self, line: &Line<'_>) {
        if self.left() > 0 {
            self.put(self.y, line);
            self.y += 1;
        }
    }

    fn put(&mut self, y: u16, line: &Line<'_>) {
        self.frame.buffer_mut().set_line(self.area.x, self.area.y + y, line, self.area.width);
    }

    /// A line over the whole width in reverse: columns' titles, or whoever is chosen.
    fn bar(&mut self, text: &str, style: Style) {
        let line = pad(&fit(text, self.width()), self.width());
        self.line(&Line::from(Span::styled(line, style.add_modifier(Modifier::REVERSED))));
    }

    fn head(&mut self, app: &App) {
        let bad = self.style(Color::Red).add_modifier(Modifier::BOLD);
        let Some(Overview { status, .. }) = &app.overview else {
            let text = app.trouble.as_deref().unwrap_or("asking the agent");
            let text = escape(text);
            return self.line(&Line::from(fit(&text, self.width()).into_owned()));
        };
        let rate = app.rate.map_or_else(|| "-".to_owned(), |r| r.to_string());
        let counters = &status.counters;
        let lost = format!("{} lost", count(usize::try_from(counters.lost).unwrap_or(usize::MAX), "event"));
        let rest = format!(
            ", {rate} events/s, {} signals, {} processes: reaper {}, pid {}",
            counters.signals, status.processes, status.version, status.pid
        );
        let alarm = if counters.lost > 0 { bad } else { Style::new() };
        self.line(&Line::from(vec![Span::styled(lost, alarm), Span::raw(escape(&rest))]));
        let trouble = match &app.trouble {
            Some(why) => Some(format!("not up to date: {why}")),
            None if !counters.complete => Some("the tree is being rebuilt: nobody is signalled".to_owned()),
            None => None,
        };
        if let Some(trouble) = trouble {
            let text = fit(&escape(&trouble), self.width()).into_owned();
            self.line(&Line::from(Span::styled(text, bad)));
        }
    }

    /// Groups that have anybody, in at most a third of the screen.
    fn groups(&mut self, app: &App, overview: &Overview) {
        let all = &overview.status.groups;
        let shown: Vec<&GroupStatus> =
            all.iter().filter(|g| g.masters + g.orphans > 0 || g.breaker_open).collect();
        let most = (usize::from(self.area.height) / 3).max(1);
        self.bar(
            &format!("{:<20} {:<8} {:>7} {:>7}  STATE", "GROUP", "MODE", "MASTERS", "ORPHANS"),
            Style::new(),
        );
        for group in shown.iter().take(most) {
            self.group(app, group);
        }
        let said = match all.len() - shown.len().min(most) {
            0 => return,
            rest if shown.len() > most => format!("and {}", count(rest, "more group")),
            1 => "1 other group has nobody".to_owned(),
            rest => format!("{rest} other groups have nobody"),
        };
        self.line(&Line::from(Span::styled(said, Style::new().add_modifier(Modifier::DIM))));
    }

    fn group(&mut self, app: &App, group: &GroupStatus) {
        let (mode, style) = match group.mode {
            Mode::Enforce => ("enforce", self.style(Color::Green)),
            Mode::Observe => ("observe", Style::new()),
        };
        let (state, alarm) = match group {
            g if g.breaker_open => {
                ("STOPPED: too many signals", self.style(Color::Red).add_modifier(Modifier::BOLD))
            }
            g if !g.armed => ("not armed: never had a master", self.style(Color::Yellow)),
            _ => ("", Style::new()),
        };
        let name = escape(&group.name).into_owned();
        let chosen = if app.group.as_ref() == Some(&group.name) { Modifier::BOLD } else { Modifier::empty() };
        self.line(&Line::from(vec![
            Span::styled(pad(&fit(&name, 20), 20), Style::new().add_modifier(chosen)),
            Span::styled(format!(" {mode:<8}"), style),
            Span::raw(format!(" {:>7} {:>7}  ", group.masters, group.orphans)),
            Span::styled(state, alarm),
        ]));
    }

    fn list(&mut self, app: &App, overview: &Overview) {
        let entries = app.entries();
        let columns = Columns::of(self.width(), &entries);
        let (group, age) = (columns.group, columns.age);
        self.bar(
            &format!(
                "{:>PID$} {:<group$} {:<STATE$} {:<age$} WHAT COMES NEXT, OR COMMAND",
                "PID", "GROUP", "STATE", "AGE"
            ),
            Style::new(),
        );
        let room = self.left();
        let first = app.selected.saturating_sub(room / 2).min(entries.len().saturating_sub(room));
        for (at, entry) in entries.iter().enumerate().skip(first).take(room) {
            self.entry(entry, columns, at == app.selected);
        }
        if entries.is_empty() {
            let none = overview.orphan_list.is_empty() && overview.master_list.is_empty();
            let why = if none { "no masters and no orphans" } else { "nothing passes the filter" };
            self.line(&Line::from(Span::styled(why, Style::new().add_modifier(Modifier::DIM))));
        }
    }

    fn entry(&mut self, entry: &Entry<'_>, columns: Columns, chosen: bool) {
        let (state, style) = match entry.orphan {
            None => ("master", self.style(Color::Green)),
            Some(o) if o.draining => (orphans::state(o).0, self.style(Color::Cyan)),
            Some(o) => (orphans::state(o).0, self.style(Color::Yellow)),
        };
        let Columns { group, age, what } = columns;
        let before = format!("{:>PID$} {} ", entry.pid, pad(&fit(&escape(entry.group), group), group));
        let next = entry.orphan.map_or_else(|| entry.command.clone(), |o| comes_next(o, what));
        let after = format!(" {} {}", pad(&short(&span(entry.age), age), age), fit(&escape(&next), what));
        if chosen {
            return self.bar(&format!("{before}{state:<STATE$}{after}"), Style::new());
        }
        let parts =
            vec![Span::raw(before), Span::styled(format!("{state:<STATE$}"), style), Span::raw(after)];
        self.line(&Line::from(parts));
    }

    fn help(&mut self) {
        self.bar("KEYS", Style::new());
        for (keys, what) in KEYS {
            self.line(&Line::from(format!("{keys:<30} {what}")));
        }
    }

    fn explanation(
        &mut self,
        pid: u32,
        known: Option<&Result<Box<crate::core::view::Explanation>, String>>,
        scroll: usize,
    ) {
        self.bar(&format!("PROCESS {pid}"), Style::new());
        let paragraphs = match known {
            None => return self.line(&Line::from("asking the agent")),
            Some(Err(why)) => vec![("".into(), why.clone())],
            Some(Ok(known)) => explain::paragraphs(known),
        };
        let indent = explain::INDENT;
        let room = self.width().saturating_sub(indent);
        let mut lines = Vec::new();
        for (label, text) in paragraphs {
            for (n, part) in wrap(&escape(&text), Some(room)).into_iter().enumerate() {
                let label = if n == 0 { pad(&label, indent) } else { " ".repeat(indent) };
                let bold = Style::new().add_modifier(Modifier::BOLD);
                lines.push(Line::from(vec![Span::styled(label, bold), Span::raw(part)]));
            }
        }
        // The end stays in sight.
        let first = scroll.min(lines.len().saturating_sub(self.left()));
        for line in lines.iter().skip(first) {
            self.line(line);
        }
    }

    fn foot(&mut self, app: &App) {
        let Some(y) = self.area.height.checked_sub(1) else { return };
        let filter = escape(&app.filter);
        let text = match &app.pane {
            _ if app.typing => format!("show only: {filter}_   (enter: done, escape: everything)"),
            Pane::Explanation { .. } => "up, down scroll   escape back   q quit".to_owned(),
            Pane::Help => "any key: back   q quit".to_owned(),
            Pane::List => {
                let mut text = "q quit   enter explain   / filter   g group   ? help".to_owned();
                if let Some(group) = &app.group {
                    text = format!("group {}   {text}", escape(group));
                }
                if !app.filter.is_empty() {
                    text = format!("only {filter:?}   {text}");
                }
                text
            }
        };
        let line = fit(&text, self.width()).into_owned();
        self.put(y, &Line::from(Span::styled(line, Style::new().add_modifier(Modifier::DIM))));
    }
}
