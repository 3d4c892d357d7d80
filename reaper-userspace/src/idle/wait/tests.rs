//! Calls with made-up arguments, memory and epoll descriptors. Real ones are in `idle/tests.rs`.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::core::ids::SECOND;

/// A process made up for the test.
#[derive(Default)]
struct Fake {
    memory: BTreeMap<u64, Vec<u8>>,
    epolls: BTreeMap<i32, Vec<Waited>>,
}

impl Place for Fake {
    fn memory(&self, at: u64, into: &mut [u8]) -> Result<(), String> {
        let bytes = self.memory.get(&at).filter(|b| b.len() >= into.len());
        into.copy_from_slice(&bytes.ok_or("no such memory")?[..into.len()]);
        Ok(())
    }

    fn epoll(&self, fd: i32) -> Result<Option<Vec<Target>>, String> {
        let target = |w: &Waited| Target { waited: *w, inode: 1, device: 1 };
        Ok(self.epolls.get(&fd).map(|t| t.iter().map(target).collect()))
    }

    fn patience(&self, fd: i32) -> Result<Option<Ns>, String> {
        Ok((fd == 99).then_some(SECOND))
    }
}

impl Fake {
    fn wait(&self, nr: u64, args: [u64; 6]) -> Wait {
        let call = Blocked { nr, args, sp: 0, pc: 0 };
        resolve(Arch::X86_64, &call, self).expect("not a restart").wait
    }
}

fn input(fd: i32) -> Waited {
    Waited { fd, interest: Interest::Input }
}

fn files(fds: &[i32], timeout: Option<Ns>) -> Wait {
    Wait::Files { fds: fds.to_vec(), timeout }
}

fn pollfds(entries: &[(i32, u16)]) -> Vec<u8> {
    entries.iter().flat_map(|(fd, ev)| [&fd.to_ne_bytes()[..], &ev.to_ne_bytes(), &[0, 0]].concat()).collect()
}

fn time(seconds: i64, rest: i64) -> Vec<u8> {
    [seconds.to_ne_bytes(), rest.to_ne_bytes()].concat()
}

const FOREVER: u64 = u64::MAX;

#[test]
fn one_descriptor() {
    let fake = Fake::default();
    for nr in [0, 19, 43, 45, 47, 288, 299] {
        assert_eq!(fake.wait(nr, [5, 1, 1, 1, 1, 1]), files(&[5], None), "{nr}");
        assert_eq!(fake.wait(nr, [99, 1, 1, 1, 1, 1]), files(&[99], Some(SECOND)), "{nr}");
    }
}

#[test]
fn poll_takes_those_that_bring_something() {
    let memory = [
        (0x10, pollfds(&[(9, 1), (-3, 1), (4, 1), (4, 1)])),
        (0x20, pollfds(&[(9, 1), (4, 4)])),
        (0x30, pollfds(&[(9, 0)])),
        (0x40, pollfds(&[(-1, 1)])),
        (0x50, time(2, 500)),
        (0x60, pollfds(&[(9, 1), (8, 0)])),
    ];
    let fake = Fake { memory: memory.into(), ..Fake::default() };
    assert_eq!(fake.wait(7, [0x10, 4, 1_500, 0, 0, 0]), files(&[4, 9], Some(1_500 * MS)));
    assert_eq!(fake.wait(7, [0x10, 4, FOREVER, 0, 0, 0]), files(&[4, 9], None));
    assert_eq!(fake.wait(7, [0x10, 4, 0xffff_ffff, 0, 0, 0]), files(&[4, 9], None), "an int of -1");
    assert_eq!(fake.wait(271, [0x10, 4, 0x50, 0, 0, 0]), files(&[4, 9], Some(2 * SECOND + 500)));
    assert_eq!(fake.wait(7, [0x20, 2, FOREVER, 0, 0, 0]), Wait::Other, "stuck in writing");
    assert_eq!(fake.wait(7, [0x30, 1, 100, 0, 0, 0]), Wait::Other, "only a hang-up wakes it");
    assert_eq!(fake.wait(7, [0x60, 2, 100, 0, 0, 0]), files(&[9], Some(100 * MS)));
    let sleep = Wait::Sleep { length: Some(100 * MS) };
    assert_eq!(fake.wait(7, [0x40, 1, 100, 0, 0, 0]), sleep);
    assert_eq!(fake.wait(7, [0, 0, 100, 0, 0, 0]), sleep);
    assert_eq!(fake.wait(7, [0, 0, FOREVER, 0, 0, 0]), files(&[], None));
}

