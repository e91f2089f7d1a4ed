//! Forks a worker from the fork server.
//!
//! Responsible for: a worker that is droverd's child, has its own control socket and output and no
//! descriptor of its siblings, and sends Hello before any Python code runs in it. Must never: run
//! in a process with more than one thread. Called by: `fork_server`.
#![allow(unsafe_code)]
use crate::process::fork;
use crate::process::native;
use drover_sys::{Errno, channel};
use pyo3::ffi;
use pyo3::prelude::*;
use rustix::pipe::{PipeFlags, pipe_with};
use std::ffi::c_int;
use std::os::fd::OwnedFd;

/// The process in which [`fork_worker`] returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The fork server.
    ForkServer,
    /// The new worker.
    Worker,
}

fn last() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::AGAIN)
}

/// Forks. The new worker has sent `hello` on `control`, and has `output` and `error` as descriptors
/// 1 and 2.
///
/// It forks twice, and the process in between exits at once. So the kernel gives the worker to the
/// nearest ancestor that adopts orphans, which is droverd. The worker waits until that has
/// happened.
pub fn fork_worker(py: Python<'_>, hello: &[u8], control: &OwnedFd, output: &OwnedFd, error: &OwnedFd) -> Result<Side, Errno> {
    let (wait, go) = pipe_with(PipeFlags::CLOEXEC)?;
    // SAFETY: this is the process's only thread and it holds the GIL (`py`), as PyOS_BeforeFork
    // requires. PyOS_AfterFork_Parent here or PyOS_AfterFork_Child in the worker follows, once
    // each. fflush(NULL) writes stdio's buffers of C code, which each worker would write otherwise.
    unsafe {
        libc::fflush(std::ptr::null_mut());
        ffi::PyOS_BeforeFork();
    }
    // Only the forks from here to the next call make a worker; others are the application's
    // children.
    fork::set_forking_worker(true);
    // SAFETY: with one thread, no other thread can hold a lock in the child.
    let between = unsafe { libc::fork() };
    if between == 0 {
        fork_and_exit();
        fork::set_forking_worker(false);
        drop(go);
        set_up_worker(&wait, hello, control, output, error);
        // SAFETY: follows PyOS_BeforeFork, in the child, which continues to run Python.
        unsafe { ffi::PyOS_AfterFork_Child() };
        return Ok(Side::Worker);
    }
    fork::set_forking_worker(false);
    let outcome = if between < 0 { Err(last()) } else { wait_for_exit(between) };
    // SAFETY: follows PyOS_BeforeFork, in the parent.
    unsafe { ffi::PyOS_AfterFork_Parent() };
    let _ = py;
    outcome?;
    // droverd notices a worker that has exited.
    let _ = drover_sys::write_once(&go, &[1]);
    Ok(Side::ForkServer)
}

/// In the process in between: forks the worker and exits. Returns in the worker only.
fn fork_and_exit() {
    // SAFETY: the process was forked from one with a single thread, and so has one.
    match unsafe { libc::fork() } {
        0 => {}
        -1 => native::exit(last().raw_os_error().clamp(1, 255)),
        _ => native::exit(0),
    }
}

/// Waits for the process in between to exit. Its status says whether it could fork.
fn wait_for_exit(between: c_int) -> Result<(), Errno> {
    let mut status: c_int = 0;
    loop {
        // SAFETY: the pointer is to a local.
        if unsafe { libc::waitpid(between, &raw mut status, 0) } >= 0 {
            break;
        }
        match last() {
            Errno::INTR => {}
            // The application ignores SIGCHLD, so the kernel has reaped it.
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

/// In the worker, before Python knows of it. An error ends the process; droverd notices that by its
/// socket.
fn set_up_worker(wait: &OwnedFd, hello: &[u8], control: &OwnedFd, output: &OwnedFd, error: &OwnedFd) {
    // SAFETY: no pointer is involved. Every worker leads its own process group, so that programs it
    // starts are killed with it.
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
        native::exit(1);
    }
}
