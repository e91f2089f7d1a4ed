//! Every directive and option reaches the part that acts on it, or says that it has no effect.
//!
//! Responsible for: no row of the two tables being a setting that nobody reads. Each row with an effect has a sample here, and the sample must
//! change what droverd, a request or the session store is given. A row without a sample fails. `tests/generated.rs` names the test that sees the
//! effect in a running server.
use super::tests::{SYSTEM, configure, main_and};
use super::*;
use crate::{Context, DAEMON_OPTIONS, DIRECTIVES, DirConfig, Settings, Theme};
use drover_session::choice::Mpm;
use std::collections::BTreeMap;
use std::path::Path;

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

/// What droverd, a request and the session store are given by a configuration: nothing else of it is read once httpd runs.
fn given(lines: &[&str]) -> String {
    let config = configure(Context::Server, lines);
    let system = tests::Made { files: vec!["/srv/bin/python3", "/srv/usr/bin/python3"], ..SYSTEM };
    let (resolved, specs) = resolve(&main_and(&config, &[]), &system).unwrap();
    let groups: BTreeMap<_, _> = resolved.groups.iter().collect();
    let server = (resolved.most_of_a_group(1, 1000), resolved.is_case_sensitive(), &config.aliases, &config.control_socket);
    let directory = DirConfig::default();
    let request = Settings::resolve(&config.dir, &directory);
    let mpm = Mpm { threaded: true, forked: true, max_daemons: 16 };
    let kept = config.session.directory.as_deref().unwrap_or(b"/var/lib");
    let kept = std::str::from_utf8(kept).unwrap();
    let sessions = crate::sessions::plan(&[&config], mpm, Path::new(kept)).unwrap();
    format!("{specs:?}{groups:?}{server:?}{request:?}{sessions:?}")
}

#[test]
fn every_directive_changes_what_somebody_is_given_or_says_that_it_has_no_effect() {
    let silent = |row: &&crate::Directive| row.notice.is_none() && row.theme != Theme::Later;
    let names: Vec<&str> = DIRECTIVES.iter().filter(silent).map(crate::Directive::title).collect();
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
