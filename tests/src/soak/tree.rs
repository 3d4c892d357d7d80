//! A checkpoint: the agent's tree, as it tells it on its socket, against /proc.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::process::TICK_NS;
use crate::storm::{Row, proc_rows};

/// Other programs of the machine start processes while the tree is asked for. A difference that stays is one.
const ATTEMPTS: usize = 40;

const PAUSE: Duration = Duration::from_millis(150);

/// How many processes are the same in both; else what is different.
pub(super) fn compare(socket: &Path) -> Result<u64, String> {
    let mut difference = String::new();
    for _ in 0..ATTEMPTS {
        let before = proc_rows();
        let told = match ask(socket) {
            Ok(told) => told,
            Err(why) => return Err(format!("the agent does not tell its tree: {why}")),
        };
        let after = proc_rows();
        match differ(&before, &told, &after) {
            None => return Ok(told.len() as u64),
            Some(what) => difference = what,
        }
        std::thread::sleep(PAUSE);
    }
    Err(format!("the tree is not what /proc says: {difference}"))
}

/// Who did not change between two looks at /proc must be told so, and nobody else but who was there at one of them.
fn differ(
    before: &BTreeMap<u32, Row>,
    told: &BTreeMap<u32, Row>,
    after: &BTreeMap<u32, Row>,
) -> Option<String> {
    for (pid, row) in before.iter().filter(|(pid, row)| after.get(pid) == Some(row)) {
        match told.get(pid) {
            Some(other) if other == row => {}
            other => return Some(format!("{pid} is {row:?}, the agent says {other:?}")),
        }
    }
    let extra = told.keys().find(|pid| !before.contains_key(pid) && !after.contains_key(pid));
    extra.map(|pid| format!("{pid} is dead, the agent says it lives"))
}

/// Every live process of the agent's tree.
fn ask(socket: &Path) -> Result<BTreeMap<u32, Row>, String> {
    let mut stream = UnixStream::connect(socket).map_err(|e| e.to_string())?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).map_err(|e| e.to_string())?;
    stream.write_all(b"{\"ask\":\"tree\",\"all\":true}\n").map_err(|e| e.to_string())?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(|e| e.to_string())?;
    let mut rows = BTreeMap::new();
    let mut whole = false;
    for line in text.lines() {
        let value: Value = serde_json::from_str(line).map_err(|e| format!("{line:?}: {e}"))?;
        let number = |key: &str| value.get(key).and_then(Value::as_u64);
        if let Some(end) = number("end") {
            whole = end == text.lines().count() as u64 - 1;
        } else if value.get("alive") == Some(&Value::Bool(true)) {
            let [pid, start, ppid] = ["pid", "start_ns", "ppid"].map(number);
            let row = Row {
                start_ticks: start.ok_or("no start_ns")? / TICK_NS,
                ppid: u32::try_from(ppid.ok_or("no ppid")?).map_err(|e| e.to_string())?,
            };
            rows.insert(u32::try_from(pid.ok_or("no pid")?).map_err(|e| e.to_string())?, row);
        }
    }
    if whole { Ok(rows) } else { Err(format!("the answer is not whole: {} lines", text.lines().count())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(of: &[(u32, u32)]) -> BTreeMap<u32, Row> {
        of.iter().map(|&(pid, ppid)| (pid, Row { start_ticks: u64::from(pid), ppid })).collect()
    }

    #[test]
    fn only_what_stays_is_a_difference() {
        let proc = rows(&[(1, 0), (5, 1)]);
        assert_eq!(differ(&proc, &proc, &proc), None);
        // Born or gone while the agent was asked.
        assert_eq!(differ(&rows(&[(1, 0)]), &proc, &proc), None);
        assert_eq!(differ(&proc, &rows(&[(1, 0)]), &rows(&[(1, 0)])), None);
        assert!(differ(&proc, &rows(&[(1, 0)]), &proc).is_some());
        assert!(differ(&proc, &rows(&[(1, 0), (5, 2)]), &proc).is_some());
        assert!(differ(&proc, &rows(&[(1, 0), (5, 1), (6, 1)]), &proc).is_some());
    }
}
