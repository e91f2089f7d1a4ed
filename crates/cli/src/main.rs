//! `drover`: the command of mod_drover.
//!
//! Responsible for: selecting the subcommand, printing errors, the exit status. Must never: do the
//! work itself. Called by: administrators and developers.
#![forbid(unsafe_code)]

mod application;
mod arguments;
mod attend;
mod check;
mod configuration;
mod connection;
mod error;
mod health;
mod launch;
mod listen;
mod places;
mod probe;
mod relay;
mod remote;
mod serve;
mod servers;
mod show;

use arguments::Command;
use drover_sys::signals;
use error::Error;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            say(&error);
            ExitCode::from(error.exit_status())
        }
    }
}

fn run() -> Result<ExitCode, Error> {
    // A reload signal at this moment must wait until `serve` handles it. And whoever started drover
    // may have had signals blocked, which would stay so.
    signals::hold();
    let command = arguments::parse(std::env::args_os())?;
    if !matches!(command, Command::Serve(_)) {
        signals::release();
    }
    match command {
        Command::Help => print(arguments::HELP),
        Command::Version => print(&format!("drover {}\n", drover_wire::VERSION)),
        Command::Serve(options) => serve::serve(&options),
        Command::Config(options) => print(&serve::print(&options)?),
        Command::Check(options) => check::check(&options),
        Command::BecomeHttpd(how) => match launch::become_httpd(&how)? {},
        Command::Remote(options, action) => remote::run(&options, &action),
    }
}

/// Writes a line to standard error. A closed terminal is no reason to stop.
fn say(text: impl std::fmt::Display) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "drover: {text}");
}

/// Writes to standard output, which may have been closed.
fn print(text: &str) -> Result<ExitCode, Error> {
    use std::io::Write;
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::io("standard output", e)),
        _ => Ok(ExitCode::SUCCESS),
    }
}
