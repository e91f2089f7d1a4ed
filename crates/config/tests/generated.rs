//! Files that are generated from the table of directives, and what the table promises.
//!
//! Responsible for: noticing when docs/directives.md or apache-conf/drover.conf is older than the
//! table. `UPDATE=1 cargo test --test generated` writes them. Links no httpd. Called by: `make
//! check`, `make test`.
// A test may stop at whatever it did not expect.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use drover_config::{DAEMON_OPTIONS, DIRECTIVES, Directive, Theme, docs};
use std::path::Path;

/// The top of the source tree.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

#[track_caller]
fn fresh(name: &str, wanted: &str) {
    let path = Path::new(ROOT).join(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, wanted).expect("write generated file");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == wanted, "{name} is not what the table of directives gives; run: UPDATE=1 cargo test --test generated");
}

#[test]
fn directives_md_is_fresh() {
    fresh("docs/directives.md", &docs::directives_markdown());
}

#[test]
fn drover_conf_is_fresh() {
    fresh("apache-conf/drover.conf", &docs::apache_conf());
}

/// The examples that people copy: Markdown's blocks, the commented configuration, the example's
/// head.
fn examples() -> Vec<(String, String)> {
    let root = Path::new(ROOT);
    let read = |name: &str| std::fs::read_to_string(root.join(name)).expect("file");
    let mut found = Vec::new();
    let pages =
        std::fs::read_dir(root.join("docs")).expect("docs").map(|entry| format!("docs/{}", entry.expect("entry").file_name().display()));
    for page in pages.chain(["README.md".to_owned()]).filter(|name| name.ends_with(".md")) {
        let text = read(&page);
        found.extend(text.split("\n```").skip(1).step_by(2).map(|block| (page.clone(), block.to_owned())));
    }
    let head = docs::apache_conf().split("<IfModule").next().unwrap_or_default().to_owned();
    found.push(("apache-conf/drover.conf".to_owned(), head));
    let examples = std::fs::read_dir(root.join("examples")).expect("examples");
    found.extend(
        examples.map(|entry| format!("examples/{}", entry.expect("entry").file_name().display())).map(|name| (name.clone(), read(&name))),
    );
    found
}

#[test]
fn every_example_names_the_application_group() {
    let with_alias: Vec<_> = examples().into_iter().filter(|(_, text)| text.contains("WSGIScriptAlias ")).collect();
    assert!(with_alias.len() > 3, "the examples are found: {with_alias:?}");
    for (page, text) in with_alias {
        let in_global = text.contains("WSGIApplicationGroup %{GLOBAL}")
            || text.lines().filter(|line| line.contains("WSGIScriptAlias ")).all(|line| line.contains("application-group=%{GLOBAL}"));
        assert!(in_global, "{page}: without %{{GLOBAL}} an application has processes for each host and port:\n{text}");
    }
}

