//! Lengths of time and verdicts as people say them, the same everywhere.

use std::borrow::Cow;

use crate::core::ids::{MS, Ns, SECOND};
use crate::core::records::{Evidence, Verdict};

const MINUTE: Ns = 60 * SECOND;
const HOUR: Ns = 60 * MINUTE;
const DAY: Ns = 24 * HOUR;

/// A length of time in the one or two units that matter: `40 us`, `120 ms`, `3.4 s`, `12 s`, `5 min`, `2 h 10 min`, `3 d 4 h`.
pub fn span(ns: Ns) -> String {
    let two = |large: Ns, name: &str, small: Ns, rest: &str| match (ns / large, ns % large / small) {
        (n, 0) => format!("{n} {name}"),
        (n, m) => format!("{n} {name} {m} {rest}"),
    };
    match ns {
        0 => "0 s".to_owned(),
        1..MS => format!("{} us", ns.div_ceil(1_000)),
        MS..SECOND => format!("{} ms", ns / MS),
        // A tenth only where there is one.
        SECOND..10_000_000_000 if ns % SECOND >= 100 * MS => {
            format!("{}.{} s", ns / SECOND, ns % SECOND / (100 * MS))
        }
        SECOND..MINUTE => format!("{} s", ns / SECOND),
        MINUTE..HOUR => two(MINUTE, "min", SECOND, "s"),
        HOUR..DAY => two(HOUR, "h", MINUTE, "min"),
        DAY.. => two(DAY, "d", HOUR, "h"),
    }
}

/// A verdict. What unknown means is said with it.
pub fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Idle => "idle",
        Verdict::Busy => "busy",
        Verdict::Unknown => "unknown, which counts as busy",
    }
}

/// Why, where `busy` stands beside it, or only a word: that the verdict is unknown is said first.
pub fn because(evidence: &Evidence) -> Cow<'_, str> {
    match evidence.verdict {
        Verdict::Unknown => format!("{}: {}", verdict(Verdict::Unknown), evidence.because).into(),
        Verdict::Idle | Verdict::Busy => (&*evidence.because).into(),
    }
}

/// `1 worker`, `3 workers`, `2 processes`.
pub fn count(n: usize, what: &str) -> String {
    let many = match what {
        _ if n == 1 => "",
        what if what.ends_with('s') => "es",
        _ => "s",
    };
    format!("{n} {what}{many}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_is_said_to_count_as_busy() {
        let of = |verdict| Evidence {
            verdict,
            because: "it may share it".to_owned(),
            threads: vec![],
            cpu_us: 0,
            children: 0,
            quiet_us: 0,
        };
        assert_eq!(because(&of(Verdict::Busy)), "it may share it");
        assert_eq!(because(&of(Verdict::Unknown)), "unknown, which counts as busy: it may share it");
    }

    #[test]
    fn lengths_of_time() {
        let shown = [
            0,
            1,
            999_999,
            120 * MS,
            SECOND,
            3_450 * MS,
            12_900 * MS,
            5 * MINUTE,
            61 * SECOND,
            2 * HOUR + 10 * MINUTE,
            DAY + 59 * MINUTE,
            400 * DAY + HOUR,
        ]
        .map(span);
        assert_eq!(
            shown,
            [
                "0 s",
                "1 us",
                "1000 us",
                "120 ms",
                "1 s",
                "3.4 s",
                "12 s",
                "5 min",
                "1 min 1 s",
                "2 h 10 min",
                "1 d",
                "400 d 1 h"
            ]
        );
        assert_eq!([0, 1, 2].map(|n| count(n, "process")), ["0 processes", "1 process", "2 processes"]);
    }
}
