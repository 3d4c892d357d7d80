//! Puts a model into the templates: `page.html`, `style.css`, `script.js`.

use std::fmt::Write as _;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde::Serialize;

use super::model::{MARKS, Mark, Millis, Model, Numbers, ROWS, Row};
use crate::core::view::words::span;
use crate::output::escape;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// What the script draws.
#[derive(Serialize)]
struct Data<'a> {
    from: Millis,
    to: Millis,
    /// The zone's distance from UTC, milliseconds.
    zone: i64,
    rows: &'a [Row],
    agent: &'a [Mark],
}

/// The whole page.
///
/// # Errors
/// None in practice: everything in a model can be said in JSON.
pub(super) fn render(model: &Model, log: &str, zone: &TimeZone) -> anyhow::Result<String> {
    let (from, to) = model.span.unwrap_or_default();
    let last = zoned(to, zone);
    let data = Data {
        from,
        to,
        zone: i64::from(last.offset().seconds()) * 1_000,
        rows: &model.rows,
        agent: &model.agent,
    };
    let data = serde_json::to_string(&data)?;
    Ok(fill(PAGE, |name| match name {
        "log" => html(log),
        "span" => html(&format!(
            "{} to {}, times in {}",
            zoned(from, zone).strftime("%F %T"),
            last.strftime("%F %T"),
            zone.iana_name().map_or_else(|| last.offset().to_string(), str::to_owned),
        )),
        "records" => model.records.to_string(),
        "notes" => notes(model),
        "groups" => groups(model),
        "processes" => model.rows.iter().map(|row| process(row, zone)).collect(),
        "style" => STYLE.to_owned(),
        "script" => SCRIPT.to_owned(),
        "data" => in_script(&data),
        // The templates are tested to name nothing else.
        _ => String::new(),
    }))
}

/// Puts values in the place of `{{names}}`. What a value says is not looked at again.
pub(super) fn fill(template: &str, value: impl Fn(&str) -> String) -> String {
    let mut page = String::with_capacity(template.len() * 2);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        page.push_str(before);
        match after.split_once("}}") {
            Some((name, after)) => {
                page.push_str(&value(name));
                rest = after;
            }
            None => {
                page.push_str("{{");
                rest = after;
            }
        }
    }
    page.push_str(rest);
    page
}

/// Text in an element or in a quoted attribute.
pub(super) fn html(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in escape(text).chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

/// JSON in a script element: nothing in it ends that element or begins a comment, and it is a script's text in every
/// version of the language (U+2028 and U+2029 were line ends once).
pub(super) fn in_script(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(safe, "\\u{:04x}", u32::from(c));
            }
            c => safe.push(c),
        }
    }
    safe
}

fn notes(model: &Model) -> String {
    let mut notes = Vec::new();
    if model.left_out > 0 {
        notes.push(format!(
            "{} processes are not shown: {ROWS} are, those first that something was decided about, then the newest. The \
             numbers count all.",
            model.left_out
        ));
    }
    if model.marks_left_out > 0 {
        notes.push(format!(
            "{} marks are not shown: of one process {MARKS} are, the first and the last.",
            model.marks_left_out
        ));
    }
    if model.unknown > 0 {
        notes.push(format!("{} records of kinds that this version does not know.", model.unknown));
    }
    notes.iter().map(|note| format!("<p class=\"note\">{}</p>\n", html(note))).collect()
}

fn groups(model: &Model) -> String {
    let row = |(group, n): (&String, &Numbers)| {
        let Numbers {
            masters,
            masters_lost,
            orphaned,
            signals,
            rehearsed,
            left,
            spared,
            breakers,
            reaped_us,
        } = n;
        let nth = |part: usize| reaped_us.get(reaped_us.len().saturating_sub(1) * part / 100);
        let length = |us: Option<&u64>| us.map_or_else(|| "–".to_owned(), |us| duration(*us));
        let cells = [masters, masters_lost, orphaned, signals, &(reaped_us.len() as u64)];
        let cells: String = cells.iter().map(|n| format!("<td>{n}</td>")).collect();
        let times = format!("<td>{}</td><td>{}</td>", length(nth(50)), length(nth(100)));
        let more: String =
            [rehearsed, left, spared, breakers].iter().map(|n| format!("<td>{n}</td>")).collect();
        format!("<tr><th scope=\"row\">{}</th>{cells}{times}{more}</tr>\n", html(group))
    };
    model.groups.iter().map(row).collect()
}

fn process(row: &Row, zone: &TimeZone) -> String {
    let time = |at: Option<Millis>| {
        at.map_or_else(|| "–".to_owned(), |at| zoned(at, zone).strftime("%m-%d %H:%M:%S").to_string())
    };
    let lasted = row.orphaned.zip(row.end).map_or_else(|| "–".to_owned(), |(from, to)| in_words(to - from));
    let last = row.marks.iter().rev().find(|m| matches!(m.kind, "idle" | "busy" | "signal" | "would"));
    let fate = match (&*row.fate, row.end) {
        ("", None) => "there at the end",
        ("", Some(_)) => "ended",
        (fate, _) => fate,
    };
    format!(
        "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"argv\">{}</td></tr>\n",
        html(&row.group),
        row.pid,
        html(&row.comm),
        if row.master { "master" } else { "worker" },
        time(row.orphaned),
        lasted,
        html(fate),
        html(last.map_or("–", |mark| &mark.text)),
        html(&row.argv),
    )
}

fn in_words(ms: Millis) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "what is negative is nothing"
    )]
    let us = (ms * 1_000.0) as u64;
    duration(us)
}

fn duration(us: u64) -> String {
    span(us.saturating_mul(1_000))
}

fn zoned(ms: Millis, zone: &TimeZone) -> Zoned {
    #[expect(clippy::cast_possible_truncation, reason = "whole microseconds since 1970")]
    let us = (ms * 1_000.0) as i64;
    Timestamp::from_microsecond(us).unwrap_or_default().to_zoned(zone.clone())
}
