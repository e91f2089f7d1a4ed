//! The configuration as a running server uses it: every default applied, every name looked up.
//!
//! Responsible for: which groups there are, what droverd is told of each, what each request must know. Must never: touch
//! httpd or the system (users and files are looked up by the [`System`] it is given). Called by: `httpd::lifecycle`.
use crate::config::group::{GroupSpec as GroupName, UserSpec};
use crate::config::suggest::nearest;
use crate::config::{
    AliasPattern, DaemonGroup, Expr, GroupChoice, GroupOptions, HashSeed, IMPLICIT_GROUP, ImportScript, MaxWaiting, ScriptAlias,
    ServerConfig,
};
use crate::messages::Code;
use drover_sys::users::User;
use drover_wire::control::{GroupSpec, Identity, Preload, Script, WorkerOptions};
use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

/// What a request must know of its group. Times in nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Defined in a virtual host: only hosts with this ServerName may use it.
    pub only_for: Option<Vec<u8>>,
    /// Longest wait for a process to take the request.
    pub queue_timeout_ns: Option<u64>,
    /// Longest run.
    pub request_timeout_ns: Option<u64>,
    /// Longest silence; `None`: the server's Timeout.
    pub socket_timeout_ns: Option<u64>,
    /// Owner that the script's file must have.
    pub script_uid: Option<u32>,
    /// Group that the script's file must have.
    pub script_gid: Option<u32>,
    /// chroot=, where it has an effect.
    pub root: Option<Vec<u8>>,
    /// Requests that the group's processes run at once, when all of them are up.
    pub capacity: u64,
    /// More waiting requests than this are refused; `None`: they wait.
    pub queue_depth: Option<u64>,
    /// More waiting requests than this wait outside of the queue.
    pub listen_backlog: u64,
    /// Bytes of an answer that are taken over from the process while the client is slow.
    pub answer_buffer: usize,
    /// Request bodies up to this length are read before the request is put on the queue.
    pub body_buffer: u64,
}

impl Group {
    /// A script's path as the group's processes see it; `None` when it lies outside of their root.
    #[must_use]
    pub fn inside<'p>(&self, path: &'p [u8]) -> Option<&'p [u8]> {
        self.root.as_deref().map_or(Some(path), |root| behind_root(root, path))
    }
}

/// What of a path is behind a root directory: as in mod_wsgi, configurations name scripts as httpd sees them.
fn behind_root<'p>(root: &[u8], path: &'p [u8]) -> Option<&'p [u8]> {
    path.strip_prefix(root.strip_suffix(b"/").unwrap_or(root)).filter(|rest| rest.starts_with(b"/"))
}

/// Every group by its name.
#[derive(Debug, Default)]
pub struct Resolved {
    groups: HashMap<Vec<u8>, Group>,
    implicit_name: Vec<u8>,
    implicit_said: Option<drover_sys::shared::Flag>,
    max_waiting: Option<MaxWaiting>,
}

/// Why a request cannot have the group it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupError {
    /// No such group.
    Unknown(Vec<u8>),
    /// Defined in another virtual host.
    Elsewhere(Vec<u8>, Vec<u8>),
}

impl GroupError {
    /// The code of its log line.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Unknown(_) => Code::UnknownGroup,
            Self::Elsewhere(..) => Code::GroupElsewhere,
        }
    }
}

impl fmt::Display for GroupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => write!(f, "no WSGIDaemonProcess defines the group '{}'", name.escape_ascii()),
            Self::Elsewhere(name, host) => write!(
                f,
                "the group '{}' is defined in the virtual host {} and can be used by hosts of that ServerName only",
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

    /// DroverMaxWaiting for a group of this capacity, where httpd has `slots` threads in all; `None`: no limit.
    #[must_use]
    pub fn most_of_a_group(&self, capacity: u64, slots: u64) -> Option<u64> {
        match self.max_waiting {
            Some(MaxWaiting::Off) => None,
            Some(MaxWaiting::Requests(n)) => Some(n.into()),
            // The implicit group is there in any case; a site of one group of its own has nobody to protect.
            None => (self.groups.keys().filter(|name| **name != self.implicit_name).count() > 1).then(|| capacity.max(slots / 4 * 3)),
        }
    }

    /// True for the first request of the server that runs in the implicit group.
    #[must_use]
    pub fn first_implicit(&self) -> bool {
        self.implicit_said.as_ref().is_some_and(drover_sys::shared::Flag::set)
    }
}

