//! Descriptors that somebody fills a process with: sockets for whose messages the kernel makes pidfds as they are read (SO_PASSPIDFD).
//!
//! Responsible for: none being left in httpd's children, droverd or other workers, whoever set that option where. On kernels before 6.5,
//! which do not know it, there is nothing to be left. Called by: `main.rs`.
use crate::harness::{Httpd, Site, processes::Process};
use crate::hostile::{self, Bad, good};

/// How many pidfds each process below httpd has, of those that have any.
fn with_pidfds(httpd: &Httpd) -> Vec<(String, usize)> {
    let count = |p: &Process| {
        let fds = std::fs::read_dir(format!("/proc/{}/fd", p.pid)).into_iter().flatten().flatten();
        let links = fds.filter_map(|fd| std::fs::read_link(fd.path()).ok());
        links.filter(|link| link.to_string_lossy().contains("pidfd")).count()
    };
    httpd.family().iter().map(|p| (p.command.clone(), count(p))).filter(|(_, n)| *n > 0).collect()
}

/// Fills descriptors: `/droverd` droverd's, by the worker's control socket and then by the one for administrators; `/queue` those of all who
/// read the group's queue from now on.
const FILLS: &str = r#"
import array, os, socket

SO_PASSPIDFD = 76

def inherited(name):
    with open("/proc/self/cmdline", "rb") as line:
        words = line.read().split(b"\0")
    return socket.socket(fileno=os.dup(int(words[words.index(name) + 1])))

def asks(socket_):
    try:
        socket_.setsockopt(socket.SOL_SOCKET, SO_PASSPIDFD, 1)
    except OSError:
        pass  # an old kernel
    return socket_

def pair():
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near.setblocking(False)
    return near, asks(far)

def packed(depth=2):
    near, far = pair()
    inner = [packed(depth - 1) for _ in range(3)] if depth else []
    for _ in range(100):
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [s.fileno() for s in inner]))]
        near.sendmsg([b"x"], rights if inner else [])
    return far

def give(to):
    held = [packed() for _ in range(3)]
    fds = array.array("i", [s.fileno() for s in held])
    try:
        to.sendmsg([b"nonsense"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        return "sent"
    except PermissionError:
        return "refused"

def application(environ, start_response):
    path, body = environ["PATH_INFO"], str(os.getpid())
    if path == "/worker":
        body = give(inherited(b"--control"))
    elif path == "/admin":
        client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client.connect(os.path.join("@dir@", "run/drover.sock"))
        body = give(client)
        if body == "sent":
            client.recv(100)  # droverd has read it
    elif path == "/queue":
        asks(inherited(b"--queue"))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body.encode()]
"#;

fn site(site: Site) -> Site {
    let script = FILLS.replace("@dir@", &site.dir().display().to_string());
    site.script("fills.wsgi", &script).app("/", "fills.wsgi").daemon("processes=2 threads=2")
}

mpm_test!(a_worker_cannot_fill_the_descriptors_of_httpds_children, |site| {
    let httpd = hostile::site(site).start();
    let bad = Bad::new(&httpd);
    for _ in 0..3 {
        let answer = httpd.get("/hostile/pidfds");
        assert_eq!((answer.status, answer.text().as_str()), (200, "first\n"));
    }
    assert!(good(&httpd.get("/good")));
    assert_eq!(with_pidfds(&httpd), []);
    bad.release();
});

mpm_test!(nobody_can_fill_droverds_descriptors, |site| {
    let httpd = self::site(site).expect_log("DROVER0209*message from worker").start();
    httpd.ok("/admin");
    assert_eq!(with_pidfds(&httpd), []);
    assert_eq!(httpd.ok("/worker"), "sent");
    httpd.wait_log("DROVER0209");
    httpd.ok("/");
    assert_eq!(with_pidfds(&httpd), []);
});

mpm_test!(a_queue_that_a_worker_has_spoilt_leaves_nothing_in_later_workers, |site| {
    let httpd = self::site(site).start();
    for _ in 0..2 {
        httpd.ok("/queue");
        for _ in 0..20 {
            httpd.ok("/");
        }
        assert_eq!(with_pidfds(&httpd), []);
        let (reloaded, _, said) = crate::control::run(&httpd, &["reload", "app"]);
        assert!(reloaded, "{said}");
        for _ in 0..20 {
            httpd.ok("/");
        }
        assert_eq!(with_pidfds(&httpd), []);
    }
});
