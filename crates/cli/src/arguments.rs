//! The command line.
//!
//! Responsible for: parsing arguments into [`Command`], and the help text. Must never: look at the
//! system. Called by: `main.rs`.
use crate::error::Error;
use crate::launch::{self, Become};
use lexopt::prelude::*;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

pub const HELP: &str = "\
drover: serves WSGI applications with Apache httpd and mod_drover

Usage:
  drover serve  APPLICATION [options]   run httpd in the foreground with a private configuration; Ctrl-C stops it
  drover config APPLICATION [options]   print that configuration
  drover check  [options]               print the parts of the installation and their versions
  drover status [GROUP] [--json]        print the groups of a running httpd: state, workers, load, why a start failed
  drover status [GROUP] --check         for monitoring: one line; exit status 0 all serve, 1 not all serve, 3 no answer
  drover reload GROUP | --all           start new workers without losing a request, and wait until they serve; ends a stop
  drover stop GROUP                     shut down the group's workers after their requests; 503 until it is reloaded
  drover --version | --help

APPLICATION is a WSGI script file (site.wsgi), or package.module:callable (the callable is `application` if left out).

Options:
  --host HOST                listen on this address, or on those of this name    [127.0.0.1]
  --port PORT                listen on this port                                 [8000]
  --processes N              worker processes                                    [1]
  --threads N                threads of each worker process                      [5]
  --mpm NAME                 prefork, worker or event                            [event, if httpd has it]
  --python FILE              the interpreter, or bin/python of a virtualenv      [python3]
  --working-directory DIR    directory of the workers, first in sys.path         [current; for a script elsewhere, its own]
  --url-alias URL=PATH       serve the files of PATH under URL; may be repeated
  --user NAME, --group NAME  user and group of the workers (only when root runs drover)
  --log-level LEVEL          httpd's LogLevel                                    [notice]
  --access-log FILE          write httpd's access log (common format) to FILE
  --include FILE             read more httpd directives from FILE; may be repeated
  --httpd FILE               the httpd program
  --grace TIME               time for running requests when serve stops          [30s]

Options of status, reload and stop (for root, and for the user of a group):
  --socket FILE              the control socket (DroverControlSocket)            [that of the only running httpd]
  --json                     print JSON, for programs

Exit status: 0 done, 1 failed, 2 wrong command line or group, 3 no running server answers.
";

/// What drover is to do.
#[derive(Debug)]
pub enum Command {
    Help,
    Version,
    Serve(Options),
    Config(Options),
    Check(Options),
    /// Internal: the second half of starting httpd.
    BecomeHttpd(Become),
    /// A command to a running server.
    Remote(Remote, Action),
}

/// Options of the commands to a running server.
#[derive(Debug, Default, PartialEq)]
pub struct Remote {
    pub socket: Option<PathBuf>,
    pub json: bool,
    /// For monitoring: one line, and the state as exit status.
    pub check: bool,
    /// Every group.
    pub all: bool,
}

/// A command to a running server, with the group if one was named.
#[derive(Debug, PartialEq)]
pub enum Action {
    Status(Option<String>),
    Reload(Option<String>),
    Stop(Option<String>),
}

/// The options of serve, config and check.
#[derive(Debug, PartialEq)]
pub struct Options {
    pub application: OsString,
    /// A name or an IP address.
    pub host: String,
    pub port: u16,
    pub processes: u16,
    pub threads: u16,
    pub mpm: Option<String>,
    pub python: Option<PathBuf>,
    pub working_directory: Option<PathBuf>,
    pub aliases: Vec<(String, PathBuf)>,
    pub user: Option<String>,
    pub group: Option<String>,
    pub log_level: String,
    pub access_log: Option<PathBuf>,
    pub includes: Vec<PathBuf>,
    /// Time for running requests when drover stops.
    pub grace: Duration,
    pub httpd: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            application: OsString::new(),
            host: "127.0.0.1".into(),
            port: 8000,
            processes: 1,
            threads: 5,
            mpm: None,
            python: None,
            working_directory: None,
            aliases: Vec::new(),
            user: None,
            group: None,
            log_level: "notice".into(),
            access_log: None,
            includes: Vec::new(),
            grace: Duration::from_secs(30),
            httpd: None,
        }
    }
}

