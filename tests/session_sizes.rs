//! Sessions that are larger than they may be, from an application that does not ask how large that is.
//!
//! Responsible for: httpd keeping no more of one than DroverSessionMaxSize, and the application being told. Called by: `main.rs`.
use crate::harness::{Httpd, processes};

/// Saves by key, as the session backends of frameworks do, without a look at the largest size.
const APP: &str = r#"
import mod_drover.session as sessions

def application(environ, start_response):
    calls = environ["mod_drover.session"]._calls
    said = "saved"
    try:
        calls.save("mine", b"x" * int(environ["QUERY_STRING"]), sessions.CREATE, 60, 0, False, None, False)
    except sessions.TooLarge as e:
        said = str(e)
    start_response("200 OK", [])
    return [said.encode()]
"#;

/// The most memory that a process of httpd has had, KiB.
fn most(httpd: &Httpd) -> u64 {
    let workers = httpd.workers();
    let others = httpd.family().into_iter().filter(|p| workers.iter().all(|w| w.pid != p.pid));
    let number = |text: String| text.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    others.map(|p| number(processes::status(p.pid, "VmHWM"))).max().unwrap_or(0)
}

mpm_test!(a_session_that_is_too_large_is_refused_as_it_comes, |site| {
    let site = site.script("a.wsgi", APP).app("/", "a.wsgi").config("DroverSession disk\nDroverSessionMaxSize 100K");
    let httpd = site.start();
    assert_eq!(httpd.ok("/?1000"), "saved");
    let before = most(&httpd);
    for _ in 0..8 {
        let said = httpd.ok("/?16000000");
        assert!(said.contains("DroverSessionMaxSize"), "{said}");
    }
    let after = most(&httpd);
    assert!(before > 1000 && after < before + 8 * 1024, "kept whole: {before} KiB before, {after} KiB after");
});
