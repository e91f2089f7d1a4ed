//! The tables, row by row: what each directive and option accepts, refuses and sets.
//!
//! Responsible for: each row being read as documented. Called by: cargo.

use super::session::{Scope, Sync};
use super::*;
use crate::error::Accepted;
use drover_session::Asked;
use drover_wire::control::Reload;
use drover_wire::session::Serializer;
use proptest::prelude::*;
use std::borrow::Cow;
use std::collections::HashSet;
use std::time::Duration;

/// A configuration being read.
#[derive(Default)]
struct Reader {
    server: ServerConfig,
    dir: DirConfig,
    groups: Vec<Vec<u8>>,
    named: Vec<Vec<u8>>,
}

impl Reader {
    /// The notice of an accepted line, or the error.
    fn read_in(&mut self, context: Context, scope: Option<&InterpreterScope>, line: &str) -> Result<Option<String>, String> {
        let (name, arguments) = line.split_once(' ').unwrap_or((line, ""));
        let row = directive(name.as_bytes()).unwrap_or_else(|| panic!("no directive {name}"));
        let before = self.server.clone();
        let mut target = Target { server: &mut self.server, dir: &mut self.dir, context, scope, defined_groups: &self.groups };
        let effect = row.apply(&mut target, arguments.as_bytes()).map_err(|error| error.to_string())?;
        let (added, now) = (effect.added, &self.server);
        assert_eq!(added.group.as_ref(), now.groups.get(before.groups.len()), "{line}");
        assert_eq!(added.alias.as_ref(), now.aliases.get(before.aliases.len()), "{line}");
        assert_eq!(added.import.as_ref(), now.imports.get(before.imports.len()).filter(|import| !import.from_alias), "{line}");
        assert_eq!(added.python_home.as_ref(), now.python_home.as_ref().filter(|home| before.python_home.as_ref() != Some(home)), "{line}");
        self.groups = now.groups.iter().map(|group| group.name.clone()).collect();
        self.named.extend(added.named_groups);
        Ok(effect.notice.map(Cow::into_owned))
    }

    fn read(&mut self, line: &str) -> Result<Option<String>, String> {
        self.read_in(Context::Server, None, line)
    }

    fn applied(&mut self, line: &str) {
        assert_eq!(self.read(line), Ok(None), "{line}");
    }

    /// Refused with a message that contains all of the words, and without a change of the
    /// configuration.
    fn refused(&mut self, line: &str, words: &[&str]) {
        let before = (self.server.clone(), self.dir.clone());
        let message = self.read(line).expect_err(line);
        for word in words {
            assert!(message.contains(word), "{line}: {message:?} does not say {word:?}");
        }
        assert!(before == (self.server.clone(), self.dir.clone()), "{line} changed the configuration");
    }
}

fn notice(effect: Result<Option<String>, String>) -> String {
    match effect {
        Ok(Some(text)) => text,
        other => panic!("no notice: {other:?}"),
    }
}

fn options(text: &str) -> Result<GroupOptions, String> {
    let mut reader = Reader::default();
    reader.read(&format!("WSGIDaemonProcess g {text}"))?;
    Ok(reader.server.groups.remove(0).options)
}

#[test]
fn every_row_is_complete_and_covered() {
    let source = include_str!("tests.rs");
    let covered = |test: &str| !test.is_empty() && source.contains(&format!("fn {test}("));
    let mut names = HashSet::new();
    for row in DIRECTIVES {
        let name = row.title();
        assert!(names.insert(name.to_lowercase()), "{name} twice");
        assert!(
            (name.starts_with("WSGI") || name.starts_with("Drover"))
                && !row.summary.is_empty()
                && !row.doc.is_empty()
                && !row.default.is_empty(),
            "{name}"
        );
        assert!(!row.synopsis.is_empty(), "{name}");
        assert!(covered(row.test), "{name}: test {}", row.test);
        assert!(!row.summary.to_str().unwrap().ends_with('.') && row.summary.count_bytes() <= 85, "{name}");
        assert_eq!(row.container, row.name.to_bytes().starts_with(b"<"), "{name}");
    }
    let mut names = HashSet::new();
    for row in DAEMON_OPTIONS {
        assert!(names.insert(row.name), "{} twice", row.name);
        assert!(!row.doc.is_empty() && !row.default.is_empty() && covered(row.test), "{}", row.name);
    }
}

#[test]
fn the_directives_of_mod_wsgi_are_all_there() {
    let known = "WSGIScriptAlias WSGIScriptAliasMatch WSGIDaemonProcess WSGISocketPrefix WSGISocketRotation WSGIAcceptMutex WSGIVerboseDebugging
        WSGIDontWriteBytecode WSGIPythonWarnings WSGIPythonOptimize WSGIPythonHome WSGIPythonPath WSGIPythonEggs WSGIPythonHashSeed WSGISwitchInterval
        WSGIDestroyInterpreter WSGIPerInterpreterGIL WSGIFreeThreading <WSGIInterpreterOptions WSGIRestrictEmbedded WSGIRestrictStdin WSGIRestrictStdout
        WSGIRestrictSignal WSGICaseSensitivity WSGIRestrictProcess WSGIProcessGroup WSGIApplicationGroup WSGICallableObject WSGIImportScript
        WSGIDispatchScript WSGIPassApacheRequest WSGIPassAuthorization WSGIScriptReloading WSGIErrorOverride WSGIChunkedRequest WSGIMapHEADToGET
        WSGIIgnoreActivity WSGITrustedProxyHeaders WSGITrustedProxies WSGIEnableSendfile WSGIAccessScript WSGIAuthUserScript WSGIAuthGroupScript
        WSGIGroupAuthoritative WSGIHandlerScript WSGIServerMetrics WSGITelemetryService WSGISlowRequests WSGITelemetryOptions
        WSGILazyInitialization WSGINewRelicConfigFile WSGINewRelicEnvironment WSGIPy3kWarningFlag WSGIUserAuthoritative
        DroverControlSocket DroverMaxWaiting DroverRetry DroverSession DroverSessionDirectory DroverSessionMemory DroverSessionDiskSize DroverSessionSync
        DroverSessionTimeout DroverSessionLockTimeout DroverSessionMaxSize DroverSessionScope DroverSessionSerializer DroverSessionCookie";
    for name in known.split_whitespace() {
        assert!(directive(name.as_bytes()).is_some(), "{name}");
    }
    assert_eq!(DIRECTIVES.len(), known.split_whitespace().count());
    assert!(directive(b"wsgiscriptalias").is_some(), "httpd does not tell capital from small letters");
}

