//! Looks up what a configuration names in the system: users and groups, directories, the
//! interpreter.
//!
//! Responsible for: refusing what does not exist, with the directive that names it and what to do.
//! Must never: ask the system other than through [`System`]. Called by: `resolved`, and
//! `httpd::commands` for each group that it reads.
use crate::group::{GroupRef, UserRef};
use crate::{DaemonGroup, GroupOptions};
use drover_wire::control::Identity;
use std::fmt;

/// A user of the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Number.
    pub uid: u32,
    /// Number of the primary group.
    pub gid: u32,
    /// Name; empty when the number has none.
    pub name: Vec<u8>,
    /// Home directory.
    pub home: Vec<u8>,
}

/// The numbers by which the kernel checks what a process may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// How a process uses a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reads a file, or passes through a directory.
    Use,
    /// Runs a program.
    Run,
}

/// A flag that all processes of one server share: true at the first call, false from then on.
pub struct FirstTime(pub Box<dyn Fn() -> bool + Send + Sync>);

impl FirstTime {
    /// Whether this is the first call.
    #[must_use]
    pub fn is_first(&self) -> bool {
        (self.0)()
    }
}

impl fmt::Debug for FirstTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FirstTime")
    }
}

/// What the configuration asks the system.
pub trait System {
    /// A user by name.
    fn user_by_name(&self, name: &[u8]) -> Option<Account>;
    /// A user by number.
    fn user_by_id(&self, uid: u32) -> Option<Account>;
    /// A group's number.
    fn group_by_name(&self, name: &[u8]) -> Option<u32>;
    /// Whether a path is an executable file.
    fn is_executable(&self, path: &[u8]) -> bool;
    /// Whether a path is a directory.
    fn is_directory(&self, path: &[u8]) -> bool;
    /// Whether the server runs already and reads its configuration again. A directory or an
    /// interpreter that was removed since must not end it: the old workers continue to serve, and
    /// droverd logs why no new ones can start.
    fn is_running(&self) -> bool;
    /// Whether the path certainly does not exist.
    fn is_missing(&self, path: &[u8]) -> bool;
    /// The number of processors.
    fn cores(&self) -> u32;
    /// The directories of httpd's `PATH`.
    fn path(&self) -> Vec<Vec<u8>>;
    /// httpd's own `User` and `Group`; `None`: httpd does not run as root.
    fn httpd_identity(&self) -> Option<(u32, u32)>;
    /// The supplementary groups that the system assigns to a user.
    fn groups_of(&self, user: &[u8], gid: u32) -> Vec<u32>;
    /// The credentials of the calling process.
    fn own(&self) -> Credentials;
    /// What denies a user access to a path, as far as the modes of files show.
    fn barrier(&self, who: &Credentials, path: &[u8], access: Access) -> Option<String>;
    /// The version of a Python interpreter, if the name of its file shows it.
    fn python_version(&self, path: &[u8]) -> Option<(u32, u32)>;
    /// A new flag.
    fn first_time(&self) -> FirstTime;
}

/// A directive that cannot work. The caller adds its file and line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The directive.
    pub directive: &'static str,
    /// Its first argument.
    pub argument: Vec<u8>,
    /// What is wrong and what to do.
    pub what: String,
}

impl Problem {
    /// A problem of a directive, which its first argument identifies.
    #[must_use]
    pub fn new(directive: &'static str, argument: &[u8], what: String) -> Self {
        Self { directive, argument: argument.to_vec(), what }
    }

    fn group(name: &[u8], what: String) -> Self {
        Self::new("WSGIDaemonProcess", name, what)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.directive, self.argument.escape_ascii(), self.what)
    }
}

/// Checks that what a group names exists: users, directories, and its own interpreter.
pub fn check(group: &DaemonGroup, system: &dyn System) -> Result<(), Problem> {
    let o = &group.options;
    let who = identity(&group.name, o, system)?;
    if o.user.is_some() && who.is_some_and(|i| i.uid == 0) {
        return Err(Problem::group(&group.name, "user=: a group must not run as root".into()));
    }
    directories(&group.name, o, system)?;
    if o.python.is_some() || o.python_home.is_some() {
        interpreter(&group.name, o, None, system)?;
    }
    Ok(())
}

pub(super) fn directories(name: &[u8], o: &GroupOptions, system: &dyn System) -> Result<(), Problem> {
    for (option, dir) in [("chroot", &o.chroot), ("home", &o.home)] {
        let Some(dir) = dir else { continue };
        let seen = match &o.chroot {
            Some(root) if option == "home" => [root.as_slice(), dir].concat(),
            _ => dir.clone(),
        };
        if !system.is_directory(&seen) && !system.is_running() {
            return Err(Problem::group(name, format!("{option}={}: not a directory", dir.escape_ascii())));
        }
    }
    Ok(())
}

/// The credentials of a group's workers.
pub(super) fn credentials(identity: Option<&Identity>, system: &dyn System) -> Credentials {
    let Some(i) = identity else { return system.own() };
    let groups = i.supplementary.clone().unwrap_or_else(|| match i.user.as_slice() {
        b"" => Vec::new(),
        user => system.groups_of(user, i.gid),
    });
    Credentials { uid: i.uid, gid: i.gid, groups }
}

