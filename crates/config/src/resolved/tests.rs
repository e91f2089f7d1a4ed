//! Tests of `resolved`: configurations that the directives make, on a fake system.
//!
//! Responsible for: the specifications, the problems and the warnings that follow from a
//! configuration. Called by: cargo.
use super::*;
use crate::{Context, DAEMON_OPTIONS, DIRECTIVES, DirConfig, Directive, Settings, Target, Theme, directive, sessions};
use drover_session::choice::Mpm;
use std::collections::BTreeMap;
use std::path::Path;

pub(super) struct Made {
    pub(super) root: bool,
    pub(super) running: bool,
    pub(super) files: Vec<&'static str>,
}

pub(super) const SYSTEM: Made = Made { root: true, running: false, files: vec![] };

impl System for Made {
    fn user_by_name(&self, name: &[u8]) -> Option<Account> {
        (name == b"shop").then(|| Account { uid: 1001, gid: 1001, name: name.to_vec(), home: b"/home/shop".to_vec() })
    }
    fn user_by_id(&self, uid: u32) -> Option<Account> {
        (uid == 33).then(|| Account { uid, gid: 33, name: b"www-data".to_vec(), home: b"/var/www".to_vec() })
    }
    fn group_by_name(&self, name: &[u8]) -> Option<u32> {
        (name == b"staff").then_some(50)
    }
    fn is_executable(&self, path: &[u8]) -> bool {
        path == b"/usr/bin/python3" || path == b"/venv/bin/python" || self.files.iter().any(|f| f.as_bytes() == path)
    }
    fn is_directory(&self, path: &[u8]) -> bool {
        path == b"/srv" || path.starts_with(b"/closed")
    }
    fn is_missing(&self, path: &[u8]) -> bool {
        path.starts_with(b"/none")
    }
    fn is_running(&self) -> bool {
        self.running
    }
    fn cores(&self) -> u32 {
        2
    }
    fn path(&self) -> Vec<Vec<u8>> {
        vec![b"/usr/local/bin".to_vec()]
    }
    fn groups_of(&self, _: &[u8], gid: u32) -> Vec<u32> {
        vec![gid, 7]
    }
    fn own(&self) -> Credentials {
        Credentials { uid: 1000, gid: 1000, groups: vec![] }
    }
    fn barrier(&self, who: &Credentials, path: &[u8], _: Access) -> Option<String> {
        let refused = path.starts_with(b"/closed") && !who.groups.contains(&50);
        refused.then(|| format!("user {} may not enter the directory /closed (mode 0700, owner root, group 0)", who.uid))
    }
    fn python_version(&self, path: &[u8]) -> Option<(u32, u32)> {
        let (major, minor) = std::str::from_utf8(path).ok()?.rsplit_once("/python")?.1.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    }
    fn first_time(&self) -> FirstTime {
        let used = std::sync::atomic::AtomicBool::new(false);
        FirstTime(Box::new(move || !used.swap(true, std::sync::atomic::Ordering::Relaxed)))
    }
    fn httpd_identity(&self) -> Option<(u32, u32)> {
        self.root.then_some((33, 33))
    }
}

pub(super) fn configure(context: Context, lines: &[&str]) -> ServerConfig {
    let (mut server, mut dir, mut names) = (ServerConfig::default(), DirConfig::default(), Vec::new());
    for line in lines {
        let (name, arguments) = line.split_once(' ').unwrap();
        let mut target = Target { server: &mut server, dir: &mut dir, context, scope: None, defined_groups: &names };
        directive(name.as_bytes()).unwrap().apply(&mut target, arguments.as_bytes()).unwrap();
        names = server.groups.iter().map(|g| g.name.clone()).collect();
    }
    server
}