#[test]
fn the_options_of_mod_wsgi_are_all_there() {
    let known = "user group supplementary-groups processes threads umask chroot home lang locale python-home python-path python-eggs switch-interval
        stack-size maximum-requests startup-timeout shutdown-timeout deadlock-timeout inactivity-timeout request-timeout interrupt-timeout
        graceful-timeout eviction-timeout restart-interval connect-timeout socket-timeout queue-timeout listen-backlog display-name send-buffer-size
        receive-buffer-size header-buffer-size response-buffer-size response-socket-timeout response-flush-delay socket-user script-user script-group
        cpu-time-limit cpu-priority memory-limit virtual-memory-limit server-metrics newrelic-config-file newrelic-environment
        python max-application-groups reload preload memory-soft dumpable queue-depth request-buffer-size";
    for name in known.split_whitespace() {
        assert!(DAEMON_OPTIONS.iter().any(|row| row.name == name), "{name}");
    }
    assert_eq!(DAEMON_OPTIONS.len(), known.split_whitespace().count());
}

#[test]
fn mistakes_that_mod_wsgi_accepts_are_reported() {
    let table = [
        ("WSGIDaemonProcess g interrupt-timeout=5", "interrupt-timeout= has no effect without request-timeout="),
        ("WSGIDaemonProcess g queue-depth=5 listen-backlog=7", "listen-backlog= has no effect with queue-depth="),
        ("WSGIDaemonProcess g processes=2 threads=1 processes=3", "processes= is given more than once; the last value is used"),
        ("WSGIDaemonProcess g home='/srv threads=2", "the closing quote is missing"),
        ("WSGIScriptAlias '/a /srv/a.wsgi", "requires at least two"),
        ("WSGIScriptAlias / '/srv/a.wsgi", "the closing quote is missing"),
        ("WSGITrustedProxyHeaders", "no header is named"),
        ("WSGIScriptAlias /g /g.wsgi process-group=later-%{X} application-group=g", "'later-%{X}' is used literally"),
        (
            "WSGIDaemonProcess g memory-limit=512MB",
            "memory-limit='512MB': expected bytes from 0: a whole number with an optional K, M or G",
        ),
        (
            "WSGIDaemonProcess g request-timeout=1m",
            "request-timeout='1m': expected seconds from 0 to 2147483647: a whole number with an optional s, min, h or d",
        ),
        ("WSGIDaemonProcess g zzzzzzzz=1", "unknown option 'zzzzzzzz'; accepted options: user, group,"),
        ("WSGIProcessGroup %{GLOBL}", "'%{GLOBL}' is used literally; did you mean %{GLOBAL}?"),
        ("WSGIApplicationGroup %{ENVIRON:x}", "'%{ENVIRON:x}' is used literally; an expression is %{GLOBAL}"),
        ("WSGICallableObject %{RESOURC}", "'%{RESOURC}' is used literally"),
        ("WSGIScriptAlias / /srv/a.wsgi application-group=%{HOSTS}", "did you mean %{HOST}?"),
        ("WSGIScriptAlias / srv/a.wsgi", "'srv/a.wsgi' is not an absolute path"),
        ("WSGIRestrictProcess a %{GLOBL}", "did you mean %{GLOBAL}?"),
    ];
    for (line, part) in table {
        let said = match Reader::default().read(line) {
            Ok(text) => text.unwrap_or_default(),
            Err(text) => text,
        };
        assert!(said.contains(part), "{line}: {said:?}");
    }
    for line in [
        "WSGIDaemonProcess g interrupt-timeout=5 request-timeout=9",
        "WSGIDaemonProcess g interrupt-timeout=0 home='/a b'",
        "WSGIDaemonProcess g queue-depth=5",
        "WSGIProcessGroup 50%",
        "WSGIApplicationGroup %{GLOBAL}",
        "WSGIScriptAliasMatch \"^/it's=(.*)\" /srv/$1.wsgi",
    ] {
        Reader::default().applied(line);
    }
}

#[test]
fn the_groups_that_are_named_are_known() {
    let mut reader = Reader::default();
    reader.applied("WSGIDaemonProcess d");
    reader.applied("WSGIProcessGroup a");
    reader.applied("WSGIProcessGroup %{ENV:x}");
    reader.applied("WSGIProcessGroup %{GLOBAL}");
    reader.applied("WSGIScriptAlias / /srv/a.wsgi process-group=b");
    reader.applied("WSGIScriptAlias / /srv/a.wsgi process-group=d application-group=x");
    reader.applied("WSGIRestrictProcess c %{GLOBAL}");
    assert_eq!(reader.named, [b"a", b"b", b"d", b"c"]);
}

#[test]
fn directives_stand_only_where_they_may() {
    let places = [Context::Server, Context::VirtualHost, Context::Directory, Context::Htaccess];
    let table = [
        (Contexts::GlobalOnly, [true, false, false, false]),
        (Contexts::Server, [true, true, false, false]),
        (Contexts::Directory, [true, true, true, false]),
        (Contexts::FileInfo, [true, true, true, true]),
        (Contexts::AuthConfig, [false, false, true, true]),
    ];
    for (contexts, allowed) in table {
        assert_eq!(places.map(|place| contexts.allow(place)), allowed, "{contexts:?}");
    }
    let mut reader = Reader::default();
    let message = reader.read_in(Context::VirtualHost, None, "WSGIPythonHome /venv").unwrap_err();
    assert!(message.starts_with("WSGIPythonHome cannot occur within <VirtualHost> section"), "{message}");
    let message = reader.read_in(Context::Directory, None, "WSGIScriptAlias / /x").unwrap_err();
    assert!(message.contains("cannot occur within <Directory/Location/Files> section"), "{message}");
    assert_eq!(reader.server, ServerConfig::default());
}

#[test]
fn directory_settings_go_where_they_stand() {
    for (context, in_server) in
        [(Context::Server, true), (Context::VirtualHost, true), (Context::Directory, false), (Context::Htaccess, false)]
    {
        let mut reader = Reader::default();
        reader.read_in(context, None, "WSGIPassAuthorization On").unwrap();
        assert_eq!(reader.server.dir.pass_authorization, in_server.then_some(true));
        assert_eq!(reader.dir.pass_authorization, (!in_server).then_some(true));
    }
}