/// Each directive that has an effect, and the test of a running server that sees it.
const DIRECTIVES_SEEN: &[(&str, &str)] = &[
    ("WSGIScriptAlias", "config.rs the_first_alias_that_matches_wins"),
    ("WSGIScriptAliasMatch", "environ.rs script_name_and_path_info"),
    ("WSGICallableObject", "environ.rs validator_is_content"),
    ("WSGIImportScript", "lifecycle.rs import_scripts_run_when_a_process_starts"),
    ("WSGIScriptReloading", "lifecycle.rs script_reloading"),
    ("WSGICaseSensitivity", "effects.rs paths_of_another_case_are_one_application_when_case_does_not_matter"),
    ("WSGIDaemonProcess", "groups.rs threads_of_a_process_run_at_once_and_one_means_one"),
    ("WSGIProcessGroup", "config.rs groups_can_be_chosen_by_the_request"),
    ("WSGIApplicationGroup", "config.rs application_groups_have_their_documented_names"),
    ("WSGIRestrictProcess", "config.rs groups_can_be_chosen_by_the_request"),
    ("WSGIPythonHome", "real_apps.rs django_with_its_documented_configuration"),
    ("WSGIPythonPath", "effects.rs settings_of_python_reach_the_interpreter"),
    ("WSGIPythonEggs", "effects.rs settings_of_python_reach_the_interpreter"),
    ("WSGIPythonOptimize", "effects.rs settings_of_python_reach_the_interpreter"),
    ("WSGIPythonWarnings", "effects.rs settings_of_python_reach_the_interpreter"),
    ("WSGIPythonHashSeed", "effects.rs settings_of_python_reach_the_interpreter"),
    ("WSGIDontWriteBytecode", "effects.rs settings_of_python_reach_the_interpreter"),
    ("WSGISwitchInterval", "effects.rs settings_of_python_reach_the_interpreter"),
    ("WSGIRestrictStdin", "effects.rs settings_of_python_reach_the_interpreter"),
    ("WSGIRestrictStdout", "effects.rs settings_of_python_reach_the_interpreter"),
    ("WSGIRestrictSignal", "effects.rs settings_of_python_reach_the_interpreter"),
    ("WSGIInterpreterOptions", "effects.rs settings_of_python_reach_the_interpreter"),
    ("WSGIPassAuthorization", "environ.rs remote_user"),
    ("WSGIChunkedRequest", "request_body.rs chunked_can_be_refused"),
    ("WSGIErrorOverride", "response.rs error_documents"),
    ("WSGIMapHEADToGET", "response.rs head_is_mapped_to_get"),
    ("WSGIIgnoreActivity", "limits.rs requests_that_do_not_count_leave_a_process_idle"),
    ("WSGITrustedProxyHeaders", "environ.rs trusted_proxies"),
    ("WSGITrustedProxies", "environ.rs trusted_proxies"),
    ("DroverControlSocket", "control.rs the_socket_can_be_moved_and_left_out"),
    ("DroverMaxWaiting", "overload.rs one_group_does_not_take_all_threads"),
    ("DroverRetry", "crash.rs retry_can_be_left_out"),
    ("DroverSession", "sessions.rs sessions_can_be_off"),
    ("DroverSessionDirectory", "sessions.rs sessions_that_cannot_be_had_are_refused_and_do_not_end_a_running_server"),
    ("DroverSessionMemory", "sessions.rs a_group_that_fills_its_store_leaves_room_to_the_others"),
    ("DroverSessionDiskSize", "sessions.rs sizes_are_bounded_and_the_old_value_stays"),
    ("DroverSessionSync", "effects.rs sessions_end_and_are_written_as_configured"),
    ("DroverSessionTimeout", "effects.rs sessions_end_and_are_written_as_configured"),
    ("DroverSessionLockTimeout", "sessions.rs who_holds_a_session_too_long_costs_others_503_but_not_readers"),
    ("DroverSessionMaxSize", "sessions.rs sizes_are_bounded_and_the_old_value_stays"),
    ("DroverSessionScope", "sessions.rs groups_and_hosts_do_not_see_each_others_sessions"),
    ("DroverSessionSerializer", "effects.rs sessions_end_and_are_written_as_configured"),
    ("DroverSessionCookie", "sessions.rs groups_and_hosts_do_not_see_each_others_sessions"),
];

