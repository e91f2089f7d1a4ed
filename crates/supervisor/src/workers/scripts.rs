//! The scripts that a unit's workers load before they serve.
//!
//! Responsible for: distinguishing configured scripts from requested ones. A generation must load
//! the configured scripts before it takes over. Requested scripts are loaded in advance as an
//! optimization: one that fails is forgotten, and a new configuration forgets them all. Must never:
//! let a script that is not configured keep a generation from serving; keep more names than fit
//! into the message to a worker. Called by: the supervisor.
#![forbid(unsafe_code)]
use crate::control::plan::PoolKey;
use crate::control::settings::Settings;
use crate::pool::ScriptFailure;
use drover_wire::control::{Loaded, Script, Target};
use drover_wire::frame::Failure;
use std::collections::VecDeque;
use std::rc::Rc;

/// Remembered scripts named by requests and workers; the oldest is dropped first.
const MAX_REQUESTED: usize = 256;
/// Total bytes of their names. A worker receives them in one message, whose limit is more than
/// twice as large ([`MAX_CONTROL`]).
///
/// [`MAX_CONTROL`]: drover_wire::control::MAX_CONTROL
const MAX_REQUESTED_BYTES: usize = 64 * 1024;
/// PATH_MAX.
const MAX_PATH_BYTES: usize = 4096;
/// Overhead of a script in the message: two lengths.
const FRAMING_BYTES: usize = 6;

/// The scripts of one unit.
#[derive(Debug, Default)]
pub struct Scripts {
    /// Scripts configured for loading at start in this application group.
    preload: Vec<Script>,
    /// Scripts named by requests or workers, oldest first.
    requested: VecDeque<Script>,
    configured: Configured,
}

/// Decides whether a requested script is configured.
#[derive(Debug, Default)]
struct Configured {
    targets: Rc<[Target]>,
    group: Vec<u8>,
    application: Vec<u8>,
    /// Prefix of the paths in a group with `chroot=`.
    root: Vec<u8>,
}

impl Configured {
    fn names(&self, path: &[u8]) -> bool {
        let fits = |wanted: &Option<Vec<u8>>, own: &[u8]| wanted.as_deref().is_none_or(|wanted| wanted == own);
        let seen_by_httpd = |target: &[u8]| target.strip_prefix(self.root.as_slice()) == Some(path);
        let is_it = |t: &Target| seen_by_httpd(&t.path) && fits(&t.group, &self.group) && fits(&t.application_group, &self.application);
        self.targets.iter().any(is_it)
    }
}

/// The result of loading a worker's scripts.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Failures of configured scripts; they count against the generation.
    pub failures: Vec<ScriptFailure>,
    /// Failures of other scripts, which are now forgotten. Missing files are not included.
    pub forgotten: Vec<ScriptFailure>,
}

impl Scripts {
    /// Applies a configuration and drops all scripts that it does not name.
    pub fn configure(&mut self, key: &PoolKey, settings: &Settings) {
        let spec = &settings.spec;
        let own = |application: &[u8]| application == key.application;
        self.preload = spec.preload.iter().filter(|p| own(&p.application_group)).map(|p| p.script.clone()).collect();
        // Without root privileges chroot= has no effect.
        let root = spec.chroot.as_deref().filter(|_| spec.identity.is_some()).unwrap_or_default();
        self.configured = Configured {
            targets: settings.targets.clone(),
            group: key.group.clone(),
            application: key.application.clone(),
            root: root.strip_suffix(b"/").unwrap_or(root).to_vec(),
        };
        let configured = std::mem::take(&mut self.requested);
        self.requested = configured.into_iter().filter(|s| self.is_configured(s)).collect();
    }

    /// Adds a script named by a request or a worker.
    pub fn add(&mut self, script: Script) {
        let fits = script.path.len() <= MAX_PATH_BYTES && size(&script) <= MAX_REQUESTED_BYTES;
        if !fits || script.path.is_empty() || self.preload.contains(&script) || self.requested.contains(&script) {
            return;
        }
        self.requested.push_back(script);
        while self.requested.len() > MAX_REQUESTED || self.requested.iter().map(size).sum::<usize>() > MAX_REQUESTED_BYTES {
            self.requested.pop_front();
        }
    }