#[test]
fn script_aliases() {
    let mut reader = Reader::default();
    reader.applied("WSGIScriptAlias / /srv/app.wsgi");
    reader.applied(
        "WSGIScriptAlias '/a b/' \"/srv/a b/\" process-group=%{ENV:g} application-group=%{GLOBAL} callable-object=app pass-authorization=on",
    );
    reader.applied("WSGIScriptAliasMatch ^/x/(.*) /srv/$1.wsgi");
    let [first, second, third] = reader.server.aliases.as_slice() else { panic!("three aliases") };
    assert_eq!((&first.pattern, first.target.as_slice()), (&AliasPattern::Prefix(b"/".to_vec()), b"/srv/app.wsgi".as_slice()));
    assert_eq!((&first.process_group, &first.pass_authorization), (&None, &None));
    assert_eq!(second.pattern, AliasPattern::Prefix(b"/a b/".to_vec()));
    assert_eq!(second.process_group, Some(Expr::Env(b"g".to_vec())));
    assert_eq!((&second.application_group, second.pass_authorization), (&Some(Expr::Global), Some(true)));
    assert_eq!(second.callable_object, Some(Expr::Literal(b"app".to_vec())));
    assert_eq!(third.pattern, AliasPattern::Regex(b"^/x/(.*)".to_vec()));
    assert!(reader.server.imports.is_empty());

    reader.refused("WSGIScriptAlias", &["requires at least two arguments", "url-path path"]);
    reader.refused("WSGIScriptAlias /", &["requires at least two arguments"]);
    reader.refused("WSGIScriptAlias / ''", &["requires at least two arguments"]);
    reader.refused("WSGIScriptAlias / /x application-group=", &["application-group=''", "a name"]);
    reader.refused("WSGIScriptAlias / /x pass-authorization=maybe", &["pass-authorization='maybe'", "On or Off"]);
    reader.refused("WSGIScriptAlias / /x proces-group=y", &["'proces-group'", "did you mean 'process-group'?", "callable-object"]);
    reader.refused("WSGIScriptAlias / /x y", &["'y'", "name=value"]);
    assert!(notice(reader.read("WSGIScriptAlias app /x")).contains("matches no request"));
}

#[test]
fn scripts_with_fixed_groups_are_loaded_in_advance() {
    let mut reader = Reader::default();
    reader.refused(
        "WSGIScriptAlias / /x process-group=site application-group=%{GLOBAL}",
        &["'site' is not defined above this line", "first"],
    );
    reader.applied("WSGIDaemonProcess site");
    reader.refused(
        "WSGIScriptAlias / /x process-group=sites application-group=a",
        &["did you mean 'site'? A script", "not defined above this line; did you mean 'site'? A script that is loaded at start needs its WSGIDaemonProcess first. Groups defined above: site"],
    );
    reader.applied("WSGIScriptAlias /a /a.wsgi process-group=site application-group=%{GLOBAL}");
    reader.applied("WSGIScriptAlias /b /b.wsgi process-group=%{GLOBAL} application-group=b");
    reader.applied("WSGIScriptAliasMatch ^/c /c.wsgi process-group=site application-group=c");
    for line in [
        "WSGIScriptAlias /d /d.wsgi process-group=site",
        "WSGIScriptAlias /e /e.wsgi application-group=e",
        "WSGIScriptAlias /f /f.wsgi process-group=site application-group=%{HOST}",
        "WSGIScriptAlias /h/ /h/ process-group=site application-group=h",
        "WSGIScriptAliasMatch ^/(i) /$1.wsgi process-group=site application-group=i",
        "WSGIScriptAlias /j /j.wsgi process-group=later",
    ] {
        reader.applied(line);
    }
    let import = |script: &str, process_group: &str, application_group: &str| ImportScript {
        script: script.into(),
        process_group: GroupChoice::from_name(process_group.as_bytes()),
        application_group: application_group.into(),
        from_alias: true,
    };
    assert_eq!(reader.server.imports, [import("/a.wsgi", "site", ""), import("/b.wsgi", "", "b"), import("/c.wsgi", "site", "c")]);
}

#[test]
fn import_scripts() {
    let mut reader = Reader::default();
    reader.applied("WSGIDaemonProcess site");
    reader.applied("WSGIImportScript /x.py process-group=site application-group=%{GLOBAL}");
    reader.applied("WSGIImportScript /y.py application-group=y process-group=%{GLOBAL}");
    assert!(notice(reader.read("WSGIImportScript /z.py process-group=site application-group=%{HOST}")).contains("depends on the request"));
    let [x, y] = reader.server.imports.as_slice() else { panic!("two imports") };
    assert_eq!(
        (&x.process_group, x.application_group.as_slice(), x.from_alias),
        (&GroupChoice::Named(b"site".to_vec()), b"".as_slice(), false)
    );
    assert_eq!((&y.process_group, y.application_group.as_slice()), (&GroupChoice::Implicit, b"y".as_slice()));
    reader.refused("WSGIImportScript", &["requires the path of a script"]);
    reader.refused("WSGIImportScript /x.py application-group=a", &["process-group= is required"]);
    reader.refused("WSGIImportScript /x.py process-group=site", &["application-group= is required"]);
    reader.refused("WSGIImportScript /x.py process-group=none application-group=a", &["'none' is not defined above this line"]);
    reader.refused("WSGIImportScript /x.py process-group=%{ENV:x} application-group=a", &["not defined above this line"]);
    reader.refused(
        "WSGIImportScript /x.py process-group=site application-group=a threads=1",
        &["unknown option 'threads'", "accepted options"],
    );
}

#[test]
fn daemon_groups() {
    let mut reader = Reader::default();
    reader.applied("WSGIDaemonProcess site threads=2");
    assert_eq!(reader.read_in(Context::VirtualHost, None, "WSGIDaemonProcess 'the other'"), Ok(None));
    let [site, other] = reader.server.groups.as_slice() else { panic!("two groups") };
    assert_eq!((site.name.as_slice(), site.options.threads), (b"site".as_slice(), 2));
    assert_eq!(other.name, b"the other");
    reader.refused("WSGIDaemonProcess", &["requires the name of the group"]);
    reader.refused("WSGIDaemonProcess site", &["'site' is already defined"]);
    reader.refused("WSGIDaemonProcess x thread=5", &["unknown option 'thread'", "did you mean 'threads'?"]);
    reader.refused("WSGIDaemonProcess x bananas=5", &["unknown option 'bananas'; accepted options: user"]);
    reader.refused("WSGIDaemonProcess x threads", &["'threads': expected an option of the form name=value"]);
    reader.refused("WSGIDaemonProcess x threads=abc", &["threads='abc': expected a whole number from 0 to 65533"]);
    reader.refused("WSGIDaemonProcess x script-user=a script-group=b", &["only one of script-user= and script-group="]);
}

