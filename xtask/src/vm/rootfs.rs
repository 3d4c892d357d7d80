//! A whole system in a folder as an archive that the kernel unpacks into memory: files, folders and links with their modes
//! and owners. Devices are not in it, systemd has the kernel make them.

use std::{
    fs,
    io::{self, Write},
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::Path,
};

use cpio::newc;

/// What a machine does not read, and would only fill its memory.
const LEFT_OUT: [&str; 6] = [
    "usr/share/doc",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
    "var/cache/apt",
    "var/lib/apt/lists",
];

/// Writes everything below a folder.
pub(super) fn write(root: &Path, out: &mut impl Write) -> io::Result<()> {
    let mut number = 0;
    below(root, "", &mut number, out)?;
    newc::trailer(out).map(drop)
}

fn below(folder: &Path, name: &str, number: &mut u32, out: &mut impl Write) -> io::Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let file = entry.file_name().into_string().map_err(|_| io::Error::other("a name is not UTF-8"))?;
        let name = if name.is_empty() { file } else { format!("{name}/{file}") };
        let about = entry.metadata()?;
        let content = if about.is_file() {
            fs::read(entry.path())?
        } else if about.is_symlink() {
            fs::read_link(entry.path())?.as_os_str().as_bytes().to_owned()
        } else if about.is_dir() {
            Vec::new()
        } else {
            continue;
        };
        *number += 1;
        let size = u32::try_from(content.len()).map_err(io::Error::other)?;
        let header = newc::Builder::new(&name).ino(*number).nlink(1).mode(about.mode());
        let mut one = header.uid(about.uid()).gid(about.gid()).write(&mut *out, size);
        one.write_all(&content)?;
        one.finish()?;
        if about.is_dir() && !LEFT_OUT.contains(&name.as_str()) {
            below(&entry.path(), &name, number, out)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Read as _, os::unix::fs::symlink};

    use cpio::newc;

    #[test]
    fn what_is_in_the_folder_is_in_the_archive() {
        let root = std::env::temp_dir().join(format!("rootfs-{}", std::process::id()));
        fs::create_dir_all(root.join("usr/share/man/man1")).unwrap();
        fs::write(root.join("usr/file"), "content").unwrap();
        symlink("usr/file", root.join("link")).unwrap();
        let mut archive = Vec::new();
        super::write(&root, &mut archive).unwrap();
        fs::remove_dir_all(&root).unwrap();

        let (mut rest, mut found) = (archive.as_slice(), Vec::new());
        loop {
            let mut entry = newc::Reader::new(rest).unwrap();
            if entry.entry().is_trailer() {
                break;
            }
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            found.push((entry.entry().name().to_owned(), entry.entry().mode() & 0o170_000, content));
            rest = entry.finish().unwrap();
        }
        let of = |name: &str, kind, content: &str| (name.to_owned(), kind, content.to_owned());
        let (file, folder, link) = (0o100_000, 0o040_000, 0o120_000);
        assert_eq!(
            found,
            [
                of("link", link, "usr/file"),
                of("usr", folder, ""),
                of("usr/file", file, "content"),
                of("usr/share", folder, ""),
                of("usr/share/man", folder, ""),
            ]
        );
    }
}
