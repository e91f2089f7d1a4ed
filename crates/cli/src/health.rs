//! `drover status --check`: do all groups serve?
//!
//! Responsible for: the verdict, as one line and an exit status for monitoring. Must never: contact
//! the server. Called by: `remote.rs`.
use crate::show::{name, shown};
use drover_wire::admin::{Application, ApplicationState, Group, Server};
use std::fmt;

/// The health of a server.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// All groups serve or can start; the number of groups and of workers that take requests.
    Good { groups: usize, processes: usize },
    /// Problems, each of one application.
    Bad(Vec<String>),
    /// This user may not see any group.
    Nothing,
}

impl Verdict {
    /// The exit status; `docs/operations.md` lists them.
    pub fn exit_status(&self) -> u8 {
        match self {
            Verdict::Good { .. } => 0,
            Verdict::Bad(_) => 1,
            Verdict::Nothing => 3,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Good { groups, processes } => write!(f, "ok: groups: {groups}, workers serving: {processes}"),
            Verdict::Bad(what) => write!(f, "not ok: {}", what.join("; ")),
            Verdict::Nothing => f.write_str("unknown: this user may not see any group; check as root, or as the user of a group (user=)"),
        }
    }
}

/// The health of a server with this status.
pub fn verdict(server: &Server) -> Verdict {
    if server.groups.is_empty() {
        return Verdict::Nothing;
    }
    let bad: Vec<String> = server.groups.iter().flat_map(problems).collect();
    if !bad.is_empty() {
        return Verdict::Bad(bad);
    }
    let workers = server.groups.iter().flat_map(|g| &g.applications).flat_map(|a| &a.workers);
    Verdict::Good { groups: server.groups.len(), processes: workers.filter(|w| w.state.takes_requests()).count() }
}

fn problems(group: &Group) -> Vec<String> {
    if group.halted {
        return vec![format!("group '{}': stopped by an administrator", name(&group.name))];
    }
    let line = |a: &Application| Some(format!("group '{}', application {}: {}", name(&group.name), shown(&a.name), problem(a)?));
    group.applications.iter().filter_map(line).collect()
}

fn problem(a: &Application) -> Option<String> {
    let serves = a.workers.iter().any(|w| w.state.takes_requests());
    let what = match a.state {
        ApplicationState::Idle | ApplicationState::Serving => return None,
        // A reload, or scaling up.
        ApplicationState::Starting if serves => return None,
        ApplicationState::Starting => "starting, no worker serves yet",
        other => other.text(),
    };
    let failure = a.failure.as_deref().and_then(|text| text.trim_end().lines().last()).map(|line| format!(": {}", name(line.trim())));
    Some(format!("{what}{}", failure.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_wire::admin::{Worker, WorkerState};

    fn server(halted: bool, applications: Vec<Application>) -> Server {
        let (version, user, python) = (String::new(), String::new(), String::new());
        let group = Group { name: "shop".into(), user, python, least: 1, most: 1, threads: 1, halted, applications };
        Server { version, droverd: 1, httpd: 1, generation: 1, sessions: vec![], groups: vec![group] }
    }

    fn application(state: ApplicationState, worker: Option<WorkerState>, failure: Option<&str>) -> Application {
        let running = |state| Worker { pid: 1, generation: 1, state, age_ms: 1, requests: 0, running: 0, memory: 0 };
        Application {
            name: String::new(),
            state,
            generation: 1,
            target: 1,
            failure: failure.map(str::to_owned),
            next_try_ms: None,
            waiting: false,
            held: 0,
            workers: worker.map(running).into_iter().collect(),
        }
    }

    #[test]
    fn each_state_has_its_exit_status() {
        use ApplicationState::*;
        for (state, worker, status) in [
            (Idle, None, 0),
            (Serving, Some(WorkerState::Serving), 0),
            (Starting, Some(WorkerState::Leaving), 0),
            (Starting, Some(WorkerState::Starting), 1),
            (Starting, None, 1),
            (ServingPartly, Some(WorkerState::Serving), 1),
            (ServingOldCode, Some(WorkerState::Serving), 1),
            (Failing, None, 1),
            (Halted, None, 1),
            (Stopping, None, 1),
        ] {
            let verdict = verdict(&server(false, vec![application(state, worker, None)]));
            assert_eq!(verdict.exit_status(), status, "{state:?}: {verdict}");
        }
        assert_eq!(verdict(&server(true, vec![])).exit_status(), 1);
        assert_eq!(verdict(&server(false, vec![])).exit_status(), 0, "not used yet");
        assert_eq!(verdict(&Server { groups: vec![], ..server(false, vec![]) }).exit_status(), 3);
    }

    #[test]
    fn one_line_names_the_problem() {
        let failing = application(ApplicationState::Failing, None, Some("Traceback\n  File\nSyntaxError: \x1b[1mbad\n"));
        let said = verdict(&server(false, vec![failing])).to_string();
        assert_eq!(said, "not ok: group 'shop', application %{GLOBAL}: failing: SyntaxError:  [1mbad");
        let good = application(ApplicationState::Serving, Some(WorkerState::Serving), None);
        assert_eq!(verdict(&server(false, vec![good])).to_string(), "ok: groups: 1, workers serving: 1");
    }
}
