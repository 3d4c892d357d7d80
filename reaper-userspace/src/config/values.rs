//! Typed values out of TOML values. Each function reports what is wrong and returns `None`. Patterns are in `patterns`.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use toml::de::DeValue;

use super::diagnostic::nearest;
use super::names;
use super::reader::{Cx, Node, describe};
use crate::core::ids::Ns;
use crate::core::rules::{Endpoint, Signal};
use crate::event_log::LogTarget;

/// What fits into `sockaddr_un::sun_path`, unix(7), less the final NUL.
const SUN_PATH_MAX: usize = 107;

/// Bytes of the largest page of any architecture.
const SMALLEST_RING: u64 = 64 << 10;

/// Twelve million births or deaths. It is memory of the kernel's that nobody else can have.
const LARGEST_RING: u32 = 1 << 30;

/// Ten years: no time can be added to such a length and leave [`Ns`].
const LONGEST: u128 = 10 * 365 * 24 * 3600 * 1_000_000_000;

pub(super) fn string<'a>(cx: &mut Cx<'_>, node: &'a Node<'_>, expected: &str) -> Option<&'a str> {
    match node.get_ref() {
        DeValue::String(s) => Some(s),
        other => {
            cx.bad(node, &format!("expected {expected}, found {}", describe(other)));
            None
        }
    }
}

