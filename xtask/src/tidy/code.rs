//! The rules on Rust code, on its tokens: what the core may touch, who may signal, what must not be left behind.
//!
//! Tokens and not a syntax tree, because what a macro is given counts too, and is only tokens. Names are not resolved:
//! whoever renames `std` can get round this, and gets a finding for the renaming.

use std::str::FromStr as _;

use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};

use super::Found;

pub(super) fn check(path: &str, content: &str) -> Vec<Found> {
    let tokens = match TokenStream::from_str(content) {
        Ok(tokens) => tokens,
        Err(error) => return vec![(error.span().start().line, "syntax", format!("not Rust: {error}"))],
    };
    let rules = Rules {
        core: path.starts_with("reaper-userspace/src/core/"),
        signals: match path.split('/').next() {
            Some("reaper-userspace") if path == "reaper-userspace/src/signal.rs" => Signals::Allowed,
            // The simulated kernel of the core's tests has simulated processes.
            Some("reaper-userspace") if path.starts_with("reaper-userspace/tests/") => Signals::OwnChildren,
            // The numbers of the calls, for the kernel to permit or refuse.
            Some("reaper-userspace") if path == "reaper-userspace/src/confine/syscalls.rs" => {
                Signals::Allowed
            }
            Some("reaper-userspace") => Signals::Nobody,
            Some("tests") if path == "tests/src/process.rs" => Signals::Allowed,
            Some("tests") => Signals::OwnChildren,
            _ => Signals::Allowed,
        },
    };
    let mut found = Vec::new();
    rules.stream(&tokens.into_iter().collect::<Vec<_>>(), &mut found);
    found
}