/// One server (the main one or a virtual host) with its configuration, merged by httpd.
#[derive(Debug, Clone, Copy)]
pub struct Server<'a> {
    /// Its configuration.
    pub config: &'a ServerConfig,
    /// ServerName.
    pub name: &'a [u8],
    /// Whether it is a virtual host.
    pub is_virtual: bool,
    /// Which error log it has.
    pub log: u16,
    /// Its LogLevel.
    pub log_level: u8,
}

/// What is asked of the system.
pub trait System {
    /// A user by name.
    fn user_by_name(&self, name: &[u8]) -> Option<User>;
    /// A user by number.
    fn user_by_id(&self, uid: u32) -> Option<User>;
    /// A group's number.
    fn group_by_name(&self, name: &[u8]) -> Option<u32>;
    /// Whether a path is an executable file.
    fn is_executable(&self, path: &[u8]) -> bool;
    /// Whether a path is a directory.
    fn is_directory(&self, path: &[u8]) -> bool;
    /// The server runs and reads its configuration again. A directory or an interpreter that has gone meanwhile must not end it: the old
    /// processes go on serving, and droverd says why no new ones can be started.
    fn is_running(&self) -> bool;
    /// Whether nothing is there, for certain.
    fn is_missing(&self, path: &[u8]) -> bool;
    /// Processors.
    fn cores(&self) -> u32;
    /// PATH of httpd.
    fn path(&self) -> Vec<Vec<u8>>;
    /// httpd's own User and Group; `None`: httpd does not run as root.
    fn httpd_identity(&self) -> Option<(u32, u32)>;
}

/// What cannot work, of which directive; the caller knows where that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The directive.
    pub directive: &'static str,
    /// Its first argument.
    pub argument: Vec<u8>,
    /// What is wrong, and what to do.
    pub what: String,
}

impl Problem {
    /// Of a directive and its first argument.
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

/// Resolves every server's groups. The first server is the main one.
pub fn resolve(servers: &[Server<'_>], system: &dyn System) -> Result<(Resolved, Vec<GroupSpec>), Problem> {
    // A server-wide group called `default` takes the implicit one's place; a virtual host's own must not.
    let is_taken = |wide: bool| servers.iter().any(|s| s.is_virtual != wide && s.config.groups.iter().any(|g| g.name == IMPLICIT_GROUP));
    let implicit_name = if is_taken(false) { b"%{GLOBAL}".to_vec() } else { IMPLICIT_GROUP.to_vec() };
    let mut resolved = Resolved {
        groups: HashMap::new(),
        implicit_name,
        implicit_said: drover_sys::shared::Flag::new().ok(),
        max_waiting: servers.first().and_then(|s| s.config.max_waiting),
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
            // Nobody has asked for this group; it must not keep a server from starting whose groups are all explicit.
            Err(_) => {}
        }
        resolved.groups.insert(name, limits(main, &options, system)?);
    }
    Ok((resolved, specs))
}

/// Whether what a group names exists: users, directories, the interpreter it names itself.
pub fn check(group: &DaemonGroup, system: &dyn System) -> Result<(), Problem> {
    let o = &group.options;
    let who = identity(&group.name, o, system)?;
    if o.user.is_some() && who.is_some_and(|i| i.uid == 0) {
        return Err(Problem::group(&group.name, "user=: a group cannot run as root".into()));
    }
    directories(&group.name, o, system)?;
    if o.python.is_some() || o.python_home.is_some() {
        interpreter(&group.name, o, None, system)?;
    }
    Ok(())
}

/// What a directive has just added.
#[derive(Debug, Clone, Copy, Default)]
pub struct Added<'a> {
    /// WSGIDaemonProcess.
    pub groups: &'a [DaemonGroup],
    /// WSGIScriptAlias.
    pub aliases: &'a [ScriptAlias],
    /// WSGIImportScript.
    pub imports: &'a [ImportScript],
    /// WSGIPythonHome.
    pub python_home: Option<&'a Vec<u8>>,
}