#[test]
fn daemon_options_for_identity() {
    let o = options(
        "user=www-data group=#33 supplementary-groups=a,#5 umask=0027 chroot=/jail home='/a b' lang=en_US.UTF-8 locale=C.UTF-8 display-name=%{GROUP}",
    );
    let o = o.unwrap();
    assert_eq!((o.user, o.group), (Some(UserRef::Name(b"www-data".to_vec())), Some(GroupRef::Id(33))));
    assert_eq!(o.supplementary_groups, Some(vec![GroupRef::Name(b"a".to_vec()), GroupRef::Id(5)]));
    assert_eq!((o.umask, o.chroot.as_deref(), o.home.as_deref()), (Some(0o27), Some(b"/jail".as_slice()), Some(b"/a b".as_slice())));
    assert_eq!((o.lang.as_deref(), o.locale.as_deref()), (Some(b"en_US.UTF-8".as_slice()), Some(b"C.UTF-8".as_slice())));
    assert_eq!(o.display_name.as_deref(), Some(b"%{GROUP}".as_slice()));
    assert_eq!(options("supplementary-groups=").unwrap().supplementary_groups, Some(vec![]));
    for bad in
        ["user=root", "user=#0", "user=", "group=", "group=#x", "supplementary-groups=a,,b", "umask=9", "umask=", "home=srv", "chroot=srv"]
    {
        assert!(options(bad).is_err(), "{bad}");
    }
    assert!(options("user=root").unwrap_err().contains("must not run as root"));
}

#[test]
fn daemon_options_for_python() {
    let o = options("python=/opt/py/bin/python3.12 python-home=/venv python-path=/a:/b python-eggs=/eggs switch-interval=0.002").unwrap();
    assert_eq!((o.python.as_deref(), o.python_home.as_deref()), (Some(b"/opt/py/bin/python3.12".as_slice()), Some(b"/venv".as_slice())));
    assert_eq!(o.python_path, [b"/a".to_vec(), b"/b".to_vec()]);
    assert_eq!((o.python_eggs.as_deref(), o.switch_interval), (Some(b"/eggs".as_slice()), Some(Duration::from_millis(2))));
    for bad in ["python=python3", "python-home=venv", "switch-interval=0", "switch-interval="] {
        assert!(options(bad).is_err(), "{bad}");
    }
}

#[test]
fn daemon_options_for_size() {
    let o =
        options("processes=4 threads=0 max-application-groups=1024 stack-size=524288 maximum-requests=1000 listen-backlog=0 queue-depth=7")
            .unwrap();
    assert_eq!((o.processes, o.processes_given, o.threads, o.max_application_groups), (4, true, 0, Some(1024)));
    assert_eq!((o.stack_size, o.maximum_requests, o.listen_backlog, o.queue_depth), (Some(524_288), Some(1000), 0, Some(7)));
    assert_eq!(options("").unwrap().queue_depth, None);
    assert!(options("processes=1").unwrap().processes_given && !options("").unwrap().processes_given);
    let o = options("processes=0-8 reload=rolling preload=On").unwrap();
    assert_eq!((o.least_processes, o.processes, o.reload, o.preload), (Some(0), 8, Reload::Rolling, true));
    assert_eq!(options("").unwrap().reload, Reload::Overlap);
    assert_eq!(options("maximum-requests=0").unwrap().maximum_requests, None);
    for bad in [
        "processes=0",
        "processes=",
        "processes=-1",
        "processes=4x",
        "processes=4-2",
        "reload=never",
        "preload=yes",
        "threads=65534",
        "max-application-groups=0",
        "max-application-groups=1025",
        "stack-size=1024",
        "listen-backlog=-1",
        "queue-depth=all",
        "maximum-requests=99999999999",
    ] {
        assert!(options(bad).is_err(), "{bad}");
    }
}

#[test]
fn daemon_options_for_time() {
    type Read = fn(&GroupOptions) -> Option<Duration>;
    let table: &[(&str, Read)] = &[
        ("startup-timeout", |o| o.startup_timeout),
        ("shutdown-timeout", |o| Some(o.shutdown_timeout).filter(|t| !t.is_zero())),
        ("graceful-timeout", |o| Some(o.graceful_timeout).filter(|t| !t.is_zero())),
        ("eviction-timeout", |o| o.eviction_timeout),
        ("deadlock-timeout", |o| o.deadlock_timeout),
        ("inactivity-timeout", |o| o.inactivity_timeout),
        ("request-timeout", |o| o.request_timeout),
        ("interrupt-timeout", |o| o.interrupt_timeout),
        ("restart-interval", |o| o.restart_interval),
        ("queue-timeout", |o| o.queue_timeout),
        ("socket-timeout", |o| o.socket_timeout),
        ("response-socket-timeout", |o| o.response_socket_timeout),
        ("cpu-time-limit", |o| o.cpu_time_limit),
    ];
    for (name, read) in table {
        assert_eq!(read(&options(&format!("{name}=60")).unwrap()), Some(Duration::from_secs(60)), "{name}");
        assert_eq!(read(&options(&format!("{name}=0")).unwrap()), None, "{name}");
        for bad in ["", "-1", "1.5", "60m", "2147483648", "24856d"] {
            assert!(options(&format!("{name}={bad}")).unwrap_err().contains("from 0 to 2147483647"), "{name}={bad}");
        }
    }
}

#[test]
fn daemon_options_for_limits() {
    let o = options(
        "header-buffer-size=8192 response-buffer-size=65536 request-buffer-size=0 script-user=root cpu-time-limit=9 cpu-priority=-5 memory-limit=1 memory-soft=7 virtual-memory-limit=5000000000",
    );
    let o = o.unwrap();
    assert_eq!((o.response_buffer_size, o.request_buffer_size, o.cpu_priority), (65536, 0, -5));
    assert_eq!(options("request-buffer-size=5000000").unwrap().request_buffer_size, 5_000_000);
    assert_eq!((o.script_user, o.cpu_time_limit), (Some(UserRef::Name(b"root".to_vec())), Some(Duration::from_secs(9))));
    assert_eq!((o.memory_limit, o.virtual_memory_limit, o.memory_soft), (Some(1), Some(5_000_000_000), Some(7)));
    assert_eq!((o.dumpable, options("dumpable=On").unwrap().dumpable), (false, true));
    assert_eq!(options("script-group=#7").unwrap().script_group, Some(GroupRef::Id(7)));
    let o = options("header-buffer-size=0 response-buffer-size=0 memory-limit=0").unwrap();
    assert_eq!((o.response_buffer_size, o.memory_limit), (8 << 20, None));
    for bad in [
        "header-buffer-size=8191",
        "response-buffer-size=65535",
        "request-buffer-size=1kB",
        "cpu-priority=21",
        "cpu-priority=-21",
        "cpu-priority=",
        "memory-limit=-1",
        "memory-limit=1T",
    ] {
        assert!(options(bad).is_err(), "{bad}");
    }
    assert!(options("header-buffer-size=1").unwrap_err().contains("expected 0, or bytes from 8192: a whole number"));
}

