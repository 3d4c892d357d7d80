//! Users and groups by their names, as this host has them.
//!
//! A static binary reads the host's files by itself: for other directories glibc loads modules of the host's, which fit the host's
//! glibc and not the one in the binary.

#[cfg(any(test, target_feature = "crt-static"))]
use std::{fs, io, path::Path};

#[cfg(any(test, target_feature = "crt-static"))]
use nix::errno::Errno;
#[cfg(not(target_feature = "crt-static"))]
use nix::unistd::{Group, User};

/// A user's number.
#[cfg(not(target_feature = "crt-static"))]
pub(super) fn user(name: &str) -> nix::Result<Option<u32>> {
    Ok(User::from_name(name)?.map(|user| user.uid.as_raw()))
}

/// A group's number.
#[cfg(not(target_feature = "crt-static"))]
pub(super) fn group(name: &str) -> nix::Result<Option<u32>> {
    Ok(Group::from_name(name)?.map(|group| group.gid.as_raw()))
}

/// A user's number.
#[cfg(target_feature = "crt-static")]
pub(super) fn user(name: &str) -> nix::Result<Option<u32>> {
    listed(Path::new("/etc/passwd"), name)
}

/// A group's number.
#[cfg(target_feature = "crt-static")]
pub(super) fn group(name: &str) -> nix::Result<Option<u32>> {
    listed(Path::new("/etc/group"), name)
}

/// The third field of the line that begins with the name: passwd(5), group(5). A file that is not there has nobody in it.
#[cfg(any(test, target_feature = "crt-static"))]
fn listed(file: &Path, name: &str) -> nix::Result<Option<u32>> {
    let text = match fs::read(file) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Errno::try_from(e).unwrap_or(Errno::EIO)),
    };
    let id = |line: &[u8]| {
        let mut fields = line.split(|&byte| byte == b':');
        let id = (fields.next() == Some(name.as_bytes())).then(|| fields.nth(1))??;
        str::from_utf8(id).ok()?.parse().ok()
    };
    Ok(text.split(|&byte| byte == b'\n').find_map(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_the_hosts_files() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("passwd");
        fs::write(
            &file,
            b"root:x:0:0::/root:/bin/sh\n\xff\xfe\nhalf:x\n+nis\nwww-data:x:33:34::/var/www:/bin/false\n",
        )
        .unwrap();
        for (name, id) in
            [("root", Some(0)), ("www-data", Some(33)), ("www", None), ("half", None), ("", None)]
        {
            assert_eq!(listed(&file, name), Ok(id), "{name}");
        }
        assert_eq!(listed(&dir.path().join("group"), "root"), Ok(None));
        assert_eq!(listed(dir.path(), "root"), Err(Errno::EISDIR));
    }

    #[test]
    fn this_hosts_root_is_number_zero() {
        assert_eq!(user("root"), Ok(Some(0)));
        assert_eq!(group("root"), Ok(Some(0)));
    }
}
