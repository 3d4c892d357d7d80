//! The table of `docs/drills.md`.

use std::fmt::Write;

use super::{Comparison, Facts};

const HEAD: &str = "\
| drill | kills | jobs started | ended | lost by reaper | lost by the framework itself | orphans | stopped | left | stayed \
| signals to busy | to one with a master | innocents hurt | idle to gone p50 / p99 / worst, ms (limit) \
| cron script: jobs lost | signals to busy | orphans stopped / left / stayed | idle to gone p50 / worst, ms |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
";

/// One line per drill, in Markdown.
pub fn table(drills: &[Comparison]) -> String {
    let mut text = HEAD.to_owned();
    for drill in drills {
        let f = &drill.reaper;
        let cron = drill.cron.as_ref().map_or_else(|| "| – | – | – | –".into(), cron);
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} / {} / {} ({}) {cron} |",
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
            f.busy_signalled,
            f.mastered_signalled,
            f.innocents_hurt,
            ms(f, 50),
            ms(f, 99),
            ms(f, 100),
            f.limit.as_millis(),
        )
        .unwrap();
    }
    text
}

fn cron(f: &Facts) -> String {
    format!(
        "| {} | {} | {} / {} / {} | {} / {}",
        f.lost_by_signal,
        f.busy_signalled,
        f.stopped,
        f.left,
        f.stayed,
        ms(f, 50),
        ms(f, 100)
    )
}

fn ms(facts: &Facts, per_cent: usize) -> String {
    facts.within(per_cent).map_or_else(|| "–".into(), |took| took.as_millis().to_string())
}