#[test]
fn what_cannot_be_read_is_unknown() {
    let fake = Fake { memory: [(0x10, time(-1, 0))].into(), ..Fake::default() };
    for (nr, args) in [
        (7, [0x99, 1, 0, 0, 0, 0]),
        (7, [0x99, MOST as u64 + 1, 0, 0, 0, 0]),
        (7, [0x99, u64::MAX, 0, 0, 0, 0]),
        (23, [1024, 0x99, 0, 0, 0, 0]),
        (23, [0xffff_ffff_8000_0000, 0x99, 0, 0, 0, 0]),
        (35, [0x10, 0, 0, 0, 0, 0]),
        (35, [0x99, 0, 0, 0, 0, 0]),
        (232, [3, 0, 0, 0, 0, 0]),
        (441, [3, 0, 0, 0x99, 0, 0]),
    ] {
        assert!(matches!(fake.wait(nr, args), Wait::Unknown(_)), "{nr} {args:?}");
    }
}

#[test]
fn select_takes_its_sets() {
    let (mut read, mut written) = (vec![0u8; 8], vec![0u8; 8]);
    read[0] = 0b0010_1000;
    written[1] = 1;
    let memory = [(0x10, read), (0x20, written), (0x30, time(1, 500_000)), (0x40, vec![0; 8])];
    let fake = Fake { memory: memory.into(), ..Fake::default() };
    assert_eq!(fake.wait(23, [10, 0x10, 0, 0, 0x30, 0]), files(&[3, 5], Some(1_500 * MS)));
    assert_eq!(fake.wait(270, [10, 0x10, 0, 0, 0x30, 0]), files(&[3, 5], Some(SECOND + 500_000)));
    assert_eq!(fake.wait(270, [10, 0x10, 0x20, 0, 0, 0]), Wait::Other);
    assert_eq!(fake.wait(270, [10, 0x10, 0x40, 0x10, 0, 0]), files(&[3, 5], None), "nobody to write to");
    assert_eq!(fake.wait(270, [10, 0, 0, 0x10, 0, 0]), Wait::Other, "only exceptions");
    assert_eq!(fake.wait(23, [0, 0, 0, 0, 0x30, 0]), Wait::Sleep { length: Some(1_500 * MS) });
}

#[test]
fn epoll_is_replaced_by_its_targets() {
    let out = Waited { fd: 6, interest: Interest::Output };
    let epolls = [
        (3, vec![input(5), input(4)]),
        (10, vec![input(3), input(7)]),
        (11, vec![input(10)]),
        (12, vec![input(11)]),
        (13, vec![input(12)]),
        (14, vec![input(13)]),
        (20, vec![input(5), out]),
        (21, vec![]),
    ];
    let memory = [(0x10, pollfds(&[(10, 1)])), (0x20, time(1, 0))];
    let fake = Fake { memory: memory.into(), epolls: epolls.into() };
    assert_eq!(fake.wait(232, [3, 0, 0, 1_000, 0, 0]), files(&[4, 5], Some(SECOND)));
    assert_eq!(fake.wait(281, [10, 0, 0, FOREVER, 0, 0]), files(&[4, 5, 7], None));
    assert_eq!(fake.wait(441, [3, 0, 0, 0x20, 0, 0]), files(&[4, 5], Some(SECOND)));
    assert_eq!(fake.wait(7, [0x10, 1, FOREVER, 0, 0, 0]), files(&[4, 5, 7], None), "polled from outside");
    assert_eq!(fake.wait(232, [13, 0, 0, FOREVER, 0, 0]), files(&[4, 5, 7], None), "four deep");
    assert!(matches!(fake.wait(232, [14, 0, 0, FOREVER, 0, 0]), Wait::Unknown(_)), "five deep");
    assert_eq!(fake.wait(232, [20, 0, 0, FOREVER, 0, 0]), Wait::Other, "it wants to write");
    assert_eq!(fake.wait(232, [21, 0, 0, 50, 0, 0]), Wait::Sleep { length: Some(50 * MS) });
}

