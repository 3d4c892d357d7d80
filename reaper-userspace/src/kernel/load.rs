//! Loading the programs: what they have to know of the running kernel, and its verifier.
//!
//! Most of a start is spent here, so what can go on at the same time does: the kernel's type information is parsed twice, and the
//! verifier takes each program for itself.

use std::io;
use std::sync::OnceLock;
use std::thread::{Builder, ScopedJoinHandle, scope};

use aya::maps::MapError;
use aya::programs::{BtfTracePoint, Iter, Program, ProgramError};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfError, EbpfLoader};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use nix::unistd::{SysconfVar, sysconf};
use reaper_common::layout::{self, Layout};
use reaper_common::lineage::{KEPT, LINEAGE, UNKEPT};
use rustc_hash::FxHashMap;
use thiserror::Error;
use zerocopy::IntoBytes as _;

use super::btf::{self, Btf, Excerpt};
use super::lineage::Lineage;
use super::observer::Observer;
use super::offsets::{self, CALLS, LENGTHS, OffsetError, Teller};
use super::pins::{self, Generation, PinError};

/// The kernel programs, or nothing (see `build.rs`).
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/reaper-ebpf"));

/// Size of the ring buffer unless the configuration says otherwise: about 90,000 births or deaths.
pub const DEFAULT_RING_BYTES: u32 = 8 << 20;

/// Each program on a tracepoint: its name in the object, and the tracepoint's.
pub(super) const TRACEPOINTS: [(&str, &str); 4] = [
    ("process_exit", "sched_process_exit"),
    ("process_exec", "sched_process_exec"),
    ("process_fork", "sched_process_fork"),
    ("process_signal", "signal_generate"),
];

/// The program of the task iterator.
pub(super) const ITERATOR: &str = "process_tasks";

/// The global that makes the programs keep lineages.
static KEEP: u32 = 1;

/// How much of the verifier's log an error shows: the end of it says what is wrong.
const LOG_LINES: usize = 20;

