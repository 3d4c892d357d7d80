//! `reaper replay`: what was recorded, decided once more by another configuration.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::progress::Progress;
use super::tail::Printer;
use crate::config::Config;
use crate::core::ids::Ns;
use crate::core::records::Record;
use crate::core::rules::{Mode, Rules};
use crate::event_log::{Line, Reader, line};
use crate::output::{OutputFormat, escape, escape_path};
use crate::recording::{Broken, Recording, is_recording};
use crate::replay::{Replayed, Script, Summary, compare, replay};

/// So many broken lines are told one by one.
const TOLD: usize = 10;

/// Arguments of `reaper replay`.
#[derive(Args, Clone, Debug)]
pub struct ReplayArgs {
    /// An event log (best written with log_level = "all"), or a recording of `reaper run --record`
    pub log: PathBuf,
    /// The configuration that decides
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The pid of the agent that recorded, if the recording does not say
    #[arg(long, value_name = "PID")]
    pub agent: Option<u32>,
}

/// Where the outcome goes.
pub struct Sink<'a> {
    /// `--output`.
    pub format: OutputFormat,
    /// See [`ColorChoice::enabled`](crate::output::ColorChoice::enabled).
    pub color: bool,
    /// Of the times that people read.
    pub zone: TimeZone,
    /// Records and the summary.
    pub out: &'a mut dyn Write,
    /// Everything else: stderr.
    pub err: &'a mut dyn Write,
}

