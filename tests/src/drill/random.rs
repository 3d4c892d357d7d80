//! Random numbers for a drill: small, seeded, so that a run can be told apart by its seed.

use std::time::Duration;

/// xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled").
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// From `low` up to, but not including, `high`.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + (self.next() >> 11) % (high - low).max(1)
    }

    pub(crate) fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.between(low, high))
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let at = self.between(0, from.len() as u64);
        from[usize::try_from(at).unwrap()]
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn stays_within_bounds_and_varies() {
        let mut random = Random::new(7);
        let drawn: Vec<_> = (0..1000).map(|_| random.between(3, 9)).collect();
        assert!(drawn.iter().all(|n| (3..9).contains(n)), "{drawn:?}");
        for n in 3..9 {
            assert!(drawn.contains(&n), "{n} never came");
        }
    }
}
