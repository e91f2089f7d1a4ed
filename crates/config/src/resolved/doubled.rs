//! Applications that have more processes than they need, because their application group is
//! `%{RESOURCE}`.
//!
//! Responsible for: warning where `application-group=%{GLOBAL}` saves processes. Must never: refuse
//! anything, or guess what a section decides by the request (`<Directory>`, `<Location>`). Called
//! by: `httpd::lifecycle`.
use super::Server;
use super::spec::group_of;
use super::system::Problem;
use crate::{AliasPattern, Expr, GroupChoice, ScriptAlias};

/// The process group of an alias, where it is the same for all requests; the empty name is the
/// implicit group.
fn group<'a>(alias: &'a ScriptAlias, server: &'a Server<'_>) -> Option<&'a [u8]> {
    group_of(alias, server).map_or(Some(b"".as_slice()), Expr::fixed)
}

/// Whether the application group of an alias is `%{RESOURCE}`, written or by default.
fn by_resource(alias: &ScriptAlias, server: &Server<'_>) -> bool {
    let expr = alias.application_group.as_ref().or(server.config.dir.application_group.as_ref());
    matches!(expr, None | Some(Expr::Resource))
}

/// The directives whose applications have more processes than they need.
#[must_use]
pub fn doubled(servers: &[Server<'_>]) -> Vec<Problem> {
    let all = || servers.iter().flat_map(|server| server.config.aliases.iter().map(move |alias| (alias, server)));
    let mut said = Vec::new();
    for import in servers.iter().flat_map(|server| &server.config.imports).filter(|import| !import.from_alias) {
        let of = match &import.process_group {
            GroupChoice::Implicit => b"".as_slice(),
            GroupChoice::Named(name) => name,
        };
        let elsewhere =
            all().find(|(alias, server)| alias.target == import.script && group(alias, server) == Some(of) && by_resource(alias, server));
        if let Some((alias, _)) = elsewhere {
            let loaded = if import.application_group.is_empty() { b"%{GLOBAL}".as_slice() } else { &import.application_group };
            let what = format!(
                "the script is loaded into the application group {}, but {} runs it in %{{RESOURCE}}, which has other processes; add \
                 application-group={0} to that WSGIScriptAlias",
                loaded.escape_ascii(),
                title(alias)
            );
            said.push(Problem::new("WSGIImportScript", &import.script, what));
        }
    }
    for server in servers {
        for defined in &server.config.groups {
            let mut here = all().filter(|(alias, server)| group(alias, server) == Some(&defined.name)).peekable();
            let Some(&(first, _)) = here.peek() else { continue };
            let one_script = |(alias, server): (&ScriptAlias, &Server<'_>)| {
                let is_file = matches!(alias.pattern, AliasPattern::Prefix(_)) && !alias.target.ends_with(b"/");
                is_file && alias.target == first.target && by_resource(alias, server)
            };
            if here.all(one_script) {
                let what = format!(
                    "the only script of the group '{}' runs in the application group %{{RESOURCE}} unless .htaccess names another: it is loaded by the first request, \
                     and each virtual host, port and URL path has its own processes; add application-group=%{{GLOBAL}}",
                    defined.name.escape_ascii()
                );
                said.push(Problem::new("WSGIScriptAlias", location(first), what));
            }
        }
    }
    said
}

fn location(alias: &ScriptAlias) -> &[u8] {
    match &alias.pattern {
        AliasPattern::Prefix(text) | AliasPattern::Regex(text) => text,
    }
}

fn title(alias: &ScriptAlias) -> String {
    let name = if matches!(alias.pattern, AliasPattern::Regex(_)) { "WSGIScriptAliasMatch" } else { "WSGIScriptAlias" };
    format!("{name} {}", location(alias).escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{configure, main_and};
    use super::*;
    use crate::{Context, ServerConfig};

    fn said(lines: &[&str]) -> Vec<String> {
        let main = configure(Context::Server, &[&["WSGIDaemonProcess a threads=1", "WSGIDaemonProcess b threads=1"], lines].concat());
        let vhosts = [ServerConfig::merge(&main, &ServerConfig::default())];
        doubled(&main_and(&main, &vhosts)).iter().map(Problem::to_string).collect()
    }

    #[test]
    fn what_runs_in_resource_alone_is_said_once() {
        let only = "WSGIScriptAlias /x: the only script of the group 'a' runs in the application group %{RESOURCE} unless .htaccess names another: it is loaded";
        let import = "WSGIImportScript /srv/x: the script is loaded into the application group %{GLOBAL}, but WSGIScriptAlias /x runs it";
        let table: &[(&[&str], &[&str])] = &[
            (&["WSGIScriptAlias /x /srv/x process-group=a"], &[only]),
            (&["WSGIProcessGroup a", "WSGIScriptAlias /x /srv/x"], &[only]),
            (&["WSGIScriptAlias /x /srv/x process-group=a application-group=%{RESOURCE}"], &[only]),
            (&["WSGIScriptAlias /x /srv/x process-group=a", "WSGIScriptAlias /y /srv/x process-group=a"], &[only]),
            (&["WSGIScriptAlias /x /srv/x process-group=a", "WSGIScriptAlias /y /srv/y process-group=a"], &[]),
            (&["WSGIScriptAlias /x /srv/x process-group=a application-group=%{GLOBAL}"], &[]),
            (&["WSGIScriptAlias /x /srv/x process-group=a application-group=%{SERVER}"], &[]),
            (&["WSGIApplicationGroup %{GLOBAL}", "WSGIScriptAlias /x /srv/x process-group=a"], &[]),
            (&["WSGIScriptAlias /x/ /srv/x/ process-group=a"], &[]),
            (&["WSGIScriptAliasMatch ^/(x) /srv/x process-group=a"], &[]),
            (&["WSGIScriptAlias /x /srv/x process-group=%{ENV:g}"], &[]),
            (&["WSGIScriptAlias /x /srv/x"], &[]),
            (
                &["WSGIScriptAlias /x /srv/x process-group=a", "WSGIImportScript /srv/x process-group=a application-group=%{GLOBAL}"],
                &[import, only],
            ),
            (&["WSGIScriptAlias /x /srv/x", "WSGIImportScript /srv/x process-group=%{GLOBAL} application-group=%{GLOBAL}"], &[import]),
            (&["WSGIScriptAlias /x /srv/x", "WSGIImportScript /srv/x process-group=a application-group=%{GLOBAL}"], &[]),
        ];
        for (lines, want) in table {
            let said = said(lines);
            assert_eq!(said.len(), want.len(), "{lines:?}: {said:?}");
            assert!(said.iter().zip(*want).all(|(said, want)| said.starts_with(want)), "{lines:?}: {said:?}");
        }
    }
}
