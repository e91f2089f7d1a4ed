//! `drover`: the command of mod_drover.
//!
//! Responsible for: choosing the subcommand, printing errors, the exit status. Must never: do work itself. Called by: people.
#![forbid(unsafe_code)]

mod application;
mod arguments;
mod check;
mod configuration;
mod error;
mod places;
mod relay;
mod remote;
mod serve;

use arguments::Command;
use error::Error;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("drover: {error}");
            ExitCode::from(if error.is_usage() { 2 } else { 1 })
        }
    }
}

fn run() -> Result<ExitCode, Error> {
    match arguments::parse(std::env::args_os())? {
        Command::Help => print(arguments::HELP),
        Command::Version => print(&format!("drover {}\n", drover_wire::VERSION)),
        Command::Serve(options) => serve::serve(&options),
        Command::Config(options) => print(&serve::print(&options)?),
        Command::Check(options) => check::check(&options),
        Command::Remote(how, command) => print(&remote::ask(&how, command)?),
    }
}

fn print(text: &str) -> Result<ExitCode, Error> {
    use std::io::Write;
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::io("standard output", e)),
        _ => Ok(ExitCode::SUCCESS),
    }
}
