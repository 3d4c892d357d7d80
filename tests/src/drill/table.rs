//! The table of `docs/drills.md`.

use std::fmt::Write;

use super::facts::within;
use super::{Comparison, Facts};

const HEAD: &str = "\
| drill | kills | jobs started | ended | lost by reaper | lost by the framework itself | orphans | stopped | left | stayed | workers at the end (of a master) \
| signals to busy | to one with a master | innocents hurt | idle to signal p50 / p99 / worst, ms (limit) \
| idle to gone p50 / p99 / worst, ms \
| cron script: jobs lost | signals to busy | orphans stopped / left / stayed; workers at the end | idle to gone p50 / worst, ms |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
";

/// One line per drill, in Markdown.
pub fn table(drills: &[Comparison]) -> String {
    let mut text = HEAD.to_owned();
    for drill in drills {
        let f = &drill.reaper;
        let cron = drill.cron.as_ref().map_or_else(|| "| – | – | – | –".into(), cron);
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} ({}) | {} | {} | {} | {} / {} / {} ({}) | {} / {} / {} {cron} |",
            drill.name,
            f.kills,
            f.started,
            f.ended,
            f.lost_by_signal,
            f.lost_by_itself,
            f.orphans,
            f.stopped,
            f.left,
            f.stayed,
            f.crew,
            f.wanted,
            f.busy_signalled,
            f.mastered_signalled,
            f.innocents_hurt,
            ms(&f.aimed, 50),
            ms(&f.aimed, 99),
            ms(&f.aimed, 100),
            f.limit.as_millis(),
            ms(&f.took, 50),
            ms(&f.took, 99),
            ms(&f.took, 100),
        )
        .unwrap();
    }
    text
}

fn cron(f: &Facts) -> String {
    format!(
        "| {} | {} | {} / {} / {}; {} | {} / {}",
        f.lost_by_signal,
        f.busy_signalled,
        f.stopped,
        f.left,
        f.stayed,
        f.crew,
        ms(&f.took, 50),
        ms(&f.took, 100)
    )
}

fn ms(sorted: &[u64], per_cent: usize) -> String {
    within(sorted, per_cent).map_or_else(|| "–".into(), |took| took.as_millis().to_string())
}
