//! What of the kernel's side outlives the agent: files on bpffs, which keep what they stand for alive and attached.
//!
//! ```text
//! /sys/fs/bpf/reaper@run-reaper/      a state directory, here /run/reaper: two agents never meet
//!   v2/                               the wire version: what is below can be understood by whoever has the same
//!     lineage, unkept                 the maps that one generation of programs hands to the next
//!     g81230000000/                   a generation, by the time since boot: what one agent has attached
//!       ring, lost, process_fork, …   its ring buffer, its loss counters, its links
//! ```
//! A newer agent attaches its own programs first and removes the older generation then, so no birth falls in between.
//!
//! Deliberately not here: what is in the maps (`lineage`), and what follows from it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use reaper_common::WIRE_VERSION;
use thiserror::Error;

use super::load::TRACEPOINTS;
use crate::clock;

/// Where every distribution mounts it.
const BPFFS: &str = "/sys/fs/bpf";

/// The file of the map of lineages.
pub(super) const LINEAGE: &str = "lineage";

/// The file of the counter of what it could not take.
pub(super) const UNKEPT: &str = "unkept";

/// The file of a generation's ring buffer.
pub(super) const RING: &str = "ring";

/// The file of its loss counters, which are pinned after the ring buffer.
pub(super) const LOST: &str = "lost";

/// Longest name of a folder.
const NAME_MAX: usize = 255;

/// Why nothing can be pinned.
#[derive(Debug, Error)]
pub enum PinError {
    /// There is no bpffs, and it cannot be mounted.
    #[error("{BPFFS} is no bpffs, and mounting one there failed: {0}")]
    Mount(#[source] io::Error),
    /// The name of the folder would be too long.
    #[error("the state directory's path is too long to be the name of a folder in {BPFFS}")]
    Name,
    /// A folder cannot be made, read or removed.
    #[error("{path}: {source}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The pins of the agent with one state directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins {
    folder: PathBuf,
}

/// What this agent is about to pin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Generation {
    pins: Pins,
    version: PathBuf,
    folder: PathBuf,
    /// There was nothing before it.
    first: bool,
}

/// What was found of agents before this one.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// There is a lineage map that this agent can go on with.
    pub(super) lineage: bool,
    /// Wire versions that it cannot; they have been removed.
    pub(super) foreign: Vec<String>,
}