/// What of that is not there, though a server can start without it, as with mod_wsgi.
pub fn missing(added: &Added<'_>, system: &dyn System) -> Vec<String> {
    let mut said = Vec::new();
    for group in added.groups {
        let root = group.options.chroot.as_deref().unwrap_or_default();
        let gone = group.options.python_path.iter().filter(|path| system.is_missing(&[root, path.as_slice()].concat()));
        said.extend(gone.map(|path| format!("WSGIDaemonProcess {}: python-path={}: it is not there", shown(&group.name), shown(path))));
    }
    let fixed = |alias: &&ScriptAlias| matches!(alias.pattern, AliasPattern::Prefix(_)) || !alias.target.contains(&b'$');
    let of_aliases = added.aliases.iter().filter(fixed).map(|alias| &alias.target);
    let scripts = of_aliases.chain(added.imports.iter().filter(|import| !import.from_alias).map(|import| &import.script));
    said.extend(
        scripts
            .filter(|path| path.starts_with(b"/") && system.is_missing(path))
            .map(|path| format!("the script {} is not there", shown(path))),
    );
    let no_python =
        |home: &&Vec<u8>| [b"/bin/python3".as_slice(), b"/bin/python"].iter().all(|tail| !system.is_executable(&[home, *tail].concat()));
    said.extend(added.python_home.filter(no_python).map(|home| {
        format!("WSGIPythonHome {0}: there is no {0}/bin/python3, so groups without python-home= and python= cannot start", shown(home))
    }));
    said
}

/// What is wrong with a group that a directive of the host `server_name` (`None`: outside of all) names for all requests; `None`: nothing.
#[must_use]
pub fn doubt(resolved: &Resolved, server_name: Option<&[u8]>, name: &[u8]) -> Option<String> {
    match (resolved.group_for(server_name.unwrap_or_default(), name), server_name) {
        // What stands outside of all virtual hosts is inherited by the one that may use the group.
        (Ok(_), _) | (Err(GroupError::Elsewhere(..)), None) => None,
        (Err(error @ GroupError::Elsewhere(..)), _) => Some(error.to_string()),
        (Err(error), _) => {
            let mut names: Vec<&Vec<u8>> = resolved.groups.keys().collect();
            names.sort();
            let guess = nearest(name, names).map(|near: &Vec<u8>| format!(", did you mean '{}'?", shown(near)));
            Some(format!("{error}{}", guess.unwrap_or_default()))
        }
    }
}

fn shown(text: &[u8]) -> std::slice::EscapeAscii<'_> {
    text.escape_ascii()
}

