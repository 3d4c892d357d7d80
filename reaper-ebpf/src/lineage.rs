//! The map of lineages: see [`reaper_common::lineage`] for what it is for. It is written where births, execs and deaths are
//! told anyway, and by the task iterator for whoever was there before.
//!
//! Two generations of the programs may be attached at once, while a newer agent takes over. Both run for every event, one
//! after the other on the same CPU, and only the first one finds something to do.

use aya_ebpf::Global;
use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, PerCpuArray};
use reaper_common::lineage::{Birth, GENERATIONS_MAX, LINEAGE_MAX};
use reaper_common::{Exec, Exit, Fork, Proc, Task, adopter, flag};

/// Whether a lineage is kept; the agent writes it before it loads the object.
#[unsafe(no_mangle)]
static REAPER_KEEPS_LINEAGE: Global<u32> = Global::new(0);

/// All that is kept.
#[map]
static LINEAGE: HashMap<Proc, Birth> = HashMap::with_max_entries(LINEAGE_MAX, 0);

/// One cell a CPU: the births that found no room.
#[map]
static UNKEPT: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// How many dead ancestors may go with one death. What is left over the next agent clears away.
const BURIED_AT_ONCE: usize = 16;

/// `-EEXIST`: it is there already.
const EXISTS: i32 = -17;

const NOBODY: Proc = Proc { start_ns: 0, tgid: 0, _pad: 0 };

/// A process was born.
#[inline(always)]
pub(crate) fn born(fork: &Fork) {
    if !is_kept() || fork.flags & flag::KERNEL_THREAD != 0 {
        return;
    }
    let mut birth = Birth { parent: fork.parent, exec_session: fork.sid, ..first(fork.sid) };
    let mother = LINEAGE.get_ptr_mut(fork.parent);
    if let Some(mother) = mother {
        // SAFETY: the pointer is a map's value.
        unsafe {
            birth.exec_at = (*mother).exec_at;
            birth.exec_session = (*mother).exec_session;
            birth.generation = (*mother).generation + 1;
        }
        birth.counted = 1;
        if birth.generation >= GENERATIONS_MAX {
            birth.generation = 0;
            birth.parent = NOBODY;
            birth.counted = 0;
        }
    }
    if insert(fork.child, &birth)
        && birth.counted == 1
        && let Some(mother) = mother
    {
        refer(mother);
    }
}

/// A process has a new image.
#[inline(always)]
pub(crate) fn executed(exec: &Exec) {
    if !is_kept() {
        return;
    }
    if let Some(own) = LINEAGE.get_ptr_mut(exec.proc) {
        // SAFETY: the pointer is a map's value, and only the process itself, which is here, writes these.
        unsafe {
            (*own).exec_at = exec.header.boot_ns;
            (*own).exec_session = exec.sid;
            (*own).execed = 1;
        }
    }
}

/// The last thread of a process died.
#[inline(always)]
pub(crate) fn died(exit: &Exit) {
    if !is_kept() {
        return;
    }
    let Some(own) = LINEAGE.get_ptr_mut(exit.proc) else {
        return;
    };
    // SAFETY: the pointer is a map's value.
    unsafe {
        if (*own).died_at != 0 {
            return;
        }
        (*own).died_at = exit.header.boot_ns;
        (*own).status = exit.status;
    }
    let (mut key, mut entry) = (exit.proc, own);
    for _ in 0..BURIED_AT_ONCE {
        // SAFETY: the pointer is a map's value; read before it can be another's.
        let (parent, counted) = unsafe { ((*entry).parent, (*entry).counted) };
        // Of those who lower the number at the same time one or more see 0, and one can remove it.
        if !is_last(entry) || LINEAGE.remove(key).is_err() || counted == 0 {
            return;
        }
        let Some(above) = LINEAGE.get_ptr_mut(parent) else {
            return;
        };
        (key, entry) = (parent, above);
    }
}

/// A process was found by the iterator: it may have been there before the programs were.
#[inline(always)]
pub(crate) fn found(row: &Task) {
    if !is_kept() || row.flags & flag::KERNEL_THREAD != 0 {
        return;
    }
    if LINEAGE.get_ptr(row.proc).is_none() {
        let parent = if row.parent_kind == adopter::KNOWN { row.parent } else { NOBODY };
        insert(row.proc, &Birth { parent, exec_session: row.sid, dumped: 1, ..first(row.sid) });
    }
    // Whoever comes before its parent is counted in by the next walk.
    let Some(own) = LINEAGE.get_ptr_mut(row.proc) else {
        return;
    };
    // SAFETY: the pointer is a map's value.
    let (parent, counted) = unsafe { ((*own).parent, (*own).counted) };
    if counted == 0
        && parent.tgid != 0
        && let Some(mother) = LINEAGE.get_ptr_mut(parent)
    {
        // SAFETY: as above. It is not counted twice, as one walk after the other writes this.
        unsafe { (*own).counted = 1 };
        refer(mother);
    }
}

/// An entry about which nothing is known yet.
#[inline(always)]
fn first(session: u32) -> Birth {
    Birth {
        parent: NOBODY,
        exec_at: 0,
        died_at: 0,
        references: 1,
        status: 0,
        birth_session: session,
        exec_session: session,
        generation: 0,
        execed: 0,
        dumped: 0,
        counted: 0,
        _pad: 0,
    }
}

/// Makes an entry. False if there is one, or no room.
#[inline(always)]
fn insert(key: Proc, birth: &Birth) -> bool {
    match LINEAGE.insert(key, birth, u64::from(BPF_NOEXIST)) {
        Ok(()) => true,
        Err(EXISTS) => false,
        Err(_) => {
            if let Some(unkept) = UNKEPT.get_ptr_mut(0) {
                // SAFETY: the cell is this CPU's, and only births, which are not told from an interrupt, write it.
                unsafe { *unkept += 1 };
            }
            false
        }
    }
}

/// One more entry names it.
#[inline(always)]
fn refer(entry: *mut Birth) {
    // SAFETY: the pointer is a map's value.
    add(unsafe { &raw mut (*entry).references }, 1);
}

/// One less, or it has died itself. Whether that was the last.
#[inline(always)]
fn is_last(entry: *mut Birth) -> bool {
    // SAFETY: the pointer is a map's value.
    let references = unsafe { &raw mut (*entry).references };
    add(references, u64::MAX);
    // Read afterwards: old kernels have no instruction that does both.
    // SAFETY: as above.
    unsafe { references.read_volatile() == 0 }
}

/// Adds in one atomic step, modulo 2^64. `BPF_XADD` is older than every kernel that the programs run on; rustc has no atomic
/// operation for it, as it gives nothing back.
#[inline(always)]
fn add(number: *mut u64, by: u64) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: the pointer is to 8 aligned bytes of a map's value, which every CPU changes like this.
    unsafe {
        core::arch::asm!("lock *(u64 *)({number} + 0) += {by}", number = in(reg) number, by = in(reg) by);
    }
    #[cfg(not(target_arch = "bpf"))]
    let _ = (number, by);
}

/// Whether a lineage is kept: a constant to the verifier.
#[inline(always)]
fn is_kept() -> bool {
    REAPER_KEEPS_LINEAGE.load() == 1
}