#[test]
fn daemon_options_without_effect() {
    let table = [
        ("server-metrics", "On", "maybe"),
        ("connect-timeout", "15", "x"),
        ("socket-user", "root", ""),
        ("send-buffer-size", "512", "511"),
        ("receive-buffer-size", "0", "-1"),
        ("response-flush-delay", "0", "x"),
        ("newrelic-config-file", "/x", ""),
        ("newrelic-environment", "x", ""),
        ("header-buffer-size", "8192", "1"),
    ];
    assert_eq!(DAEMON_OPTIONS.iter().filter(|row| row.notice.is_some()).count(), table.len());
    for (name, good, bad) in table {
        let mut reader = Reader::default();
        let said = notice(reader.read(&format!("WSGIDaemonProcess g {name}={good}")));
        assert!(said.starts_with(&format!("WSGIDaemonProcess: {name}= has no effect")), "{said}");
        assert_eq!(reader.server.groups.len(), 1);
        if !name.starts_with("newrelic") {
            assert!(options(&format!("{name}={bad}")).is_err(), "{name}={bad}");
        }
    }
    let said = notice(Reader::default().read("WSGIDaemonProcess g connect-timeout=1 socket-user=a"));
    assert_eq!(said.matches("has no effect").count(), 2, "{said}");
}

#[test]
fn control_socket() {
    let mut reader = Reader::default();
    for (line, expected) in [("off", ControlSocket::Off), ("Off", ControlSocket::Off), ("/run/x", ControlSocket::Path(b"/run/x".to_vec()))]
    {
        reader.applied(&format!("DroverControlSocket {line}"));
        assert_eq!(reader.server.control_socket, Some(expected));
    }
    assert!(reader.read("DroverControlSocket \"\"").is_err());
    assert!(reader.read_in(Context::VirtualHost, None, "DroverControlSocket /x").is_err());
}

#[test]
fn sessions() {
    let mut reader = Reader::default();
    assert_eq!(reader.server.session, SessionOptions::default());
    let cache = Asked::Socache("redis".into(), "127.0.0.1:6379".into());
    for (word, expected) in [
        ("Auto", Asked::Auto),
        ("memory", Asked::Memory),
        ("disk", Asked::Disk),
        ("off", Asked::Off),
        ("socache:redis:127.0.0.1:6379", cache),
    ] {
        reader.applied(&format!("DroverSession {word}"));
        assert_eq!(reader.server.session.asked, Some(expected));
    }
    for line in [
        "DroverSessionDirectory /srv/sessions",
        "DroverSessionMemory 2m",
        "DroverSessionDiskSize 1048576",
        "DroverSessionSync always",
        "DroverSessionTimeout 60",
        "DroverSessionLockTimeout 0",
        "DroverSessionMaxSize 16M",
        "DroverSessionScope shop",
        "DroverSessionSerializer msgpack",
        "DroverSessionCookie name=__Host-s secure=On samesite=Strict httponly=Off max-age=5",
    ] {
        reader.applied(line);
    }
    let s = &reader.server.session;
    assert_eq!((s.directory.as_deref(), s.memory, s.disk_size), (Some(b"/srv/sessions".as_slice()), Some(2 << 20), Some(1 << 20)));
    assert_eq!((s.sync, s.timeout_s, s.lock_timeout_s, s.max_size), (Some(Sync::Always), Some(60), Some(0), Some(16 << 20)));
    assert_eq!((&s.scope, s.serializer), (&Some(Scope::Named(b"shop".to_vec())), Some(Serializer::Msgpack)));
    let cookie = s.cookie.clone().unwrap();
    assert_eq!((cookie.name.as_deref(), cookie.path.as_str(), cookie.max_age, cookie.http_only), (Some("__Host-s"), "/", Some(5), false));
    for bad in [
        "DroverSession on",
        "DroverSession socache:",
        "DroverSession socache:x/y",
        "DroverSession redis",
        "DroverSessionMemory 1K",
        "DroverSessionMemory 99999999999G",
        "DroverSessionMaxSize 17M",
        "DroverSessionMaxSize 0",
        "DroverSessionSync 0",
        "DroverSessionTimeout 0",
        "DroverSessionLockTimeout -1",
        "DroverSessionScope \"\"",
        "DroverSessionSerializer marshal",
        "DroverSessionCookie",
        "DroverSessionCookie name=a;b",
        "DroverSessionCookie name=",
        "DroverSessionCookie path=x",
        "DroverSessionCookie domain=a,b",
        "DroverSessionCookie secure=maybe",
        "DroverSessionCookie samesite=none secure=off",
        "DroverSessionCookie name=__Host-s domain=example.org",
        "DroverSessionCookie max-age=0",
        "DroverSessionCookie nam=x",
    ] {
        assert!(reader.read(bad).is_err(), "{bad}");
    }
    for global in ["DroverSessionDirectory /x", "DroverSessionMemory 2M", "DroverSessionDiskSize 2M", "DroverSessionSync 1"] {
        assert!(reader.read_in(Context::VirtualHost, None, global).is_err(), "{global}");
    }
    let vhost = SessionOptions { timeout_s: Some(7), ..SessionOptions::default() };
    let merged = SessionOptions::merge(&reader.server.session, &vhost);
    assert_eq!((merged.timeout_s, merged.lock_timeout_s), (Some(7), Some(0)));
}

#[test]
fn overload_and_death() {
    let mut reader = Reader::default();
    assert_eq!((reader.server.max_waiting, reader.server.dir.retry), (None, None));
    for (line, expected) in [("off", MaxWaiting::Off), ("1", MaxWaiting::Requests(1)), ("50", MaxWaiting::Requests(50))] {
        reader.applied(&format!("DroverMaxWaiting {line}"));
        assert_eq!(reader.server.max_waiting, Some(expected));
    }
    for (line, expected) in [("idempotent", true), ("off", false)] {
        reader.applied(&format!("DroverRetry {line}"));
        assert_eq!(reader.server.dir.retry, Some(expected));
    }
    for bad in ["DroverMaxWaiting 0", "DroverMaxWaiting all", "DroverMaxWaiting -1", "DroverRetry on", "DroverRetry"] {
        assert!(reader.read(bad).is_err(), "{bad}");
    }
    assert!(reader.read_in(Context::VirtualHost, None, "DroverMaxWaiting 5").is_err());
}

