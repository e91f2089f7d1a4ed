//! The memory that httpd uses for slow clients, counted over all its children.
//!
//! Responsible for: a bound on the bodies and responses of all slow clients together. Must never: refuse anything when the shared
//! counters are not available. Called by: `exchange::upload` (bodies), `exchange::download` (responses).
use super::admission::{AdmissionCounters, LOOK_FOR_DEAD_NS};
use drover_sys::clock::monotonic_ns;
use drover_sys::counters::{ChildSlot, Counter, SharedCounters};

/// Bytes that all children together may hold; above it each request may hold [`MIN_PER_REQUEST`].
const MAX_TOTAL: u64 = 256 << 20;
/// Bytes that each request may always hold.
const MIN_PER_REQUEST: usize = 256 << 10;

/// The memory that one request holds for its client, counted until it is dropped.
#[derive(Debug, Default)]
pub struct MemoryAccount<'c> {
    counted: Option<(&'c SharedCounters, ChildSlot, Counter)>,
    bytes: usize,
}

impl<'c> MemoryAccount<'c> {
    /// Holds nothing yet.
    #[must_use]
    pub fn open(counters: &AdmissionCounters<'c>) -> Self {
        let counted = counters.shared.and_then(|shared| Some((shared, counters.child_slot?, shared.find(&"bytes kept for slow clients")?)));
        Self { counted, bytes: 0 }
    }

    /// Whether the request may hold more.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.bytes < MIN_PER_REQUEST
            || self
                .counted
                .is_none_or(|(counters, slot, counter)| !counters.exceeds(slot, counter, MAX_TOTAL, monotonic_ns() / LOOK_FOR_DEAD_NS))
    }

    /// Sets the number of bytes that the request holds.
    pub fn set(&mut self, bytes: usize) {
        if let Some((counters, slot, counter)) = self.counted {
            if bytes > self.bytes {
                counters.add(slot, counter, (bytes - self.bytes) as u64);
            } else {
                counters.subtract(slot, counter, (self.bytes - bytes) as u64);
            }
        }
        self.bytes = bytes;
    }
}

impl Drop for MemoryAccount<'_> {
    fn drop(&mut self) {
        self.set(0);
    }
}
