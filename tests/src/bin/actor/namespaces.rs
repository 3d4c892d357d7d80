//! Namespaces that an actor makes for itself, as container runtimes do. (A pid namespace is made by the next fork.)

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_dumpable;
use nix::unistd::{getgid, getuid};

/// A user namespace in which the user that this is outside is root.
pub(crate) fn own_users() {
    let (uid, gid) = (getuid(), getgid());
    // Who changed user may not write to files of its own in /proc otherwise.
    set_dumpable(true).unwrap();
    unshare(CloneFlags::CLONE_NEWUSER).unwrap();
    fs::write("/proc/self/setgroups", "deny").unwrap();
    fs::write("/proc/self/uid_map", format!("0 {uid} 1")).unwrap();
    fs::write("/proc/self/gid_map", format!("0 {gid} 1")).unwrap();
}

/// A mount namespace with a file system of its own at `folder`, and the path of a copy of this program in it.
pub(crate) fn own_mounts(folder: &Path) -> PathBuf {
    private_mounts();
    fs::create_dir(folder).unwrap();
    let none = None::<&str>;
    mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), none).unwrap();
    let copy = folder.join("actor");
    fs::copy("/proc/self/exe", &copy).unwrap();
    copy
}

/// A mount namespace with a /proc for this process's own pid namespace.
pub(crate) fn mount_proc() {
    private_mounts();
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), None::<&str>).unwrap();
}

fn private_mounts() {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
}

/// A network of its own, in which it can reach itself.
pub(crate) fn own_network() {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    reaper_tests::loopback::up().unwrap();
}