#[test]
fn names_that_depend_on_the_request() {
    let mut reader = Reader::default();
    reader.applied("WSGIProcessGroup site");
    reader.applied("WSGIApplicationGroup %{GLOBAL}");
    reader.applied("WSGICallableObject %{ENV:callable}");
    let dir = &reader.server.dir;
    assert_eq!(dir.process_group, Some(Expr::Literal(b"site".to_vec())));
    assert_eq!(dir.application_group, Some(Expr::Global));
    assert_eq!(dir.callable_object, Some(Expr::Env(b"callable".to_vec())));
    for name in ["WSGIProcessGroup", "WSGIApplicationGroup", "WSGICallableObject"] {
        reader.refused(name, &["takes one argument"]);
        reader.refused(&format!("{name} ''"), &["takes one argument"]);
        reader.refused(&format!("{name} a b"), &["takes one argument"]);
    }
}

#[test]
fn likely_typos_are_reported() {
    let table = [
        ("WSGIApplicationGroup GLOBAL", "'GLOBAL' is used literally; did you mean %{GLOBAL}?"),
        ("WSGIApplicationGroup %GLOBAL", "did you mean %{GLOBAL}?"),
        ("WSGIApplicationGroup ${global}", "did you mean %{GLOBAL}?"),
        ("WSGIApplicationGroup {RESOURCE}", "did you mean %{RESOURCE}?"),
        ("WSGIProcessGroup SERVER", "did you mean %{SERVER}?"),
        ("WSGIRestrictProcess a GLOBAL", "did you mean %{GLOBAL}?"),
        ("WSGIScriptAlias /x /x application-group=GLOBAL", "did you mean %{GLOBAL}?"),
        ("WSGIScriptAlias /x/ /srv/x", "the URL path ends with a slash and the file path does not"),
        ("WSGIScriptAlias /x /srv/x/", "the file path ends with a slash and the URL path does not"),
        (
            "WSGIDaemonProcess processes=6",
            "'processes=6' is read as the name of the group; write the name first: WSGIDaemonProcess name processes=",
        ),
        ("WSGIDaemonProcess proceses=6", "write the name first: WSGIDaemonProcess name processes="),
    ];
    for (line, part) in table {
        let said = notice(Reader::default().read(line));
        assert!(said.contains(part), "{line}: {said}");
    }
    let mut reader = Reader::default();
    reader.applied("WSGIDaemonProcess x=y");
    let said = notice(reader.read("WSGIImportScript /i process-group=x=y application-group=GLOBAL"));
    assert!(said.contains("did you mean %{GLOBAL}?"), "{said}");
    for line in [
        "WSGIScriptAlias / /srv/x",
        "WSGIScriptAlias / /srv/x/",
        "WSGIScriptAlias /x/ /srv/x/",
        "WSGICallableObject GLOBAL",
        "WSGIApplicationGroup global-shop",
    ] {
        reader.applied(line);
    }
}

#[test]
fn switches_per_directory() {
    type Read = fn(&DirConfig) -> Option<bool>;
    let table: &[(&str, Read)] = &[
        ("WSGIPassAuthorization", |d| d.pass_authorization),
        ("WSGIScriptReloading", |d| d.script_reloading),
        ("WSGIErrorOverride", |d| d.error_override),
        ("WSGIChunkedRequest", |d| d.chunked_request),
        ("WSGIIgnoreActivity", |d| d.ignore_activity),
        ("WSGIMapHEADToGET", |d| d.map_head_to_get.map(|map| map == MapHead::On)),
    ];
    for (name, read) in table {
        let mut reader = Reader::default();
        for (value, want) in [("On", true), ("oFF", false)] {
            reader.read(&format!("{name} {value}")).unwrap();
            assert_eq!(read(&reader.server.dir), Some(want), "{name}");
        }
        reader.refused(&format!("{name} 1"), &["'1': expected On"]);
        reader.refused(name, &["takes one argument"]);
    }
    let mut reader = Reader::default();
    reader.applied("WSGIMapHEADToGET auto");
    assert_eq!(reader.server.dir.map_head_to_get, Some(MapHead::Auto));
    for (name, part) in [("WSGIPassApacheRequest", "apache.request_rec"), ("WSGIEnableSendfile", "no effect: a file that is returned")] {
        assert!(notice(reader.read(&format!("{name} On"))).contains(part), "{name}");
        reader.refused(&format!("{name} 1"), &["'1': expected On"]);
    }
}

#[test]
fn switches_per_server() {
    type Read = fn(&ServerConfig) -> Option<bool>;
    let table: &[(&str, Read)] = &[("WSGICaseSensitivity", |s| s.case_sensitivity), ("WSGIDontWriteBytecode", |s| s.dont_write_bytecode)];
    for (name, read) in table {
        let mut reader = Reader::default();
        reader.read(&format!("{name} on")).unwrap();
        assert_eq!(read(&reader.server), Some(true), "{name}");
        reader.refused(&format!("{name} yes"), &["On or Off"]);
    }
    let mut reader = Reader::default();
    assert!(notice(reader.read("WSGIRestrictEmbedded On")).contains("no embedded mode"));
    reader.refused("WSGIRestrictEmbedded yes", &["On or Off"]);
}

#[test]
fn lists() {
    let mut reader = Reader::default();
    reader.applied("WSGIRestrictProcess a %{GLOBAL}");
    assert_eq!(reader.server.dir.restrict_process, Some(vec![b"a".to_vec(), vec![]]));
    reader.applied("WSGIRestrictProcess");
    assert_eq!(reader.server.dir.restrict_process, Some(vec![]), "the last one holds, and an empty one allows nothing");
    reader.applied("WSGITrustedProxyHeaders x-forwarded-for X-Forwarded-Proto");
    reader.applied("WSGITrustedProxyHeaders X_Script_Name");
    let said = notice(reader.read("WSGITrustedProxyHeaders X-Forwarded-Prefix"));
    assert!(said.contains("'X-Forwarded-Prefix' is not a known header") && said.contains("X-Forwarded-Script-Name"), "{said}");
    let names: Vec<_> = reader.server.dir.trusted_proxy_headers.iter().flatten().map(|header| header.name).collect();
    assert_eq!(names, ["X-Forwarded-For", "X-Forwarded-Proto", "X-Script-Name"]);
    reader.applied("WSGITrustedProxies 127.0.0.1 10.0.0.0/8");
    reader.applied("WSGITrustedProxies ::1");
    assert_eq!(reader.server.dir.trusted_proxies.as_ref().map(Vec::len), Some(3));
    reader.refused("WSGITrustedProxies 10.0.0.1 localhost", &["'localhost'", "an IP address or a network"]);
}

