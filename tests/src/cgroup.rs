//! A cgroup hierarchy that is mounted for one test, and the cgroups that are made in it: whatever else the machine has mounted.

use std::fs;
use std::path::PathBuf;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

use crate::process::{PATIENCE, Proc, comes_true};

/// Gone when it is dropped. Whoever is in one of its cgroups must have died by then.
pub struct Cgroups {
    root: TempDir,
    made: Vec<PathBuf>,
}

impl Cgroups {
    /// Mounts `cgroup2`, or `cgroup` with options: controllers, or `none,name=NAME`.
    ///
    /// # Errors
    /// The kernel does not have it, or the controllers are in another hierarchy.
    pub fn mount(kind: &str, options: Option<&str>) -> nix::Result<Self> {
        let root = tempfile::Builder::new().prefix("reaper-cgroup-").tempdir().unwrap();
        mount(Some("none"), root.path(), Some(kind), MsFlags::empty(), options)?;
        Ok(Self { root, made: Vec::new() })
    }

    /// Puts a process into a cgroup of this path.
    pub fn put(&mut self, who: &Proc, path: &str) {
        let dir = self.make(path);
        fs::write(dir.join("cgroup.procs"), who.pid().to_string()).unwrap();
    }

    /// Where a process writes its pid to be in a cgroup of this path.
    pub fn processes(&mut self, path: &str) -> PathBuf {
        self.make(path).join("cgroup.procs")
    }

    /// Writes to a file of a cgroup of this path.
    #[track_caller]
    pub fn write(&mut self, path: &str, file: &str, text: &str) {
        let file = self.make(path).join(file);
        fs::write(&file, text).unwrap_or_else(|e| panic!("{text} to {}: {e}", file.display()));
    }

    /// What a file of a cgroup of this path says.
    pub fn read(&self, path: &str, file: &str) -> String {
        fs::read_to_string(self.root.path().join(path).join(file)).unwrap()
    }

    fn make(&mut self, path: &str) -> PathBuf {
        let mut dir = self.root.path().to_owned();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            dir.push(name);
            if !dir.exists() {
                fs::create_dir(&dir).unwrap();
                self.made.push(dir.clone());
            }
        }
        dir
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        // They are empty only when the last process in them has been waited for.
        let gone = |dir: &PathBuf| comes_true(PATIENCE, || fs::remove_dir(dir).is_ok());
        let all_gone = self.made.iter().rev().all(gone);
        let unmounted = umount2(self.root.path(), MntFlags::MNT_DETACH);
        assert!(std::thread::panicking() || (all_gone && unmounted.is_ok()), "{unmounted:?}");
    }
}
