//! Exponential back-off with jitter.
//!
//! Responsible for: delays of 1, 2, 4 … 60 seconds, each lengthened by up to a quarter, so that
//! groups that failed together do not retry together. Must never: read a clock or a random device.
//! Called by: the pool.
#![forbid(unsafe_code)]
use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
const LAST: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub struct Backoff {
    tries: u32,
    random: u64,
}

impl Backoff {
    pub const fn new(seed: u64) -> Self {
        // xorshift must not start at zero.
        Self { tries: 0, random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 }
    }

    /// The delay before the next attempt.
    pub fn pause(&mut self) -> Duration {
        let base = FIRST.saturating_mul(1 << self.tries.min(6)).min(LAST);
        self.tries = self.tries.saturating_add(1);
        base + (base / 4).mul_f64(self.random())
    }

    /// The next pseudo-random number in [0, 1).
    pub fn random(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 40) as f64 / f64::from(1u32 << 24)
    }

    /// Resets the delay after a success, or when there is a new reason to try.
    pub const fn reset(&mut self) {
        self.tries = 0;
    }

    /// True if the last attempt failed.
    pub const fn waiting(&self) -> bool {
        self.tries > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_minute() {
        let mut b = Backoff::new(3);
        for expected in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            let pause = b.pause();
            assert!(
                pause >= Duration::from_secs(expected) && pause <= Duration::from_secs(expected).mul_f64(1.25),
                "{pause:?} for {expected}"
            );
        }
        b.reset();
        assert!(!b.waiting() && b.pause() < Duration::from_millis(1251));
    }

    #[test]
    fn pools_differ() {
        assert_ne!(Backoff::new(1).pause(), Backoff::new(2).pause());
    }
}
