//! Who adopts the children of a dying process: kernel/exit.c `find_new_reaper`, asked before the kernel asks itself.
//!
//! The kernel's rule has three steps. The first, a live thread of the same process, does not apply: the question is only
//! asked of processes whose last thread dies. The other two are here in the kernel's own order of tests. The kernel's "live
//! thread" (one without `PF_EXITING`) is `signal->live` here, which do_exit lowers a few instructions after it sets the
//! flag. If the adopter dies in between, its own exit is an event of its own, after this one.

use reaper_common::{ANCESTORS_MAX, Proc, adopter};

use crate::kernel::{Copied, Task};

/// An answer: one of [`adopter`], and the process if it is [`adopter::KNOWN`].
#[derive(Clone, Copy)]
pub(crate) struct Adoption {
    /// One of [`adopter`].
    pub(crate) kind: u32,
    /// Who.
    pub(crate) by: Proc,
}

impl Adoption {
    /// Nobody knows, or nobody has asked.
    pub(crate) const UNKNOWN: Self = Self::nobody(adopter::UNKNOWN);

    /// An answer without a process.
    const fn nobody(kind: u32) -> Self {
        Self { kind, by: Proc { start_ns: 0, tgid: 0, _pad: 0 } }
    }

    /// This process, or [`adopter::NONE`] for pid 0.
    #[inline(always)]
    fn by(by: Proc) -> Self {
        if by.tgid == 0 { Self::nobody(adopter::NONE) } else { Self { kind: adopter::KNOWN, by } }
    }
}

/// The process that adopts the children of `dying`, a thread of a process whose last thread dies or is dead.
///
/// Its address must be one that was copied ([`Task::leader_copied`]): for [`Task::copied`] the verifier still has a typed pointer, and it
/// lets no pointer be a number of [`reaper_adopter`].
#[inline(always)]
pub(crate) fn adopter_of(dying: Task<Copied>) -> Adoption {
    let found = reaper_adopter(dying.to_address());
    if found < ADDRESS_MIN { Adoption::nobody(found as u32) } else { Adoption::by(Task::at(found).process()) }
}

/// No address of the kernel is lower, and no [`adopter`] as high.
const ADDRESS_MIN: u64 = 4096;

/// The address of a thread of the process that adopts the children of the one at that address, or one of [`adopter`].
///
/// A function that the kernel sees: it verifies such a one by itself, once, where it would go through the walk for every way that leads
/// there. So it takes and gives back numbers.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn reaper_adopter(dying: u64) -> u64 {
    let dying = Task::at(dying);
    let unknown = u64::from(adopter::UNKNOWN);
    let (Some(pid), Some(signal)) = (dying.thread_pid(), dying.signal()) else {
        return unknown;
    };
    if signal.has_child_subreaper() {
        match subreaper_above(dying, pid.level()) {
            Found::Yes(by) => return by.to_address(),
            Found::No => {}
            Found::GaveUp => return unknown,
        }
    }
    let Some(by) = dying.child_reaper(pid.level()) else {
        return unknown;
    };
    if by.tgid() == dying.tgid() { u64::from(adopter::NAMESPACE_DIES) } else { by.to_address() }
}

/// The parent of `child` that will matter: its `real_parent`, or that one's adopter if it is dying already.
#[inline(always)]
pub(crate) fn parent_of(child: Task<Copied>) -> Adoption {
    let Some(parent) = child.real_parent() else {
        return Adoption::nobody(adopter::NONE);
    };
    match parent.signal() {
        Some(signal) if signal.live() == 0 && parent.tgid() != 0 => adopter_of(parent),
        _ => Adoption::by(parent.process()),
    }
}

/// How the walk up ended.
enum Found {
    /// At this subreaper.
    Yes(Task<Copied>),
    /// At the top, or at another pid namespace.
    No,
    /// After [`ANCESTORS_MAX`] ancestors, or at a hole.
    GaveUp,
}

/// The nearest live subreaper above `dying` in the pid namespace of that level.
///
/// A turn reads all that it may need, through NULL if need be, and finds with few branches that it goes on: the verifier goes through
/// the rest of a turn, and of the turns after it, for every branch before. (9,000 instructions, and 17,000 with a test for each.)
#[inline(always)]
fn subreaper_above(dying: Task<Copied>, level: u32) -> Found {
    let mut at = dying;
    for _ in 0..ANCESTORS_MAX {
        at = at.real_parent_or_null();
        let seen = at.ancestor();
        let is_outside = u64::from(seen.level ^ level) | seen.is_idle;
        if seen.has_hole | is_outside | seen.adopts == 0 {
            continue;
        }
        return if seen.has_hole != 0 {
            Found::GaveUp
        } else if is_outside != 0 {
            Found::No
        } else {
            Found::Yes(at)
        };
    }
    Found::GaveUp
}
