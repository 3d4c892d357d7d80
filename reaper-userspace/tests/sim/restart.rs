//! Agents come and go on the simulated host while the kernel keeps recording; and what one core did another does again.

use std::sync::Arc;

use reaper::core::Core;
use reaper::core::ids::Ns;
use reaper::core::input::{Exec, Exit, Fork, Input};

use super::agent::{Entry, Host, Traffic};

impl Host {
    /// The agent is killed. The programs stay attached, and what they write lies unread.
    pub fn crash(&mut self) {
        if self.away || self.dump.is_some() {
            return;
        }
        self.tell("the agent is killed");
        self.tell_looks();
        while self.core.poll_effect().is_some() {}
        self.traffic.clear();
        self.core = Core::new(self.kernel.procs[self.kernel.agent].key.tgid);
        self.held.clear();
        self.watched.clear();
        self.announced = None;
        self.dies_at_signal = false;
        self.away = true;
    }

    /// Another agent starts, as `agent/mod.rs` does it.
    pub fn restart(&mut self) {
        if !self.away {
            return;
        }
        self.away = false;
        self.tell("another agent starts");
        self.collect();
        let mut asked = Vec::new();
        // By its clock whatever is written by now is past.
        let mut unwatched_since = self.kernel.now + 1;
        for entry in std::mem::take(&mut self.entries) {
            let (Entry::Dropped { input, adopter } | Entry::Written { input, adopter, .. }) = &entry;
            if let Entry::Written { input, .. } = &entry {
                unwatched_since = unwatched_since.min(when(input));
            }
            let told = matches!(entry, Entry::Written { .. }) && matches!(input, Input::SignalSeen { .. });
            self.enlighten(input, *adopter, !told);
            asked.extend(told.then(|| input.clone()));
        }
        self.lost = 0;
        self.oracle.blind = true;
        self.oracle.blur();
        let (at, (armed, broken, memory)) = (self.kernel.now, self.kept.clone());
        let rules = Arc::new(self.rules.clone());
        self.hand(Input::Configured { at, rules, armed, broken });
        self.hand(Input::Remembered { births: self.kernel.births(), memory, lost: 0, unwatched_since });
        self.unread = asked;
        self.begin_dump();
    }

    /// The same inputs into another core give the same effects.
    pub fn check_replay(&self) {
        let mut core = Core::new(self.kernel.procs[self.kernel.agent].key.tgid);
        for traffic in &self.traffic {
            match traffic {
                Traffic::In(now, input) => core.handle(*now, (**input).clone()),
                Traffic::Out(effect) => {
                    let again = core.poll_effect();
                    if again.as_ref() != effect.as_deref() {
                        self.fail(&format!("a replay gives {again:?} instead of {effect:?}"));
                    }
                }
            }
        }
    }
}

/// When what a record tells of happened.
fn when(input: &Input) -> Ns {
    match input {
        Input::Fork(Fork { at, .. })
        | Input::Exec(Exec { at, .. })
        | Input::Exit(Exit { at, .. })
        | Input::SignalSeen { at, .. } => *at,
        other => panic!("{other:?} is no record of the kernel"),
    }
}
