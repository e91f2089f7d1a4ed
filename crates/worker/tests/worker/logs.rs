//! Lines for the error log.
use crate::harness::{Ending, Request, Worker};

#[test]
fn lines_reach_the_log_of_their_request() {
    let worker = Worker::serving(2, "app.wsgi");
    let answer = worker.get("/log");
    assert!(answer.log.iter().all(|(level, _)| *level == 3), "{answer:?}");
    assert_eq!(answer.logged(), "first line\nsecond \u{20ac} \\udc80\nfrom stderr\nab\nbytes\nfrom a thread\nwithout end\n");
    assert_eq!(answer.good(), "logged");
    assert_eq!(worker.drain(), "", "nothing went elsewhere");
}

#[test]
fn levels_that_httpd_does_not_log_are_not_sent() {
    let worker = Worker::serving(1, "app.wsgi");
    let mut request = Request::get("/log");
    request.prefix.log_level = 2;
    let answer = worker.request(&request).answer();
    assert_eq!((answer.log.len(), &answer.ending), (0, &Ending::End(true)));
    worker.drain();
}

#[test]
fn a_detached_stream_is_replaced() {
    let worker = Worker::serving(1, "app.wsgi");
    worker.get("/break_errors").good();
    let answer = worker.get("/log");
    assert!(answer.logged().starts_with("first line\n"), "{answer:?}");
    worker.drain();
}
