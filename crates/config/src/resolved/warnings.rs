//! Warnings: what a server can start with, as with mod_wsgi, but what will fail at run time.
//!
//! Responsible for: warning the administrator at start instead of at the first request. Must never:
//! refuse anything. Called by: `httpd::commands` for each directive, `httpd::lifecycle` for the
//! whole configuration.
use super::spec::group_of;
use super::system::{Access, Problem, credentials};
use super::{GroupError, Resolved, Server, System};
use crate::suggest::nearest;
use crate::{Added, AliasPattern, GroupChoice, ScriptAlias};
use drover_wire::control::GroupSpec;

/// What a directive names and the system lacks. A server can start without it, as with mod_wsgi.
pub fn missing(added: &Added, system: &dyn System) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(group) = &added.group {
        let root = group.options.chroot.as_deref().unwrap_or_default();
        let gone = group.options.python_path.iter().filter(|path| system.is_missing(&[root, path.as_slice()].concat()));
        warnings.extend(gone.map(|path| format!("WSGIDaemonProcess {}: python-path={}: not found", shown(&group.name), shown(path))));
    }
    let varies = |alias: &ScriptAlias| matches!(alias.pattern, AliasPattern::Regex(_)) && alias.target.contains(&b'$');
    let alias = added.alias.as_ref().filter(|alias| !varies(alias)).map(|alias| &alias.target);
    for path in alias.into_iter().chain(added.import.as_ref().map(|import| &import.script)) {
        if path.starts_with(b"/") && system.is_missing(path) {
            warnings.push(format!("script {}: not found", shown(path)));
        }
    }
    // Without the slashes the directory would be read as a script.
    if let Some(path) = alias.filter(|path| !path.ends_with(b"/") && system.is_directory(path)) {
        warnings.push(format!("script {}: is a directory; to map a directory of scripts, end both paths with a slash", shown(path)));
    }
    let has_python =
        |home: &Vec<u8>| [b"/bin/python3".as_slice(), b"/bin/python"].iter().any(|tail| system.is_executable(&[home, *tail].concat()));
    if let Some(home) = added.python_home.as_ref().filter(|home| !has_python(home)) {
        warnings.push(format!(
            "WSGIPythonHome {0}: {0}/bin/python3 not found, so groups without python-home= and python= cannot start",
            shown(home)
        ));
    }
    warnings
}

/// A warning about a group that a directive names for all requests but that its requests cannot
/// use.
///
/// `server_name` is the virtual host of the directive; `None`: outside of all virtual hosts.
#[must_use]
pub fn group_warning(resolved: &Resolved, server_name: Option<&[u8]>, name: &[u8]) -> Option<String> {
    match (resolved.group_for(server_name.unwrap_or_default(), name), server_name) {
        // A directive outside of all virtual hosts is inherited by the one that may use the group.
        (Ok(_), _) | (Err(GroupError::Elsewhere(..)), None) => None,
        (Err(error @ GroupError::Elsewhere(..)), _) => Some(error.to_string()),
        (Err(error), _) => {
            let mut names: Vec<&Vec<u8>> = resolved.groups.keys().collect();
            names.sort();
            let guess = nearest(name, names).map(|near: &Vec<u8>| format!("; did you mean '{}'?", shown(near)));
            Some(format!("{error}{}", guess.unwrap_or_default()))
        }
    }
}

/// Scripts and directories of `python-path=` that the user of their group may not read. The group
/// starts without them.
#[must_use]
pub fn unreadable(servers: &[Server<'_>], specs: &[GroupSpec], implicit_name: &[u8], system: &dyn System) -> Vec<Problem> {
    let has_hosts = servers.iter().any(|server| server.is_virtual);
    let mut problems = Vec::new();
    // With chroot= the paths start at another root.
    for spec in specs.iter().filter(|spec| spec.chroot.is_none()) {
        let who = credentials(spec.identity.as_ref(), system);
        let mut look = |directive, argument: &[u8], option: &str, path: &[u8]| {
            if let Some(barrier) = system.barrier(&who, path, Access::Use) {
                problems.push(Problem::new(directive, argument, format!("{option}{}: {barrier}", shown(path))));
            }
        };
        let is_implicit = spec.name == implicit_name;
        for path in &spec.worker.python_path {
            let (directive, argument) = if is_implicit { ("WSGIPythonPath", path) } else { ("WSGIDaemonProcess", &spec.name) };
            look(directive, argument, if is_implicit { "" } else { "python-path=" }, path);
        }
        for server in servers {
            // Virtual hosts inherit the main server's aliases, and may run them in other groups.
            let decides = !server.sections_choose && (server.is_virtual || !has_hosts);
            for alias in server.config.aliases.iter().filter(|alias| decides || alias.process_group.is_some()) {
                let AliasPattern::Prefix(location) = &alias.pattern else { continue };
                let runs_here = match group_of(alias, server) {
                    None => is_implicit,
                    Some(expr) => expr.fixed().is_some_and(|name| name == spec.name || (name.is_empty() && is_implicit)),
                };
                if runs_here {
                    look("WSGIScriptAlias", location, "script ", &alias.target);
                }
            }
            for import in server.config.imports.iter().filter(|import| !import.from_alias) {
                let runs_here = match &import.process_group {
                    GroupChoice::Implicit => is_implicit,
                    GroupChoice::Named(name) => *name == spec.name,
                };
                if runs_here {
                    look("WSGIImportScript", &import.script, "script ", &import.script);
                }
            }
        }
    }
    // A virtual host inherits the aliases of the main server.
    let mut known: Vec<Problem> = Vec::new();
    problems.into_iter().for_each(|problem| {
        if !known.contains(&problem) {
            known.push(problem);
        }
    });
    known
}

fn shown(text: &[u8]) -> std::slice::EscapeAscii<'_> {
    text.escape_ascii()
}
