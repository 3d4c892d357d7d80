//! What is said over the status socket.
//!
//! Whoever connects may send one line: a request as JSON (`{"ask":"tree","all":true}`) or, where it has no arguments, its
//! bare name (`orphans`). Who sends nothing gets the status. The answer is lines of JSON and then the end of the stream. The
//! status is one line; everything else ends with `{"end":ROWS}`, so that an answer that was cut short is known for one, or is one
//! line `{"refused":"why"}`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::core::GroupStatus;
use crate::core::ids::Ns;
use crate::core::records::ProcView;
use crate::core::view::{Explanation, OrphanView, Row, Which};

/// A request is shorter than this, bytes.
pub const LONGEST_REQUEST: usize = 4096;

/// So many orphans and masters are in an [`Overview`]; nobody reads more on a screen.
pub const OVERVIEW_SHOWN: usize = 1000;

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Request {
    /// [`Status`].
    Status,
    /// A [`Row`] for each process.
    Tree(Which),
    /// An [`OrphanView`] for each orphan.
    Orphans,
    /// One [`Explanation`], or no row if nobody has had that pid.
    Explain {
        /// Of whom.
        pid: u32,
    },
    /// One [`Overview`].
    Overview,
}

impl Request {
    /// Reads the first line, without its newline.
    ///
    /// # Errors
    /// Why it is no request.
    pub fn parse(line: &str) -> Result<Self, String> {
        let line = line.trim();
        if line.is_empty() {
            return Ok(Self::Status);
        }
        let request = if line.starts_with('{') {
            serde_json::from_str(line)
        } else {
            serde_json::from_value(serde_json::json!({ "ask": line }))
        };
        request.map_err(|e| format!("this is no request: {e}"))
    }
}

/// What the agent says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Of the agent.
    pub version: String,
    /// Of the agent.
    pub pid: u32,
    /// The configuration it runs by.
    pub config: String,
    /// Live processes it knows.
    pub processes: usize,
    /// Every group.
    pub groups: Vec<GroupStatus>,
    /// What has come from the kernel so far.
    #[serde(default)]
    pub counters: Counters,
    /// When this was said, `CLOCK_BOOTTIME`.
    #[serde(default)]
    pub boot_ns: Ns,
}

/// Numbers since the agent was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Records that the kernel has written and the agent has read.
    pub events: u64,
    /// Records that the kernel could not write.
    pub lost: u64,
    /// Signals that were sent.
    pub signals: u64,
    /// Whether the tree is complete: while it is not, nobody is signalled.
    pub complete: bool,
}

/// Everything on one screen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Overview {
    /// Of the agent and its groups.
    #[serde(flatten)]
    pub status: Status,
    /// Masters, by pid; at most [`OVERVIEW_SHOWN`].
    pub master_list: Vec<MasterView>,
    /// Orphans, longest orphaned first; at most [`OVERVIEW_SHOWN`].
    pub orphan_list: Vec<OrphanView>,
}

/// One master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterView {
    /// The group.
    pub group: String,
    /// Who.
    pub proc: ProcView,
}

