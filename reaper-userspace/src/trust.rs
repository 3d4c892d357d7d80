//! In whose hands the agent's files are. What decides about signals, and what root writes, is nobody else's to change: as sshd's
//! `StrictModes` has it.
//!
//! A file can be trusted if it is root's and nobody else may write to it, and so it is with every directory on the way to it: whoever
//! may write to a directory may put something else in the file's place. In a sticky directory, such as `/tmp`, everybody may
//! make files, but nobody replaces those of root. "Root" is uid 0, or the user that the agent runs as.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

const STICKY: u32 = 0o1000;
const BY_GROUP: u32 = 0o020;
const BY_OTHERS: u32 = 0o002;

/// Why a path is not trusted. The message says what to do.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Distrust {
    #[error("{path} belongs to uid {uid} and has to be root's: chown root {path}", path = .path.display())]
    Owner { path: PathBuf, uid: u32 },
    #[error(
        "{} belongs to uid {uid}, who can put something else in its place: have it in a directory of root's",
        dir.display()
    )]
    Elsewhere { dir: PathBuf, uid: u32 },
    #[error(
        "{path} (mode {mode:04o}) can be written by others than root: chmod {mend} {path}",
        path = .path.display()
    )]
    Writable { path: PathBuf, mode: u32, mend: &'static str },
    #[error(
        "{} has a second name, in a directory in which others can give it one: have it somewhere else",
        path.display()
    )]
    Linked { path: PathBuf },
    #[error("it cannot be found out whose {} is: {source}", path.display())]
    Unknown { path: PathBuf, source: io::Error },
}

/// Checks a file that is read and decides something. It has to be there.
///
/// # Errors
/// Every [`Distrust`].
pub fn check_file(path: &Path) -> Result<(), Distrust> {
    let path = absolute(path)?;
    let own = fs::symlink_metadata(&path).map_err(|e| unknown(&path, e))?;
    check_owner(&path, &own)?;
    check_directory_of(&path)?;
    if own.is_symlink() {
        return check_file(&fs::canonicalize(&path).map_err(|e| unknown(&path, e))?);
    }
    if own.mode() & (BY_GROUP | BY_OTHERS) != 0 {
        return Err(writable(&path, &own, "go-w"));
    }
    Ok(())
}

/// Checks where a file is to be written, or is written already. What is neither a file nor a socket (a terminal, a pipe) was
/// chosen by whoever started the agent.
///
/// # Errors
/// Every [`Distrust`].
pub fn check_place(path: &Path) -> Result<(), Distrust> {
    let path = absolute(path)?;
    let there = match fs::metadata(&path) {
        Ok(there) => Some(there),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        // The kernel may follow no link of somebody else's (`fs.protected_symlinks`); what else is in its way is said by
        // whoever opens it.
        Err(_) => {
            check_directory_of(&path)?;
            return fs::symlink_metadata(&path).map_or(Ok(()), |own| check_owner(&path, &own));
        }
    };
    if there.as_ref().is_some_and(|m| !m.is_file() && !is_socket(m)) {
        return Ok(());
    }
    check_directory_of(&path)?;
    let Ok(own) = fs::symlink_metadata(&path) else { return Ok(()) };
    check_owner(&path, &own)?;
    if own.is_symlink() && there.is_some() {
        return check_place(&fs::canonicalize(&path).map_err(|e| unknown(&path, e))?);
    }
    if own.is_file() && own.mode() & BY_OTHERS != 0 {
        return Err(writable(&path, &own, "o-w"));
    }
    if own.is_file() && own.nlink() > 1 && is_shared(&path) {
        return Err(Distrust::Linked { path });
    }
    Ok(())
}

