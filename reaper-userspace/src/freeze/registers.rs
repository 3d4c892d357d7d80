//! Whether a stopped thread was blocked in a system call, read from its registers.
//!
//! `/proc/PID/task/TID/syscall` does not tell: it shows the number of the last call until the thread is back in user space, also
//! when that call has just returned with a job. The returned value does. A call that was interrupted has returned one of the
//! kernel's restart codes (`include/linux/errno.h`), which user space never sees, or `EINTR`.

use nix::sys::ptrace;
use nix::unistd::Pid;

use super::Halt;

/// `ERESTARTSYS`, `ERESTARTNOINTR`, `ERESTARTNOHAND`, `ERESTART_RESTARTBLOCK`, and `EINTR`, which epoll_wait(2) and a few others
/// return (signal(7)).
#[cfg(target_arch = "x86_64")]
const INTERRUPTED: [i64; 5] = [-512, -513, -514, -516, -4];

/// What a thread that is in a ptrace stop, and not because of a signal, was doing.
#[cfg(target_arch = "x86_64")]
pub(super) fn halt(tid: Pid) -> nix::Result<Halt> {
    let registers = ptrace::getregs(tid)?;
    // Not in a system call: -1, or what an interrupt left (kernel: `arch/x86/entry/entry_64.S`).
    let in_call = registers.orig_rax.cast_signed() >= 0;
    let interrupted = INTERRUPTED.contains(&registers.rax.cast_signed());
    Ok(if in_call && interrupted { Halt::Blocked } else { Halt::Running })
}

/// On aarch64 the kernel forgets the call's number and winds the program counter back to its `svc` before a tracer sees it
/// (`arch/arm64/kernel/signal.c`, `do_signal`); what returns `EINTR` is not wound back.
#[cfg(target_arch = "aarch64")]
pub(super) fn halt(tid: Pid) -> nix::Result<Halt> {
    /// `svc #0`.
    const SVC: u32 = 0xd400_0001;
    const EINTR: i64 = -4;
    let registers = ptrace::getregs(tid)?;
    let pc = usize::try_from(registers.pc).unwrap_or_default();
    let word = ptrace::read(tid, std::ptr::without_provenance_mut(pc))?.cast_unsigned();
    let at_call = u32::try_from(word & 0xffff_ffff).is_ok_and(|instruction| instruction == SVC);
    let interrupted = registers.regs[0].cast_signed() == EINTR;
    Ok(if at_call || interrupted { Halt::Blocked } else { Halt::Running })
}

/// Elsewhere nobody has said which register holds what: the answer is that it is not known.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) fn halt(_tid: Pid) -> nix::Result<Halt> {
    Ok(Halt::Unknown)
}
