//! What the kernel has kept for an agent that did not run: the map of lineages, and what lies unread in the ring buffers of
//! the agents before this one.
//!
//! Births, images and deaths come from the map, which has them whether or not a ring buffer overflowed. What only the ring
//! buffer tells is who was asked to stop.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use aya::maps::{HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues, RingBuf};
use aya::util::nr_cpus;
use reaper_common as wire;
use reaper_common::lineage::{Birth as Entry, LINEAGE, UNKEPT};
use rustc_hash::{FxHashMap, FxHashSet};

use super::decode::{Decoded, decode, key};
use super::load::{LoadError, TRACEPOINTS};
use super::pins::{self, Generation};
use super::plain::Plain;
use super::probes::{Pinned, Probes};
use crate::core::ids::{Ns, ProcKey};
use crate::core::input::{Birth, Death, Input};

/// What was kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kept {
    /// Everybody alive and their dead ancestors, in no particular order.
    pub births: Vec<Birth>,
    /// Who was asked to stop, oldest first: [`Input::SignalSeen`].
    pub asked: Vec<Input>,
    /// What could not be kept: births that found no room in the map, and records that found none in a ring buffer.
    pub lost: u64,
    /// When the oldest record was written that no agent has read; `None` if every one was read.
    pub unread_since: Option<Ns>,
}

/// The map, and the counter of what it could not take.
pub(super) struct Lineage {
    births: HashMap<MapData, Plain<wire::Proc>, Plain<Entry>>,
    unkept: PerCpuArray<MapData, u64>,
}

/// What an older generation has left unread.
pub(super) struct Unread {
    ring: RingBuf<MapData>,
    counters: PerCpuArray<MapData, u64>,
}

impl fmt::Debug for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The map of each CPU's values cannot show itself.
        f.debug_struct("Lineage").field("births", &self.births).finish_non_exhaustive()
    }
}

impl Lineage {
    pub(super) fn new(
        births: HashMap<MapData, Plain<wire::Proc>, Plain<Entry>>,
        unkept: PerCpuArray<MapData, u64>,
    ) -> Self {
        Self { births, unkept }
    }

    /// Every entry.
    pub(super) fn births(&self) -> Result<Vec<Birth>, LoadError> {
        self.births
            .iter()
            .map(|entry| entry.map(|(Plain(process), Plain(birth))| decoded(process, &birth)))
            .collect::<Result<_, _>>()
            .map_err(|e| refused(LINEAGE, &e))
    }

    /// Births that found no room since this was last asked.
    pub(super) fn take_unkept(&mut self) -> Result<u64, LoadError> {
        let error = |e: MapError| refused(UNKEPT, &e);
        let count = self.unkept.get(&0, 0).map_err(error)?.iter().sum();
        if count > 0 {
            let cpus = nr_cpus()
                .map_err(|(path, e)| LoadError::Map { map: UNKEPT, reason: format!("{path}: {e}") })?;
            let zeros = PerCpuValues::try_from(vec![0; cpus])
                .map_err(|e| LoadError::Map { map: UNKEPT, reason: e.to_string() })?;
            self.unkept.set(0, zeros, 0).map_err(error)?;
        }
        Ok(count)
    }

    /// Clears away who is dead and in nobody's lineage: what was left over when more than a few could go at once, or when the
    /// programs were not attached for a while. `births` was read with them attached, `live` is everybody who is alive after that.
    pub(super) fn clear(&mut self, births: &[Birth], live: FxHashSet<ProcKey>) -> Result<(), LoadError> {
        let mut needed = live;
        for Birth { key, .. } in births.iter().filter(|birth| birth.death.is_none()) {
            // Who has died since is counted by the programs, which were told. Who died while there were none counts as alive for ever.
            if !needed.contains(key) && !self.is_alive(*key)? {
                needed.insert(*key);
            }
        }
        for gone in superfluous(births, needed) {
            match self.births.remove(&wire_key(gone)) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(e) => return Err(refused(LINEAGE, &e)),
            }
        }
        Ok(())
    }

    /// Whether there is an entry that knows of no death.
    fn is_alive(&self, key: ProcKey) -> Result<bool, LoadError> {
        match self.births.get(&wire_key(key), 0) {
            Ok(Plain(entry)) => Ok(entry.died_at == 0),
            Err(MapError::KeyNotFound) => Ok(false),
            Err(e) => Err(refused(LINEAGE, &e)),
        }
    }
}

impl Unread {
    /// Opens what is pinned in its folder.
    pub(super) fn open(folder: &Path) -> Result<Self, LoadError> {
        let open = |map, name| MapData::from_pin(folder.join(name)).map_err(|e| refused(map, &e));
        let ring = RingBuf::try_from(Map::RingBuf(open("EVENTS", pins::RING)?));
        let counters = PerCpuArray::try_from(Map::PerCpuArray(open("LOST", pins::LOST)?));
        Ok(Self {
            ring: ring.map_err(|e| refused("EVENTS", &e))?,
            counters: counters.map_err(|e| refused("LOST", &e))?,
        })
    }

    /// Reads it to its end, once nobody writes any more.
    pub(super) fn read(mut self, kept: &mut Kept) -> Result<(), LoadError> {
        // What its agent has told of stands in the first record of each CPU that it did not read.
        let mut told: BTreeMap<usize, u64> = BTreeMap::new();
        while let Some(record) = self.ring.next() {
            match decode(&record) {
                Ok(Decoded { cpu, lost, at, input }) => {
                    kept.unread_since = Some(kept.unread_since.map_or(at, |since| since.min(at)));
                    told.entry(cpu as usize).or_insert(lost);
                    if matches!(input, Input::SignalSeen { .. }) {
                        kept.asked.push(input);
                    }
                }
                Err(e) => {
                    tracing::warn!("a record of an earlier agent's programs cannot be understood: {e}");
                    kept.lost += 1;
                }
            }
        }
        let counters = self.counters.get(&0, 0).map_err(|e| refused("LOST", &e))?;
        let lost = |(cpu, &lost): (usize, &u64)| lost.saturating_sub(told.get(&cpu).copied().unwrap_or(0));
        kept.lost += counters.iter().enumerate().map(lost).sum::<u64>();
        Ok(())
    }
}

