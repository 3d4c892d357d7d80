//! The observer: what single processes do on their sockets, and whether an alarm runs for them.
//!
//! Its programs are loaded and attached with the first process that is watched, and gone with the last: without orphans they
//! cost nothing. They count from then on; what happened before nobody knows.
//!
//! What this module keeps true:
//! - "Nothing was sent" is said only of a process that was watched all the time, when nothing went uncounted. Else the answer
//!   is "not known", and the counting begins anew.
//! - A watch has a number of its own. A pid that is given out again, or a process that is watched again, starts from zero.
//!
//! Not here: what follows from it. That is for the core.

use std::fmt;

use aya::maps::{HashMap, MapData, MapError, PerCpuHashMap};
use aya::programs::{BtfTracePoint, Iter};
use aya::{Ebpf, EbpfLoader};
use reaper_common::observed::{SocketKey, SocketTraffic, Transfers, Watched};
use rustc_hash::{FxHashMap, FxHashSet};
use thiserror::Error;

use super::btf::Excerpt;
use super::decode::{DecodeError, decode_alarms};
use super::load::{LoadError, program, refused, take_map};
use super::offsets::Teller;
use super::plain::Plain;
use super::stats::missed_by;
use super::tasks::{SnapshotError, dump};
use crate::core::ids::ProcKey;
use crate::core::sample::{File, FileKind, Operation, Sample, Traffic, Wants};

/// The programs, or nothing (see `build.rs`).
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/reaper-observer"));

/// The program of the iterator.
const ALARM: &str = "observe_alarm";

