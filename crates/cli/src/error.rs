//! Errors, and what to do about them.
//!
//! Responsible for: the text that a person reads. Must never: hide a cause. Called by: every file
//! of this crate.
use std::fmt;
use std::io;
use std::path::PathBuf;

/// Everything that ends `drover` early.
#[derive(Debug)]
pub enum Error {
    /// The command line is invalid.
    Usage(String),
    /// A group or a server must be chosen; the text lists them.
    Choice(String),
    /// A system call failed; the first field names its object.
    Io(String, io::Error),
    /// The private directory cannot be created.
    Scratch(io::Error),
    /// The application's file does not exist; with the argument, if it could name a module.
    NoApplication(PathBuf, Option<String>),
    /// The interpreter cannot import the application.
    NotImportable { application: String, python: PathBuf, why: String },
    /// The workers cannot load the application; with their error. Becomes [`Error::NotImportable`].
    NotLoaded(String),
    /// Listening on the host of --host is not possible; why.
    Host(String, String),
    /// Listening on this port needs root.
    PortDenied(u16),
    /// Another program listens there.
    PortInUse(String),
    /// The workers' user may not read a file or directory that it needs.
    Unreadable { user: String, path: PathBuf, barrier: PathBuf },
    /// A part of the installation is missing.
    Missing(&'static str, String),
    /// A part of the installation is of another version.
    Version { part: &'static str, needed: &'static str, found: String },
    /// A part of the installation does not run; with its error.
    Broken(&'static str, String),
    /// httpd refused its configuration, or exited by itself.
    Httpd(String),
    /// The server has no such group that this user may see; with those that it has.
    NoGroup(String, Vec<String>),
    /// A running server refused the command, or carried it out without success.
    Remote(String),
    /// No running server answers.
    Unreachable(String),
}

impl Error {
    /// A failed system call on `what`.
    pub fn io(what: impl fmt::Display, error: io::Error) -> Error {
        Error::Io(what.to_string(), error)
    }

    /// The exit status: 2 if the command line is invalid, 3 if no running server answers, else 1.
    pub fn exit_status(&self) -> u8 {
        match self {
            Error::Usage(_) | Error::Choice(_) | Error::NoGroup(..) => 2,
            Error::Unreachable(_) => 3,
            _ => 1,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Usage(what) => write!(f, "{what}\nTry: drover --help"),
            Error::Io(what, error) if error.kind() == io::ErrorKind::PermissionDenied => {
                write!(f, "{what}: {error}; the user that runs drover needs access to it")
            }
            Error::Io(what, error) => write!(f, "{what}: {error}"),
            Error::Scratch(error) => {
                write!(f, "cannot create a private directory: {error}; set TMPDIR to a directory that you may write to")
            }
            Error::NoApplication(path, None) => {
                write!(f, "no application {}: name a WSGI script file, or package.module:callable", path.display())
            }
            Error::NoApplication(path, Some(module)) => {
                write!(f, "no application {}: for the module {module} write {module}:application", path.display())
            }
            Error::NotImportable { application, python, why } => {
                writeln!(f, "{application} cannot be loaded by the interpreter {}: {why}", python.display())?;
                match std::env::var_os("VIRTUAL_ENV").map(PathBuf::from).filter(|venv| !python.starts_with(venv)) {
                    Some(venv) => {
                        write!(f, "The virtual environment of this shell is not used; to use it: --python {}/bin/python3", venv.display())
                    }
                    None => f.write_str("If it needs a virtual environment, name its interpreter: --python VENV/bin/python3"),
                }
            }
            Error::NotLoaded(why) => write!(f, "the application cannot be loaded: {why}"),
            Error::Host(host, why) => {
                write!(f, "--host {host}: {why}; expected a host name or an IP address of this machine, such as 127.0.0.1 or 0.0.0.0 (all)")
            }
            Error::PortDenied(port) => {
                write!(f, "only root may listen on port {port}: choose a --port from 1024 up, or run drover as root")
            }
            Error::PortInUse(address) => write!(f, "{address} is in use by another program: stop it, or choose another --port"),
            Error::Unreadable { user, path, barrier } => write!(
                f,
                "the application's user {user} cannot read {}, because of the mode of {}: move the application to a directory that every user \
                 may read, choose another --user, or run drover as the owner of those files instead of root",
                path.display(),
                barrier.display()
            ),
            Error::Missing(what, hint) => write!(f, "{what} not found: {hint}"),
            Error::Version { part, needed, found } => {
                write!(f, "{part} has version {found}, drover {needed}: run `make install` again")
            }
            Error::Broken(what, said) => {
                write!(f, "{what} does not run: {said}; run `make install` again, or make its file executable")
            }
            Error::Httpd(what) => write!(f, "httpd: {what}"),
            Error::NoGroup(name, known) if known.is_empty() => {
                write!(f, "no group '{name}' that you may see: root may see all groups, the user of a group (user=) that group")
            }
            Error::NoGroup(name, known) => write!(f, "no group '{name}' that you may see or control, only {}", known.join(", ")),
            Error::Choice(why) | Error::Remote(why) | Error::Unreachable(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Error {}

impl From<lexopt::Error> for Error {
    fn from(error: lexopt::Error) -> Error {
        Error::Usage(error.to_string())
    }
}
