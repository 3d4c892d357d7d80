//! Finds groups whose worker matcher also matches their master matcher.
//!
//! Whether two regular expressions have a common word is decidable and not worth it here: a few shortest command lines
//! that the worker's pattern matches are built and tried on the master's pattern. That finds what people write (the
//! same pattern twice, or a master's pattern without an end), and says nothing wrong: a line that is found is a line
//! that matches both.

use globset::GlobMatcher;
use regex::Regex;
use regex_syntax::hir::{Class, Hir, HirKind};

use super::patterns::has_wildcards;
use super::reader::Cx;
use crate::core::rules::Matcher;

/// Alternatives multiply: no more examples than this are tried.
const EXAMPLES: usize = 32;

/// An example longer than this, bytes, is given up.
const LONGEST: usize = 4096;

/// Warns at `at` if a worker can be taken for a master.
pub(super) fn check(cx: &mut Cx<'_>, at: usize, group: &str, master: &Matcher, worker: &Matcher) {
    let Some(example) = overlap(master, worker) else { return };
    let such = match example {
        Some(line) => format!("such as {line:?} "),
        None => String::new(),
    };
    cx.warn(
        at,
        &format!(
            "the workers of group {group:?} also match its [group.master]: a worker {such}that loses its master is \
             taken for an heir or a new master, and is never stopped"
        ),
    );
}

/// `Some` if every key of the master's matcher lets some worker through, with an example of a command line if the
/// master's matcher looks at it.
fn overlap(master: &Matcher, worker: &Matcher) -> Option<Option<String>> {
    let Matcher { cmdline, exe, comm, uid, cgroup, unit } = master;
    let others = covers(exe.as_slice(), worker.exe.as_slice())
        && covers(comm.as_slice(), worker.comm.as_slice())
        && covers(cgroup.as_deref().unwrap_or_default(), worker.cgroup.as_deref().unwrap_or_default())
        && covers(unit.as_deref().unwrap_or_default(), worker.unit.as_deref().unwrap_or_default())
        && (uid.is_none() || *uid == worker.uid);
    if !others {
        return None;
    }
    let Some(cmdline) = cmdline else { return Some(None) };
    let pattern = worker.cmdline.as_ref()?;
    if pattern.as_str() == cmdline.as_str() {
        return Some(examples(pattern).into_iter().next());
    }
    examples(pattern).into_iter().find(|line| cmdline.is_match(line)).map(Some)
}

/// Whether all that matches the worker's globs matches the master's: surely if there are none or they are the same ones,
/// and if the worker's are plain names that the master's match.
fn covers(master: &[GlobMatcher], worker: &[GlobMatcher]) -> bool {
    let text = |m: &GlobMatcher| m.glob().glob().to_owned();
    master.is_empty()
        || master.iter().map(text).eq(worker.iter().map(text))
        || (!worker.is_empty()
            && worker.iter().map(text).all(|w| !has_wildcards(&w) && master.iter().any(|m| m.is_match(&w))))
}

/// Short command lines that a pattern matches, the shortest first.
fn examples(pattern: &Regex) -> Vec<String> {
    let Ok(hir) = regex_syntax::parse(pattern.as_str()) else { return Vec::new() };
    let mut lines = walk(&hir);
    // Patterns are rarely anchored at both ends, and the master's may want to see a word's end.
    let longer: Vec<String> = lines.iter().flat_map(|l| [format!("{l} a"), format!("a {l}")]).collect();
    lines.extend(longer);
    // Assertions are ignored on the way, so what was built need not match.
    lines.retain(|line| pattern.is_match(line));
    lines.sort_by_key(String::len);
    lines
}

fn walk(hir: &Hir) -> Vec<String> {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => vec![String::new()],
        HirKind::Literal(literal) => vec![String::from_utf8_lossy(&literal.0).into_owned()],
        HirKind::Class(class) => one_of(class).map(String::from).into_iter().collect(),
        HirKind::Capture(capture) => walk(&capture.sub),
        HirKind::Repetition(repetition) => {
            let times = usize::try_from(repetition.min).unwrap_or(usize::MAX);
            if times == 0 {
                return vec![String::new()];
            }
            let mut lines = walk(&repetition.sub);
            lines.retain(|line| line.len().saturating_mul(times) <= LONGEST);
            lines.iter().map(|line| line.repeat(times)).collect()
        }
        HirKind::Alternation(subs) => {
            let mut lines: Vec<String> = subs.iter().flat_map(walk).collect();
            lines.truncate(EXAMPLES);
            lines
        }
        HirKind::Concat(subs) => {
            let mut lines = vec![String::new()];
            for tails in subs.iter().map(walk) {
                lines = lines
                    .iter()
                    .flat_map(|head| tails.iter().map(move |tail| format!("{head}{tail}")))
                    .filter(|line| line.len() <= LONGEST)
                    .take(EXAMPLES)
                    .collect();
            }
            lines
        }
    }
}