impl Probes {
    /// What the kernel has kept while no agent ran, `None` if nothing was. To be called once, after the programs were attached:
    /// those of the agents before are detached now. Take a snapshot afterwards.
    ///
    /// # Errors
    /// [`LoadError::Map`] and [`LoadError::Pins`]: then it is not known what happened meanwhile.
    pub fn take_over(&mut self) -> Result<Option<Kept>, LoadError> {
        let Some(Pinned { generation, lineage, found, .. }) = &mut self.pinned else { return Ok(None) };
        let mut kept = Kept::default();
        for older in generation.older()? {
            // An agent that died before it had pinned everything has left no ring buffer to read.
            let unread = if Generation::is_whole(&older) { Unread::open(&older).map(Some) } else { Ok(None) };
            for (program, _) in TRACEPOINTS {
                pins::remove_if_there(&older.join(program))?;
            }
            // Nobody writes any more, but for a program that is running at this moment.
            if let Some(unread) = unread? {
                unread.read(&mut kept)?;
            }
            pins::remove(&older)?;
        }
        kept.lost += lineage.take_unkept()?;
        if !*found {
            return Ok(None);
        }
        kept.births = lineage.births()?;
        Ok(Some(kept))
    }

    /// Clears away of what is kept whatever nobody needs: neither alive, nor an ancestor of somebody who is. `births` is what
    /// [`Self::take_over`] gave, and `live` everybody who is alive now.
    ///
    /// # Errors
    /// [`LoadError::Map`].
    pub fn clear_kept(
        &mut self,
        births: &[Birth],
        live: impl IntoIterator<Item = ProcKey>,
    ) -> Result<(), LoadError> {
        match &mut self.pinned {
            Some(Pinned { lineage, .. }) => lineage.clear(births, live.into_iter().collect()),
            None => Ok(()),
        }
    }

    /// Whether what is attached stays attached when this process ends.
    pub fn is_pinned(&self) -> bool {
        self.pinned.is_some()
    }

    /// What was pinned and could not be taken up, and why.
    pub fn what_was_refused(&self) -> Option<&str> {
        self.pinned.as_ref()?.refused.as_deref()
    }
}

fn refused(map: &'static str, error: &MapError) -> LoadError {
    LoadError::Map { map, reason: error.to_string() }
}

fn decoded(process: wire::Proc, entry: &Entry) -> Birth {
    Birth {
        key: key(process),
        parent: (entry.parent.tgid != 0).then(|| key(entry.parent)),
        birth_session: entry.birth_session,
        exec_at: entry.exec_at,
        exec_session: entry.exec_session,
        execed: entry.execed != 0,
        dumped: entry.dumped != 0,
        death: (entry.died_at != 0).then_some(Death { at: entry.died_at, status: entry.status }),
    }
}

fn wire_key(key: ProcKey) -> Plain<wire::Proc> {
    Plain(wire::Proc { start_ns: key.start_ns, tgid: key.tgid, _pad: 0 })
}

/// Who is neither needed nor an ancestor of somebody who is.
fn superfluous(births: &[Birth], mut needed: FxHashSet<ProcKey>) -> Vec<ProcKey> {
    let book: FxHashMap<ProcKey, &Birth> = births.iter().map(|b| (b.key, b)).collect();
    for mut key in needed.clone() {
        while let Some(parent) = book.get(&key).and_then(|b| b.parent)
            && needed.insert(parent)
        {
            key = parent;
        }
    }
    births.iter().map(|b| b.key).filter(|key| !needed.contains(key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nobody() -> Birth {
        decoded(wire::Proc::default(), &Entry::default())
    }

    fn birth(tgid: u32, parent: u32) -> Birth {
        let key = |tgid| ProcKey { tgid, start_ns: u64::from(tgid) };
        Birth { key: key(tgid), parent: (parent > 0).then(|| key(parent)), ..nobody() }
    }

    #[test]
    fn ancestors_of_the_living_are_needed() {
        let births = [birth(1, 0), birth(2, 1), birth(3, 2), birth(4, 2), birth(5, 4), birth(9, 4)];
        let alive = |numbers: &[usize]| numbers.iter().map(|&n| births[n].key).collect();
        assert_eq!(superfluous(&births, alive(&[0, 2])), [births[3].key, births[4].key, births[5].key]);
        assert_eq!(superfluous(&births, alive(&[0, 2, 5])), [births[4].key]);
    }

    #[test]
    fn an_entry_says_what_the_programs_saw() {
        let process = wire::Proc { start_ns: 5, tgid: 4, _pad: 0 };
        let parent = wire::Proc { start_ns: 3, tgid: 2, _pad: 0 };
        let entry = Entry {
            parent,
            exec_at: 7,
            exec_session: 2,
            execed: 1,
            died_at: 9,
            status: 256,
            ..Entry::default()
        };
        let expected = Birth {
            key: ProcKey { tgid: 4, start_ns: 5 },
            parent: Some(ProcKey { tgid: 2, start_ns: 3 }),
            exec_at: 7,
            exec_session: 2,
            execed: true,
            death: Some(Death { at: 9, status: 256 }),
            ..nobody()
        };
        assert_eq!(decoded(process, &entry), expected);
        assert_eq!(decoded(process, &Entry::default()).parent, None);
    }
}