    /// Adds a script from a previous droverd, but only if it is configured, as it may be out of
    /// date.
    pub fn add_if_configured(&mut self, script: Script) {
        if self.is_configured(&script) {
            self.add(script);
        }
    }

    fn is_configured(&self, script: &Script) -> bool {
        self.preload.iter().any(|p| p.path == script.path) || self.configured.names(&script.path)
    }

    /// The configured scripts: those loaded at httpd's start first, in their order.
    pub fn required(&self) -> Vec<Script> {
        let requested = self.requested.iter().filter(|s| !self.preload.contains(s) && self.is_configured(s));
        self.preload.iter().chain(requested).cloned().collect()
    }

    /// The scripts that were only requested.
    pub fn optional(&self) -> Vec<Script> {
        self.requested.iter().filter(|s| !self.is_configured(s)).cloned().collect()
    }

    /// A worker could not start at all. The next one does not load requested scripts, because one
    /// of them may be the cause.
    pub fn forget_optional(&mut self) {
        let requested = std::mem::take(&mut self.requested);
        self.requested = requested.into_iter().filter(|s| self.is_configured(s)).collect();
    }

    /// Evaluates a worker's report. It may report each script once, and no others.
    pub fn outcome(&mut self, loaded: Vec<Loaded>) -> Outcome {
        let mut outcome = Outcome::default();
        let mut unheard = [self.required(), self.optional()].concat();
        let loaded = loaded.into_iter().filter(|l| unheard.iter().position(|s| *s == l.script).map(|at| unheard.swap_remove(at)).is_some());
        for Loaded { script, mtime_us, failure } in loaded {
            let Some((code, text)) = failure else { continue };
            // A file without its callable is a broken deployment or is being written; a missing
            // file was removed.
            let gone = Failure::from_code(code) == Failure::ScriptMissing;
            let is_preloaded = self.preload.iter().any(|p| p.path == script.path);
            let counts = is_preloaded || (self.is_configured(&script) && !gone);
            if !counts {
                self.requested.retain(|s| *s != script);
            }
            let failure = ScriptFailure { path: script.path, mtime_us, text };
            if counts {
                outcome.failures.push(failure);
            } else if !gone {
                outcome.forgotten.push(failure);
            }
        }
        outcome
    }
}