/// A member of the class, one that reads well if there is one.
fn one_of(class: &Class) -> Option<char> {
    let ranges: Vec<(char, char)> = match class {
        Class::Unicode(class) => class.ranges().iter().map(|r| (r.start(), r.end())).collect(),
        Class::Bytes(class) => {
            class.ranges().iter().map(|r| (char::from(r.start()), char::from(r.end()))).collect()
        }
    };
    let plain = ['a', '0', ' ', '-', '/'];
    let readable = plain.into_iter().find(|c| ranges.iter().any(|(start, end)| (start..=end).contains(&c)));
    readable.or_else(|| ranges.first().map(|(start, _)| *start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regex(pattern: &str) -> Regex {
        Regex::new(pattern).unwrap()
    }

    fn cmdlines(master: &str, worker: &str) -> Option<Option<String>> {
        let matcher = |p: &str| Matcher { cmdline: Some(regex(p)), ..Matcher::default() };
        overlap(&matcher(master), &matcher(worker))
    }

    #[test]
    fn examples_match_their_pattern() {
        for (pattern, line) in [
            ("artisan horizon:work", "artisan horizon:work"),
            ("^(php|python3) +[a-z]{2}$", "php aa"),
            (r"^worker \d+(-x)*", "worker 0"),
            (".*", ""),
        ] {
            assert_eq!(examples(&regex(pattern)).first().map(String::as_str), Some(line), "{pattern}");
        }
        // Nothing satisfies it, or nothing short does.
        assert!(examples(&regex("a$b")).is_empty());
        assert!(examples(&regex("(a{1000}){5}")).is_empty());
        // 2^20 combinations, of which a few are enough.
        assert!(examples(&regex(&"(a|b)".repeat(20))).len() <= 3 * EXAMPLES);
    }

    #[test]
    fn overlapping_command_lines_are_found() {
        let found = |line: &str| Some(Some(line.to_owned()));
        assert_eq!(cmdlines("artisan horizon", "artisan horizon:work"), found("artisan horizon:work"));
        assert_eq!(cmdlines("same", "same"), found("same"));
        assert_eq!(cmdlines("^b$", "^(aaa|b)$"), found("b"));
        assert_eq!(cmdlines("^title [(]?", "^title"), found("title a"));
        assert_eq!(cmdlines(" worker$", "worker"), found("a worker"));
        assert_eq!(cmdlines("artisan horizon$", "artisan horizon:work"), None);
        // Wider than the master's: a worker need not match.
        assert_eq!(cmdlines("artisan horizon$", "artisan"), None);
    }

    #[test]
    fn other_keys_must_let_the_worker_through_too() {
        let comm = |glob: &str| super::super::patterns::build_glob(glob, false).ok();
        let matcher = |c: &str| Matcher { cmdline: Some(regex("x")), comm: comm(c), ..Matcher::default() };
        let line = Some(Some("x".to_owned()));
        assert_eq!(overlap(&matcher("php*"), &matcher("php*")), line);
        assert_eq!(overlap(&matcher("php*"), &matcher("php8.2")), line);
        assert_eq!(overlap(&matcher("php*"), &matcher("python3")), None);
        assert_eq!(overlap(&matcher("php"), &matcher("php*")), None);
        // The master's says nothing about the command line: every worker matches.
        let bare = Matcher { comm: comm("php*"), ..Matcher::default() };
        assert_eq!(overlap(&bare, &matcher("php*")), Some(None));
        // The worker's says nothing about a key that the master's looks at.
        assert_eq!(
            overlap(&matcher("php*"), &Matcher { cmdline: Some(regex("x")), ..Matcher::default() }),
            None
        );
        let root = Matcher { uid: Some(0), ..bare.clone() };
        assert_eq!(overlap(&root, &bare), None);
        assert_eq!(overlap(&root, &root), Some(None));
    }
}
