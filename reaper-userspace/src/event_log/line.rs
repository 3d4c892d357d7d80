//! The text of one record: written so that it is safe on a terminal, read back tolerantly.

use std::io::{self, Write};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};

use crate::core::records::Record;
use crate::output::is_printable;

/// The format's version, the field `v`.
pub const VERSION: u64 = 1;

/// Every `kind` of the contract, in its order.
pub const KINDS: [&str; 25] = [
    "agent_started",
    "agent_stopped",
    "config_loaded",
    "config_rejected",
    "snapshot",
    "fork",
    "exec",
    "exit",
    "reparent",
    "master_found",
    "master_lost",
    "heir",
    "orphaned",
    "busy",
    "idle",
    "draining",
    "signal",
    "reaped",
    "left",
    "spared",
    "breaker_open",
    "breaker_closed",
    "events_lost",
    "resynced",
    "error",
];

/// One record as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// As it stands in the file, without the newline.
    pub raw: String,
    /// The format's version.
    pub v: u64,
    /// Rises by one.
    pub seq: u64,
    /// When it was written.
    pub ts: Timestamp,
    /// `CLOCK_BOOTTIME` of what happened, nanoseconds.
    pub boot_ns: u64,
    /// What happened; also one that this version does not know.
    pub kind: String,
    /// The whole object.
    pub record: Value,
}

impl Line {
    /// Reads one line. `None` if it is not a record: what every record has must be there and of its type; more fields
    /// and unknown kinds are fine, a newer agent may have written them.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let raw = std::str::from_utf8(line).ok()?.trim_end_matches(['\n', '\r']);
        let record: Value = serde_json::from_str(raw).ok()?;
        let number = |key| record.get(key).and_then(Value::as_u64);
        let text = |key| record.get(key).and_then(Value::as_str);
        Some(Self {
            v: number("v")?,
            seq: number("seq")?,
            ts: text("ts")?.parse().ok()?,
            boot_ns: number("boot_ns")?,
            kind: text("kind")?.to_owned(),
            raw: raw.to_owned(),
            record,
        })
    }
}

/// Appends the line of a record, newline included, to `out`.
///
/// # Errors
/// None in practice: a vector takes everything, and records have nothing that JSON cannot say.
pub fn append(out: &mut Vec<u8>, seq: u64, ts: Timestamp, record: &Record) -> io::Result<()> {
    /// The order of the keys in the file: what a person looks for comes first.
    #[derive(Serialize)]
    struct Numbered<'a> {
        v: u64,
        seq: u64,
        ts: String,
        #[serde(flatten)]
        record: &'a Record,
    }
    let numbered = Numbered { v: VERSION, seq, ts: format!("{ts:.9}"), record };
    numbered.serialize(&mut Serializer::with_formatter(&mut *out, Printable(CompactFormatter)))?;
    out.push(b'\n');
    Ok(())
}

/// Escapes in strings what JSON would let through but a terminal would act on, so that `cat events.jsonl` is safe.
struct Printable(CompactFormatter);

impl Formatter for Printable {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, c)) = rest.char_indices().find(|&(_, c)| !is_printable(c)) {
            self.0.write_string_fragment(writer, &rest[..at])?;
            // Above U+FFFF it takes two escapes, a surrogate pair: RFC 8259, section 7.
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = &rest[at + c.len_utf8()..];
        }
        self.0.write_string_fragment(writer, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::records::Event;

    fn line(what: &str) -> String {
        let record = Record { boot_ns: 7, event: Event::Error { what: what.to_owned(), proc: None } };
        let mut out = Vec::new();
        append(&mut out, 3, "2026-01-02T03:04:05.12Z".parse().expect("a time"), &record)
            .expect("a vector takes it");
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    #[test]
    fn keys_in_order_and_nine_digits() {
        expect_test::expect![[r#"
            {"v":1,"seq":3,"ts":"2026-01-02T03:04:05.120000000Z","boot_ns":7,"kind":"error","what":"x"}
        "#]]
        .assert_eq(&line("x"));
    }

    #[test]
    fn nothing_a_terminal_acts_on() {
        let hostile = "\x1b[31m\x7f\u{85}\u{9b}\u{202e}\u{2028}\u{2069}\u{e0041}\"\\\n ü 🐘";
        let line = line(hostile);
        expect_test::expect![[r#"
            {"v":1,"seq":3,"ts":"2026-01-02T03:04:05.120000000Z","boot_ns":7,"kind":"error","what":"\u001b[31m\u007f\u0085\u009b\u202e\u2028\u2069\udb40\udc41\"\\\n ü 🐘"}
        "#]]
        .assert_eq(&line);
        assert_eq!(Line::parse(line.as_bytes()).expect("a record").record["what"], hostile);
    }

    #[test]
    fn what_is_not_a_record() {
        for foreign in ["", "{", "[]", "1", "{\"v\":1}", "\u{0}", "{\"v\":1,\"seq\":-1,\"ts\":\"x\"}"] {
            assert_eq!(Line::parse(foreign.as_bytes()), None, "{foreign:?}");
        }
        assert_eq!(Line::parse(b"\xff"), None);
    }

    /// The list above is the one that serde has: it names every variant in its error.
    #[test]
    fn the_kinds_are_those_of_the_records() {
        let error =
            serde_json::from_str::<Event>(r#"{"kind":"nonsense"}"#).expect_err("no such kind").to_string();
        let known: Vec<_> = error.split('`').skip(3).step_by(2).collect();
        assert_eq!(known, KINDS);
    }
}
