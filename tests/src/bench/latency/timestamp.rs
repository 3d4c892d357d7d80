//! When a record was written, on the clock of the kernel's events.

use std::time::{SystemTime, UNIX_EPOCH};

use reaper::clock;

use crate::log::Record;

/// What to take from a record's `ts` to get its `boot_ns`.
pub(super) fn real_minus_boot() -> i128 {
    let real = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i128::try_from(real.as_nanos()).unwrap() - i128::from(clock::now())
}

/// When a record was written, in nanoseconds of `CLOCK_BOOTTIME`.
pub(super) fn boot_ns_written(record: &Record, offset: i128) -> i128 {
    i128::from(real_ns(record.text("ts"))) - offset
}

/// Nanoseconds since 1970 of `2025-01-31T23:59:59.123456789Z`.
fn real_ns(ts: &str) -> u64 {
    let number = |at: std::ops::Range<usize>| ts[at].parse::<u64>().unwrap();
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    // Days since 1970, the year beginning in March so that its last day may be the leap day.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 719_469;
    let seconds = number(11..13) * 3600 + number(14..16) * 60 + number(17..19);
    (days * 86_400 + seconds) * 1_000_000_000 + number(20..29)
}

#[cfg(test)]
mod tests {
    use super::real_ns;

    #[test]
    fn dates_are_read() {
        assert_eq!(real_ns("1970-01-01T00:00:00.000000001Z"), 1);
        assert_eq!(real_ns("2000-02-29T12:00:00.000000000Z"), 951_825_600_000_000_000);
        assert_eq!(real_ns("2026-11-21T08:01:05.561623808Z"), 1_795_248_065_561_623_808);
    }
}