/// Parses the whole command line, the program's name first.
pub fn parse<I>(args: I) -> Result<Command, Error>
where
    I: IntoIterator<Item = OsString>,
    I::IntoIter: 'static,
{
    let mut parser = lexopt::Parser::from_iter(args);
    let make: fn(Options) -> Command = match parser.next()? {
        Some(Long("help") | Short('h')) | None => return Ok(Command::Help),
        Some(Long("version") | Short('V')) => return Ok(Command::Version),
        Some(Value(name)) => match name.to_str() {
            Some("serve") => Command::Serve,
            Some("config") => Command::Config,
            Some("check") => Command::Check,
            Some(command @ ("status" | "reload" | "stop")) => {
                let command = command.to_owned();
                return remote(&command, parser);
            }
            Some("help") => return Ok(Command::Help),
            Some(launch::SUBCOMMAND) => return become_httpd(parser),
            _ => return Err(Error::Usage(format!("unknown command {name:?}; known are serve, config, check, status, reload and stop"))),
        },
        Some(other) => return Err(other.unexpected().into()),
    };
    let mut o = Options::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("help") | Short('h') => return Ok(Command::Help),
            Long("host") => o.host = host(&parser.value()?)?,
            Long("port") | Short('p') => o.port = number("--port", &parser.value()?)?,
            Long("processes") => o.processes = number("--processes", &parser.value()?)?,
            Long("threads") => o.threads = number("--threads", &parser.value()?)?,
            Long("mpm") => o.mpm = Some(mpm(parser.value()?.string()?)?),
            Long("python") => o.python = Some(parser.value()?.into()),
            Long("working-directory") => o.working_directory = Some(parser.value()?.into()),
            Long("url-alias") => o.aliases.push(alias(&parser.value()?.string()?)?),
            Long("user") => o.user = Some(parser.value()?.string()?),
            Long("group") => o.group = Some(parser.value()?.string()?),
            Long("log-level") => o.log_level = parser.value()?.string()?,
            Long("access-log") => o.access_log = Some(parser.value()?.into()),
            Long("include") => o.includes.push(parser.value()?.into()),
            Long("grace") => o.grace = seconds("--grace", &parser.value()?)?,
            Long("httpd") => o.httpd = Some(parser.value()?.into()),
            Value(application) if o.application.is_empty() => o.application = application,
            other => return Err(other.unexpected().into()),
        }
    }
    let command = make(o);
    match &command {
        Command::Serve(o) | Command::Config(o) => o.validate()?,
        _ => {}
    }
    Ok(command)
}

fn remote(command: &str, mut parser: lexopt::Parser) -> Result<Command, Error> {
    let (mut remote, mut group) = (Remote::default(), None);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("help") | Short('h') => return Ok(Command::Help),
            Long("socket") => remote.socket = Some(parser.value()?.into()),
            Long("json") if command == "status" => remote.json = true,
            Long("check") if command == "status" => remote.check = true,
            Long("all") if command == "reload" => remote.all = true,
            Value(name) if group.is_none() => group = Some(name.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    if let (true, Some(group)) = (remote.all, &group) {
        return Err(Error::Usage(format!("drover reload: give either --all or a group, not both --all and '{group}'")));
    }
    let action = match command {
        "status" => Action::Status(group),
        "reload" => Action::Reload(group),
        _ => Action::Stop(group),
    };
    Ok(Command::Remote(remote, action))
}

impl Options {
    fn validate(&self) -> Result<(), Error> {
        if self.application.is_empty() {
            return Err(Error::Usage("no application given: name a WSGI script file, or package.module:callable".into()));
        }
        Ok(())
    }
}

fn number(option: &str, value: &OsStr) -> Result<u16, Error> {
    let number = value.to_str().and_then(|text| text.parse().ok()).filter(|n| *n > 0);
    number.ok_or_else(|| Error::Usage(format!("{option} {}: expected a whole number from 1 to 65535", value.display())))
}

fn seconds(option: &str, value: &OsStr) -> Result<Duration, Error> {
    let seconds = drover_wire::units::seconds(value.as_encoded_bytes());
    let expected = || Error::Usage(format!("{option} {}: expected a time such as 30, 30s, 5min or 1h", value.display()));
    seconds.map(Duration::from_secs).ok_or_else(expected)
}

fn host(value: &OsStr) -> Result<String, Error> {
    let text = value.to_str().map(|text| text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text));
    let fits = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:%".contains(&b));
    let expected =
        || Error::Usage(format!("--host {}: expected a host name or an IP address, such as localhost or 0.0.0.0", value.display()));
    text.filter(fits).map(str::to_owned).ok_or_else(expected)
}

