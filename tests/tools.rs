//! The command `drover` as a person uses it.
//!
//! Responsible for: serve, config, check, and their messages when something is missing. Called by: `main.rs`.
use crate::harness::{Site, paths, processes};
use crate::serve::serve;
use rustix::process::Signal;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

pub fn drover(site: &Site, arguments: &[&str]) -> Command {
    let mut command = Command::new(paths::drover());
    command.args(arguments).env(processes::MARK, &site.id).current_dir(site.apps()).stdin(Stdio::null());
    command
}

pub fn ended(site: &Site, arguments: &[&str]) -> (Output, String) {
    let output = drover(site, arguments).output().expect("drover");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, said)
}

event_test!(serve_a_script_until_a_signal, |site| {
    let site = site.script("static/hello.txt", "plain file\n");
    for signal in [Signal::INT, Signal::TERM, Signal::QUIT] {
        let alias = format!("/files={}/static", site.apps().display());
        let serving = serve(&site, &["process.wsgi", "--processes", "2", "--threads", "3", "--url-alias", &alias]);
        let told = serving.get("/x").json();
        assert_eq!((told["cwd"].as_str(), told["multiprocess"].as_bool()), (site.apps().to_str(), Some(true)));
        let file = serving.get("/files/hello.txt");
        assert_eq!((file.text().as_str(), file.header("Content-Type")), ("plain file\n", Some("text/plain")));
        assert!(serving.said.contains("process.wsgi") && serving.said.contains(&serving.port.to_string()));
        serving.end(&site, signal);
    }
});

event_test!(serve_a_module, |site| {
    let site = site
        .script("shop/__init__.py", "")
        .script("shop/web.py", "class Site:\n    def app(self, e, s):\n        s('200 OK', [])\n        return [b'shop']\nsite = Site()\n");
    let serving = serve(&site, &["shop.web:site.app", "--mpm", "prefork"]);
    assert_eq!(serving.get("/").text(), "shop");
    serving.end(&site, Signal::INT);
});

event_test!(serve_a_script_of_a_project, |site| {
    let site = site.script("mysite/settings.py", "NAME = 'of the project'\n").script("mysite/__init__.py", "");
    let page = "import beside, mysite.settings, os\ndef application(e, s):\n    s('200 OK', [])\n    \
                return [f'{mysite.settings.NAME} {beside.NAME} {os.getcwd()}'.encode()]\n";
    let site = site.script("mysite/wsgi.py", page).script("mysite/beside.py", "NAME = 'and beside'\n");
    let serving = serve(&site, &["mysite/wsgi.py"]);
    assert_eq!(serving.get("/").text(), format!("of the project and beside {}", site.apps().display()));
    serving.end(&site, Signal::INT);
});

event_test!(serve_with_a_virtualenv, |site| {
    let python = paths::apps_venv().join("bin/python");
    let serving = serve(&site, &["flask/yourapplication.wsgi", "--python", &python.display().to_string(), "--mpm", "worker"]);
    assert_eq!(serving.get("/").text(), "Logged out");
    serving.end(&site, Signal::INT);
});

event_test!(clear_errors, |site| {
    let taken = TcpListener::bind("127.0.0.1:0").expect("listener");
    let port = taken.local_addr().expect("address").port().to_string();
    let cases: &[(&[&str], i32, &str)] = &[
        (&["serve", "hello.wsgi", "--port", &port], 1, "in use"),
        (&["serve", "missing.wsgi"], 1, "missing.wsgi"),
        (&["serve", "no/such.wsgi"], 1, "no application"),
        (&["serve", "mysite.wsgi"], 1, "write mysite.wsgi:application"),
        (&["serve", "nosuch:app"], 1, "no module 'nosuch'"),
        (&["serve", "json.nosuch:app"], 1, "no module 'json.nosuch'"),
        (&["serve", "json:nope"], 1, "no attribute 'nope'"),
        (&["serve", "json:nope", "--python", "/usr/bin/python3"], 1, "the interpreter /usr/bin/python3"),
        (&["serve", "json:nope"], 1, "--python"),
        (&["serve", "json:__name__"], 1, "not callable"),
        (&["serve", "hello.wsgi", "--host", "nosuch.invalid"], 1, "--host nosuch.invalid"),
        (&["serve", "hello.wsgi", "--grace", "soon"], 2, "30s"),
        (&["serve", "hello.wsgi", "--port", "99999"], 2, "--port 99999"),
        (&["serve", "hello.wsgi", "--python", "/no/python"], 1, "/no/python"),
        (&["serve", "hello.wsgi", "--httpd", "/no/httpd"], 1, "httpd"),
        (&["serve", "hello.wsgi", "--mpm", "fast"], 2, "event"),
        (&["serve"], 2, "application"),
        (&["dance"], 2, "dance"),
    ];
    for (arguments, code, part) in cases {
        let (output, said) = ended(&site, arguments);
        assert_eq!(output.status.code(), Some(*code), "{arguments:?}: {said}");
        assert!(said.contains(part) && said.starts_with("drover: "), "{arguments:?}: {said}");
    }
});

