//! Application groups whose names requests make up.
//!
//! Responsible for: nobody using up the names of a group for others, and for room for all that the configuration names. Called by: `main.rs`.
use crate::control::run;
use crate::harness::{Httpd, Site, until};
use crate::lifecycle::app;

/// Every URL below /n/ is an application group of its own.
fn crowd(site: Site, most: u32) -> Site {
    let group = format!("WSGIDaemonProcess app processes=1 threads=2 max-application-groups={most}\nWSGIProcessGroup app\n");
    site.bare().config(&group).config("WSGIScriptAliasMatch ^/n/[a-z0-9]+ @apps@/a.wsgi\n")
}

fn names(httpd: &Httpd) -> Vec<String> {
    let (ok, text, said) = run(httpd, &["status", "app", "--json"]);
    assert!(ok, "{said}");
    let all: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let applications = all["groups"][0]["applications"].as_array().expect("applications").clone();
    let used = |a: &serde_json::Value| a["state"] != "stopping";
    applications.iter().filter(|a| used(a)).map(|a| a["name"].as_str().expect("name").to_owned()).collect()
}

mpm_test!(invented_names_do_not_use_up_a_group, |site| {
    let site = crowd(site.script("a.wsgi", &app("a")), 3).allow_log("DROVER0030|DROVER0260");
    let mut httpd = site.start();
    let ask = |httpd: &Httpd, name: &str| until(name, || httpd.get(&format!("/n/{name}")).status == 200);
    (0..8).for_each(|n| ask(&httpd, &n.to_string()));
    assert!(names(&httpd).len() <= 3, "{:?}", names(&httpd));
    ask(&httpd, "0");
    httpd.graceful();
    (10..14).for_each(|n| ask(&httpd, &n.to_string()));
    until("the processes of the others end", || httpd.workers().len() <= 3);
    httpd.restart();
    until("a restart begins anew", || names(&httpd).is_empty());
    (20..24).for_each(|n| ask(&httpd, &n.to_string()));
});

mpm_test!(names_in_use_are_not_given_up_and_refusals_are_counted, |site| {
    let waits = "import os, time\ndef application(e, s):\n    while not os.path.exists('@apps@/go'):\n        time.sleep(0.01)\n    \
                 s('200 OK', [])\n    return [b'done']\n";
    let site = crowd(site.script("a.wsgi", waits), 1).expect_log("DROVER0030").expect_log("DROVER0260").config("LogLevel warn\n");
    let httpd = site.start();
    let port = httpd.site.port;
    let first = std::thread::spawn(move || crate::harness::Request::new(port, "GET", "/n/first").send());
    until("it runs", || run(&httpd, &["status", "app"]).1.contains("serving"));
    let mut refused = 0;
    until("a message that counts", || {
        let answer = httpd.get("/n/second");
        assert_eq!(answer.status, 503);
        assert!(answer.header("Retry-After").is_some());
        refused += 1;
        httpd.log().contains("earlier requests were refused without a message")
    });
    assert!(httpd.log().matches("DROVER0030").count() < refused, "not one for each");
    httpd.site.write("go", "");
    let first = first.join().expect("thread");
    assert_eq!((first.status, first.text()), (200, "done".into()));
    until("there is room", || httpd.get("/n/second").status == 200);
});

mpm_test!(a_configuration_with_more_names_than_the_option_allows_is_told, |site| {
    let aliases: String = (0..3).map(|n| format!("WSGIScriptAlias /s{n} @apps@/a.wsgi\n")).collect();
    let site = site.script("a.wsgi", &app("a")).bare().allow_log("DROVER0030|DROVER0260").expect_log("DROVER0034");
    let site = site.config("WSGIDaemonProcess app processes=1 threads=1 max-application-groups=2\nWSGIProcessGroup app\n").config(&aliases);
    let said = site.accepted();
    assert!(said.contains("DROVER0034") && said.contains("names at least 3 application groups, but max-application-groups=2"), "{said}");
    let httpd = site.start();
    for n in [0, 1, 2, 0] {
        until("its turn", || httpd.get(&format!("/s{n}")).status == 200);
    }
});