/// Bits of `CapEff` in /proc/PID/status, from include/uapi/linux/capability.h.
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Why the kernel programs cannot run.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The object is empty.
    #[error("this reaper was built without its kernel programs: build it with `cargo xtask build`")]
    NoPrograms,
    /// The process may not load programs.
    #[error(
        "not permitted to load kernel programs: {} missing. Run reaper as root, or give its service these capabilities",
        .0.join(" and ")
    )]
    Capabilities(Vec<&'static str>),
    /// The kernel does not show its type information.
    #[error(
        "cannot read the kernel's type information ({path}): {0}. reaper needs Linux 5.10 or later with CONFIG_DEBUG_INFO_BTF",
        path = btf::VMLINUX
    )]
    NoBtf(#[source] io::Error),
    /// The kernel's type information does not have what the programs need.
    #[error("the kernel's type information does not fit: {0}")]
    Offsets(#[from] OffsetError),
    /// The kernel refused a program.
    #[error("the kernel refused the program {program}: {source}\n{log}")]
    Refused {
        /// The program's name.
        program: &'static str,
        /// What bpf(2) answered.
        source: io::Error,
        /// The last lines of the verifier's log.
        log: String,
    },
    /// Something else about a program.
    #[error("kernel program {program}: {source}")]
    Program {
        /// The program's name.
        program: &'static str,
        /// What it is.
        source: Box<ProgramError>,
    },
    /// The object cannot be loaded: it is damaged, or its maps cannot be made.
    #[error("loading the kernel programs: {0}")]
    Object(#[source] Box<EbpfError>),
    /// A map is missing, of another type, or taken already.
    #[error("kernel map {map}: {reason}")]
    Map {
        /// The map's name.
        map: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Something cannot be pinned, or what is pinned cannot be used.
    #[error("pins: {0}")]
    Pins(#[from] PinError),
    /// A map or a link cannot be pinned.
    #[error("pinning {name}: {source}")]
    Pin {
        /// Which.
        name: &'static str,
        /// Why.
        source: aya::pin::PinError,
    },
    /// A file descriptor cannot be watched.
    #[error("watching a ring buffer: {0}")]
    Watch(#[source] io::Error),
}

/// Loads the programs; with a generation, they keep lineages in its maps.
pub(super) fn load(
    kernel: Kernel,
    ring_bytes: u32,
    generation: Option<&Generation>,
) -> Result<(Ebpf, Observer), LoadError> {
    raise_memlock();

    let mut loader = kernel.loader;
    loader
        .override_global(layout::SYMBOL, kernel.layout.as_bytes(), true)
        .map_max_entries("EVENTS", ring_size(ring_bytes));
    match generation {
        Some(generation) => {
            // The observer has no such global.
            loader.override_global(KEPT, &KEEP, false);
            loader.map_pin_path(LINEAGE, generation.shared(pins::LINEAGE));
            loader.map_pin_path(UNKEPT, generation.shared(pins::UNKEPT));
        }
        None => {
            loader.map_max_entries(LINEAGE, 1);
        }
    }
    let mut ebpf = loader.load(OBJECT).map_err(|error| LoadError::Object(Box::new(error)))?;
    load_programs(&mut ebpf, &kernel.types.for_aya()?)?;
    Ok((ebpf, Observer::new(loader, kernel.types, kernel.tellers)))
}

/// [`load`], and pins what a generation reads from.
pub(super) fn load_and_pin(
    kernel: Kernel,
    ring_bytes: u32,
    generation: &Generation,
) -> Result<(Ebpf, Observer, Lineage), LoadError> {
    let (mut ebpf, observer) = load(kernel, ring_bytes, Some(generation))?;
    for (map, name) in [("EVENTS", pins::RING), ("LOST", pins::LOST)] {
        let found = ebpf.map(map);
        let found = found.ok_or_else(|| LoadError::Map { map, reason: "not in the object".to_owned() })?;
        found.pin(generation.own(name)).map_err(|source| LoadError::Pin { name, source })?;
    }
    let lineage = Lineage::new(take_map(&mut ebpf, LINEAGE)?, take_map(&mut ebpf, UNKEPT)?);
    Ok((ebpf, observer, lineage))
}

/// Has the kernel verify and compile every program, all at the same time: it takes each from the thread that brings it.
///
/// # Errors
/// That of the first one in the order of [`programs`], whatever became of the others.
fn load_programs(ebpf: &mut Ebpf, types: &aya::Btf) -> Result<(), LoadError> {
    let mut outcomes: FxHashMap<&str, Result<(), LoadError>> = scope(|scope| {
        let begin = |(name, loading): (&str, _)| {
            let name = programs().find(|known| *known == name)?;
            let thread = Builder::new().spawn_scoped(scope, move || load_one(loading, name, types));
            Some((name, thread.ok()?))
        };
        let threads: Vec<_> = ebpf.programs_mut().filter_map(begin).collect();
        threads.into_iter().map(|(name, thread)| (name, join(thread))).collect()
    });
    programs().try_for_each(|name| match outcomes.remove(name) {
        Some(outcome) => outcome,
        // No thread could be had for it, or the object does not have it.
        None => load_one(found(ebpf, name)?, name, types),
    })
}

fn load_one(program: &mut Program, name: &'static str, types: &aya::Btf) -> Result<(), LoadError> {
    let loaded = match TRACEPOINTS.into_iter().find(|(known, _)| *known == name) {
        Some((_, tracepoint)) => cast::<BtfTracePoint>(program, name)?.load(tracepoint, types),
        None => cast::<Iter>(program, name)?.load("task", types),
    };
    loaded.map_err(|error| refused(name, error))
}

/// The names of all programs of the object.
fn programs() -> impl Iterator<Item = &'static str> {
    TRACEPOINTS.into_iter().map(|(name, _)| name).chain([ITERATOR])
}

/// What a thread comes back with; its panic is the caller's.
fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// What the programs need to know of the running kernel, and what loads them.
pub(super) struct Kernel {
    layout: &'static Layout,
    /// What they attach to.
    types: Excerpt,
    tellers: Vec<Teller>,
    /// One for all, the observer's programs too: making one parses all of the kernel's type information.
    loader: EbpfLoader<'static>,
}

impl Kernel {
    /// Looks at it, if this program and its process are what is needed to load anything.
    pub(super) fn look() -> Result<Self, LoadError> {
        if OBJECT.is_empty() {
            return Err(LoadError::NoPrograms);
        }
        check_capabilities()?;
        let (found, mut loader) = scope(|scope| {
            let loader = Builder::new().spawn_scoped(scope, EbpfLoader::new);
            (Self::parse(), loader.map_or_else(|_| EbpfLoader::new(), join))
        });
        // It would relocate by what it has parsed, and the objects have no relocations.
        loader.btf(None);
        let (layout, types, tellers) = found?;
        Ok(Self { layout, types, tellers, loader })
    }

    /// What the kernel's type information says.
    fn parse() -> Result<(&'static Layout, Excerpt, Vec<Teller>), LoadError> {
        /// A loader that is used again wants to keep it; it does not change while the kernel runs.
        static LAYOUT: OnceLock<Layout> = OnceLock::new();
        let vmlinux = std::fs::read(btf::VMLINUX).map_err(LoadError::NoBtf)?;
        let btf = Btf::parse(&vmlinux).map_err(OffsetError::from)?;
        let layout = offsets::layout(&btf)?;
        let tellers = offsets::tellers(&btf, &layout).map_err(OffsetError::from)?;
        let tracepoints = TRACEPOINTS.iter().map(|&(_, tracepoint)| tracepoint).chain(LENGTHS).chain([CALLS]);
        let typedefs: Vec<String> = tracepoints.map(|name| format!("btf_trace_{name}")).collect();
        let typedefs: Vec<&str> = typedefs.iter().map(String::as_str).collect();
        let types = Excerpt::of(&btf, &typedefs, &["bpf_iter_task"]).map_err(OffsetError::from)?;
        Ok((LAYOUT.get_or_init(|| layout), types, tellers))
    }
}

/// Takes a map out of an object.
pub(super) fn take_map<M>(ebpf: &mut Ebpf, map: &'static str) -> Result<M, LoadError>
where
    M: TryFrom<aya::maps::Map, Error = MapError>,
{
    let found = ebpf
        .take_map(map)
        .ok_or_else(|| LoadError::Map { map, reason: "taken already, or not in the object".to_owned() })?;
    M::try_from(found).map_err(|error| LoadError::Map { map, reason: error.to_string() })
}

/// A program of the object.
pub(super) fn program<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, LoadError>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    cast(found(ebpf, name)?, name)
}

fn found<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Program, LoadError> {
    let missing = || LoadError::Program { program: name, source: Box::new(ProgramError::NotLoaded) };
    ebpf.program_mut(name).ok_or_else(missing)
}

/// A program as what it is.
fn cast<'a, P>(program: &'a mut Program, name: &'static str) -> Result<&'a mut P, LoadError>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    program.try_into().map_err(|source| LoadError::Program { program: name, source: Box::new(source) })
}

/// An error of aya with the verifier's log shortened.
pub(super) fn refused(program: &'static str, error: ProgramError) -> LoadError {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => LoadError::Refused {
            program,
            source: io_error,
            log: last_lines(&verifier_log.to_string(), LOG_LINES),
        },
        other => LoadError::Program { program, source: Box::new(other) },
    }
}

/// The last lines of a text that have something on them.
fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Says what is missing before the kernel says no more than EPERM.
fn check_capabilities() -> Result<(), LoadError> {
    let status = procfs::process::Process::myself().and_then(|myself| myself.status());
    // If /proc does not tell, the kernel will.
    status.map_or(Ok(()), |status| match missing_capabilities(status.capeff) {
        missing if missing.is_empty() => Ok(()),
        missing => Err(LoadError::Capabilities(missing)),
    })
}

/// What loading tracing programs needs of an effective set (capabilities(7)): CAP_SYS_ADMIN stands for the other two.
fn missing_capabilities(effective: u64) -> Vec<&'static str> {
    let has = |bit: u32| effective & (1 << bit) != 0;
    if has(CAP_SYS_ADMIN) {
        return Vec::new();
    }
    [(CAP_BPF, "CAP_BPF"), (CAP_PERFMON, "CAP_PERFMON")]
        .into_iter()
        .filter(|&(bit, _)| !has(bit))
        .map(|(_, name)| name)
        .collect()
}