/// Checks a directory in which the agent keeps its own, if it is there. Nobody else may make files in it, sticky or not.
///
/// # Errors
/// Every [`Distrust`].
pub fn check_directory(path: &Path) -> Result<(), Distrust> {
    let path = absolute(path)?;
    check_directory_of(&path.join("inside"))?;
    match fs::metadata(&path) {
        Ok(found) if found.mode() & (BY_GROUP | BY_OTHERS) != 0 => Err(writable(&path, &found, "go-w")),
        // What is not there will be made; what else is wrong with it is said by whoever opens it.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Whether a file that was opened is root's: between a look at its path and its opening somebody may have put it there.
pub fn is_trusted(metadata: &Metadata) -> bool {
    metadata.uid() == 0 || metadata.uid() == rustix::process::geteuid().as_raw()
}

/// Whether everybody may make files beside this one.
pub fn is_shared(path: &Path) -> bool {
    let Ok(path) = absolute(path) else { return true };
    let parent = path.parent().map(fs::metadata);
    parent.is_some_and(|dir| dir.is_ok_and(|dir| dir.mode() & (BY_GROUP | BY_OTHERS) != 0))
}

/// The directory a file is in, as far as it is there, and all above it.
fn check_directory_of(path: &Path) -> Result<(), Distrust> {
    let mut above = path.ancestors().skip(1);
    let there = above.find_map(|dir| match fs::canonicalize(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        found => Some(found.map_err(|e| unknown(dir, e))),
    });
    let Some(there) = there.transpose()? else { return Ok(()) };
    for (n, dir) in there.ancestors().enumerate() {
        let found = fs::metadata(dir).map_err(|e| unknown(dir, e))?;
        if !is_trusted(&found) {
            return Err(Distrust::Elsewhere { dir: dir.to_owned(), uid: found.uid() });
        }
        // Further up a group may write: /var/log is a group's on some distributions.
        let forbidden = if n == 0 { BY_GROUP | BY_OTHERS } else { BY_OTHERS };
        if found.mode() & forbidden != 0 && found.mode() & STICKY == 0 {
            return Err(writable(dir, &found, if n == 0 { "go-w" } else { "o-w" }));
        }
    }
    Ok(())
}

fn check_owner(path: &Path, found: &Metadata) -> Result<(), Distrust> {
    if is_trusted(found) {
        return Ok(());
    }
    Err(Distrust::Owner { path: path.to_owned(), uid: found.uid() })
}

fn writable(path: &Path, found: &Metadata, mend: &'static str) -> Distrust {
    Distrust::Writable { path: path.to_owned(), mode: found.mode() & 0o7777, mend }
}

fn is_socket(found: &Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_socket(&found.file_type())
}

fn absolute(path: &Path) -> Result<PathBuf, Distrust> {
    std::path::absolute(path).map_err(|e| unknown(path, e))
}

fn unknown(path: &Path, source: io::Error) -> Distrust {
    Distrust::Unknown { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    /// A directory of one's own, and a file in it with this mode.
    fn file(mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        fs::write(&path, "").expect("written");
        set(&path, mode);
        (dir, path)
    }

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("its mode is set");
    }

    fn said(outcome: Result<(), Distrust>) -> String {
        outcome.expect_err("not trusted").to_string()
    }

    #[test]
    fn a_file_of_ones_own_is_trusted() {
        let (dir, path) = file(0o644);
        check_file(&path).expect("trusted");
        check_place(&path).expect("trusted");
        check_place(&dir.path().join("not/there/yet")).expect("trusted");
        check_directory(dir.path()).expect("trusted");
    }

    #[test]
    fn what_others_may_write_is_not() {
        let (_dir, path) = file(0o664);
        let message = said(check_file(&path));
        assert!(message.contains("mode 0664") && message.contains(&format!("chmod go-w {}", path.display())));
        // A log may be its group's.
        check_place(&path).expect("trusted");
        set(&path, 0o646);
        assert!(said(check_place(&path)).contains("chmod o-w"));
    }

    #[test]
    fn nor_what_is_in_a_directory_that_others_may_write() {
        let (dir, path) = file(0o600);
        for mode in [0o777, 0o775] {
            set(dir.path(), mode);
            for outcome in [check_file(&path), check_place(&path), check_directory(dir.path())] {
                assert!(said(outcome).contains(&format!("chmod go-w {}", dir.path().display())));
            }
        }
        set(dir.path(), 0o1777);
        check_file(&path).expect("sticky: nobody replaces it");
        check_place(&path).expect("sticky");
        assert!(
            said(check_directory(dir.path())).contains("chmod go-w"),
            "what is kept there would be anybody's"
        );
        fs::hard_link(&path, dir.path().join("second")).expect("linked");
        assert!(said(check_place(&path)).contains("second name"));
    }

    #[test]
    fn a_link_is_as_good_as_what_it_leads_to() {
        let (_there, target) = file(0o666);
        let (dir, _) = file(0o600);
        let link = dir.path().join("link");
        symlink(&target, &link).expect("linked");
        assert!(said(check_file(&link)).contains(&target.display().to_string()));
        assert!(said(check_place(&link)).contains(&target.display().to_string()));
        set(&target, 0o600);
        check_file(&link).expect("trusted");
        check_place(&link).expect("trusted");
    }

    #[test]
    fn a_terminal_or_a_pipe_is_ones_own_choice() {
        check_place(Path::new("/dev/null")).expect("no file");
        check_place(Path::new("/dev/stdout")).expect("whatever it is");
    }
}
