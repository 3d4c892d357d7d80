//! Which fields of the kernel's structs the programs read, and where the running kernel keeps them.
//!
//! Nothing depends on a kernel's version: a field is there by name or it is not. All of these have kept their names
//! from 5.10 to 7.2. A field that is renamed one day gets a second name here ([`Finder::offset`] takes several, the newest first,
//! as `task_struct::__state` was `state` before 5.14), and the programs do not change.

use nix::libc;
use reaper_common::layout::{Layout, MISSING};
use thiserror::Error;

use super::btf::{Btf, BtfError};

/// The tracepoints of sends and receives, which came about 6.3.
pub const LENGTHS: [&str; 2] = ["sock_send_length", "sock_recv_length"];

/// The tracepoint of the end of every system call, for kernels without those.
pub const CALLS: &str = "sys_exit";

/// Bytes of a pointer of the kernel's. BPF programs know only 64 bits.
const POINTER_BYTES: i64 = 8;

/// Why the programs cannot run on this kernel.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OffsetError {
    /// The type information cannot be read.
    #[error("{0}")]
    Btf(#[from] BtfError),
    /// The kernel has no such field, and the programs cannot do without.
    #[error("this kernel has no {0}")]
    Missing(String),
    /// The field has another form than the programs know: not at a byte, or not one bit.
    #[error("{0} is not where a program can read it")]
    Form(String),
}

/// Looks up everything that the programs read.
///
/// # Errors
/// [`OffsetError`] if something is missing that they cannot do without.
pub fn layout(btf: &Btf<'_>) -> Result<Layout, OffsetError> {
    let find = Finder { btf };
    let session = find.enumerator("pid_type", "PIDTYPE_SID")?;
    let arguments = find.arguments_of_a_call()?;
    Ok(Layout {
        task_pid: find.offset("task_struct", &["pid"])?,
        task_tgid: find.offset("task_struct", &["tgid"])?,
        task_flags: find.offset("task_struct", &["flags"])?,
        task_exit_code: find.offset("task_struct", &["exit_code"])?,
        task_real_parent: find.offset("task_struct", &["real_parent"])?,
        task_group_leader: find.offset("task_struct", &["group_leader"])?,
        task_start_boottime: find.offset("task_struct", &["start_boottime"])?,
        task_signal: find.offset("task_struct", &["signal"])?,
        task_comm: find.offset("task_struct", &["comm"])?,
        task_children: find.offset("task_struct", &["children"])?,
        task_thread_pid: find.offset("task_struct", &["thread_pid"])?,
        task_real_cred: find.offset("task_struct", &["real_cred"])?,
        task_mm: find.offset("task_struct", &["mm"])?,
        signal_live: find.offset("signal_struct", &["live"])?,
        signal_nr_threads: find.optional("signal_struct", &["nr_threads"])?,
        signal_flags: find.offset("signal_struct", &["flags"])?,
        signal_group_exit_code: find.offset("signal_struct", &["group_exit_code"])?,
        // An array of pointers, one for each kind of id.
        signal_session: find.offset("signal_struct", &["pids"])? + session * POINTER_BYTES,
        signal_is_child_subreaper_bit: find.bit("signal_struct", "is_child_subreaper")?,
        signal_has_child_subreaper_bit: find.bit("signal_struct", "has_child_subreaper")?,
        pid_level: find.offset("pid", &["level"])?,
        pid_numbers: find.offset("pid", &["numbers"])?,
        upid_size: find.size("upid")?,
        upid_nr: find.offset("upid", &["nr"])?,
        upid_ns: find.offset("upid", &["ns"])?,
        ns_child_reaper: find.offset("pid_namespace", &["child_reaper"])?,
        cred_uid: find.offset("cred", &["uid"])?,
        mm_arg_start: find.optional("mm_struct", &["arg_start"])?,
        mm_arg_end: find.optional("mm_struct", &["arg_end"])?,
        binprm_filename: find.optional("linux_binprm", &["filename"])?,
        list_next: find.offset("list_head", &["next"])?,
        sock_socket: find.optional("sock", &["sk_socket"])?,
        socket_file: find.optional("socket", &["file"])?,
        file_inode: find.optional("file", &["f_inode"])?,
        inode_ino: find.optional("inode", &["i_ino"])?,
        inode_mode: find.optional("inode", &["i_mode"])?,
        task_files: find.optional("task_struct", &["files"])?,
        files_fdt: find.optional("files_struct", &["fdt"])?,
        fdt_max_fds: find.optional("fdtable", &["max_fds"])?,
        fdt_fd: find.optional("fdtable", &["fd"])?,
        regs_call: find.optional("pt_regs", &["orig_ax", "syscallno"])?,
        regs_first: arguments[0],
        regs_second: arguments[1],
        regs_third: arguments[2],
        regs_fourth: arguments[3],
        call_read: libc::SYS_read,
        call_readv: libc::SYS_readv,
        call_preadv2: libc::SYS_preadv2,
        call_write: libc::SYS_write,
        call_writev: libc::SYS_writev,
        call_pwritev2: libc::SYS_pwritev2,
        call_sendto: libc::SYS_sendto,
        call_recvfrom: libc::SYS_recvfrom,
        call_sendmsg: libc::SYS_sendmsg,
        call_recvmsg: libc::SYS_recvmsg,
        call_sendmmsg: libc::SYS_sendmmsg,
        call_recvmmsg: libc::SYS_recvmmsg,
        call_sendfile: libc::SYS_sendfile,
        call_splice: libc::SYS_splice,
        call_io_uring_enter: libc::SYS_io_uring_enter,
        call_io_submit: libc::SYS_io_submit,
        signal_real_timer_queued: within(
            find.optional("signal_struct", &["real_timer"])?,
            // A flag in a byte either way: `HRTIMER_STATE_ENQUEUED` is 1.
            find.optional("hrtimer", &["is_queued", "state"])?,
        ),
        signal_it_real_incr: find.optional("signal_struct", &["it_real_incr"])?,
        exit_has_group_dead: i64::from(find.arguments("sched_process_exit")? > 1),
    })
}