/// Before 5.11 maps and programs count against RLIMIT_MEMLOCK, which is 64 KiB by default. If it cannot be raised, making
/// the maps fails and says so.
fn raise_memlock() {
    if KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(5, 11, 0)) {
        return;
    }
    if let Err(error) = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY) {
        tracing::warn!("cannot raise RLIMIT_MEMLOCK: {error}");
    }
}

/// A size that the kernel takes for a ring buffer: a power of two, and a multiple of the page size.
fn ring_size(wanted: u32) -> u32 {
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|page| u32::try_from(page).ok());
    wanted.max(page.unwrap_or(4096)).checked_next_power_of_two().unwrap_or(1 << 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysadmin_stands_for_the_others() {
        assert_eq!(missing_capabilities(0), ["CAP_BPF", "CAP_PERFMON"]);
        assert_eq!(missing_capabilities(1 << CAP_BPF), ["CAP_PERFMON"]);
        assert!(missing_capabilities(1 << CAP_SYS_ADMIN).is_empty());
        assert!(missing_capabilities(1 << CAP_BPF | 1 << CAP_PERFMON).is_empty());
    }

    #[test]
    fn ring_sizes_are_powers_of_two() {
        assert_eq!(ring_size(DEFAULT_RING_BYTES), DEFAULT_RING_BYTES);
        assert!(ring_size(0) >= 4096);
        assert_eq!(ring_size((8 << 20) + 1), 16 << 20);
        assert_eq!(ring_size(u32::MAX), 1 << 31);
    }

    #[test]
    fn the_end_of_a_log_is_kept() {
        assert_eq!(last_lines("a\n\nb\nc\n\n", 2), "b\nc");
        assert_eq!(last_lines("a", 2), "a");
    }
}
