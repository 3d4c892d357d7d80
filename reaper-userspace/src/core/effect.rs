//! What the core wants done. The shell does it and answers with an `Input` where one is named.

use super::ids::ProcKey;
use super::memory::SignalMemory;
use super::records::Record;
use super::rules::Signal;
use super::sample::{Depth, Wants};

/// One thing to do, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Write it to the event log.
    Record(Box<Record>),
    /// Read from /proc who this is; answered by `Input::Identified`.
    Identify(ProcKey),
    /// It is looked at closely from now on, until [`Effect::Unwatch`].
    Watch {
        /// Who.
        key: ProcKey,
        /// What is to be observed in the kernel.
        wants: Wants,
    },
    /// It is not of interest any more.
    Unwatch(ProcKey),
    /// Look at every thread; answered by `Input::Sampled`.
    Sample {
        /// At whom.
        key: ProcKey,
        /// How closely.
        depth: Depth,
    },
    /// Get hold of the process (pidfd, start time checked after it was opened), hold it still if that is possible and look once
    /// more; answered by `Input::Aimed`, after every event that the kernel has written by then.
    Aim {
        /// Of whom.
        key: ProcKey,
        /// How closely.
        depth: Depth,
    },
    /// Flush the log, send the signal through the pidfd that `Aim` got and let the process run; answered by `Input::Fired`.
    Fire {
        /// To whom.
        key: ProcKey,
        /// Which.
        signal: Signal,
    },
    /// Let go of what `Aim` got, and let it run: the signal is not wanted any more.
    Release(ProcKey),
    /// Dump all tasks again: events were lost.
    Resync,
    /// Keep on disk what the next agent has to know: armed groups, open breakers, masters, orphans, who was asked to stop.
    Persist,
    /// Add to it that a signal was sent, before anything else is taken in that the kernel has written.
    PersistSignal(Box<SignalMemory>),
}
