//! `sched_process_exec`: a process has a new image. Its memory is the new one already, so argv can be read.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::{bpf_probe_read_kernel_str, bpf_probe_read_user};
use aya_ebpf::macros::{btf_tracepoint, map};
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::BtfTracePointContext;
use aya_log_ebpf::warn;
use reaper_common::{ARGV_MAX, Exec, FILENAME_MAX, flag, kind};

use crate::kernel::{Signal, Task, binprm_filename};
use crate::{lineage, ring};

/// Room that the verifier can prove large enough: lengths are bounded by masks, which round up to powers of two.
const FILENAME_MASK: u64 = 511;
const ARGV_MASK: u64 = 2047;

/// A record with all that can follow it.
#[repr(C)]
struct Scratch {
    exec: Exec,
    tail: [u8; (FILENAME_MASK + ARGV_MASK + 2) as usize],
}

const _: () = {
    assert!(FILENAME_MAX as u64 + 2 <= FILENAME_MASK);
    assert!(ARGV_MAX as u64 <= ARGV_MASK);
};

/// Where a record of variable length is put together. A program is not interrupted by itself on the same CPU.
#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// Arguments: task, its pid before the exec, `struct linux_binprm` (include/trace/events/sched.h). The task is the
/// current one.
#[btf_tracepoint(function = "sched_process_exec")]
fn process_exec(ctx: BtfTracePointContext) -> u32 {
    if let Some(task) = Task::new(ctx.arg(0))
        && let Some(scratch) = SCRATCH.get_ptr_mut(0)
    {
        executed(&ctx, task, ctx.arg(2), scratch);
    }
    0
}

/// Puts the record together and writes it. Where paths part comes last: see [`crate::exit`].
#[inline(always)]
fn executed(ctx: &BtfTracePointContext, task: Task, binprm: *const u8, scratch: *mut Scratch) {
    let (proc, comm, uid) = (task.process(), task.comm(), task.uid());
    let sid = task.signal().map_or(0, Signal::session);
    // SAFETY: `scratch` is this CPU's cell of the map.
    let tail: *mut u8 = unsafe { (&raw mut (*scratch).tail).cast() };
    let filename = read_filename(binprm, tail);
    // SAFETY: `filename.len` is at most FILENAME_MASK, which leaves ARGV_MASK bytes.
    let argv = read_argv(task, unsafe { tail.add(filename.len as usize) });
    if let Some(rc) = argv.error {
        warn!(ctx, "argv of process {} cannot be read: {}", ctx.tgid(), rc);
    }
    let header = ring::header(kind::EXEC);
    let flags = if filename.truncated || argv.truncated { flag::TRUNCATED } else { 0 };
    let (filename_len, argv_len) = (filename.len as u16, argv.len as u16);
    let record = Exec { header, proc, comm, uid, sid, flags, filename_len, argv_len };
    lineage::executed(&record);
    // SAFETY: `scratch` is this CPU's cell, and it is larger than the two lengths together can make it.
    unsafe {
        (&raw mut (*scratch).exec).write(record);
        let len = size_of::<Exec>() as u64 + filename.len + argv.len;
        ring::output(scratch.cast(), len, header.boot_ns);
    }
}

/// How much of a text was read.
#[derive(Clone, Copy)]
struct Text {
    /// Bytes, without a NUL at the end.
    len: u64,
    /// There is more.
    truncated: bool,
    /// What the helper answered, if it failed.
    error: Option<i64>,
}

impl Text {
    /// Nothing could be read: there is more.
    const UNREAD: Self = Self { len: 0, truncated: true, error: None };
}

/// Reads the name of the file as given to execve(2).
#[inline(always)]
fn read_filename(binprm: *const u8, to: *mut u8) -> Text {
    let Some(from) = binprm_filename(binprm) else {
        return Text::UNREAD;
    };
    // One byte for the NUL and one to tell a name that just fits from a longer one.
    let room = FILENAME_MAX as u64 + 2;
    // SAFETY: `to` has FILENAME_MASK bytes; the helper takes any address to read from.
    let rc = unsafe { bpf_probe_read_kernel_str(to.cast(), room as u32, from.cast()) };
    if rc <= 0 {
        return Text { error: Some(rc), ..Text::UNREAD };
    }
    let read = rc.cast_unsigned();
    let truncated = read >= room;
    let len = if truncated { FILENAME_MAX as u64 } else { read - 1 };
    Text { len: mask(len, FILENAME_MASK), truncated, error: None }
}

/// Reads argv as it lies in the new image's memory: NUL after each argument, the last one included.
#[inline(always)]
fn read_argv(task: Task, to: *mut u8) -> Text {
    let Some((start, end)) = task.argv_range() else {
        return Text::UNREAD;
    };
    let whole = end.wrapping_sub(start);
    let truncated = whole > ARGV_MAX as u64;
    let len = mask(if truncated { ARGV_MAX as u64 } else { whole }, ARGV_MASK);
    // SAFETY: `to` has ARGV_MASK bytes; the helper takes any address to read from.
    let rc = unsafe { bpf_probe_read_user(to.cast(), len as u32, start as *const _) };
    if rc != 0 {
        return Text { error: Some(rc), ..Text::UNREAD };
    }
    Text { len, truncated, error: None }
}

/// `value & mask`, which LLVM cannot optimise away although it knows that the value is smaller: the verifier does not.
#[inline(always)]
fn mask(value: u64, mask: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut value = value;
        // SAFETY: one instruction on one register.
        unsafe {
            core::arch::asm!("{value} &= {mask}", value = inout(reg) value, mask = in(reg) mask,
                options(pure, nomem, nostack));
        }
        value
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        value & mask
    }
}
