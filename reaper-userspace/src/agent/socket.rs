//! The status socket: whoever may connect (mode 0600) gets one line of JSON and the end.
//!
//! It is also what keeps a second agent from starting on the same host by mistake: an agent that answers is alive.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::core::GroupStatus;
use tokio::net::UnixListener;

/// How long anybody waits for the other side.
const PATIENCE: Duration = Duration::from_secs(1);

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
}

/// The agent's end. The file goes with it.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Binds, unless another agent answers there.
    pub fn bind(path: &Path) -> anyhow::Result<Self> {
        match UnixStream::connect(path) {
            Ok(_) => anyhow::bail!(
                "another agent is running: it answers on {}. Stop it first, or give --socket another path",
                path.display()
            ),
            // Left behind by an agent that was killed. A file that is no socket refuses connections too: it is not ours.
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
                let kind = fs::symlink_metadata(path).map(|m| m.file_type());
                anyhow::ensure!(
                    kind.is_ok_and(|k| k.is_socket()),
                    "cannot use the socket {}: there is something else in its place",
                    path.display()
                );
                fs::remove_file(path)
                    .with_context(|| format!("cannot remove the stale {}", path.display()))?;
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e).with_context(|| format!("cannot use the socket {}", path.display())),
        }
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)
                .with_context(|| format!("cannot make {} for the socket", dir.display()))?;
        }
        let listener =
            UnixListener::bind(path).with_context(|| format!("cannot bind the socket {}", path.display()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .with_context(|| format!("cannot restrict the socket {}", path.display()))?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Waits until somebody asks.
    pub async fn asked(&self) -> io::Result<tokio::net::UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_file(&self.path) {
            tracing::debug!("cannot remove {}: {e}", self.path.display());
        }
    }
}

/// Answers whoever asked. It never waits: what does not fit into the socket's buffer is not said.
pub fn answer(stream: tokio::net::UnixStream, status: &Status) -> anyhow::Result<()> {
    let mut stream = stream.into_std()?;
    let mut line = serde_json::to_vec(status)?;
    line.push(b'\n');
    stream.write_all(&line).context("cannot answer on the socket")
}

/// Asks the agent that answers on `path`; `None` if none does.
pub fn ask(path: &Path) -> anyhow::Result<Option<Status>> {
    let mut stream = match UnixStream::connect(path) {
        Ok(stream) => stream,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(e) => return Err(e).with_context(|| format!("cannot connect to {}", path.display())),
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream.read_to_string(&mut text).with_context(|| format!("no answer on {}", path.display()))?;
    serde_json::from_str(&text)
        .map(Some)
        .with_context(|| format!("{} answered something else", path.display()))
}
