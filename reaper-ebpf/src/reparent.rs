//! Who adopts the children of a dying process: kernel/exit.c `find_new_reaper`, asked before the kernel asks itself.
//!
//! The kernel's rule has three steps. The first, a live thread of the same process, does not apply: the question is only
//! asked of processes whose last thread dies. The other two are here in the kernel's own order of tests. The kernel's "live
//! thread" (one without `PF_EXITING`) is `signal->live` here, which do_exit lowers a few instructions after it sets the
//! flag. If the adopter dies in between, its own exit is an event of its own, after this one.

use reaper_common::{ANCESTORS_MAX, Proc, adopter};

use crate::kernel::Distant;

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

/// The process that adopts the children of `dying`, whose last thread dies or is dead.
#[inline(always)]
pub(crate) fn adopter_of(dying: Distant) -> Adoption {
    find_new_reaper(dying).unwrap_or(Adoption::UNKNOWN)
}

#[inline(always)]
fn find_new_reaper(dying: Distant) -> Option<Adoption> {
    let level = dying.level()?;
    if dying.has_child_subreaper()? {
        match subreaper_above(dying, level) {
            Found::Yes(by) => return Some(Adoption::by(by)),
            Found::No => {}
            Found::GaveUp => return None,
        }
    }
    let by = dying.child_reaper(level)?.process()?;
    Some(if by.tgid == dying.tgid()? { Adoption::nobody(adopter::NAMESPACE_DIES) } else { Adoption::by(by) })
}

/// The parent of `child` that will matter: its `real_parent`, or that one's adopter if it is dying already.
#[inline(always)]
pub(crate) fn parent_of(child: Distant) -> Adoption {
    let Some(parent) = child.real_parent() else {
        return Adoption::nobody(adopter::NONE);
    };
    let (Some(process), Some(live)) = (parent.process(), parent.live()) else {
        return Adoption::UNKNOWN;
    };
    if live == 0 && process.tgid != 0 { adopter_of(parent) } else { Adoption::by(process) }
}

/// How the walk up ended.
enum Found {
    /// At this subreaper.
    Yes(Proc),
    /// At the top, or at another pid namespace.
    No,
    /// After [`ANCESTORS_MAX`] ancestors, or at a hole.
    GaveUp,
}

/// The nearest live subreaper above `dying` in the pid namespace of that level.
#[inline(always)]
fn subreaper_above(dying: Distant, level: u32) -> Found {
    let mut at = dying;
    for _ in 0..ANCESTORS_MAX {
        let Some(ancestor) = at.real_parent() else {
            return Found::GaveUp;
        };
        at = ancestor;
        let Some(its_level) = at.level() else {
            return Found::GaveUp;
        };
        let Some(tgid) = at.tgid() else {
            return Found::GaveUp;
        };
        if its_level != level || tgid == 0 {
            return Found::No;
        }
        let Some(adopts) = at.is_live_subreaper() else {
            return Found::GaveUp;
        };
        if adopts {
            return at.process().map_or(Found::GaveUp, Found::Yes);
        }
    }
    Found::GaveUp
}
