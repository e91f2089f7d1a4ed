//! A group of daemon processes as WSGIDaemonProcess describes it.
//!
//! Responsible for: the typed options and their defaults, which are those of mod_wsgi
//! (wsgi_daemon.c). Must never: look up a user, a group or a path; `resolved` does. Called by:
//! `options`, which fills it, and `resolved`.

use super::scalar::Parsed;
use drover_wire::control::Reload;
use std::borrow::Cow;
use std::time::Duration;

/// The name of the implicit group, which runs scripts without a process group. A server-wide group
/// of this name replaces it.
pub const IMPLICIT_GROUP: &[u8] = b"default";

/// `user=name` or `user=#uid`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserRef {
    Name(Vec<u8>),
    Id(u32),
}

/// `group=name` or `group=#gid`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupRef {
    Name(Vec<u8>),
    Id(u32),
}

/// One WSGIDaemonProcess.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonGroup {
    pub name: Vec<u8>,
    pub options: GroupOptions,
}

/// The options of a group. `None` means off, or the value of the server. A time of 0 in the
/// configuration is `None` unless the field says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupOptions {
    pub user: Option<UserRef>,
    pub group: Option<GroupRef>,
    /// `None`: the groups that the system assigns to the user. `Some`: exactly these, besides the
    /// primary group.
    pub supplementary_groups: Option<Vec<GroupRef>>,
    /// The maximum.
    pub processes: u32,
    /// MIN of `processes=MIN-MAX`; `None`: the number is fixed.
    pub least_processes: Option<u32>,
    pub reload: Reload,
    /// Workers are forked from a fork server that has imported the application.
    pub preload: bool,
    /// `processes=` is given, which makes wsgi.multiprocess true, even as `processes=1`.
    pub processes_given: bool,
    /// 0: no request threads; the process only runs its WSGIImportScript.
    pub threads: u32,
    pub umask: Option<u32>,
    pub chroot: Option<Vec<u8>>,
    pub home: Option<Vec<u8>>,
    pub lang: Option<Vec<u8>>,
    pub locale: Option<Vec<u8>>,
    pub python: Option<Vec<u8>>,
    pub python_home: Option<Vec<u8>>,
    pub python_path: Vec<Vec<u8>>,
    pub python_eggs: Option<Vec<u8>>,
    pub switch_interval: Option<Duration>,
    pub stack_size: Option<u64>,
    pub maximum_requests: Option<u32>,
    pub startup_timeout: Option<Duration>,
    /// Zero: no waiting.
    pub shutdown_timeout: Duration,
    pub deadlock_timeout: Option<Duration>,
    pub inactivity_timeout: Option<Duration>,
    pub request_timeout: Option<Duration>,
    pub interrupt_timeout: Option<Duration>,
    /// Zero: no waiting.
    pub graceful_timeout: Duration,
    /// `None`: the graceful timeout.
    pub eviction_timeout: Option<Duration>,
    pub restart_interval: Option<Duration>,
    /// `None`: the server's `Timeout`.
    pub socket_timeout: Option<Duration>,
    /// `None`: the socket timeout.
    pub response_socket_timeout: Option<Duration>,
    pub queue_timeout: Option<Duration>,
    pub listen_backlog: u32,
    /// Waiting requests beyond this number are refused at once.
    pub queue_depth: Option<u32>,
    pub display_name: Option<Vec<u8>>,
    pub response_buffer_size: u64,
    /// Request bodies up to this size are read completely before the request is queued.
    pub request_buffer_size: u64,
    pub script_user: Option<UserRef>,
    pub script_group: Option<GroupRef>,
    pub cpu_time_limit: Option<Duration>,
    pub cpu_priority: i32,
    pub memory_limit: Option<u64>,
    /// A worker above this is replaced when its requests are done.
    pub memory_soft: Option<u64>,
    pub virtual_memory_limit: Option<u64>,
    /// Other processes of the same user may trace the workers, and a crash may leave a core dump.
    pub dumpable: bool,
    /// How many application groups may have processes in this group.
    /// `None`: [`MAX_APPLICATION_GROUPS`], or as many as the configuration names.
    pub max_application_groups: Option<u32>,
}

/// Application groups of a group, unless its option or the configuration's own names say otherwise.
pub const MAX_APPLICATION_GROUPS: u32 = 32;

impl Default for GroupOptions {
    fn default() -> Self {
        Self {
            user: None,
            group: None,
            supplementary_groups: None,
            processes: 1,
            least_processes: None,
            reload: Reload::Overlap,
            preload: false,
            processes_given: false,
            threads: 15,
            umask: None,
            chroot: None,
            home: None,
            lang: None,
            locale: None,
            python: None,
            python_home: None,
            python_path: Vec::new(),
            python_eggs: None,
            switch_interval: None,
            stack_size: None,
            maximum_requests: None,
            startup_timeout: None,
            shutdown_timeout: Duration::from_secs(5),
            deadlock_timeout: Some(Duration::from_secs(300)),
            inactivity_timeout: None,
            request_timeout: None,
            interrupt_timeout: None,
            graceful_timeout: Duration::from_secs(15),
            eviction_timeout: None,
            restart_interval: None,
            socket_timeout: None,
            response_socket_timeout: None,
            queue_timeout: None,
            listen_backlog: 100,
            queue_depth: None,
            display_name: None,
            response_buffer_size: 8 << 20,
            request_buffer_size: 1 << 20,
            script_user: None,
            script_group: None,
            cpu_time_limit: None,
            cpu_priority: 0,
            memory_limit: None,
            memory_soft: None,
            virtual_memory_limit: None,
            dumpable: false,
            max_application_groups: None,
        }
    }
}

