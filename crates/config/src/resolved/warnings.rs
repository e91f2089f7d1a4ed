//! What a server can start with, as with mod_wsgi, and what is not right all the same.
//!
//! Responsible for: the administrator being told at start, not by the first request. Must never: refuse anything. Called by: `httpd::commands`
//! for each directive, `httpd::lifecycle` for the whole.
use super::spec::group_of;
use super::system::{Access, Problem, credentials};
use super::{GroupError, Resolved, Server, System};
use crate::suggest::nearest;
use crate::{AliasPattern, DaemonGroup, GroupChoice, ImportScript, ScriptAlias};
use drover_wire::control::GroupSpec;

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
    // Else it is taken for a script, which cannot be read.
    let directory = |alias: &&ScriptAlias| !alias.target.ends_with(b"/") && system.is_directory(&alias.target);
    said.extend(added.aliases.iter().filter(fixed).filter(directory).map(|alias| {
        format!("the script {} is a directory: for a directory of scripts end the URL path and the path with a slash", shown(&alias.target))
    }));
    let no_python =
        |home: &&Vec<u8>| [b"/bin/python3".as_slice(), b"/bin/python"].iter().all(|tail| !system.is_executable(&[home, *tail].concat()));
    said.extend(added.python_home.filter(no_python).map(|home| {
        format!("WSGIPythonHome {0}: there is no {0}/bin/python3, so groups without python-home= and python= cannot start", shown(home))
    }));
    said
}

/// What is wrong with a group that a directive of the host `server_name` (`None`: outside of all) names for all requests; `None`: nothing.
#[must_use]
pub fn group_warning(resolved: &Resolved, server_name: Option<&[u8]>, name: &[u8]) -> Option<String> {
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

/// Scripts and directories of `python-path=` that the user of their group may not read. The group can start without them.
#[must_use]
pub fn unreadable(servers: &[Server<'_>], specs: &[GroupSpec], implicit_name: &[u8], system: &dyn System) -> Vec<Problem> {
    let mut said = Vec::new();
    // With chroot= paths begin elsewhere.
    for spec in specs.iter().filter(|spec| spec.chroot.is_none()) {
        let who = credentials(spec.identity.as_ref(), system);
        let mut look = |directive, argument: &[u8], option: &str, path: &[u8]| {
            if let Some(barrier) = system.barrier(&who, path, Access::Use) {
                said.push(Problem::new(directive, argument, format!("{option}{}: {barrier}", shown(path))));
            }
        };
        let is_implicit = spec.name == implicit_name;
        for path in &spec.worker.python_path {
            let (directive, argument) = if is_implicit { ("WSGIPythonPath", path) } else { ("WSGIDaemonProcess", &spec.name) };
            look(directive, argument, if is_implicit { "" } else { "python-path=" }, path);
        }
        for server in servers {
            for alias in &server.config.aliases {
                let AliasPattern::Prefix(location) = &alias.pattern else { continue };
                let runs_here = match group_of(alias, server) {
                    None => is_implicit,
                    Some(expr) => expr.fixed().is_some_and(|name| name == spec.name || (name.is_empty() && is_implicit)),
                };
                if runs_here {
                    look("WSGIScriptAlias", location, "the script ", &alias.target);
                }
            }
            for import in server.config.imports.iter().filter(|import| !import.from_alias) {
                let runs_here = match &import.process_group {
                    GroupChoice::Implicit => is_implicit,
                    GroupChoice::Named(name) => *name == spec.name,
                };
                if runs_here {
                    look("WSGIImportScript", &import.script, "the script ", &import.script);
                }
            }
        }
    }
    // A virtual host has the aliases of the main server too.
    let mut known: Vec<Problem> = Vec::new();
    said.into_iter().for_each(|problem| {
        if !known.contains(&problem) {
            known.push(problem);
        }
    });
    known
}

fn shown(text: &[u8]) -> std::slice::EscapeAscii<'_> {
    text.escape_ascii()
}
