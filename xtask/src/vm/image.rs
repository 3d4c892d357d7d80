//! The system of a virtual machine: an archive of the files in it, which the kernel unpacks into memory.
//!
//! In it are the programs under test, the few that they start, the libraries that all of them load, and the users'
//! names. What is needed of it at run time (mounts, devices) the program `guest` of the crate `tests` makes.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use cpio::newc;

use crate::sh;

/// What the tests start beside the programs of this repository.
const TOOLS: [&str; 10] =
    ["sh", "head", "kill", "nice", "prlimit", "readlink", "sleep", "tr", "true", "unshare"];

/// Name and content. The tests know root and nobody.
const TEXTS: [(&str, &str); 3] = [
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/sh\n"),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\n"),
];

const FILE: u32 = 0o100_755;
const FOLDER: u32 = 0o040_755;

/// The files of a system by their paths in it, without a slash at the beginning.
#[derive(Default)]
pub(super) struct Image {
    files: BTreeMap<String, Vec<u8>>,
}

impl Image {
    /// One with the tools and the users.
    pub(super) fn new() -> Result<Self> {
        let mut image = Self::default();
        for (path, content) in TEXTS {
            image.add(path, content);
        }
        for tool in TOOLS {
            let program = sh::on_path(tool)
                .with_context(|| format!("there is no program {tool}, which the tests start"))?;
            image.program(&format!("bin/{tool}"), &program)?;
        }
        Ok(image)
    }

    pub(super) fn add(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        self.files.insert(path.into(), content.into());
    }

    /// Adds a program and the libraries that it loads.
    pub(super) fn program(&mut self, path: &str, program: &Path) -> Result<()> {
        // What ldd cannot say much about is linked statically.
        for library in sh::ask("ldd", [program]).map(|said| loaded(&said)).unwrap_or_default() {
            let name = library.trim_start_matches('/');
            if !self.files.contains_key(name) {
                let content = fs::read(&library).with_context(|| format!("cannot read {library}"))?;
                self.add(name, content);
            }
        }
        self.add(path, without_symbols(program)?);
        Ok(())
    }

    /// Writes the archive.
    pub(super) fn write(&self, to: &Path) -> Result<()> {
        let write = || {
            let mut out = BufWriter::new(File::create(to)?);
            let paths = folders(self.files.keys()).into_iter().map(|folder| (folder, FOLDER, &[][..]));
            let files = self.files.iter().map(|(path, content)| (path.as_str(), FILE, content.as_slice()));
            for (number, (path, mode, content)) in (1..).zip(paths.chain(files)) {
                let size = u32::try_from(content.len()).map_err(std::io::Error::other)?;
                let mut entry = newc::Builder::new(path).ino(number).mode(mode).nlink(1).write(out, size);
                entry.write_all(content)?;
                out = entry.finish()?;
            }
            newc::trailer(out)?.flush()
        };
        write().with_context(|| format!("cannot write {}", to.display()))
    }
}

/// Every folder that these files are in, and those that are in, from the outside in.
fn folders<'a>(files: impl Iterator<Item = &'a String>) -> Vec<&'a str> {
    let above = |path: &'a str| path.match_indices('/').map(move |(at, _)| &path[..at]);
    let mut all: Vec<_> = files.flat_map(|path| above(path)).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The content of a program without its symbols, which are most of a debug build: all of it goes through an emulated CPU.
fn without_symbols(program: &Path) -> Result<Vec<u8>> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let Some(strip) = sh::on_path("strip") else { return read(program) };
    let stripped: PathBuf = super::folder()?.join("stripped");
    let done = Command::new(strip).arg("--strip-debug").arg("-o").arg(&stripped).arg(program).status();
    // One that this machine's strip does not know goes as it is.
    read(if done.is_ok_and(|status| status.success()) { &stripped } else { program })
}

/// The files that `ldd` lists: `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x7f…)`, `/lib64/ld-linux-x86-64.so.2 (0x7f…)`.
fn loaded(said: &str) -> Vec<String> {
    let file = |line: &str| {
        let path = line.split(" => ").last()?.split_whitespace().next()?;
        path.starts_with('/').then(|| path.to_owned())
    };
    said.lines().filter_map(file).collect()
}

#[cfg(test)]
mod tests {
    use super::{folders, loaded};

    #[test]
    fn the_libraries_are_those_with_a_file() {
        let said = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibgcc_s.so.1 => /lib/x86_64-linux-gnu/libgcc_s.so.1 (0x00007f)\n\
                    \tlibodd.so => not found\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(loaded(said), ["/lib/x86_64-linux-gnu/libgcc_s.so.1", "/lib64/ld-linux-x86-64.so.2"]);
        assert!(loaded("\tstatically linked\n").is_empty());
    }

    #[test]
    fn a_folder_comes_before_what_is_in_it() {
        let files = ["bin/sh", "lib/x/a.so", "lib/x/b.so", "plan"].map(String::from);
        assert_eq!(folders(files.iter()), ["bin", "lib", "lib/x"]);
    }
}
