//! The kernel programs, from loaded to attached.
//!
//! They stay attached for as long as [`Probes`] lives; dropping it detaches them, unless they were loaded with
//! [`Probes::load_pinned`].

use std::fs::File;
use std::io;

use aya::Ebpf;
use aya::maps::{MapData, PerCpuArray, RingBuf};
use aya::programs::BtfTracePoint;
use aya::programs::links::{FdLink, PinnedLink};
use aya_log::EbpfLogger;

use super::events::{Events, watch};
use super::lineage::Lineage;
use super::load::{Kernel, LoadError, TRACEPOINTS, load, load_and_pin, program, refused, take_map};
use super::observer::Observer;
use super::pins::{Generation, Pins};
use super::stats::told_of_all;

/// The loaded programs.
#[derive(Debug)]
pub struct Probes {
    pub(super) ebpf: Ebpf,
    /// What the kernel tells of each program that tells of events.
    pub(super) told_of: Vec<File>,
    observer: Option<Observer>,
    pub(super) pinned: Option<Pinned>,
}

/// What outlives this process.
#[derive(Debug)]
pub(super) struct Pinned {
    pub(super) generation: Generation,
    /// Held, so that the programs stay attached if somebody removes the pins.
    links: Vec<PinnedLink>,
    pub(super) lineage: Lineage,
    /// There was something to go on with.
    pub(super) found: bool,
    /// What could not be taken up, in words.
    pub(super) refused: Option<String>,
}

impl Probes {
    /// Loads the programs, with a ring buffer of `ring_bytes` (rounded up to a power of two of at least a page).
    ///
    /// # Errors
    /// Every [`LoadError`] but those of maps.
    pub fn load(ring_bytes: u32) -> Result<Self, LoadError> {
        let (ebpf, observer) = load(Kernel::look()?, ring_bytes, None)?;
        let told_of = told_of_all(&ebpf)?;
        Ok(Self { ebpf, told_of, observer: Some(observer), pinned: None })
    }

    /// The same, and what is attached then stays attached when this process ends, and keeps every lineage: the next one to
    /// be loaded with these pins goes on with that. If what is pinned cannot be used it is removed, and
    /// [`Self::what_was_refused`] says so.
    ///
    /// # Errors
    /// Every [`LoadError`].
    pub fn load_pinned(ring_bytes: u32, pins: &Pins) -> Result<Self, LoadError> {
        // If this program can run on this host at all: what another one has left must outlive a try that was bound to fail.
        let kernel = Kernel::look()?;
        let (mut generation, mut found) = pins.begin()?;
        let mut refused = found.foreign.pop().map(|version| format!("{version} is another wire version"));
        let mut loaded = load_and_pin(kernel, ring_bytes, &generation);
        if let Err(error) = &loaded
            && found.lineage
        {
            refused = Some(error.to_string());
            pins.remove()?;
            (generation, found) = pins.begin()?;
            loaded = load_and_pin(Kernel::look()?, ring_bytes, &generation);
        }
        let (ebpf, observer, lineage) = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                // Nothing of an attempt is left, and nothing of a running agent's is touched.
                if let Err(e) = generation.abandon() {
                    tracing::error!("what was pinned by this try stays: {e}");
                }
                return Err(error);
            }
        };
        let pinned = Pinned { generation, links: Vec::new(), lineage, found: found.lineage, refused };
        let told_of = told_of_all(&ebpf)?;
        Ok(Self { ebpf, told_of, observer: Some(observer), pinned: Some(pinned) })
    }

    /// The observer of single processes. There is one: a second call gives none. It lives on its own.
    pub fn observer(&mut self) -> Option<Observer> {
        self.observer.take()
    }

    /// Attaches the programs: from here on the ring buffer fills. Take a snapshot afterwards, not before.
    ///
    /// # Errors
    /// [`LoadError::Program`] if the kernel refuses, or if they are attached already.
    pub fn attach(&mut self) -> Result<(), LoadError> {
        for (name, _) in TRACEPOINTS {
            let program = program::<BtfTracePoint>(&mut self.ebpf, name)?;
            let link = program.attach().map_err(|error| refused(name, error))?;
            if let Some(Pinned { generation, links, .. }) = &mut self.pinned {
                let link = FdLink::from(program.take_link(link).map_err(|error| refused(name, error))?);
                links.push(link.pin(generation.own(name)).map_err(|source| LoadError::Pin { name, source })?);
            }
        }
        Ok(())
    }

    /// The reading end of the ring buffer. There is one: a second call fails. Needs a running tokio runtime.
    ///
    /// # Errors
    /// [`LoadError::Map`] on a second call, [`LoadError::Watch`] if the runtime cannot watch the ring buffer.
    pub fn events(&mut self) -> Result<Events, LoadError> {
        let ring: RingBuf<MapData> = take_map(&mut self.ebpf, "EVENTS")?;
        let lost: PerCpuArray<MapData, u64> = take_map(&mut self.ebpf, "LOST")?;
        Events::new(ring, lost).map_err(LoadError::Watch)
    }

    /// A future that forwards what the programs have to say about rare errors, until it is dropped. There is one: a second
    /// call fails. Needs a running tokio runtime, and tracing set up before with its bridge from the crate `log`
    /// (tracing-subscriber's `init` does).
    ///
    /// # Errors
    /// [`LoadError::Map`] on a second call, [`LoadError::Watch`] if the runtime cannot watch the ring buffer. The future
    /// ends only if the runtime cannot watch it any more.
    pub fn forward_log(&mut self) -> Result<impl Future<Output = io::Result<()>> + Send + use<>, LoadError> {
        let logger = EbpfLogger::init(&mut self.ebpf)
            .map_err(|error| LoadError::Map { map: "AYA_LOGS", reason: error.to_string() })?;
        let mut logger = watch(logger).map_err(LoadError::Watch)?;
        Ok(async move {
            loop {
                let mut guard = logger.readable_mut().await?;
                guard.clear_ready();
                guard.get_inner_mut().flush();
            }
        })
    }
}
