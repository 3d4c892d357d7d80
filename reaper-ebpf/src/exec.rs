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
    /// What is known of the file's name and of argv.
    texts: [Text; 2],
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
    // SAFETY: `scratch` is this CPU's cell of the map.
    let texts: *mut Text = unsafe { (&raw mut (*scratch).texts).cast() };
    let filename = read_filename(binprm, tail).through(texts);
    let filename_len = mask(filename.len, FILENAME_MASK);
    // SAFETY: `filename_len` is at most FILENAME_MASK, which leaves ARGV_MASK bytes; there are two texts.
    let (to, second) = unsafe { (tail.add(filename_len as usize), texts.add(1)) };
    let argv = read_argv(task, to).through(second);
    let argv_len = mask(argv.len, ARGV_MASK);
    let header = ring::header(kind::EXEC);
    let flags = if filename.truncated | argv.truncated == 0 { 0 } else { flag::TRUNCATED };
    let len = size_of::<Exec>() as u64 + filename_len + argv_len;
    let (filename_len, argv_len) = (filename_len as u16, argv_len as u16);
    let record = Exec { header, proc, comm, uid, sid, flags, filename_len, argv_len };
    lineage::executed(&record);
    // SAFETY: `scratch` is this CPU's cell, and it is larger than the two lengths together can make it.
    unsafe {
        (&raw mut (*scratch).exec).write(record);
        ring::output(scratch.cast(), len, header.boot_ns);
    }
    if argv.error != 0 {
        warn!(ctx, "argv of process {} cannot be read: {}", ctx.tgid(), argv.error);
    }
}

/// How much of a text was read.
#[derive(Clone, Copy)]
#[repr(C)]
struct Text {
    /// Bytes, without a NUL at the end.
    len: u64,
    /// Not 0 if there is more.
    truncated: u64,
    /// What the helper answered if it failed, or 0.
    error: i64,
}

impl Text {
    /// Nothing could be read: there is more.
    const UNREAD: Self = Self { len: 0, truncated: 1, error: 0 };

    /// The same, by way of the map: the verifier forgets what it knew of the numbers, and so does not go through the rest of the program
    /// once for each way in which a text can be read.
    #[inline(always)]
    fn through(self, cell: *mut Self) -> Self {
        // SAFETY: the caller's cell is this CPU's.
        unsafe {
            cell.write_volatile(self);
            cell.read_volatile()
        }
    }
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
        return Text { error: rc, ..Text::UNREAD };
    }
    let read = rc.cast_unsigned();
    let truncated = read >= room;
    let len = if truncated { FILENAME_MAX as u64 } else { read - 1 };
    Text { len, truncated: u64::from(truncated), error: 0 }
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
        return Text { error: rc, ..Text::UNREAD };
    }
    Text { len, truncated: u64::from(truncated), error: 0 }
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
