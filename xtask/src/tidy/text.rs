//! The rules on text: lines, words and the length of files.

use std::env;

use super::Found;
use crate::sh;

/// How long a source file may get before a reader loses the thread, and a file of tests.
const LONGEST: usize = 500;
const LONGEST_TESTS: usize = 700;
/// Files that may be longer, each with the reason why it cannot be split.
const LONGER: [(&str, &str); 0] = [];

/// Names of users that examples may have a home folder for.
const EXAMPLE_USERS: [&str; 5] = ["alice", "app", "deploy", "forge", "user"];
/// Folders of data recorded elsewhere, which is kept as it was.
const RECORDED: [&str; 4] = ["corpus", "fixtures", "golden", "snapshots"];

pub(super) fn check(path: &str, content: &str) -> Vec<Found> {
    let mut found = Vec::new();
    length(path, content, &mut found);
    module_doc(path, content, &mut found);
    if path.split('/').any(|folder| RECORDED.contains(&folder)) || path == "Cargo.lock" {
        return found;
    }
    for (number, line) in content.split('\n').enumerate() {
        let mut add = |rule, what| found.push((number + 1, rule, what));
        if line.ends_with([' ', '\t', '\r']) {
            add("whitespace", "the line ends in whitespace: remove it".into());
        }
        // Assembled, so that this file does not contain what it looks for.
        for mark in [concat!("FIX", "ME"), concat!("XX", "X")] {
            if words(line).any(|word| word == mark) {
                add("unfinished", format!("{mark}: mend it, or file it where people look"));
            }
        }
        if let Some(place) = private_path(line) {
            add("private-path", format!("`{place}` is a place on one person's machine: use a relative path"));
        }
    }
    if !content.is_empty() && (!content.ends_with('\n') || content.ends_with("\n\n")) {
        let what = "the file must end in exactly one newline: tools that append or compare lines rely on it";
        found.push((content.lines().count(), "whitespace", what.into()));
    }
    found
}

fn length(path: &str, content: &str, found: &mut Vec<Found>) {
    let tests = path.split('/').any(|part| matches!(part, "tests" | "tests.rs"));
    let source = path.ends_with(".rs") && (tests || path.split('/').any(|part| part == "src"));
    let limit = if tests { LONGEST_TESTS } else { LONGEST };
    let lines = content.lines().count();
    if source && lines > limit && !LONGER.iter().any(|(longer, _why)| *longer == path) {
        let what = format!("{lines} lines, {limit} at most: split it by what a reader looks for");
        found.push((limit + 1, "length", what));
    }
}

fn module_doc(path: &str, content: &str, found: &mut Vec<Found>) {
    let module = path.ends_with(".rs") && path.split('/').any(|part| part == "src");
    if module && !content.starts_with("//! ") {
        let what =
            "a module begins with `//!`: what it is, what it keeps true, what is deliberately not in it";
        found.push((1, "module-doc", what.into()));
    }
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
}

/// A path below somebody's home or work folder, as far as it says whose.
fn private_path(line: &str) -> Option<String> {
    let here = [Some(sh::root().display().to_string()), env::var("HOME").ok()];
    let here = here.into_iter().flatten().filter(|place| place.len() > 1);
    let homes = [concat!("/ro", "ot"), concat!("/wo", "rk"), concat!("/ho", "me"), concat!("/Us", "ers")];
    homes.map(String::from).into_iter().chain(here).find_map(|place| {
        line.match_indices(&place).find_map(|(at, _)| {
            // Neither the middle of a longer path or address, nor the beginning of a longer name.
            let starts = !line[..at].ends_with(|c: char| c.is_alphanumeric() || "_-./*}>)".contains(c));
            let below = line[at + place.len()..].strip_prefix('/')?;
            let name = below.split(|c: char| !c.is_alphanumeric() && !"_-.".contains(c)).next()?;
            let example = place.ends_with(concat!("/ho", "me")) && EXAMPLE_USERS.contains(&name);
            (starts && !name.is_empty() && !example).then(|| format!("{place}/{name}"))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::{check, private_path};

    fn rules(path: &str, content: &str) -> Vec<(usize, &'static str)> {
        check(path, content).into_iter().map(|(line, rule, _)| (line, rule)).collect()
    }

    #[test]
    fn a_tidy_file_has_no_findings() {
        assert_eq!(rules("reaper-userspace/src/x.rs", "//! What it is.\n\nfn a() {}\n"), []);
        assert_eq!(rules("docs/x.md", "# Title\n"), []);
        assert_eq!(rules("packaging/empty", ""), []);
    }

    #[test]
    fn whitespace_at_the_end() {
        assert_eq!(rules("a.toml", "a = 1 \n"), [(1, "whitespace")]);
        assert_eq!(rules("a.toml", "a = 1\r\n"), [(1, "whitespace")]);
        assert_eq!(rules("a.toml", "a = 1\t\n"), [(1, "whitespace")]);
        assert_eq!(rules("a.toml", "a = 1"), [(1, "whitespace")]);
        assert_eq!(rules("a.toml", "a = 1\n\n"), [(2, "whitespace")]);
        assert_eq!(rules("tests/fixtures/status", "Name:\tphp \n"), []);
    }

    #[test]
    fn marks_of_unfinished_work() {
        assert_eq!(rules("a.sh", concat!("# FIX", "ME: later\n")), [(1, "unfinished")]);
        assert_eq!(rules("a.rs", concat!("// XX", "X\n")), [(1, "unfinished")]);
        assert_eq!(rules("a.sh", concat!("mktemp /tmp/reaper.XX", "XXXX\n")), []);
    }

    #[test]
    fn long_files() {
        let lines = |n: usize| format!("//! X.\n{}", "//\n".repeat(n - 1));
        assert_eq!(rules("reaper-userspace/src/x.rs", &lines(500)), []);
        assert_eq!(rules("reaper-userspace/src/x.rs", &lines(501)), [(501, "length")]);
        assert_eq!(rules("tests/tests/x.rs", &lines(700)), []);
        assert_eq!(rules("tests/tests/x.rs", &lines(701)), [(701, "length")]);
        assert_eq!(rules("reaper-userspace/src/core/tests.rs", &lines(701)), [(701, "length")]);
        assert_eq!(rules("docs/x.md", &lines(2000)), []);
    }

    #[test]
    fn modules_say_what_they_are() {
        assert_eq!(rules("reaper-userspace/src/x.rs", "use std::fmt;\n"), [(1, "module-doc")]);
        assert_eq!(rules("reaper-userspace/src/x.rs", "// X.\n//! X.\n"), [(1, "module-doc")]);
        assert_eq!(rules("reaper-userspace/build.rs", "fn main() {}\n"), []);
    }

    #[test]
    fn paths_of_one_machine() {
        for bad in [
            concat!("cd /wo", "rk/main"),
            concat!("\"/ro", "ot/.cargo/bin\""),
            concat!("/ho", "me/jane/src"),
            concat!("at=/Us", "ers/jane"),
        ] {
            assert!(private_path(bad).is_some(), "{bad}");
        }
        for good in [
            concat!("php /ho", "me/forge/example.com/artisan horizon:work"),
            concat!("/sys/fs/cgroup/ro", "ot/x"),
            concat!("https://example.com/wo", "rk/x"),
            concat!("/proc/1/ro", "ot/etc"),
            "/rootfs/etc",
            "/workers/a",
            concat!("the folder /ro", "ot/ is kept"),
        ] {
            assert_eq!(private_path(good), None, "{good}");
        }
    }
}
