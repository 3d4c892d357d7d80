//! What the benchmarks of the core lie on: a core that has seen its first dump, with whatever it asks answered at once, and records
//! as the kernel programs write them.

use std::sync::Arc;

use reaper::core::Core;
use reaper::core::effect::Effect;
use reaper::core::ids::{Ns, ProcKey, SECOND};
use reaper::core::input::{Identified, Input, Parent, Task};
use reaper::core::rules::Rules;
use reaper_common::{self as wire, COMM_LEN, adopter, kind};
use zerocopy::IntoBytes as _;

/// Pid 1.
pub const INIT: ProcKey = ProcKey { tgid: 1, start_ns: 1 };

/// A core and its time.
pub struct Bed {
    /// The core.
    pub core: Core,
    /// What it is told that the time is.
    pub now: Ns,
}

impl Bed {
    /// A core with these rules, a second after the boot: nobody but init is alive.
    pub fn new(rules: Arc<Rules>) -> Self {
        let mut bed = Self { core: Core::new(0), now: SECOND };
        let nobody = |_: &Self, _| Identified::Gone;
        let init = Task {
            key: INIT,
            parent: Parent::None,
            comm: "systemd".into(),
            uid: 0,
            session: 1,
            kernel_thread: false,
            reaper: true,
        };
        bed.give(Input::Configured { at: SECOND, rules, armed: Vec::new(), broken: Vec::new() }, nobody);
        bed.give(Input::Snapshot { at: SECOND, took_ns: 1, tasks: vec![init] }, nobody);
        bed.give(Input::Merged { at: SECOND }, nobody);
        bed
    }

    /// Gives it an input, and what `identify` says, as the agent would from /proc, of whomever it asks about.
    pub fn give(&mut self, input: Input, identify: impl Fn(&Self, ProcKey) -> Identified) {
        self.core.handle(self.now, input);
        while let Some(effect) = self.core.poll_effect() {
            if let Effect::Identify(key) = effect {
                let outcome = identify(self, key);
                self.core.handle(self.now, Input::Identified { key, outcome });
            }
        }
    }
}

/// What is executed.
pub struct Image {
    /// Its name.
    pub comm: &'static str,
    /// The file.
    pub filename: &'static str,
    /// With what.
    pub argv: Vec<String>,
    /// By whom.
    pub uid: u32,
    /// In which session.
    pub session: u32,
}

fn header(kind: u32, at: Ns) -> wire::Header {
    wire::Header { kind, boot_ns: at, ..wire::Header::default() }
}

fn proc_of(key: ProcKey) -> wire::Proc {
    wire::Proc { tgid: key.tgid, start_ns: key.start_ns, ..wire::Proc::default() }
}

fn comm_of(name: &str) -> [u8; COMM_LEN] {
    let mut comm = [0; COMM_LEN];
    comm[..name.len()].copy_from_slice(name.as_bytes());
    comm
}

/// A birth. The child has its parent's name until it execs.
pub fn fork(at: Ns, child: ProcKey, parent: ProcKey) -> Vec<u8> {
    let record = wire::Fork {
        header: header(kind::FORK, at),
        child: proc_of(child),
        parent: proc_of(parent),
        comm: comm_of("collector"),
        uid: 33,
        sid: parent.tgid,
        ..wire::Fork::default()
    };
    record.as_bytes().to_vec()
}

/// A new image.
pub fn exec(at: Ns, key: ProcKey, image: &Image) -> Vec<u8> {
    let argv: Vec<u8> = image.argv.iter().flat_map(|argument| argument.bytes().chain([0])).collect();
    let record = wire::Exec {
        header: header(kind::EXEC, at),
        proc: proc_of(key),
        comm: comm_of(image.comm),
        uid: image.uid,
        sid: image.session,
        filename_len: u16::try_from(image.filename.len()).unwrap(),
        argv_len: u16::try_from(argv.len()).unwrap(),
        ..wire::Exec::default()
    };
    let mut bytes = record.as_bytes().to_vec();
    bytes.extend_from_slice(image.filename.as_bytes());
    bytes.extend_from_slice(&argv);
    bytes
}

/// A death; init adopts the children.
pub fn exit(at: Ns, key: ProcKey) -> Vec<u8> {
    let record = wire::Exit {
        header: header(kind::EXIT, at),
        proc: proc_of(key),
        adopter: proc_of(INIT),
        adopter_kind: adopter::KNOWN,
        comm: comm_of("gzip"),
        ..wire::Exit::default()
    };
    record.as_bytes().to_vec()
}
