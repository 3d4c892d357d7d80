//! `sys_exit`: what a process has sent or received on a socket, where the kernel has no tracepoints for that (before 6.3).
//!
//! It counts as `traffic` does and in the same map, from the call's number, its arguments and what it returned. What it cannot see
//! is told as uncounted: calls that leave the work to others (io_uring, asynchronous I/O), several messages at once, and a
//! descriptor that another thread has closed meanwhile. Not seen at all is who asks an io_uring without a call, and who makes
//! calls by another architecture's numbers; nobody is idle by what such a process waits for.
//!
//! Every process pays for this tracepoint while somebody is watched, so the others are preferred.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_probe_read_user};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use reaper_common::observed::{SocketKey, Watched};

use crate::kernel::call::{Call, Moves};
use crate::kernel::{Copied, Task};
use crate::traffic::{NOT_RECEIVED, add, uncounted};
use crate::watched;

/// Where a `struct mmsghdr` has its `msg_len` (include/linux/socket.h, 64 bits).
const MESSAGE_LEN_AT: u64 = 56;

/// Arguments: regs, ret (include/trace/events/syscalls.h).
#[btf_tracepoint(function = "sys_exit")]
fn observe_call(ctx: BtfTracePointContext) -> u32 {
    let returned: i64 = ctx.arg(1);
    if returned > 0
        && let Some(watched) = watched::find((bpf_get_current_pid_tgid() >> 32) as u32)
    {
        let current = Task::running();
        if watched::is(watched, current.process()) {
            count(watched, current, Call::new(ctx.arg(0)), returned.cast_unsigned());
        }
    }
    0
}

/// Counts what the call has moved.
#[inline(always)]
fn count(watched: *mut Watched, current: Task<Copied>, call: Call, returned: u64) {
    let peeks = |flags: u64| flags as i32 & NOT_RECEIVED != 0;
    let (fd, bytes, out) = match call.moves() {
        Moves::Nothing => return,
        Moves::In { flags } | Moves::Messages { out: false, flags } if peeks(flags) => return,
        Moves::In { .. } => (call.first(), Some(returned), false),
        Moves::Out => (call.first(), Some(returned), true),
        Moves::OutOfPipe => (call.third(), Some(returned), true),
        Moves::Messages { out, .. } => (call.first(), only_message(call.second(), returned), out),
        Moves::Unseen => return uncounted(watched),
    };
    match (current.socket(fd as u32), bytes) {
        (Some(0), _) | (_, Some(0)) => {}
        (Some(inode), Some(bytes)) => {
            // SAFETY: the pointer is a map's value.
            let key = SocketKey { inode, watch: unsafe { (*watched).watch } };
            add(watched, key, bytes, out);
        }
        _ => uncounted(watched),
    }
}

/// Bytes of the message of sendmmsg(2) or recvmmsg(2), if it is one.
#[inline(always)]
fn only_message(vector: u64, messages: u64) -> Option<u64> {
    if messages != 1 {
        return None;
    }
    let len = (vector + MESSAGE_LEN_AT) as *const u32;
    // SAFETY: any address is fine to the helper, it fails where nothing can be read.
    unsafe { bpf_probe_read_user(len) }.ok().map(u64::from)
}
