//! The specification of a group for droverd.
//!
//! Responsible for: every option of a group, and every Python setting of its server, with its
//! default. Must never: look anything up; `system` does that. Called by: `resolved`.
use super::system::{Problem, System, credentials, directories, identity, interpreter, may_start};
use super::{Server, behind_root, names};
use crate::{AliasPattern, Expr, GroupChoice, GroupOptions, HashSeed, MAX_APPLICATION_GROUPS, ScriptAlias, ServerConfig};
use drover_wire::control::{GroupSpec, Preload, Program, Script, Target, WorkerOptions};
use std::time::Duration;

/// Makes the specification. `implicit`: the group for scripts that name none.
pub(super) fn specify(
    server: &Server<'_>,
    name: &[u8],
    implicit: bool,
    o: &GroupOptions,
    servers: &[Server<'_>],
    system: &dyn System,
) -> Result<GroupSpec, Problem> {
    let config = server.config;
    directories(name, o, system)?;
    let identity = identity(name, o, system)?;
    let python = interpreter(name, o, config.python_home.as_ref(), system)?;
    may_start(name, o, &python, &credentials(identity.as_ref(), system), system)?;
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
        identity,
        umask: o.umask,
        chroot: o.chroot.clone(),
        home: o.home.clone(),
        environment: environment(o, config),
        program: Program::Python { interpreter: python, arguments: python_arguments(config) },
        cpu_priority: (o.cpu_priority != 0).then_some(o.cpu_priority),
        application_options: scoped.into_iter().map(|a| (a.clone(), options_for(&a))).collect(),
        worker,
        max_application_groups: o
            .max_application_groups
            .unwrap_or_else(|| MAX_APPLICATION_GROUPS.max(names::possible(name, implicit, servers))),
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

/// Environment variables of the group's workers that the configuration sets.
fn environment(o: &GroupOptions, config: &ServerConfig) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    let mut set = |key: &str, value: Option<&[u8]>| {
        if let Some(value) = value {
            all.push((key.as_bytes().to_vec(), value.to_vec()));
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
    all
}

fn python_arguments(config: &ServerConfig) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    match config.optimize.unwrap_or(0) {
        0 => {}
        1 => all.push(b"-O".to_vec()),
        _ => all.push(b"-OO".to_vec()),
    }
    if config.dont_write_bytecode == Some(true) {
        all.push(b"-B".to_vec());
    }
    for warning in &config.warnings {
        all.push([b"-W", warning.as_slice()].concat());
    }
    all
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn worker_options(name: &[u8], implicit: bool, o: &GroupOptions, config: &ServerConfig, application_group: &[u8]) -> WorkerOptions {
    let base = match &config.interpreter.python_path {
        Some(path) if implicit => path.clone(),
        _ => o.python_path.clone(),
    };
    let (interpreter, layers) = config.interpreter_options(name, application_group, &base);
    WorkerOptions {
        // The last layer comes first in sys.path. Within a layer the order is as written.
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
        dumpable: o.dumpable,
        restrict_signal: interpreter.restrict_signal.unwrap_or(true),
        locale: o.locale.clone(),
        ignore_case: config.case_sensitivity == Some(false),
    }
}

/// The process group of an alias: its own option, else the server's.
pub(super) fn group_of<'a>(alias: &'a ScriptAlias, server: &'a Server<'_>) -> Option<&'a Expr> {
    alias.process_group.as_ref().or(server.config.dir.process_group.as_ref())
}

/// The scripts that a group loads at start: imported ones, and those whose alias fixes where they
/// run.
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
            let file = matches!(alias.pattern, AliasPattern::Prefix(_)) && names_a_file(alias);
            let certain = !server.sections_choose || (alias.process_group.is_some() && alias.application_group.is_some());
            if let (Some(group), Some(application), true) = (group, application, file && certain)
                && group == name
            {
                add(application, &alias.target, b"");
            }
        }
    }
    all
}

/// Whether an alias leads to one script, as far as its target can say.
pub(super) fn names_a_file(alias: &ScriptAlias) -> bool {
    let varies = matches!(alias.pattern, AliasPattern::Regex(_)) && alias.target.contains(&b'$');
    !varies && !alias.target.ends_with(b"/")
}

/// The scripts that aliases name. Which group they run in is known only where the alias itself says so: `<Directory>` and
/// `<Location>` overrule the server.
pub(super) fn targets(servers: &[Server<'_>], implicit: &[u8]) -> Vec<Target> {
    let aliases = servers.iter().flat_map(|server| &server.config.aliases).filter(|alias| names_a_file(alias));
    let named = |name: &[u8]| if name.is_empty() { implicit.to_vec() } else { name.to_vec() };
    let mut all: Vec<Target> = aliases
        .map(|alias| Target {
            path: alias.target.clone(),
            group: alias.process_group.as_ref().and_then(Expr::fixed).map(named),
            application_group: alias.application_group.as_ref().and_then(Expr::fixed).map(<[u8]>::to_vec),
        })
        .collect();
    all.sort_by(|a, b| (&a.path, &a.group, &a.application_group).cmp(&(&b.path, &b.group, &b.application_group)));
    all.dedup();
    all
}
