//! Frameworks whose sessions httpd keeps, and the cache of live objects.
//!
//! Responsible for: Django's own tests of session engines within a request, and what people do with sessions in Django, Flask and older
//! applications. The sessions themselves are tested in `sessions.rs`. Called by: `main.rs`.
use crate::harness::{Httpd, Site, paths, until};
use crate::real_apps::Browser;
use std::process::Command;

/// Threads that count at once, and how often each.
const CLIENTS: usize = 8;
const TIMES: usize = 12;

fn serve(site: Site, script: &str) -> Httpd {
    site.daemon("processes=2 threads=4 python-home=@venv@").app("/", &format!("sessions/{script}")).start()
}

/// All clients count in one session at once.
fn count_together(httpd: &Httpd, cookie: &str) {
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                for _ in 0..TIMES {
                    assert_eq!(httpd.request("GET", "/count").header("Cookie", cookie).send().status, 200);
                }
            });
        }
    });
}

mpm_test!(the_tests_of_django, |site| {
    let mut unpack = Command::new("tar");
    unpack.arg("xzf").arg(paths::django_sources()).args(["--wildcards", "--strip-components=2", "*/tests/sessions_tests"]);
    assert!(unpack.current_dir(site.dir()).status().expect("tar").success());
    let site = site.daemon("processes=1 threads=2 python-home=@venv@ python-path=@dir@");
    let httpd = site.app("/", "sessions/suite.wsgi").allow_output().start();
    let said = httpd.ok("/");
    let (tests, rest) = said.split_once(" tests, ").expect("a summary");
    assert!(tests.parse::<u32>().expect("a number") >= 60 && rest.starts_with("0 bad\n"), "{said}");
});

mpm_test!(a_django_site, |site| {
    let httpd = serve(site, "django_site.wsgi");
    let mut browser = Browser::default();
    assert_eq!(browser.get(&httpd, "/who").json(), serde_json::json!({"user": null, "ours": true}));
    assert_eq!(browser.cookie(), "", "reading makes no session");
    for n in 1..4 {
        assert_eq!(browser.get(&httpd, "/count").text(), n.to_string());
    }
    assert!(browser.cookie().starts_with("sessionid="), "{}", browser.cookie());
    browser.get(&httpd, "/cart?add=a");
    assert_eq!(browser.get(&httpd, "/cart?add=b").json()["cart"], serde_json::json!(["a", "b"]));
    let before = browser.cookie();
    browser.get(&httpd, "/login?name=J%C3%BCrgen");
    assert_ne!(browser.cookie(), before, "another key after the login");
    assert_eq!(browser.get(&httpd, "/who").json()["user"], "J\u{fc}rgen");
    let old = httpd.request("GET", "/who").header("Cookie", before).send();
    assert!(old.json()["user"].is_null(), "the old key is worth nothing");
    count_together(&httpd, &browser.cookie());
    assert_eq!(browser.get(&httpd, "/count").text(), (3 + CLIENTS * TIMES + 1).to_string());
    let before = browser.cookie();
    browser.get(&httpd, "/logout");
    assert!(httpd.request("GET", "/who").header("Cookie", before).send().json()["user"].is_null());
    for made_up in ["0123456789abcdef0123456789abcdef", "short", "../../etc/passwd", "a b", ""] {
        let answer = httpd.request("GET", "/count").header("Cookie", format!("sessionid={made_up}")).send();
        assert_eq!((answer.status, answer.text().as_str()), (200, "1"), "{made_up}");
        assert!(!answer.header("Set-Cookie").expect("cookie").contains("0123456789abcdef"), "{made_up}");
    }
});

mpm_test!(a_flask_application, |site| {
    let httpd = serve(site.allow_output(), "flask_site.wsgi");
    let mut browser = Browser::default();
    let answer = browser.get(&httpd, "/untouched");
    assert_eq!((answer.header("Vary"), browser.cookie().as_str()), (None, ""));
    assert_eq!(browser.get(&httpd, "/who").json()["new"], true);
    for n in 1..4 {
        let answer = browser.get(&httpd, "/count");
        assert_eq!((answer.text(), answer.header("Vary")), (n.to_string(), Some("Cookie")));
    }
    browser.get(&httpd, "/cart?add=a");
    assert_eq!(browser.get(&httpd, "/cart?add=b").json(), serde_json::json!(["a", "b"]), "changed in place");
    let before = browser.cookie();
    browser.get(&httpd, "/login?name=Ada");
    assert_ne!(browser.cookie(), before);
    let month = serde_json::json!({"user": "Ada", "new": false, "timeout": 31 * 24 * 3600});
    assert_eq!(browser.get(&httpd, "/who").json(), month, "permanent_session_lifetime");
    count_together(&httpd, &browser.cookie());
    assert_eq!(browser.get(&httpd, "/count").text(), (3 + CLIENTS * TIMES + 1).to_string());
    assert_eq!(browser.get(&httpd, "/boom").status, 500);
    let before = browser.cookie();
    browser.get(&httpd, "/logout");
    assert_eq!(httpd.request("GET", "/who").header("Cookie", before).send().json()["new"], true);
});

mpm_test!(an_application_written_for_beaker, |site| {
    let httpd = serve(site, "beaker.wsgi");
    let mut browser = Browser::default();
    for n in 1..4 {
        assert_eq!(browser.get(&httpd, "/").text(), n.to_string());
    }
    assert_eq!(browser.get(&httpd, "/logout").text(), "None");
    assert_eq!(browser.get(&httpd, "/").text(), "1");
});

mpm_test!(costly_objects_are_built_once, |site| {
    let site = site.daemon("processes=1 threads=6").app("/", "sessions/cache.wsgi");
    let (building, build) = (site.gate("building"), site.gate("build"));
    let httpd = site.start();
    let figures = || httpd.get("/figures").json();
    let answers: Vec<_> = std::thread::scope(|scope| {
        let requests: Vec<_> = (0..4)
            .map(|n| {
                (
                    n,
                    scope.spawn({
                        let httpd = &httpd;
                        move || httpd.get(&format!("/{n}/")).json()
                    }),
                )
            })
            .collect();
        building.reached();
        until("all of them wait for the one that builds", || figures()["misses"] == 4);
        build.open(1);
        requests.into_iter().map(|(n, request)| (n, request.join().expect("an answer"))).collect()
    });
    for (n, answer) in &answers {
        assert_eq!(answer["found"], serde_json::json!([format!("^/{n}/")]));
        assert_eq!(answer["rules"], answers[0].1["rules"], "the very same object");
    }
    let (last, before) = (httpd.get("/7/").json(), figures());
    assert_eq!(last["rules"], answers[0].1["rules"]);
    assert_eq!((&before["builds"], &before["hits"], &before["entries"]), (&1.into(), &1.into(), &1.into()));
});
