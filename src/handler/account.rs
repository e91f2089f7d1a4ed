//! The memory that httpd keeps for slow clients, accounted for over all children.
//!
//! Responsible for: bodies and answers of slow clients together not taking all of the machine's memory. Must never: refuse anything when the
//! shared counters cannot be had. Called by: `handler::upload` (bodies), `handler::download` (answers).
use super::admission::{Gate, LOOK_FOR_DEAD_NS};
use drover_sys::clock::monotonic_ns;
use drover_sys::tally::{Column, Row, Tally};

/// What httpd's children keep of bodies and answers for slow clients, all together, bytes; beyond it they keep [`ALWAYS`] for each.
const MOST_KEPT: u64 = 256 << 20;
/// What each request may keep in any case.
const ALWAYS: usize = 256 << 10;

/// The memory that one request keeps for its client; counted with that of all others until it is dropped.
#[derive(Debug, Default)]
pub struct Account<'c> {
    counted: Option<(&'c Tally, Column, Row)>,
    bytes: usize,
}

impl<'c> Account<'c> {
    /// Nothing is kept yet.
    #[must_use]
    pub fn open(gate: &Gate<'c>) -> Self {
        let counted = gate.tally.and_then(|tally| Some((tally, gate.column?, tally.find(&"bytes kept for slow clients")?)));
        Self { counted, bytes: 0 }
    }

    /// Whether more may be kept.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.bytes < ALWAYS
            || self.counted.is_none_or(|(tally, column, row)| !tally.exceeds(column, row, MOST_KEPT, monotonic_ns() / LOOK_FOR_DEAD_NS))
    }

    /// So many bytes are kept now.
    pub fn set(&mut self, bytes: usize) {
        if let Some((tally, column, row)) = self.counted {
            if bytes > self.bytes {
                tally.add(column, row, (bytes - self.bytes) as u64);
            } else {
                tally.subtract(column, row, (self.bytes - bytes) as u64);
            }
        }
        self.bytes = bytes;
    }
}

impl Drop for Account<'_> {
    fn drop(&mut self) {
        self.set(0);
    }
}
