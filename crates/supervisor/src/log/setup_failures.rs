//! The setup failures of a unit's workers, logged in full only when they change.
//!
//! Responsible for: logging each text in full once, however often the failure recurs. Must never:
//! keep the text. Called by: `workers/messages.rs` and `workers/fork_server.rs`.
use std::hash::{DefaultHasher, Hash, Hasher};

/// The last logged setup failure.
#[derive(Debug, Default)]
pub struct SetupFailureLog(Option<(u64, u32)>);

impl SetupFailureLog {
    /// The text to log: only its last line if the failure is the same as last time.
    pub fn text(&mut self, text: &str) -> String {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let hash = hasher.finish();
        let count = self.0.filter(|(last, _)| *last == hash).map_or(1, |(_, count)| count.saturating_add(1));
        self.0 = Some((hash, count));
        let last = text.trim_end().rsplit('\n').next().unwrap_or_default();
        if count > 1 { format!("same failure as before, {count} attempts: {last}") } else { text.to_owned() }
    }

    /// Workers start again.
    pub const fn over(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_failure_is_cut_to_its_last_line() {
        let mut told = SetupFailureLog::default();
        let said = ["Traceback\n  x", "Traceback\n  x", "y"].map(|text| told.text(text));
        assert_eq!(said, ["Traceback\n  x", "same failure as before, 2 attempts:   x", "y"]);
    }
}
