//! The host that is made up, and a core that knows it.

use std::sync::Arc;

use reaper::core::ids::{Ns, ProcKey, SECOND};
use reaper::core::input::{Identified, Identity, Input};
use reaper::core::rules::Rules;
use reaper::kernel::decode::decode;

use super::records::Record;
use crate::bench::bed::{Bed, INIT, Image, exec, fork};

/// How many processes there are, and how many are a leader and who it forked.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) processes: u32,
    pub(super) pool: u32,
}

/// Who starts short-lived programs: the first of so many pools.
const SPAWNERS: u32 = 16;

/// Between two births, in nanoseconds: twenty thousand lives a second.
pub(super) const PAUSE: Ns = 50_000;

/// A core, and what /proc would say.
pub(super) struct Host {
    bed: Bed,
    shape: Shape,
}

impl Host {
    /// Everybody is alive, has been looked at, and is no news any more.
    pub(super) fn new(rules: &Arc<Rules>, shape: Shape) -> Self {
        let mut host = Self { bed: Bed::new(rules.clone()), shape };
        for process in 0..shape.processes {
            host.bed.now += PAUSE;
            let (key, leads) = (key(process), process % shape.pool == 0);
            let parent = if leads { INIT } else { host.leader_of(process) };
            host.take(&fork(host.bed.now, key, parent));
            if leads {
                host.take(&exec(host.bed.now, key, &image_of(process)));
            }
        }
        // Everybody is looked at once more when it is a second old.
        host.bed.now += 2 * SECOND;
        host.give(Input::Tick);
        assert_eq!(host.bed.core.tree().live_count(), shape.processes as usize + 1);
        assert!(host.bed.core.is_clear());
        host
    }

    pub(super) fn now(&self) -> Ns {
        self.bed.now
    }

    /// A process that starts others.
    pub(super) fn spawner(&self, number: u32) -> ProcKey {
        self.leader_of((number % SPAWNERS) * self.shape.pool % self.shape.processes)
    }

    /// The first pid that nobody has.
    pub(super) fn first_free_pid(&self) -> u32 {
        key(self.shape.processes).tgid
    }

    fn leader_of(&self, process: u32) -> ProcKey {
        key(process - process % self.shape.pool)
    }

    /// A record of the kernel programs.
    pub(super) fn take(&mut self, record: &Record) {
        let decoded = decode(record).unwrap();
        self.bed.now = decoded.at;
        self.give(decoded.input);
    }

    fn give(&mut self, input: Input) {
        let shape = self.shape;
        self.bed.give(input, |bed, key| identify(shape, bed.now, key));
    }
}

fn identify(shape: Shape, at: Ns, key: ProcKey) -> Identified {
    let Some(process) = key.tgid.checked_sub(FIRST).filter(|n| *n < shape.processes) else {
        return Identified::Gone;
    };
    let image = image_of(process - process % shape.pool);
    Identified::Alive(Identity {
        at,
        comm: image.comm.into(),
        argv: image.argv.iter().map(|argument| argument.as_str().into()).collect(),
        exe: image.filename.into(),
        uid: image.uid,
        ppid: 1,
        session: image.session,
        cgroups: vec!["/system.slice/collector.service".into()],
    })
}

/// The first pid that is not a kernel's own.
const FIRST: u32 = 1_000;

/// The first is as old as a process can be on a host that was just started.
fn key(process: u32) -> ProcKey {
    ProcKey { tgid: FIRST + process, start_ns: SECOND + u64::from(process + 1) * PAUSE }
}

fn image_of(leader: u32) -> Image {
    Image {
        comm: "collector",
        filename: "/usr/sbin/metrics-collector",
        argv: vec![
            "metrics-collector".into(),
            format!("--config=/etc/collector/{leader}.toml"),
            format!("--queue=default-{leader}"),
        ],
        uid: 33,
        session: FIRST + leader,
    }
}
