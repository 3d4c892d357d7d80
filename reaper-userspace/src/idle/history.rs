//! What a thread was last seen blocked in, so that a call that the kernel restarts is known again.
//!
//! A stop and a continuation turn poll, nanosleep and futex into restart_syscall(2): only the number changes. And while a
//! call is interrupted the kernel writes what is left of its time over what was asked for, where the caller wants it so
//! (sleep(3) does, and select(2), pselect6(2), ppoll(2) always).

use super::call::Blocked;
use crate::core::ids::Ns;
use crate::core::sample::Wait;

/// A blocked call, as it was last seen.
#[derive(Clone, Debug)]
pub(super) struct Last {
    /// With its real number.
    pub(super) call: Blocked,
    /// How often the thread had been switched away from a CPU.
    pub(super) switches: u64,
    pub(super) wait: Wait,
}

impl Last {
    /// Whether a thread that was seen like this is still in the same sleep, or was torn from it at most once since. Whoever
    /// goes to sleep anew after having done something has been switched away from once more.
    fn is_unbroken(&self, switches: u64) -> bool {
        switches.saturating_sub(self.switches) <= 1
    }
}

/// Puts right the time of a wait, read now from memory that the kernel may have overwritten.
pub(super) fn as_asked(wait: Wait, switches: u64, last: Option<&Last>) -> Wait {
    let left = time(&wait);
    let asked = last.filter(|l| l.is_unbroken(switches)).and_then(|l| time(&l.wait));
    match (left, asked) {
        (Some(left), Some(asked)) if left <= asked => with_time(wait, Some(asked)),
        // What is left is no length that anybody asked for; as a limit it still holds.
        _ if matches!(wait, Wait::Sleep { .. }) => with_time(wait, None),
        _ => wait,
    }
}

fn time(wait: &Wait) -> Option<Ns> {
    match wait {
        Wait::Sleep { length } => *length,
        Wait::Files { timeout, .. } => *timeout,
        _ => None,
    }
}

fn with_time(wait: Wait, time: Option<Ns>) -> Wait {
    match wait {
        Wait::Sleep { .. } => Wait::Sleep { length: time },
        Wait::Files { fds, .. } => Wait::Files { fds, timeout: time },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::ids::SECOND;

    fn sleep(length: Option<Ns>) -> Wait {
        Wait::Sleep { length }
    }

    fn last(switches: u64, wait: Wait) -> Last {
        Last { call: Blocked { nr: 35, args: [0; 6], sp: 0, pc: 0 }, switches, wait }
    }

    #[test]
    fn an_interrupted_sleep_has_the_length_it_was_asked_for() {
        let before = last(7, sleep(Some(3 * SECOND)));
        for switches in [7, 8] {
            let now = as_asked(sleep(Some(SECOND)), switches, Some(&before));
            assert_eq!(now, sleep(Some(3 * SECOND)), "{switches}");
        }
    }

    #[test]
    fn a_length_that_may_be_another_sleeps_is_not_told() {
        let before = last(7, sleep(Some(3 * SECOND)));
        assert_eq!(as_asked(sleep(Some(SECOND)), 9, Some(&before)), sleep(None), "it has run");
        assert_eq!(as_asked(sleep(Some(4 * SECOND)), 7, Some(&before)), sleep(None), "more left than asked");
        assert_eq!(as_asked(sleep(Some(SECOND)), 7, None), sleep(None), "never seen");
        assert_eq!(as_asked(sleep(Some(SECOND)), 7, Some(&last(7, sleep(None)))), sleep(None));
    }

    #[test]
    fn what_is_left_of_a_timeout_is_still_a_limit() {
        let files = |timeout| Wait::Files { fds: vec![4], timeout };
        assert_eq!(as_asked(files(Some(5)), 9, None), files(Some(5)));
        assert_eq!(as_asked(files(None), 9, None), files(None));
        assert_eq!(as_asked(files(Some(5)), 9, Some(&last(9, files(Some(60))))), files(Some(60)));
    }
}
