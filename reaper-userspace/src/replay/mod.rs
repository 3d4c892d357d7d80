//! Replays what happened under other rules: the core is pure, so what it would have done can be computed.
//!
//! The world (births, deaths, losses) goes in as it was recorded. What the agent asked for is answered from the recording:
//! with the very answer, if the recorded agent asked for the same at the same moment, else with the nearest one. What
//! nobody can know is not made up: a process that is signalled here and was not there is not said anything more of, and one
//! that was stopped there and would still run here ends with the recording ([`Fate`]).

mod answers;
mod compare;
mod driver;
mod from_log;
mod from_recording;
mod timeline;

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::core::ids::{Ns, ProcKey};
use crate::core::input::{Identified, Input, Sampled};
use crate::core::records::{Evidence, Record};

pub use compare::{Summary, compare};
pub use driver::replay;

/// What was recorded, made ready.
#[derive(Debug)]
pub struct Script {
    /// The agent's pid, if it is known.
    pub agent: Option<u32>,
    /// In order.
    steps: Vec<Step>,
    /// What the recorded agent made of it; `None` if nobody wrote that down.
    pub records: Option<Vec<Record>>,
    /// What can be answered.
    known: Box<dyn Known>,
    /// What the clock on the wall said at a `CLOCK_BOOTTIME`.
    pub clock: Option<(Ns, Timestamp)>,
    /// What is not known, and follows from that, for people.
    pub notes: Vec<String>,
    /// How far a deadline of the core may be passed before it is taken for missed: recorded ticks come late. `None` if the
    /// recording says itself when the agent rested.
    slack: Option<Ns>,
    /// Idleness is known as a verdict only: by which proof is decided already.
    verdicts_only: bool,
}

/// One thing that was recorded.
#[derive(Clone, Debug)]
enum Step {
    /// It happened, whoever watched.
    World { now: Ns, input: Input },
    /// The recorded agent had asked for it.
    Answer { now: Ns, input: Input },
    /// The recorded agent had nothing left to do and meant to wake up then.
    Rest(Option<Ns>),
}

/// What can be said of a process at any moment.
trait Known: std::fmt::Debug {
    /// Who a process is, as the nearest answer has it.
    fn identified(&self, now: Ns, key: ProcKey) -> Option<Identified>;

    /// The nearest look at it.
    fn looked_at(&self, now: Ns, key: ProcKey) -> Option<Sampled>;

    /// The nearest answer to a question.
    fn nearest(&self, now: Ns, question: Question) -> Option<Input> {
        match question {
            Question::Identify(key) => {
                self.identified(now, key).map(|outcome| Input::Identified { key, outcome })
            }
            Question::Sample(key) => self.looked_at(now, key).map(|outcome| Input::Sampled { key, outcome }),
            Question::Aim(key) => self.looked_at(now, key).map(|outcome| Input::Aimed { key, outcome }),
            Question::Fire(_) => None,
        }
    }

    /// What was seen of its idleness and since when that held, where only that is known.
    fn evidence(&self, _now: Ns, _key: ProcKey) -> Option<(Ns, &Evidence)> {
        None
    }
}

/// What the core asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Question {
    Identify(ProcKey),
    Sample(ProcKey),
    Aim(ProcKey),
    Fire(ProcKey),
}

impl Question {
    fn key(self) -> ProcKey {
        match self {
            Self::Identify(key) | Self::Sample(key) | Self::Aim(key) | Self::Fire(key) => key,
        }
    }

    /// What an input answers; `None` if it is the world's.
    fn answered_by(input: &Input) -> Option<Self> {
        match input {
            Input::Identified { key, .. } => Some(Self::Identify(*key)),
            Input::Sampled { key, .. } => Some(Self::Sample(*key)),
            Input::Aimed { key, .. } => Some(Self::Aim(*key)),
            Input::Fired { key, .. } => Some(Self::Fire(*key)),
            _ => None,
        }
    }
}

/// What came out.
#[derive(Clone, Debug, Default)]
pub struct Replayed {
    /// The records that would have been written.
    pub records: Vec<Record>,
    /// Where it parts from the recording.
    pub fates: BTreeMap<ProcKey, Fate>,
}

/// Why nothing more can be said of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is signalled here and was not at that moment in the recording.
    SignalledHere,
    /// The recorded agent stopped it, and here it was not signalled by then.
    StoppedThere,
}

#[cfg(test)]
mod tests;
