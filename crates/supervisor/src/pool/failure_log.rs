//! What was logged about a group's failures, so that the log does not repeat itself and reports
//! their end.
//!
//! Responsible for: logging each traceback once, however often the failure recurs, and one message
//! when the group serves again. Must never: remember without bound. Called by:
//! `generation.rs`.
#![forbid(unsafe_code)]
use crate::pool::{Path, ScriptFailure};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Scripts whose last traceback is remembered.
const MAX_SCRIPTS: usize = 256;

/// The failures of one pool since it last served without any.
#[derive(Debug, Clone, Default)]
pub struct FailureLog {
    count: u32,
    last: String,
    tracebacks: BTreeMap<Path, u64>,
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl FailureLog {
    /// Records a failure, given in one line; returns the text to log.
    pub fn met(&mut self, reason: &str) -> String {
        self.count = self.count.saturating_add(1);
        if self.count > 1 && self.last == reason {
            return format!("same failure as before, {} attempts: {reason}", self.count);
        }
        reason.clone_into(&mut self.last);
        reason.to_owned()
    }

    /// Whether the traceback differs from the script's last one, or the file changed since.
    pub fn is_new(&mut self, failure: &ScriptFailure) -> bool {
        let hash = hash((failure.mtime_us, &failure.text));
        if self.tracebacks.len() >= MAX_SCRIPTS && !self.tracebacks.contains_key(&failure.path) {
            self.tracebacks.clear();
        }
        self.tracebacks.insert(failure.path.clone(), hash) != Some(hash)
    }

    /// The group serves without failures. If there were any: their number and the last of them.
    pub fn over(&mut self) -> Option<(u32, String)> {
        let Self { count, last, .. } = std::mem::take(self);
        (count > 0).then_some((count, last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_at_length_once() {
        let mut t = FailureLog::default();
        let failure = |path: &str, mtime_us, text: &str| ScriptFailure { path: path.into(), mtime_us, text: text.into() };
        for (path, mtime_us, text, is_new) in
            [("/a", 1, "x", true), ("/a", 1, "x", false), ("/b", 1, "x", true), ("/a", 1, "y", true), ("/a", 2, "y", true)]
        {
            assert_eq!(t.is_new(&failure(path, mtime_us, text)), is_new, "{path} {mtime_us} {text}");
        }
        for n in 0..1000 {
            t.is_new(&failure(&n.to_string(), 1, "x"));
        }
        assert!(t.tracebacks.len() <= MAX_SCRIPTS);
        assert_eq!((t.met("x"), t.met("x")), ("x".into(), "same failure as before, 2 attempts: x".into()));
        assert_eq!(t.met("y"), "y");
        assert_eq!((t.over(), t.over()), (Some((3, "y".into())), None));
    }
}