/// Which rules hold for a file.
struct Rules {
    core: bool,
    signals: Signals,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Signals {
    Allowed,
    /// Nothing but `Child::kill`: std knows that this child was started here and not yet waited for.
    OwnChildren,
    Nobody,
}

/// Modules of std in which there is I/O, a clock, another thread, or a lock.
const IMPURE_STD: [&str; 8] = ["env", "fs", "io", "net", "os", "process", "thread", "time"];
const IMPURE_SYNC: [&str; 6] = ["Barrier", "Condvar", "Mutex", "Once", "RwLock", "mpsc"];
/// Crates through which the outside is reached.
const IMPURE_CRATES: [&str; 7] = ["aya", "libc", "nix", "procfs", "rustix", "sd_notify", "tokio"];

/// Every function, and the number of every system call, by which a process is signalled.
const SIGNALLING: [&str; 18] = [
    "kill",
    "killpg",
    "kill_process",
    "kill_process_group",
    "kill_current_process_group",
    "pidfd_send_signal",
    "pthread_kill",
    "rt_sigqueueinfo",
    "rt_tgsigqueueinfo",
    "sigqueue",
    "tgkill",
    "tkill",
    "SYS_kill",
    "SYS_pidfd_send_signal",
    "SYS_rt_sigqueueinfo",
    "SYS_rt_tgsigqueueinfo",
    "SYS_tgkill",
    "SYS_tkill",
];

impl Rules {
    fn stream(&self, tokens: &[TokenTree], found: &mut Vec<Found>) {
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            match token {
                TokenTree::Ident(_) => {
                    at += path(&tokens[at..], &[], &mut |path, next| {
                        self.path(before(tokens, at), path, next, found);
                    });
                    continue;
                }
                TokenTree::Group(group) => {
                    let inside: Vec<_> = group.stream().into_iter().collect();
                    if group.delimiter() == Delimiter::Bracket && at > 0 && is(&tokens[at - 1], '#') {
                        attribute(&inside, found);
                    }
                    self.stream(&inside, found);
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
            at += 1;
        }
    }

    /// One path, with what stands before and after it.
    fn path(
        &self,
        before: Option<&TokenTree>,
        path: &[Ident],
        next: Option<&TokenTree>,
        found: &mut Vec<Found>,
    ) {
        let names: Vec<String> = path.iter().map(ToString::to_string).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let Some(last) = path.last() else { return };
        let mut add = |rule, what| found.push((last.span().start().line, rule, what));
        if self.core
            && let Some(why) = impure(before, &names, next)
        {
            let what = format!(
                "`{}`: {why}. The core gets it as an input or asks for it as an effect",
                names.join("::")
            );
            add("core-is-pure", what);
        }
        if self.signals != Signals::Allowed && self.signalling(before, &names, next) {
            let what = "only `reaper-userspace/src/signal.rs` signals (in `tests`: `tests/src/process.rs`), because it \
                        checks whose process it is: call that";
            add("one-module-signals", format!("`{}`: {what}", names.join("::")));
        }
        if let ["todo" | "unimplemented" | "dbg"] = names[..]
            && next.is_some_and(|next| is(next, '!'))
        {
            add("unfinished", format!("`{}!` is for while you work: finish it", names[0]));
        }
    }

    fn signalling(&self, before: Option<&TokenTree>, names: &[&str], next: Option<&TokenTree>) -> bool {
        let [.., last] = names else { return false };
        if !SIGNALLING.contains(last) {
            return false;
        }
        // `kill` is also a word: the name of a field, of a function of ours, of a local variable.
        let called =
            matches!(next, Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis);
        let method = before.is_some_and(|before| is(before, '.'));
        let defined = matches!(before, Some(TokenTree::Ident(word)) if word == "fn");
        match method {
            true => called && self.signals == Signals::Nobody,
            false => names.len() > 1 || (called && !defined) || last.starts_with("SYS_"),
        }
    }
}

/// Why the core may not use this path.
fn impure(before: Option<&TokenTree>, names: &[&str], next: Option<&TokenTree>) -> Option<&'static str> {
    let renamed = matches!(next, Some(TokenTree::Ident(word)) if word == "as");
    let all = next.is_some_and(|next| is(next, '*'));
    match *names {
        ["std" | "core" | "alloc"] | ["std", "self"] if renamed || all => Some("hides what of std is used"),
        ["std", module, ..] if IMPURE_STD.contains(&module) => {
            Some("does I/O, or asks a clock or the system")
        }
        ["std", "sync", name, ..] if IMPURE_SYNC.contains(&name) => {
            Some("nothing is shared, so nothing is locked")
        }
        ["std", "sync"] if all => Some("hides what of std is used"),
        [.., "Instant" | "SystemTime", "now"] => Some("asks a clock: `now` is an argument"),
        ["SystemTime", ..] => Some("is a clock"),
        ["crate"] if renamed || all => Some("hides what of the crate is used"),
        ["crate", module, ..] if module != "core" => Some("is around the core, which calls nothing backward"),
        [name, _, ..] if IMPURE_CRATES.contains(&name) => Some("reaches outside"),
        [name] if IMPURE_CRATES.contains(&name) && (renamed || is_use(before)) => Some("reaches outside"),
        _ => None,
    }
}

fn is_use(before: Option<&TokenTree>) -> bool {
    matches!(before, Some(TokenTree::Ident(word)) if word == "use" || word == "crate")
}

fn is(token: &TokenTree, punct: char) -> bool {
    matches!(token, TokenTree::Punct(p) if p.as_char() == punct)
}

/// What stands before the path that begins here, a leading `::` left out.
fn before(tokens: &[TokenTree], at: usize) -> Option<&TokenTree> {
    let mut before = tokens[..at].iter().rev().peekable();
    if before.peek().is_some_and(|token| is(token, ':')) {
        let colons = before.clone().take(2).filter(|token| is(token, ':')).count();
        if colons == 2 {
            before.nth(1);
        }
    }
    before.next()
}

/// Keywords after which a path may begin with `::`.
const BEFORE_A_PATH: [&str; 14] = [
    "as", "break", "const", "dyn", "else", "for", "if", "impl", "in", "match", "mut", "return", "use",
    "while",
];

/// Reads the path, or tree of imported paths, at the beginning of the tokens. Hands on every path with what follows it,
/// and returns the number of tokens read.
fn path(tokens: &[TokenTree], prefix: &[Ident], each: &mut dyn FnMut(&[Ident], Option<&TokenTree>)) -> usize {
    let mut names = prefix.to_vec();
    let mut at = 0;
    loop {
        match tokens.get(at) {
            Some(TokenTree::Ident(name)) => names.push(name.clone()),
            // `std::{fs, io::Read}`: each of them is a path that begins with `std`.
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace && at > 0 => {
                let inside: Vec<_> = group.stream().into_iter().collect();
                for part in inside.split(|token| is(token, ',')).filter(|part| !part.is_empty()) {
                    path(part, &names, each);
                }
                return at + 1;
            }
            next => {
                each(&names, next);
                return at;
            }
        }
        at += 1;
        let keyword = names.last().is_some_and(|name| BEFORE_A_PATH.iter().any(|word| name == word));
        if keyword || !matches!(tokens.get(at..at + 2), Some([a, b]) if is(a, ':') && is(b, ':')) {
            each(&names, tokens.get(at));
            return at;
        }
        at += 2;
    }
}

/// `#[ignore]` says that a test does not count; only a reason makes that better than deleting it.
fn attribute(inside: &[TokenTree], found: &mut Vec<Found>) {
    if let [TokenTree::Ident(name)] = inside
        && name == "ignore"
    {
        let what = "`#[ignore]` without a reason: `#[ignore = \"why\"]`";
        found.push((name.span().start().line, "unfinished", what.into()));
    }
}

#[cfg(test)]
mod tests;
