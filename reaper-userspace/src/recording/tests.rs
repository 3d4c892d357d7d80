//! What was written is what is read, up to the limit.

use std::fs;

use super::*;
use crate::core::records::Event;

fn record() -> Record {
    Record { boot_ns: 7, event: Event::EventsLost { count: 2 } }
}

fn lost(count: u64) -> Input {
    Input::Lost { at: 6, count }
}

#[test]
fn what_was_written_is_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("r.jsonl");
    let mut recorder = Recorder::create(&path, 1 << 20, 42, 5).expect("made");
    recorder.input(6, &lost(2));
    recorder.record(&record());
    recorder.rest(Some(9));
    recorder.rest(Some(9));
    recorder.input(9, &Input::Tick);
    recorder.rest(None);
    recorder.flush();
    assert!(is_recording(&path).expect("readable"));
    let recording = Recording::read(&path, |_| {}).expect("readable");
    let header = recording.header.expect("a first line");
    assert_eq!((header.recording, header.agent, header.boot_ns), (VERSION, 42, 5));
    assert_eq!(recording.broken, []);
    let expected = [
        Entry::Input(Taken { now: 6, input: lost(2) }),
        Entry::Record(Box::new(record())),
        Entry::Rest(Rest { rest: Some(9) }),
        Entry::Input(Taken { now: 9, input: Input::Tick }),
        Entry::Rest(Rest { rest: None }),
    ];
    assert_eq!(recording.entries, expected, "a rest is told once");
}

#[test]
fn it_ends_at_its_limit_with_whole_lines() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("r.jsonl");
    let mut recorder = Recorder::create(&path, 400, 42, 5).expect("made");
    for count in 0..100 {
        recorder.input(6, &lost(count));
    }
    drop(recorder);
    let size = fs::metadata(&path).expect("there").len();
    assert!(size < 440, "{size}");
    let recording = Recording::read(&path, |_| {}).expect("readable");
    assert_eq!(recording.broken, []);
    assert_eq!(recording.entries.last(), Some(&Entry::Full(Full { full: 400 })));
    let counts = recording.entries.iter().filter_map(|e| match e {
        Entry::Input(Taken { input: Input::Lost { count, .. }, .. }) => Some(*count),
        _ => None,
    });
    assert!(counts.eq(0..recording.entries.len() as u64 - 1), "nothing is missing in between");
}

#[test]
fn nothing_is_overwritten() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("r.jsonl");
    fs::write(&path, "mine").expect("written");
    let error = Recorder::create(&path, 400, 42, 5).expect_err("it is there");
    assert!(format!("{error:#}").contains("exists"), "{error:#}");
    assert_eq!(fs::read_to_string(&path).expect("there"), "mine");
}

#[test]
fn broken_lines_are_told_by_number() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("r.jsonl");
    let good = r#"{"now":6,"input":"tick"}"#;
    fs::write(
        &path,
        format!("{good}\nnonsense\n{{\"x\":1}}\n{{\"now\":6,\"input\":\"new\"}}\n{good}\n{{\"now\":6,\"inp"),
    )
    .expect("written");
    let recording = Recording::read(&path, |_| {}).expect("readable");
    assert_eq!((recording.header, recording.entries.len()), (None, 2));
    let told: Vec<_> = recording.broken.iter().map(|b| (b.line, &*b.why)).collect();
    assert_eq!(told[1], (3, "it is no line of a recording"));
    assert_eq!(told[3], (6, "it is cut short"));
    assert_eq!([told[0].0, told[2].0], [2, 4]);
}

#[test]
fn a_later_version_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("r.jsonl");
    let version = VERSION + 1;
    let header = format!(r#"{{"recording":{version},"version":"9","agent":1,"ts":"x","boot_ns":1}}"#);
    fs::write(&path, header).expect("written");
    let error = Recording::read(&path, |_| {}).expect_err("not ours");
    assert!(error.to_string().contains(&format!("version {version}")), "{error}");
}