/// Replays, and prints the records that would have been written; for people also what is different.
///
/// # Errors
/// The configuration is not valid, or the log cannot be read, or is neither an event log nor a recording: exit status 2.
pub fn run(args: &ReplayArgs, sink: &mut Sink<'_>) -> anyhow::Result<ExitCode> {
    let config = Config::load(&args.config)?;
    for warning in &config.warnings {
        writeln!(sink.err, "reaper: {warning}")?;
    }
    let script = read(args, &config.rules, sink)?;
    for note in &script.notes {
        writeln!(sink.err, "reaper: note: {}", escape(note))?;
    }
    let mut progress = Progress::new("replay");
    let replayed = replay(&script, &config.rules, |done, of| progress.at(done as u64, of as u64));
    drop(progress);
    let mut printer = Printer::from_today(&sink.zone);
    for (seq, record) in (1..).zip(&replayed.records) {
        print(&script, seq, record, &mut printer, sink)?;
    }
    if sink.format == OutputFormat::Human {
        summary(&script, &config.rules, &replayed, sink.out)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn read(args: &ReplayArgs, rules: &Rules, sink: &mut Sink<'_>) -> anyhow::Result<Script> {
    let reading = || format!("cannot read {}", args.log.display());
    if is_recording(&args.log).with_context(reading)? {
        let size = std::fs::metadata(&args.log).with_context(reading)?.len();
        let mut progress = Progress::new("reading");
        let recording = Recording::read(&args.log, |bytes| progress.at(bytes, size)).with_context(reading)?;
        drop(progress);
        tell_broken(&args.log, &recording.broken, sink.err)?;
        return Ok(Script::of_recording(recording, args.agent));
    }
    let mut reader = Reader::open(&args.log).with_context(reading)?;
    let (mut lines, mut unknown) = (Vec::new(), 0);
    let mut progress = Progress::new("reading records");
    while let Some(line) = reader.next_line().with_context(reading)? {
        progress.count();
        match serde_json::from_value::<Record>(line.record) {
            Ok(record) => lines.push((line.ts, record)),
            Err(_) => unknown += 1,
        }
    }
    drop(progress);
    if unknown > 0 {
        writeln!(
            sink.err,
            "reaper: {}: {unknown} records of kinds or shapes that this version does not know are left out",
            escape_path(&args.log)
        )?;
    }
    tell_skipped(&reader, sink.err)?;
    anyhow::ensure!(
        !lines.is_empty(),
        "{} has no records: it is neither an event log nor a recording of `reaper run --record`",
        args.log.display()
    );
    Ok(Script::of_log(lines, rules))
}

/// What is no record, as `reaper tail` counts it, and where.
pub(super) fn tell_skipped(reader: &Reader, err: &mut dyn Write) -> std::io::Result<()> {
    let skipped = reader.skipped();
    for place in reader.places() {
        writeln!(err, "reaper: {}:{}: no record, left out", escape_path(&place.file), place.line)?;
    }
    if skipped.foreign + skipped.torn > 0 {
        let (foreign, torn) = (skipped.foreign, skipped.torn);
        writeln!(err, "reaper: lines skipped: {foreign} that are no records, {torn} cut short")?;
    }
    Ok(())
}

fn tell_broken(file: &Path, broken: &[Broken], err: &mut dyn Write) -> std::io::Result<()> {
    for Broken { line, why } in broken.iter().take(TOLD) {
        writeln!(err, "reaper: {}:{line}: left out: {}", escape_path(file), escape(why))?;
    }
    if !broken.is_empty() {
        writeln!(
            err,
            "reaper: {}: {} lines left out; a core that misses an input may decide otherwise",
            escape_path(file),
            broken.len()
        )?;
    }
    Ok(())
}

/// As `reaper tail` prints it. Times since boot are of no day.
fn print(
    script: &Script,
    seq: u64,
    record: &Record,
    printer: &mut Printer,
    sink: &mut Sink<'_>,
) -> anyhow::Result<()> {
    let mut text = Vec::new();
    line::append(&mut text, seq, wall(script, record.boot_ns), record)?;
    if sink.format == OutputFormat::Json {
        sink.out.write_all(&text)?;
    } else if let Some(line) = Line::parse(&text) {
        if script.clock.is_some() {
            printer.print_human(&line, (sink.color, &sink.zone), sink.out)?;
        } else {
            writeln!(sink.out, "{}", line.human(sink.color, &sink.zone))?;
        }
    }
    Ok(())
}

/// When that was. Without a clock times count from boot.
fn wall(script: &Script, boot_ns: Ns) -> Timestamp {
    let (from, wall) = script.clock.unwrap_or((0, Timestamp::UNIX_EPOCH));
    let away = SignedDuration::from_nanos_i128(i128::from(boot_ns) - i128::from(from));
    wall.checked_add(away).unwrap_or(wall)
}

fn summary(script: &Script, rules: &Rules, replayed: &Replayed, out: &mut dyn Write) -> std::io::Result<()> {
    let observing: BTreeSet<String> =
        rules.groups.iter().filter(|g| g.mode == Mode::Observe).map(|g| g.name.clone()).collect();
    let Summary { groups, differences } = compare(script.records.as_deref(), replayed, &observing);
    writeln!(out)?;
    if groups.is_empty() {
        return writeln!(out, "no group found anybody");
    }
    let wide = groups.values().flatten().map(|row| row.what.len() + 2).chain(groups.keys().map(String::len));
    let wide = wide.max().unwrap_or_default();
    writeln!(out, "{:wide$}  recorded  here", "")?;
    for (group, rows) in &groups {
        writeln!(out, "{}", escape(group))?;
        for row in rows {
            let there = row.there.map_or_else(|| "?".to_owned(), |n| n.to_string());
            writeln!(out, "  {:2$}  {there:>8}  {:>4}", row.what, row.here, wide - 2)?;
        }
    }
    writeln!(out)?;
    if script.records.is_none() {
        return writeln!(out, "What the recorded agent decided is not in the recording.");
    }
    if differences.is_empty() {
        return writeln!(out, "The same decisions as recorded.");
    }
    writeln!(out, "Different:")?;
    for difference in &differences {
        let (pid, comm) = (difference.proc.pid, escape(&difference.proc.comm));
        writeln!(out, "  {pid} ({comm}): {}", escape(&difference.what))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
