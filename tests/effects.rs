//! Directives and options whose effect no other test sees: what the application finds in its process.
//!
//! Responsible for: the rows of `tests/generated.rs` that name this file. Called by: `main.rs`.
use crate::harness::{Httpd, until};
use crate::sessions::{cookie, get};
use serde_json::json;

/// Tells how its interpreter was set up.
const SETTINGS: &str = r#"
import json, os, resource, sys

def use(name):
    try:
        getattr(sys, name).read() if name == "stdin" else print("", file=getattr(sys, name), end="")
    except OSError as e:
        return "refused"
    return "allowed"

def signal_is_kept():
    import signal
    before = signal.getsignal(signal.SIGUSR2)
    try:
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    except ValueError:
        return False  # Python's own: not in a thread
    return signal.getsignal(signal.SIGUSR2) == before

def application(environ, start_response):
    answer = {
        "optimize": sys.flags.optimize,
        "bytecode": sys.flags.dont_write_bytecode,
        "warnings": sys.warnoptions,
        "hash": os.environ.get("PYTHONHASHSEED"),
        "eggs": os.environ.get("PYTHON_EGG_CACHE"),
        "interval": round(sys.getswitchinterval(), 4),
        "address_space": resource.getrlimit(resource.RLIMIT_AS)[0],
        "path": [p for p in sys.path if "marked" in p],
        "signal": signal_is_kept(),
        "stdin": use("stdin"),
        "stdout": use("stdout"),
    }
    start_response("200 OK", [])
    return [json.dumps(answer).encode()]
"#;

mpm_test!(settings_of_python_reach_the_interpreter, |site| {
    for name in ["marked-global", "marked-block"] {
        std::fs::create_dir_all(site.dir().join(name)).expect("directory");
    }
    let site = site.script("settings.wsgi", SETTINGS).bare().config(
        "WSGIPythonOptimize 2\nWSGIDontWriteBytecode On\nWSGIPythonWarnings error::ResourceWarning\nWSGIPythonHashSeed 7\n\
         WSGIPythonEggs /eggs\nWSGISwitchInterval 0.25\nWSGIPythonPath @dir@/marked-global\nWSGIRestrictStdin On\nWSGIRestrictSignal Off\n\
         WSGIDaemonProcess own threads=1 python-eggs=/own switch-interval=0.5 virtual-memory-limit=8589934592\n\
         <WSGIInterpreterOptions process-group=own application-group=narrow>\nWSGIPythonPath @dir@/marked-block\nWSGIRestrictStdout On\n\
         WSGIRestrictStdin Off\nWSGIRestrictSignal On\n</WSGIInterpreterOptions>\n\
         WSGIScriptAlias /own @apps@/settings.wsgi process-group=own application-group=%{GLOBAL}\n\
         WSGIScriptAlias /narrow @apps@/settings.wsgi process-group=own application-group=narrow\n\
         WSGIScriptAlias / @apps@/settings.wsgi application-group=%{GLOBAL}",
    );
    let httpd = site.allow_log("DROVER0004").allow_output().start();
    let common = |value: &serde_json::Value| {
        json!([value["optimize"], value["bytecode"], value["warnings"], value["hash"]]) == json!([2, 1, ["error::ResourceWarning"], "7"])
    };
    let dir = httpd.site.dir().display().to_string();
    let (implicit, own, narrow) = (httpd.get("/").json(), httpd.get("/own").json(), httpd.get("/narrow").json());
    for value in [&implicit, &own, &narrow] {
        assert!(common(value), "{value}");
    }
    let particular =
        |value: &serde_json::Value| ["eggs", "interval", "path", "stdin", "stdout", "signal"].map(|key| value[key].clone()).to_vec();
    assert_eq!(
        particular(&implicit),
        [json!("/eggs"), json!(0.25), json!([format!("{dir}/marked-global")]), json!("refused"), json!("allowed"), json!(false)]
    );
    assert_eq!(particular(&own), [json!("/own"), json!(0.5), json!([]), json!("refused"), json!("allowed"), json!(false)]);
    assert_eq!(
        particular(&narrow),
        [json!("/own"), json!(0.5), json!([format!("{dir}/marked-block")]), json!("allowed"), json!("refused"), json!(true)]
    );
    assert_eq!((&own["address_space"], &implicit["address_space"]), (&json!(8_589_934_592_u64), &json!(-1)));
});

/// The process of a request, and how often this application has been loaded there.
const LOADED: &str = "import os, sys\nsys.times = getattr(sys, 'times', 0) + 1\ndef application(e, s):\n    s('200 OK', [])\n    \
    return [('%d %d %s' % (os.getpid(), sys.times, e['mod_wsgi.application_group'])).encode()]\n";

