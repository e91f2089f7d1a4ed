//! How a template forks a worker.
//!
//! Responsible for: the worker being droverd's child, having its own control socket and output and none of its siblings', and saying
//! Hello before any Python code runs in it. Must never: run in a process with more than one thread. Called by: `template`.
#![allow(unsafe_code)]
use crate::process::fork;
use crate::process::native;
use drover_sys::{Errno, channel};
use pyo3::ffi;
use pyo3::prelude::*;
use rustix::pipe::{PipeFlags, pipe_with};
use std::ffi::c_int;
use std::os::fd::OwnedFd;

/// Which of the two processes goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The template.
    ForkServer,
    /// The new worker.
    Worker,
}

fn last() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::AGAIN)
}

/// Forks. The new worker has said `hello` on `control` and has `output` and `error` as descriptors 1 and 2.
///
/// There are two forks, and the process between them ends at once: so the kernel gives the worker to the next process above that adopts
/// orphans, which is droverd. The worker waits until that is so.
pub fn fork_worker(py: Python<'_>, hello: &[u8], control: &OwnedFd, output: &OwnedFd, error: &OwnedFd) -> Result<Side, Errno> {
    let (wait, go) = pipe_with(PipeFlags::CLOEXEC)?;
    // SAFETY: this is the process's only thread and it holds the GIL (`py`), as PyOS_BeforeFork asks; it is followed by
    // PyOS_AfterFork_Parent here or PyOS_AfterFork_Child in the worker, once each. fflush(NULL) writes what C code has left in
    // stdio's buffers, which would otherwise come out of every worker.
    unsafe {
        libc::fflush(std::ptr::null_mut());
        ffi::PyOS_BeforeFork();
    }
    // What Python code forks before and after this is a child like any other.
    fork::set_forking_worker(true);
    // SAFETY: one thread, so that no lock is held by another one: the child may go on as the parent could.
    let between = unsafe { libc::fork() };
    if between == 0 {
        fork_and_exit();
        fork::set_forking_worker(false);
        drop(go);
        set_up_worker(&wait, hello, control, output, error);
        // SAFETY: as above; this is the child in which Python goes on.
        unsafe { ffi::PyOS_AfterFork_Child() };
        return Ok(Side::Worker);
    }
    fork::set_forking_worker(false);
    let outcome = if between < 0 { Err(last()) } else { wait_for_exit(between) };
    // SAFETY: as above; this is the parent.
    unsafe { ffi::PyOS_AfterFork_Parent() };
    let _ = py;
    outcome?;
    // A worker that is gone already is noticed by droverd.
    let _ = drover_sys::write_once(&go, &[1]);
    Ok(Side::ForkServer)
}

/// In the process between: forks the worker and ends. Returns in the worker only.
fn fork_and_exit() {
    // SAFETY: the process was forked from one with one thread, and so has one.
    match unsafe { libc::fork() } {
        0 => {}
        -1 => native::leave(last().raw_os_error().clamp(1, 255)),
        _ => native::leave(0),
    }
}

/// Waits for the end of the process between, which says whether it could fork.
fn wait_for_exit(between: c_int) -> Result<(), Errno> {
    let mut status: c_int = 0;
    loop {
        // SAFETY: the pointer is to a local.
        if unsafe { libc::waitpid(between, &raw mut status, 0) } >= 0 {
            break;
        }
        match last() {
            Errno::INTR => {}
            // The application ignores SIGCHLD: the kernel has waited for us.
            Errno::CHILD => return Ok(()),
            e => return Err(e),
        }
    }
    match libc::WEXITSTATUS(status) {
        _ if !libc::WIFEXITED(status) => Err(Errno::AGAIN),
        0 => Ok(()),
        errno => Err(Errno::from_raw_os_error(errno)),
    }
}

/// In the worker, before Python knows of it. What fails here ends the process, of which droverd learns by its socket.
fn set_up_worker(wait: &OwnedFd, hello: &[u8], control: &OwnedFd, output: &OwnedFd, error: &OwnedFd) {
    // SAFETY: no pointer is involved. A group of its own, as every worker has: programs that it starts are killed with it.
    unsafe { libc::setpgid(0, 0) };
    let mut word = [0];
    let released = loop {
        match rustix::io::read(wait, &mut word) {
            Err(Errno::INTR) => {}
            other => break other,
        }
    };
    let ready = released == Ok(1)
        && rustix::stdio::dup2_stdout(output).is_ok()
        && rustix::stdio::dup2_stderr(error).is_ok()
        && channel::send(control, &[hello], &[], true).is_ok();
    if !ready {
        native::leave(1);
    }
}
