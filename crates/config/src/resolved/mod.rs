//! The configuration as a running server uses it: every default applied, every name looked up.
//!
//! Responsible for: which groups exist, what droverd runs for each, and what each request must know
//! of its group. Must never: touch httpd or the system, which it asks through the [`System`] it is
//! given. Called by: `httpd::lifecycle`, when httpd has read its configuration; `handler`.
//!
//! * `system`: looks up users, directories and the interpreter.
//! * `spec`: the specification of a group for droverd.
//! * `doubled`: applications that have more processes than they need.
//! * `names`: how many application groups the configuration names.
//! * `warnings`: what a server can start with, but what will fail at run time.
mod doubled;
mod names;
mod spec;
mod system;
mod warnings;

use crate::{GroupOptions, IMPLICIT_GROUP, MaxWaiting, ServerConfig};
pub use doubled::doubled;
use drover_wire::control::{GroupSpec, Target};
use spec::{group_of, specify};
use std::collections::HashMap;
use std::fmt;
use std::time::Duration;
pub use system::{Access, Account, Credentials, FirstTime, Problem, System, check};
use system::{find_group, find_user};
pub use warnings::{group_warning, missing, unreadable};

/// What a request must know of its group. Times are in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// For a group that is defined in a virtual host: only hosts with this ServerName may use it.
    pub only_for: Option<Vec<u8>>,
    /// Longest wait for a worker to take the request.
    pub queue_timeout_ns: Option<u64>,
    /// Longest run time.
    pub request_timeout_ns: Option<u64>,
    /// Longest time without a byte from the worker; `None`: the server's `Timeout`.
    pub socket_timeout_ns: Option<u64>,
    /// Required owner of the script's file.
    pub script_uid: Option<u32>,
    /// Required group of the script's file.
    pub script_gid: Option<u32>,
    /// `chroot=`, where it has an effect.
    pub root: Option<Vec<u8>>,
    /// Requests that the group's workers can run at once.
    pub capacity: u64,
    /// Waiting requests beyond this number are refused; `None`: they wait.
    pub queue_depth: Option<u64>,
    /// Waiting requests beyond this number wait outside the queue.
    pub listen_backlog: u64,
    /// Bytes of a response that httpd buffers while the client is slow.
    pub answer_buffer: usize,
    /// Request bodies up to this length are read before the request is put on the queue.
    pub body_buffer: u64,
}

impl Group {
    /// A script's path as the group's workers see it; `None` if it is outside their root.
    #[must_use]
    pub fn inside<'p>(&self, path: &'p [u8]) -> Option<&'p [u8]> {
        self.root.as_deref().map_or(Some(path), |root| behind_root(root, path))
    }
}

/// A path relative to a root directory. Configurations name scripts as httpd sees them, as in
/// mod_wsgi.
fn behind_root<'p>(root: &[u8], path: &'p [u8]) -> Option<&'p [u8]> {
    path.strip_prefix(root.strip_suffix(b"/").unwrap_or(root)).filter(|rest| rest.starts_with(b"/"))
}

/// Every group by its name.
#[derive(Debug)]
pub struct Resolved {
    groups: HashMap<Vec<u8>, Group>,
    implicit_name: Vec<u8>,
    implicit_used: FirstTime,
    max_waiting: Option<MaxWaiting>,
    ignores_case: bool,
}

/// Why a request cannot use the group that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupError {
    /// No such group.
    Unknown(Vec<u8>),
    /// The group is defined in a virtual host with another ServerName: the group and that name.
    Elsewhere(Vec<u8>, Vec<u8>),
}

impl fmt::Display for GroupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => write!(f, "no WSGIDaemonProcess defines the group '{}'", name.escape_ascii()),
            Self::Elsewhere(name, host) => write!(
                f,
                "the group '{}' is defined in the virtual host {}, and only hosts with that ServerName can use it",
                name.escape_ascii(),
                host.escape_ascii()
            ),
        }
    }
}

impl Resolved {
    /// The group a request of the host `server_name` names.
    pub fn group_for(&self, server_name: &[u8], name: &[u8]) -> Result<&Group, GroupError> {
        let group = self.groups.get(name).ok_or_else(|| GroupError::Unknown(name.to_vec()))?;
        match &group.only_for {
            Some(host) if host != server_name => Err(GroupError::Elsewhere(name.to_vec(), host.clone())),
            _ => Ok(group),
        }
    }

    /// Name of the group for scripts that name none.
    #[must_use]
    pub fn implicit_name(&self) -> &[u8] {
        &self.implicit_name
    }

    /// WSGICaseSensitivity: whether the case of letters distinguishes paths.
    #[must_use]
    pub const fn is_case_sensitive(&self) -> bool {
        !self.ignores_case
    }

    /// DroverMaxWaiting for a group of this capacity, where httpd has `slots` threads in total;
    /// `None`: no limit.
    #[must_use]
    pub fn most_of_a_group(&self, capacity: u64, slots: u64) -> Option<u64> {
        match self.max_waiting {
            Some(MaxWaiting::Off) => None,
            Some(MaxWaiting::Requests(n)) => Some(n.into()),
            // A server with one defined group has no other group to protect. The implicit group
            // always exists.
            None => (self.groups.keys().filter(|name| **name != self.implicit_name).count() > 1).then(|| capacity.max(slots / 4 * 3)),
        }
    }