pub(super) fn main_and<'a>(main: &'a ServerConfig, vhosts: &'a [ServerConfig]) -> Vec<Server<'a>> {
    let view = |config, is_virtual, name: &'a [u8], log| Server { config, name, is_virtual, log, log_level: 4, sections_choose: false };
    let mut all = vec![view(main, false, b"main.example", 0)];
    all.extend(vhosts.iter().enumerate().map(|(i, c)| view(c, true, b"shop.example", i as u16 + 1)));
    all
}

fn spec<'a>(specs: &'a [GroupSpec], name: &[u8]) -> &'a GroupSpec {
    specs.iter().find(|s| s.name == name).unwrap()
}

#[test]
fn a_bare_alias_runs_in_the_implicit_group() {
    let main = configure(Context::Server, &["WSGIScriptAlias / /srv/a.wsgi", "WSGIPythonPath /srv/lib"]);
    let (resolved, specs) = resolve(&main_and(&main, &[]), &SYSTEM).unwrap();
    let group = spec(&specs, resolved.implicit_name());
    assert_eq!((group.processes, group.threads, &group.name[..]), (2, 4, IMPLICIT_GROUP));
    assert_eq!(group.worker.python_path, [b"/srv/lib".to_vec()]);
    assert!(resolved.group_for(b"any", IMPLICIT_GROUP).is_ok());
    assert!(resolved.first_implicit() && !resolved.first_implicit());
}

#[test]
fn a_group_has_room_for_all_that_the_configuration_names() {
    let most = |options: &str, lines: &[String]| {
        let group = format!("WSGIDaemonProcess shop {options}");
        let lines: Vec<&str> = [group.as_str(), "WSGIProcessGroup shop"].into_iter().chain(lines.iter().map(String::as_str)).collect();
        let (main, vhost) = (configure(Context::Server, &lines), ServerConfig::default());
        let servers = main_and(&main, std::slice::from_ref(&vhost));
        (spec(&resolve(&servers, &SYSTEM).unwrap().1, b"shop").max_application_groups, crowded(&servers).len())
    };
    let sites: Vec<String> = (0..36).map(|n| format!("WSGIScriptAlias /s{n} /srv/{n}/a.wsgi")).collect();
    let shared: Vec<String> = sites.iter().map(|line| format!("{line} application-group=x")).collect();
    let elsewhere: Vec<String> = sites.iter().map(|line| format!("{line} process-group=%{{GLOBAL}}")).collect();
    let by_location: Vec<String> = sites.iter().map(|line| format!("{line} process-group=%{{ENV:group}}")).collect();
    let varying = ["WSGIScriptAliasMatch ^/(.*)$ /srv/$1/a.wsgi", "WSGIScriptAlias /d /srv/d/"].map(str::to_owned);
    assert_eq!(most("threads=1", &sites), (36, 0), "as many as it names");
    assert_eq!(most("threads=1", &by_location), (36, 0), "also those of which only a request can tell");
    assert_eq!(most("threads=1", &sites[..5]), (32, 0));
    assert_eq!(most("max-application-groups=36", &sites), (36, 0));
    assert_eq!(most("max-application-groups=35", &sites), (35, 1), "the option is obeyed, and a warning given");
    for lines in [&shared[..], &elsewhere, &by_location, &varying] {
        assert_eq!(most("max-application-groups=1", lines), (1, 0));
    }
}

#[test]
fn targets_are_the_scripts_that_aliases_name() {
    let main = configure(
        Context::Server,
        &[
            "WSGIDaemonProcess shop threads=1",
            "WSGIProcessGroup shop",
            "WSGIScriptAlias / /srv/a.wsgi",
            "WSGIScriptAlias /b /srv/b.wsgi process-group=shop application-group=%{GLOBAL}",
            "WSGIScriptAlias /c /srv/c.wsgi process-group=%{GLOBAL} application-group=%{RESOURCE}",
            "WSGIScriptAlias /d /srv/d/",
            "WSGIScriptAliasMatch ^/e/(.*) /srv/$1.wsgi",
            "WSGIScriptAliasMatch ^/f /srv/f.wsgi",
        ],
    );
    let found = targets(&main_and(&main, &[]), b"default");
    let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
    let shown: Vec<_> = found.iter().map(|t| (text(&t.path), t.group.as_ref().map(text), t.application_group.as_ref().map(text))).collect();
    let some = |name: &str| Some(name.to_owned());
    let expected = [
        ("/srv/a.wsgi".to_owned(), None, None),
        ("/srv/b.wsgi".to_owned(), some("shop"), some("")),
        ("/srv/c.wsgi".to_owned(), some("default"), None),
        ("/srv/f.wsgi".to_owned(), None, None),
    ];
    assert_eq!(shown, expected);
}

