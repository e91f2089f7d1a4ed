//! What may stand in a .htaccess file, by the list of docs/directives.md: each such directive works there, every other one is refused there.
//!
//! Responsible for: the contexts that the documentation promises. Called by: `main.rs`.
use crate::harness::{Httpd, Site, paths, until};
use std::time::{Duration, SystemTime};

/// The names of directives in docs/directives.md whose context holds `.htaccess` with this `AllowOverride`, or does not hold it (`None`).
fn documented(class: Option<&str>) -> Vec<String> {
    let text = std::fs::read_to_string(paths::repository().join("docs/directives.md")).expect("docs/directives.md");
    let wanted = |entry: &&str| {
        let context = entry.lines().find(|l| l.starts_with("- Context: ")).expect("a context");
        class.map_or(!context.contains(".htaccess"), |class| context.contains(&format!(".htaccess (AllowOverride {class})")))
    };
    let entries = text.split("\n### ").skip(1).filter(|e| e.starts_with("WSGI"));
    let mut names: Vec<_> = entries.filter(wanted).map(|e| e.lines().next().expect("name").trim().to_string()).collect();
    assert!(!names.is_empty());
    names.sort();
    names
}

/// An application that tells what it sees in header fields.
fn script(mark: &str) -> String {
    format!(
        "def application(e, s):\n    s('404 No' if e['QUERY_STRING'] == 'missing' else '200 OK', [('X-Mark', '{mark}'), ('X-Method', e['REQUEST_METHOD']),\n        \
         ('X-Authorization', e.get('HTTP_AUTHORIZATION', 'none')), ('X-Address', e['REMOTE_ADDR'])])\n    return [b'mine']\n\
         def other(e, s):\n    s('200 OK', [('X-Mark', 'other')])\n    return [b'']\n"
    )
}

/// What a request with credentials and the header of a proxy gets told.
fn told(httpd: &Httpd, method: &str, target: &str, field: &str) -> String {
    let request = httpd.request(method, target).header("Authorization", "Basic QTpC").header("X-Forwarded-For", "1.2.3.4");
    request.send().header(field).unwrap_or("nothing").to_string()
}

fn reloading_is_off(httpd: &Httpd) -> bool {
    let path = httpd.site.apps().join("h.wsgi");
    let put = |mark: &str, time: SystemTime| {
        httpd.site.write("h.wsgi", &script(mark));
        std::fs::File::options().write(true).open(&path).expect("open").set_modified(time).expect("mtime");
    };
    let before = path.metadata().and_then(|m| m.modified()).expect("mtime");
    put("second", before + Duration::from_secs(100));
    let off = told(httpd, "GET", "/", "X-Mark") == "first";
    put("first", before);
    until("the first code again", || told(httpd, "GET", "/", "X-Mark") == "first");
    off
}

/// Each line, and what must be true while it is the file's only one and must not be true without.
type Seen = fn(&Httpd) -> bool;

const SEEN: [(&str, Seen); 8] = [
    ("WSGICallableObject other", |h| told(h, "GET", "/", "X-Mark") == "other"),
    ("WSGIPassAuthorization On", |h| told(h, "GET", "/", "X-Authorization") == "Basic QTpC"),
    ("WSGIChunkedRequest Off", |h| h.request("POST", "/").chunked([&b"abc"[..]]).send().status == 411),
    ("WSGIErrorOverride On", |h| h.get("/?missing").text() != "mine"),
    ("WSGIMapHEADToGET On", |h| told(h, "HEAD", "/", "X-Method") == "GET"),
    ("WSGITrustedProxyHeaders X-Forwarded-For", |h| told(h, "GET", "/", "X-Address") == "1.2.3.4"),
    // The main server trusts this header whoever sends it.
    ("WSGITrustedProxies 10.0.0.0/8", |h| {
        h.request("GET", "/").header("X-Client-IP", "1.2.3.4").send().header("X-Address") == Some("127.0.0.1")
    }),
    ("WSGIScriptReloading Off", reloading_is_off),
];

/// Of these an application sees nothing.
const UNSEEN: [&str; 2] = ["WSGIIgnoreActivity On", "WSGIEnableSendfile On"];

fn site(site: Site, allow: &str) -> Site {
    let text = format!("<Directory @apps@>\nAllowOverride {allow}\n</Directory>");
    site.config(&text)
        .config("WSGITrustedProxyHeaders X-Client-IP")
        .app("/", "h.wsgi")
        .script("h.wsgi", &script("first"))
        .script(".htaccess", "")
}

both_test!(each_directive_that_may_stand_in_htaccess_works_there, |site| {
    let name = |line: &str| line.split(' ').next().expect("name").to_string();
    let mut used: Vec<_> = SEEN.iter().map(|(line, _)| name(line)).chain(UNSEEN.map(name)).collect();
    used.sort();
    assert_eq!(used, documented(Some("FileInfo")), "a directive without its line here");
    let httpd = self::site(site, "FileInfo").expect_log("DROVER0025|WSGI0139").start();
    for (line, seen) in SEEN {
        httpd.site.write(".htaccess", "");
        assert!(!seen(&httpd), "without {line}");
        httpd.site.write(".htaccess", line);
        assert!(seen(&httpd), "with {line}");
    }
    for line in UNSEEN {
        httpd.site.write(".htaccess", line);
        assert_eq!(told(&httpd, "GET", "/", "X-Method"), "GET", "{line}");
    }
});

both_test!(without_allow_override_none_of_them_may, |site| {
    let httpd = self::site(site, "AuthConfig").allow_log("core:alert*/.htaccess: *not allowed here").start();
    for (line, _) in SEEN {
        httpd.site.write(".htaccess", line);
        assert_eq!(httpd.get("/").status, 500, "{line}");
    }
});

both_test!(every_other_directive_is_refused_in_htaccess, |site| {
    let httpd =
        self::site(site, "All").allow_log("core:alert*/.htaccess: *not allowed here|core:alert*/.htaccess: Invalid command").start();
    httpd.ok("/");
    for name in documented(None) {
        let (name, text) = match name.as_str() {
            "WSGIInterpreterOptions" => (format!("<{name}"), format!("<{name} process-group=x>\n</{name}>\n")),
            _ => (name.clone(), format!("{name} x y\n")),
        };
        httpd.site.write(".htaccess", &text);
        assert_eq!(httpd.get("/").status, 500, "{name}");
        let (refused, unknown) = (format!("/.htaccess: {name} not allowed here"), format!("/.htaccess: Invalid command '{name}'"));
        let said = httpd.log().matches(&refused).count() + if httpd.site.theirs() { httpd.log().matches(&unknown).count() } else { 0 };
        assert_eq!(said, 1, "{name}");
    }
});