/// What tells how much is sent and received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Teller {
    /// The tracepoints [`LENGTHS`], in net/socket.c.
    Lengths,
    /// The end of every system call, [`CALLS`]: it costs more, since every process pays for it.
    Calls,
}

impl Teller {
    /// The programs that count, each with its tracepoint.
    pub(super) fn programs(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Lengths => &[("observe_send", LENGTHS[0]), ("observe_receive", LENGTHS[1])],
            Self::Calls => &[("observe_call", CALLS)],
        }
    }
}

/// What tells on this kernel how much is sent and received, and on which socket; the best first.
///
/// # Errors
/// [`BtfError`] if the types cannot be followed.
pub fn tellers(btf: &Btf<'_>, layout: &Layout) -> Result<Vec<Teller>, BtfError> {
    let parameters = |tracepoint: &str| btf.parameters(&format!("btf_trace_{tracepoint}"));
    let socket = [layout.sock_socket, layout.socket_file, layout.file_inode, layout.inode_ino];
    let descriptor = [
        layout.task_files,
        layout.files_fdt,
        layout.fdt_max_fds,
        layout.fdt_fd,
        layout.file_inode,
        layout.inode_mode,
        layout.inode_ino,
    ];
    let call =
        [layout.regs_call, layout.regs_first, layout.regs_second, layout.regs_third, layout.regs_fourth];
    let mut tellers = Vec::new();
    // The data of whoever attached, sk, ret and flags (include/trace/events/sock.h).
    if !socket.contains(&MISSING) && parameters(LENGTHS[0])? == Some(4) && parameters(LENGTHS[1])? == Some(4)
    {
        tellers.push(Teller::Lengths);
    }
    // The data of whoever attached, regs and ret (include/trace/events/syscalls.h).
    if !descriptor.contains(&MISSING) && !call.contains(&MISSING) && parameters(CALLS)? == Some(3) {
        tellers.push(Teller::Calls);
    }
    Ok(tellers)
}

/// The offset of a field of a struct that lies in another one.
fn within(outer: i64, inner: i64) -> i64 {
    if outer == MISSING || inner == MISSING { MISSING } else { outer + inner }
}

/// Lookups that end in an error that names the field.
struct Finder<'a> {
    btf: &'a Btf<'a>,
}