mpm_test!(paths_of_another_case_are_one_application_when_case_does_not_matter, |site| {
    let told = |httpd: &Httpd| {
        [httpd.ok("/App"), httpd.ok("/aPP")]
            .map(|text| text.split_once(' ').map(|(pid, rest)| (pid.to_owned(), rest.to_owned())).expect("two words"))
    };
    let site = |off: &str| {
        let site = crate::harness::Site::new(site.subject, site.mpm, "case").script("App.wsgi", LOADED).script("aPP.wsgi", LOADED);
        let site = site.bare().config(&format!("WSGIDaemonProcess app threads=1\nWSGIProcessGroup app\n{off}"));
        site.app("/App", "App.wsgi").app("/aPP", "aPP.wsgi")
    };
    let httpd = site("WSGICaseSensitivity On").start();
    let [upper, lower] = told(&httpd);
    assert!(upper.0 != lower.0 && upper.1.ends_with("|/App") && lower.1.ends_with("|/aPP"), "two applications: {upper:?} {lower:?}");
    drop(httpd);
    let httpd = site("WSGICaseSensitivity Off").start();
    let [upper, lower] = told(&httpd);
    assert_eq!(upper, lower, "one process, which has loaded one script once");
    assert_eq!(upper.1, format!("1 localhost:{}|/app", httpd.site.port));
});

mpm_test!(application_groups_are_bounded, |site| {
    let (hanging, go_on) = (site.gate("hanging"), site.gate("go-on"));
    let site = site.bare().expect_log("raise max-application-groups=");
    let alias = |name: &str| format!("WSGIScriptAlias /{name} @apps@/fail.wsgi application-group={name}\n");
    let group = "WSGIDaemonProcess app threads=1 max-application-groups=2 python-path=@apps@\nWSGIProcessGroup %{ENV:GROUP}\n";
    let httpd = site.modules("env").config(group).config("SetEnv GROUP app").config(&["a", "b", "c"].map(alias).concat());
    let httpd = httpd.allow_log("DROVER0260").start();
    std::thread::scope(|scope| {
        let busy = ["/a/hang", "/b/hang"].map(|path| scope.spawn(|| httpd.get(path).status));
        for _ in &busy {
            hanging.reached();
        }
        assert_eq!(httpd.get("/c/hang").status, 503, "both are in use");
        go_on.open(2);
        assert_eq!(busy.map(|thread| thread.join().expect("thread")), [200, 200]);
    });
});

mpm_test!(a_script_of_another_owner_is_403, |site| {
    let own = rustix::process::geteuid().as_raw();
    let own_group = rustix::process::getegid().as_raw();
    let other = own.wrapping_add(1);
    let text = format!(
        "WSGIDaemonProcess right threads=1 script-user=#{own} python-path=@apps@\nWSGIDaemonProcess wrong threads=1 script-user=#{other}\n\
         WSGIDaemonProcess right-group threads=1 script-group=#{own_group} python-path=@apps@\nWSGIDaemonProcess wrong-group threads=1 script-group=#{other}\n"
    );
    let aliases: String = ["right", "wrong", "right-group", "wrong-group"]
        .iter()
        .map(|group| format!("WSGIScriptAlias /{group} @apps@/hello.wsgi process-group={group}\n"))
        .collect();
    let httpd = site.bare().config(&(text + &aliases)).expect_log("DROVER0*script-user= or script-group= requires").start();
    assert_eq!(["/right", "/wrong", "/right-group", "/wrong-group"].map(|path| httpd.get(path).status), [200, 403, 200, 403]);
});

mpm_test!(silence_of_an_application_is_bounded, |site| {
    let site = site.bare().expect_log("DROVER0051|DROVER0052|DROVER0054|DROVER0055");
    let (hanging, go_on) = (site.gate("hanging"), site.gate("go-on"));
    let httpd = site
        .config("WSGIDaemonProcess plain threads=1 socket-timeout=1 python-path=@apps@")
        .config("WSGIDaemonProcess own threads=1 socket-timeout=600 response-socket-timeout=1 python-path=@apps@")
        .config("WSGIScriptAlias /plain @apps@/fail.wsgi process-group=plain application-group=%{GLOBAL}")
        .config("WSGIScriptAlias /own @apps@/fail.wsgi process-group=own application-group=%{GLOBAL}")
        .start();
    for path in ["/plain/hang", "/own/hang"] {
        assert_eq!(httpd.get(path).status, 504, "{path}");
        hanging.reached();
        go_on.open(1);
    }
});

/// Keeps what only pickle can, a set.
const KEEPS_A_SET: &str = "def application(e, s):\n    session = e['mod_drover.session']\n    seen = session.get('seen', set())\n    \
    session['seen'] = seen | {len(seen)}\n    s('200 OK', [])\n    return [str(len(seen)).encode()]\n";

mpm_test!(sessions_end_and_are_written_as_configured, |site| {
    let site = site.script("set.wsgi", KEEPS_A_SET).app("/set", "set.wsgi").app("/", "sessions/plain.wsgi");
    let httpd = site.config("DroverSession disk\nDroverSessionTimeout 1\nDroverSessionSync always\nDroverSessionSerializer pickle").start();
    let cookie = cookie(&httpd.get("/count"));
    until("its end", || get(&httpd, "/state", &cookie).text().contains("None True"));
    let answers = httpd.get("/set");
    let cookie = self::cookie(&answers);
    assert_eq!((answers.text(), get(&httpd, "/set", &cookie).text()), ("0".to_owned(), "1".to_owned()));
});