impl Pins {
    /// The pins that belong to a state directory.
    ///
    /// # Errors
    /// [`PinError::Name`].
    pub fn of(state: &Path) -> Result<Self, PinError> {
        // One that is not there has nothing pinned under another name.
        let state = fs::canonicalize(state).or_else(|_| std::path::absolute(state));
        let name = folder_name(&state.map_err(|_| PinError::Name)?);
        if name.len() > NAME_MAX {
            Err(PinError::Name)
        } else {
            Ok(Self { folder: Path::new(BPFFS).join(name) })
        }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The state directories of agents whose programs are still attached and that are not there, as this process sees it: nobody will
    /// go on with what is pinned, and every process life of the host pays for it.
    ///
    /// # Errors
    /// [`PinError::Folder`].
    pub fn abandoned() -> Result<Vec<PathBuf>, PinError> {
        let mut found = Vec::new();
        for folder in entries(Path::new(BPFFS))? {
            let state = folder.file_name().and_then(|name| state_directory(&name.to_string_lossy()));
            let is_missing = |state: &PathBuf| {
                fs::symlink_metadata(state).is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
            };
            if let Some(state) = state.filter(is_missing)
                // Where bpffs lets everybody make folders, only root's are an agent's.
                && fs::symlink_metadata(&folder).is_ok_and(|meta| meta.uid() == 0)
                && holds_links(&folder)
            {
                found.push(state);
            }
        }
        Ok(found)
    }

    /// Whether something can be pinned here; mounts bpffs if it is not there.
    ///
    /// # Errors
    /// [`PinError::Mount`].
    pub fn mount() -> Result<(), PinError> {
        let is_there = || statfs(BPFFS).is_ok_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC);
        if is_there() {
            return Ok(());
        }
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("bpf"), BPFFS, Some("bpf"), flags, Some("mode=700"))
            .map_err(|errno| PinError::Mount(errno.into()))
    }

    /// Makes a folder for what this agent will attach. What an agent of another wire version has left is removed, and so its
    /// programs are detached.
    pub(super) fn begin(&self) -> Result<(Generation, Found), PinError> {
        Self::mount()?;
        let version = self.folder.join(format!("v{WIRE_VERSION}"));
        make(&self.folder)?;
        let mut found = Found::default();
        for other in entries(&self.folder)?.into_iter().filter(|other| *other != version) {
            remove(&other)?;
            found.foreign.extend(other.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
        make(&version)?;
        found.lineage = version.join(LINEAGE).exists();
        let folder = version.join(format!("g{}", clock::now()));
        make(&folder)?;
        Ok((Generation { pins: self.clone(), version, folder, first: !found.lineage }, found))
    }

    /// Removes everything: the programs are detached, unless a running agent holds them. Returns what was removed.
    ///
    /// # Errors
    /// [`PinError::Folder`].
    pub fn remove(&self) -> Result<Vec<PathBuf>, PinError> {
        match fs::symlink_metadata(&self.folder) {
            Ok(_) => remove(&self.folder),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(PinError::Folder { path: self.folder.clone(), source }),
        }
    }
}

impl Generation {
    /// A map that one generation hands to the next.
    pub(super) fn shared(&self, name: &str) -> PathBuf {
        self.version.join(name)
    }

    /// Something of this generation's own.
    pub(super) fn own(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The folders of the generations before this one.
    pub(super) fn older(&self) -> Result<Vec<PathBuf>, PinError> {
        let generations = entries(&self.version)?.into_iter().filter(|path| path.is_dir());
        Ok(generations.filter(|path| *path != self.folder).collect())
    }

    /// Whether a generation got as far as to pin what can be read of it.
    pub(super) fn is_whole(older: &Path) -> bool {
        older.join(RING).exists() && older.join(LOST).exists()
    }

    /// Nothing came of it.
    pub(super) fn abandon(&self) -> Result<(), PinError> {
        if self.first { self.pins.remove() } else { remove(&self.folder) }.map(drop)
    }
}

/// Removes a file, or a folder with all that is in it. Returns what was removed.
pub(super) fn remove(path: &Path) -> Result<Vec<PathBuf>, PinError> {
    let error = |source| PinError::Folder { path: path.to_owned(), source };
    if !path.is_dir() {
        fs::remove_file(path).map_err(error)?;
        return Ok(vec![path.to_owned()]);
    }
    let mut removed = Vec::new();
    for entry in entries(path)? {
        removed.extend(remove(&entry)?);
    }
    fs::remove_dir(path).map_err(error)?;
    Ok(removed)
}

/// Removes a file if there is one.
pub(super) fn remove_if_there(path: &Path) -> Result<(), PinError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(PinError::Folder { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

fn make(path: &Path) -> Result<(), PinError> {
    match fs::create_dir(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(PinError::Folder { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

fn entries(path: &Path) -> Result<Vec<PathBuf>, PinError> {
    let error = |source| PinError::Folder { path: path.to_owned(), source };
    fs::read_dir(path).map_err(error)?.map(|entry| entry.map(|e| e.path()).map_err(error)).collect()
}

/// How the names of all folders begin.
const PREFIX: &str = "reaper@";

/// A path as a name: slashes as dashes, everything else that is no letter or digit by its number. bpffs takes no dots.
fn folder_name(path: &Path) -> String {
    let path = path.as_os_str().as_bytes();
    let mut name = PREFIX.to_owned();
    for &byte in path.strip_prefix(b"/").unwrap_or(path) {
        match byte {
            b'/' => name.push('-'),
            _ if byte.is_ascii_alphanumeric() => name.push(char::from(byte)),
            _ => name.extend(['_', hex(byte >> 4), hex(byte & 0xf)]),
        }
    }
    name
}

fn hex(digit: u8) -> char {
    char::from_digit(digit.into(), 16).unwrap_or('_')
}

/// Whether a generation in an agent's folder has a program attached.
fn holds_links(folder: &Path) -> bool {
    let within =
        |folders: Vec<PathBuf>| folders.into_iter().filter_map(|folder| entries(&folder).ok()).flatten();
    let generations = within(within(vec![folder.to_owned()]).collect()).collect();
    within(generations).any(|file| TRACEPOINTS.iter().any(|(program, _)| file.ends_with(program)))
}

/// The path behind a [`folder_name`]; `None` if it is none.
fn state_directory(name: &str) -> Option<PathBuf> {
    let mut path = b"/".to_vec();
    let mut rest = name.strip_prefix(PREFIX)?.bytes();
    while let Some(byte) = rest.next() {
        path.push(match byte {
            b'-' => b'/',
            b'_' => digit(rest.next()?)? << 4 | digit(rest.next()?)?,
            _ => byte,
        });
    }
    let path = PathBuf::from(OsString::from_vec(path));
    (folder_name(&path) == name).then_some(path)
}

fn digit(hex: u8) -> Option<u8> {
    u8::try_from(char::from(hex).to_digit(16)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_paths_have_one_name() {
        let names = ["/run/reaper", "/run-reaper", "/run/reaper.1", "/run/reaper_2e1", "/tmp/ä"]
            .map(|path| folder_name(Path::new(path)));
        assert_eq!(
            names,
            [
                "reaper@run-reaper",
                "reaper@run_2dreaper",
                "reaper@run-reaper_2e1",
                "reaper@run-reaper_5f2e1",
                "reaper@tmp-_c3_a4"
            ]
        );
        assert_eq!(
            names.map(|name| state_directory(&name).map(|path| folder_name(&path)) == Some(name)),
            [true; 5]
        );
        assert_eq!(state_directory("reaper@tmp-_c3_a4"), Some("/tmp/ä".into()));
        for no_name_of_ours in ["maps.debug", "reaper@cut_2", "reaper@tmp-x; reboot", "reaper@\u{1b}[31m"] {
            assert_eq!(state_directory(no_name_of_ours), None);
        }
    }

    #[test]
    fn a_path_that_is_too_long_is_refused() {
        let long = PathBuf::from(format!("/{}", "x".repeat(250)));
        assert!(matches!(Pins::of(&long), Err(PinError::Name)));
    }

    #[test]
    fn a_folder_goes_with_all_that_is_in_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let top = dir.path().join("top");
        fs::create_dir_all(top.join("v1/g2")).expect("made");
        fs::write(top.join("v1/g2/ring"), "").expect("written");
        fs::write(top.join("v1/lineage"), "").expect("written");
        let mut removed = remove(&top).expect("removed");
        removed.sort();
        assert_eq!(removed, [top.join("v1/g2/ring"), top.join("v1/lineage")]);
        assert!(!top.exists());
    }
}
