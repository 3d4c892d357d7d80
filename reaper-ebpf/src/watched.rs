//! Who is watched.

use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use reaper_common::Proc;
use reaper_common::observed::{WATCHED_MAX, Watched};

/// By thread group id; written by the agent.
#[map]
static WATCHED: HashMap<u32, Watched> = HashMap::with_max_entries(WATCHED_MAX, 0);

/// Whether anybody with this thread group id is watched, and what is kept about it. A pid alone is no identity: ask
/// [`is`] before anything is done with it.
#[inline(always)]
pub(crate) fn find(tgid: u32) -> Option<*mut Watched> {
    WATCHED.get_ptr_mut(tgid)
}

/// Whether that is this process.
#[inline(always)]
pub(crate) fn is(watched: *const Watched, process: Proc) -> bool {
    // SAFETY: the pointer is a map's value.
    unsafe { (*watched).start_ns == process.start_ns }
}