#[test]
fn python_settings() {
    let mut reader = Reader::default();
    reader.applied("WSGIPythonHome /venv");
    reader.applied("WSGIPythonPath '/a b:/c'");
    reader.applied("WSGIPythonEggs /eggs");
    reader.applied("WSGIPythonOptimize 2");
    reader.applied("WSGIPythonWarnings ignore::UserWarning");
    reader.applied("WSGIPythonWarnings error");
    reader.applied("WSGIPythonHashSeed 0");
    reader.applied("WSGISwitchInterval 0.002");
    let server = &reader.server;
    assert_eq!((server.python_home.as_deref(), server.python_eggs.as_deref()), (Some(b"/venv".as_slice()), Some(b"/eggs".as_slice())));
    assert_eq!((server.optimize, server.hash_seed, server.warnings.len()), (Some(2), Some(HashSeed::Fixed(0)), 2));
    assert_eq!(server.interpreter.python_path, Some(vec![b"/a b".to_vec(), b"/c".to_vec()]));
    assert_eq!(server.interpreter.switch_interval, Some(Duration::from_millis(2)));
    reader.applied("WSGIPythonHashSeed random");
    assert_eq!(reader.server.hash_seed, Some(HashSeed::Random));
    reader.applied("WSGIPythonHashSeed 4294967295");
    for (line, words) in [
        ("WSGIPythonHome venv", "an absolute path"),
        ("WSGIPythonOptimize 3", "0, 1 or 2"),
        ("WSGIPythonHashSeed 4294967296", "random or a whole number from 0 to 4294967295"),
        ("WSGIPythonHashSeed Random", "random or a whole number"),
        ("WSGISwitchInterval 0", "a positive number of seconds"),
        ("WSGIPythonWarnings", "takes one argument"),
    ] {
        reader.refused(line, &[words]);
    }
}

#[test]
fn interpreter_options_are_scoped() {
    let mut reader = Reader::default();
    reader.applied("WSGIRestrictStdin On");
    reader.applied("<WSGIInterpreterOptions process-group=site application-group=%{GLOBAL}>");
    let scope = InterpreterScope { process_group: Some(b"site".to_vec()), application_group: Some(vec![]) };
    assert_eq!(reader.server.scopes, [ScopedOptions { scope: scope.clone(), ..ScopedOptions::default() }]);
    for line in
        ["WSGIRestrictStdin Off", "WSGIRestrictStdout On", "WSGIRestrictSignal Off", "WSGIPythonPath /exact", "WSGISwitchInterval 1"]
    {
        assert_eq!(reader.read_in(Context::Server, Some(&scope), line), Ok(None), "{line}");
    }
    for line in ["WSGIPerInterpreterGIL On", "WSGIFreeThreading On"] {
        assert!(notice(reader.read_in(Context::Server, Some(&scope), line)).contains("has no effect"));
    }
    assert!(reader.read_in(Context::Server, Some(&scope), "WSGIPythonHome /x").unwrap_err().contains("<WSGIInterpreterOptions>"));
    reader.applied("<WSGIInterpreterOptions >");
    let any = InterpreterScope::default();
    reader.read_in(Context::Server, Some(&any), "WSGIRestrictStdout Off").unwrap();
    reader.read_in(Context::Server, Some(&any), "WSGIPythonPath /any").unwrap();
    assert_eq!(reader.server.interpreter.restrict_stdin, Some(true));
    assert_eq!(reader.server.interpreter.restrict_stdout, None);

    let (exact, layers) = reader.server.interpreter_options(b"site", b"", &[b"/base".to_vec()]);
    assert_eq!((exact.restrict_stdin, exact.restrict_stdout, exact.restrict_signal), (Some(false), Some(true), Some(false)));
    assert_eq!(layers.concat(), [b"/base".to_vec(), b"/any".to_vec(), b"/exact".to_vec()]);
    let (other, layers) = reader.server.interpreter_options(b"site", b"app", &[]);
    assert_eq!((other.restrict_stdin, other.restrict_stdout, other.restrict_signal), (Some(true), Some(false), None));
    assert_eq!(layers.concat(), [b"/any".to_vec()]);

    reader.refused("<WSGIInterpreterOptions process-group=a", &["closing '>'"]);
    reader.refused("<WSGIInterpreterOptions process-group=a process-group=b>", &["process-group= is given more than once"]);
    reader.refused("<WSGIInterpreterOptions group=a>", &["unknown option 'group'", "process-group, application-group"]);
    reader.refused("<WSGIInterpreterOptions a>", &["name=value"]);
}

#[test]
fn scripts_that_are_not_available_are_refused() {
    for name in ["WSGIAuthUserScript", "WSGIAuthGroupScript", "WSGIAccessScript", "WSGIDispatchScript", "WSGIHandlerScript"] {
        let message = Reader::default().read_in(Context::Directory, None, &format!("{name} /x.py")).unwrap_err();
        assert!(message.starts_with(&format!("{name} is not available yet: ")), "{message}");
    }
}

#[test]
fn directives_without_effect() {
    let table: &[(&str, &[&str], &[&str])] = &[
        ("WSGIGroupAuthoritative", &["On", "off"], &["x", ""]),
        ("WSGISocketPrefix", &["run/wsgi"], &["", "a b"]),
        ("WSGISocketRotation", &["Off"], &["x"]),
        ("WSGIAcceptMutex", &["Default", "FCNTL", "pthread"], &["file", ""]),
        ("WSGIDestroyInterpreter", &["Off"], &["x"]),
        ("WSGIServerMetrics", &["On"], &["x"]),
        (
            "WSGITelemetryService",
            &["unix:/x", "unix:/x interval=0.5"],
            &["", "udp:h:1", "unix:/x interval=0.1", "unix:/x y", "unix:/x interval=1 z"],
        ),
        ("WSGISlowRequests", &["2.5", "0"], &["", "x", "-1"]),
        (
            "WSGITelemetryOptions",
            &["None", "all", "+CaptureUserAgent", "-captureuseragent +captureuseragent"],
            &["", "+", "+None", "x", "+CaptureUserAgent All"],
        ),
        ("WSGIVerboseDebugging", &["On"], &["x"]),
        ("WSGILazyInitialization", &["On"], &["x"]),
        ("WSGIPy3kWarningFlag", &["On"], &["x"]),
        ("WSGIUserAuthoritative", &["On"], &["x"]),
        ("WSGINewRelicConfigFile", &["/x"], &[""]),
        ("WSGINewRelicEnvironment", &["x"], &[""]),
    ];
    assert_eq!(DIRECTIVES.iter().filter(|row| row.theme == Theme::Inert).count(), table.len());
    for (name, good, bad) in table {
        let context =
            if directive(name.as_bytes()).unwrap().contexts == Contexts::AuthConfig { Context::Directory } else { Context::Server };
        for value in *good {
            let said = notice(Reader::default().read_in(context, None, &format!("{name} {value}")));
            assert!(said.starts_with(&format!("{name} has no effect: ")), "{said}");
        }
        for value in *bad {
            assert!(Reader::default().read_in(context, None, &format!("{name} {value}")).is_err(), "{name} {value}");
        }
    }
}