/// The same for each option of WSGIDaemonProcess.
const OPTIONS_SEEN: &[(&str, &str)] = &[
    ("user", "groups.rs user_group_and_umask"),
    ("group", "groups.rs user_group_and_umask"),
    ("supplementary-groups", "groups.rs user_group_and_umask"),
    ("umask", "groups.rs user_group_and_umask"),
    ("chroot", "groups.rs chroot"),
    ("home", "groups.rs home_language_and_priority"),
    ("lang", "groups.rs home_language_and_priority"),
    ("locale", "groups.rs locale_is_set"),
    ("display-name", "groups.rs display_name"),
    ("python", "groups.rs python_names_the_interpreter"),
    ("python-home", "groups.rs every_python_of_the_machine_at_once"),
    ("python-path", "groups.rs python_path_comes_first"),
    ("python-eggs", "effects.rs settings_of_python_reach_the_interpreter"),
    ("switch-interval", "effects.rs settings_of_python_reach_the_interpreter"),
    ("processes", "groups.rs requests_spread_when_a_process_is_busy"),
    ("reload", "size.rs a_rolling_change_has_one_process_too_many_at_most"),
    ("preload", "preload.rs the_import_runs_once_for_all_workers"),
    ("threads", "groups.rs threads_of_a_process_run_at_once_and_one_means_one"),
    ("max-application-groups", "effects.rs application_groups_are_bounded"),
    ("stack-size", "groups.rs stack_size"),
    ("maximum-requests", "lifecycle.rs maximum_requests"),
    ("listen-backlog", "overload.rs beyond_the_backlog_requests_wait_outside_of_the_queue"),
    ("queue-depth", "overload.rs a_full_queue_refuses_at_once"),
    ("startup-timeout", "deploys.rs code_that_hangs_beyond_startup_timeout"),
    ("shutdown-timeout", "failures.rs request_timeout_is_504"),
    ("graceful-timeout", "graceful.rs an_old_generation_beyond_graceful_timeout_is_ended_and_logged"),
    ("eviction-timeout", "limits.rs eviction_timeout_bounds_the_wait_of_a_signalled_process"),
    ("deadlock-timeout", "limits.rs a_process_that_holds_the_lock_is_killed_after_deadlock_timeout"),
    ("inactivity-timeout", "limits.rs an_idle_process_is_replaced_by_a_fresh_one"),
    ("request-timeout", "failures.rs request_timeout_is_504"),
    ("interrupt-timeout", "limits.rs interrupt_timeout_is_504_and_the_process_stays"),
    ("restart-interval", "limits.rs restart_interval_replaces_and_loses_nothing"),
    ("queue-timeout", "failures.rs queue_timeout_is_503_with_retry_after"),
    ("socket-timeout", "effects.rs silence_of_an_application_is_bounded"),
    ("response-socket-timeout", "effects.rs silence_of_an_application_is_bounded"),
    ("response-buffer-size", "slow_clients.rs more_than_the_buffer_waits_for_the_client"),
    ("request-buffer-size", "slow_clients.rs the_size_of_bodies_that_are_read_first_can_be_set"),
    ("script-user", "effects.rs a_script_of_another_owner_is_403"),
    ("script-group", "effects.rs a_script_of_another_owner_is_403"),
    ("cpu-time-limit", "limits.rs cpu_time_limit_replaces_and_loses_nothing"),
    ("cpu-priority", "groups.rs home_language_and_priority"),
    ("memory-limit", "limits.rs memory_limit_is_an_exception_of_the_application"),
    ("memory-soft", "limits.rs memory_soft_replaces_and_loses_nothing"),
    ("virtual-memory-limit", "effects.rs settings_of_python_reach_the_interpreter"),
    ("dumpable", "isolation.rs a_dumpable_group_is_open_to_its_user"),
];

/// Every row of the tables is in the list, and the test that the list names exists and names the
/// row.
#[track_caller]
fn all_seen(rows: &[&str], seen: &[(&str, &str)]) {
    let named: Vec<&str> = seen.iter().map(|(name, _)| *name).collect();
    assert_eq!(named, rows, "each row with an effect has a test that sees it, in the order of the table");
    for (name, place) in seen {
        let (file, test) = place.split_once(' ').expect("a file and a test");
        let text = std::fs::read_to_string(Path::new(ROOT).join("tests").join(file)).expect(file);
        let defined = text.split("_test!(").skip(1).any(|rest| rest.trim_start().starts_with(&format!("{test},")));
        assert!(defined, "{name}: there is no test {test} in tests/{file}");
        assert!(text.contains(name), "{name} does not occur in tests/{file}");
    }
}

#[test]
fn every_directive_and_option_has_an_effect_that_a_test_sees_or_a_notice() {
    let silent = |row: &&Directive| row.notice.is_none() && row.theme != Theme::Later;
    let directives: Vec<&str> = DIRECTIVES.iter().filter(silent).map(Directive::title).collect();
    all_seen(&directives, DIRECTIVES_SEEN);
    let options: Vec<&str> = DAEMON_OPTIONS.iter().filter(|row| row.notice.is_none()).map(|row| row.name).collect();
    all_seen(&options, OPTIONS_SEEN);
}