/// What is answered. It holds what the loop knew at one moment; others put it into words.
#[derive(Debug)]
pub enum Answer {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Tree`].
    Tree(Vec<Row>),
    /// To [`Request::Orphans`].
    Orphans(Vec<OrphanView>),
    /// To [`Request::Explain`].
    Explanation(Option<Box<Explanation>>),
    /// To [`Request::Overview`].
    Overview(Box<Overview>),
    /// It cannot be answered: why.
    Refused(String),
}

/// A line with who says so: the agent, or /proc.
#[derive(Serialize)]
struct Sourced<'a, T> {
    source: &'a str,
    #[serde(flatten)]
    of: &'a T,
}

/// Says where a line comes from.
pub const AGENT: &str = "agent";
/// The same.
pub const PROC: &str = "proc";

/// A value as a line of JSON that says where it comes from, newline included.
///
/// # Errors
/// It cannot be told in JSON.
pub fn line<T: Serialize>(source: &str, of: &T) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(&Sourced { source, of })?;
    line.push(b'\n');
    Ok(line)
}

impl Answer {
    /// The lines of the answer, each made only when it is asked for.
    pub fn lines(self) -> Box<dyn Iterator<Item = serde_json::Result<Vec<u8>>> + Send> {
        fn rows<T: Serialize + Send + 'static>(
            rows: Vec<T>,
        ) -> Box<dyn Iterator<Item = serde_json::Result<Vec<u8>>> + Send> {
            let end = format!("{{\"end\":{}}}\n", rows.len()).into_bytes();
            Box::new(rows.into_iter().map(|row| line(AGENT, &row)).chain([Ok(end)]))
        }
        match self {
            Self::Status(status) => Box::new(std::iter::once(line(AGENT, &status))),
            Self::Tree(tree) => rows(tree),
            Self::Orphans(orphans) => rows(orphans),
            Self::Explanation(one) => rows(one.into_iter().collect()),
            Self::Overview(overview) => rows(vec![overview]),
            Self::Refused(why) => {
                let refused = serde_json::json!({ "refused": why });
                Box::new(std::iter::once(Ok(format!("{refused}\n").into_bytes())))
            }
        }
    }
}

/// Why a group's name is refused.
pub fn no_such_group(name: &str, groups: &[String]) -> String {
    let known: Vec<Arc<str>> = groups.iter().map(|g| Arc::from(g.as_str())).collect();
    match known.is_empty() {
        true => format!("there is no group {name:?}: the configuration has none"),
        false => format!("there is no group {name:?}; there are {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_words_or_json() {
        let all = Which { group: None, all: true };
        for (line, request) in [
            ("", Request::Status),
            ("status", Request::Status),
            (" orphans\r", Request::Orphans),
            ("overview", Request::Overview),
            ("tree", Request::Tree(Which::default())),
            (r#"{"ask":"tree","all":true}"#, Request::Tree(all)),
            (r#"{"ask":"explain","pid":7,"new":"ignored"}"#, Request::Explain { pid: 7 }),
        ] {
            assert_eq!(Request::parse(line), Ok(request), "{line:?}");
        }
    }

    #[test]
    fn nonsense_is_no_request() {
        for line in
            ["reboot", "{", "{}", r#"{"ask":"explain"}"#, r#"{"ask":"explain","pid":-1}"#, "[1]", "\u{0}"]
        {
            let why = Request::parse(line).unwrap_err();
            assert!(why.starts_with("this is no request: "), "{line:?}: {why}");
        }
    }

    #[test]
    fn answers_say_where_they_end() {
        let text = |answer: Answer| {
            let lines: Vec<u8> = answer.lines().flat_map(Result::unwrap).collect();
            String::from_utf8(lines).unwrap()
        };
        assert_eq!(text(Answer::Tree(vec![])), "{\"end\":0}\n");
        assert_eq!(text(Answer::Explanation(None)), "{\"end\":0}\n");
        assert_eq!(text(Answer::Refused("a \"b\"".to_owned())), "{\"refused\":\"a \\\"b\\\"\"}\n");
        let row = Row {
            proc: ProcView { pid: 7, comm: "x".into(), ..ProcView::default() },
            alive: true,
            kernel_thread: false,
            roles: vec![],
            lineage: vec![],
        };
        assert_eq!(
            text(Answer::Tree(vec![row])),
            "{\"source\":\"agent\",\"pid\":7,\"start_ns\":0,\"ppid\":0,\"uid\":0,\"comm\":\"x\",\"exe\":\"\",\"argv\":[],\
             \"alive\":true,\"kernel_thread\":false,\"roles\":[],\"lineage\":[]}\n{\"end\":1}\n"
        );
    }
}
