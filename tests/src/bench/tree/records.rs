//! Short-lived programs, as records of the kernel programs.

use reaper::core::ids::{Ns, ProcKey};

use super::host::{Host, PAUSE};
use crate::bench::bed::{Image, exec, exit, fork};

/// The bytes of one.
pub(super) type Record = [u8];

/// So many programs run at once.
const AT_ONCE: u64 = 16;

/// Short-lived programs, one after the other.
pub(super) struct Stream {
    spawners: Vec<ProcKey>,
    first_pid: u32,
    now: Ns,
    born: u64,
    dead: u64,
    births: Vec<Ns>,
}

/// One after the other in one piece of memory, as in the ring buffer.
#[derive(Default)]
pub(super) struct Records {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Records {
    fn push(&mut self, record: &Record) {
        self.bytes.extend_from_slice(record);
        self.ends.push(self.bytes.len());
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Record> {
        let begins = [0].into_iter().chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, &end)| &self.bytes[begin..end])
    }
}

impl Stream {
    pub(super) fn new(host: &Host) -> Self {
        let spawners = (0..16).map(|n| host.spawner(n)).collect();
        let (first_pid, now) = (host.first_free_pid(), host.now());
        Self { spawners, first_pid, now, born: 0, dead: 0, births: Vec::new() }
    }

    /// So many programs: the records of their births and images, and as many deaths.
    pub(super) fn next(&mut self, lives: usize) -> Records {
        let mut records = Records::default();
        self.births.resize(AT_ONCE as usize, 0);
        for _ in 0..lives {
            self.now += PAUSE;
            if self.born - self.dead == AT_ONCE {
                records.push(&exit(self.now, self.key(self.dead)));
                self.dead += 1;
            }
            self.births[(self.born % AT_ONCE) as usize] = self.now;
            let (key, spawner) = (self.key(self.born), self.spawners[(self.born % 16) as usize]);
            records.push(&fork(self.now, key, spawner));
            records.push(&exec(self.now + PAUSE / 2, key, &image(self.born)));
            self.born += 1;
        }
        records
    }

    /// Pids come round, as on every host.
    fn key(&self, life: u64) -> ProcKey {
        let tgid = self.first_pid + u32::try_from(life % 20_000).unwrap();
        ProcKey { tgid, start_ns: self.births[(life % AT_ONCE) as usize] }
    }
}

fn image(life: u64) -> Image {
    let file = format!("/var/log/app/{life}.log");
    Image {
        comm: "gzip",
        filename: "/usr/bin/gzip",
        argv: vec!["gzip".into(), "-9".into(), file],
        uid: 0,
        session: 1,
    }
}