#[test]
fn a_virtual_hosts_group_is_its_own() {
    let vhost = configure(Context::VirtualHost, &["WSGIDaemonProcess shop user=shop group=staff processes=3 home=/srv"]);
    let main = ServerConfig::default();
    let (resolved, specs) = resolve(&main_and(&main, std::slice::from_ref(&vhost)), &SYSTEM).unwrap();
    assert!(resolved.group_for(b"shop.example", b"shop").is_ok());
    assert_eq!(
        resolved.group_for(b"main.example", b"shop").unwrap_err(),
        GroupError::Elsewhere(b"shop".to_vec(), b"shop.example".to_vec())
    );
    assert_eq!(resolved.group_for(b"shop.example", b"nope").unwrap_err(), GroupError::Unknown(b"nope".to_vec()));
    let group = spec(&specs, b"shop");
    let who = group.identity.as_ref().unwrap();
    assert_eq!((who.uid, who.gid, &who.user[..], &who.home[..]), (1001, 50, &b"shop"[..], &b"/home/shop"[..]));
    assert_eq!((group.log, group.processes, group.multiprocess, group.home.as_deref()), (1, 3, true, Some(&b"/srv"[..])));
}

#[test]
fn a_virtual_hosts_default_does_not_capture_everybody() {
    let vhost = configure(Context::VirtualHost, &["WSGIDaemonProcess default threads=1"]);
    let main = configure(Context::Server, &["WSGIScriptAlias / /srv/a.wsgi"]);
    let (resolved, specs) = resolve(&main_and(&main, &[vhost]), &SYSTEM).unwrap();
    assert_ne!(resolved.implicit_name(), IMPLICIT_GROUP);
    assert_eq!(specs.len(), 2);
    let main = configure(Context::Server, &["WSGIDaemonProcess default threads=7"]);
    let (resolved, specs) = resolve(&main_and(&main, &[]), &SYSTEM).unwrap();
    assert_eq!((resolved.implicit_name(), specs.len(), specs[0].threads), (IMPLICIT_GROUP, 1, 7));
}

#[test]
fn user_alone_keeps_httpds_group() {
    let main = configure(Context::Server, &["WSGIDaemonProcess a user=shop", "WSGIDaemonProcess b threads=1"]);
    let (_, specs) = resolve(&main_and(&main, &[]), &SYSTEM).unwrap();
    assert_eq!(spec(&specs, b"a").identity.as_ref().map(|i| (i.uid, i.gid, i.differs)), Some((1001, 33, true)));
    assert_eq!(spec(&specs, b"b").identity.as_ref().map(|i| (i.uid, i.gid, i.differs)), Some((33, 33, false)));
    let unprivileged = Made { root: false, ..SYSTEM };
    let (_, specs) = resolve(&main_and(&main, &[]), &unprivileged).unwrap();
    assert_eq!(spec(&specs, b"a").identity, None);
}