pub(super) fn boolean(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<bool> {
    match node.get_ref() {
        DeValue::Boolean(b) => Some(*b),
        other => {
            cx.bad(node, &format!("expected true or false, found {}", describe(other)));
            None
        }
    }
}

pub(super) fn number(cx: &mut Cx<'_>, node: &Node<'_>, range: RangeInclusive<u32>) -> Option<u32> {
    let expected = format!("expected a number from {} to {}", range.start(), range.end());
    let DeValue::Integer(integer) = node.get_ref() else {
        cx.bad(node, &format!("{expected}, found {}", describe(node.get_ref())));
        return None;
    };
    let value = u32::from_str_radix(integer.as_str(), integer.radix()).ok().filter(|n| range.contains(n));
    if value.is_none() {
        cx.bad(node, &format!("{expected}, found {integer}"));
    }
    value
}

/// Every item that can be read; the others have been reported.
pub(super) fn list<'a, 'i, T>(
    cx: &mut Cx<'_>,
    node: &'a Node<'i>,
    expected: &str,
    mut item: impl FnMut(&mut Cx<'_>, &'a Node<'i>) -> Option<T>,
) -> Option<Vec<T>> {
    match node.get_ref() {
        DeValue::Array(array) => Some(array.iter().filter_map(|node| item(cx, node)).collect()),
        other => {
            cx.bad(node, &format!("expected a list of {expected}, found {}", describe(other)));
            None
        }
    }
}

/// [`list`], where an empty one makes no sense.
pub(super) fn some_list<'a, 'i, T>(
    cx: &mut Cx<'_>,
    node: &'a Node<'i>,
    expected: &str,
    item: impl FnMut(&mut Cx<'_>, &'a Node<'i>) -> Option<T>,
) -> Option<Vec<T>> {
    if matches!(node.get_ref(), DeValue::Array(a) if a.is_empty()) {
        cx.bad(node, &format!("expected a list of {expected}, found an empty one"));
        return None;
    }
    list(cx, node, expected, item)
}

/// One of a few words.
pub(super) fn choice<T: Copy>(cx: &mut Cx<'_>, node: &Node<'_>, words: &[(&str, T)]) -> Option<T> {
    let known = || words.iter().map(|(word, _)| *word);
    let expected = known().map(|w| format!("{w:?}")).collect::<Vec<_>>().join(" or ");
    let text = string(cx, node, &expected)?;
    let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
    if found.is_none() {
        let hint = nearest(text, known()).map(|w| format!("; did you mean {w:?}?")).unwrap_or_default();
        cx.bad(node, &format!("expected {expected}, found {text:?}{hint}"));
    }
    found
}

pub(super) fn duration(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<Ns> {
    const EXPECTED: &str = "a duration in quotes such as \"200ms\" or \"30s\"";
    let text = string(cx, node, EXPECTED)?;
    let problem = match humantime::parse_duration(text) {
        Ok(d) if d.as_nanos() <= LONGEST => return Ns::try_from(d.as_nanos()).ok(),
        Ok(_) => "longer than ten years".to_owned(),
        Err(e) => e.to_string(),
    };
    cx.bad(node, &format!("expected {EXPECTED}, found {text:?}: {problem}"));
    None
}

/// [`duration`], but not nothing.
pub(super) fn some_duration(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<Ns> {
    let length = duration(cx, node)?;
    if length == 0 {
        cx.bad(node, "expected a duration above zero");
        return None;
    }
    Some(length)
}

/// Bytes, as a number or with a unit.
pub(super) fn size(cx: &mut Cx<'_>, node: &Node<'_>, least: u64) -> Option<u64> {
    const EXPECTED: &str = "a size such as \"64MiB\" or a number of bytes";
    let (value, shown) = match node.get_ref() {
        DeValue::Integer(i) => (u64::from_str_radix(i.as_str(), i.radix()).ok(), i.to_string()),
        DeValue::String(s) => (parse_size(s), format!("{s:?}")),
        other => {
            cx.bad(node, &format!("expected {EXPECTED}, found {}", describe(other)));
            return None;
        }
    };
    match value {
        None => cx.bad(node, &format!("expected {EXPECTED}, found {shown}")),
        Some(value) if value < least => {
            cx.bad(node, &format!("expected a size of at least {least} bytes, found {shown}"));
        }
        Some(value) => return Some(value),
    }
    None
}

/// A size that every kernel takes for a ring buffer: a power of two, which is a multiple of the page size too if it is no
/// smaller than the largest page there is.
pub(super) fn ring_size(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<u32> {
    let value = size(cx, node, SMALLEST_RING)?;
    let fits = u32::try_from(value).ok().filter(|bytes| bytes.is_power_of_two() && *bytes <= LARGEST_RING);
    if fits.is_none() {
        let message =
            format!("expected a power of two from 64KiB to 1GiB, such as \"8MiB\", found {value} bytes");
        cx.bad(node, &message);
    }
    fits
}

/// Whole numbers only: nobody configures half a byte, and fractions would round.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" | "K" | "k" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// A user by name or number.
pub(super) fn user(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<u32> {
    id(cx, node, "user", names::user)
}

/// A group of users by name or number.
pub(super) fn group(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<u32> {
    id(cx, node, "group", names::group)
}

fn id(
    cx: &mut Cx<'_>,
    node: &Node<'_>,
    what: &str,
    look_up: impl Fn(&str) -> nix::Result<Option<u32>>,
) -> Option<u32> {
    // (uid_t)-1 and (gid_t)-1 mean "none" to the kernel.
    const LARGEST: u32 = u32::MAX - 1;
    if matches!(node.get_ref(), DeValue::Integer(_)) {
        return number(cx, node, 0..=LARGEST);
    }
    let name = string(cx, node, &format!("a {what}'s name or number"))?;
    if !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit()) {
        let id = name.parse().ok().filter(|id| *id <= LARGEST);
        if id.is_none() {
            cx.bad(node, &format!("expected a number from 0 to {LARGEST}, found {name:?}"));
        }
        return id;
    }
    match look_up(name) {
        Ok(Some(id)) => Some(id),
        Ok(None) => {
            cx.bad(node, &format!("no {what} {name:?} on this host"));
            None
        }
        Err(e) => {
            cx.bad(node, &format!("cannot look up {what} {name:?}: {}", e.desc()));
            None
        }
    }
}

/// A queue endpoint.
pub(super) fn endpoint(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<Endpoint> {
    const EXPECTED: &str = "\"tcp/PORT\", \"tcp/ADDRESS:PORT\" or \"unix:/PATH\"";
    let text = string(cx, node, EXPECTED)?;
    let endpoint = match (text.strip_prefix("tcp/"), text.strip_prefix("unix:")) {
        (Some(rest), _) if rest.bytes().all(|b| b.is_ascii_digit()) => {
            rest.parse().ok().map(|port| Endpoint::Tcp { ip: None, port })
        }
        (Some(rest), _) => rest
            .parse::<SocketAddr>()
            .ok()
            .map(|a| Endpoint::Tcp { ip: Some(a.ip().to_canonical()), port: a.port() }),
        (None, Some(path)) => {
            (path.len() > 1 && path.starts_with('/')).then(|| Endpoint::Unix(path.to_owned()))
        }
        (None, None) => None,
    };
    let endpoint = endpoint.filter(|e| !matches!(e, Endpoint::Tcp { port: 0, .. }));
    if endpoint.is_some() {
        return endpoint;
    }
    let hint = match text.strip_prefix("tcp/").and_then(|rest| rest.rsplit_once(':')) {
        Some((host, _)) if host.contains(|c: char| c.is_ascii_alphabetic()) && !host.contains(':') => {
            " (the address as a number: names are not looked up)"
        }
        _ => "",
    };
    cx.bad(node, &format!("expected {EXPECTED}, found {text:?}{hint}"));
    None
}

/// A number of bytes that a poll sends or receives.
pub(super) fn bytes(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<u64> {
    number(cx, node, 1..=u32::MAX).map(u64::from)
}

pub(super) fn signal(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<Signal> {
    const EXPECTED: &str = "a signal's name such as \"TERM\" or \"SIGQUIT\"";
    let name = string(cx, node, EXPECTED)?;
    let Some(signal) = Signal::from_name(name) else {
        cx.bad(node, &format!("expected {EXPECTED}, found {name:?}"));
        return None;
    };
    if signal == Signal::KILL {
        cx.odd(node, "KILL is not graceful: `kill = true` sends it after the last grace");
    }
    Some(signal)
}

pub(super) fn socket_addr(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<SocketAddr> {
    const EXPECTED: &str = "an address and a port such as \"127.0.0.1:9797\" or \"[::1]:9797\"";
    let text = string(cx, node, EXPECTED)?;
    let address = text.parse::<SocketAddr>().ok();
    match address {
        None => cx.bad(node, &format!("expected {EXPECTED}, found {text:?}")),
        Some(address) if !address.ip().is_loopback() => {
            cx.odd(node, &format!("whoever reaches {address} can read the metrics: there is no password"));
        }
        Some(_) => {}
    }
    address
}

pub(super) fn log_target(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<LogTarget> {
    if matches!(node.get_ref(), DeValue::String(s) if s == "-") {
        return Some(LogTarget::Stdout);
    }
    absolute_path(cx, node, "an absolute path or \"-\"").map(LogTarget::File)
}

/// The agent's working directory is nobody's choice, so nothing is relative to it.
pub(super) fn absolute_path(cx: &mut Cx<'_>, node: &Node<'_>, expected: &str) -> Option<PathBuf> {
    let text = string(cx, node, expected)?;
    if !text.starts_with('/') || text.contains('\0') {
        cx.bad(node, &format!("expected {expected}, found {text:?}"));
        return None;
    }
    Some(PathBuf::from(text))
}

pub(super) fn socket_path(cx: &mut Cx<'_>, node: &Node<'_>) -> Option<PathBuf> {
    let path = absolute_path(cx, node, "an absolute path")?;
    if path.as_os_str().len() > SUN_PATH_MAX {
        cx.bad(
            node,
            &format!("expected a path of at most {SUN_PATH_MAX} bytes: sockets have no longer ones"),
        );
        return None;
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("64MiB"), Some(64 << 20));
        assert_eq!(parse_size(" 1 kB "), Some(1000));
        assert_eq!(parse_size("10"), Some(10));
        assert_eq!(parse_size("18446744073709551615"), Some(u64::MAX));
        for bad in ["", "MiB", "1.5MiB", "-1", "1 mib", "99999999999GiB", "18446744073709551616", "1é"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }
}
