//! What a stray must have in common with the group that it seems to belong to: user and executable.
//!
//! A stray is known by its looks alone. Anybody can give a process the looks of a worker, and start a master of that look beside
//! it; so a stray counts as the group's only if a master of the group, or a worker whose master was seen, has run as the same
//! user and from the same executable since boot. Thus nobody has processes of another user signalled by imitating names.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// No group has more: whoever starts one program after the other under a master's name fills no memory with it.
const MOST: usize = 256;

/// Nor of one user, lest he leaves no room for others.
const MOST_OF_ONE_USER: usize = 8;

/// What has been seen of a group since boot: real uid and executable (`/proc/PID/exe`, resolved).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Likenesses(BTreeSet<(u32, Arc<str>)>);

impl Likenesses {
    /// Notes one. True if that is news.
    pub fn add(&mut self, uid: u32, exe: &Arc<str>) -> bool {
        let of_this_user = self.0.range((uid, Arc::from(""))..).take_while(|(of, _)| *of == uid).count();
        if exe.is_empty() || self.0.len() >= MOST || of_this_user >= MOST_OF_ONE_USER {
            return false;
        }
        self.0.insert((uid, exe.clone()))
    }

    /// Whether somebody of the group was of this user and executable.
    pub fn has(&self, uid: u32, exe: &Arc<str>) -> bool {
        !exe.is_empty() && self.0.contains(&(uid, exe.clone()))
    }

    /// Those of an earlier run as well.
    pub fn merge(&mut self, earlier: &Self) {
        for (uid, exe) in &earlier.0 {
            self.add(*uid, exe);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_executable_both_count() {
        let mut seen = Likenesses::default();
        assert!(seen.add(33, &"/usr/bin/php8.2".into()) && !seen.add(33, &"/usr/bin/php8.2".into()));
        assert!(seen.has(33, &"/usr/bin/php8.2".into()));
        assert!(!seen.has(34, &"/usr/bin/php8.2".into()) && !seen.has(33, &"/usr/bin/php".into()));
        // What cannot be read is nobody's.
        assert!(!seen.add(33, &"".into()) && !seen.has(33, &"".into()));
    }

    #[test]
    fn nobody_fills_it() {
        let mut seen = Likenesses::default();
        let added = (0..100_u32).filter(|n| seen.add(1000, &format!("/tmp/{n}").into())).count();
        assert_eq!(added, MOST_OF_ONE_USER);
        assert!(seen.add(33, &"/usr/bin/php".into()), "there is room for others");
        let added = (2_000..4_000).filter(|&uid| seen.add(uid, &"/tmp/x".into())).count();
        assert_eq!(added, MOST - MOST_OF_ONE_USER - 1);
    }
}