#[test]
fn the_interpreter_is_the_environments_own() {
    let table = [
        ("python-home=/venv", Ok("/venv/bin/python")),
        ("python=/opt/py/bin/python3.13", Ok("/opt/py/bin/python3.13")),
        ("threads=1", Ok("/usr/bin/python3")),
        ("python-home=/none", Err("/none/bin/python3 not found")),
        ("python=/none", Err("not an executable")),
    ];
    let system = Made { files: vec!["/opt/py/bin/python3.13"], ..SYSTEM };
    for (option, want) in table {
        let main = configure(Context::Server, &[&format!("WSGIDaemonProcess a {option}")]);
        match (resolve(&main_and(&main, &[]), &system), want) {
            (Ok((_, specs)), Ok(python)) => assert_eq!(spec(&specs, b"a").program.executable(), python.as_bytes()),
            (Err(problem), Err(part)) => assert!(problem.to_string().contains(part), "{problem}"),
            (got, _) => panic!("{option}: {got:?}"),
        }
    }
}

#[test]
fn processes_are_shown_under_the_name_that_was_asked_for() {
    for (options, want) in
        [("threads=1", None), ("display-name=%{GROUP}", Some("(wsgi:a)")), ("display-name='x %{GROUP}'", Some("x %{GROUP}"))]
    {
        let main = configure(Context::Server, &[&format!("WSGIDaemonProcess a {options}")]);
        let (_, specs) = resolve(&main_and(&main, &[]), &SYSTEM).unwrap();
        assert_eq!(spec(&specs, b"a").worker.display_name.as_deref(), want.map(str::as_bytes), "{options}");
    }
}

#[test]
fn what_does_not_exist_is_named() {
    for (option, part) in [
        ("user=nobody-here", "no such user"),
        ("group=nope", "no such group"),
        ("home=/none", "home=/none: not a directory"),
        ("supplementary-groups=staff,nope", "no such group"),
        ("script-user=nope", "no such user"),
    ] {
        let main = configure(Context::Server, &[&format!("WSGIDaemonProcess a {option}")]);
        let Err(problem) = resolve(&main_and(&main, &[]), &SYSTEM) else { panic!("{option} was accepted") };
        assert!(problem.to_string().contains(part), "{problem}");
    }
}

#[test]
fn what_the_groups_user_may_not_use_is_named() {
    let system =
        Made { files: vec!["/closed/bin/python3", "/opt/python2.7", "/opt/python3.8", "/opt/python3.9", "/opt/python3.14"], ..SYSTEM };
    let closed = "user 33 may not enter the directory /closed (mode 0700, owner root, group 0)";
    let table = [
        ("home=/closed/x", Err(format!("home=/closed/x: {closed}"))),
        ("python=/closed/bin/python3", Err(format!("python=/closed/bin/python3: {closed}"))),
        ("python-home=/closed", Err(format!("the interpreter of python-home=, /closed/bin/python3: {closed}"))),
        ("home=/closed/x supplementary-groups=staff", Ok(())),
        ("home=/closed/x chroot=/srv", Ok(())),
        ("python=/opt/python2.7", Err("python 2.7 at /opt/python2.7 is too old; mod_drover needs 3.9 or newer".to_owned())),
        ("python=/opt/python3.8", Err("python 3.8 at /opt/python3.8 is too old; mod_drover needs 3.9 or newer".to_owned())),
        ("python=/opt/python3.9", Ok(())),
        ("python=/opt/python3.14", Ok(())),
    ];
    for (options, want) in table {
        let main = configure(Context::Server, &[&format!("WSGIDaemonProcess a {options}")]);
        let system = Made { files: [system.files.as_slice(), &["/srv/usr/bin/python3"]].concat(), ..system };
        let inside = main.groups[0].options.chroot.is_some();
        let got = if inside { may_start_inside(&main, &system) } else { resolve(&main_and(&main, &[]), &system).map(drop) };
        assert_eq!(got.map_err(|problem| problem.to_string()), want.map_err(|text| format!("WSGIDaemonProcess a: {text}")), "{options}");
        let running = Made { running: true, ..system };
        assert!(resolve(&main_and(&main, &[]), &running).is_ok(), "a running server does not end for it: {options}");
    }
}

