//! The writer and the reader against real files.

use std::fs;
use std::io;
use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::core::records::{Event, Record};

fn error(what: &str) -> Record {
    Record { boot_ns: 1, event: Event::Error { what: what.to_owned(), proc: None } }
}

fn open(path: &Path, max_size: u64, keep: u32) -> EventLog {
    EventLog::open(&LogTarget::from(path), max_size, keep).expect("it opens")
}

fn temp() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("deeper").join("events.jsonl");
    (dir, path)
}

/// Writes and flushes one record for each.
fn write(log: &mut EventLog, texts: &[&str]) {
    for text in texts {
        log.write(&error(text)).expect("it is kept");
    }
    log.flush().expect("it is written");
}

/// Every record's number and text that a reader has now.
fn more(reader: &mut Reader) -> Vec<(u64, String)> {
    let mut all = Vec::new();
    while let Some(line) = reader.next_line().expect("it can be read") {
        all.push((line.seq, line.record["what"].as_str().expect("a text").to_owned()));
    }
    all
}

fn read(path: &Path) -> Vec<(u64, String)> {
    let mut reader = Reader::open(path).expect("it opens");
    let all = more(&mut reader);
    assert_eq!(reader.skipped(), reader::Skipped::default());
    all
}

fn seqs(records: &[(u64, String)]) -> Vec<u64> {
    records.iter().map(|r| r.0).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever processes are called: every line is a record, none is missing but those rotated away, none comes twice.
    #[test]
    fn every_line_is_whole(
        texts in prop::collection::vec((".{0,40}|\\PC{0,300}|[\\x00-\\x1f\u{7f}-\u{9f}\u{2028}\u{202e}\"\\\\]{0,30}", any::<bool>(), prop::bool::weighted(0.1)), 1..60),
        max_size in 300_u64..3000,
        keep in 0_u32..5,
    ) {
        let (dir, path) = temp();
        let mut log = open(&path, max_size, keep);
        for (n, (text, flush, reopen)) in (1..).zip(&texts) {
            prop_assert_eq!(log.write(&error(text)).expect("kept"), n);
            if *flush {
                log.flush().expect("written");
            }
            if *reopen {
                drop(log);
                log = open(&path, max_size, keep);
            }
        }
        drop(log);
        let records = read(&path);
        let total = texts.len() as u64;
        prop_assert_eq!(records.last().expect("one at least").0, total);
        let first = records[0].0;
        prop_assert_eq!(seqs(&records), (first..=total).collect::<Vec<_>>());
        for (seq, text) in &records {
            prop_assert_eq!(text, &texts[usize::try_from(seq - 1).expect("small")].0);
        }
        let files = fs::read_dir(path.parent().expect("one")).expect("it is there").count();
        prop_assert!(files <= keep as usize + 1);
        prop_assert!(first == 1 || files == keep as usize + 1, "lost although there was room");
        for n in 0..=keep {
            let Ok(bytes) = fs::read(numbered(&path, n)) else { continue };
            let text = String::from_utf8(bytes).expect("UTF-8");
            prop_assert!(text.lines().count() <= 1 || text.len() as u64 <= max_size);
            prop_assert!(text.chars().all(|c| c == '\n' || crate::output::is_printable(c)));
        }
        drop(dir);
    }

    /// The reader takes any bytes: it neither panics nor loses the records between them.
    #[test]
    fn foreign_bytes_do_no_harm(junk in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..10)) {
        let (_dir, path) = temp();
        let mut log = open(&path, 0, 0);
        for junk in &junk {
            write(&mut log, &["a record"]);
            let mut bytes = fs::read(&path).expect("it is there");
            bytes.extend(junk);
            bytes.push(b'\n');
            fs::write(&path, bytes).expect("it can be written");
        }
        if !junk.is_empty() {
            let mut reader = Reader::open(&path).expect("it opens");
            prop_assert_eq!(more(&mut reader).len(), junk.len());
            prop_assert!(reader.skipped().foreign >= junk.len() as u64);
        }
    }
}

#[test]
fn modes_of_what_is_made() {
    use std::os::unix::fs::PermissionsExt;
    let (_dir, path) = temp();
    drop(open(&path, 0, 0));
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    // Whatever the umask of the tests is, it only takes away.
    assert_eq!(mode(&path) & !0o640, 0);
    assert_eq!(mode(path.parent().expect("one")) & !0o750, 0);
}

