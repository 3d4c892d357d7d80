//! The scenes. Each is played in a child of the forker, so that whatever it does to itself (threads, namespaces, subreaper)
//! ends with it. With `hold` somebody of it stays alive; all others come to an end by themselves.

use crate::sys::{self, Rng, Storm, doze, real_pid};

/// One scene.
type Scene = fn(&Storm, &mut Rng, bool) -> i32;

/// Each with how often it is played, relative to the others.
const SCENES: [(u64, Scene); 15] = [
    (20, leaf),
    (12, brood),
    (10, programs),
    (10, double_fork),
    (10, orphans_of_a_middle),
    (8, nested_subreapers),
    (8, leader_first),
    (6, exec_of_a_thread),
    (6, forks_of_threads),
    (3, namespace),
    (2, namespace_cut_off),
    (2, namespace_that_dies),
    (8, siblings),
    (4, siblings_of_an_orphan),
    (1, deep),
];

/// Starts a scene at random; the pid of whoever plays it.
pub(crate) fn play(storm: &Storm, rng: &mut Rng, hold: bool) -> i32 {
    let mut ticket = rng.below(SCENES.iter().map(|(weight, _)| weight).sum());
    let (_, scene) = SCENES
        .iter()
        .find(|(weight, _)| {
            let found = ticket < *weight;
            ticket = ticket.wrapping_sub(*weight);
            found
        })
        .unwrap();
    let mut rng = rng.split();
    storm.fork(move || scene(storm, &mut rng, hold))
}

/// Somebody without children.
fn leaf(storm: &Storm, rng: &mut Rng, hold: bool) -> i32 {
    if hold && rng.one_in(2) {
        storm.exec_hold();
    }
    if hold {
        return storm.hold();
    }
    match rng.below(8) {
        0 => sys::become_true(),
        1 => sys::die(),
        2..=4 => {
            doze(rng, 3_000);
            7
        }
        _ => 0,
    }
}

/// Many children at once.
fn brood(storm: &Storm, rng: &mut Rng, hold: bool) -> i32 {
    for _ in 0..=rng.below(6) {
        let mut rng = rng.split();
        storm.fork(|| leaf(storm, &mut rng, hold));
    }
    sys::wait_all()
}

/// Each way to start another program.
fn programs(storm: &Storm, rng: &mut Rng, hold: bool) -> i32 {
    for _ in 0..=rng.below(3) {
        match rng.below(4) {
            0 => storm.vfork(true),
            1 => storm.vfork(false),
            2 => storm.spawn(),
            _ => storm.fork(|| if hold { storm.exec_hold() } else { sys::become_true() }),
        };
    }
    sys::wait_all()
}

/// How programs daemonise: the parent is gone at once.
fn double_fork(storm: &Storm, rng: &mut Rng, hold: bool) -> i32 {
    let parent = real_pid();
    for _ in 0..=rng.below(3) {
        storm.fork(|| storm.watch(parent, 1, hold));
    }
    doze(rng, 1_000);
    0
}

/// A middle process dies, and its children go to whoever plays the scene if that is a subreaper, else further up.
fn orphans_of_a_middle(storm: &Storm, rng: &mut Rng, hold: bool) -> i32 {
    if rng.one_in(2) {
        sys::become_subreaper();
    }
    let mut inner = rng.split();
    storm.fork(|| middle(storm, &mut inner, 1, hold));
    sys::wait_all()
}

/// Forks some who will be orphaned `times` times, and exits.
fn middle(storm: &Storm, rng: &mut Rng, times: u32, hold: bool) -> i32 {
    let parent = real_pid();
    for _ in 0..=rng.below(3) {
        storm.fork(|| storm.watch(parent, times, hold));
    }
    doze(rng, 1_000);
    if rng.one_in(4) { sys::die() } else { 0 }
}

/// Subreapers below each other die one after the other, from below or from above.
fn nested_subreapers(storm: &Storm, rng: &mut Rng, hold: bool) -> i32 {
    fn level(storm: &Storm, rng: &mut Rng, left: u32, hold: bool) -> i32 {
        sys::become_subreaper();
        let mut inner = rng.split();
        if left == 0 {
            storm.fork(|| middle(storm, &mut inner, 2, hold));
        } else {
            storm.fork(|| level(storm, &mut inner, left - 1, hold));
        }
        doze(rng, 2_000);
        0
    }
    level(storm, rng, 2, hold)
}

/// The leader is gone while other threads live on, fork, and go as well.
fn leader_first(storm: &Storm, rng: &mut Rng, hold: bool) -> i32 {
    std::thread::scope(|scope| {
        for _ in 0..=rng.below(3) {
            let mut rng = rng.split();
            scope.spawn(move || {
                doze(&mut rng, 1_000);
                if rng.one_in(2) {
                    let parent = real_pid();
                    storm.fork(|| storm.watch(parent, 1, hold));
                    doze(&mut rng, 1_000);
                }
                if hold && rng.one_in(2) {
                    storm.hold();
                }
                if rng.one_in(4) {
                    sys::exit_now(5);
                }
                sys::exit_thread();
            });
        }
        sys::exit_thread()
    })
}

