//! Applications that have more processes than they need, and likely typos, as `httpd -t` reports them.
//!
//! Responsible for: the notice that names the line and what to write. Called by: `main.rs`.
use crate::harness::Site;

/// Lines, and the notice for one of them (counted from the first); `None`: nothing is said.
const TOLD: &[(&str, Option<(&str, usize)>)] = &[
    (
        "WSGIDaemonProcess shop\nWSGIScriptAlias / @apps@/hello.wsgi process-group=shop",
        Some(("DROVER0036: WSGIScriptAlias /: the only script of the group 'shop' runs in the application group %{RESOURCE}", 1)),
    ),
    (
        "WSGIDaemonProcess shop\nWSGIProcessGroup shop\nWSGIScriptAlias / @apps@/hello.wsgi\nWSGIScriptAlias /b @apps@/body.wsgi\n\
         WSGIImportScript @apps@/hello.wsgi process-group=shop application-group=%{GLOBAL}",
        Some(("DROVER0036: WSGIImportScript @apps@/hello.wsgi: the script is loaded into the application group %{GLOBAL}", 4)),
    ),
    ("WSGIDaemonProcess shop\nWSGIScriptAlias / @apps@/hello.wsgi process-group=shop application-group=%{GLOBAL}", None),
    (
        "WSGIDaemonProcess shop\nWSGIScriptAlias / @apps@/hello.wsgi process-group=shop\n\
         <Directory @apps@>\nWSGIApplicationGroup %{GLOBAL}\n</Directory>",
        None,
    ),
    ("WSGIApplicationGroup GLOBAL", Some(("DROVER0003: WSGIApplicationGroup: 'GLOBAL' is used literally; did you mean %{GLOBAL}?", 0))),
    ("WSGIDaemonProcess processes=6", Some(("DROVER0003: WSGIDaemonProcess: 'processes=6' is read as the name of the group", 0))),
    ("WSGIScriptAlias /x/ @apps@/hello.wsgi", Some(("DROVER0003: WSGIScriptAlias: the URL path ends with a slash", 0))),
    ("WSGIScriptAlias /x @apps@", Some(("DROVER0014: script @apps@: is a directory", 0))),
];

event_test!(what_has_processes_twice_is_told_with_file_and_line, |site| {
    let (subject, mpm) = (site.subject, site.mpm);
    for (lines, told) in TOLD {
        let site = Site::new(subject, mpm, "doubled").bare();
        let first = site.text().lines().count() + 1;
        let site = site.config(lines);
        let said = site.accepted();
        match told {
            None => assert!(!said.contains("DROVER"), "{lines}: {said}"),
            Some((part, at)) => {
                let part = site.fill(part);
                let line = said.lines().find(|line| line.contains(&part)).unwrap_or_else(|| panic!("no {part:?} for {lines}: {said}"));
                assert!(line.ends_with(&site.fill(&format!("(@dir@/httpd.conf:{})", first + at))), "{lines}: {line}");
            }
        }
    }
});
