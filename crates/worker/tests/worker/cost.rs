//! What one plain request costs the worker: a figure to look at, no verdict. `cargo test --release -p drover-worker cost -- --ignored --nocapture`
use crate::harness::{Request, Worker};
use std::collections::VecDeque;

#[test]
#[ignore = "a measurement"]
fn cost_of_hello() {
    const N: u32 = 60_000;
    for (threads, depth) in [(1, 1), (1, 8), (4, 8)] {
        let worker = Worker::serving(threads, "hello.wsgi");
        let mut request = Request::get("/hello");
        request.script = crate::harness::app("hello.wsgi");
        for n in 0..28 {
            request.set(&format!("HTTP_X_{n}"), b"some value of a header");
        }
        let mut running = VecDeque::new();
        let mut before = 0;
        for n in 0..N {
            if n == N / 6 {
                before = cpu_ns(&worker);
            }
            request.set("REMOTE_PORT", n.to_string().as_bytes());
            running.push_back(worker.request(&request));
            if running.len() >= depth {
                running.pop_front().unwrap().answer().good();
            }
        }
        while let Some(last) = running.pop_front() {
            last.answer().good();
        }
        let used = cpu_ns(&worker) - before;
        println!("{threads} threads, {depth} at once: {:.1} µs CPU of the worker for each", used as f64 / 1e3 / f64::from(N - N / 6));
        worker.drain();
    }
}

/// CPU time of all threads of the worker.
fn cpu_ns(worker: &Worker) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", worker.pid().as_raw_nonzero())).unwrap();
    let one =
        |task: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap_or_default();
    tasks.map(|t| one(t).split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0)).sum()
}
