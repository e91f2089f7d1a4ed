//! Limits how many workers import their applications at once.
//!
//! Responsible for: keeping a start of many groups from overloading the machine, in order of
//! arrival. A worker that takes long no longer counts: it waits for something other than the
//! processor and must not delay other groups. Must never: read a clock. Called by: the supervisor.
#![forbid(unsafe_code)]
use crate::pool::Now;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// How long a worker counts as importing.
const COUNTS_FOR: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct StartLimiter<K> {
    limit: usize,
    inside: BTreeMap<K, Now>,
    waiting: VecDeque<K>,
}

impl<K: Ord + Copy> StartLimiter<K> {
    pub const fn new(limit: usize) -> Self {
        Self { limit, inside: BTreeMap::new(), waiting: VecDeque::new() }
    }

    pub fn enqueue(&mut self, key: K) {
        self.waiting.push_back(key);
    }

    /// Releases `key`, which is ready, has exited or is no longer wanted.
    pub fn release(&mut self, key: K) {
        if self.inside.remove(&key).is_none() {
            self.waiting.retain(|k| *k != key);
        }
    }

    /// The next worker that may start.
    pub fn next(&mut self, now: Now) -> Option<K> {
        self.inside.retain(|_, since| *since + COUNTS_FOR > now);
        if self.inside.len() >= self.limit {
            return None;
        }
        let key = self.waiting.pop_front()?;
        self.inside.insert(key, now);
        Some(key)
    }

    /// When to call [`StartLimiter::next`] again without another event.
    pub fn deadline(&self) -> Option<Now> {
        if self.waiting.is_empty() { None } else { self.inside.values().min().map(|since| *since + COUNTS_FOR) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_at_a_time_in_order() {
        let mut g = StartLimiter::new(2);
        let at = Duration::from_secs;
        (1..=5).for_each(|k| g.enqueue(k));
        assert_eq!((g.next(at(0)), g.next(at(1)), g.next(at(1))), (Some(1), Some(2), None));
        g.release(3);
        g.release(1);
        assert_eq!((g.next(at(2)), g.next(at(2))), (Some(4), None));
        assert_eq!(g.deadline(), Some(at(11)));
        assert_eq!((g.next(at(11)), g.deadline()), (Some(5), None), "2 hangs and no longer counts");
    }
}
