//! What cannot be found out is unknown, and nobody is signalled on it.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use super::*;

#[test]
fn what_is_not_known_is_unknown() {
    let scene = Scene::new();
    let (_queue, at) = service();
    let fifo = scene.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let _writer = File::options().read(true).write(true).open(&fifo).unwrap();
    let agent = Agent::start(&scene, &with_queue(&scene, at));
    let accepts = [listens("127.0.0.1:0"), wait_in(Call::Accept, &["l"])];
    let shapes = [
        shape(
            "two",
            [connects("q", at), connects("r", at), wait_in(Call::Read, &["q"])],
            "over one of 2 connections",
        ),
        shape("nothing", [Op::Forever], "nothing that its threads wait for brings work"),
        shape(
            "private",
            [vec![Op::Thread(vec![Op::OwnDescriptors, Op::Forever])], accepts.to_vec()].concat(),
            "has descriptors of its own",
        ),
        shape(
            "fifo",
            [open("f", Open::File("fifo".into())), wait_in(Call::Read, &["f"])],
            "a pipe, and who else has it open is not known",
        ),
    ];
    let workers = orphans(&scene, &agent, &shapes);
    for (shape, worker) in shapes.iter().zip(&workers) {
        stays(&agent, worker, "unknown", &shape.says);
    }
    nobody_goes(&agent, 500, &workers);
    agent.stop();
}

#[test]
fn a_connection_that_was_inherited_brings_work_to_nobody_knows_whom() {
    let scene = Scene::new();
    let (_queue, at) = service();
    let agent = Agent::start(&scene, &with_queue(&scene, at));
    let reads = |name| fork([note(name), wait_in(Call::Read, &["q"])]);
    let master = scene.spawn("master", [connects("q", at), reads("a"), reads("b"), Op::Forever]);
    let workers = ["a", "b"].map(|name| scene.proc(name));
    agent.knows_master(&master);
    workers.iter().for_each(rest);
    master.kill();
    for (worker, other) in [(&workers[0], &workers[1]), (&workers[1], &workers[0])] {
        stays(&agent, worker, "unknown", &format!("over a connection that process {} shares", other.pid()));
    }
    nobody_goes(&agent, 500, &workers);
    agent.stop();
}

/// The numbers of its system calls mean others.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_program_of_another_architecture_is_unknown() {
    let scene = Scene::new();
    let path = scene.path("small");
    fs::write(&path, pausing_elf32()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    match Command::new(&path).spawn() {
        Ok(mut child) => {
            std::thread::sleep(Duration::from_millis(100));
            assert_eq!(child.try_wait().unwrap(), None, "it waits for ever");
            child.kill().unwrap();
            child.wait().unwrap();
        }
        // This kernel runs no 32-bit programs, so there is nobody to be wrong about.
        Err(e) if e.raw_os_error() == Some(libc::ENOEXEC) => return,
        Err(e) => panic!("{e}"),
    }
    let agent = Agent::start(&scene, &Config::new(&scene).source());
    let argv = [path.to_str().unwrap(), "worker", scene.token()].map(Into::into);
    let shapes = [shape("small", [Op::Run(argv.into())], "its architecture is not the agent's")];
    let workers = orphans(&scene, &agent, &shapes);
    stays(&agent, &workers[0], "unknown", &shapes[0].says);
    nobody_goes(&agent, 500, &workers);
    agent.stop();
}

/// An executable with one segment: pause(2), whose number belongs to shmget(2) in a 64-bit process, for ever.
#[cfg(target_arch = "x86_64")]
fn pausing_elf32() -> Vec<u8> {
    // mov eax, 29; int 0x80; jmp back
    let code = [0xb8, 29, 0, 0, 0, 0xcd, 0x80, 0xeb, 0xf7_u8];
    let (base, start) = (0x0804_8000_u32, 84_u32);
    let size = start + u32::try_from(code.len()).unwrap();
    let half = |n: u16| n.to_le_bytes().to_vec();
    let word = |n: u32| n.to_le_bytes().to_vec();
    [
        b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec(),
        [half(2), half(3), word(1), word(base + start), word(52), word(0), word(0)].concat(),
        [half(52), half(32), half(1), half(0), half(0), half(0)].concat(),
        [word(1), word(0), word(base), word(base), word(size), word(size), word(5), word(4096)].concat(),
        code.to_vec(),
    ]
    .concat()
}
