//! Configuration: what is refused and with which words, who sees which group, what works without a group.
//!
//! Responsible for: `apachectl -t` as the administrator meets it. Called by: `main.rs`.
use crate::harness::paths;

/// A line of configuration and what must be said when it is refused.
const REFUSED: &[(&str, &[&str])] = &[
    ("WSGIDaemonProcess x proceses=2", &["proceses", "processes"]),
    ("WSGIDaemonProcess x threads=many", &["threads", "many"]),
    ("WSGIDaemonProcess x processes=0", &["processes"]),
    ("WSGIDaemonProcess x umask=999", &["umask"]),
    ("WSGIDaemonProcess x user=no-such-user-here", &["no-such-user-here"]),
    ("WSGIDaemonProcess x group=no-such-group-here", &["no-such-group-here"]),
    ("WSGIDaemonProcess x home=relative/path", &["home"]),
    ("WSGIDaemonProcess x home=@dir@/missing", &["missing"]),
    ("WSGIDaemonProcess x python=@dir@/no-python", &["no-python"]),
    ("WSGIDaemonProcess x python-home=@dir@/no-venv", &["no-venv"]),
    ("WSGIDaemonProcess", &["WSGIDaemonProcess"]),
    ("WSGIDaemonProcess app", &["app", "already defined"]),
    ("WSGIScriptAlias /only-one", &["WSGIScriptAlias"]),
    (
        "WSGIDaemonProcess bare threads=1\nWSGIPythonHome @dir@/no-home",
        &["DROVER0012: WSGIPythonHome @dir@/no-home: @dir@/no-home/bin/python3 not found"],
    ),
    ("DroverSession memory", &["DROVER0013: DroverSession memory"]),
    ("WSGIScriptAlias / /x.wsgi proces-group=app", &["proces-group", "process-group"]),
    ("WSGIScriptAlias / /x.wsgi process-group=later application-group=%{GLOBAL}\nWSGIDaemonProcess later", &["later"]),
    ("WSGIScriptAliasMatch ^/([ /x.wsgi", &["WSGIScriptAliasMatch"]),
    ("WSGIChunkedRequest Perhaps", &["WSGIChunkedRequest"]),
    ("WSGIMapHEADToGET Sometimes", &["WSGIMapHEADToGET"]),
    ("WSGITrustedProxies not-an-address", &["not-an-address"]),
    ("WSGIImportScript @apps@/hello.wsgi", &["WSGIImportScript", "process-group"]),
    ("<Location />\nWSGIDaemonProcess inside\n</Location>", &["WSGIDaemonProcess"]),
    ("<VirtualHost *:1>\nWSGIPythonHome /usr\n</VirtualHost>", &["WSGIPythonHome"]),
    ("WSGINoSuchDirective On", &["WSGINoSuchDirective"]),
    ("WSGIDispatchScript /x.py", &["WSGIDispatchScript"]),
];

