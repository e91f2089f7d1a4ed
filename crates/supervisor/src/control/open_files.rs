//! Checks that droverd can open enough descriptors for the configuration.
//!
//! Responsible for: warning the administrator at start that the limit of open files is too low, and
//! what to raise. Must never: reject a configuration for it. Called by: `configure.rs`.
use crate::log::messages::Code;
use crate::supervisor::Supervisor;
use drover_wire::control::GroupSpec;
use rustix::process::{Resource, getrlimit};
use std::collections::BTreeSet;

/// A worker's control socket and its two output pipes.
const OF_A_WORKER: u64 = 3;
/// Both ends of a queue, and its shared memory.
const OF_A_QUEUE: u64 = 3;
/// Sockets to httpd, the store, administrators, and the descriptors of one message.
const OF_DROVERD: u64 = 64;

/// Descriptors needed with every group at full size: in the application groups loaded at start (at
/// least one), and twice as many workers during a reload.
fn needed<'g>(groups: impl Iterator<Item = &'g GroupSpec>) -> u64 {
    groups.map(of_group).fold(OF_DROVERD, u64::saturating_add)
}

fn of_group(group: &GroupSpec) -> u64 {
    let applications = group.preload.iter().map(|preload| &preload.application_group).collect::<BTreeSet<_>>().len().max(1);
    let fork_servers = u64::from(group.preload_fork);
    let workers = u64::from(group.processes).saturating_add(fork_servers).saturating_mul(2);
    // Plus one for the group's log.
    let of_application = workers.saturating_mul(OF_A_WORKER).saturating_add(OF_A_QUEUE);
    of_application.saturating_mul(u64::try_from(applications).unwrap_or(u64::MAX)).saturating_add(1)
}

impl Supervisor {
    /// Logs a warning if the limit is too low. droverd has already raised its own limit as far as
    /// it may.
    pub fn check_open_files(&self) {
        let needed = needed(self.groups.values().map(|settings| &settings.spec));
        if let Some(limit) = getrlimit(Resource::Nofile).current.filter(|limit| *limit < needed) {
            self.main.message(Code::OpenFilesLimit, None, None, &[limit.to_string(), needed.to_string()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_wire::control::{Preload, Script};

    #[test]
    fn it_grows_with_processes_and_applications() {
        let plain = GroupSpec { processes: 4, ..GroupSpec::default() };
        assert_eq!(needed([].into_iter()), OF_DROVERD);
        assert_eq!(needed([&plain].into_iter()), OF_DROVERD + 1 + 3 + 4 * 2 * 3);
        let script = Script { path: vec![], callable: vec![] };
        let load = |name: &str| Preload { application_group: name.into(), script: script.clone() };
        let two = GroupSpec { preload: vec![load("a"), load("b"), load("a")], ..plain.clone() };
        assert_eq!(needed([&two, &plain].into_iter()), OF_DROVERD + 1 + 2 * 27 + 1 + 27);
        let forked = GroupSpec { preload_fork: true, ..plain };
        assert_eq!(needed([&forked].into_iter()), OF_DROVERD + 1 + 3 + 5 * 2 * 3);
        let many = GroupSpec { processes: u32::MAX, ..GroupSpec::default() };
        assert!(needed([&many].into_iter()) > u64::from(u32::MAX));
    }
}
