//! `reaper tail`: the event log, across rotation, live with `-f`.

use std::collections::VecDeque;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use clap::builder::PossibleValuesParser;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _, Zoned};
use serde_json::Value;

use crate::event_log::reader::Skipped;
use crate::event_log::{KINDS, Line, Reader};
use crate::output::{OutputFormat, escape_path, is_broken_pipe};

/// How many records `-f` shows of what was before.
const LAST: usize = 10;

/// Arguments of `reaper tail`.
#[derive(Args, Clone, Debug, Default)]
pub struct TailArgs {
    /// Go on as the log grows, across rotation
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last N records that match [default: all; with -f and without --since, 10]
    #[arg(short = 'n', long, value_name = "N")]
    pub lines: Option<usize>,
    /// Only records since then: 10m, 2h, today, 14:30, 2026-01-02, or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    pub since: Option<Timestamp>,
    /// Only these kinds
    #[arg(long, value_name = "KIND", value_delimiter = ',', value_parser = PossibleValuesParser::new(KINDS))]
    pub kind: Vec<String>,
    /// Only records of this group
    #[arg(long)]
    pub group: Option<String>,
    /// Only records about this process
    #[arg(long)]
    pub pid: Option<u32>,
    /// The log; - is stdin [default: the one of the agent's configuration, or /var/log/reaper/events.jsonl]
    pub file: Option<PathBuf>,
    /// The agent's configuration, which says where its log is [default: /etc/reaper/reaper.toml if it is there]
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    pub config: Option<PathBuf>,
}

/// Where records go, and how.
pub struct Sink<'a> {
    /// `--output`.
    pub format: OutputFormat,
    /// See [`ColorChoice::enabled`](crate::output::ColorChoice::enabled).
    pub color: bool,
    /// Of the times that people read.
    pub zone: TimeZone,
    /// The records.
    pub out: &'a mut dyn Write,
    /// Everything else: stderr.
    pub err: &'a mut dyn Write,
    /// With `-f`, waits a little when there is nothing new; `false` ends it.
    /// [`wait_while_read`](crate::output::wait_while_read) does for stdout.
    pub wait: &'a mut dyn FnMut() -> bool,
}

/// Prints the log. A reader of `out` that goes away ends it quietly.
///
/// # Errors
/// The log cannot be read; the command exits with 2.
pub fn run(args: &TailArgs, default_log: PathBuf, mut sink: Sink<'_>) -> anyhow::Result<ExitCode> {
    match tail(args, default_log, &mut sink) {
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        result => result.map(|()| ExitCode::SUCCESS),
    }
}

fn tail(args: &TailArgs, default_log: PathBuf, sink: &mut Sink<'_>) -> anyhow::Result<()> {
    let file = args.file.clone().unwrap_or(default_log);
    let path = if file == Path::new("-") { Path::new("/dev/stdin") } else { &file };
    let reading = || format!("cannot read the event log {}", file.display());

    let last = args.lines.or_else(|| (args.follow && args.since.is_none()).then_some(LAST));
    let (mut reader, lines) = match last {
        Some(last) => read_last(path, args, last),
        None => open(path, args).map(|reader| (reader, VecDeque::new())),
    }
    .with_context(reading)?;
    let mut printer = Printer::from_today(&sink.zone);
    for line in lines {
        printer.print(&line, sink)?;
    }

    if args.follow {
        reader.follow();
    }
    let mut told = Skipped::default();
    loop {
        while let Some(line) = reader.next_line().with_context(reading)? {
            if args.matches(&line) {
                printer.print(&line, sink)?;
            }
        }
        sink.out.flush()?;
        // While it grows, half a line is only one that is being written.
        let more = args.follow && reader.may_grow();
        let skipped = if more { Skipped { torn: told.torn, ..reader.skipped() } } else { reader.skipped() };
        if skipped != told {
            let Skipped { foreign, torn } = skipped;
            writeln!(
                sink.err,
                "reaper: {}: lines skipped: {foreign} that are no records, {torn} cut short",
                escape_path(&file)
            )?;
            told = skipped;
        }
        if !more || !(sink.wait)() {
            return Ok(());
        }
    }
}

