//! A map by pid in which those born one after the other lie side by side.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// By pid.
pub(super) type Pids<T> = HashMap<u32, T, BuildHasherDefault<PidHasher>>;

/// So many neighbours stay together: as many as the table looks at in one step. Longer runs would get in each other's way.
const TOGETHER: u32 = 16;

/// An odd number whose bits have no pattern (2^64 divided by the golden ratio).
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// The kernel counts pids up. Were they spread all over a table of millions, every birth and every death would wait for memory
/// that nobody has touched for long; so a pid's last bits are its hash's, where the table takes the place from, and only the others
/// are spread.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PidHasher(u64);

impl Hasher for PidHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u32(&mut self, pid: u32) {
        let run = u64::from(pid / TOGETHER).wrapping_mul(SPREAD) >> 32;
        // By the first bits the table tells those apart that are in one place.
        let tag = u64::from(pid).wrapping_mul(SPREAD) & (0x7f << 57);
        self.0 = tag | (run * u64::from(TOGETHER)) | u64::from(pid % TOGETHER);
    }

    fn write(&mut self, bytes: &[u8]) {
        // Nothing but pids comes here; it would be right all the same.
        bytes.iter().for_each(|&byte| self.write_u32(u32::from(byte)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(pid: u32) -> u64 {
        let mut hasher = PidHasher::default();
        hasher.write_u32(pid);
        hasher.finish()
    }

    #[test]
    fn neighbours_lie_side_by_side_and_others_do_not() {
        for pid in (0..100_000).filter(|pid| pid % TOGETHER != 0) {
            assert_eq!(hash(pid) << 7, (hash(pid - 1) << 7) + (1 << 7));
        }
        // Runs fill a table as evenly as chance would, wherever they begin.
        for first in [1, 300_000, 4_000_000] {
            let mut runs = vec![0_u32; 1 << 12];
            (0..1_u32 << 12)
                .for_each(|run| runs[(hash(first + run * TOGETHER) >> 4) as usize % (1 << 12)] += 1);
            assert!(runs.iter().all(|&n| n < 12), "{:?}", runs.iter().max());
        }
        let tags: std::collections::BTreeSet<u64> = (0..64).map(|pid| hash(pid) >> 57).collect();
        assert!(tags.len() > 32);
    }
}
