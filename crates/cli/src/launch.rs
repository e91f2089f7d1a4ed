//! Starting httpd so that it stops when drover exits.
//!
//! Responsible for: httpd runs in its own session, so that neither a signal to drover's process
//! group nor a hang-up of its terminal reaches it; the kernel stops httpd when drover is killed.
//! Must never: start httpd without that signal. Called by: `serve.rs`, and `main.rs` for the second
//! half ([`become_httpd`]).
//!
//! Only the new process itself can request both. So drover executes itself once more and then
//! becomes httpd; code between fork and exec would be unsafe.
use crate::error::Error;
use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal, setsid};
use std::convert::Infallible;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// The hidden subcommand.
pub const SUBCOMMAND: &str = "become-httpd";

/// Arguments of [`become_httpd`].
#[derive(Debug, PartialEq)]
pub struct Become {
    /// Process id of the drover that started it.
    pub parent: i32,
    pub program: OsString,
    pub arguments: Vec<OsString>,
}

/// Starts httpd. The calling thread must live as long as drover: the kernel signals httpd when that
/// thread ends.
pub fn start(program: &Path, file: &Path) -> Result<Pid, Error> {
    let own = std::env::current_exe().map_err(|e| Error::io("/proc/self/exe", e))?;
    let child = Command::new(own)
        .arg(SUBCOMMAND)
        .arg(getpid().to_string())
        .arg(program)
        .arg("-f")
        .arg(file)
        .arg("-DFOREGROUND")
        .stdin(Stdio::null())
        .spawn()
        .map_err(|e| Error::io(program.display(), e))?;
    Ok(Pid::from_child(&child))
}

/// In the new process: becomes httpd.
pub fn become_httpd(how: &Become) -> Result<Infallible, Error> {
    let fail = |e: rustix::io::Errno| Error::io("the new process for httpd", e.into());
    set_parent_process_death_signal(Some(Signal::TERM)).map_err(fail)?;
    // drover may have been killed before the signal was asked for.
    if getppid().map(|p| p.as_raw_nonzero().get()) != Some(how.parent) {
        return Err(Error::Httpd("drover ended before httpd was started".into()));
    }
    setsid().map_err(fail)?;
    Err(Error::io(how.program.display(), Command::new(&how.program).args(&how.arguments).exec()))
}