fn directories(name: &[u8], o: &GroupOptions, system: &dyn System) -> Result<(), Problem> {
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

fn ns(time: Option<Duration>) -> Option<u64> {
    time.filter(|t| !t.is_zero()).map(|t| u64::try_from(t.as_nanos()).unwrap_or(u64::MAX))
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn limits(server: &Server<'_>, o: &GroupOptions, system: &dyn System) -> Result<Group, Problem> {
    Ok(Group {
        only_for: server.is_virtual.then(|| server.name.to_vec()),
        queue_timeout_ns: ns(o.queue_timeout),
        // The worker's own 504 comes first: it has interrupt-timeout to make it.
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

fn find_user(spec: &UserSpec, option: &str, group: &[u8], system: &dyn System) -> Result<User, Problem> {
    match spec {
        UserSpec::Name(name) => system
            .user_by_name(name)
            .ok_or_else(|| Problem::group(group, format!("{option}={}: there is no such user", name.escape_ascii()))),
        UserSpec::Id(uid) => {
            Ok(system.user_by_id(*uid).unwrap_or_else(|| User { uid: *uid, gid: u32::MAX, name: Vec::new(), home: Vec::new() }))
        }
    }
}

fn find_group(spec: &GroupName, option: &str, group: &[u8], system: &dyn System) -> Result<u32, Problem> {
    match spec {
        GroupName::Id(gid) => Ok(*gid),
        GroupName::Name(name) => system
            .group_by_name(name)
            .ok_or_else(|| Problem::group(group, format!("{option}={}: there is no such group", name.escape_ascii()))),
    }
}

/// `user=` alone keeps httpd's Group, as in mod_wsgi.
fn identity(name: &[u8], o: &GroupOptions, system: &dyn System) -> Result<Option<Identity>, Problem> {
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

fn interpreter(name: &[u8], o: &GroupOptions, server_home: Option<&Vec<u8>>, system: &dyn System) -> Result<Vec<u8>, Problem> {
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
                "name a virtual environment or a Python installation, or use python= of WSGIDaemonProcess for an executable";
            let missing = format!("there is no {}/bin/python3", home.escape_ascii());
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
        bad("no python3 is installed in /usr/bin or on httpd's PATH; install one, or name it with python= or python-home=".into())
    })
}

fn specify(
    server: &Server<'_>,
    name: &[u8],
    implicit: bool,
    o: &GroupOptions,
    servers: &[Server<'_>],
    system: &dyn System,
) -> Result<GroupSpec, Problem> {
    let config = server.config;
    let mut environment = Vec::new();
    let mut set = |key: &str, value: Option<&[u8]>| {
        if let Some(value) = value {
            environment.push((key.as_bytes().to_vec(), value.to_vec()));
        }
    };
    set("LANG", o.lang.as_deref());
    set("LC_ALL", o.locale.as_deref());
    set("PYTHON_EGG_CACHE", o.python_eggs.as_deref().or(config.python_eggs.as_deref()));
    let seed = config.hash_seed.map(|seed| match seed {
        HashSeed::Random => "random".to_owned(),
        HashSeed::Fixed(n) => n.to_string(),
    });
    set("PYTHONHASHSEED", seed.as_ref().map(String::as_bytes));
    let mut python_arguments: Vec<Vec<u8>> = Vec::new();
    match config.optimize.unwrap_or(0) {
        0 => {}
        1 => python_arguments.push(b"-O".to_vec()),
        _ => python_arguments.push(b"-OO".to_vec()),
    }
    if config.dont_write_bytecode == Some(true) {
        python_arguments.push(b"-B".to_vec());
    }
    for warning in &config.warnings {
        python_arguments.push([b"-W", warning.as_slice()].concat());
    }
    directories(name, o, system)?;
    let options_for = |application_group: &[u8]| worker_options(name, implicit, o, config, application_group);
    let worker = options_for(b"");
    let mut scoped: Vec<Vec<u8>> = config.scopes.iter().filter_map(|s| s.scope.application_group.clone()).collect();
    scoped.dedup();
    Ok(GroupSpec {
        name: name.to_vec(),
        log: server.log,
        log_level: server.log_level,
        processes: o.processes,
        least_processes: o.least_processes.unwrap_or(o.processes),
        reload: o.reload,
        preload_fork: o.preload,
        multiprocess: o.processes_given || o.processes > 1,
        threads: o.threads,
        identity: identity(name, o, system)?,
        umask: o.umask,
        chroot: o.chroot.clone(),
        home: o.home.clone(),
        environment,
        python: interpreter(name, o, config.python_home.as_ref(), system)?,
        python_arguments,
        cpu_priority: (o.cpu_priority != 0).then_some(o.cpu_priority),
        application_options: scoped.into_iter().map(|a| (a.clone(), options_for(&a))).collect(),
        worker,
        max_application_groups: o.max_application_groups,
        startup_timeout_ms: o.startup_timeout.filter(|t| !t.is_zero()).map(ms),
        graceful_timeout_ms: Some(ms(o.graceful_timeout)),
        shutdown_timeout_ms: ms(o.shutdown_timeout),
        preload: preloads(name, implicit, servers, o.chroot.as_deref().filter(|_| system.httpd_identity().is_some())),
        eviction_timeout_ms: o.eviction_timeout.map(ms),
        inactivity_timeout_ms: o.inactivity_timeout.map(ms),
        restart_interval_ms: o.restart_interval.map(ms),
        memory_soft: o.memory_soft,
        memory_limit: o.memory_limit,
        virtual_memory_limit: o.virtual_memory_limit,
        cpu_time_limit_s: o.cpu_time_limit.map(|t| t.as_secs()),
    })
}

fn worker_options(name: &[u8], implicit: bool, o: &GroupOptions, config: &ServerConfig, application_group: &[u8]) -> WorkerOptions {
    let base = match &config.interpreter.python_path {
        Some(path) if implicit => path.clone(),
        _ => o.python_path.clone(),
    };
    let (interpreter, layers) = config.interpreter_options(name, application_group, &base);
    WorkerOptions {
        // The last layer ends up first in sys.path; within a layer the order is as written.
        python_path: layers.into_iter().rev().flatten().collect(),
        display_name: o.display_name.as_ref().map(|d| if d == b"%{GROUP}" { [b"(wsgi:", name, b")"].concat() } else { d.clone() }),
        stack_size: o.stack_size,
        switch_interval_us: o.switch_interval.or(interpreter.switch_interval).map(|t| u64::try_from(t.as_micros()).unwrap_or(u64::MAX)),
        maximum_requests: o.maximum_requests.map(u64::from).filter(|n| *n > 0),
        request_timeout_ms: o.request_timeout.filter(|t| !t.is_zero()).map(ms),
        interrupt_timeout_ms: o.interrupt_timeout.map(ms),
        deadlock_timeout_ms: o.deadlock_timeout.map(ms),
        restrict_stdin: interpreter.restrict_stdin.unwrap_or(false),
        restrict_stdout: interpreter.restrict_stdout.unwrap_or(false),
        restrict_signal: interpreter.restrict_signal.unwrap_or(true),
        locale: o.locale.clone(),
    }
}

fn group_of<'a>(alias: &'a ScriptAlias, server: &'a Server<'_>) -> Option<&'a Expr> {
    alias.process_group.as_ref().or(server.config.dir.process_group.as_ref())
}

/// Scripts of a group that can be loaded at start: those the configuration says to import, and those whose alias leaves no
/// doubt where they run.
fn preloads(name: &[u8], implicit: bool, servers: &[Server<'_>], root: Option<&[u8]>) -> Vec<Preload> {
    let mut all: Vec<Preload> = Vec::new();
    let mut add = |application_group: &[u8], path: &[u8], callable: &[u8]| {
        let path = root.and_then(|root| behind_root(root, path)).unwrap_or(path);
        let known = all.iter().any(|p| p.application_group == application_group && p.script.path == path);
        if !known {
            let script = Script { path: path.to_vec(), callable: callable.to_vec() };
            all.push(Preload { application_group: application_group.to_vec(), script });
        }
    };
    for server in servers {
        for import in &server.config.imports {
            let runs_here = match &import.process_group {
                GroupChoice::Implicit => implicit,
                GroupChoice::Named(group) => group == name,
            };
            if runs_here {
                add(&import.application_group, &import.script, b"");
            }
        }
        for alias in &server.config.aliases {
            let group = group_of(alias, server).and_then(Expr::fixed);
            let application = alias.application_group.as_ref().or(server.config.dir.application_group.as_ref()).and_then(Expr::fixed);
            let file = matches!(alias.pattern, AliasPattern::Prefix(_)) && !alias.target.ends_with(b"/");
            if let (Some(group), Some(application), true) = (group, application, file)
                && group == name
            {
                add(application, &alias.target, b"");
            }
        }
    }
    all
}

#[cfg(test)]
#[path = "resolved_tests.rs"]
mod tests;
