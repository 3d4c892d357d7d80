//! How the agent holds whom it aims at: stopped if that is possible, else by its pidfd alone.
//!
//! In both cases the pidfd's start time was checked after it was opened. Which of the two it was is told by the sample.

use std::sync::Arc;

use crate::core::ids::ProcKey;
use crate::core::input::Sampled;
use crate::core::rules::Signal;
use crate::core::sample::Sample;
use crate::freeze::{FireError, FreezeError, Frozen, freeze};
use crate::signal::{Held, SignalError};

/// A process that is aimed at. Dropping it lets go.
#[derive(Debug)]
pub(super) enum Grip {
    /// Every thread is stopped.
    Frozen(Frozen),
    /// It runs, because of that.
    Loose(Arc<Held>, FreezeError),
}

impl Grip {
    /// Takes hold of a process, and holds it still if the kernel lets us.
    pub(super) fn take(key: ProcKey) -> Result<Self, SignalError> {
        let held = Arc::new(Held::open(key)?);
        match freeze(held.clone()) {
            Ok(frozen) => Ok(Self::Frozen(frozen)),
            Err(FreezeError::Gone) => Err(SignalError::Gone),
            Err(why) => {
                tracing::debug!("process {} cannot be stopped for the last look: {why}", key.tgid);
                Ok(Self::Loose(held, why))
            }
        }
    }

    /// Who is held.
    pub(super) fn key(&self) -> ProcKey {
        match self {
            Self::Frozen(frozen) => frozen.key(),
            Self::Loose(held, _) => held.key(),
        }
    }

    /// What a look shows that was taken after the process was taken hold of.
    pub(super) fn look(&self, mut seen: Sampled) -> Sampled {
        let Sampled::Seen(sample) = &mut seen else { return seen };
        match self {
            Self::Frozen(frozen) => frozen.mark(sample),
            // Not permitted: the look and the signal are all there is, and the record says so.
            Self::Loose(_, FreezeError::NotPermitted { .. } | FreezeError::Traced(_)) => {}
            // Whoever may be stopped and did not stop was doing something. If the look does not show that any more, it
            // came too late.
            Self::Loose(_, why) if sleeps(sample) => {
                return Sampled::Unreadable(format!("it could not be stopped for the last look: {why}"));
            }
            Self::Loose(..) => {}
        }
        seen
    }

    /// Sends the signal and lets go.
    pub(super) fn fire(self, signal: Signal) -> Result<(), FireError> {
        match self {
            Self::Frozen(frozen) => frozen.fire(signal),
            Self::Loose(held, _) => Ok(held.send(signal)?),
        }
    }
}

fn sleeps(sample: &Sample) -> bool {
    sample.threads.iter().all(|t| matches!(t.state, 'S' | 'I' | 'Z' | 'X'))
}
