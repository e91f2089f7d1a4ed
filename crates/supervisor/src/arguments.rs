//! droverd's command line.
//!
//! Responsible for: `--version`, and the numbers of the descriptors that httpd's parent passes.
//! Called by: main.
use lexopt::{Arg, Parser, ValueExt};
use std::os::fd::OwnedFd;

#[derive(Debug, PartialEq, Eq)]
pub enum Arguments {
    Version,
    Run(Run),
}

/// Descriptor numbers, and the process id of httpd's parent.
#[derive(Debug, PartialEq, Eq)]
pub struct Run {
    /// Version of the module that started droverd.
    pub module: String,
    pub control: i32,
    pub broker: i32,
    pub store_read: i32,
    pub store_write: i32,
    pub parent: i32,
}

/// The sockets to httpd.
#[derive(Debug)]
pub struct Inherited {
    /// To the parent process.
    pub control: OwnedFd,
    /// To the child processes.
    pub broker: OwnedFd,
}

pub fn parse(mut parser: Parser) -> Result<Arguments, lexopt::Error> {
    let (mut module, mut control, mut broker, mut store_read, mut store_write, mut parent) = (None, None, None, None, None, None);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("version") => return Ok(Arguments::Version),
            Arg::Long("version-of-module") => module = Some(parser.value()?.string()?),
            Arg::Long("control") => control = Some(parser.value()?.parse()?),
            Arg::Long("broker") => broker = Some(parser.value()?.parse()?),
            Arg::Long("store") => store_read = Some(parser.value()?.parse()?),
            Arg::Long("store-write") => store_write = Some(parser.value()?.parse()?),
            Arg::Long("parent") => parent = Some(parser.value()?.parse()?),
            other => return Err(other.unexpected()),
        }
    }
    let need = |value: Option<i32>, name: &str| value.ok_or_else(|| lexopt::Error::from(format!("--{name} is missing")));
    Ok(Arguments::Run(Run {
        module: module.ok_or("--version-of-module is missing")?,
        control: need(control, "control")?,
        broker: need(broker, "broker")?,
        store_read: need(store_read, "store")?,
        store_write: need(store_write, "store-write")?,
        parent: need(parent, "parent")?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Result<Arguments, lexopt::Error> {
        parse(Parser::from_args(line.split_whitespace()))
    }

    #[test]
    fn a_line_of_the_module() {
        let run = of("--version-of-module 0.1.0 --control 3 --broker 4 --store 5 --store-write 6 --parent 77").unwrap();
        let expected = Run { module: "0.1.0".into(), control: 3, broker: 4, store_read: 5, store_write: 6, parent: 77 };
        assert_eq!(run, Arguments::Run(expected));
    }

    #[test]
    fn others() {
        assert_eq!(of("--version").unwrap(), Arguments::Version);
        assert!(of("").unwrap_err().to_string().contains("--version-of-module"));
        assert!(of("--control x").is_err() && of("stray").is_err());
    }
}