fn size(script: &Script) -> usize {
    script.path.len() + script.callable.len() + FRAMING_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Sink;
    use drover_wire::control::{GroupSpec, Identity, Preload};

    fn script(path: &str) -> Script {
        Script { path: path.into(), callable: b"application".to_vec() }
    }

    fn target(path: &str, group: Option<&str>, application: Option<&str>) -> Target {
        Target { path: path.into(), group: group.map(Into::into), application_group: application.map(Into::into) }
    }

    /// The scripts of application group "x" of group "shop".
    fn configured(mut spec: GroupSpec, preload: &[(&str, &str)], targets: &[Target]) -> Settings {
        let preload = preload.iter().map(|(a, path)| Preload { application_group: a.as_bytes().to_vec(), script: script(path) });
        spec.preload = preload.collect();
        Settings { spec, sink: Rc::new(Sink::standard_error(0)), targets: targets.into() }
    }

    fn key() -> PoolKey {
        PoolKey { group: b"shop".to_vec(), application: b"x".to_vec() }
    }

    fn failed(path: &str, why: Failure) -> Loaded {
        Loaded { script: script(path), mtime_us: 1, failure: Some((why as u16, "why".into())) }
    }

    fn paths(failures: &[ScriptFailure]) -> Vec<&str> {
        failures.iter().map(|f| std::str::from_utf8(&f.path).unwrap()).collect()
    }

    #[test]
    fn only_what_the_configuration_names_counts_and_lasts() {
        let targets = [
            target("/anywhere", None, None),
            target("/ours", Some("shop"), None),
            target("/theirs", Some("blog"), None),
            target("/y", Some("shop"), Some("y")),
        ];
        let settings = configured(GroupSpec::default(), &[("x", "/preloaded"), ("y", "/other")], &targets);
        let mut s = Scripts::default();
        s.configure(&key(), &settings);
        let asked = ["/requested", "/ours", "/preloaded", "/anywhere", "/theirs", "/y", "/other", "/requested", "/gone"];
        asked.iter().for_each(|path| s.add(script(path)));
        assert_eq!(s.required(), ["/preloaded", "/ours", "/anywhere"].map(script));
        assert_eq!(s.optional(), ["/requested", "/theirs", "/y", "/other", "/gone"].map(script));
        let said = ["/preloaded", "/ours", "/requested", "/other", "/nobody"].map(|path| failed(path, Failure::Import));
        let outcome = s.outcome([said.to_vec(), vec![failed("/gone", Failure::ScriptMissing)]].concat());
        assert_eq!(paths(&outcome.failures), ["/preloaded", "/ours"]);
        assert_eq!(paths(&outcome.forgotten), ["/requested", "/other"], "a removed one is not reported");
        assert_eq!(s.optional(), ["/theirs", "/y"].map(script));
        s.configure(&key(), &settings);
        assert_eq!((s.required().len(), s.optional()), (3, vec![]), "a new configuration drops scripts that it does not name");
    }

    #[test]
    fn a_removed_script_is_demanded_only_by_what_loads_it_with_httpds_start() {
        let mut s = Scripts::default();
        s.configure(&key(), &configured(GroupSpec::default(), &[("x", "/a")], &[target("/b", None, None)]));
        s.add(script("/b"));
        let outcome = s.outcome(vec![failed("/a", Failure::ScriptMissing), failed("/b", Failure::ScriptMissing)]);
        assert_eq!((paths(&outcome.failures), outcome.forgotten), (vec!["/a"], vec![]));
        assert_eq!(s.required(), [script("/a")]);
        s.add(script("/b"));
        assert_eq!(paths(&s.outcome(vec![failed("/b", Failure::NoCallable)]).failures), ["/b"], "a broken deployment");
    }

    #[test]
    fn a_start_that_fails_leaves_out_what_was_only_requested() {
        let mut s = Scripts::default();
        s.configure(&key(), &configured(GroupSpec::default(), &[], &[target("/a", None, None)]));
        ["/a", "/b"].iter().for_each(|path| s.add(script(path)));
        s.add_if_configured(script("/c"));
        s.forget_optional();
        assert_eq!((s.required(), s.optional()), (vec![script("/a")], vec![]));
    }

    #[test]
    fn paths_behind_a_root_directory() {
        for (identity, required) in [(Some(Identity::default()), "/a"), (None, "/jail/a")] {
            let spec = GroupSpec { chroot: Some(b"/jail/".to_vec()), identity, ..GroupSpec::default() };
            let mut s = Scripts::default();
            s.configure(&key(), &configured(spec, &[], &[target("/jail/a", None, None)]));
            ["/a", "/jail/a"].iter().for_each(|path| s.add(script(path)));
            assert_eq!(s.required(), [script(required)]);
        }
    }

    #[test]
    fn what_a_worker_says_stays_small() {
        let message = |s: &Scripts| drover_wire::control::encode(&s.optional()).unwrap().len();
        for (length, count) in
            [(10, MAX_REQUESTED), (1500, MAX_REQUESTED_BYTES / 1517), (MAX_PATH_BYTES, MAX_REQUESTED_BYTES / 4113), (MAX_PATH_BYTES + 1, 0)]
        {
            let mut s = Scripts::default();
            for n in 0..10_000 {
                s.add(script(&format!("{n:0>length$}")));
            }
            assert_eq!(s.optional().len(), count, "{length}");
            assert!(count == 0 || s.optional().last() == Some(&script(&format!("{:0>length$}", 9999))), "the newest are kept");
            assert!(message(&s) <= MAX_REQUESTED_BYTES + 16);
        }
        let mut s = Scripts::default();
        s.add(Script { path: b"/a".to_vec(), callable: vec![b'x'; MAX_REQUESTED_BYTES] });
        assert_eq!(s.optional(), []);
        s.add(script("/a"));
        let outcome = s.outcome(vec![failed("/other", Failure::Import), failed("/a", Failure::Import), failed("/a", Failure::Import)]);
        assert_eq!(paths(&outcome.forgotten), ["/a"]);
    }
}
