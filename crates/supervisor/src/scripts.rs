//! Which scripts a pool's workers load before they serve.
//!
//! Responsible for: remembering what was ever asked for, so that a new generation is as warm as the old one was. Must never:
//! let a script that was removed from the disk keep a new generation from serving; remember so many or so long names that they do not fit
//! into the message to a worker. Called by: the supervisor.
#![forbid(unsafe_code)]
use crate::pool::ScriptFailure;
use drover_wire::control::{Loaded, Preload, Script};
use drover_wire::frame::Failure;

/// More scripts than these are loaded on demand only.
const MOST: usize = 256;
/// Bytes of their names in all; a worker is told them in one message, which is more than twice as large ([`MAX_CONTROL`]).
///
/// [`MAX_CONTROL`]: drover_wire::control::MAX_CONTROL
const MOST_BYTES: usize = 64 * 1024;
/// PATH_MAX.
const LONGEST_PATH: usize = 4096;
/// Around a script in the message: two lengths.
const AROUND: usize = 6;

#[derive(Debug, Default)]
pub struct Scripts {
    preload: Vec<Script>,
    known: Vec<Script>,
}

impl Scripts {
    /// The configuration names these for the application group.
    pub fn configure(&mut self, application_group: &[u8], preload: &[Preload]) {
        self.preload = preload.iter().filter(|p| p.application_group == application_group).map(|p| p.script.clone()).collect();
    }

    /// A request or a worker names this one.
    pub fn add(&mut self, script: Script) {
        let bytes: usize = self.known.iter().chain([&script]).map(size).sum();
        let fits = self.known.len() < MOST && bytes <= MOST_BYTES && script.path.len() <= LONGEST_PATH;
        if fits && !script.path.is_empty() && !self.preload.contains(&script) && !self.known.contains(&script) {
            self.known.push(script);
        }
    }

    /// All of them, those of the configuration first and in its order.
    pub fn all(&self) -> Vec<Script> {
        let mut all = self.preload.clone();
        all.extend(self.known.iter().filter(|s| !self.preload.contains(s)).cloned());
        all
    }

    /// What a worker says of its scripts. Those that are gone and not demanded by the configuration are forgotten. It may speak of each
    /// once, and of no others.
    pub fn outcome(&mut self, loaded: Vec<Loaded>) -> Vec<ScriptFailure> {
        let mut failures = Vec::new();
        let mut unheard = self.all();
        let loaded = loaded.into_iter().filter(|l| unheard.iter().position(|s| *s == l.script).map(|at| unheard.swap_remove(at)).is_some());
        for Loaded { script, mtime_us, failure } in loaded {
            let Some((code, text)) = failure else { continue };
            // A file without its callable is a broken deploy (perhaps it is being written); one that is not there was removed.
            let gone = Failure::from_code(code) == Failure::ScriptMissing;
            if gone && !self.preload.contains(&script) {
                self.known.retain(|s| *s != script);
            } else {
                failures.push(ScriptFailure { path: script.path, mtime_us, text });
            }
        }
        failures
    }
}

fn size(script: &Script) -> usize {
    script.path.len() + script.callable.len() + AROUND
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(path: &str) -> Script {
        Script { path: path.into(), callable: b"application".to_vec() }
    }

    #[test]
    fn a_removed_script_is_forgotten_unless_demanded() {
        let mut s = Scripts::default();
        s.configure(
            b"",
            &[
                Preload { application_group: vec![], script: script("/a") },
                Preload { application_group: b"x".to_vec(), script: script("/x") },
            ],
        );
        for path in ["/b", "/a", "/b"] {
            s.add(script(path));
        }
        assert_eq!(s.all(), [script("/a"), script("/b")]);
        let outcome = |path| Loaded { script: script(path), mtime_us: 1, failure: Some((Failure::ScriptMissing as u16, "gone".into())) };
        let failures = s.outcome(vec![outcome("/a"), outcome("/b")]);
        assert_eq!(failures.iter().map(|f| &f.path[..]).collect::<Vec<_>>(), [b"/a"]);
        assert_eq!(s.all(), [script("/a")]);
    }

    #[test]
    fn what_a_worker_says_stays_small() {
        let message = |s: &Scripts| drover_wire::control::encode(&s.all()).unwrap().len();
        for (length, count) in [(10, MOST), (1500, MOST_BYTES / 1517), (LONGEST_PATH, MOST_BYTES / 4113), (LONGEST_PATH + 1, 0)] {
            let mut s = Scripts::default();
            for n in 0..10_000 {
                s.add(script(&format!("{n:0>length$}")));
            }
            assert_eq!(s.all().len(), count, "{length}");
            assert!(message(&s) <= MOST_BYTES + 16);
        }
        let mut s = Scripts::default();
        s.add(Script { path: b"/a".to_vec(), callable: vec![b'x'; MOST_BYTES] });
        assert_eq!(s.all(), []);
        s.add(script("/a"));
        let bad = |path| Loaded { script: script(path), mtime_us: 1, failure: Some((Failure::Import as u16, "bad".into())) };
        let failures = s.outcome(vec![bad("/other"), bad("/a"), bad("/a")]);
        assert_eq!(failures.iter().map(|f| &f.path[..]).collect::<Vec<_>>(), [b"/a"]);
    }
}
