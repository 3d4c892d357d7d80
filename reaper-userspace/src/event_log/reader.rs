//! Reads a log across rotation, oldest first, and goes on as it grows.
//!
//! What it keeps true: every whole line is yielded once and in order, also if the log is rotated, more than once,
//! between two looks: a file that was begun is held open until it is read to its end, and those that came after it are
//! found by their place behind it, not by their name. A line without its newline is not yielded: it may still grow.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Line, numbered};

/// Longer than any record; what is longer is skipped as foreign. A file of zeros must not eat all memory.
const MAX_LINE: u64 = 16 << 20;

/// How much of the last line read is kept to recognise a file that was emptied and filled again: it spans `seq` and
/// `ts`.
const ANCHOR: usize = 80;

/// So many lines that are no records are remembered by their place.
const PLACES: usize = 10;

/// Reads one log.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    current: Source,
    /// What comes after `current`, oldest first.
    queue: VecDeque<Source>,
    /// What came before `current`, until it has shown that it continues without a gap: whoever writes may have put one
    /// more batch into the old file while we were moving on.
    previous: Option<Source>,
    /// The first line of `current`, while the last ones of `previous` come first.
    held: Option<Line>,
    last_seq: Option<u64>,
    follow: bool,
    /// The last call found nothing: time has passed.
    paused: bool,
    skipped: Skipped,
    places: Vec<Place>,
}

/// Where a line is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, by the name it had when it was opened.
    pub file: PathBuf,
    /// From 1.
    pub line: u64,
}

/// What was in the files and is no record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Whole lines that are no records.
    pub foreign: u64,
    /// Files that end, or ended when the next one had begun, within a line.
    pub torn: u64,
}