/// `N`, or `MIN-MAX` with MIN from 0. Returns MIN, if it is a range, and MAX.
pub fn processes(value: &[u8]) -> Parsed<(Option<u32>, u32)> {
    const MOST: u32 = 65535;
    let number = |digits: &[u8], min: u32| {
        let digits = Some(digits).filter(|d| !d.is_empty() && d.iter().all(u8::is_ascii_digit));
        digits.and_then(|d| str::from_utf8(d).ok()?.parse().ok()).filter(|n| (min..=MOST).contains(n))
    };
    let mut parts = value.splitn(2, |&b| b == b'-');
    let parsed = match (parts.next(), parts.next()) {
        (Some(least), Some(most)) => number(least, 0).zip(number(most, 1)).filter(|(l, m)| l <= m).map(|(l, m)| (Some(l), m)),
        (Some(most), None) => number(most, 1).map(|m| (None, m)),
        _ => None,
    };
    parsed.ok_or(Cow::Borrowed(PROCESSES))
}

/// Describes the values of `processes=`.
pub const PROCESSES: &str = "a number from 1 to 65535, or MIN-MAX such as 0-8 or 2-10";

/// `overlap` or `rolling`.
pub fn reload(value: &[u8]) -> Parsed<Reload> {
    match value {
        b"overlap" => Ok(Reload::Overlap),
        b"rolling" => Ok(Reload::Rolling),
        _ => Err(Cow::Borrowed("overlap or rolling")),
    }
}

/// `name` or `#number`.
fn name_or_id<T>(value: &[u8], name: fn(Vec<u8>) -> T, id: fn(u32) -> T, expected: &'static str) -> Parsed<T> {
    let parsed = match value.strip_prefix(b"#") {
        // The largest number is -1, which means "unchanged" to the system calls.
        Some(digits) if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
            str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).filter(|&number| number != u32::MAX).map(id)
        }
        Some(_) => None,
        None if value.is_empty() => None,
        None => Some(name(value.to_vec())),
    };
    parsed.ok_or(Cow::Borrowed(expected))
}

/// The user that workers run as. root is refused by name and by number, and again when the name is
/// looked up.
pub fn run_as(value: &[u8]) -> Parsed<UserRef> {
    const EXPECTED: &str = "the name of a user or #uid, but not root: a web application must not run as root";
    match user(value)? {
        UserRef::Id(0) => Err(Cow::Borrowed(EXPECTED)),
        UserRef::Name(name) if name == b"root" => Err(Cow::Borrowed(EXPECTED)),
        other => Ok(other),
    }
}

/// Any user.
pub fn user(value: &[u8]) -> Parsed<UserRef> {
    name_or_id(value, UserRef::Name, UserRef::Id, "the name of a user or #uid")
}

/// Any group.
pub fn group(value: &[u8]) -> Parsed<GroupRef> {
    name_or_id(value, GroupRef::Name, GroupRef::Id, "the name of a group or #gid")
}

/// Groups separated by commas. The list may be empty.
pub fn groups(value: &[u8]) -> Parsed<Vec<GroupRef>> {
    if value.is_empty() {
        return Ok(Vec::new());
    }
    value.split(|&b| b == b',').map(|item| group(item).map_err(|_| Cow::Borrowed("names of groups or #gid, separated by commas"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups() {
        assert_eq!(run_as(b"www-data"), Ok(UserRef::Name(b"www-data".to_vec())));
        assert_eq!(run_as(b"#33"), Ok(UserRef::Id(33)));
        for bad in ["", "root", "#0", "#00", "#", "#-1", "#x", "#4294967295", "#99999999999"] {
            assert!(run_as(bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(user(b"root"), Ok(UserRef::Name(b"root".to_vec())), "a script may belong to root");
        assert_eq!(groups(b"a,#5"), Ok(vec![GroupRef::Name(b"a".to_vec()), GroupRef::Id(5)]));
        assert_eq!(groups(b""), Ok(vec![]));
        assert!(groups(b"a,,b").is_err() && groups(b",").is_err());
    }

    #[test]
    fn sizes() {
        assert_eq!(processes(b"4"), Ok((None, 4)));
        assert_eq!(processes(b"0-8"), Ok((Some(0), 8)));
        assert_eq!(processes(b"2-2"), Ok((Some(2), 2)));
        for bad in ["", "0", "-", "1-", "-1", "3-2", "0-0", "1-65536", "1-2-3", "+1", " 1", "x"] {
            assert!(processes(bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!((reload(b"rolling"), reload(b"Rolling").is_err()), (Ok(Reload::Rolling), true));
    }

    #[test]
    fn defaults_are_those_of_mod_wsgi() {
        let options = GroupOptions::default();
        assert_eq!((options.processes, options.processes_given, options.threads), (1, false, 15));
        assert_eq!(options.shutdown_timeout, Duration::from_secs(5));
        assert_eq!(options.deadlock_timeout, Some(Duration::from_secs(300)));
        assert_eq!(options.graceful_timeout, Duration::from_secs(15));
        assert_eq!((options.listen_backlog, options.response_buffer_size), (100, 8388608));
        assert_eq!(options.max_application_groups, None);
    }
}