#[test]
fn what_cannot_be_a_log_is_refused_by_name() {
    let (dir, path) = temp();
    let refused = |path: &Path| EventLog::open(&path.into(), 0, 0).expect_err("refused").to_string();
    assert!(
        refused(dir.path()).starts_with(&format!("cannot open the event log {}: ", dir.path().display()))
    );
    let _first = open(&path, 0, 0);
    assert_eq!(refused(&path), format!("another agent writes to the event log {}", path.display()));
    let below = path.join("file");
    assert!(
        refused(&below)
            .starts_with(&format!("cannot create the directory of the event log {}: ", below.display()))
    );
}

#[test]
fn devices_are_logs_too() {
    let mut null = open(Path::new("/dev/null"), 10, 1);
    write(&mut null, &["one", "two"]);
    let mut full = open(Path::new("/dev/full"), 10, 1);
    assert_eq!(full.write(&error("x")).expect("kept"), 1);
    assert_eq!(full.flush().expect_err("it is full").kind(), io::ErrorKind::StorageFull);
    assert!(full.failing().is_some());
}

#[test]
fn a_torn_last_line_is_cut_off_and_a_foreign_one_ended() {
    for (tail, mended) in [
        ("{\"v\":1,\"seq\":3,\"ts\":\"2026-01", ""),
        ("{", ""),
        ("\0\0\0\0", ""),
        ("127.0.0.1 localhost", "127.0.0.1 localhost\n"),
        (
            r#"{"v":1,"seq":7,"ts":"2026-01-02T03:04:05.123456789Z","boot_ns":1,"kind":"error","what":"whole"}"#,
            "{\"v\":1,\"seq\":7,\"ts\":\"2026-01-02T03:04:05.123456789Z\",\"boot_ns\":1,\"kind\":\"error\",\"what\":\"whole\"}\n",
        ),
    ] {
        let (_dir, path) = temp();
        let mut log = open(&path, 0, 0);
        write(&mut log, &["one", &"x".repeat(70_000)]);
        drop(log);
        let before = fs::read_to_string(&path).expect("it is there");
        fs::write(&path, format!("{before}{tail}")).expect("written");
        let log = open(&path, 0, 0);
        assert_eq!(fs::read_to_string(&path).expect("it is there"), format!("{before}{mended}"), "{tail:?}");
        assert_eq!(log.next_seq(), if tail.contains("whole") || mended.contains("whole") { 8 } else { 3 });
    }
}

#[test]
fn numbers_go_on_after_a_crash_just_after_a_rotation() {
    let (_dir, path) = temp();
    write(&mut open(&path, 0, 3), &["one", "two"]);
    fs::rename(&path, numbered(&path, 2)).expect("renamed");
    assert_eq!(open(&path, 0, 3).next_seq(), 3);
}

#[test]
fn records_wait_for_a_full_disk_and_lost_ones_are_counted() {
    let (_dir, path) = temp();
    let mut log = open(Path::new("/dev/full"), 0, 0);
    log.set_bound(400);
    let kept: Vec<_> = (0..10).filter(|_| log.write(&error("waits")).is_ok()).collect();
    log.flush().expect_err("it is full");
    assert_eq!(log.next_seq(), 11);
    assert_eq!(log.lost(), 10 - kept.len() as u64);
    // There is room again.
    let target = LogTarget::File(path.clone());
    log.replace_file(&target).expect("it opens");
    log.flush().expect("it is written");
    log.write(&error("after")).expect("kept");
    drop(log);
    let records = read(&path);
    let last = kept.len() as u64;
    assert_eq!(seqs(&records), (1..=last).chain([11, 12]).collect::<Vec<_>>());
    let says = format!("{} records ({} to 10) could not be written", 10 - last, last + 1);
    assert!(records[kept.len()].1.starts_with(&says), "{records:?}");
}