/// Why a process is not watched, or nothing is known about it.
#[derive(Debug, Error)]
pub enum ObserveError {
    /// The programs cannot run.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A map does not take or give something: too many processes are watched.
    #[error("the observer's map {map}: {source}")]
    Map {
        /// Its name.
        map: &'static str,
        /// What is wrong.
        source: MapError,
    },
    /// The iterator cannot be read.
    #[error("the observer's iterator: {0}")]
    Iterator(#[from] SnapshotError),
    /// The iterator wrote something else than rows.
    #[error("the observer's rows: {0}")]
    Decode(#[from] DecodeError),
}

/// Watches processes on demand.
#[derive(Debug)]
pub struct Observer {
    loader: EbpfLoader<'static>,
    types: Excerpt,
    tellers: Vec<Teller>,
    loaded: Option<Loaded>,
    watches: FxHashMap<ProcKey, Watch>,
    /// Number of the last watch.
    last: u64,
    /// Watches that have ended since their sockets were last cleared away.
    ended: usize,
    /// What went wrong last time, as far as that was said.
    failure: Option<String>,
}

/// One process that is watched.
#[derive(Clone, Copy, Debug)]
struct Watch {
    number: u64,
    /// Runs that the kernel had left out when it began.
    missed: u64,
}

impl Observer {
    /// Nothing is loaded yet. `types` names what the programs attach to; `tellers` is what this kernel has that tells of traffic, the
    /// best first.
    pub(super) fn new(loader: EbpfLoader<'static>, types: Excerpt, tellers: Vec<Teller>) -> Self {
        Self {
            loader,
            types,
            tellers,
            loaded: None,
            watches: FxHashMap::default(),
            last: 0,
            ended: 0,
            failure: None,
        }
    }

    /// What tells on this kernel what is sent and received, the best first, which is the one that is used. Without any
    /// only alarms are seen.
    pub fn tellers(&self) -> &[Teller] {
        &self.tellers
    }

    /// Uses this one and no other from the next load on, if the kernel has it.
    pub fn prefer(&mut self, teller: Teller) {
        self.tellers.retain(|one| *one == teller);
    }

    /// Watches a process from now on. The first one loads and attaches the programs: about 13 ms, nearly all of it the kernel's
    /// own work on three programs, and 10 ms more right after they were detached (a grace period of RCU).
    ///
    /// # Errors
    /// [`ObserveError::Load`] if the programs cannot run, [`ObserveError::Map`] if too many processes are watched: this one
    /// is not.
    pub fn watch(&mut self, key: ProcKey) -> Result<(), ObserveError> {
        if self.watches.contains_key(&key) {
            return Ok(());
        }
        if self.loaded.is_none() {
            self.loaded = Some(Loaded::load(&mut self.loader, &self.types, self.tellers.first().copied())?);
        }
        let begun = self.begin(key);
        if self.watches.is_empty() {
            self.loaded = None;
        }
        begun
    }

    /// Whether a process is watched.
    pub fn watches(&self, key: ProcKey) -> bool {
        self.watches.contains_key(&key)
    }

    /// Watches a process no more. The last one detaches and unloads the programs.
    pub fn unwatch(&mut self, key: ProcKey) {
        if self.watches.remove(&key).is_none() {
            return;
        }
        if self.watches.is_empty() {
            self.loaded = None;
            self.ended = 0;
            return;
        }
        let outcome = self.end(key);
        self.say(outcome.err());
    }

    /// Completes a look at a watched process with what only the kernel's programs see: the traffic of its sockets, and whether
    /// an alarm runs, if that is wanted: it takes a walk over all tasks. Whatever cannot be told stays `None`. False if this kernel could have
    /// told and something went wrong.
    pub fn complete(&mut self, key: ProcKey, sample: &mut Sample, wants: Wants) -> bool {
        let Some(source) = &mut sample.source else {
            return true;
        };
        let (Some(&watch), Some(loaded)) = (self.watches.get(&key), &mut self.loaded) else {
            return false;
        };
        let alarm = if wants.alarm { loaded.alarm(key) } else { Ok(None) };
        let counted = loaded.count(key, watch, &mut source.files);
        source.alarm = alarm.as_ref().ok().copied().flatten();
        let told = matches!(counted, Ok(true)) && alarm.is_ok();
        let begun_anew = match counted {
            Ok(true) => Ok(()),
            // What it did since then is not known, and what it does from now on will be.
            Ok(false) => self.begin(key).and_then(|()| self.clear()),
            Err(error) => Err(error),
        };
        self.say(alarm.err().or(begun_anew.err()));
        told
    }

    /// Starts to count with a number of its own.
    fn begin(&mut self, key: ProcKey) -> Result<(), ObserveError> {
        let Some(loaded) = &mut self.loaded else {
            return Ok(());
        };
        self.last += 1;
        let watch = Watch { number: self.last, missed: loaded.missed()? };
        let value = Watched { start_ns: key.start_ns, watch: watch.number, ..Watched::default() };
        loaded.watched.insert(key.tgid, Plain(value), 0).map_err(|source| map_error("WATCHED", source))?;
        self.watches.insert(key, watch);
        Ok(())
    }

    /// Takes an ended watch out of the map, unless its pid is another's by now.
    fn end(&mut self, key: ProcKey) -> Result<(), ObserveError> {
        if let Some(loaded) = &mut self.loaded
            && loaded.entry(key)?.is_some()
        {
            loaded.watched.remove(&key.tgid).map_err(|source| map_error("WATCHED", source))?;
        }
        self.ended += 1;
        // To clear away one watch is to look at the sockets of all: so it waits until it is worth it.
        if self.ended > self.watches.len() { self.clear() } else { Ok(()) }
    }

    /// Clears away the sockets of watches that have ended.
    fn clear(&mut self) -> Result<(), ObserveError> {
        self.ended = 0;
        let live: FxHashSet<u64> = self.watches.values().map(|watch| watch.number).collect();
        let Some(Loaded { traffic: Some(traffic), .. }) = &mut self.loaded else {
            return Ok(());
        };
        let keys: Vec<Plain<SocketKey>> = traffic.keys().filter_map(Result::ok).collect();
        for key in keys.iter().filter(|key| !live.contains(&key.0.watch)) {
            match traffic.remove(key) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(source) => return Err(map_error("TRAFFIC", source)),
            }
        }
        Ok(())
    }

    /// Says once that something is wrong, and again when that is something else.
    fn say(&mut self, error: Option<ObserveError>) {
        let failure = error.map(|error| error.to_string());
        if let Some(why) = &failure
            && self.failure != failure
        {
            tracing::warn!("{why}; what it does not see counts as unknown");
            self.failure = failure;
        }
    }
}

/// The programs while they run.
struct Loaded {
    ebpf: Ebpf,
    watched: HashMap<MapData, u32, Plain<Watched>>,
    /// What counts; none on a kernel that does not tell of traffic.
    teller: Option<Teller>,
    /// None without it.
    traffic: Option<PerCpuHashMap<MapData, Plain<SocketKey>, Plain<SocketTraffic>>>,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The map of each CPU's values cannot show itself.
        f.debug_struct("Loaded").field("ebpf", &self.ebpf).finish_non_exhaustive()
    }
}

impl Loaded {
    fn load(
        loader: &mut EbpfLoader<'static>,
        types: &Excerpt,
        teller: Option<Teller>,
    ) -> Result<Self, LoadError> {
        if OBJECT.is_empty() {
            return Err(LoadError::NoPrograms);
        }
        let types = types.for_aya()?;
        let mut ebpf = loader.load(OBJECT).map_err(|error| LoadError::Object(Box::new(error)))?;
        program::<Iter>(&mut ebpf, ALARM)?.load("task", &types).map_err(|error| refused(ALARM, error))?;
        let mut traffic = None;
        if let Some(teller) = teller {
            for &(name, tracepoint) in teller.programs() {
                let counter = program::<BtfTracePoint>(&mut ebpf, name)?;
                counter.load(tracepoint, &types).map_err(|error| refused(name, error))?;
            }
            for &(name, _) in teller.programs() {
                let counter = program::<BtfTracePoint>(&mut ebpf, name)?;
                counter.attach().map_err(|error| refused(name, error))?;
            }
            traffic = Some(take_map(&mut ebpf, "TRAFFIC")?);
        }
        let watched = take_map(&mut ebpf, "WATCHED")?;
        Ok(Self { ebpf, watched, teller, traffic })
    }