/// Refuses a group whose workers certainly cannot start: their user may not enter `home=` or run
/// the interpreter, or the interpreter is too old. A group with `chroot=` is not checked, as its
/// paths start at another root.
pub(super) fn may_start(name: &[u8], o: &GroupOptions, python: &[u8], who: &Credentials, system: &dyn System) -> Result<(), Problem> {
    if o.chroot.is_some() || system.is_running() {
        return Ok(());
    }
    let closed = |option: &str, path: &[u8], access| match system.barrier(who, path, access) {
        Some(barrier) => Err(Problem::group(name, format!("{option}{}: {barrier}", path.escape_ascii()))),
        None => Ok(()),
    };
    if let Some(home) = &o.home {
        closed("home=", home, Access::Use)?;
    }
    let option = match (&o.python, &o.python_home) {
        (Some(_), _) => "python=",
        (None, Some(_)) => "the interpreter of python-home=, ",
        _ => "the interpreter ",
    };
    closed(option, python, Access::Run)?;
    match system.python_version(python).filter(|version| *version < OLDEST_PYTHON) {
        Some((major, minor)) => Err(Problem::group(
            name,
            format!("python {major}.{minor} at {} is too old; mod_drover needs 3.9 or newer", python.escape_ascii()),
        )),
        None => Ok(()),
    }
}

/// The oldest Python that the worker's extension is built for (`abi3-py39`).
const OLDEST_PYTHON: (u32, u32) = (3, 9);

pub(super) fn find_user(spec: &UserRef, option: &str, group: &[u8], system: &dyn System) -> Result<Account, Problem> {
    match spec {
        UserRef::Name(name) => {
            system.user_by_name(name).ok_or_else(|| Problem::group(group, format!("{option}={}: no such user", name.escape_ascii())))
        }
        UserRef::Id(uid) => {
            Ok(system.user_by_id(*uid).unwrap_or_else(|| Account { uid: *uid, gid: u32::MAX, name: Vec::new(), home: Vec::new() }))
        }
    }
}

pub(super) fn find_group(spec: &GroupRef, option: &str, group: &[u8], system: &dyn System) -> Result<u32, Problem> {
    match spec {
        GroupRef::Id(gid) => Ok(*gid),
        GroupRef::Name(name) => {
            system.group_by_name(name).ok_or_else(|| Problem::group(group, format!("{option}={}: no such group", name.escape_ascii())))
        }
    }
}

/// The user and groups of the workers. `user=` alone keeps httpd's `Group`, as in mod_wsgi.
pub(super) fn identity(name: &[u8], o: &GroupOptions, system: &dyn System) -> Result<Option<Identity>, Problem> {
    let user = o.user.as_ref().map(|u| find_user(u, "user", name, system)).transpose()?;
    let gid = o.group.as_ref().map(|g| find_group(g, "group", name, system)).transpose()?;
    let supplementary = match &o.supplementary_groups {
        None => None,
        Some(all) => Some(all.iter().map(|g| find_group(g, "supplementary-groups", name, system)).collect::<Result<Vec<_>, _>>()?),
    };
    let Some((httpd_uid, httpd_gid)) = system.httpd_identity() else { return Ok(None) };
    let differs = user.as_ref().is_some_and(|u| u.uid != httpd_uid);
    let user = user.or_else(|| system.user_by_id(httpd_uid));
    Ok(Some(Identity {
        uid: user.as_ref().map_or(httpd_uid, |u| u.uid),
        gid: gid.unwrap_or(httpd_gid),
        user: user.as_ref().map(|u| u.name.clone()).unwrap_or_default(),
        home: user.map(|u| u.home).unwrap_or_default(),
        differs,
        supplementary,
    }))
}

pub(super) fn interpreter(name: &[u8], o: &GroupOptions, server_home: Option<&Vec<u8>>, system: &dyn System) -> Result<Vec<u8>, Problem> {
    let within = |path: &[u8]| match &o.chroot {
        Some(root) => [root.as_slice(), path].concat(),
        None => path.to_vec(),
    };
    let bad = |what: String| Problem::group(name, what);
    if let Some(python) = &o.python {
        let ok = system.is_executable(&within(python)) || system.is_running();
        return if ok { Ok(python.clone()) } else { Err(bad(format!("python={}: not an executable file", python.escape_ascii()))) };
    }
    if let Some(home) = o.python_home.as_ref().or(server_home) {
        let candidates = [b"/bin/python3".as_slice(), b"/bin/python"].map(|tail| [home.as_slice(), tail].concat());
        let usual = candidates.first().filter(|_| system.is_running()).cloned();
        return candidates.into_iter().find(|c| system.is_executable(&within(c))).or(usual).ok_or_else(|| {
            const ADVICE: &str =
                "set it to a virtual environment or a Python installation, or name an executable with python= of WSGIDaemonProcess";
            let missing = format!("{}/bin/python3 not found", home.escape_ascii());
            if o.python_home.is_some() {
                bad(format!("python-home={}: {missing}; {ADVICE}", home.escape_ascii()))
            } else {
                let what = format!("{missing}, and the group '{}' has no python-home= of its own; {ADVICE}", name.escape_ascii());
                Problem::new("WSGIPythonHome", home, what)
            }
        });
    }
    let from_path = system.path().into_iter().map(|dir| [dir.as_slice(), b"/python3"].concat());
    let usual = b"/usr/bin/python3".to_vec();
    let found = std::iter::once(usual.clone()).chain(from_path).find(|c| system.is_executable(&within(c)));
    found.or_else(|| system.is_running().then_some(usual)).ok_or_else(|| {
        bad("python3 not found in /usr/bin or on httpd's PATH; install it, or name another one with python= or python-home=".into())
    })
}