fn become_httpd(mut parser: lexopt::Parser) -> Result<Command, Error> {
    let mut args = parser.raw_args()?;
    let parent = args.next().and_then(|arg| arg.to_str()?.parse().ok());
    match (parent, args.next()) {
        (Some(parent), Some(program)) => Ok(Command::BecomeHttpd(Become { parent, program, arguments: args.collect() })),
        _ => Err(Error::Usage(format!("drover {} is internal to drover", launch::SUBCOMMAND))),
    }
}

fn mpm(value: String) -> Result<String, Error> {
    const VALID: [&str; 3] = ["event", "worker", "prefork"];
    if VALID.contains(&value.as_str()) {
        Ok(value)
    } else {
        Err(Error::Usage(format!("--mpm {value}: expected one of {}", VALID.join(", "))))
    }
}

fn alias(value: &str) -> Result<(String, PathBuf), Error> {
    match value.split_once('=') {
        Some((url, path)) if url.starts_with('/') && !path.is_empty() => Ok((url.into(), path.into())),
        _ => Err(Error::Usage(format!("--url-alias {value}: expected URL=PATH, with a URL that begins with /"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Result<Command, Error> {
        parse(line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_read() {
        let Ok(Command::Serve(o)) = args("drover serve a.wsgi --port 81 --mpm=worker --url-alias /s=/srv/s") else { panic!() };
        assert_eq!((o.application.to_str(), o.port, o.mpm.as_deref()), (Some("a.wsgi"), 81, Some("worker")));
        assert_eq!(o.aliases, [("/s".to_string(), PathBuf::from("/srv/s"))]);
        for (line, said) in [
            ("drover serve a --port 99999", "--port 99999: expected a whole number from 1 to 65535"),
            ("drover serve a --threads x", "--threads x: expected"),
            ("drover serve a --host a/b", "--host a/b: expected a host name or an IP address"),
            ("drover serve a --grace soon", "--grace soon: expected a time such as 30, 30s"),
        ] {
            assert!(args(line).is_err_and(|e| e.to_string().starts_with(said)), "{line}");
        }
    }

    #[test]
    fn a_running_server_is_asked() {
        let asked = |line: &str| match args(line) {
            Ok(Command::Remote(remote, command)) => (remote, command),
            other => panic!("{other:?}"),
        };
        assert_eq!(asked("drover status").1, Action::Status(None));
        let (remote, ask) = asked("drover status shop --json --check --socket /x");
        assert_eq!((remote.json, remote.check, remote.socket, ask), (true, true, Some("/x".into()), Action::Status(Some("shop".into()))));
        assert_eq!(asked("drover stop shop").1, Action::Stop(Some("shop".into())));
        let (remote, ask) = asked("drover reload --all");
        assert_eq!((remote.all, ask), (true, Action::Reload(None)));
        for line in ["drover reload a --all", "drover stop --all", "drover stop a b", "drover reload a --json", "drover status --port 1"] {
            assert!(matches!(args(line), Err(Error::Usage(_))), "{line}");
        }
    }

    #[test]
    fn invalid_command_lines_are_refused() {
        for line in [
            "drover fly",
            "drover serve",
            "drover serve a b",
            "drover serve a --port 0",
            "drover serve a --mpm x",
            "drover serve a --url-alias s=/x",
        ] {
            assert!(matches!(args(line), Err(Error::Usage(_))), "{line}");
        }
    }

    #[test]
    fn every_option_is_in_the_help() {
        for option in HELP.split_whitespace().filter(|w| w.starts_with("--")) {
            let option = option.trim_end_matches(',');
            let value = match option {
                "--host" => "::1",
                "--url-alias" => "/x=/y",
                "--mpm" => "event",
                _ => "7",
            };
            let option = option.trim_matches(['[', ']']);
            let lines = ["serve a", "status", "reload"]
                .map(|command| [format!("drover {command} {option} {value}"), format!("drover {command} {option}")]);
            assert!(lines.iter().flatten().any(|line| args(line).is_ok()) || option == "--version", "{option}");
        }
    }
}