/// As `resolve`, of a group whose directories below its root are not made up here.
fn may_start_inside(main: &ServerConfig, system: &Made) -> Result<(), Problem> {
    super::system::may_start(b"a", &main.groups[0].options, b"/usr/bin/python3", &system.own(), system)
}

#[test]
fn scripts_and_search_paths_that_cannot_be_read_are_said_with_their_directive() {
    let lines = [
        "WSGIDaemonProcess a user=shop python-path=/closed/lib:/srv",
        "WSGIDaemonProcess b supplementary-groups=staff python-path=/closed/lib",
        "WSGIPythonPath /closed/global",
        "WSGIScriptAlias /a /closed/a.wsgi process-group=a",
        "WSGIScriptAlias /b /closed/b.wsgi process-group=b",
        "WSGIScriptAlias /c /closed/c.wsgi",
        "WSGIScriptAlias /d /closed/d.wsgi process-group=%{ENV:x}",
        "WSGIImportScript /closed/i.py process-group=a application-group=i",
    ];
    let config = configure(Context::Server, &lines);
    let vhost = ServerConfig::merge(&config, &ServerConfig::default());
    let vhosts = [vhost];
    let servers = main_and(&config, &vhosts);
    let (resolved, specs) = resolve(&servers, &SYSTEM).unwrap();
    let said: Vec<String> = unreadable(&servers, &specs, resolved.implicit_name(), &SYSTEM).iter().map(Problem::to_string).collect();
    let by = |uid: u32| format!("user {uid} may not enter the directory /closed (mode 0700, owner root, group 0)");
    let want = [
        format!("WSGIDaemonProcess a: python-path=/closed/lib: {}", by(1001)),
        format!("WSGIScriptAlias /a: script /closed/a.wsgi: {}", by(1001)),
        format!("WSGIImportScript /closed/i.py: script /closed/i.py: {}", by(1001)),
        format!("WSGIPythonPath /closed/global: /closed/global: {}", by(33)),
        format!("WSGIScriptAlias /c: script /closed/c.wsgi: {}", by(33)),
    ];
    assert_eq!(said, want);
    // A section such as <Directory> may choose the group of an alias that names none.
    let servers: Vec<Server<'_>> = servers.iter().map(|server| Server { sections_choose: true, ..*server }).collect();
    let said = unreadable(&servers, &specs, resolved.implicit_name(), &SYSTEM);
    assert!(said.iter().any(|p| p.to_string().contains("WSGIScriptAlias /a:")), "{said:?}");
    assert!(said.iter().all(|p| !p.to_string().contains("WSGIScriptAlias /c:")), "{said:?}");
}

#[test]
fn what_runs_for_sure_is_loaded_at_start() {
    let lines = [
        "WSGIDaemonProcess a threads=1",
        "WSGIScriptAlias /x /srv/x.wsgi process-group=a application-group=%{GLOBAL}",
        "WSGIScriptAlias /y /srv/y.wsgi process-group=a application-group=y",
        "WSGIScriptAlias /z /srv/z.wsgi process-group=a",
        "WSGIScriptAlias /d/ /srv/dir/ process-group=a application-group=d",
        "WSGIImportScript /srv/i.py process-group=a application-group=i",
    ];
    let main = configure(Context::Server, &lines);
    let (_, specs) = resolve(&main_and(&main, &[]), &SYSTEM).unwrap();
    let mut loaded: Vec<_> = spec(&specs, b"a").preload.iter().map(|p| String::from_utf8_lossy(&p.script.path).into_owned()).collect();
    loaded.sort();
    assert_eq!(loaded, ["/srv/i.py", "/srv/x.wsgi", "/srv/y.wsgi"]);
}

