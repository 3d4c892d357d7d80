//! The file below the log: appends whole lines or nothing, rotates, and notices when somebody else rotated it.
//!
//! What it keeps true: after every call a regular file ends with a newline, also on a full disk and after a crash.
//! Numbers and loss are the writer's business.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::writer::OpenError;
use super::{Line, numbered};
use crate::trust::{self, Distrust};

/// How our records begin; what has no newline and begins so, or is a beginning of this, was torn by a crash.
const BEGINS: &[u8] = b"{\"v\":";

/// An open log.
#[derive(Debug)]
pub(super) struct LogFile {
    file: File,
    /// `None` for stdout and for what is no regular file: no rotation, nothing to roll back.
    place: Option<Place>,
    /// The last write ended within a line, and what was written could not be taken back (pipes, terminals, append-only
    /// files): the rest of the line has to come next.
    mid_line: bool,
}

/// Where a regular file is, and when it is full.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    id: (u64, u64),
    max_size: u64,
    keep: u32,
    /// `max_size`, or more after a rotation that failed: it is not tried again with every record.
    rotate_at: u64,
}

impl LogFile {
    /// Standard output.
    pub(super) fn stdout() -> Result<Self, OpenError> {
        let file = io::stdout()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|source| OpenError::Open { path: "-".into(), source })?;
        Ok(Self { file: file.into(), place: None, mid_line: false })
    }

    /// Opens or creates a file, its directory if need be, in nobody else's hands, and makes its end whole.
    pub(super) fn open(path: &Path, max_size: u64, keep: u32) -> Result<Self, OpenError> {
        let (file, meta) = open(path)?;
        let place = meta.is_file().then(|| Place {
            // Through symbolic links, so that the rotation renames the file and not the link to it.
            path: fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()),
            id: id(&meta),
            max_size,
            keep,
            rotate_at: max_size,
        });
        Ok(Self { file, place, mid_line: false })
    }

    /// The number of the last record, if there is one, also in the files rotated away: a crash may have come just after
    /// a rotation.
    pub(super) fn last_seq(&self) -> Option<u64> {
        let Place { path, .. } = self.place.as_ref()?;
        if let Some(seq) = last_record(&self.file) {
            return Some(seq);
        }
        // A rotation that a crash cut short leaves one hole, hence not only up to the first file that is missing.
        let mut holes = 0;
        (1..)
            .map(|n| File::open(numbered(path, n)).ok())
            .take_while(|file| {
                holes += u32::from(file.is_none());
                holes < 2
            })
            .flatten()
            .find_map(|file| last_record(&file))
    }

    /// Whether the last write ended within a line.
    pub(super) fn mid_line(&self) -> bool {
        self.mid_line
    }

    /// Opens the path anew if the file there is not ours any more: logrotate, or somebody's `rm`. Says whether it did.
    pub(super) fn follow_path(&mut self) -> io::Result<bool> {
        let Some(place) = &mut self.place else { return Ok(false) };
        match fs::metadata(&place.path) {
            Ok(meta) if id(&meta) == place.id => return Ok(false),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Not allowed to look (any more): what is open still takes records.
            Err(_) => return Ok(false),
        }
        let new = Self::open(&place.path, place.max_size, place.keep).map_err(io::Error::other)?;
        *self = new;
        Ok(true)
    }

    /// How much of `lines` goes into this file before it has to be rotated: whole lines, at least one for an empty file.
    /// 0: rotate first.
    pub(super) fn room(&self, lines: &[u8]) -> usize {
        let Some(place) = self.place.as_ref().filter(|p| p.max_size > 0 && !self.mid_line) else {
            return lines.len();
        };
        let len = self.file.metadata().map_or(0, |m| m.len());
        let left = usize::try_from(place.rotate_at.saturating_sub(len)).unwrap_or(usize::MAX);
        if lines.len() <= left {
            return lines.len();
        }
        match after_last_newline(&lines[..left]) {
            0 if len == 0 => after_first_newline(lines),
            fits => fits,
        }
    }

    /// Moves `events.jsonl` to `events.jsonl.1` and so on, drops what is beyond `keep`, and begins a new file.
    pub(super) fn rotate(&mut self) -> io::Result<()> {
        let Some(place) = &mut self.place else { return Ok(()) };
        let rotated = rotate(&place.path, place.keep).and_then(|()| {
            open(&place.path).map_err(|error| {
                // Better a file too big than a log with nowhere to go.
                if place.keep > 0 {
                    let _ = fs::rename(numbered(&place.path, 1), &place.path);
                }
                io::Error::other(error)
            })
        });
        match rotated {
            Ok((file, meta)) => {
                place.id = id(&meta);
                place.rotate_at = place.max_size;
                self.file = file;
                Ok(())
            }
            Err(error) => {
                let len = self.file.metadata().map_or(0, |m| m.len());
                place.rotate_at = len.saturating_add(place.max_size);
                Err(error)
            }
        }
    }

    /// Appends whole lines, normally with one write(2). Returns how many bytes it took, from the front, and why not
    /// all: on a full disk the part of a line that made it is taken back, and the lines before it stay.
    pub(super) fn append(&mut self, lines: &[u8]) -> (usize, io::Result<()>) {
        let mut written = 0;
        while written < lines.len() {
            match (&self.file).write(&lines[written..]) {
                Ok(0) => return self.give_up(lines, written, io::ErrorKind::WriteZero.into()),
                Ok(n) => written += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.give_up(lines, written, error),
            }
        }
        self.mid_line = false;
        (written, Ok(()))
    }

    fn give_up(&mut self, lines: &[u8], written: usize, error: io::Error) -> (usize, io::Result<()>) {
        let whole = after_last_newline(&lines[..written]);
        let torn = written - whole;
        if torn > 0 && self.take_back(torn).is_err() {
            self.mid_line = true;
            return (written, Err(error));
        }
        // With nothing written, or only the end of a line, it is where it was.
        self.mid_line &= written == 0;
        (whole, Err(error))
    }

    /// Cuts off the last bytes of what was just written.
    fn take_back(&mut self, bytes: usize) -> io::Result<()> {
        // Also with O_APPEND the position is the end of our last write, write(2). If the file is longer than that,
        // somebody else appended (stdout shared with other programs), and cutting would cut theirs.
        let end = self.file.stream_position()?;
        let meta = self.file.metadata()?;
        if !meta.is_file() || meta.len() != end {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let keep = end.saturating_sub(bytes as u64);
        self.file.set_len(keep)?;
        self.file.seek(SeekFrom::Start(keep)).map(drop)
    }
}

