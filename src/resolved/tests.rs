//! Tests of `resolved`: configurations made by the directives themselves, a system made up.
use super::*;
use crate::config::{Context, DirConfig, Target, directive};
use drover_sys::users::User;

struct Made {
    root: bool,
    running: bool,
    files: Vec<&'static str>,
}

const SYSTEM: Made = Made { root: true, running: false, files: vec![] };

impl System for Made {
    fn user_by_name(&self, name: &[u8]) -> Option<User> {
        (name == b"shop").then(|| User { uid: 1001, gid: 1001, name: name.to_vec(), home: b"/home/shop".to_vec() })
    }
    fn user_by_id(&self, uid: u32) -> Option<User> {
        (uid == 33).then(|| User { uid, gid: 33, name: b"www-data".to_vec(), home: b"/var/www".to_vec() })
    }
    fn group_by_name(&self, name: &[u8]) -> Option<u32> {
        (name == b"staff").then_some(50)
    }
    fn is_executable(&self, path: &[u8]) -> bool {
        path == b"/usr/bin/python3" || path == b"/venv/bin/python" || self.files.iter().any(|f| f.as_bytes() == path)
    }
    fn is_directory(&self, path: &[u8]) -> bool {
        path == b"/srv"
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
    fn httpd_identity(&self) -> Option<(u32, u32)> {
        self.root.then_some((33, 33))
    }
}

fn configure(context: Context, lines: &[&str]) -> ServerConfig {
    let (mut server, mut dir, mut names) = (ServerConfig::default(), DirConfig::default(), Vec::new());
    for line in lines {
        let (name, arguments) = line.split_once(' ').unwrap();
        let mut target =
            Target { server: &mut server, dir: &mut dir, context, scope: None, defined_groups: &names, named_groups: &mut Vec::new() };
        directive(name.as_bytes()).unwrap().apply(&mut target, arguments.as_bytes()).unwrap();
        names = server.groups.iter().map(|g| g.name.clone()).collect();
    }
    server
}

fn main_and<'a>(main: &'a ServerConfig, vhosts: &'a [ServerConfig]) -> Vec<Server<'a>> {
    let view = |config, is_virtual, name: &'a [u8], log| Server { config, name, is_virtual, log, log_level: 4 };
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
    assert_eq!(resolved.group_for(b"main.example", b"shop").unwrap_err().code(), Code::GroupElsewhere);
    assert_eq!(resolved.group_for(b"shop.example", b"nope").unwrap_err().code(), Code::UnknownGroup);
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
        ("python-home=/none", Err("there is no /none/bin/python3")),
        ("python=/none", Err("not an executable")),
    ];
    let system = Made { files: vec!["/opt/py/bin/python3.13"], ..SYSTEM };
    for (option, want) in table {
        let main = configure(Context::Server, &[&format!("WSGIDaemonProcess a {option}")]);
        match (resolve(&main_and(&main, &[]), &system), want) {
            (Ok((_, specs)), Ok(python)) => assert_eq!(spec(&specs, b"a").python, python.as_bytes()),
            (Err(problem), Err(part)) => assert!(problem.to_string().contains(part), "{problem}"),
            (got, _) => panic!("{option}: {got:?}"),
        }
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
        assert!(line != "python-home=/gone" || spec(&specs, b"shop").python == b"/gone/bin/python3");
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
    let config = configure(Context::Server, &lines);
    let added =
        Added { groups: &config.groups, aliases: &config.aliases, imports: &config.imports, python_home: config.python_home.as_ref() };
    let said = missing(&added, &SYSTEM);
    let want =
        ["python-path=/none/lib: it is not there", "the script /none/a.wsgi", "the script /none/i.py", "WSGIPythonHome /none: there is no"];
    assert_eq!(said.len(), want.len(), "{said:?}");
    assert!(said.iter().zip(want).all(|(said, want)| said.contains(want)), "{said:?}");
}

#[test]
fn groups_that_are_named_in_vain_are_said() {
    let vhost = configure(Context::VirtualHost, &["WSGIDaemonProcess shop threads=1"]);
    let main = configure(Context::Server, &["WSGIDaemonProcess wide threads=1"]);
    let (resolved, _) = resolve(&main_and(&main, &[vhost]), &SYSTEM).unwrap();
    let doubt = |server: Option<&str>, name: &str| super::doubt(&resolved, server.map(str::as_bytes), name.as_bytes()).unwrap_or_default();
    for (server, name) in [(None, "wide"), (None, "shop"), (Some("shop.example"), "shop"), (Some("x"), "wide"), (None, "default")] {
        assert_eq!(doubt(server, name), "", "{server:?} {name}");
    }
    assert_eq!(doubt(None, "shp"), "no WSGIDaemonProcess defines the group 'shp', did you mean 'shop'?");
    assert_eq!(doubt(Some("x"), "nothing"), "no WSGIDaemonProcess defines the group 'nothing'");
    assert!(doubt(Some("x"), "shop").contains("is defined in the virtual host shop.example"));
}
