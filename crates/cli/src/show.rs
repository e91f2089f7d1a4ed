//! The state of a running server as text for a terminal.
//!
//! Responsible for: the table of `drover status`, and for removing control characters from names
//! and errors of applications. Must never: print. Called by: `remote.rs`, `health.rs`.
use drover_wire::admin::{Application, Server, Worker};
use std::fmt::Write;

/// A number of application groups.
pub fn applications(n: usize) -> String {
    format!("{n} application group{}", if n == 1 { "" } else { "s" })
}

/// The display name of an application group.
pub fn shown(application: &str) -> String {
    if application.is_empty() { "%{GLOBAL}".to_owned() } else { name(application) }
}

/// Appends text of an application, which must not control the terminal.
pub fn indented(out: &mut String, margin: &str, text: &str) {
    for line in text.lines() {
        let _ = writeln!(out, "{margin}{}", name(line));
    }
}

/// Characters that control a terminal or the direction of its text (U+202A–202E, U+2066–2069).
/// Names and errors come from applications and requests.
fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text of several lines for a terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if is_control(c) && c != '\n' { ' ' } else { c }).collect()
}

/// JSON for a terminal: escapes the characters that serde_json leaves in strings. Outside strings
/// it writes only line ends.
pub fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if is_control(c) && c != '\n' {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// A name, as one line.
pub fn name(text: &str) -> String {
    text.chars().map(|c| if is_control(c) { ' ' } else { c }).collect()
}

/// The table of a server's state. Names are single lines; [`printable`] removes the other control
/// characters.
pub fn table(server: &Server) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "mod_drover {}: httpd {}, droverd {}, generation {}",
        name(&server.version),
        server.httpd,
        server.droverd,
        server.generation
    );
    server.sessions.iter().for_each(|line| out.extend([&name(line), "\n"]));
    if server.groups.is_empty() {
        out.push_str("\nno group that you may see: root sees all groups, the user of a group (user=) that group\n");
    }
    for group in &server.groups {
        let size = if group.least == group.most { group.most.to_string() } else { format!("{}-{}", group.least, group.most) };
        let user = if group.user.is_empty() { "(httpd's)".to_owned() } else { name(&group.user) };
        let _ = writeln!(
            out,
            "\ngroup {}: processes={size} threads={} user={user} python={}",
            name(&group.name),
            group.threads,
            name(&group.python)
        );
        if group.applications.is_empty() {
            let _ = writeln!(out, "  {}", if group.halted { "not in use, stopped by an administrator" } else { "not in use yet" });
        }
        group.applications.iter().for_each(|a| application(&mut out, a));
    }
    out
}

fn application(out: &mut String, a: &Application) {
    let _ = write!(out, "  application {}: {}, generation {}", shown(&a.name), a.state, a.generation);
    if a.waiting {
        out.push_str(", requests queued");
    }
    if a.held > 0 {
        let _ = write!(out, ", {} parked for the new code", a.held);
    }
    if let Some(ms) = a.next_try_ms {
        let _ = write!(out, ", next attempt in {:.0} s", ms as f64 / 1000.0);
    }
    out.push('\n');
    if !a.workers.is_empty() {
        let _ = writeln!(
            out,
            "    {:>8} {:>10} {:>10} {:>9} {:>10} {:>7} {:>9}",
            "pid", "state", "generation", "up", "requests", "running", "memory"
        );
    }
    a.workers.iter().for_each(|w| worker(out, w));
    if let Some(failure) = &a.failure {
        let _ = writeln!(out, "    the last start failed:");
        indented(out, "      ", failure);
    }
}

fn worker(out: &mut String, w: &Worker) {
    let memory = if w.memory == 0 { "?".to_owned() } else { format!("{:.1}M", w.memory as f64 / 1048576.0) };
    let up = match w.age_ms / 1000 {
        s @ 0..120 => format!("{s}s"),
        s @ 120..7200 => format!("{}m", s / 60),
        s @ 7200..172_800 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86400),
    };
    let _ = writeln!(out, "    {:>8} {:>10} {:>10} {up:>9} {:>10} {:>7} {memory:>9}", w.pid, w.state, w.generation, w.requests, w.running);
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_wire::admin::{ApplicationState, Group, WorkerState};

    fn server(groups: Vec<Group>) -> Server {
        let sessions = vec!["sessions are kept in: disk".into()];
        Server { version: "1".into(), droverd: 2, httpd: 1, generation: 0, sessions, groups }
    }

    #[test]
    fn no_name_controls_a_terminal_or_forges_a_line() {
        let evil = "x\x1b]0;owned\x07\u{9b}2J\u{202e}\r\n  application y: serving";
        let application = Application {
            name: evil.into(),
            state: ApplicationState::Failing,
            generation: 3,
            target: 1,
            failure: Some(format!("Traceback\n{evil}")),
            next_try_ms: None,
            waiting: false,
            held: 0,
            workers: vec![],
        };
        let group = Group {
            name: evil.into(),
            user: evil.into(),
            python: evil.into(),
            least: 1,
            most: 4,
            threads: 15,
            halted: false,
            applications: vec![application],
        };
        let evil_server = Server { version: evil.into(), sessions: vec![evil.into()], ..server(vec![group]) };
        let text = printable(&table(&evil_server));
        assert!(!text.contains(|c| is_control(c) && c != '\n'), "{text:?}");
        let forged = text.lines().filter(|l| l.starts_with("  application y")).count();
        assert_eq!(forged, 0, "{text}");
        assert!(text.contains("application x ]0;owned  2J     application y: serving: failing"), "{text}");
        let json = escaped(&serde_json::to_string_pretty(&evil_server).unwrap());
        assert!(!json.contains(|c| is_control(c) && c != '\n'), "{json:?}");
        let back: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(back["groups"][0]["name"], evil, "and nothing is lost");
    }

    #[test]
    fn the_table_shows_the_state() {
        let worker =
            Worker { pid: 7, generation: 2, state: WorkerState::Serving, age_ms: 9000, requests: 12, running: 1, memory: 30 << 20 };
        let application = Application {
            name: String::new(),
            state: ApplicationState::Failing,
            generation: 3,
            target: 1,
            failure: Some("Traceback\nSyntaxError: \x1b[31mbad".into()),
            next_try_ms: Some(4000),
            waiting: true,
            held: 0,
            workers: vec![worker],
        };
        let group = Group {
            name: "shop".into(),
            user: "shop".into(),
            python: "/usr/bin/python3".into(),
            least: 1,
            most: 4,
            threads: 15,
            halted: false,
            applications: vec![application],
        };
        let text = printable(&table(&server(vec![group])));
        assert!(text.contains("sessions are kept in: disk\n"), "{text}");
        assert!(text.contains("group shop: processes=1-4 threads=15 user=shop"), "{text}");
        assert!(text.contains("application %{GLOBAL}: failing, generation 3, requests queued, next attempt in 4 s"), "{text}");
        assert!(text.contains("30.0M") && text.contains("9s") && text.contains("SyntaxError:  [31mbad"), "{text}");
    }

    #[test]
    fn a_user_without_a_group_learns_why_the_table_is_empty() {
        let (version, sessions, groups) = ("1".into(), vec![], vec![]);
        let text = table(&Server { version, droverd: 2, httpd: 1, generation: 0, sessions, groups });
        assert!(text.contains("no group that you may see: root sees all groups"), "{text}");
    }
}
