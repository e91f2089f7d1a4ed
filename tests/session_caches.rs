//! Sessions in httpd's shared object caches, with a real Redis and a real memcached.
//!
//! Responsible for: the same behaviour as on disk, and a clear error when the cache is down. Must never: talk to a server that the test has not
//! started itself. Called by: `main.rs`.
use crate::harness::{Httpd, Site, site as sites, until};
use crate::sessions::{cookie, get};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

/// A server of the test's own, ended with it.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(mut command: Command, port: u16) -> Server {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("server");
        let server = Server { child, port };
        until("the cache", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        server
    }

    fn redis(site: &Site) -> Server {
        let port = sites::free_port();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port", &port.to_string()]);
        command.arg("--dir").arg(site.dir());
        Server::start(command, port)
    }

    fn memcached() -> Server {
        let port = sites::free_port();
        let mut command = Command::new("memcached");
        command.args(["-l", "127.0.0.1", "-u", "nobody", "-p", &port.to_string()]);
        Server::start(command, port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn site(site: Site, module: &str, engine: &str) -> Site {
    let site = site.modules(module).daemon("processes=2 threads=8").app("/", "sessions/plain.wsgi");
    site.config(&format!("DroverSession socache:{engine}"))
}

/// What every engine does.
fn works(httpd: &mut Httpd, lasts: bool, large: usize) {
    let cookie = cookie(&httpd.get("/count"));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..10).for_each(|_| assert_eq!(get(httpd, "/count", &cookie).status, 200)));
        }
    });
    assert_eq!(get(httpd, "/read", &cookie).text(), "81");
    let after = self::cookie(&get(httpd, "/login?name=me", &cookie));
    assert_eq!((get(httpd, "/read", &cookie).text(), get(httpd, "/read", &after).text()), ("none".into(), "81".into()));
    assert_eq!(get(httpd, &format!("/large?size={large}"), &after).text(), "stored");
    assert_eq!(get(httpd, "/count", &after).text(), "82");
    if lasts {
        httpd.graceful();
        assert_eq!(get(httpd, "/count", &after).text(), "83");
    }
    get(httpd, "/logout", &after);
    assert_eq!(get(httpd, "/read", &after).text(), "none");
    let short = self::cookie(&httpd.get("/short"));
    until("its end", || get(httpd, "/state", &short).text().contains("None True"));
}

/// A cache that is gone is an error in a moment, not a hang, and not an empty session.
fn down(httpd: &Httpd, server: Server) {
    let cookie = cookie(&httpd.get("/count"));
    let port = server.port;
    drop(server);
    until("its end", || TcpStream::connect(("127.0.0.1", port)).is_err());
    for path in ["/count", "/read"] {
        let answer = get(httpd, path, &cookie);
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")), "{path}");
    }
    assert_eq!(httpd.get("/count").status, 503);
}

mpm_test!(in_redis, |site| {
    let server = Server::redis(&site);
    let site = self::site(site, "socache_redis", &format!("redis:127.0.0.1:{}", server.port));
    let mut httpd = site.expect_log("DROVER0070*cannot be reached").allow_log("AH03478|AH03479").start();
    works(&mut httpd, true, 300_000);
    down(&httpd, server);
});

mpm_test!(in_memcached, |site| {
    let server = Server::memcached();
    let site = self::site(site, "socache_memcache", &format!("memcache:127.0.0.1:{}", server.port));
    let mut httpd = site.expect_log("DROVER0070*cannot be reached").allow_log("AH00790|AH00791").start();
    works(&mut httpd, true, 300_000);
    down(&httpd, server);
});

mpm_test!(in_shared_memory, |site| {
    let file = site.dir().join("run/sessions.shm");
    let mut httpd = self::site(site, "socache_shmcb", &format!("shmcb:{}(4000000)", file.display())).start();
    works(&mut httpd, false, 50_000);
});

mpm_test!(in_a_dbm, |site| {
    let file = site.dir().join("run/sessions.dbm");
    let mut httpd = self::site(site, "socache_dbm", &format!("dbm:{}", file.display())).allow_leftovers().start();
    works(&mut httpd, false, 500); // an SDBM file takes no more than 1000 bytes a session
});

event_test!(a_provider_that_is_not_loaded_is_refused, |site| {
    let asked = |line: &str| Site::new(site.subject, site.mpm, "provider").app("/", "sessions/plain.wsgi").config(line);
    let known = asked("DroverSession socache:shmcb");
    known.refused(&[
        "DROVER0013: DroverSession socache:shmcb: provider not loaded; load its module",
        "mod_socache_shmcb.so (@dir@/httpd.conf:",
    ]);
    asked("DroverSession socache:shmc").refused(&["did you mean socache:shmcb?"]);
    asked("DroverSession socache:nosuch").refused(&["there is no such provider; httpd has shmcb, dbm, memcache and redis"]);
    // The provider reads its arguments.
    let wrong = asked("DroverSession socache:shmcb:@dir@/run/x(1)").modules("socache_shmcb");
    wrong.refused(&["DROVER0013: DroverSession socache:shmcb:@dir@/run/x(1): Invalid argument: size has to be", "(@dir@/httpd.conf:"]);
});
