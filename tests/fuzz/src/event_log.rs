//! A log and its rotated files as any bytes, read to the end and shown: nothing that a terminal acts on comes through.

use std::fs;

use jiff::tz::TimeZone;
use reaper::event_log::{Line, Reader, render};
use reaper::output::is_printable;

/// Between the files, newest first.
const NEXT_FILE: &[u8] = b"\n--\n";

/// Takes the bytes for up to three files.
pub fn run(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("events.jsonl");
    let mut lines = 0;
    let mut rest = bytes;
    for n in 0..3 {
        let path = if n == 0 { log.clone() } else { folder.path().join(format!("events.jsonl.{n}")) };
        let end = rest.windows(NEXT_FILE.len()).position(|w| w == NEXT_FILE).filter(|_| n < 2);
        let (file, after) = end.map_or((rest, None), |end| (&rest[..end], rest.get(end + NEXT_FILE.len()..)));
        lines += file.iter().filter(|b| **b == b'\n').count();
        fs::write(&path, file).expect("a file");
        let Some(after) = after else { break };
        rest = after;
    }
    let mut reader = Reader::open(&log).expect("the log");
    let mut read = 0;
    while let Some(line) = reader.next_line().expect("a regular file") {
        read += 1;
        check(&line);
    }
    let skipped = reader.skipped();
    assert_eq!(read + usize::try_from(skipped.foreign).expect("a few"), lines);
}

fn check(line: &Line) {
    let shown = line.human(false, &TimeZone::UTC);
    assert!(shown.chars().all(is_printable), "{shown:?}");
    // In colour, only the colours are added.
    let colour = line.human(true, &TimeZone::UTC);
    assert!(colour.chars().all(|c| is_printable(c) || c == '\x1b'), "{colour:?}");
    assert!(colour.matches('\x1b').count() <= 4, "{colour:?}");
    let shown = render::human_at(&line.record, false, &TimeZone::UTC);
    assert!(shown.chars().all(is_printable), "{shown:?}");
}