#[test]
fn what_is_gone_while_the_server_runs_does_not_end_it() {
    for line in ["python-home=/gone", "python=/gone/bin/python3", "home=/gone", "chroot=/gone"] {
        let config = configure(Context::Server, &[&format!("WSGIDaemonProcess shop {line}")]);
        assert!(resolve(&main_and(&config, &[]), &SYSTEM).is_err(), "{line}");
        let (_, specs) = resolve(&main_and(&config, &[]), &Made { running: true, ..SYSTEM }).unwrap();
        assert!(line != "python-home=/gone" || spec(&specs, b"shop").program.executable() == b"/gone/bin/python3");
    }
}

#[test]
fn what_is_named_and_not_there_is_said() {
    let lines = [
        "WSGIDaemonProcess a python-path=/none/lib:/srv",
        "WSGIScriptAlias / /none/a.wsgi",
        "WSGIScriptAlias /b /srv/b.wsgi",
        "WSGIScriptAliasMatch ^/(x) /none/$1.wsgi",
        "WSGIImportScript /none/i.py process-group=a application-group=i",
        "WSGIPythonHome /none",
    ];
    let (mut server, mut dir) = (ServerConfig::default(), DirConfig::default());
    let mut said = Vec::new();
    for line in lines {
        let (name, arguments) = line.split_once(' ').unwrap();
        let defined_groups = &[b"a".to_vec()][..usize::from(!server.groups.is_empty())];
        let mut target = Target { server: &mut server, dir: &mut dir, context: Context::Server, scope: None, defined_groups };
        said.extend(missing(&directive(name.as_bytes()).unwrap().apply(&mut target, arguments.as_bytes()).unwrap().added, &SYSTEM));
    }
    let want = [
        "python-path=/none/lib: not found",
        "script /none/a.wsgi: not found",
        "script /none/i.py: not found",
        "WSGIPythonHome /none: /none/bin/python3 not",
    ];
    assert_eq!(said.len(), want.len(), "{said:?}");
    assert!(said.iter().zip(want).all(|(said, want)| said.contains(want)), "{said:?}");
}

#[test]
fn groups_that_are_named_in_vain_are_said() {
    let vhost = configure(Context::VirtualHost, &["WSGIDaemonProcess shop threads=1"]);
    let main = configure(Context::Server, &["WSGIDaemonProcess wide threads=1"]);
    let (resolved, _) = resolve(&main_and(&main, &[vhost]), &SYSTEM).unwrap();
    let doubt =
        |server: Option<&str>, name: &str| super::group_warning(&resolved, server.map(str::as_bytes), name.as_bytes()).unwrap_or_default();
    for (server, name) in [(None, "wide"), (None, "shop"), (Some("shop.example"), "shop"), (Some("x"), "wide"), (None, "default")] {
        assert_eq!(doubt(server, name), "", "{server:?} {name}");
    }
    assert_eq!(doubt(None, "shp"), "no WSGIDaemonProcess defines the group 'shp'; did you mean 'shop'?");
    assert_eq!(doubt(Some("x"), "nothing"), "no WSGIDaemonProcess defines the group 'nothing'");
    assert!(doubt(Some("x"), "shop").contains("is defined in the virtual host shop.example"));
}

// Every directive and option reaches the part that acts on it, or says that it has no effect. Each
// row with an effect has a sample here, which must change what droverd, a request or the session
// store gets. `tests/generated.rs` names the test that sees the effect in a running server.

const BASE: [&str; 2] = ["WSGIDaemonProcess base threads=1", "WSGIScriptAlias /base /srv/base.wsgi process-group=base"];