event_test!(config_is_a_configuration, |site| {
    let site = site.script("shop.py", "def app(e, s):\n    s('200 OK', [])\n    return [b'shop']\n");
    for application in ["hello.wsgi", "shop:app"] {
        let arguments = ["config", application, "--port", &site.port.to_string(), "--processes", "3"];
        let (output, said) = ended(&site, &arguments);
        assert!(output.status.success(), "{said}");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("processes=3") && text.contains(&format!("Listen 127.0.0.1:{}", site.port)));
        // What its head says to do, with a check in place of the server.
        let steps: String = text.lines().filter_map(|line| line.strip_prefix("#   ")).map(|line| format!("{line} &&\n")).collect();
        let drover = format!("{} {}", paths::drover().display(), arguments.join(" "));
        let steps = steps.replace("drover config ...", &drover).replace("-DFOREGROUND", "-t") + "ls \"$DROVER_DIRECTORY\"";
        let done = Command::new("sh").arg("-c").arg(&steps).env("TMPDIR", site.dir()).current_dir(site.apps()).output().expect("sh");
        let (listed, said) = (String::from_utf8_lossy(&done.stdout).into_owned(), String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success(), "{steps}\n{said}");
        assert_eq!(listed.contains("application.wsgi"), application == "shop:app", "{listed}");
        assert!(!said.contains("DROVER0014"), "all that it names is there: {said}");
    }
});

event_test!(version_help_and_check, |site| {
    let (version, _) = ended(&site, &["--version"]);
    assert!(String::from_utf8_lossy(&version.stdout).starts_with("drover 0."));
    let (help, _) = ended(&site, &["--help"]);
    assert!(String::from_utf8_lossy(&help.stdout).contains("--url-alias"));
    let (check, said) = ended(&site, &["check"]);
    let text = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(check.status.success(), "{text}{said}");
    for part in ["droverd", "httpd", "python", "extension", "MPM"] {
        assert!(text.lines().any(|l| l.starts_with(part)), "{part}: {text}");
    }
});

event_test!(make_install_copies_what_was_built, |site| {
    let make = |built: &str, destination: &str| {
        let mut command = Command::new("make");
        command.arg("-C").arg(paths::repository()).args(["install", "PREFIX=/usr/local", "CARGO=/bin/false"]);
        // As sudo leaves it: no Rust on PATH.
        command.env_clear().env("PATH", "/usr/bin:/bin").env("CARGO_TARGET_DIR", site.dir().join(built));
        command.arg(format!("DESTDIR={}", site.dir().join(destination).display())).stdin(Stdio::null()).output().expect("make")
    };
    for file in ["libmod_drover.so", "droverd", "lib_drover.so", "drover"] {
        site.write(&format!("built/release/{file}"), file);
    }
    let done = make("apps/built", "there");
    assert!(done.status.success(), "{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    let module = std::fs::read_to_string(site.dir().join("there/usr/local/lib/mod_drover/mod_drover.so"));
    assert_eq!(module.expect("the module"), "libmod_drover.so");
    let root = site.dir().join("there");
    let load = root.join("etc/apache2/mods-available/drover.load");
    if std::path::Path::new("/etc/debian_version").exists() {
        let text = std::fs::read_to_string(&load).expect("drover.load");
        assert!(text.starts_with("# Conflicts: wsgi\n"), "a2enmod refuses to enable both: {text}");
    }
    let sessions = root.join("var/lib/mod_drover/sessions");
    std::fs::create_dir_all(&sessions).expect("directory");
    let uninstall = || {
        let mut command = Command::new(paths::repository().join("scripts/uninstall.sh"));
        let output = command.arg("/usr/local").arg(&root).output().expect("uninstall.sh");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let removed =
        ["usr/local/lib/mod_drover", "usr/local/bin/drover", "etc/apache2/mods-available/drover.load"].map(|name| root.join(name));
    let there: Vec<_> = removed.iter().filter(|path| path.exists()).collect();
    let (done, said) = uninstall();
    assert!(done && there.len() >= 2, "{said}");
    for path in there {
        assert!(!path.exists() && said.contains(&format!("uninstall: removed {}\n", path.display())), "{said}");
    }
    assert!(sessions.exists() && said.contains(&format!("{} stays: ", sessions.display())), "{said}");
    assert!(said.contains("configuration and error logs stay"), "{said}");
    let (done, said) = uninstall();
    assert!(done && said.contains("nothing of mod_drover is installed below ") && !said.contains("removed"), "{said}");
    assert!(!make("apps/nothing", "nowhere").status.success(), "what was not built is built first");
    assert!(!site.dir().join("nowhere").exists());
});
