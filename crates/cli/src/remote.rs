//! `drover status|reload|stop`: asks a running server through its control socket.
//!
//! Responsible for: finding the socket, one question and its answer, and showing it. Must never: wait for ever. Called by: `main.rs`.
use crate::arguments::Remote;
use crate::error::Error;
use drover_sys::channel::{receive, send};
use drover_sys::wait::{PollFd, PollFlags, poll_until};
use drover_sys::{Errno, clock, memfile, outgoing};
use drover_wire::admin::{Application, Command, MAX_REPLY, Reloaded, Reply, Request, Server, Service, Worker};
use drover_wire::control::{decode, encode};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// How long droverd may take to answer.
const PATIENCE_NS: u64 = 10_000_000_000;
/// How long new processes may take to start.
const START_PATIENCE_NS: u64 = 600_000_000_000;
/// Where servers have their control sockets unless told otherwise.
const USUAL: [&str; 5] = [
    "/run/apache2/drover.sock",
    "/run/httpd/drover.sock",
    "/usr/local/apache2/logs/drover.sock",
    "/usr/local/apache2/run/drover.sock",
    "/etc/httpd/run/drover.sock",
];

/// Asks, and gives what is to be printed.
pub fn ask(remote: &Remote, command: Command) -> Result<String, Error> {
    let path = match &remote.socket {
        Some(path) => path.clone(),
        None => USUAL.iter().map(PathBuf::from).find(|p| p.exists()).ok_or_else(|| {
            Error::remote(format!("no running server is found ({}); name its socket with --socket (DroverControlSocket)", USUAL.join(", ")))
        })?,
    };
    let reload = matches!(command, Command::Reload(_));
    let reply = exchange(&path, &Request { version: drover_wire::VERSION.to_owned(), command }).map_err(|e| {
        let why = match e {
            Errno::TIMEDOUT if reload => "the new processes are still being started; drover status shows how they fare".to_owned(),
            Errno::CONNRESET if reload => "droverd ended, or was asked for too many reloads, before the new processes served".to_owned(),
            Errno::CONNREFUSED | Errno::NOENT => "nobody listens there: is httpd running, with mod_drover?".to_owned(),
            Errno::TIMEDOUT => "droverd does not answer".to_owned(),
            Errno::PROTO => "the answer is not understood: are drover and droverd of the same version?".to_owned(),
            other => other.to_string(),
        };
        Error::remote(format!("{}: {why}", path.display()))
    })?;
    match reply {
        Reply::Status(server) if remote.json => {
            serde_json::to_string_pretty(&server).map(|t| escaped(&t) + "\n").map_err(|e| Error::remote(e.to_string()))
        }
        Reply::Status(server) => Ok(printable(&table(&server))),
        Reply::Done(0) => Ok("stopped; the group had no processes, and its requests are answered with 503\n".to_owned()),
        Reply::Done(n) => Ok(format!("stopped, {}\n", applications(n as usize))),
        Reply::Reloaded(all) => reloaded(&all),
        Reply::Refused(why) => Err(Error::remote(printable(&why))),
    }
}

fn exchange(path: &Path, request: &Request) -> Result<Reply, Errno> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    send(&socket, &[&encode(request).map_err(|_| Errno::INVAL)?], &[], false)?;
    let answered = |ns: u64| {
        let until = clock::monotonic_ns().saturating_add(ns);
        poll_until(&mut [PollFd::new(&socket, PollFlags::IN)], Some(until)).map(|ready| ready > 0)
    };
    // A reload takes as long as new processes need; but droverd must have read that it is wanted.
    let waits = || matches!(request.command, Command::Reload(_)) && outgoing::is_read(&socket);
    let in_time = answered(PATIENCE_NS)? || (waits() && answered(START_PATIENCE_NS)?);
    if !in_time {
        return Err(Errno::TIMEDOUT);
    }
    let (mut buffer, mut fds) = ([0; 64], Vec::new());
    let n = receive(&socket, &mut buffer, &mut fds, false)?;
    if n == 0 {
        return Err(Errno::CONNRESET);
    }
    let len: u32 = decode(buffer.get(..n).unwrap_or_default()).map_err(|_| Errno::PROTO)?;
    let file = fds.first().ok_or(Errno::PROTO)?;
    let bytes = memfile::read(file, usize::try_from(len).unwrap_or(usize::MAX), MAX_REPLY)?;
    decode(&bytes).map_err(|_| Errno::PROTO)
}

fn applications(n: usize) -> String {
    format!("{n} application group{}", if n == 1 { "" } else { "s" })
}