/// A directive, and arguments that differ from its default.
const DIRECTIVE_SAMPLES: &[(&str, &[&str])] = &[
    ("WSGIScriptAlias", &["WSGIScriptAlias /x /srv/x.wsgi"]),
    ("WSGIScriptAliasMatch", &["WSGIScriptAliasMatch ^/(x) /srv/$1.wsgi"]),
    ("WSGICallableObject", &["WSGICallableObject app"]),
    ("WSGIImportScript", &["WSGIImportScript /srv/i.py process-group=base application-group=%{GLOBAL}"]),
    ("WSGIScriptReloading", &["WSGIScriptReloading Off"]),
    ("WSGICaseSensitivity", &["WSGICaseSensitivity Off"]),
    ("WSGIDaemonProcess", &["WSGIDaemonProcess other"]),
    ("WSGIProcessGroup", &["WSGIProcessGroup base"]),
    ("WSGIApplicationGroup", &["WSGIApplicationGroup %{GLOBAL}"]),
    ("WSGIRestrictProcess", &["WSGIRestrictProcess base"]),
    ("WSGIPythonHome", &["WSGIPythonHome /venv"]),
    ("WSGIPythonPath", &["WSGIPythonPath /srv/lib"]),
    ("WSGIPythonEggs", &["WSGIPythonEggs /eggs"]),
    ("WSGIPythonOptimize", &["WSGIPythonOptimize 2"]),
    ("WSGIPythonWarnings", &["WSGIPythonWarnings error"]),
    ("WSGIPythonHashSeed", &["WSGIPythonHashSeed 7"]),
    ("WSGIDontWriteBytecode", &["WSGIDontWriteBytecode On"]),
    ("WSGISwitchInterval", &["WSGISwitchInterval 0.5"]),
    ("WSGIRestrictStdin", &["WSGIRestrictStdin On"]),
    ("WSGIRestrictStdout", &["WSGIRestrictStdout On"]),
    ("WSGIRestrictSignal", &["WSGIRestrictSignal Off"]),
    ("WSGIInterpreterOptions", &["<WSGIInterpreterOptions application-group=a>", "WSGIRestrictStdin On"]),
    ("WSGIPassAuthorization", &["WSGIPassAuthorization On"]),
    ("WSGIChunkedRequest", &["WSGIChunkedRequest On"]),
    ("WSGIErrorOverride", &["WSGIErrorOverride On"]),
    ("WSGIMapHEADToGET", &["WSGIMapHEADToGET On"]),
    ("WSGIIgnoreActivity", &["WSGIIgnoreActivity On"]),
    ("WSGITrustedProxyHeaders", &["WSGITrustedProxyHeaders X-Real-IP"]),
    ("WSGITrustedProxies", &["WSGITrustedProxies 10.0.0.0/8"]),
    ("DroverControlSocket", &["DroverControlSocket off"]),
    ("DroverMaxWaiting", &["DroverMaxWaiting 5"]),
    ("DroverRetry", &["DroverRetry off"]),
    ("DroverSession", &["DroverSession off"]),
    ("DroverSessionDirectory", &["DroverSessionDirectory /srv/sessions"]),
    ("DroverSessionMemory", &["DroverSessionMemory 2M"]),
    ("DroverSessionDiskSize", &["DroverSessionDiskSize 2M"]),
    ("DroverSessionSync", &["DroverSessionSync always"]),
    ("DroverSessionTimeout", &["DroverSessionTimeout 7"]),
    ("DroverSessionLockTimeout", &["DroverSessionLockTimeout 7"]),
    ("DroverSessionMaxSize", &["DroverSessionMaxSize 7"]),
    ("DroverSessionScope", &["DroverSessionScope vhost"]),
    ("DroverSessionSerializer", &["DroverSessionSerializer pickle"]),
    ("DroverSessionCookie", &["DroverSessionCookie name=s"]),
];