fn open(path: &Path, args: &TailArgs) -> std::io::Result<Reader> {
    let mut reader = Reader::open(path)?;
    if let Some(since) = args.since {
        reader.skip_before(since.into());
    }
    Ok(reader)
}

/// The last records that match, and the reader behind them. Mostly they are in the newest file, so that alone is read
/// first.
fn read_last(path: &Path, args: &TailArgs, last: usize) -> std::io::Result<(Reader, VecDeque<Line>)> {
    let mut only = 1;
    loop {
        let mut reader = open(path, args)?;
        let files = reader.files();
        reader.only_newest(only);
        let mut lines = VecDeque::new();
        while let Some(line) = reader.next_line()? {
            if args.matches(&line) {
                lines.push_back(line);
                if lines.len() > last {
                    lines.pop_front();
                }
            }
        }
        if lines.len() >= last || only >= files {
            return Ok((reader, lines));
        }
        only = files.max(only + 1);
    }
}

impl TailArgs {
    /// Whether a record is wanted.
    fn matches(&self, line: &Line) -> bool {
        let pid = || line.record.pointer("/proc/pid").and_then(Value::as_u64);
        self.since.is_none_or(|since| line.ts >= since)
            && (self.kind.is_empty() || self.kind.contains(&line.kind))
            && self.group.as_deref().is_none_or(|group| line.record["group"] == group)
            && self.pid.is_none_or(|wanted| pid() == Some(wanted.into()))
    }
}

/// Prints records, and for people the day whenever it changes: lines show the time only. Without a day it is today, so that a line is
/// a record as long as nobody can mistake its day.
pub(super) struct Printer {
    day: Date,
}

impl Printer {
    pub(super) fn from_today(zone: &TimeZone) -> Self {
        Self { day: Zoned::now().with_time_zone(zone.clone()).date() }
    }

    fn print(&mut self, line: &Line, sink: &mut Sink<'_>) -> std::io::Result<()> {
        if sink.format == OutputFormat::Json {
            return writeln!(sink.out, "{}", line.raw);
        }
        self.print_human(line, (sink.color, &sink.zone), sink.out)
    }

    /// For people, in colours or not and in their time zone.
    pub(super) fn print_human(
        &mut self,
        line: &Line,
        (color, zone): (bool, &TimeZone),
        out: &mut dyn Write,
    ) -> std::io::Result<()> {
        let day = line.ts.to_zoned(zone.clone()).date();
        if std::mem::replace(&mut self.day, day) != day {
            writeln!(out, "-- {day} --")?;
        }
        writeln!(out, "{}", line.human(color, zone))
    }
}

/// `--since`, from now, in the local time zone.
pub(super) fn parse_since(text: &str) -> Result<Timestamp, String> {
    since(text, &Zoned::now()).ok_or_else(|| {
        "expected a length of time (10m, 2h), today, yesterday, a time (14:30), a date (2026-01-02), or RFC 3339".to_owned()
    })
}

fn since(text: &str, now: &Zoned) -> Option<Timestamp> {
    let text = text.trim();
    let zone = now.time_zone();
    let local = |time: DateTime| time.to_zoned(zone.clone()).ok().map(|zoned| zoned.timestamp());
    match text {
        "now" => return Some(now.timestamp()),
        "today" => return local(now.date().into()),
        "yesterday" => return local(now.date().yesterday().ok()?.into()),
        _ => {}
    }
    if let Ok(ago) = humantime::parse_duration(text.strip_suffix("ago").unwrap_or(text)) {
        return now.timestamp().checked_sub(ago).ok();
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    if let Ok(time) = Time::strptime("%H:%M:%S", text).or_else(|_| Time::strptime("%H:%M", text)) {
        // The last time it was that late: in the evening's terminal at one in the morning, 23:00 is two hours ago.
        let today = local(now.date().to_datetime(time))?;
        return if today <= now.timestamp() {
            Some(today)
        } else {
            local(now.date().checked_sub(1.day()).ok()?.to_datetime(time))
        };
    }
    text.parse::<DateTime>().ok().and_then(local)
}

#[cfg(test)]
mod tests;