/// A limit on the file's size is what a full disk is: a short write, then an error. It is per process, hence a child.
#[test]
fn a_full_disk_leaves_whole_lines() {
    const CHILD: &str = "REAPER_TEST_FULL_DISK";
    let Some(path) = std::env::var_os(CHILD).map(PathBuf::from) else {
        let (_dir, path) = temp();
        let test = std::env::current_exe().expect("we are a program");
        // The shell sets the limit (8 blocks of 512 or 1024 bytes) and has the signal ignored: no unsafe code here.
        let script = "trap '' XFSZ; ulimit -S -f 8; exec \"$0\" --exact event_log::tests::a_full_disk_leaves_whole_lines";
        let done = std::process::Command::new("sh").args(["-c", script]).arg(test).env(CHILD, &path).output();
        let done = done.expect("there is a shell");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
        assert_eq!(seqs(&read(&path)), (1..=40).collect::<Vec<_>>());
        return;
    };
    let mut log = open(&path, 0, 0);
    let mut failures = 0;
    for n in 0..40 {
        log.write(&error(&"x".repeat(200 + n * 7))).expect("kept");
        failures += u32::from(log.flush().is_err());
        let text = fs::read_to_string(&path).expect("it is there");
        assert!(text.ends_with('\n'));
        assert!(text.lines().all(|line| Line::parse(line.as_bytes()).is_some()));
    }
    assert!(failures > 0, "the limit did not bite");
    use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
    setrlimit(Resource::RLIMIT_FSIZE, RLIM_INFINITY, RLIM_INFINITY).expect("up to the hard limit");
    log.flush().expect("there is room again");
}

#[test]
fn logrotate_moves_or_removes_the_file() {
    let (dir, path) = temp();
    let mut log = open(&path, 0, 0);
    write(&mut log, &["one"]);
    let moved = dir.path().join("moved");
    fs::rename(&path, &moved).expect("renamed");
    write(&mut log, &["two"]);
    fs::remove_file(&path).expect("removed");
    write(&mut log, &["three"]);
    // copytruncate
    assert_eq!(seqs(&read(&moved)), [1]);
    fs::write(&path, "").expect("emptied");
    write(&mut log, &["four"]);
    assert_eq!(read(&path), [(4, "four".to_owned())]);
}

#[test]
fn a_rotation_that_fails_is_said_once_and_costs_nothing() {
    let (_dir, path) = temp();
    let mut log = open(&path, 300, 2);
    // A directory that is not empty cannot be replaced by a file.
    fs::create_dir_all(numbered(&path, 1).join("full")).expect("made");
    fs::create_dir_all(numbered(&path, 2).join("full")).expect("made");
    for _ in 0..20 {
        write(&mut log, &["x"]);
    }
    let text = fs::read_to_string(&path).expect("it is there");
    assert_eq!(text.lines().count(), 21);
    assert_eq!(text.matches("cannot rotate the event log").count(), 1);
}

#[test]
fn a_link_stays_and_its_target_is_rotated() {
    let (dir, path) = temp();
    drop(open(&path, 0, 0));
    let link = dir.path().join("link.jsonl");
    std::os::unix::fs::symlink(&path, &link).expect("linked");
    let mut log = open(&link, 300, 2);
    write(&mut log, &["one", "two", "three", "four"]);
    assert!(link.is_symlink() && numbered(&path, 1).exists());
    assert_eq!(seqs(&read(&link)), [1, 2, 3, 4]);
}

#[test]
fn follows_across_rotations_between_two_looks() {
    let (_dir, path) = temp();
    let mut log = open(&path, 300, 9);
    write(&mut log, &["first"]);
    let mut reader = Reader::open(&path).expect("it opens");
    reader.follow();
    let mut seen = seqs(&more(&mut reader));
    for round in 0..7 {
        let text = "x".repeat(30);
        // Up to ten records, up to five rotations, between two looks.
        write(&mut log, &vec![&*text; round + 3]);
        seen.extend(seqs(&more(&mut reader)));
    }
    assert_eq!(seen, (1..log.next_seq()).collect::<Vec<_>>());
}

