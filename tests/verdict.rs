//! The harness's own verdict: a process of ours that dies of a fault fails the test it dies in.
//!
//! Responsible for: no `allow_log` hiding a crash, neither of httpd's children nor of droverd nor of a worker. Called by: `main.rs`.
use crate::harness::{Httpd, processes, until};
use rustix::process::Signal;

/// Sends the signal, waits for the line, and the verdict must name it until it is expected.
fn fault(httpd: &mut Httpd, pid: i32, signal: Signal, line: &str) {
    httpd.signal(pid, signal);
    httpd.wait_log(line);
    assert!(httpd.verdict().iter().any(|f| crate::harness::log::matches(f, line)), "{line}: {:?}", httpd.verdict());
    httpd.expect_log(line);
    until("answers", || httpd.request("GET", "/").attempt().is_ok_and(|a| a.status == 200));
}

mpm_test!(no_allowance_hides_a_fault, |site| {
    let site = site.app("/", "hello.wsgi").daemon("processes=1 threads=2").allow_log("AH0|DROVER0|exit signal|signal|Fatal").allow_output();
    let mut httpd = site.start();
    httpd.ok("/");
    assert_eq!(httpd.verdict(), Vec::<String>::new());
    let (parent, droverd) = (httpd.pid(), httpd.droverd().pid);
    let child = processes::all().into_iter().find(|p| p.parent == parent && p.pid != droverd).expect("a child of httpd");
    fault(&mut httpd, child.pid, Signal::SEGV, "exit signal Segmentation fault");
    let worker = httpd.workers().remove(0);
    httpd.expect_log("Fatal Python error: Bus error");
    fault(&mut httpd, worker.pid, Signal::BUS, "DROVER0232*killed by signal 7");
    httpd.expect_log("exit signal Abort"); // it is httpd's child as well
    fault(&mut httpd, droverd, Signal::ABORT, "DROVER0007*killed by signal 6");
    assert_eq!(httpd.verdict(), Vec::<String>::new());
    // A death by a signal that others send is a matter of the patterns.
    let killed = httpd.droverd().pid;
    httpd.signal(killed, Signal::KILL);
    httpd.wait_log("DROVER0007*killed by signal 9");
    assert_eq!(httpd.verdict(), Vec::<String>::new());
});
