//! `drover status|reload|stop`: commands to a running server through its control socket.
//!
//! Responsible for: the requests of a command, and its output. Must never: wait without a limit.
//! Called by: `main.rs`.
use crate::arguments::{Action, Remote};
use crate::connection::{explain, request};
use crate::error::Error;
use crate::show::{applications, escaped, indented, name, printable, shown, table};
use crate::{health, print, say, servers};
use drover_wire::admin::{Command, Reloaded, Reply, Server, Service};
use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

/// Carries out the command.
pub fn run(remote: &Remote, action: &Action) -> Result<ExitCode, Error> {
    match action {
        Action::Status(group) if remote.check => check(remote, group.as_deref()),
        Action::Status(group) => {
            let path = servers::socket(remote, true)?;
            show(remote, &status(&path, group.as_deref())?)
        }
        Action::Reload(None) if remote.all => reload_all(&servers::socket(remote, false)?),
        Action::Reload(Some(group)) => print(&reload(&servers::socket(remote, false)?, group)?),
        Action::Stop(Some(group)) => print(&stop(&servers::socket(remote, false)?, group)?),
        Action::Reload(None) => Err(which_group(remote, "reload", "; --all reloads each")),
        Action::Stop(None) => Err(which_group(remote, "stop", "")),
    }
}

/// One request about a group. The error about an unknown group lists the known ones.
fn ask(path: &Path, command: Command, group: Option<&str>) -> Result<Reply, Error> {
    match request(path, command.clone()).map_err(|e| explain(path, &command, e))? {
        Reply::Refused(why) => Err(match (group, request(path, Command::Status(None))) {
            (Some(group), Ok(Reply::Status(all))) if all.groups.iter().all(|known| known.name != group) => {
                Error::NoGroup(name(group), names(&all))
            }
            _ => Error::Remote(printable(&why)),
        }),
        reply => Ok(reply),
    }
}

fn names(server: &Server) -> Vec<String> {
    server.groups.iter().map(|group| name(&group.name)).collect()
}

fn unexpected() -> Error {
    Error::Remote("unexpected reply of droverd: stop and start httpd after an upgrade".into())
}

fn status(path: &Path, group: Option<&str>) -> Result<Server, Error> {
    match ask(path, Command::Status(group.map(str::to_owned)), group)? {
        Reply::Status(server) => Ok(server),
        _ => Err(unexpected()),
    }
}

fn show(remote: &Remote, server: &Server) -> Result<ExitCode, Error> {
    if !remote.json {
        return print(&printable(&table(server)));
    }
    let text = serde_json::to_string_pretty(server).map_err(|e| Error::Remote(format!("cannot write the status as JSON: {e}")))?;
    print(&(escaped(&text) + "\n"))
}

/// For monitoring: always one line on standard output, and the exit status.
fn check(remote: &Remote, group: Option<&str>) -> Result<ExitCode, Error> {
    let server = match servers::socket(remote, false).and_then(|path| status(&path, group)) {
        Ok(server) => server,
        Err(error) => {
            print(&format!("unknown: {}\n", error.to_string().replace('\n', " ")))?;
            return Ok(ExitCode::from(error.exit_status()));
        }
    };
    let verdict = health::verdict(&server);
    if remote.json {
        show(remote, &server)?
    } else {
        print(&format!("{verdict}\n"))?
    };
    Ok(ExitCode::from(verdict.exit_status()))
}

fn reload(path: &Path, group: &str) -> Result<String, Error> {
    match ask(path, Command::Reload(group.to_owned()), Some(group))? {
        Reply::Reloaded(all) => reloaded(&all),
        _ => Err(unexpected()),
    }
}

/// One group after the other, so that not all workers start at once. A stopped group stays stopped.
fn reload_all(path: &Path) -> Result<ExitCode, Error> {
    let server = status(path, None)?;
    if server.groups.is_empty() {
        return Err(Error::Remote(
            "no group that you may reload: root may reload all groups, the user of a group (user=) that group".into(),
        ));
    }
    let mut failed = Vec::new();
    for group in &server.groups {
        let shown = name(&group.name);
        if group.halted {
            print(&format!("group '{shown}': stopped by an administrator, not reloaded; drover reload {shown} starts it\n"))?;
            continue;
        }
        match reload(path, &group.name) {
            Ok(said) => drop(print(&format!("group '{shown}': {said}"))?),
            Err(error @ Error::Unreachable(_)) => return Err(error),
            Err(error) => {
                say(format_args!("group '{shown}': {error}"));
                failed.push(shown);
            }
        }
    }
    match failed.as_slice() {
        [] => Ok(ExitCode::SUCCESS),
        failed => Err(Error::Remote(format!("not reloaded: {}", failed.join(", ")))),
    }
}

fn stop(path: &Path, group: &str) -> Result<String, Error> {
    match ask(path, Command::Stop(group.to_owned()), Some(group))? {
        Reply::Done(0) => Ok("stopped; the group had no workers; its requests get 503\n".to_owned()),
        Reply::Done(n) => Ok(format!("stopped, {}\n", applications(n as usize))),
        _ => Err(unexpected()),
    }
}

/// The error for a command without its group; lists the groups.
fn which_group(remote: &Remote, command: &str, other: &str) -> Error {
    let known = servers::socket(remote, false).and_then(|path| status(&path, None)).map(|server| names(&server));
    let known = match known {
        Ok(names) if !names.is_empty() => format!(" This server has {}{other}", names.join(", ")),
        _ => " drover status lists them".to_owned(),
    };
    Error::Choice(format!("drover {command}: which group?{known}"))
}

/// The result of a reload.
fn reloaded(all: &[Reloaded]) -> Result<String, Error> {
    if all.is_empty() {
        return Ok("the group has no workers; the next request starts them\n".to_owned());
    }
    let mut bad = String::new();
    for Reloaded { name: of, failure, service } in all {
        let Some(failure) = failure else { continue };
        let what = match service {
            Service::Old => "the new workers cannot start, the old ones keep serving",
            Service::New | Service::Partial => "the new workers serve, but cannot load all scripts",
            Service::OnDemand => "no workers run, the next request starts them",
            Service::Nobody => "the new workers cannot start and no others serve, requests get 503",
        };
        let _ = writeln!(bad, "application {}: {what}:", shown(of));
        indented(&mut bad, "  ", failure);
    }
    let on_demand = all.iter().filter(|r| r.service == Service::OnDemand).count();
    if bad.is_empty() && on_demand == all.len() {
        Ok("the group has no workers; the next request starts them\n".to_owned())
    } else if bad.is_empty() {
        Ok(format!("new workers serve, {}\n", applications(all.len() - on_demand)))
    } else {
        Err(Error::Remote(bad.trim_end().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_that_failed_is_an_error() {
        let new = |failure: Option<&str>, service| Reloaded { name: String::new(), failure: failure.map(str::to_owned), service };
        assert_eq!(reloaded(&[new(None, Service::New)]).expect("good"), "new workers serve, 1 application group\n");
        assert!(reloaded(&[new(None, Service::OnDemand)]).expect("good").contains("no workers; the next request"));
        let rows = [
            (Service::Old, "the new workers cannot start, the old ones keep serving"),
            (Service::Partial, "the new workers serve, but cannot load all scripts"),
            (Service::Nobody, "no others serve, requests get 503"),
        ];
        for (service, what) in rows {
            let bad = reloaded(&[new(None, Service::New), new(Some("Traceback\nSyntaxError"), service)]);
            let said = bad.expect_err("bad").to_string();
            assert!(said.contains(&format!("{what}:\n  Traceback\n  SyntaxError")), "{said}");
        }
    }
}
