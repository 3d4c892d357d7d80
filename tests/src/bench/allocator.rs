//! An allocator that counts: how much is in use, and how often it was asked.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

static USED: AtomicU64 = AtomicU64::new(0);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// The system's allocator, counted. It counts nothing unless a program makes it its own with `#[global_allocator]`.
pub struct Counting;

/// What has been counted so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    /// Bytes that were asked for and not given back. What the allocator needs for itself is not in it.
    pub(super) used: u64,
    /// How often memory was asked for, or asked to grow.
    pub(super) allocations: u64,
}

pub(super) fn counted() -> Counted {
    Counted { used: USED.load(Relaxed), allocations: ALLOCATIONS.load(Relaxed) }
}

fn comes(size: usize) {
    USED.fetch_add(size as u64, Relaxed);
    ALLOCATIONS.fetch_add(1, Relaxed);
}

fn goes(size: usize) {
    USED.fetch_sub(size as u64, Relaxed);
}

// SAFETY: everything is the system allocator's; counting touches no memory of anybody's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        comes(layout.size());
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        goes(layout.size());
        // SAFETY: the caller keeps `dealloc`'s contract.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        goes(layout.size());
        comes(size);
        // SAFETY: the caller keeps `realloc`'s contract.
        unsafe { System.realloc(memory, layout, size) }
    }
}
