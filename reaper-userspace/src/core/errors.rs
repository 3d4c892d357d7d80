//! How many `error` records are written: whoever provokes errors, process after process, does not fill the log with them.

use super::ids::{Ns, SECOND};
use super::records::Event;

/// So many in each [`WINDOW`].
const MOST: u32 = 60;
const WINDOW: Ns = 60 * SECOND;

/// Counts errors.
#[derive(Debug, Default)]
pub struct Limit {
    /// Of the window, which begins with an error.
    since: Option<Ns>,
    written: u32,
    left_out: u64,
}

impl Limit {
    /// Whether something that happened at this time is to be written. An error that is says how many before it were not.
    pub fn admits(&mut self, at: Ns, event: &mut Event) -> bool {
        let Event::Error { what, .. } = event else { return true };
        if self.since.is_none_or(|since| at >= since.saturating_add(WINDOW)) {
            (self.since, self.written) = (Some(at), 0);
        }
        if self.written >= MOST {
            self.left_out += 1;
            return false;
        }
        self.written += 1;
        match std::mem::take(&mut self.left_out) {
            0 => {}
            1 => what.push_str(" (1 error before this one was not written)"),
            n => what.push_str(&format!(" ({n} errors before this one were not written)")),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(limit: &mut Limit, at: Ns) -> Option<String> {
        let mut event = Event::Error { what: "no".to_owned(), proc: None };
        let admitted = limit.admits(at, &mut event);
        let Event::Error { what, .. } = event else { unreachable!("an error stays one") };
        admitted.then_some(what)
    }

    #[test]
    fn what_is_left_out_is_said_later() {
        let mut limit = Limit::default();
        // Soon after boot, so that no window has ended by then.
        let begin = 7 * SECOND;
        let written = (0..1_000).filter_map(|n| error(&mut limit, begin + n)).collect::<Vec<_>>();
        assert_eq!(written, vec!["no"; MOST as usize]);
        assert_eq!(error(&mut limit, begin + WINDOW - 1), None);
        let left_out = 1_000 - MOST + 1;
        let told = format!("no ({left_out} errors before this one were not written)");
        assert_eq!(error(&mut limit, begin + WINDOW), Some(told));
        assert_eq!(error(&mut limit, begin + WINDOW).as_deref(), Some("no"));
    }

    #[test]
    fn nothing_else_is_left_out() {
        let mut limit = Limit::default();
        let all = (0..1_000).filter(|&n| limit.admits(n, &mut Event::Snapshot { processes: 1, took_us: 1 }));
        assert_eq!(all.count(), 1_000);
    }
}
