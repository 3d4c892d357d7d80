//! The one way out of the kernel: the ring buffer, its loss counter, and when to wake the agent.
//!
//! A record that finds no room is counted on its CPU, and every later record of that CPU carries the count. Wake-ups follow
//! [`WAKE_INTERVAL_NS`]: see there what the agent has to do in return.

use core::sync::atomic::AtomicU64;

use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_CONS_POS, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_ktime_get_boot_ns};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{PerCpuArray, RingBuf};
use reaper_common::{Header, UNHEARD_NS, WAKE_BYTES, WAKE_INTERVAL_NS};

/// All records of all programs, in the order in which they were reserved. The agent sets the size when it loads the object.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

/// One cell a CPU: the records that found no room.
#[map]
static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// `CLOCK_BOOTTIME` nanoseconds of the last wake-up by any CPU. Racy on purpose: two wake-ups do no harm.
static LAST_WAKE: AtomicU64 = AtomicU64::new(0);

/// Where the reader stood when it was woken last, and when it was first woken there. Racy as well.
static WOKEN_AT: AtomicU64 = AtomicU64::new(u64::MAX);
static WOKEN_SINCE: AtomicU64 = AtomicU64::new(0);

/// The header of a record that is made now, on this CPU.
#[inline(always)]
pub(crate) fn header(kind: u32) -> Header {
    // SAFETY: neither helper has a precondition.
    let (cpu, boot_ns) = unsafe { (bpf_get_smp_processor_id(), bpf_ktime_get_boot_ns()) };
    let lost = match LOST.get(0) {
        Some(lost) => *lost,
        None => 0,
    };
    Header { kind, cpu, boot_ns, lost }
}

/// Writes a record of fixed size.
#[inline(always)]
pub(crate) fn write<T: Copy + 'static>(record: T, now: u64, urgent: bool) {
    let flags = wake_flags(now, size_of::<T>() as u64, urgent);
    match EVENTS.reserve::<T>(0) {
        Some(mut room) => {
            room.write(record);
            room.submit(flags);
        }
        None => count_lost(),
    }
}

/// Copies a record of `len` bytes out of a buffer.
///
/// # Safety
/// `from` has `len` readable bytes, and the verifier knows it.
#[inline(always)]
pub(crate) unsafe fn output(from: *const u8, len: u64, now: u64) {
    let flags = wake_flags(now, len, false);
    // SAFETY: the caller's; the map is a ring buffer.
    let rc = unsafe {
        aya_ebpf::helpers::bpf_ringbuf_output(
            (&raw const EVENTS).cast_mut().cast(),
            from.cast_mut().cast(),
            len,
            flags,
        )
    };
    if rc != 0 {
        count_lost();
    }
}

/// Whether this record wakes the agent.
#[inline(always)]
fn wake_flags(now: u64, len: u64, urgent: bool) -> u64 {
    let last_wake = LAST_WAKE.as_ptr();
    // Plain loads and stores: LLVM has atomic ones only for a newer instruction set than old kernels know.
    // SAFETY: the pointer is to a live global, and a load of 8 aligned bytes is never torn.
    let since = now.wrapping_sub(unsafe { last_wake.read_volatile() });
    if (urgent || since > WAKE_INTERVAL_NS || fills_another_step(len))
        && (is_heard(now) || since > UNHEARD_NS)
    {
        // SAFETY: as above.
        unsafe { last_wake.write_volatile(now) };
        u64::from(BPF_RB_FORCE_WAKEUP)
    } else {
        u64::from(BPF_RB_NO_WAKEUP)
    }
}

/// Whether anybody reads. A reader that has not moved although it was woken for [`UNHEARD_NS`] is dead, or stopped: then it
/// still has those wake-ups before it. As nobody can know, one is tried now and then.
#[inline(always)]
fn is_heard(now: u64) -> bool {
    let position = EVENTS.query(u64::from(BPF_RB_CONS_POS));
    // SAFETY: the pointers are to live globals, and a load or store of 8 aligned bytes is never torn.
    unsafe {
        if WOKEN_AT.as_ptr().read_volatile() == position {
            return now.wrapping_sub(WOKEN_SINCE.as_ptr().read_volatile()) < UNHEARD_NS;
        }
        WOKEN_SINCE.as_ptr().write_volatile(now);
        WOKEN_AT.as_ptr().write_volatile(position);
    }
    true
}

/// Whether a record of `len` bytes takes what is pending across a multiple of [`WAKE_BYTES`]: so a full ring does not
/// wake the agent with every record.
#[inline(always)]
fn fills_another_step(len: u64) -> bool {
    let pending = EVENTS.query(u64::from(BPF_RB_AVAIL_DATA));
    pending / WAKE_BYTES != (pending + len) / WAKE_BYTES
}

/// One more record of this CPU is gone.
#[cold]
#[inline(always)]
fn count_lost() {
    if let Some(lost) = LOST.get_ptr_mut(0) {
        // SAFETY: the cell is this CPU's. A signal's program may come from an interrupt in the middle of another: then one of two losses
        // that came together is not counted, and the rise shows all the same.
        unsafe { *lost += 1 };
    }
}
