//! How the agent's heap is kept small.

/// From this size on, memory comes from the kernel and goes back to it by itself, in bytes: glibc's own beginning.
#[cfg(target_env = "gnu")]
const MAPPED_FROM: i32 = 128 * 1024;

/// Keeps glibc from raising its thresholds (mallopt(3)): it does so when the first large block is freed, and then what the start has
/// needed once, the kernel's type information above all, stays in the heap for ever. To be called before that.
///
/// Elsewhere there is nothing to keep.
pub(super) fn keep_small() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no precondition, and no other thread runs yet that could care.
    if unsafe { nix::libc::mallopt(nix::libc::M_MMAP_THRESHOLD, MAPPED_FROM) } == 0 {
        tracing::debug!("the heap's thresholds cannot be set: it will be larger than it has to be");
    }
}
