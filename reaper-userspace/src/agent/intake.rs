//! The way into the core and out of it: whatever the agent gives the core goes through here, so it can be counted and
//! recorded in one place.

use std::ops::Deref;

use super::protocol::Counters;
use crate::core::Core;
use crate::core::effect::Effect;
use crate::core::ids::Ns;
use crate::core::input::{Fired, Input};
use crate::recording::Recorder;

/// The core, and what was given to it.
#[derive(Debug)]
pub(super) struct Intake {
    core: Core,
    recorder: Option<Recorder>,
    forks: u64,
    execs: u64,
    exits: u64,
    signals: u64,
    lost: u64,
    sent: u64,
}

impl Intake {
    /// Nothing was given to this one yet.
    pub(super) fn new(core: Core, recorder: Option<Recorder>) -> Self {
        Self { core, recorder, forks: 0, execs: 0, exits: 0, signals: 0, lost: 0, sent: 0 }
    }

    /// See [`Core::handle`].
    pub(super) fn handle(&mut self, now: Ns, input: Input) {
        match &input {
            Input::Fork(_) => self.forks += 1,
            Input::Exec(_) => self.execs += 1,
            Input::Exit(_) => self.exits += 1,
            Input::SignalSeen { .. } => self.signals += 1,
            Input::Lost { count, .. } => self.lost += count,
            Input::Fired { outcome: Fired::Sent, .. } => self.sent += 1,
            _ => {}
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.input(now, &input);
        }
        self.core.handle(now, input);
    }

    /// See [`Core::poll_effect`].
    pub(super) fn poll_effect(&mut self) -> Option<Effect> {
        let effect = self.core.poll_effect();
        if let (Some(recorder), Some(Effect::Record(record))) = (&mut self.recorder, &effect) {
            recorder.record(record);
        }
        effect
    }

    /// Nothing is left to do until the core's next deadline, or for this turn of the loop if not `settled`.
    pub(super) fn rest(&mut self, settled: bool) {
        if let Some(recorder) = &mut self.recorder {
            if settled {
                recorder.rest(self.core.next_deadline());
            }
            recorder.flush();
        }
    }

    /// All that was counted, for whoever asks.
    pub(super) fn counters(&self) -> Counters {
        Counters {
            events: self.events().iter().map(|(_, n)| n).sum(),
            lost: self.lost,
            signals: self.sent,
            complete: self.core.is_clear(),
        }
    }

    /// Events of the kernel so far, by kind.
    pub(super) fn events(&self) -> [(&'static str, u64); 4] {
        [("fork", self.forks), ("exec", self.execs), ("exit", self.exits), ("signal", self.signals)]
    }
}

/// To look at; only [`Intake::handle`] changes it.
impl Deref for Intake {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.core
    }
}