event_test!(wrong_lines_are_refused_with_file_and_line, |site| {
    let mut faults = Vec::new();
    for (line, parts) in REFUSED {
        let text = site.text() + &site.fill(line) + "\n";
        let path = site.dir().join("wrong.conf");
        std::fs::write(&path, &text).expect("configuration");
        let mut command = std::process::Command::new(paths::httpd());
        let output =
            command.arg("-t").arg("-f").arg(&path).env_clear().envs(crate::harness::httpd::environment(&site)).output().expect("httpd -t");
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &site.logs().all();
        if output.status.success() {
            faults.push(format!("accepted: {line}"));
        }
        let place =
            |n: usize| said.contains(&format!("line {n} of {}", path.display())) || said.contains(&format!("{}:{n}", path.display()));
        let (first, last) = (site.text().lines().count() + 1, text.lines().count());
        if !(first..=last).any(place) {
            faults.push(format!("no line {first} to {last} of the file named for {line:?}: {said}"));
        }
        for part in parts.iter().filter(|p| !said.contains(&site.fill(p))) {
            faults.push(format!("no {part:?} for {line:?}: {said}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
});

/// Lines that are accepted, as by mod_wsgi, and what `httpd -t` says of them, with the line.
const DOUBTED: &[(&str, &str)] = &[
    ("WSGIProcessGroup apps", "DROVER0014: WSGIProcessGroup: no WSGIDaemonProcess defines the group 'apps'; did you mean 'app'?"),
    (
        "<Directory /tmp>\nWSGIProcessGroup nosuch\n</Directory>",
        "DROVER0014: WSGIProcessGroup: no WSGIDaemonProcess defines the group 'nosuch'",
    ),
    ("WSGIRestrictProcess app nosuch", "DROVER0014: WSGIRestrictProcess: no WSGIDaemonProcess defines the group 'nosuch'"),
    ("WSGIScriptAlias /x @apps@/hello.wsgi process-group=nosuch", "DROVER0014: WSGIScriptAlias: no WSGIDaemonProcess defines the group"),
    (
        "<VirtualHost *:1>\nServerName a\nWSGIDaemonProcess of-a\n</VirtualHost>\n<VirtualHost *:1>\nServerName b\nWSGIProcessGroup of-a\n</VirtualHost>",
        "DROVER0014: WSGIProcessGroup: the group 'of-a' is defined in the virtual host a, and only hosts with",
    ),
    ("WSGIDaemonProcess x python-path=@dir@/nope", "DROVER0014: WSGIDaemonProcess x: python-path=@dir@/nope: not found"),
    ("DroverControlSocket @dir@/nope/x.sock", "DROVER0014: DroverControlSocket @dir@/nope/x.sock: directory @dir@/nope not found"),
    ("WSGIScriptAlias /x @dir@/nope.wsgi", "DROVER0014: script @dir@/nope.wsgi: not found"),
    ("WSGIScriptAlias /x nope.wsgi", "DROVER0003: WSGIScriptAlias: 'nope.wsgi' is not an absolute path"),
    ("WSGIApplicationGroup %{GLOBL}", "DROVER0003: WSGIApplicationGroup: '%{GLOBL}' is used literally; did you mean %{GLOBAL}?"),
    ("WSGIDaemonProcess x home='@dir@", "DROVER0003: WSGIDaemonProcess: the closing quote is missing"),
    ("WSGITrustedProxyHeaders", "DROVER0003: WSGITrustedProxyHeaders: no header is named"),
    ("WSGIDaemonProcess x processes=2 processes=3", "DROVER0003: WSGIDaemonProcess: processes= is given more than once"),
];

event_test!(what_will_not_work_is_told_with_file_and_line, |site| {
    let first = site.text().lines().count() + 1;
    for (lines, part) in DOUBTED {
        let (subject, mpm) = (site.subject, site.mpm);
        let site = crate::harness::Site::new(subject, mpm, "doubted").config(lines);
        let last = first - 1 + lines.lines().count();
        let (said, part) = (site.accepted(), site.fill(part));
        let line = said.lines().find(|line| line.contains(&part)).unwrap_or_else(|| panic!("no {part:?} for {lines}: {said}"));
        assert!((first..=last).any(|n| line.ends_with(&site.fill(&format!("(@dir@/httpd.conf:{n})")))), "{first} to {last}: {line}");
    }
    assert!(!site.accepted().contains("DROVER"), "nothing is said of a sound configuration");
    // No group needs it: what needs it is refused.
    let own = site.bare().config("WSGIDaemonProcess own python=/usr/bin/python3\nWSGIPythonHome @dir@/nope");
    assert!(own.accepted().contains(&own.fill("DROVER0014: WSGIPythonHome @dir@/nope: @dir@/nope/bin/python3 not found")));
});

event_test!(what_will_not_work_is_told_in_the_log_at_graceful, |site| {
    let site = site.app("/", "hello.wsgi").allow_log("DROVER0014: WSGIRestrictProcess: no WSGIDaemonProcess defines the group 'nosuch'");
    let mut httpd = site.start();
    httpd.reconfigure(|site| site.config("WSGIRestrictProcess app nosuch").expect_log("wsgi:warn*DROVER0014*nosuch*httpd.conf:"));
    httpd.graceful();
    httpd.ok("/");
});

event_test!(what_mod_wsgi_accepts_is_accepted, |site| {
    let options = "processes=2 threads=3 umask=0022 home=@apps@ lang=C.UTF-8 locale=C.UTF-8 python-path=@apps@ display-name=%{GROUP} \
                   request-timeout=60 queue-timeout=45 graceful-timeout=15 eviction-timeout=0 shutdown-timeout=5 startup-timeout=15 \
                   deadlock-timeout=60 inactivity-timeout=0 connect-timeout=15 socket-timeout=60 interrupt-timeout=0 restart-interval=0 \
                   maximum-requests=1000 stack-size=524288 cpu-priority=5 listen-backlog=100 send-buffer-size=0 receive-buffer-size=0 \
                   header-buffer-size=0 response-buffer-size=0 response-socket-timeout=0 cpu-time-limit=0 memory-limit=0 \
                   virtual-memory-limit=0 server-metrics=Off python-eggs=@dir@ socket-user=#0 'script-user=root'";
    let text = format!(
        "WSGIDaemonProcess full {options}\nWSGISocketPrefix @dir@/run/wsgi\nWSGISocketRotation Off\nWSGIAcceptMutex Default\nWSGIRestrictEmbedded On\n\
         WSGIRestrictStdin On\nWSGIRestrictStdout Off\nWSGIRestrictSignal On\nWSGIPythonOptimize 1\nWSGIPythonWarnings ignore\nWSGIPythonHashSeed random\n\
         WSGIDontWriteBytecode On\nWSGIDestroyInterpreter Off\nWSGICaseSensitivity On\nWSGIVerboseDebugging Off\nWSGILazyInitialization On\n\
         WSGIScriptReloading On\nWSGIPassAuthorization On\nWSGIErrorOverride Off\nWSGIIgnoreActivity Off\nWSGIEnableSendfile On\nWSGIServerMetrics Off\n\
         WSGIRestrictProcess app full\nWSGICallableObject application\n<IfModule !wsgi_module>\nBroken\n</IfModule>\n<IfModule !mod_wsgi.c>\nBroken\n</IfModule>\n"
    );
    let text = text.replace("'script-user=root'", "");
    let said = site.config(&text).accepted();
    assert!(said.contains("Syntax OK"), "{said}");
});

/// The configuration with two LoadModule lines in the place of the harness's one, each in a file of its own, and what `httpd -t` says of it.
fn both_modules(site: &crate::harness::Site, ours_first: bool) -> (bool, String) {
    let (ours, theirs) = (site.load_line(), format!("LoadModule wsgi_module {}", paths::their_module().display()));
    let (first, second) = if ours_first { (&ours, &theirs) } else { (&theirs, &ours) };
    std::fs::write(site.dir().join("first.load"), format!("{first}\n")).expect("file");
    std::fs::write(site.dir().join("second.load"), format!("# one line of something else\n{second}\n")).expect("file");
    let text = site.text().replace(&format!("{ours}\n"), &site.fill("Include @dir@/first.load\nInclude @dir@/second.load\n"));
    // mod_wsgi does not know it.
    let text = text.replace(&site.fill("DroverSessionDirectory @dir@/sessions\n"), "");
    let path = site.dir().join("both.conf");
    std::fs::write(&path, text).expect("configuration");
    let mut command = std::process::Command::new(paths::httpd());
    let output =
        command.arg("-t").arg("-f").arg(&path).env_clear().envs(crate::harness::httpd::environment(site)).output().expect("httpd -t");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned() + &site.logs().all())
}

mpm_test!(mod_wsgi_loaded_behind_us_is_refused, |site| {
    let (accepted, said) = both_modules(&site, true);
    assert!(!accepted, "{said}");
    let place = site.fill("on line 2 of @dir@/second.load");
    for part in ["DROVER0005", &place, &paths::their_module().display().to_string(), &paths::our_module().display().to_string()] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
});

mpm_test!(mod_wsgi_loaded_before_us_serves_and_httpd_says_so, |site| {
    // httpd skips ours before any code of it runs; docs/compatibility.md says what to look for.
    let (accepted, said) = both_modules(&site, false);
    assert!(accepted && said.contains("AH01574: module wsgi_module is already loaded, skipping"), "{said}");
    assert!(!said.contains("DROVER"), "{said}");
});

mpm_test!(our_own_line_twice_is_as_once, |site| {
    let line = site.load_line();
    let httpd =
        site.load(&format!("{line}\n{line}")).app("/", "hello.wsgi").allow_log("AH01574: module wsgi_module is already loaded").start();
    httpd.ok("/");
});

const HOSTS: &str = "\
<VirtualHost *:@port@>\nServerName a.example\nErrorLog @logs@/a.log\nWSGIDaemonProcess of-a threads=2 python-path=@apps@\n\
WSGIScriptAlias /own @apps@/environ.wsgi process-group=of-a\nWSGIScriptAlias /global @apps@/environ.wsgi process-group=app\n</VirtualHost>\n\
<VirtualHost *:@port@>\nServerName b.example\nErrorLog @logs@/b.log\nWSGIScriptAlias /other @apps@/environ.wsgi process-group=of-a\n\
WSGIScriptAlias /global @apps@/environ.wsgi process-group=app\n</VirtualHost>\n\
<VirtualHost 127.0.0.1:@port@>\nServerName a.example\nServerAlias a2.example\nWSGIScriptAlias /own @apps@/environ.wsgi process-group=of-a\n</VirtualHost>\n";

both_test!(a_group_serves_all_virtual_hosts_of_its_server_name, |site| {
    // The second host names the group of the first.
    let httpd = site.bare().config("WSGIDaemonProcess app threads=2 python-path=@apps@").config(HOSTS).allow_log("DROVER0014").start();
    // The third host is on the address itself, so httpd takes it for every request; its ServerName is that of the first.
    let answer = httpd.request("GET", "/own").header("Host", "a2.example").send();
    assert_eq!(answer.json()["mod_wsgi.process_group"], "of-a");
});

both_test!(a_group_of_another_virtual_host_is_500, |site| {
    let text = HOSTS.split("<VirtualHost 127").next().expect("two hosts");
    let httpd = site
        .bare()
        .config("WSGIDaemonProcess app threads=2 python-path=@apps@")
        .config(text)
        .expect_log("DROVER0028|WSGI0152")
        .allow_log("DROVER0014")
        .start();
    let get = |host: &str, path: &str| httpd.request("GET", path).header("Host", host).send();
    assert_eq!(get("a.example", "/own").json()["mod_wsgi.process_group"], "of-a");
    assert_eq!(get("a.example", "/global").json()["mod_wsgi.process_group"], "app");
    assert_eq!(get("b.example", "/global").json()["mod_wsgi.process_group"], "app");
    assert_eq!(get("b.example", "/other").status, 500);
    assert!(httpd.logs().file("b.log").contains("of-a"), "the refusal is in the log of the virtual host that was asked");
});

mpm_test!(without_a_group_there_is_an_implicit_one, |site| {
    let httpd = site.bare().app("/", "hello.wsgi").allow_log("DROVER0004").start();
    for _ in 0..3 {
        assert_eq!(httpd.ok("/"), "Hello, drover\n");
    }
    assert!(httpd.log().contains("DROVER0004"));
    assert_eq!(httpd.log().matches("DROVER0004").count(), 1, "said once");
});

mpm_test!(the_mpm_is_named_with_what_follows, |site| {
    let name = site.mpm.name();
    let httpd = site.app("/", "hello.wsgi").start();
    let line = httpd.log().lines().find(|l| l.contains("DROVER0002")).map(String::from).expect("DROVER0002");
    assert!(line.contains(name) && crate::harness::log::level(&line) == Some("notice"), "{line}");
    let (children, threads, all) = if name == "prefork" { (64, "1 thread", 64) } else { (4, "32 threads", 128) };
    let sizes = format!("MPM {name}: up to {children} child processes x {threads}, so at most {all} requests at once");
    assert!(line.ends_with(&sizes), "{line}");
    assert_eq!(httpd.log().matches("DROVER0002").count(), 1);
});

both_test!(groups_can_be_chosen_by_the_request, |site| {
    let site = site.modules("env setenvif").bare().app("/", "environ.wsgi");
    let site = site.config("WSGIDaemonProcess one threads=2\nWSGIDaemonProcess two threads=2\nWSGIApplicationGroup %{GLOBAL}");
    let site = site.config("SetEnvIf Request_URI ^/1 WHICH=one\nSetEnvIf Request_URI ^/2 WHICH=two\nSetEnvIf Request_URI ^/3 WHICH=three");
    let httpd = site.config("WSGIProcessGroup %{ENV:WHICH}\nWSGIRestrictProcess one").expect_log("DROVER0029|WSGI0149|WSGI015").start();
    assert_eq!(httpd.get("/1").json()["mod_wsgi.process_group"], "one");
    assert_eq!(httpd.get("/2").status, 500);
});

both_test!(application_groups_have_their_documented_names, |site| {
    let site = site.modules("env setenvif").bare().config("WSGIDaemonProcess app threads=2\nWSGIProcessGroup app\nSetEnv NAME chosen");
    let section = |url: &str, name: &str| format!("<Location {url}>\nWSGIApplicationGroup {name}\n</Location>\n");
    let text =
        section("/global", "%{GLOBAL}") + &section("/server", "%{SERVER}") + &section("/env", "%{ENV:NAME}") + &section("/named", "mine");
    let httpd =
        site.config(&(text + &section("/resource", "%{RESOURCE}"))).app("/resource", "environ.wsgi").app("/", "environ.wsgi").start();
    let port = httpd.site.port;
    for (path, name) in [
        ("/global", String::new()),
        ("/server", format!("localhost:{port}")),
        ("/named", "mine".into()),
        ("/resource", format!("localhost:{port}|/resource")),
        ("/default", format!("localhost:{port}|")),
    ] {
        assert_eq!(httpd.get(path).json()["mod_wsgi.application_group"], name, "{path}");
    }
    // With mod_wsgi a Host header without a port makes another application of it. With us one site is one application.
    let named = |path: &str| httpd.request("GET", path).header("Host", "shop.example").send().json()["mod_wsgi.application_group"].clone();
    let suffix = if httpd.site.theirs() { String::new() } else { format!(":{port}") };
    assert_eq!([named("/server"), named("/resource")], [format!("localhost{suffix}"), format!("localhost{suffix}|/resource")]);
});

both_test!(a_process_group_named_after_the_server_serves_behind_a_proxy, |site| {
    let site = site.bare().config("WSGIDaemonProcess localhost threads=2\nWSGIProcessGroup %{SERVER}").app("/", "environ.wsgi");
    let httpd = site.expect_log("DROVER0027|WSGI0150|No WSGI daemon process called").start();
    assert_eq!(httpd.request("GET", "/").header("Host", "localhost").send().json()["mod_wsgi.process_group"], "localhost");
    assert_eq!(httpd.get("/").status, 500, "localhost:port is another name, and nobody has defined it");
});

both_test!(the_first_alias_that_matches_wins, |site| {
    let page = |text: &str| format!("def application(e, s):\n    s('200 OK', [])\n    return [b'{text}']\n");
    let site = site.script("one.wsgi", &page("one")).script("two.wsgi", &page("two")).script("host.wsgi", &page("host"));
    let site = site.app("/a/b", "one.wsgi").app("/a", "two.wsgi").app("/a/b/c", "host.wsgi").app("/", "two.wsgi");
    let site = site.config("<VirtualHost *:@port@>\nServerName v.example\nWSGIScriptAlias /a/b @apps@/host.wsgi\n</VirtualHost>");
    let httpd = site.start();
    let get = |path: &str| httpd.request("GET", path).header("Host", "v.example").send().text();
    assert_eq!([get("/a/b/c"), get("/a/x"), get("/z")], ["host", "two", "two"]);
});