#[test]
fn sleeps_futexes_children_and_the_rest() {
    let memory = [(0x10, time(3, 0))];
    let fake = Fake { memory: memory.into(), ..Fake::default() };
    assert_eq!(fake.wait(35, [0x10, 0, 0, 0, 0, 0]), Wait::Sleep { length: Some(3 * SECOND) });
    assert_eq!(fake.wait(230, [0, 0, 0x10, 0, 0, 0]), Wait::Sleep { length: Some(3 * SECOND) });
    assert_eq!(fake.wait(230, [1, 1, 0x10, 0, 0, 0]), Wait::Sleep { length: None }, "until a point in time");
    assert_eq!(fake.wait(202, [0x10, 0x80, 0, 0, 0, 0]), Wait::Futex { timed: false });
    assert_eq!(fake.wait(202, [0x10, 0x189, 0, 0x10, 0, 0]), Wait::Futex { timed: true });
    assert_eq!(fake.wait(202, [0x10, 1, 0, 0, 0, 0]), Wait::Other, "waking somebody");
    assert_eq!(fake.wait(449, [0x10, 1, 0, 0x10, 0, 0]), Wait::Futex { timed: true });
    assert_eq!(fake.wait(61, [0; 6]), Wait::Child);
    assert_eq!(fake.wait(34, [0; 6]), files(&[], None));
    for nr in [1, 42, 44, 72, 73, 128, 426, 9_999, 0x4000_0000] {
        assert_eq!(fake.wait(nr, [0; 6]), Wait::Other, "{nr}");
    }
    let restart = Blocked { nr: 219, args: [0; 6], sp: 0, pc: 0 };
    assert_eq!(resolve(Arch::X86_64, &restart, &fake), None);
}

#[test]
fn tells_where_the_kernel_writes_what_is_left() {
    let memory = [(0x10, time(3, 0)), (0x40, vec![0; 8])];
    let fake = Fake { memory: memory.into(), ..Fake::default() };
    let overwritten = |nr, args| {
        let call = Blocked { nr, args, sp: 0, pc: 0 };
        resolve(Arch::X86_64, &call, &fake).expect("not a restart").time_is_overwritten
    };
    assert!(overwritten(35, [0x10, 0x10, 0, 0, 0, 0]), "sleep(3)");
    assert!(overwritten(230, [0, 0, 0x10, 0x18, 0, 0]), "overlapping");
    assert!(!overwritten(35, [0x10, 0, 0, 0, 0, 0]), "usleep(3)");
    assert!(overwritten(271, [0, 0, 0x10, 0, 0, 0]));
    assert!(overwritten(270, [0, 0, 0, 0, 0x10, 0]));
    assert!(!overwritten(7, [0, 0, 5, 0, 0, 0]), "in a register");
}

proptest! {
    #[test]
    fn never_panics(
        nr in 0u64..500,
        args in proptest::array::uniform6(prop_oneof![0u64..70, Just(u64::MAX), any::<u64>()]),
        bytes in proptest::collection::vec(any::<u8>(), 512),
        arm in any::<bool>(),
    ) {
        let memory = (0..70).map(|at| (at, bytes.clone())).collect();
        let fake = Fake { memory, epolls: [(5, vec![input(6)]), (6, vec![input(5)])].into() };
        let arch = if arm { Arch::Aarch64 } else { Arch::X86_64 };
        let _ = resolve(arch, &Blocked { nr, args, sp: 0, pc: 0 }, &fake);
    }
}
