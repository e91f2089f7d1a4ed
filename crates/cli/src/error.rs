//! What can go wrong, and what to do about it.
//!
//! Responsible for: the words that a person reads. Must never: hide a cause. Called by: every file of this crate.
use std::fmt;
use std::io;
use std::path::PathBuf;

/// Everything that ends `drover` early.
#[derive(Debug)]
pub enum Error {
    /// The command line makes no sense.
    Usage(String),
    /// Something has to be chosen: a group, a server. Says between what.
    Choice(String),
    /// A call to the system failed; the first field says on what.
    Io(String, io::Error),
    /// The private directory cannot be made.
    Scratch(io::Error),
    /// The application's file does not exist; with the word that was given, if it could name a module.
    NoApplication(PathBuf, Option<String>),
    /// The interpreter cannot import the application.
    NotImportable { application: String, python: PathBuf, why: String },
    /// The workers cannot load the application; their words. Becomes [`Error::NotImportable`].
    NotLoaded(String),
    /// The host of --host cannot be listened on; why.
    Host(String, String),
    /// Listening on this port needs a right that drover does not have.
    PortDenied(u16),
    /// Somebody else listens there.
    PortInUse(String),
    /// The workers' user may not read something it needs.
    Unreadable { user: String, path: PathBuf, barrier: PathBuf },
    /// A part of the installation is missing.
    Missing(&'static str, String),
    /// A part of the installation is of another version.
    Version { part: &'static str, needed: &'static str, found: String },
    /// A part of the installation does not run; with what it said.
    Broken(&'static str, String),
    /// httpd refused its configuration, or ended by itself.
    Httpd(String),
    /// The server has no such group, or not for this user; with those that it has.
    NoGroup(String, Vec<String>),
    /// A running server refused, or did what was asked without success.
    Remote(String),
    /// No running server answers.
    Unreachable(String),
}

impl Error {
    /// A failed system call on `what`.
    pub fn io(what: impl fmt::Display, error: io::Error) -> Error {
        Error::Io(what.to_string(), error)
    }

    /// The exit status: 2 when the command line is wrong, 3 when no running server answers, else 1.
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
                write!(f, "{what}: {error}; the user of drover needs access to it")
            }
            Error::Io(what, error) => write!(f, "{what}: {error}"),
            Error::Scratch(error) => write!(f, "no private directory can be made: {error}; name a directory you may write to with TMPDIR"),
            Error::NoApplication(path, None) => {
                write!(f, "there is no application {}: give a WSGI script file, or package.module:callable", path.display())
            }
            Error::NoApplication(path, Some(module)) => {
                write!(f, "there is no application {}: for the module {module} write {module}:application", path.display())
            }
            Error::NotImportable { application, python, why } => {
                writeln!(f, "{application} cannot be loaded with the interpreter {}: {why}", python.display())?;
                match std::env::var_os("VIRTUAL_ENV").map(PathBuf::from).filter(|venv| !python.starts_with(venv)) {
                    Some(venv) => {
                        write!(f, "The virtual environment of this shell is not used; for it: --python {}/bin/python3", venv.display())
                    }
                    None => f.write_str("If it needs a virtual environment, name that one's interpreter: --python VENV/bin/python3"),
                }
            }
            Error::NotLoaded(why) => write!(f, "the application cannot be loaded: {why}"),
            Error::Host(host, why) => {
                write!(f, "--host {host}: {why}; give a host name or an IP address of this machine, such as 127.0.0.1 or 0.0.0.0 (all)")
            }
            Error::PortDenied(port) => write!(f, "port {port} may only be used by root: choose a --port from 1024, or run drover as root"),
            Error::PortInUse(address) => write!(f, "{address} is in use by another program: stop it, or choose another --port"),
            Error::Unreadable { user, path, barrier } => write!(
                f,
                "the user {user}, whom the application would run as, cannot read {}, because of {}: move it to where everybody may read, choose \
                 another --user, or run drover as the owner of those files instead of root",
                path.display(),
                barrier.display()
            ),
            Error::Missing(what, hint) => write!(f, "{what} was not found: {hint}"),
            Error::Version { part, needed, found } => {
                write!(f, "{part} is version {found}, drover is {needed}: run `make install` again")
            }
            Error::Broken(what, said) => {
                write!(f, "{what} does not run: {said}; `make install` again, or see that its file may be executed")
            }
            Error::Httpd(what) => write!(f, "httpd: {what}"),
            Error::NoGroup(name, known) if known.is_empty() => {
                write!(f, "there is no group '{name}' that you may see: root may see all groups, the user of a group (user=) that group")
            }
            Error::NoGroup(name, known) => write!(f, "there is no group '{name}' that you may see or steer, only {}", known.join(", ")),
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