/// How a reload went.
fn reloaded(all: &[Reloaded]) -> Result<String, Error> {
    if all.is_empty() {
        return Ok("the group has no processes; the next request starts them\n".to_owned());
    }
    let mut bad = String::new();
    for Reloaded { name: of, failure, service } in all {
        let Some(failure) = failure else { continue };
        let what = match service {
            Service::Old => "the new processes cannot start, the old ones go on serving",
            Service::New | Service::Partial => "the new processes serve, but cannot load all scripts",
            Service::OnDemand => "no processes run, the next request starts them",
            Service::Nobody => "the new processes cannot start and no others serve, requests are answered with 503",
        };
        let _ = writeln!(bad, "application {}: {what}:", shown(of));
        indented(&mut bad, "  ", failure);
    }
    let on_demand = all.iter().filter(|r| r.service == Service::OnDemand).count();
    if bad.is_empty() && on_demand == all.len() {
        Ok("the group has no processes; the next request starts them\n".to_owned())
    } else if bad.is_empty() {
        Ok(format!("new processes serve, {}\n", applications(all.len() - on_demand)))
    } else {
        Err(Error::remote(bad.trim_end().to_owned()))
    }
}

fn shown(application: &str) -> String {
    if application.is_empty() { "%{GLOBAL}".to_owned() } else { name(application) }
}

/// Text of an application's, which must not steer a terminal.
fn indented(out: &mut String, margin: &str, text: &str) {
    for line in text.lines() {
        let _ = writeln!(out, "{margin}{}", name(line));
    }
}

/// What steers a terminal, or turns its text round (U+202A–202E, U+2066–2069). Names and failures come from applications and requests.
fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text of several lines for a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if steers(c) && c != '\n' { ' ' } else { c }).collect()
}

/// JSON for a terminal as well: what serde_json leaves as it is inside of strings. Between them it writes nothing of that but ends of lines.
fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if steers(c) && c != '\n' {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// A name, which has one line and an end.
fn name(text: &str) -> String {
    text.chars().map(|c| if steers(c) { ' ' } else { c }).collect()
}

/// A server's state for people, each name in it on its line; [`printable`] sees to the rest.
fn table(server: &Server) -> String {
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
        out.push_str("\nthere is no group that you may see: root sees all, the user of a group (user=) sees that group\n");
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
        out.push_str(", requests wait");
    }
    if a.held > 0 {
        let _ = write!(out, ", {} held for the new code", a.held);
    }
    if let Some(ms) = a.next_try_ms {
        let _ = write!(out, ", next try in {:.0} s", ms as f64 / 1000.0);
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
    use drover_wire::admin::Group;

    fn server(groups: Vec<Group>) -> Server {
        let sessions = vec!["sessions are kept in: disk".into()];
        Server { version: "1".into(), droverd: 2, httpd: 1, generation: 0, sessions, groups }
    }

    #[test]
    fn no_name_steers_a_terminal_or_forges_a_line() {
        let evil = "x\x1b]0;owned\x07\u{9b}2J\u{202e}\r\n  application y: serving";
        let application = Application {
            name: evil.into(),
            state: "failing".into(),
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
        assert!(!text.contains(|c| steers(c) && c != '\n'), "{text:?}");
        let forged = text.lines().filter(|l| l.starts_with("  application y")).count();
        assert_eq!(forged, 0, "{text}");
        assert!(text.contains("application x ]0;owned  2J     application y: serving: failing"), "{text}");
        let json = escaped(&serde_json::to_string_pretty(&evil_server).unwrap());
        assert!(!json.contains(|c| steers(c) && c != '\n'), "{json:?}");
        let back: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(back["groups"][0]["name"], evil, "and nothing is lost");
    }

    #[test]
    fn a_table_for_people() {
        let worker = Worker { pid: 7, generation: 2, state: "serving".into(), age_ms: 9000, requests: 12, running: 1, memory: 30 << 20 };
        let application = Application {
            name: String::new(),
            state: "failing".into(),
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
        assert!(text.contains("application %{GLOBAL}: failing, generation 3, requests wait, next try in 4 s"), "{text}");
        assert!(text.contains("30.0M") && text.contains("9s") && text.contains("SyntaxError:  [31mbad"), "{text}");
    }
    #[test]
    fn a_stranger_is_told_why_he_sees_nothing() {
        let (version, sessions, groups) = ("1".into(), vec![], vec![]);
        let text = table(&Server { version, droverd: 2, httpd: 1, generation: 0, sessions, groups });
        assert!(text.contains("no group that you may see: root sees all"), "{text}");
    }

    #[test]
    fn a_reload_that_failed_is_an_error() {
        let new = |failure: Option<&str>, service| Reloaded { name: String::new(), failure: failure.map(str::to_owned), service };
        assert_eq!(reloaded(&[new(None, Service::New)]).expect("good"), "new processes serve, 1 application group\n");
        assert!(reloaded(&[new(None, Service::OnDemand)]).expect("good").contains("no processes; the next request"));
        let rows = [
            (Service::Old, "the new processes cannot start, the old ones go on serving"),
            (Service::Partial, "the new processes serve, but cannot load all scripts"),
            (Service::Nobody, "no others serve, requests are answered with 503"),
        ];
        for (service, what) in rows {
            let bad = reloaded(&[new(None, Service::New), new(Some("Traceback\nSyntaxError"), service)]);
            let said = bad.expect_err("bad").to_string();
            assert!(said.contains(&format!("{what}:\n  Traceback\n  SyntaxError")), "{said}");
        }
    }
}