#[test]
fn errors_of_lists_of_options_say_where_to_look() {
    let error = ConfigError {
        directive: "WSGIDaemonProcess",
        synopsis: "",
        kind: ConfigErrorKind::UnknownOption {
            option: b"x".to_vec(),
            nearest: None,
            accepted: Accepted { names: vec!["a"], is_long: false },
        },
    };
    assert_eq!(error.to_string(), "WSGIDaemonProcess: unknown option 'x'; accepted options: a");
}

/// Lines of a configuration without preloading, which would need other lines above them.
fn lines() -> impl Strategy<Value = Vec<&'static str>> {
    let pool = vec![
        "WSGIScriptAlias /a /a.wsgi",
        "WSGIScriptAlias /b /b.wsgi process-group=%{ENV:x}",
        "WSGIProcessGroup a",
        "WSGIApplicationGroup %{GLOBAL}",
        "WSGICallableObject app",
        "WSGIRestrictProcess a b",
        "WSGIRestrictProcess",
        "WSGIPassAuthorization On",
        "WSGIScriptReloading Off",
        "WSGIErrorOverride On",
        "WSGIChunkedRequest On",
        "WSGIMapHEADToGET Off",
        "WSGIIgnoreActivity On",
        "WSGITrustedProxyHeaders X-Real-IP",
        "WSGITrustedProxies 10.0.0.0/8",
        "WSGIPythonHome /venv",
        "WSGIPythonPath /p",
        "WSGIPythonWarnings error",
        "WSGIPythonHashSeed 7",
        "WSGIDontWriteBytecode On",
        "WSGICaseSensitivity Off",
        "WSGIRestrictStdin On",
        "<WSGIInterpreterOptions process-group=a>",
        "WSGIImportScript /i process-group=%{GLOBAL} application-group=a",
        "WSGIDaemonProcess g",
    ];
    proptest::sample::subsequence(pool.clone(), 0..=pool.len())
}

fn server(lines: &[&str]) -> ServerConfig {
    let mut reader = Reader::default();
    for line in lines {
        reader.read(line).unwrap();
    }
    reader.server
}

proptest! {
    #[test]
    fn merging_with_nothing_changes_nothing(lines in lines()) {
        let config = server(&lines);
        let empty = ServerConfig::default();
        let inherited = ServerConfig { groups: vec![], imports: vec![], ..config.clone() };
        prop_assert_eq!(ServerConfig::merge(&config, &empty), inherited);
        prop_assert_eq!(ServerConfig::merge(&empty, &config), config.clone());
        prop_assert_eq!(DirConfig::merge(&config.dir, &DirConfig::default()), config.dir.clone());
        prop_assert_eq!(DirConfig::merge(&DirConfig::default(), &config.dir), config.dir);
    }

    #[test]
    fn merging_leaves_both_sides_alone_and_the_inner_wins(outer in lines(), inner in lines()) {
        let (base, vhost) = (server(&outer), server(&inner));
        let (base_before, vhost_before) = (base.clone(), vhost.clone());
        let merged = ServerConfig::merge(&base, &vhost);
        prop_assert_eq!(&base, &base_before);
        prop_assert_eq!(&vhost, &vhost_before);
        prop_assert!(merged.aliases.starts_with(&vhost.aliases) && merged.aliases.ends_with(&base.aliases));
        prop_assert_eq!(&merged.groups, &vhost.groups);
        prop_assert_eq!(merged.dir.process_group, vhost.dir.process_group.or(base.dir.process_group));
        prop_assert_eq!(merged.dir.trusted_proxies, vhost.dir.trusted_proxies.or(base.dir.trusted_proxies));
    }

    #[test]
    fn no_arguments_make_a_directive_panic(raw in proptest::collection::vec(any::<u8>(), 0..60), text in "[ a-z=%{}A-Z0-9/'\"\\\\>-]{0,40}") {
        for row in DIRECTIVES {
            for arguments in [raw.as_slice(), text.as_bytes()] {
                let mut reader = Reader::default();
                let (server, dir) = (&mut reader.server, &mut reader.dir);
                let mut target = Target { server, dir, context: Context::Server, scope: None, defined_groups: &[] };
                if let Err(error) = row.apply(&mut target, arguments) {
                    prop_assert!(error.to_string().starts_with(row.title()));
                    prop_assert_eq!(&reader.server, &ServerConfig::default());
                }
            }
        }
    }
}

#[test]
fn every_size_and_time_may_have_a_unit() {
    // Each row of the options, and each directive that says of itself that it takes seconds or
    // bytes.
    for row in DAEMON_OPTIONS.iter().filter(|row| matches!(row.unit, "seconds" | "bytes")) {
        let value = if row.unit == "seconds" { "1s" } else { "1M" };
        let mut reader = Reader::default();
        assert!(reader.read(&format!("WSGIDaemonProcess g {}={value}", row.name)).is_ok(), "{}={value}", row.name);
    }
    for row in DIRECTIVES.iter().filter(|row| row.synopsis.starts_with("seconds") || row.synopsis.starts_with("bytes")) {
        let value = if row.synopsis.starts_with("seconds") { "1s" } else { "2M" };
        let mut reader = Reader::default();
        assert!(reader.read(&format!("{} {value}", row.title())).is_ok(), "{} {value}", row.title());
    }
    let mut reader = Reader::default();
    reader.applied("WSGIDaemonProcess g memory-limit=512M graceful-timeout=2min request-timeout=90 stack-size=64k");
    let o = &reader.server.groups[0].options;
    assert_eq!((o.memory_limit, o.stack_size), (Some(512 << 20), Some(64 << 10)));
    assert_eq!((o.graceful_timeout, o.request_timeout), (Duration::from_secs(120), Some(Duration::from_secs(90))));
    reader.applied("DroverSessionTimeout 1h");
    reader.applied("DroverSessionCookie max-age=30d");
    assert_eq!(reader.server.session.timeout_s, Some(3600));
    assert_eq!(reader.server.session.cookie.as_ref().and_then(|c| c.max_age), Some(30 * 86400));
}
