//! Records from the ring buffer and rows of the iterators, as any bytes.

use reaper::core::input::Input;
use reaper::kernel::decode::{decode, decode_alarms, decode_tasks};

/// Takes the bytes for a record, and for what an iterator wrote.
pub fn run(bytes: &[u8]) {
    if let Ok(decoded) = decode(bytes) {
        // Whatever follows the record in the buffer changes nothing in it.
        let longer = [bytes, &[0xff; 64]].concat();
        assert_eq!(decode(&longer).as_ref(), Ok(&decoded));
        match &decoded.input {
            Input::Fork(fork) => assert!(!fork.comm.contains('\0')),
            Input::Exec(exec) => {
                assert!(!exec.comm.contains('\0'));
                assert!(exec.argv.iter().all(|word| !word.contains('\0')));
            }
            Input::Exit(_) | Input::SignalSeen { .. } => {}
            other => panic!("a ring buffer has no {other:?}"),
        }
    }
    if let Ok(tasks) = decode_tasks(bytes) {
        assert_eq!(tasks.len() * size_of::<reaper_common::Task>(), bytes.len());
    }
    let _ = decode_alarms(bytes);
}