    /// True for the first request of the server that runs in the implicit group.
    #[must_use]
    pub fn first_implicit(&self) -> bool {
        self.implicit_used.is_first()
    }
}

/// The main server or a virtual host, with its merged configuration.
#[derive(Debug, Clone, Copy)]
pub struct Server<'a> {
    /// Its configuration.
    pub config: &'a ServerConfig,
    /// ServerName.
    pub name: &'a [u8],
    /// Whether it is a virtual host.
    pub is_virtual: bool,
    /// The index of its error log.
    pub log: u16,
    /// Its LogLevel.
    pub log_level: u8,
    /// A section such as `<Directory>` chooses groups: only an alias that names its own groups is
    /// certain to run in them.
    pub sections_choose: bool,
}

/// Resolves every server's groups. The first server is the main one.
pub fn resolve(servers: &[Server<'_>], system: &dyn System) -> Result<(Resolved, Vec<GroupSpec>), Problem> {
    // A server-wide group named `default` replaces the implicit one; a virtual host's group of that
    // name does not.
    let is_taken = |wide: bool| servers.iter().any(|s| s.is_virtual != wide && s.config.groups.iter().any(|g| g.name == IMPLICIT_GROUP));
    let implicit_name = if is_taken(false) { b"%{GLOBAL}".to_vec() } else { IMPLICIT_GROUP.to_vec() };
    let mut resolved = Resolved {
        groups: HashMap::new(),
        implicit_name,
        implicit_used: system.first_time(),
        max_waiting: servers.first().and_then(|s| s.config.max_waiting),
        ignores_case: servers.first().is_some_and(|s| s.config.case_sensitivity == Some(false)),
    };
    let mut specs = Vec::new();
    for server in servers {
        for group in &server.config.groups {
            specs.push(specify(server, &group.name, false, &group.options, servers, system)?);
            resolved.groups.insert(group.name.clone(), limits(server, &group.options, system)?);
        }
    }
    if let (Some(main), false) = (servers.first(), is_taken(true)) {
        let name = resolved.implicit_name.clone();
        let options = GroupOptions { processes: system.cores(), threads: 4, ..GroupOptions::default() };
        match specify(main, &name, true, &options, servers, system) {
            Ok(spec) => specs.push(spec),
            Err(problem) if servers.iter().any(|s| s.config.aliases.iter().any(|a| group_of(a, s).is_none())) => return Err(problem),
            // No alias uses the implicit group, so it must not keep the server from starting.
            Err(_) => {}
        }
        resolved.groups.insert(name, limits(main, &options, system)?);
    }
    Ok((resolved, specs))
}

/// The scripts that aliases name: what droverd takes for part of the configuration. `implicit` is the name of the implicit group.
#[must_use]
pub fn targets(servers: &[Server<'_>], implicit: &[u8]) -> Vec<Target> {
    spec::targets(servers, implicit)
}

/// Groups for which the configuration names more application groups than `max-application-groups=` allows.
#[must_use]
pub fn crowded(servers: &[Server<'_>]) -> Vec<String> {
    let groups = servers.iter().flat_map(|server| &server.config.groups);
    let limited =
        groups.filter_map(|group| Some((&group.name, group.options.max_application_groups?, names::certain(&group.name, servers))));
    let crowded = limited.filter(|(_, most, named)| named > most);
    let text = |(name, most, named): (&Vec<u8>, u32, u32)| {
        format!(
            "WSGIDaemonProcess {}: the configuration names at least {named} application groups, but max-application-groups={most}: they take \
             turns, and each turn starts processes; raise the option, leave it out, or give applications the same WSGIApplicationGroup",
            name.escape_ascii()
        )
    };
    crowded.map(text).collect()
}

fn ns(time: Option<Duration>) -> Option<u64> {
    time.filter(|t| !t.is_zero()).map(|t| u64::try_from(t.as_nanos()).unwrap_or(u64::MAX))
}

fn limits(server: &Server<'_>, o: &GroupOptions, system: &dyn System) -> Result<Group, Problem> {
    Ok(Group {
        only_for: server.is_virtual.then(|| server.name.to_vec()),
        queue_timeout_ns: ns(o.queue_timeout),
        // The worker sends its own 504 first, within interrupt-timeout.
        request_timeout_ns: ns(o.request_timeout.map(|t| t + o.interrupt_timeout.unwrap_or_default())),
        socket_timeout_ns: ns(o.response_socket_timeout.or(o.socket_timeout)),
        script_uid: o.script_user.as_ref().map(|u| find_user(u, "script-user", b"", system).map(|u| u.uid)).transpose()?,
        script_gid: o.script_group.as_ref().map(|g| find_group(g, "script-group", b"", system)).transpose()?,
        root: o.chroot.clone().filter(|_| system.httpd_identity().is_some()),
        capacity: u64::from(o.processes) * u64::from(o.threads.max(1)),
        queue_depth: o.queue_depth.map(u64::from),
        listen_backlog: o.listen_backlog.into(),
        answer_buffer: usize::try_from(o.response_buffer_size).unwrap_or(usize::MAX),
        body_buffer: o.request_buffer_size,
    })
}

#[cfg(test)]
mod tests;
