//! Thread names that are never signalled, whatever a configuration says.
//!
//! These are processes that look like orphans and are not (live restore, detached on purpose), and those whose loss
//! takes a host or other people's work with it. The list is a second fence: the first is that a process must match an
//! enforcing group at all. A name too many costs an orphan that stays.

use std::sync::LazyLock;

use globset::GlobMatcher;

use super::patterns::build_glob;

/// Compared with at most 15 bytes of a name: longer names are cut or end in a wildcard.
const BUILTIN: &[&str] = &[
    // Pid 1, of the host and of containers: with it goes its pid namespace.
    "init",
    "systemd*",
    "(sd-pam)",
    "tini*",
    "dumb-init",
    "docker-init",
    "catatonit",
    "s6-svscan",
    "runsvdir",
    // The way into the host and what people started from there.
    "sshd*",
    "login",
    "agetty",
    "getty",
    "su",
    "sudo",
    "dbus-daemon",
    "dbus-broker*",
    "polkitd",
    "cron",
    "crond",
    "atd",
    // Detached on purpose.
    "tmux*",
    "screen",
    "SCREEN",
    "zellij",
    "dtach",
    "abduco",
    "mosh-server",
    "ssh-agent",
    "gpg-agent",
    // They live on under pid 1 while their daemon restarts, and carry containers or machines.
    "containerd*",
    "dockerd",
    "docker-proxy",
    "rootlesskit",
    "rootlessport",
    "slirp4netns",
    "conmon*",
    "crio*",
    "cri-dockerd",
    "kubelet",
    "runc*",
    "crun",
    "youki",
    "buildkitd",
    "podman",
    "pause",
    "lxc*",
    "lxd*",
    "incusd",
    "qemu*",
    "kvm",
    "firecracker",
    "cloud-hyperviso",
    "libvirtd",
    "virt*",
    // An old haproxy after a reload finishes its connections and goes.
    "haproxy",
    // Never (docs/profiles.md): its children share memory, and one that is killed makes all of them restart.
    "postgres*",
];

/// The built-in list. A name that does not compile would be missing; the test below sees to that.
pub(super) fn builtin() -> Vec<GlobMatcher> {
    // Compiling takes longer than all the rest of loading a configuration.
    static COMPILED: LazyLock<Vec<GlobMatcher>> =
        LazyLock::new(|| BUILTIN.iter().filter_map(|glob| build_glob(glob, false).ok()).collect());
    COMPILED.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_compiles_and_can_match() {
        assert_eq!(builtin().len(), BUILTIN.len());
        for name in BUILTIN {
            assert!(name.len() <= 15 || name.contains('*'), "{name} is longer than a thread name can be");
        }
    }

    #[test]
    fn protects_what_looks_like_an_orphan_and_is_not() {
        let protected = |comm: &str| builtin().iter().any(|g| g.is_match(comm));
        for comm in [
            "systemd",
            "systemd-logind",
            "(sd-pam)",
            "sshd",
            "sshd-session",
            "containerd-shim",
            "docker-proxy",
            "conmon",
            "qemu-system-x86",
            "libvirtd",
            "tmux: server",
            "screen",
            "ssh-agent",
            "gpg-agent",
            "tini",
            "haproxy",
            "dbus-daemon",
            "agetty",
            "login",
            "postgres",
        ] {
            assert!(protected(comm), "{comm}");
        }
        for comm in
            ["php", "php8.2", "python3", "celery", "gunicorn", "php-fpm8.2", "nginx", "node", "sh", "sleep"]
        {
            assert!(!protected(comm), "{comm}");
        }
    }
}