impl Reader {
    /// Opens a log and every rotated file of it.
    ///
    /// # Errors
    /// There is neither the file nor a rotated one, or it cannot be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        // As the writer does: the rotated files are beside the file, not beside a link to it.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let mut queue = open_all(&path)?;
        let Some(current) = queue.pop_front() else {
            // Fails as well, and says how.
            return Err(fs::metadata(&path).err().unwrap_or_else(|| io::ErrorKind::NotFound.into()));
        };
        Ok(Self {
            path,
            current,
            queue,
            previous: None,
            held: None,
            last_seq: None,
            follow: false,
            paused: false,
            skipped: Skipped::default(),
            places: Vec::new(),
        })
    }

    /// How many files are still to be read.
    pub fn files(&self) -> usize {
        self.queue.len() + 1
    }

    /// Skips all but the newest `count` files, at least one.
    pub fn only_newest(&mut self, count: usize) {
        while self.files() > count.max(1) {
            self.next_file();
        }
    }

    /// Skips files that were last written to before `time`; the newest one stays.
    pub fn skip_before(&mut self, time: SystemTime) {
        while !self.queue.is_empty() && self.current.modified.is_some_and(|written| written < time) {
            self.next_file();
        }
    }

    /// From now on, [`next_line`](Self::next_line) looks for what was written since, also across rotation.
    pub fn follow(&mut self) {
        self.follow = true;
    }

    /// Whether more may come: pipes end, files may grow.
    pub fn may_grow(&self) -> bool {
        self.current.regular || !self.current.ended
    }

    /// The next record; `None` if there is none now.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn next_line(&mut self) -> io::Result<Option<Line>> {
        // Before anything is read from where we stopped: that may be the middle of a line by now.
        if std::mem::take(&mut self.paused) && self.current.was_emptied()? {
            self.current.restart()?;
        }
        loop {
            if let Some(line) = self.late_line()? {
                return Ok(Some(line));
            }
            match self.current.read_line()? {
                Met::Line => match Line::parse(&self.current.line) {
                    Some(line) if self.has_gap(line.seq) => self.held = Some(line),
                    Some(line) => {
                        self.previous = None;
                        return Ok(Some(self.yielded(line)));
                    }
                    None => self.skipped.skip(&self.current, &mut self.places),
                },
                Met::End if !self.queue.is_empty() => {
                    self.skipped.torn += u64::from(self.current.torn);
                    self.next_file();
                }
                Met::End if self.follow && self.has_more()? => {}
                Met::End => {
                    self.paused = self.follow && self.current.regular;
                    return Ok(None);
                }
            }
        }
    }

    /// What was no record so far. A line that has no newline yet counts as torn.
    pub fn skipped(&self) -> Skipped {
        Skipped { torn: self.skipped.torn + u64::from(self.current.torn), ..self.skipped }
    }

    /// Where the first lines are that are no records, as far as they are whole.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    fn yielded(&mut self, line: Line) -> Line {
        self.last_seq = Some(line.seq);
        line
    }

    /// What was written to the previous file after its end was seen, then the line that showed the gap.
    fn late_line(&mut self) -> io::Result<Option<Line>> {
        if self.held.is_none() {
            return Ok(None);
        }
        while let Some(previous) = &mut self.previous {
            match previous.read_line()? {
                Met::End => self.previous = None,
                Met::Line => match Line::parse(&previous.line) {
                    Some(line) => return Ok(Some(self.yielded(line))),
                    None => self.skipped.skip(previous, &mut self.places),
                },
            }
        }
        Ok(self.held.take().map(|line| self.yielded(line)))
    }

    fn has_gap(&self, seq: u64) -> bool {
        self.previous.is_some() && self.last_seq.is_some_and(|last| seq > last.saturating_add(1))
    }

    fn next_file(&mut self) {
        if let Some(next) = self.queue.pop_front() {
            self.previous = Some(std::mem::replace(&mut self.current, next));
        }
    }

    /// At the end of the newest file: whether it was rotated away and there are newer ones.
    fn has_more(&mut self) -> io::Result<bool> {
        if !self.current.regular {
            return Ok(false);
        }
        match fs::metadata(&self.path) {
            Ok(meta) if (meta.dev(), meta.ino()) == self.current.id => return Ok(false),
            // Between the two steps of a rotation, or removed: something will come.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        let mut all = open_all(&self.path)?;
        match all.iter().position(|source| source.id == self.current.id) {
            Some(at) => drop(all.drain(..=at)),
            // It left the set: removed, compressed, renamed otherwise. Of the others those are newer that go on where it
            // ended; the newest is, even if somebody began to number anew.
            None => {
                let last = self.last_seq.unwrap_or(0);
                let newest = all.pop_back();
                all.retain_mut(|source| source.first_seq().is_some_and(|seq| seq > last));
                all.extend(newest);
            }
        }
        self.queue = all;
        Ok(!self.queue.is_empty())
    }
}

/// Opens the log and its rotated files: from the newest to the oldest, because a rotation that happens meanwhile moves
/// files that way, so none is missed and some may be met twice. Returns the oldest first.
fn open_all(path: &Path) -> io::Result<VecDeque<Source>> {
    let mut sources: VecDeque<Source> = VecDeque::new();
    let mut failed = None;
    let mut holes = 0;
    for n in 0.. {
        match Source::open(&numbered(path, n)) {
            Ok(source) => {
                holes = 0;
                // Met again, it has been moved on meanwhile, and so has what was met in between.
                sources.retain(|s| s.id != source.id);
                sources.push_front(source);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // The log itself may be missing for a moment, and one number per rotation that runs meanwhile.
                holes += 1;
                if holes > 2 {
                    break;
                }
            }
            // The log must be readable; rotated files may have been given to somebody else.
            Err(error) if n == 0 => return Err(error),
            Err(error) => {
                holes = 0;
                failed = failed.or(Some(error));
            }
        }
    }
    match failed {
        Some(error) if sources.is_empty() => Err(error),
        _ => Ok(sources),
    }
}

