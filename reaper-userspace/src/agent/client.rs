//! The commands' end of the status socket.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use super::protocol::{Request, Status};

/// How long an agent may be silent: it answers within a turn of its loop, unless the host is overwhelmed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens there.
    #[error(
        "no agent answers on {}. Start one with `reaper run`, or say with --socket or --config where it listens",
        .0.display()
    )]
    Nobody(PathBuf),
    /// The socket is somebody else's.
    #[error(
        "cannot ask the agent on {}: permission denied. Ask as root, or as whoever may use that socket",
        .0.display()
    )]
    Denied(PathBuf),
    /// The agent's words.
    #[error("{0}")]
    Refused(String),
    /// It does not know the question.
    #[error("the agent on {} is reaper {version} and does not know this question: restart it as this version", path.display())]
    Other {
        /// The socket.
        path: PathBuf,
        /// What it says of itself.
        version: String,
    },
    /// It was not said to the end.
    #[error("the answer of the agent on {} was cut short: ask again", .0.display())]
    CutShort(PathBuf),
    /// Anything else.
    #[error("no answer of the agent on {}: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Asks the agent that answers on `path`. The rows of its answer, each a line of JSON.
///
/// # Errors
/// See [`AskError`].
pub fn ask(path: &Path, request: &Request) -> Result<Vec<String>, AskError> {
    let text = converse(path, request)?;
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let last: Value = lines.last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
    if let Some(why) = last["refused"].as_str() {
        return Err(AskError::Refused(why.to_owned()));
    }
    let rows = lines.len().saturating_sub(1);
    if last["end"].as_u64() == u64::try_from(rows).ok() {
        lines.truncate(rows);
        return Ok(lines);
    }
    let path = path.to_owned();
    // An older one tells its status whatever it is asked.
    Err(match serde_json::from_value(last) {
        Ok(Status { version, .. }) => AskError::Other { path, version },
        Err(_) => AskError::CutShort(path),
    })
}

/// What the agent on `path` says of itself; `None` if none answers.
///
/// # Errors
/// It cannot be asked, or answers something else.
pub fn status(path: &Path) -> anyhow::Result<Option<Status>> {
    let text = match converse(path, &Request::Status) {
        Err(AskError::Nobody(_)) => return Ok(None),
        other => other?,
    };
    serde_json::from_str(&text)
        .map(Some)
        .with_context(|| format!("{} answered something else", path.display()))
}

fn converse(path: &Path, request: &Request) -> Result<String, AskError> {
    let failed = |source| AskError::Io { path: path.to_owned(), source };
    let mut stream = UnixStream::connect(path).map_err(|e| match e.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => AskError::Nobody(path.to_owned()),
        ErrorKind::PermissionDenied => AskError::Denied(path.to_owned()),
        _ => failed(e),
    })?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let mut line = serde_json::to_vec(request).map_err(|e| failed(e.into()))?;
    line.push(b'\n');
    match stream.write_all(&line) {
        // Who is turned away is told why before the connection is closed.
        Err(e) if e.kind() != ErrorKind::BrokenPipe => return Err(failed(e)),
        _ => {}
    }
    let mut text = String::new();
    match stream.read_to_string(&mut text) {
        Ok(_) => Ok(text),
        // Closed with the request unread: what was said before that counts.
        Err(e) if e.kind() == ErrorKind::ConnectionReset && !text.is_empty() => Ok(text),
        Err(e) if e.kind() == ErrorKind::WouldBlock => Err(failed(io::Error::new(
            ErrorKind::TimedOut,
            format!("it said nothing for {} s. It may be overwhelmed: see its log", PATIENCE.as_secs()),
        ))),
        Err(e) => Err(failed(e)),
    }
}
