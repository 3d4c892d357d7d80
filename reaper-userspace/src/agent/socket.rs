//! The status socket: whoever may connect (`peers`) asks one question, is answered, and that is the end.
//!
//! It is also what keeps a second agent from starting on the same host by mistake: an agent that answers is alive. What is said
//! is in `protocol`. The loop only says what it knows at the moment of the question; reading the question and writing the answer
//! is the business of a task for each connection, which is bounded in size and time. So nobody who asks can hold the loop up.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _};
use std::os::unix::net::UnixStream as Blocking;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustix::fs::Mode;
use rustix::process::umask;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::peers::Peers;
use super::protocol::{Answer, LONGEST_REQUEST, Request};
use crate::trust;

/// So many may ask at once. An answer about a hundred thousand processes takes tens of megabytes while it is written.
const AT_ONCE: usize = 8;

/// Who says nothing for so long wants the status.
const SILENCE: Duration = Duration::from_millis(200);

/// How long a request may take to arrive once it has begun.
const REQUEST_WITHIN: Duration = Duration::from_secs(1);

/// How long an answer may take to be read.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// So many lines are put into JSON before the loop has its turn again: well below a millisecond's work.
const LINES_A_TURN: usize = 64;

/// How long accepting is left alone after it has failed.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// A question, and where the answer goes.
#[derive(Debug)]
pub struct Query {
    /// What is asked.
    pub request: Request,
    reply: oneshot::Sender<Answer>,
}

impl Query {
    /// Answers it. Who asked may have gone: then nobody hears it.
    pub fn answer(self, answer: Answer) {
        drop(self.reply.send(answer));
    }
}

/// The agent's end. The file goes with it.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    peers: Peers,
    room: Arc<Semaphore>,
    /// Kept so that the channel is never closed.
    ask: mpsc::Sender<Query>,
    queries: mpsc::Receiver<Query>,
}

impl Socket {
    /// Binds, unless another agent answers there.
    pub fn bind(path: &Path, peers: Peers) -> anyhow::Result<Self> {
        trust::check_place(path).context("the socket cannot be there")?;
        match Blocking::connect(path) {
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
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(dir)
                .with_context(|| format!("cannot make {} for the socket", dir.display()))?;
        }
        // From the first moment on it is nobody else's.
        let before = umask(Mode::from_raw_mode(0o177));
        let listener = UnixListener::bind(path);
        umask(before);
        let listener = listener.with_context(|| format!("cannot bind the socket {}", path.display()))?;
        let (ask, queries) = mpsc::channel(1);
        let room = Arc::new(Semaphore::new(AT_ONCE));
        let socket = Self { listener, path: path.to_owned(), peers, room, ask, queries };
        peers.restrict(path)?;
        Ok(socket)
    }

    /// Waits until somebody has asked something. May be dropped at any time.
    pub async fn asked(&mut self) -> Query {
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => self.admit(stream),
                    Err(e) => {
                        tracing::debug!("cannot accept on the socket: {e}");
                        tokio::time::sleep(ACCEPT_AGAIN).await;
                    }
                },
                Some(query) = self.queries.recv() => return query,
            }
        }
    }

    fn admit(&self, stream: UnixStream) {
        if !self.peers.admit(&stream) {
            return tracing::debug!("somebody asked on {} who may not", self.path.display());
        }
        match Arc::clone(&self.room).try_acquire_owned() {
            Ok(place) => drop(tokio::spawn(converse(stream, self.ask.clone(), place))),
            Err(_) => turn_away(&stream),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_file(&self.path) {
            tracing::debug!("cannot remove {}: {e}", self.path.display());
        }
    }
}

/// Without waiting: a line fits into an empty socket's buffer.
fn turn_away(stream: &UnixStream) {
    let busy = Answer::Refused("too many others are asking right now: try again".to_owned());
    for line in busy.lines().flatten() {
        if let Err(e) = stream.try_write(&line) {
            tracing::debug!("cannot turn somebody away: {e}");
        }
    }
}

/// One connection, from its request to its end.
async fn converse(mut stream: UnixStream, ask: mpsc::Sender<Query>, place: OwnedSemaphorePermit) {
    let answer = match read_request(&mut stream).await {
        Ok(Ok(request)) => {
            let (reply, answer) = oneshot::channel();
            if ask.send(Query { request, reply }).await.is_err() {
                return;
            }
            // Without an answer the agent is ending.
            let Ok(answer) = answer.await else { return };
            answer
        }
        Ok(Err(why)) => Answer::Refused(why),
        Err(e) => return tracing::debug!("cannot read what is asked on the socket: {e}"),
    };
    match timeout(ANSWER_WITHIN, write(&mut stream, answer)).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => tracing::debug!("cannot answer on the socket: {e}"),
        Err(_) => tracing::debug!("an answer on the socket was not read within {ANSWER_WITHIN:?}"),
    }
    drop(place);
}

/// The first line as a request, or why it is none.
async fn read_request(stream: &mut UnixStream) -> io::Result<Result<Request, String>> {
    let mut bytes = Vec::with_capacity(256);
    match timeout(SILENCE, stream.read_buf(&mut bytes)).await {
        Err(_) => return Ok(Ok(Request::Status)),
        Ok(Err(e)) => return Err(e),
        Ok(Ok(_)) => {}
    }
    let rest = async {
        while !bytes.contains(&b'\n') && bytes.len() < LONGEST_REQUEST {
            if stream.read_buf(&mut bytes).await? == 0 {
                break;
            }
        }
        io::Result::Ok(())
    };
    match timeout(REQUEST_WITHIN, rest).await {
        Err(_) => return Ok(Err("the request did not end in time".to_owned())),
        Ok(read) => read?,
    }
    let line = bytes.split(|&b| b == b'\n').next().unwrap_or_default();
    if line.len() >= LONGEST_REQUEST {
        return Ok(Err(format!("the request is longer than {LONGEST_REQUEST} bytes")));
    }
    Ok(match std::str::from_utf8(line) {
        Ok(line) => Request::parse(line),
        Err(_) => Err("the request is not UTF-8".to_owned()),
    })
}

async fn write(stream: &mut UnixStream, answer: Answer) -> io::Result<()> {
    let mut lines = answer.lines();
    loop {
        let mut chunk = Vec::new();
        for line in lines.by_ref().take(LINES_A_TURN) {
            chunk.extend(line?);
        }
        if chunk.is_empty() {
            return stream.shutdown().await;
        }
        stream.write_all(&chunk).await?;
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests;
