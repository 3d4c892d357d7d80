//! How the agent's heap is kept small.

/// From this size on, memory comes from the kernel and goes back to it by itself, in bytes: glibc's own beginning.
#[cfg(target_env = "gnu")]
const MAPPED_FROM: i32 = 128 * 1024;

/// Keeps glibc from two habits (mallopt(3)), to be called before there is anything in the heap to speak of:
/// - raising its thresholds when the first large block is freed: then what the start has needed once, the kernel's type information above
///   all, would stay in the heap for ever;
/// - giving each thread a heap of its own: only the threads of the start and one that freezes allocate at all.
///
/// Elsewhere there is nothing to keep.
pub(super) fn keep_small() {
    #[cfg(target_env = "gnu")]
    for (option, value) in [(nix::libc::M_MMAP_THRESHOLD, MAPPED_FROM), (nix::libc::M_ARENA_MAX, 1)] {
        // SAFETY: no precondition, and no other thread runs yet that could care.
        if unsafe { nix::libc::mallopt(option, value) } == 0 {
            tracing::debug!(
                "the heap cannot be kept small (mallopt {option}): it will be larger than it has to be"
            );
        }
    }
}
