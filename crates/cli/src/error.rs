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
    /// A call to the system failed; the first field says on what.
    Io(String, io::Error),
    /// The application's file does not exist; with the word that was given, if it could name a module.
    NoApplication(PathBuf, Option<String>),
    /// The interpreter cannot import the module; with what it said.
    NotImportable(String, String),
    /// Somebody else listens there.
    PortInUse(String),
    /// The workers' user may not read something it needs.
    Unreadable { user: String, path: PathBuf, barrier: PathBuf },
    /// A part of the installation is missing.
    Missing(&'static str, String),
    /// A part of the installation does not run; with what it said.
    Broken(&'static str, String),
    /// httpd refused its configuration, or ended by itself.
    Httpd(String),
    /// A running server could not be asked, or refused.
    Remote(String),
}

impl Error {
    /// A failed system call on `what`.
    pub fn io(what: impl fmt::Display, error: io::Error) -> Error {
        Error::Io(what.to_string(), error)
    }

    /// A running server could not be asked, or refused.
    pub fn remote(why: String) -> Error {
        Error::Remote(why)
    }

    /// Whether the command line is to blame.
    pub fn is_usage(&self) -> bool {
        matches!(self, Error::Usage(_))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Usage(what) => write!(f, "{what}\nTry: drover --help"),
            Error::Io(what, error) => write!(f, "{what}: {error}"),
            Error::NoApplication(path, None) => {
                write!(f, "there is no application {}: give a WSGI script file, or package.module:callable", path.display())
            }
            Error::NoApplication(path, Some(module)) => {
                write!(f, "there is no application {}: for the module {module} write {module}:application", path.display())
            }
            Error::NotImportable(module, said) => write!(f, "the interpreter cannot import {module}: {said}"),
            Error::PortInUse(address) => write!(f, "{address} is in use by another program: stop it, or choose another --port"),
            Error::Unreadable { user, path, barrier } => write!(
                f,
                "the user {user}, whom the application would run as, cannot read {}, because of {}: move it to where everybody may read, choose \
                 another --user, or run drover as the owner of those files instead of root",
                path.display(),
                barrier.display()
            ),
            Error::Missing(what, hint) => write!(f, "{what} was not found: {hint}"),
            Error::Broken(what, said) => write!(f, "{what} does not run: {said}"),
            Error::Httpd(what) => write!(f, "httpd: {what}"),
            Error::Remote(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Error {}

impl From<lexopt::Error> for Error {
    fn from(error: lexopt::Error) -> Error {
        Error::Usage(error.to_string())
    }
}
