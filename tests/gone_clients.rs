//! Clients that close the connection before their response begins.
//!
//! Responsible for: httpd's thread not waiting for a response that nobody takes, however busy the application is. Called by: `main.rs`.
use crate::harness::until;

const LEFT: &str = "closed the connection before the response was complete";

/// Makes progress as far as httpd can see, and never responds until it is told to.
const APP: &str = r#"
import threading
import gate

done = threading.Event()

def application(environ, start_response):
    way = environ["PATH_INFO"]
    if way == "/end":
        done.set()
    else:
        gate.reach("busy")
        session = environ["mod_drover.session"]
        while not done.wait(0.01):
            if way == "/logs":
                environ["wsgi.errors"].write("still busy\n")
            else:
                session.save()
                session["n"] = session.get("n", 0) + 1
    start_response("200 OK", [])
    return [b"done"]
"#;

mpm_test!(a_busy_application_does_not_hold_a_thread_for_a_client_that_left, |site| {
    let site = site.daemon("processes=1 threads=3 socket-timeout=600").script("a.wsgi", APP).app("/", "a.wsgi");
    let busy = site.gate("busy");
    let site = site.config("DroverSession disk\nTimeout 1").allow_output().allow_log("StoreUnavailable");
    let httpd = site.expect_log(LEFT).start();
    for (n, way) in ["/logs", "/sessions"].into_iter().enumerate() {
        let mut conn = httpd.connect();
        conn.send(format!("GET {way} HTTP/1.1\r\nHost: x\r\n\r\n")).expect("send");
        busy.reached();
        drop(conn);
        until("the request has ended", || httpd.log().matches(LEFT).count() == n + 1);
    }
    assert_eq!(httpd.ok("/end"), "done");
});
