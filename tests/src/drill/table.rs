//! The tables of `docs/drills.md`.

use std::fmt::Write;

use super::facts::within;
use super::{Comparison, Facts};

const PROMISES: &str = "\
| drill | kills | jobs started | ended | lost by reaper | lost by the framework itself | orphans | stopped / left / stayed \
| workers at the end (of a master) | signals to busy / to one with a master | innocents hurt |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
";

const TIMES: &str = "\
| drill | idle to signal p50 / p99 / worst, ms | limit | idle to gone p50 / p99 / worst, ms | limit |
| --- | --- | --- | --- | --- |
";

const CRON: &str = "\
| drill | jobs started | lost by the script | by the framework itself | signals to busy | orphans | stopped / left / stayed \
| workers at the end (of a master) | idle to gone p50 / worst, ms |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
";

/// In Markdown: which promises were kept, how long it took, and the same with the cron script's rule where that was run.
pub fn table(drills: &[Comparison]) -> String {
    let mut text = PROMISES.to_owned();
    text.extend(drills.iter().map(|drill| promises(drill.name, &drill.reaper)));
    text.push('\n');
    text.push_str(TIMES);
    text.extend(drills.iter().map(|drill| times(drill.name, &drill.reaper)));
    let beside: Vec<_> = drills.iter().filter_map(|drill| Some((drill.name, drill.cron.as_ref()?))).collect();
    if !beside.is_empty() {
        text.push_str("\nThe cron script's rule, once a second:\n\n");
        text.push_str(&cron_table(&beside));
    }
    text
}

/// Runs with the cron script's rule, by the names of their drills.
pub fn cron_table(runs: &[(&str, &Facts)]) -> String {
    let mut text = CRON.to_owned();
    text.extend(runs.iter().map(|(name, facts)| cron(name, facts)));
    text
}

fn promises(name: &str, f: &Facts) -> String {
    let mut row = format!("| {name} | {} | {} | {} | {} ", f.kills, f.started, f.ended, f.lost_by_signal);
    writeln!(
        row,
        "| {} | {} | {} | {} ({}) | {} / {} | {} |",
        f.lost_by_itself,
        f.orphans,
        ends(f),
        f.crew,
        f.wanted,
        f.busy_signalled,
        f.mastered_signalled,
        f.innocents_hurt
    )
    .unwrap();
    row
}

fn times(name: &str, f: &Facts) -> String {
    let three = |took: &[u64]| format!("{} / {} / {}", ms(took, 50), ms(took, 99), ms(took, 100));
    let (signal, gone) = (f.limit.as_millis(), (f.limit + f.farewell).as_millis());
    format!("| {name} | {} | {signal} | {} | {gone} |\n", three(&f.aimed), three(&f.took))
}

fn cron(name: &str, f: &Facts) -> String {
    let mut row = format!("| {name} | {} | {} | {} ", f.started, f.lost_by_signal, f.lost_by_itself);
    let (p50, worst) = (ms(&f.took, 50), ms(&f.took, 100));
    let Facts { busy_signalled, orphans, crew, wanted, .. } = f;
    writeln!(row, "| {busy_signalled} | {orphans} | {} | {crew} ({wanted}) | {p50} / {worst} |", ends(f))
        .unwrap();
    row
}

fn ends(f: &Facts) -> String {
    format!("{} / {} / {}", f.stopped, f.left, f.stayed)
}

fn ms(sorted: &[u64], per_cent: usize) -> String {
    within(sorted, per_cent).map_or_else(|| "–".into(), |took| took.as_millis().to_string())
}