/// An option of WSGIDaemonProcess, and a value that differs from its default.
const OPTION_SAMPLES: &[(&str, &str)] = &[
    ("user", "shop"),
    ("group", "staff"),
    ("supplementary-groups", "staff"),
    ("umask", "077"),
    ("chroot", "/srv"),
    ("home", "/srv"),
    ("lang", "de"),
    ("locale", "de"),
    ("display-name", "x"),
    ("python", "/venv/bin/python"),
    ("python-home", "/venv"),
    ("python-path", "/srv"),
    ("python-eggs", "/eggs"),
    ("switch-interval", "0.5"),
    ("processes", "3"),
    ("reload", "rolling"),
    ("preload", "On"),
    ("threads", "3"),
    ("max-application-groups", "3"),
    ("stack-size", "65536"),
    ("maximum-requests", "3"),
    ("listen-backlog", "3"),
    ("queue-depth", "3"),
    ("startup-timeout", "3"),
    ("shutdown-timeout", "3"),
    ("graceful-timeout", "3"),
    ("eviction-timeout", "3"),
    ("deadlock-timeout", "3"),
    ("inactivity-timeout", "3"),
    ("request-timeout", "3"),
    ("interrupt-timeout", "3"),
    ("restart-interval", "3"),
    ("queue-timeout", "3"),
    ("socket-timeout", "3"),
    ("response-socket-timeout", "3"),
    ("response-buffer-size", "65536"),
    ("request-buffer-size", "3"),
    ("script-user", "shop"),
    ("script-group", "staff"),
    ("cpu-time-limit", "3"),
    ("cpu-priority", "3"),
    ("memory-limit", "3"),
    ("memory-soft", "3"),
    ("virtual-memory-limit", "3"),
    ("dumpable", "On"),
];

/// What droverd, a request and the session store are given by a configuration: nothing else of it
/// is read once httpd runs.
fn given(lines: &[&str]) -> String {
    let config = configure(Context::Server, lines);
    let system = Made { files: vec!["/srv/bin/python3", "/srv/usr/bin/python3"], ..SYSTEM };
    let (resolved, specs) = resolve(&main_and(&config, &[]), &system).unwrap();
    let groups: BTreeMap<_, _> = resolved.groups.iter().collect();
    let server = (resolved.most_of_a_group(1, 1000), resolved.is_case_sensitive(), &config.aliases, &config.control_socket);
    let directory = DirConfig::default();
    let request = Settings::resolve(&config.dir, &directory);
    let mpm = Mpm { threaded: true, forked: true, max_daemons: 16 };
    let kept = config.session.directory.as_deref().unwrap_or(b"/var/lib");
    let kept = std::str::from_utf8(kept).unwrap();
    let sessions = sessions::plan(&[&config], mpm, Path::new(kept)).unwrap();
    format!("{specs:?}{groups:?}{server:?}{request:?}{sessions:?}")
}

#[test]
fn every_directive_changes_what_somebody_is_given_or_says_that_it_has_no_effect() {
    let silent = |row: &&Directive| row.notice.is_none() && row.theme != Theme::Later;
    let names: Vec<&str> = DIRECTIVES.iter().filter(silent).map(Directive::title).collect();
    let samples: Vec<&str> = DIRECTIVE_SAMPLES.iter().map(|(name, _)| *name).collect();
    assert_eq!(samples, names, "one sample for each directive that has an effect, in the order of the table");
    let without = given(&BASE);
    for (name, lines) in DIRECTIVE_SAMPLES {
        let with = given(&[&BASE[..], lines].concat());
        assert!(with != without, "{name} is read by nobody: give it an effect, or a notice");
    }
}

#[test]
fn every_option_changes_what_somebody_is_given_or_says_that_it_has_no_effect() {
    let names: Vec<&str> = DAEMON_OPTIONS.iter().filter(|row| row.notice.is_none()).map(|row| row.name).collect();
    let samples: Vec<&str> = OPTION_SAMPLES.iter().map(|(name, _)| *name).collect();
    assert_eq!(samples, names, "one sample for each option that has an effect, in the order of the table");
    // interrupt-timeout= counts from request-timeout= on.
    let base = "WSGIDaemonProcess it request-timeout=9";
    let without = given(&[base]);
    for (name, value) in OPTION_SAMPLES {
        let line = if *name == "request-timeout" { "WSGIDaemonProcess it".to_owned() } else { base.to_owned() };
        let with = given(&[&format!("{line} {name}={value}")]);
        assert!(with != without, "{name}= is read by nobody: give it an effect, or a notice");
    }
}
