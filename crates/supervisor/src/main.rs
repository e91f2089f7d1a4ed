//! droverd: starts, monitors and replaces the worker processes of mod_drover. One thread, no
//! Python.
//!
//! httpd's parent process starts one droverd for the whole server and sends it the configuration.
//! Reading order: `reactor` (what happens), `supervisor` (what is done), `pool` (what is decided),
//! then the mechanisms: `queue`, `workers`, `control` and `log`.
#![forbid(unsafe_code)]

mod arguments;
mod reactor;
mod supervisor;

mod pool;

mod control;
mod log;
mod queue;
mod workers;

use arguments::{Arguments, Inherited, Run};
use drover_sys::signals::{self, Signals};
use drover_sys::{Errno, inherited};
use drover_wire::VERSION;
use log::messages::Code;
use rustix::process::{Pid, Resource, Signal, getpid, getrlimit, set_child_subreaper, set_parent_process_death_signal, setrlimit};
use std::process::ExitCode;
use std::rc::Rc;

/// Wrong usage (sysexits.h).
const USAGE: u8 = 64;
/// System error (sysexits.h).
const SYSTEM: u8 = 71;
/// The module and droverd have different versions (sysexits.h: configuration error).
const VERSIONS: u8 = 78;

fn main() -> ExitCode {
    inherited::fill_standard();
    // The level until a configuration arrives.
    let main = Rc::new(log::Sink::standard_error(5));
    let run = match arguments::parse(lexopt::Parser::from_env()) {
        Ok(Arguments::Version) => {
            println!("droverd {VERSION}");
            return ExitCode::SUCCESS;
        }
        Ok(Arguments::Run(run)) => run,
        Err(e) => {
            main.message(Code::BadArguments, None, None, &[e.to_string()]);
            return ExitCode::from(USAGE);
        }
    };
    if run.module != VERSION {
        main.message(Code::VersionMismatch, None, None, &[VERSION.to_owned(), run.module]);
        return ExitCode::from(VERSIONS);
    }
    match supervise(&run, main.clone()) {
        Ok(()) => ExitCode::SUCCESS,
        Err((what, errno)) => {
            main.message(Code::System, None, None, &[what, errno.to_string()]);
            ExitCode::from(SYSTEM)
        }
    }
}

fn supervise(run: &Run, main: Rc<log::Sink>) -> Result<(), (String, Errno)> {
    let cannot = |what: &'static str| move |errno| (format!("cannot {what}"), errno);
    let numbers = [run.control, run.broker, run.store_read, run.store_write];
    let taken =
        inherited::take(numbers).map_err(|(number, errno)| (format!("descriptor {number} is not the one that httpd passes"), errno))?;
    let [control, broker, store_read, store_write] = taken;
    set_parent_process_death_signal(Some(Signal::TERM)).map_err(cannot("request a signal on the exit of httpd"))?;
    // Workers forked by a fork server must become children of droverd.
    set_child_subreaper(Some(getpid())).map_err(cannot("become a subreaper for forked workers"))?;
    for signal in [signals::HANGUP, signals::PIPE, signals::USER1] {
        signals::ignore(signal);
    }
    let signals =
        Signals::block(&[signals::CHILD, signals::TERMINATE, signals::INTERRUPT]).map_err(cannot("create a signal descriptor"))?;
    let parent = Pid::from_raw(run.parent).ok_or_else(|| ("--parent is not a process id".to_owned(), Errno::INVAL))?;

    let executable = std::env::current_exe()
        .map_err(|e| ("cannot determine the path of droverd".to_owned(), Errno::from_io_error(&e).unwrap_or(Errno::IO)))?;
    let place = workers::spawn::SpawnContext::new(&executable, raise_open_files()).map_err(cannot("open /dev/null"))?;
    let poller = reactor::poller::Poller::new().map_err(cannot("create an epoll descriptor"))?;
    let store = queue::store::Store::new(store_read, store_write);
    let supervisor = supervisor::Supervisor::new(place, poller, main.clone(), store);
    main.message(Code::Running, None, None, &[VERSION.to_owned(), run.parent.to_string()]);
    let event_loop = reactor::event_loop::EventLoop::new(supervisor, signals, Inherited { control, broker }, parent);
    event_loop.and_then(reactor::event_loop::EventLoop::run).map_err(cannot("wait for events"))
}

/// Raises the soft limit of open files, because droverd needs several descriptors for each worker.
/// Returns the previous soft limit, which workers get back.
fn raise_open_files() -> Option<u64> {
    let before = getrlimit(Resource::Nofile);
    let mut raised = before;
    raised.current = before.maximum;
    setrlimit(Resource::Nofile, raised).ok().and(before.current)
}
