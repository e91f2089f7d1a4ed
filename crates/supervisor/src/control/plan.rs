//! What a configuration means for existing pools, and who may open a new one.
//!
//! Responsible for: those decisions. Must never: carry them out. Called by: `configure.rs` and
//! `broker.rs`.
#![forbid(unsafe_code)]
use crate::pool::Limits;
use drover_wire::control::{Bytes, Configuration, GroupSpec, OpenQueue, OpenReply, Reload};
use std::collections::BTreeSet;
use std::time::Duration;

/// Daemon process group and application group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolKey {
    pub group: Bytes,
    pub application: Bytes,
}

/// What a new configuration requires.
#[derive(Debug, PartialEq, Eq, Default)]
pub struct Plan {
    /// Pools that continue with a new generation.
    pub renew: Vec<PoolKey>,
    /// Pools whose group is no longer configured.
    pub retire: Vec<PoolKey>,
    /// Pools to start now because they have scripts to preload.
    pub preload: Vec<PoolKey>,
}

pub fn plan<'a>(configuration: &Configuration, existing: impl Iterator<Item = &'a PoolKey>) -> Plan {
    let names: BTreeSet<&Bytes> = configuration.groups.iter().map(|g| &g.name).collect();
    let (renew, retire) = existing.cloned().partition(|key: &PoolKey| names.contains(&key.group));
    let key = |g: &GroupSpec, application: &Bytes| PoolKey { group: g.name.clone(), application: application.clone() };
    let preload: BTreeSet<PoolKey> =
        configuration.groups.iter().flat_map(|g| g.preload.iter().map(move |p| key(g, &p.application_group))).collect();
    Plan { renew, retire, preload: preload.into_iter().collect() }
}

/// Whether a queue may be opened. `others` is the number of application groups that the group
/// already has.
pub fn admit(open: &OpenQueue, spec: Option<&GroupSpec>, exists: bool, others: usize) -> Result<(), OpenReply> {
    if open.version != drover_wire::VERSION {
        let text = format!("droverd is version {}, mod_drover.so is version {}: stop and start httpd", drover_wire::VERSION, open.version);
        return Err(OpenReply::Refused(text));
    }
    let Some(spec) = spec else { return Err(OpenReply::UnknownGroup) };
    let limit = spec.max_application_groups;
    if !exists && limit > 0 && others >= usize::try_from(limit).unwrap_or(usize::MAX) {
        return Err(OpenReply::TooManyApplications { limit });
    }
    Ok(())
}

/// The group's options that control its pools.
pub fn limits(spec: &GroupSpec) -> Limits {
    Limits {
        processes: usize::try_from(spec.processes).unwrap_or(1).clamp(1, 10_000),
        least: usize::try_from(spec.least_processes.min(spec.processes)).unwrap_or(1).min(10_000),
        rolling: spec.reload == Reload::Rolling,
        startup: spec.startup_timeout_ms.filter(|ms| *ms > 0).map(Duration::from_millis),
        graceful: spec.graceful_timeout_ms.map(Duration::from_millis),
        shutdown: Duration::from_millis(spec.shutdown_timeout_ms),
        eviction: spec.eviction_timeout_ms.map(Duration::from_millis),
        inactivity: spec.inactivity_timeout_ms.filter(|ms| *ms > 0).map(Duration::from_millis),
        restart_interval: spec.restart_interval_ms.filter(|ms| *ms > 0).map(Duration::from_millis),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_wire::control::{Preload, Script};

    fn key(group: &str, application: &str) -> PoolKey {
        PoolKey { group: group.into(), application: application.into() }
    }

    fn group(name: &str, preload: &[&str]) -> GroupSpec {
        let script = Script { path: b"/a".to_vec(), callable: vec![] };
        let preload = preload.iter().map(|a| Preload { application_group: a.as_bytes().to_vec(), script: script.clone() }).collect();
        GroupSpec { name: name.into(), preload, max_application_groups: 2, ..GroupSpec::default() }
    }

    #[test]
    fn what_a_configuration_asks_for() {
        let groups = vec![group("shop", &["x", "x"]), group("wiki", &[])];
        let c = Configuration {
            version: String::new(),
            generation: 1,
            log_level: 4,
            control_socket: None,
            sessions: Vec::new(),
            groups,
            targets: Vec::new(),
        };
        let old = [key("shop", ""), key("gone", "")];
        assert_eq!(
            plan(&c, old.iter()),
            Plan { renew: vec![key("shop", "")], retire: vec![key("gone", "")], preload: vec![key("shop", "x")] }
        );
    }

    #[test]
    fn who_may_open() {
        let open = |version: &str| OpenQueue {
            version: version.into(),
            group: b"shop".to_vec(),
            application_group: vec![],
            script: Script { path: vec![], callable: vec![] },
        };
        let (spec, ours) = (group("shop", &[]), open(drover_wire::VERSION));
        assert_eq!(admit(&ours, Some(&spec), false, 1), Ok(()));
        assert_eq!(admit(&ours, Some(&spec), true, 2), Ok(()));
        assert_eq!(admit(&ours, Some(&spec), false, 2), Err(OpenReply::TooManyApplications { limit: 2 }));
        assert_eq!(admit(&ours, None, false, 0), Err(OpenReply::UnknownGroup));
        assert!(matches!(admit(&open("0"), Some(&spec), false, 0), Err(OpenReply::Refused(_))));
    }
}
