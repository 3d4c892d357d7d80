//! `reaper report`: one page about an event log, a file that needs nothing else.
//!
//! `model` makes of the records what the page shows, `page` puts it into the templates beside it. What comes from processes is escaped
//! twice: what no terminal may see, as everywhere, and then for HTML, or for JSON in a script.

mod model;
mod page;

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::progress::Progress;
use super::replay::tell_skipped;
use super::tail::parse_since;
use crate::core::records::Record;
use crate::event_log::Reader;
use crate::output::escape_path;
use model::Model;

/// Arguments of `reaper report`.
#[derive(Args, Clone, Debug)]
#[command(override_usage = "reaper report [LOG | --config FILE] [--since TIME] -o FILE.html")]
pub struct ReportArgs {
    /// The log; - is stdin [default: the one of the agent's configuration, or /var/log/reaper/events.jsonl]
    pub log: Option<PathBuf>,
    /// The agent's configuration, which says where its log is [default: /etc/reaper/reaper.toml if it is there]
    #[arg(long, value_name = "FILE", conflicts_with = "log")]
    pub config: Option<PathBuf>,
    /// Only records since then: 10m, 2h, today, 14:30, 2026-01-02, or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    pub since: Option<Timestamp>,
    /// Where the page goes; - is stdout
    #[arg(short = 'o', long = "out", value_name = "FILE.html|-")]
    pub out: PathBuf,
}

/// Writes the page. A file that is there is replaced in one step, and only by a whole page.
///
/// # Errors
/// The log cannot be read or has no records (since then), or the page cannot be written.
pub fn run(
    args: &ReportArgs,
    default_log: PathBuf,
    zone: &TimeZone,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let log = args.log.clone().unwrap_or(default_log);
    let model = read(&log, args.since, err)?;
    anyhow::ensure!(
        model.records > 0,
        "{} has no records{}: there is nothing to report",
        log.display(),
        if args.since.is_some() { " since then" } else { "" }
    );
    let page = page::render(&model, &log.display().to_string(), zone)?;
    if args.out == Path::new("-") {
        out.write_all(page.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    replace(&args.out, page.as_bytes())
        .with_context(|| format!("cannot write the page {}", args.out.display()))?;
    writeln!(err, "reaper: {}: {} records", escape_path(&args.out), model.records)?;
    Ok(ExitCode::SUCCESS)
}

fn read(log: &Path, since: Option<Timestamp>, err: &mut dyn Write) -> anyhow::Result<Model> {
    let reading = || format!("cannot read the event log {}", log.display());
    let path = if log == Path::new("-") { Path::new("/dev/stdin") } else { log };
    let mut reader = Reader::open(path).with_context(reading)?;
    if let Some(since) = since {
        reader.skip_before(since.into());
    }
    let mut model = Model::default();
    let mut progress = Progress::new("reading records");
    while let Some(line) = reader.next_line().with_context(reading)? {
        progress.count();
        if since.is_some_and(|since| line.ts < since) {
            continue;
        }
        match serde_json::from_value::<Record>(line.record) {
            Ok(record) => model.take(line.ts, &record),
            Err(_) => model.unknown += 1,
        }
    }
    drop(progress);
    tell_skipped(&reader, err)?;
    model.finish();
    Ok(model)
}

/// Command lines are in it: only its owner reads it, until they decide otherwise.
fn replace(path: &Path, page: &[u8]) -> anyhow::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(page)?;
    file.as_file().set_permissions(Permissions::from_mode(0o600))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}

#[cfg(test)]
mod tests;