impl Skipped {
    /// The line that was just read is no record.
    fn skip(&mut self, source: &Source, places: &mut Vec<Place>) {
        self.foreign += 1;
        if places.len() < PLACES {
            places.push(Place { file: source.path.clone(), line: source.lines });
        }
    }
}

/// One file.
#[derive(Debug)]
struct Source {
    path: PathBuf,
    /// Whole lines read.
    lines: u64,
    file: BufReader<File>,
    id: (u64, u64),
    regular: bool,
    modified: Option<SystemTime>,
    /// The line being read.
    line: Vec<u8>,
    /// Where it begins; everything before is read.
    line_start: u64,
    /// Where the last whole line began, and how.
    anchor: Option<(u64, Vec<u8>)>,
    /// It ends, for now, within a line.
    torn: bool,
    /// A pipe whose writers are gone.
    ended: bool,
    /// Within a line that is too long.
    skipping: bool,
}

/// What [`Source::read_line`] met.
enum Met {
    Line,
    End,
}

impl Source {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let meta = file.metadata()?;
        if meta.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        Ok(Self {
            path: path.to_owned(),
            lines: 0,
            file: BufReader::with_capacity(64 << 10, file),
            id: (meta.dev(), meta.ino()),
            regular: meta.is_file(),
            modified: meta.modified().ok(),
            line: Vec::new(),
            line_start: 0,
            anchor: None,
            torn: false,
            ended: false,
            skipping: false,
        })
    }

    /// Reads the next whole line into `line`, which the call after that overwrites.
    fn read_line(&mut self) -> io::Result<Met> {
        // What a pipe gave of a line cannot be read again.
        if !self.torn || self.regular {
            self.line.clear();
        }
        loop {
            self.file.by_ref().take(MAX_LINE).read_until(b'\n', &mut self.line)?;
            let read = self.line.len() as u64;
            if self.line.last() == Some(&b'\n') {
                self.torn = false;
                let head = self.line[..self.line.len().min(ANCHOR)].to_owned();
                self.anchor = Some((self.line_start, head));
                self.line_start += read;
                self.lines += 1;
                // The end of a line that was too long is no record either: it is left over for the parser to refuse.
                if std::mem::take(&mut self.skipping) {
                    self.line.insert(0, 0);
                }
                return Ok(Met::Line);
            }
            if read < MAX_LINE {
                break;
            }
            self.skipping = true;
            self.line_start += read;
            self.line.clear();
        }
        self.torn = !self.line.is_empty() || self.skipping;
        if self.regular {
            // Read it again when there is more: a full disk makes the writer take half a line back.
            self.file.seek(SeekFrom::Start(self.line_start))?;
        } else {
            self.ended = true;
        }
        Ok(Met::End)
    }

    /// Whether the file is not the one that was read any more: shorter, or other bytes where the last line was
    /// (logrotate's copytruncate, and then as much written again).
    fn was_emptied(&self) -> io::Result<bool> {
        let len = self.file.get_ref().metadata()?.len();
        if len < self.line_start {
            return Ok(true);
        }
        let Some((at, head)) = &self.anchor else { return Ok(false) };
        let mut now = vec![0; head.len()];
        match self.file.get_ref().read_exact_at(&mut now, *at) {
            Ok(()) => Ok(now != *head),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn restart(&mut self) -> io::Result<()> {
        self.line_start = 0;
        self.lines = 0;
        self.anchor = None;
        self.skipping = false;
        self.file.seek(SeekFrom::Start(0)).map(drop)
    }

    /// The number of the first record, read ahead.
    fn first_seq(&mut self) -> Option<u64> {
        let first = loop {
            match self.read_line().ok()? {
                Met::Line => match Line::parse(&self.line) {
                    Some(line) => break Some(line.seq),
                    None => continue,
                },
                Met::End => break None,
            }
        };
        self.restart().ok()?;
        first
    }
}