impl Finder<'_> {
    /// Byte offset of the first of `names` that the kernel has.
    fn offset(&self, tag: &str, names: &[&str]) -> Result<i64, OffsetError> {
        match self.optional(tag, names)? {
            MISSING => Err(OffsetError::Missing(format!("{tag}::{}", names.join(" or ")))),
            offset => Ok(offset),
        }
    }

    /// As [`Self::offset`], or [`MISSING`].
    fn optional(&self, tag: &str, names: &[&str]) -> Result<i64, OffsetError> {
        for name in names {
            if let Some(member) = self.btf.member(tag, name)? {
                let form = || OffsetError::Form(format!("{tag}::{name}"));
                return member.byte_offset().map(i64::from).ok_or_else(form);
            }
        }
        Ok(MISSING)
    }

    /// Where a `pt_regs` has a system call's first four arguments when it returns: by their registers' names, or behind the
    /// saved first one, whose register has the result by then (arch/arm64/include/asm/ptrace.h).
    fn arguments_of_a_call(&self) -> Result<[i64; 4], OffsetError> {
        let saved = self.optional("pt_regs", &["orig_x0"])?;
        if saved == MISSING {
            let mut offsets = [MISSING; 4];
            for (offset, name) in offsets.iter_mut().zip(["di", "si", "dx", "r10"]) {
                *offset = self.optional("pt_regs", &[name])?;
            }
            return Ok(offsets);
        }
        Ok(match self.optional("pt_regs", &["regs"])? {
            MISSING => [MISSING; 4],
            all => [saved, all + POINTER_BYTES, all + 2 * POINTER_BYTES, all + 3 * POINTER_BYTES],
        })
    }

    /// Offset in bits of a bitfield of one bit.
    fn bit(&self, tag: &str, name: &str) -> Result<i64, OffsetError> {
        let field = || format!("{tag}::{name}");
        let member = self.btf.member(tag, name)?.ok_or_else(|| OffsetError::Missing(field()))?;
        if member.bitfield_bits != 1 || cfg!(target_endian = "big") {
            return Err(OffsetError::Form(field()));
        }
        Ok(member.bit_offset.into())
    }

    /// Bytes of a struct.
    fn size(&self, tag: &str) -> Result<i64, OffsetError> {
        self.btf.size(tag)?.map(i64::from).ok_or_else(|| OffsetError::Missing(format!("struct {tag}")))
    }

    /// Value of an enumerator.
    fn enumerator(&self, tag: &str, name: &str) -> Result<i64, OffsetError> {
        self.btf.enumerator(tag, name)?.ok_or_else(|| OffsetError::Missing(name.to_owned()))
    }

    /// Arguments of a tracepoint. Its function type has one more: the data of whoever attached.
    fn arguments(&self, tracepoint: &str) -> Result<usize, OffsetError> {
        let parameters = self.btf.parameters(&format!("btf_trace_{tracepoint}"))?;
        match parameters {
            Some(with_data @ 1..) => Ok(with_data - 1),
            _ => Err(OffsetError::Missing(format!("tracepoint {tracepoint}"))),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::btf::VMLINUX;
    use super::*;

    #[test]
    fn finds_everything_on_the_running_kernel() {
        let Ok(data) = std::fs::read(VMLINUX) else {
            return;
        };
        let layout = layout(&Btf::parse(&data).unwrap()).unwrap();
        assert_eq!(layout.task_tgid, layout.task_pid + 4);
        assert_eq!(layout.signal_has_child_subreaper_bit, layout.signal_is_child_subreaper_bit + 1);
        assert_eq!(layout.list_next, 0);
        assert!(layout.signal_real_timer_queued > 0 && layout.signal_it_real_incr > 0);
        let tellers = tellers(&Btf::parse(&data).unwrap(), &layout).unwrap();
        assert!(tellers.contains(&Teller::Calls), "{layout:?}");
        assert!(layout.mm_arg_start > 0 && layout.binprm_filename > 0 && layout.signal_nr_threads > 0);
    }

    #[test]
    fn names_what_is_missing() {
        // A header, no types, no strings.
        let words: [u32; 5] = [24, 0, 0, 0, 0];
        let mut data = 0xeb9f_u16.to_ne_bytes().to_vec();
        data.extend([1, 0]);
        data.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        let error = layout(&Btf::parse(&data).unwrap()).unwrap_err();
        assert_eq!(error, OffsetError::Missing("PIDTYPE_SID".to_owned()));
    }
}