/// An exec by another thread than the leader, which the kernel kills for it.
fn exec_of_a_thread(storm: &Storm, rng: &mut Rng, hold: bool) -> i32 {
    let parent = real_pid();
    if rng.one_in(2) {
        storm.fork(|| storm.watch(parent, 1, hold));
    }
    let leader_first = rng.one_in(3);
    std::thread::scope(|scope| {
        for executes in [false, true] {
            let mut rng = rng.split();
            scope.spawn(move || {
                if !executes {
                    storm.hold();
                }
                doze(&mut rng, 500);
                if hold { storm.exec_hold() } else { sys::become_true() }
            });
        }
        if leader_first {
            sys::exit_thread();
        }
        storm.hold()
    })
}

/// Threads fork and end before their process does: their children go to another thread of it, which is no reparenting.
fn forks_of_threads(storm: &Storm, rng: &mut Rng, hold: bool) -> i32 {
    let parent = real_pid();
    let threads: Vec<_> = (0..=rng.below(3)).map(|_| rng.split()).collect();
    std::thread::scope(|scope| {
        for mut rng in threads {
            scope.spawn(move || {
                for _ in 0..=rng.below(2) {
                    let mut rng = rng.split();
                    if rng.one_in(2) {
                        storm.fork(|| storm.watch(parent, 1, hold));
                    } else {
                        storm.fork(|| leaf(storm, &mut rng, false));
                    }
                }
                doze(&mut rng, 500);
            });
        }
    });
    doze(rng, 1_000);
    0
}

/// A pid namespace whose pid 1 adopts, and a child of an outsider in it.
fn namespace(storm: &Storm, rng: &mut Rng, hold: bool) -> i32 {
    sys::new_pid_namespace();
    let (mut init_rng, outside) = (rng.split(), real_pid());
    storm.fork(|| {
        let mut inner = init_rng.split();
        storm.fork(|| middle(storm, &mut inner, 1, hold));
        storm.fork(|| orphans_of_a_middle(storm, &mut init_rng, hold));
        sys::wait_all()
    });
    let second = rng.one_in(2);
    if second {
        storm.fork(|| storm.watch(outside, 1, hold));
    }
    if second || rng.one_in(2) {
        doze(rng, 2_000);
        return 0;
    }
    sys::wait_all()
}

/// Whoever made the namespace dies: its pid 1 is an orphan outside, and an adopter inside. A second one is in it.
fn namespace_cut_off(storm: &Storm, rng: &mut Rng, hold: bool) -> i32 {
    sys::new_pid_namespace();
    let (mut inner, outside) = (rng.split(), real_pid());
    storm.fork(|| {
        sys::new_pid_namespace();
        let mut innermost = inner.split();
        storm.fork(|| namespace_init(storm, &mut innermost, hold));
        storm.watch(outside, 1, hold)
    });
    doze(rng, 2_000);
    0
}

fn namespace_init(storm: &Storm, rng: &mut Rng, hold: bool) -> i32 {
    let mut inner = rng.split();
    storm.fork(|| middle(storm, &mut inner, 1, hold));
    sys::wait_all()
}

/// Pid 1 of a namespace dies, and the kernel kills everybody in it.
fn namespace_that_dies(storm: &Storm, rng: &mut Rng, hold: bool) -> i32 {
    sys::new_pid_namespace();
    storm.fork(|| {
        for _ in 0..=rng.below(3) {
            let mut rng = rng.split();
            storm.fork(|| {
                let mut inner = rng.split();
                storm.fork(|| middle(storm, &mut inner, 1, true));
                doze(&mut rng, 2_000);
                if rng.one_in(2) { 0 } else { storm.hold() }
            });
        }
        doze(rng, 2_000);
        0
    });
    sys::wait_all();
    leaf(storm, rng, hold)
}

/// CLONE_PARENT: the children of a child are its siblings, and stay so when it dies.
fn siblings(storm: &Storm, rng: &mut Rng, hold: bool) -> i32 {
    let mut inner = rng.split();
    storm.fork(|| {
        for _ in 0..=inner.below(3) {
            let mut rng = inner.split();
            storm.fork_sibling(|| leaf(storm, &mut rng, hold));
        }
        0
    });
    sys::wait_all()
}

/// CLONE_PARENT by a process whose parent dies at that moment.
fn siblings_of_an_orphan(storm: &Storm, rng: &mut Rng, hold: bool) -> i32 {
    let mut inner = rng.split();
    storm.fork(|| {
        for _ in 0..=inner.below(5) {
            let mut rng = inner.split();
            storm.fork_sibling(|| leaf(storm, &mut rng, hold));
        }
        if hold { storm.hold() } else { 0 }
    });
    doze(rng, 600);
    0
}

/// Further below a subreaper than the programs look: /proc has to tell who adopts.
fn deep(storm: &Storm, rng: &mut Rng, hold: bool) -> i32 {
    fn chain(storm: &Storm, left: u32, hold: bool) -> i32 {
        let parent = real_pid();
        if left == 0 {
            storm.fork(|| storm.watch(parent, 1, hold));
            return 0;
        }
        storm.fork(|| chain(storm, left - 1, hold));
        sys::wait_all()
    }
    // One of these is as many lives as twenty other scenes.
    if rng.one_in(6) {
        sys::become_subreaper();
        return chain(storm, 66, hold);
    }
    leaf(storm, rng, hold)
}
