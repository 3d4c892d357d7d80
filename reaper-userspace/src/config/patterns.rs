//! Regular expressions and globs out of TOML values. Each function reports what is wrong and returns `None`.

use globset::{GlobBuilder, GlobMatcher};
use regex::Regex;

use super::reader::{Cx, Node};
use super::values::string;

/// What the kernel keeps of a thread name: `TASK_COMM_LEN` (include/linux/sched.h) less the final NUL.
const COMM_MAX: usize = 15;

/// Where a glob stops to be plain text.
const WILDCARDS: [char; 5] = ['*', '?', '[', '{', '\\'];

pub(super) fn regex(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<Regex> {
    let pattern = string(cx, node, "a regular expression")?;
    if pattern.is_empty() {
        cx.bad(node, "expected a regular expression, found an empty one, which matches every process");
        return None;
    }
    match Regex::new(pattern) {
        Ok(regex) => {
            if regex.is_match("") {
                cx.odd(
                    node,
                    "this pattern also matches an empty command line, so it may match every process",
                );
            }
            Some(regex)
        }
        Err(e) => {
            cx.bad(node, &format!("bad regular expression: {}", regex_problem(pattern, &e)));
            None
        }
    }
}

/// In one line: the regex crate draws the pattern with a caret below it.
fn regex_problem(pattern: &str, error: &regex::Error) -> String {
    let at = |offset: usize| pattern.get(..offset).unwrap_or_default().chars().count() + 1;
    match regex_syntax::parse(pattern) {
        Err(regex_syntax::Error::Parse(e)) => {
            format!("{}, at character {} of the pattern", e.kind(), at(e.span().start.offset))
        }
        Err(regex_syntax::Error::Translate(e)) => {
            format!("{}, at character {} of the pattern", e.kind(), at(e.span().start.offset))
        }
        _ => match error {
            regex::Error::CompiledTooBig(limit) => format!("it needs more than {limit} bytes when compiled"),
            other => other.to_string().lines().last().unwrap_or_default().to_owned(),
        },
    }
}

/// A glob over a thread name.
pub(super) fn comm_glob(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<GlobMatcher> {
    let text = glob_text(cx, node)?;
    let matcher = reported(cx, node, build_glob(text, false))?;
    let literal = text.split(WILDCARDS).next().unwrap_or_default();
    if literal.len() > COMM_MAX {
        let ends = literal.char_indices().map(|(i, c)| i + c.len_utf8());
        let kept = ends.take_while(|end| *end <= COMM_MAX).last().unwrap_or_default();
        let kept = literal.get(..kept).unwrap_or_default();
        cx.odd(
            node,
            &format!("{text:?} never matches: the kernel keeps {COMM_MAX} bytes of a name, {kept:?}"),
        );
    }
    Some(matcher)
}

/// A glob over an absolute path: `*` stays within a component, `**` does not.
pub(super) fn path_glob(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<GlobMatcher> {
    let text = glob_text(cx, node)?;
    let matcher = reported(cx, node, build_glob(text, true))?;
    if !text.starts_with(['/', '*', '[', '{', '?']) {
        cx.odd(node, &format!("{text:?} never matches: it is compared with a path, which begins with \"/\""));
    }
    Some(matcher)
}

/// A systemd unit: the processes in its control group and below.
pub(super) fn unit_globs(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<Vec<GlobMatcher>> {
    const EXPECTED: &str = "a systemd unit such as \"horizon.service\"";
    let text = string(cx, node, EXPECTED)?;
    // systemd.unit(5), and wildcards for the instances of a template.
    let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@*?".contains(c);
    if !text.chars().all(allowed) || !text.contains('.') {
        cx.bad(node, &format!("expected {EXPECTED}, found {text:?}"));
        return None;
    }
    // A backslash in a unit's name is systemd's own escape and stands in the cgroup path as it is.
    let escaped = text.replace('\\', "\\\\");
    let mut globs = Vec::new();
    for glob in [format!("**/{escaped}"), format!("**/{escaped}/**")] {
        globs.push(reported(cx, node, build_glob(&glob, true))?);
    }
    Some(globs)
}

fn glob_text<'a>(cx: &mut Cx<'_>, node: &'a Node<'_>) -> Option<&'a str> {
    let text = string(cx, node, "a glob")?;
    if text.is_empty() {
        cx.bad(node, "expected a glob, found an empty string, which matches nothing");
        return None;
    }
    Some(text)
}

fn reported(
    cx: &mut Cx<'_>,
    node: &Node<'_>,
    built: Result<GlobMatcher, globset::Error>,
) -> Option<GlobMatcher> {
    match built {
        Ok(matcher) => Some(matcher),
        Err(e) => {
            cx.bad(node, &format!("bad glob: {}", e.kind()));
            None
        }
    }
}

/// `paths`: wildcards other than `**` do not match a slash.
pub(super) fn build_glob(text: &str, paths: bool) -> Result<GlobMatcher, globset::Error> {
    GlobBuilder::new(text).literal_separator(paths).build().map(|g| g.compile_matcher())
}

pub(super) fn has_wildcards(glob: &str) -> bool {
    glob.contains(WILDCARDS)
}