    /// What the programs keep about a process; None if its pid is another's by now.
    fn entry(&self, key: ProcKey) -> Result<Option<Watched>, ObserveError> {
        match self.watched.get(&key.tgid, 0) {
            Ok(Plain(watched)) => Ok((watched.start_ns == key.start_ns).then_some(watched)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(source) => Err(map_error("WATCHED", source)),
        }
    }

    /// Whether an alarm runs for the process, now.
    fn alarm(&mut self, key: ProcKey) -> Result<Option<bool>, ObserveError> {
        let rows = dump(program::<Iter>(&mut self.ebpf, ALARM)?)?;
        let alarms = decode_alarms(&rows)?;
        Ok(alarms.into_iter().find(|(of, _)| *of == key).and_then(|(_, armed)| armed))
    }

    /// Fills in the traffic of every socket. False, and nothing filled in, if something was not counted.
    fn count(&self, key: ProcKey, watch: Watch, files: &mut [File]) -> Result<bool, ObserveError> {
        let Some(traffic) = &self.traffic else {
            return Ok(true);
        };
        let sockets = || (0..).zip(files.iter()).filter(|(_, file)| is_socket(&file.what));
        let mut told = Vec::new();
        for (index, file) in sockets() {
            let socket = SocketKey { inode: file.inode, watch: watch.number };
            let on_cpus = match traffic.get(&Plain(socket), 0) {
                Ok(values) => values.iter().map(|value| value.0).collect(),
                Err(MapError::KeyNotFound) => Vec::new(),
                Err(source) => return Err(map_error("TRAFFIC", source)),
            };
            told.push((index, sum(&on_cpus)));
        }
        // Asked last: what went uncounted until a socket was looked up is known by now.
        let whole = self.entry(key)?.is_some_and(|entry| entry.watch == watch.number && entry.dropped == 0);
        if !whole || self.missed()? != watch.missed {
            return Ok(false);
        }
        for (index, traffic) in told {
            let file: &mut File = &mut files[index];
            file.traffic = Some(traffic);
        }
        Ok(true)
    }

    /// How often the kernel left a counter out because it was running on that CPU already, which a kernel can do whose tracepoints
    /// are preempted.
    fn missed(&self) -> Result<u64, LoadError> {
        let programs = self.teller.map(Teller::programs).unwrap_or_default();
        programs.iter().map(|(name, _)| missed_by(&self.ebpf, name)).sum()
    }
}

/// Adds up what each CPU has seen.
fn sum(on_cpus: &[SocketTraffic]) -> Traffic {
    let mut all = Traffic::default();
    for cpu in on_cpus {
        all.sends += cpu.sent.count;
        all.sent += cpu.sent.bytes;
        all.receives += cpu.received.count;
        all.received += cpu.received.bytes;
        for (sent, half) in [(true, cpu.sent), (false, cpu.received)] {
            all.last = all.last.into_iter().chain(last_of(sent, half)).max_by_key(|operation| operation.at);
        }
    }
    all
}

fn last_of(sent: bool, half: Transfers) -> Option<Operation> {
    (half.count > 0).then_some(Operation { at: half.last_ns, sent, bytes: half.last_bytes })
}

/// Also one that the sampler could not resolve.
fn is_socket(what: &FileKind) -> bool {
    what.is_socket() || matches!(what, FileKind::Other(link) if link.starts_with("socket:"))
}

fn map_error(map: &'static str, source: MapError) -> ObserveError {
    ObserveError::Map { map, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_operation_is_the_latest_of_any_cpu() {
        let half = |count, bytes, last_ns, last_bytes| Transfers { count, bytes, last_ns, last_bytes };
        let cpus = [
            SocketTraffic { sent: half(2, 30, 50, 20), received: Transfers::default() },
            SocketTraffic { sent: half(1, 5, 70, 5), received: half(3, 12, 60, 4) },
        ];
        let last = Some(Operation { at: 70, sent: true, bytes: 5 });
        assert_eq!(sum(&cpus), Traffic { sends: 3, sent: 35, receives: 3, received: 12, last });
        assert_eq!(sum(&[]), Traffic::default());
    }

    #[test]
    fn a_socket_that_could_not_be_resolved_is_one_all_the_same() {
        assert!(is_socket(&FileKind::Other("socket:[17]".to_owned())));
        assert!(!is_socket(&FileKind::Other("/dev/null".to_owned())));
        assert!(!is_socket(&FileKind::Pipe));
    }
}