/// Opens, locks and mends one file, and makes its directory if need be.
fn open(path: &Path) -> Result<(File, Metadata), OpenError> {
    // Every time: when it is opened anew, its directory may have become another one.
    trust::check_place(path).map_err(|source| OpenError::Distrusted { path: path.to_owned(), source })?;
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        let made = DirBuilder::new().recursive(true).mode(0o750).create(parent);
        made.map_err(|source| OpenError::Directory { path: path.to_owned(), source })?;
    }
    let failed = |source| OpenError::Open { path: path.to_owned(), source };
    // Without O_NONBLOCK a FIFO that nobody reads would stop the agent, here and at every write. Opened for reading
    // too, it can be opened before its reader comes (fifo(7)), and the end of a file can be looked at.
    let mut flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    // Where others may make files too, one of them may have made a link there since.
    flags.set(OFlags::NOFOLLOW, trust::is_shared(path));
    let flags = i32::try_from(flags.bits()).map_err(|_| failed(io::ErrorKind::InvalidInput.into()))?;
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o640).custom_flags(flags);
    let file = options.open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    let kind = meta.file_type();
    if kind.is_char_device() || kind.is_fifo() {
        return Ok((file, meta));
    }
    if !kind.is_file() {
        return Err(OpenError::Kind { path: path.to_owned() });
    }
    if !trust::is_trusted(&meta) {
        let source = Distrust::Owner { path: path.to_owned(), uid: meta.uid() };
        return Err(OpenError::Distrusted { path: path.to_owned(), source });
    }
    // Two agents with one log would give every number twice and cut off each other's half-written lines. File systems
    // without locks are no reason to refuse.
    if let Err(TryLockError::WouldBlock) = file.try_lock() {
        return Err(OpenError::Busy { path: path.to_owned() });
    }
    mend(&file).map_err(failed)?;
    Ok((file, meta))
}

/// Makes the last line whole: one of ours that a crash tore is cut off, anything else (somebody named a file that is not
/// ours) gets its newline.
fn mend(mut file: &File) -> io::Result<()> {
    let len = file.metadata()?.len();
    let mut tail = Vec::new();
    let mut found = 0;
    for window in windows(len) {
        tail = read_end(file, len, window)?;
        found = after_last_newline(&tail);
        if found > 0 {
            break;
        }
    }
    let torn = &tail[found..];
    if torn.is_empty() {
        return Ok(());
    }
    // A machine that lost power may leave zeros where the data did not make it to the disk.
    let ours = torn.starts_with(BEGINS) || BEGINS.starts_with(torn) || torn[0] == 0;
    if ours && Line::parse(torn).is_none() && file.set_len(len - torn.len() as u64).is_ok() {
        return Ok(());
    }
    file.write_all(b"\n")
}

/// The number of the last record of a file that ends with a newline.
fn last_record(file: &File) -> Option<u64> {
    let len = file.metadata().ok()?.len();
    windows(len).find_map(|window| {
        let tail = read_end(file, len, window).ok()?;
        tail.rsplit(|&b| b == b'\n').find_map(Line::parse).map(|line| line.seq)
    })
}

/// How much to read from the end of a file, ever more: the last line may be long, but seldom is.
fn windows(len: u64) -> impl Iterator<Item = u64> {
    (0..5)
        .map(|n| (64 << 10) << (3 * n))
        .scan(true, move |more, window| std::mem::replace(more, window < len).then_some(window.min(len)))
}

fn read_end(file: &File, len: u64, window: u64) -> io::Result<Vec<u8>> {
    let mut tail = vec![0; usize::try_from(window).map_err(io::Error::other)?];
    file.read_exact_at(&mut tail, len - window)?;
    Ok(tail)
}

/// The renames of a rotation, the oldest first, so that at every moment at most one number is missing and a reader that
/// looks from the newest to the oldest meets every file.
fn rotate(path: &Path, keep: u32) -> io::Result<()> {
    if keep == 0 {
        return fs::remove_file(path);
    }
    // `keep` may have been lowered.
    for n in keep.saturating_add(1).. {
        if fs::remove_file(numbered(path, n)).is_err() {
            break;
        }
    }
    for n in (0..keep).rev() {
        match fs::rename(numbered(path, n), numbered(path, n + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound || n == 0 => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn id(meta: &Metadata) -> (u64, u64) {
    (meta.dev(), meta.ino())
}

fn after_last_newline(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1)
}

/// The length of the first line.
pub(super) fn after_first_newline(bytes: &[u8]) -> usize {
    bytes.iter().position(|&b| b == b'\n').map_or(bytes.len(), |at| at + 1)
}