#[test]
fn follows_a_file_that_is_emptied_or_leaves() {
    let (dir, path) = temp();
    let mut log = open(&path, 0, 0);
    write(&mut log, &["one", "two"]);
    let mut reader = Reader::open(&path).expect("it opens");
    reader.follow();
    assert_eq!(seqs(&more(&mut reader)), [1, 2]);
    // copytruncate, and more than before is in it when we look again.
    fs::write(&path, "").expect("emptied");
    write(&mut log, &["three", "four", "five"]);
    assert_eq!(seqs(&more(&mut reader)), [3, 4, 5]);
    // Moved away and written to once more while the new one is there already.
    let moved = dir.path().join("moved");
    fs::rename(&path, &moved).expect("renamed");
    assert_eq!(seqs(&more(&mut reader)), [0; 0]);
    write(&mut log, &["six"]);
    assert_eq!(seqs(&more(&mut reader)), [6]);
    // Removed, and somebody begins anew.
    drop(log);
    fs::remove_file(&path).expect("removed");
    write(&mut open(&path, 0, 0), &["anew"]);
    assert_eq!(more(&mut reader), [(1, "anew".to_owned())]);
}

#[test]
fn a_batch_that_came_late_to_the_old_file_is_read_before_the_new_one() {
    let (_dir, path) = temp();
    write(&mut open(&path, 0, 0), &["one", "two", "three"]);
    let text = fs::read_to_string(&path).expect("it is there");
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    let append = |to: &Path, line: &str| {
        let old = fs::read_to_string(to).unwrap_or_default();
        fs::write(to, old + line).expect("written");
    };
    fs::write(&path, lines[0]).expect("written");
    let mut reader = Reader::open(&path).expect("it opens");
    reader.follow();
    assert_eq!(seqs(&more(&mut reader)), [1]);
    let moved = path.with_extension("gone");
    fs::rename(&path, &moved).expect("renamed");
    append(&path, "");
    assert_eq!(seqs(&more(&mut reader)), [0; 0]);
    append(&moved, lines[1]);
    append(&path, lines[2]);
    assert_eq!(seqs(&more(&mut reader)), [2, 3]);
}

#[test]
fn half_a_line_waits_for_its_end() {
    let (_dir, path) = temp();
    write(&mut open(&path, 0, 0), &["one", "two"]);
    let text = fs::read_to_string(&path).expect("it is there");
    let (half, _) = text.split_at(text.len() - 10);
    fs::write(&path, half).expect("written");
    let mut reader = Reader::open(&path).expect("it opens");
    reader.follow();
    assert_eq!(seqs(&more(&mut reader)), [1]);
    assert_eq!(reader.skipped().torn, 1);
    fs::write(&path, &text).expect("written");
    assert_eq!(seqs(&more(&mut reader)), [2]);
    assert_eq!(reader.skipped().torn, 0);
}

/// Nothing is missed and nothing comes twice, at whatever moment of a rotation the reader looks.
#[test]
fn reads_and_follows_while_it_is_rotated() {
    const RECORDS: u64 = 3000;
    let (_dir, path) = temp();
    let mut log = open(&path, 2000, 1000);
    write(&mut log, &["x"]);
    let mut follower = Reader::open(&path).expect("it opens");
    follower.follow();
    let writer = std::thread::spawn(move || {
        for _ in 1..RECORDS {
            write(&mut log, &["x"]);
        }
    });
    let mut followed = Vec::new();
    let mut fresh = 0;
    while followed.last() != Some(&RECORDS) {
        let done = writer.is_finished();
        followed.extend(seqs(&more(&mut follower)));
        let now = seqs(&more(&mut Reader::open(&path).expect("it opens")));
        assert_eq!(now, (1..=now.len() as u64).collect::<Vec<_>>());
        fresh = fresh.max(now.len());
        assert!(!done || followed.last() == Some(&RECORDS), "not everything came");
    }
    assert_eq!(followed, (1..=RECORDS).collect::<Vec<_>>());
    assert!(fresh > 1);
    writer.join().expect("it wrote");
}

#[test]
fn a_line_without_end_is_skipped_once() {
    let (_dir, path) = temp();
    let mut log = open(&path, 0, 0);
    write(&mut log, &["one"]);
    let record = fs::read_to_string(&path).expect("it is there");
    // Its last part would be a record by itself.
    fs::write(&path, "x".repeat(16 << 20) + &record).expect("written");
    let mut reader = Reader::open(&path).expect("it opens");
    reader.follow();
    assert_eq!(seqs(&more(&mut reader)), [0; 0]);
    write(&mut log, &["two"]);
    assert_eq!(seqs(&more(&mut reader)), [2]);
    assert_eq!(reader.skipped(), reader::Skipped { foreign: 1, torn: 0 });
}
