//! Sessions on a real server, by each engine.
//!
//! Responsible for: none lost, none shared with whom it does not belong to, none held by who is gone. Frameworks are in
//! `session_frameworks.rs`. Called by: `main.rs`.
use crate::harness::{Httpd, Mpm, Request, Response, Site, processes, until};
use drover_session::{Key, Limits, Put, Sessions, Stop, id, orphan, store_locks};
use rustix::process::Signal;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The engines that this MPM can have.
fn engines(site: &Site) -> &'static [&'static str] {
    if site.mpm == Mpm::Prefork { &["disk"] } else { &["disk", "memory"] }
}

/// One child, so that sessions can be in its memory.
const ONE_CHILD: &str = "ServerLimit 1\nMaxRequestWorkers 32\nMinSpareThreads 1\nMaxSpareThreads 32";

fn site(site: Site, engine: &str) -> Site {
    let site = site.daemon("processes=2 threads=8").app("/", "sessions/plain.wsgi");
    let site = if engine == "memory" { site.config(ONE_CHILD) } else { site };
    site.config(&format!("DroverSession {engine}"))
}

/// Starts one server after another, one for each engine.
fn each(make: impl Fn() -> Site, change: impl Fn(Site) -> Site, test: impl Fn(&mut Httpd)) {
    for engine in engines(&make()) {
        let mut httpd = change(site(make(), engine)).start();
        test(&mut httpd);
    }
}

/// A test that runs once for each engine.
macro_rules! engine_test {
    ($name:ident, |$site:ident| $change:expr, |$httpd:ident| $body:block) => {
        mpm_test!($name, |first| {
            let (subject, mpm) = (first.subject, first.mpm);
            each(|| Site::new(subject, mpm, stringify!($name)), |$site| $change, |$httpd| $body);
        });
    };
}

/// An answer to a client that sends this cookie.
pub fn get(httpd: &Httpd, path: &str, cookie: &str) -> Response {
    httpd.request("GET", path).header("Cookie", cookie).send()
}

/// The cookie that an answer sets, as the client sends it back.
pub fn cookie(answer: &Response) -> String {
    let set = answer.header("set-cookie").unwrap_or_else(|| panic!("no cookie: {} {}", answer.status, answer.text()));
    set.split(';').next().unwrap_or_default().to_owned()
}

/// A new session with n = 1.
fn begin(httpd: &Httpd) -> String {
    let answer = httpd.get("/count");
    assert_eq!((answer.status, answer.text().as_str()), (200, "1"));
    cookie(&answer)
}

/// The cookie's name: of the harness's group.
const NAME: &str = "drover_session_app";

engine_test!(a_session_is_found_again, |site| site, |httpd| {
    assert!(httpd.get("/read").header("set-cookie").is_none(), "reading makes no session");
    let answer = httpd.get("/count");
    let set = answer.header("set-cookie").expect("cookie");
    let parts: Vec<&str> = set.split("; ").collect();
    let (name, id) = parts[0].split_once('=').expect("name=value");
    assert_eq!((name, id.len()), (NAME, 40), "{set}");
    assert_eq!(parts[1..], ["HttpOnly", "SameSite=Lax", "Path=/"]);
    let cookie = cookie(&answer);
    for n in 2..5 {
        let answer = get(httpd, "/count", &format!("other=1; {cookie}; {NAME}=nonsense"));
        assert_eq!((answer.text(), answer.header("set-cookie")), (n.to_string(), None));
    }
    assert_eq!(get(httpd, "/read", &cookie).text(), "4");
    let engine = if httpd.site.text().contains("DroverSession memory") { "memory" } else { "disk" };
    assert_eq!(get(httpd, "/state", &cookie).text(), format!("{id} False {engine}"));
});

engine_test!(an_id_that_is_not_ours_is_never_adopted, |site| site, |httpd| {
    let unknown = "0123456789abcdef0123456789abcdef01234567";
    for id in [unknown, "", "a", "../../../etc/passwd", "%00", &"f".repeat(4000)] {
        let answer = get(httpd, "/count", &format!("{NAME}={id}"));
        assert_eq!(answer.text(), "1");
        assert!(!cookie(&answer).contains(id) || id.len() < 2, "{id}");
    }
});

engine_test!(another_id_after_login_and_none_after_logout, |site| site, |httpd| {
    let before = begin(httpd);
    let answer = get(httpd, "/login?name=me", &before);
    let after = cookie(&answer);
    assert_eq!(answer.text(), "1", "the data stay");
    assert_ne!(before, after);
    assert_eq!((get(httpd, "/read", &before).text(), get(httpd, "/read", &after).text()), ("none".into(), "1".into()));
    let gone = get(httpd, "/logout", &after);
    assert!(gone.header("set-cookie").is_some_and(|c| c.contains("Max-Age=0")), "{gone:?}");
    assert_eq!(get(httpd, "/read", &after).text(), "none");
});

engine_test!(all_clients_count_to_the_exact_end, |site| site, |httpd| {
    let cookie = begin(httpd);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..25).for_each(|_| assert_eq!(get(httpd, "/count", &cookie).status, 200)));
        }
    });
    assert_eq!(get(httpd, "/read", &cookie).text(), "201");
});

engine_test!(
    who_holds_a_session_too_long_costs_others_503_but_not_readers,
    |site| site.config("DroverSessionLockTimeout 1").expect_log("DROVER0070*longer than DroverSessionLockTimeout"),
    |httpd| {
        let (holding, go_on) = (httpd.gate("holding"), httpd.gate("go-on"));
        let cookie = begin(httpd);
        std::thread::scope(|scope| {
            let held = scope.spawn(|| get(httpd, "/hold", &cookie));
            holding.reached();
            assert_eq!(get(httpd, "/read", &cookie).text(), "1", "reading takes no lock");
            begin(httpd); // nor is another session waited for
            let refused = get(httpd, "/count", &cookie);
            assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")));
            go_on.open(1);
            assert_eq!(held.join().expect("client").text(), "2");
        });
        assert_eq!(get(httpd, "/count", &cookie).text(), "3");
    }
);

engine_test!(
    a_killed_worker_holds_nothing,
    |site| site.daemon("processes=1 threads=4").expect_log("DROVER0053").expect_log("DROVER02*signal 9"),
    |httpd| {
        let (holding, _go_on) = (httpd.gate("holding"), httpd.gate("go-on"));
        let cookie = begin(httpd);
        std::thread::scope(|scope| {
            let held = scope.spawn(|| httpd.request("POST", "/hold").header("Cookie", &cookie).body("x").send().status);
            holding.reached();
            httpd.signal(httpd.workers()[0].pid, Signal::KILL);
            assert_eq!(held.join().expect("client"), 502);
        });
        assert_eq!(get(httpd, "/count", &cookie).text(), "2", "what was not saved is not there, and nothing is held");
    }
);

mpm_test!(a_killed_child_of_httpd_holds_nothing, |site| {
    let httpd = self::site(site, "disk").start();
    let (holding, go_on) = (httpd.gate("holding"), httpd.gate("go-on"));
    let cookie = begin(&httpd);
    std::thread::scope(|scope| {
        let held = scope.spawn(|| httpd.request("GET", "/hold").header("Cookie", &cookie).attempt().map(drop).map_err(drop));
        holding.reached();
        let (parent, droverd) = (httpd.pid(), httpd.droverd().pid);
        for child in processes::all().into_iter().filter(|p| p.parent == parent && p.pid != droverd) {
            httpd.signal(child.pid, Signal::KILL);
        }
        assert_eq!(held.join().expect("client"), Err(()));
    });
    go_on.open(1);
    let count = || Request::new(httpd.site.port, "GET", "/count").header("Cookie", &cookie).attempt();
    until("the session", || count().is_ok_and(|a| a.status == 200 && a.text() != "1"));
});

engine_test!(no_session_is_lost_at_graceful, |site| site, |httpd| {
    let (stop, answers, port) = (AtomicBool::new(false), AtomicUsize::new(0), httpd.site.port);
    let cookies: Vec<String> = (0..4).map(|_| begin(httpd)).collect();
    let bad: Vec<String> = std::thread::scope(|scope| {
        let (stop, answers) = (&stop, &answers);
        let client = |cookie: &'static str| {
            scope.spawn(move || {
                let mut n = 1;
                while !stop.load(Ordering::Relaxed) {
                    let answer = Request::new(port, "GET", "/count").header("Cookie", cookie).attempt();
                    let found = answer.map_or_else(|e| e.to_string(), |a| a.text());
                    n += 1;
                    if found != n.to_string() {
                        return Some(format!("{found:?}, not {n}"));
                    }
                    answers.fetch_add(1, Ordering::Relaxed);
                }
                None
            })
        };
        let clients: Vec<_> = cookies.iter().map(|c| client(Box::leak(c.clone().into_boxed_str()))).collect();
        for _ in 0..4 {
            let before = answers.load(Ordering::Relaxed);
            httpd.graceful();
            until("answers go on", || answers.load(Ordering::Relaxed) > before + 40 || clients.iter().any(|c| c.is_finished()));
        }
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().filter_map(|c| c.join().expect("client")).collect()
    });
    assert!(bad.is_empty(), "{bad:?}");
});

engine_test!(sessions_survive_a_restart, |site| site, |httpd| {
    let cookie = begin(httpd);
    httpd.restart();
    assert_eq!(get(httpd, "/count", &cookie).text(), "2");
});

engine_test!(a_session_ends_by_itself, |site| site, |httpd| {
    let cookie = self::cookie(&httpd.get("/short"));
    until("its end", || {
        // The time of a question counts as use only when it has moved by a second.
        get(httpd, "/state", &cookie).text().contains("None True")
    });
    assert_eq!(get(httpd, "/count", &cookie).text(), "1");
});

/// Where the sessions of a group lie.
fn store_of(httpd: &Httpd, group: &str) -> PathBuf {
    httpd.site.dir().join("sessions").join(id::directory_name(format!("group\0{group}").as_bytes()))
}

mpm_test!(a_writer_that_does_not_come_to_an_end_costs_others_503_but_not_readers, |site| {
    let site = self::site(site, "disk").expect_log(&format!("DROVER0070*process {} writes to it for more than 5s", std::process::id()));
    let httpd = site.start();
    let cookie = begin(&httpd);
    let store_locks = store_locks::StoreLocks::open(&store_of(&httpd, "app"), store_locks::PATIENCE).expect("store_locks");
    let turn = store_locks.writer(&Stop::never()).expect("the turn");
    let refused = get(&httpd, "/count", &cookie);
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")));
    assert_eq!(get(&httpd, "/read", &cookie).text(), "1", "reading waits for no writer");
    drop(turn);
    assert_eq!(get(&httpd, "/count", &cookie).text(), "2");
});

engine_test!(
    expired_sessions_of_a_group_that_is_gone_are_removed,
    |site| site.config(
        "<IfDefine !GONE>\nWSGIDaemonProcess other python-path=@apps@\n\
         WSGIScriptAlias /other @apps@/sessions/plain.wsgi process-group=other application-group=%{GLOBAL}\n</IfDefine>"
    ),
    |httpd| {
        let cookies = [(); 2].map(|()| cookie(&httpd.get("/other/count")));
        httpd.reconfigure(|site| site.head("Define GONE"));
        httpd.restart();
        // One of them was used last a day ago, and nobody has looked for as long as that is allowed.
        let directory = store_of(httpd, "other");
        let limits = Limits { disk_bytes: 1 << 30, memory_bytes: 1 << 20, data_bytes: 1 << 20, always_sync: false };
        let open = || Sessions::disk(&directory, limits, &Stop::never(), &|_| {}).expect("store");
        let name = cookies[0].split('=').nth(1).expect("a name");
        let key = Key::named(b"group\0other", name.as_bytes()).expect("a key");
        let (store, now) = (open(), drover_sys::clock::realtime_ns() / 1_000_000);
        let mut record = store.load(&key, now).expect("store").expect("a session");
        record.accessed_ms -= 86_400_000;
        store.put(&key, &record, Put::Replace, now).expect("stored");
        assert_eq!(store.figures().expect("figures").sessions, 2);
        drop(store);
        let locks = std::fs::File::open(directory.join("locks")).expect("locks");
        locks.set_modified(std::time::SystemTime::now() - orphan::ORPHANED_AFTER).expect("a time");
        begin(httpd);
        until("its end", || open().figures().expect("figures").sessions == 1);
        let is_mapped =
            |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/maps")).is_ok_and(|maps| maps.contains(&*directory.to_string_lossy()));
        until("the store to be closed", || !httpd.family().iter().any(|process| is_mapped(process.pid)));
        assert!(locks.metadata().expect("locks").modified().expect("a time").elapsed().is_ok_and(|since| since < orphan::ORPHANED_AFTER));
    }
);

mpm_test!(groups_and_hosts_do_not_see_each_others_sessions, |site| {
    let site = self::site(site, "disk").config(
        "WSGIDaemonProcess other python-path=@apps@\nDroverSessionCookie name=s secure=On max-age=60\n\
         WSGIScriptAlias /other @apps@/sessions/plain.wsgi process-group=other application-group=%{GLOBAL}\n\
         <VirtualHost *:@port@>\nServerName first\nDroverSessionScope shared\n</VirtualHost>\n\
         <VirtualHost *:@port@>\nServerName second\nDroverSessionScope shared\n</VirtualHost>\n\
         <VirtualHost *:@port@>\nServerName third\nDroverSessionScope vhost\n</VirtualHost>\n\
         <VirtualHost *:@port@>\nServerName fourth\n</VirtualHost>",
    );
    let httpd = site.start();
    let ask = |host: &str, path: &str, cookie: &str| httpd.request("GET", path).header("Host", host).header("Cookie", cookie).send();
    let answer = ask("first", "/count", "");
    assert!(answer.header("set-cookie").is_some_and(|c| c.contains("; Secure") && c.contains("Max-Age=60")));
    let cookie = self::cookie(&answer);
    assert_eq!(ask("second", "/other/count", &cookie).text(), "2", "of one name");
    assert_eq!(ask("third", "/count", &cookie).text(), "1");
    assert_eq!(ask("fourth", "/count", &cookie).text(), "1");
    let of_app = self::cookie(&ask("fourth", "/count", ""));
    assert_eq!((ask("fourth", "/read", &of_app).text(), ask("fourth", "/other/read", &of_app).text()), ("1".into(), "none".into()));
    let of_host = self::cookie(&ask("third", "/count", ""));
    assert_eq!(ask("third", "/other/count", &of_host).text(), "2", "both groups of one host");
});

engine_test!(a_cookie_with_an_end_slides_with_its_session, |site| site.config("DroverSessionCookie max-age=600"), |httpd| {
    let cookie = begin(httpd);
    let answer = get(httpd, "/count", &cookie);
    let given = answer.header("set-cookie").expect("the cookie, given anew");
    assert!(given.starts_with(&cookie) && given.contains("Max-Age=600"), "{given}");
    assert_eq!(get(httpd, "/read", &cookie).header("set-cookie"), None, "not with every use");
});

mpm_test!(two_groups_on_one_host_keep_out_of_each_others_way, |site| {
    let site = self::site(site, "disk").config(
        "WSGIDaemonProcess other python-path=@apps@\n\
         WSGIScriptAlias /other @apps@/sessions/plain.wsgi process-group=other application-group=%{GLOBAL}",
    );
    let httpd = site.start();
    let both = format!("{}; {}", begin(&httpd), cookie(&httpd.get("/other/count")));
    for n in 2..5 {
        for path in ["/count", "/other/count"] {
            let answer = get(&httpd, path, &both);
            assert_eq!((answer.text(), answer.header("set-cookie")), (n.to_string(), None), "{path}");
        }
    }
});

engine_test!(what_other_applications_set_is_no_matter, |site| site, |httpd| {
    let cookie = begin(httpd);
    let foreign = [b"who=Jos\xe9; odd=\"; =; ", cookie.as_bytes(), b"; more=\xff"].concat();
    assert_eq!(httpd.request("GET", "/count").header("Cookie", foreign).send().text(), "2");
});

engine_test!(
    a_login_that_fails_afterwards_leaves_the_client_its_session,
    |site| site
        .expect_log("DROVER0060: group 'app': ValueError")
        .allow_log("Traceback|  File |    |ValueError: after the login|DROVER0066"),
    |httpd| {
        let cookie = begin(httpd);
        let failed = get(httpd, "/login_and_fail?name=x", &cookie);
        assert_eq!(failed.status, 500);
        let new = self::cookie(&failed);
        assert_eq!((get(httpd, "/count", &new).text().as_str(), get(httpd, "/read", &cookie).text().as_str()), ("2", "none"));
    }
);

engine_test!(what_was_answered_goes_out_while_a_session_is_waited_for, |site| site, |httpd| {
    let (cookie, holding, go_on) = (begin(httpd), httpd.gate("holding"), httpd.gate("go-on"));
    std::thread::scope(|scope| {
        let held = scope.spawn(|| get(httpd, "/hold", &cookie));
        holding.reached();
        let mut late = httpd.request("GET", "/late").header("Cookie", &cookie).open();
        assert_eq!(late.piece().expect("a piece").as_deref(), Some(&b"first\n"[..]));
        go_on.open(1);
        assert_eq!(held.join().expect("client").text(), "2");
        assert_eq!(late.finish(false).text(), "3\n");
    });
});

mpm_test!(sizes_are_bounded_and_the_old_value_stays, |site| {
    let site = self::site(site, "disk").config("DroverSessionDiskSize 1M\nDroverSessionMaxSize 300K");
    let site = site.expect_log("TooLarge").expect_log("DROVER0070*full").expect_log("NotSerializable*'odd'");
    let httpd = site.allow_log("DROVER0060").allow_output().start();
    let cookie = begin(&httpd);
    assert_eq!(get(&httpd, "/large?size=400000", &cookie).status, 500);
    assert_eq!(get(&httpd, "/odd", &cookie).status, 500);
    assert_eq!(get(&httpd, "/count", &cookie).text(), "2");
    assert!((0..20).any(|_| is_full(&httpd, "")), "1 MiB takes it all");
    assert_eq!(get(&httpd, "/read", &cookie).text(), "2");
});

engine_test!(
    a_group_that_fills_its_store_leaves_room_to_the_others,
    |site| {
        let site = site.config(
            "DroverSessionDiskSize 1M\nDroverSessionMemory 1M\nWSGIDaemonProcess other python-path=@apps@\n\
             WSGIScriptAlias /other @apps@/sessions/plain.wsgi process-group=other application-group=%{GLOBAL}",
        );
        site.expect_log("DROVER0070*full").allow_log(
            "Traceback|  File |    |DROVER0060|mod_drover.session.|During handling|The above exception|DROVER0011*written to disk",
        )
    },
    |httpd| {
        assert!((0..40).any(|_| is_full(httpd, "/other")), "1 MiB takes it all");
        let cookie = begin(httpd);
        assert_eq!(get(httpd, "/large?size=200000", &cookie).status, 200);
        assert!((0..40).any(|_| is_full(httpd, "/other")), "still");
    }
);

/// Makes a large session and uses it again, so that it is not evicted; whether there was no room for it.
fn is_full(httpd: &Httpd, below: &str) -> bool {
    let answer = httpd.get(&format!("{below}/large?size=200000"));
    if answer.status == 503 {
        return true;
    }
    let again = get(httpd, &format!("{below}/count"), &cookie(&answer));
    assert_eq!((answer.status, again.status), (200, 200));
    false
}

engine_test!(
    clients_without_cookies_cost_nobody_his_session,
    |site| site.config("DroverSessionDiskSize 1M\nDroverSessionMemory 1M").expect_log("DROVER0011*is full*evicted"),
    |httpd| {
        let cookie = begin(httpd);
        assert_eq!(get(httpd, "/count", &cookie).text(), "2");
        for n in 3..43 {
            assert_eq!(httpd.get("/large?size=100000").status, 200);
            assert_eq!(get(httpd, "/count", &cookie).text(), n.to_string());
        }
    }
);

mpm_test!(a_damaged_store_is_moved_aside, |site| {
    let httpd = self::site(site, "disk").expect_log("DROVER0011*damaged").start();
    let cookie = begin(&httpd);
    let sessions = httpd.site.dir().join("sessions");
    let scope = std::fs::read_dir(sessions).expect("directory").flatten().find(|e| e.file_name().to_string_lossy().starts_with("scope-"));
    let scope = scope.expect("a scope").path();
    let data = scope.join("store/data.mdb");
    std::fs::OpenOptions::new().write(true).open(&data).expect("store").set_len(100).expect("cut");
    assert_eq!(get(&httpd, "/count", &cookie).text(), "1", "begun anew");
    let aside = std::fs::read_dir(scope).expect("directory").flatten();
    assert_eq!(aside.filter(|e| e.file_name().to_string_lossy().starts_with("store.damaged-")).count(), 1);
    for _ in 0..10 {
        begin(&httpd); // in whichever child
    }
});

mpm_test!(what_was_chosen_is_said_and_the_store_is_httpds_alone, |site| {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let site = site.app("/", "sessions/plain.wsgi").modules("log_config").config("CustomLog @logs@/access.log %{drover-session-id}n");
    let site = if site.mpm == Mpm::Prefork { site } else { site.config(ONE_CHILD) };
    let kept = if site.mpm == Mpm::Prefork {
        "disk (chosen because the MPM is not threaded"
    } else {
        "memory (chosen because the MPM is threaded"
    };
    let httpd = site.start();
    let cookie = begin(&httpd);
    httpd.wait_log(&format!("DROVER0010: sessions are kept in: {kept}*"));
    assert_eq!(get(&httpd, "/count", &cookie).text(), "2");
    let mut status = std::process::Command::new(crate::harness::paths::drover());
    let said = status.arg("status").arg("--socket").arg(httpd.site.dir().join("run/drover.sock")).output().expect("drover").stdout;
    assert!(String::from_utf8_lossy(&said).contains(&format!("sessions are kept in: {kept}")), "{}", String::from_utf8_lossy(&said));
    let directory = httpd.site.dir().join("sessions");
    assert!(String::from_utf8_lossy(&said).contains(&format!("below {}", directory.display())), "{}", String::from_utf8_lossy(&said));
    let directory = std::fs::metadata(httpd.site.dir().join("sessions")).expect("directory");
    assert_eq!(directory.permissions().mode() & 0o7777, 0o700);
    assert_eq!(directory.uid() == 0, !crate::harness::site::is_root(), "httpd's user owns it");
    httpd.get("/read");
    let logs = httpd.logs();
    until("the log", || logs.file("access.log").lines().count() == 3);
    let lines: Vec<String> = logs.file("access.log").lines().map(str::to_owned).collect();
    assert!(lines[0].len() == 16 && lines[0] == lines[1] && lines[2] == "-" && !cookie.contains(&lines[0]), "{lines:?}");
});

mpm_test!(where_sessions_are_kept_is_logged_where_they_are_configured_or_used, |site| {
    let (subject, mpm) = (site.subject, site.mpm);
    let new = || Site::new(subject, mpm, "said").app("/session", "sessions/plain.wsgi").app("/", "hello.wsgi");
    let configured = new().config("DroverSessionTimeout 60").start();
    assert!(configured.log().contains("DROVER0010: sessions are kept in: "), "at start");
    drop(configured);
    let httpd = new().start();
    httpd.ok("/");
    assert!(!httpd.log().contains("DROVER0010"), "nobody has configured or used a session");
    for _ in 0..3 {
        assert_eq!(httpd.ok("/session/count"), "1");
    }
    httpd.wait_log("DROVER0010: sessions are kept in: ");
    assert_eq!(httpd.log().matches("DROVER0010").count(), 1);
});

mpm_test!(sessions_can_be_off, |site| {
    let site = site.app("/", "sessions/plain.wsgi").config("DroverSession off").expect_log("SessionsOff|KeyError");
    let httpd = site.allow_log("DROVER0060").allow_output().start();
    assert_eq!(httpd.get("/count").status, 500);
    assert!(!httpd.site.dir().join("sessions").exists());
});

mpm_test!(memory_is_refused_where_children_do_not_share_it, |site| {
    let site = site.app("/", "sessions/plain.wsgi").config("DroverSession memory");
    let out = std::process::Command::new(crate::harness::paths::httpd()).arg("-f").arg(site.write_config()).arg("-DFOREGROUND").output();
    assert!(!out.expect("httpd").status.success());
    let said = site.logs().all();
    assert!(said.is_empty(), "refused before a log is opened: {said}");
    site.refused(&["DROVER0013: DroverSession memory: the MPM is", "children at most", "Use auto or disk", "(@dir@/httpd.conf:"]);
});

mpm_test!(sessions_that_cannot_be_had_are_refused_and_do_not_end_a_running_server, |site| {
    let mut httpd = self::site(site, "disk").start();
    let cookie = begin(&httpd);
    let cases = [
        ("DroverSession memory", "DROVER0013: DroverSession memory: the MPM is", "DroverSession auto", Some("2")),
        ("DroverSession socache:shmcb", "DROVER0013: DroverSession socache:shmcb: provider not loaded; load", "gets 503", None),
        (
            "DroverSession disk\nDroverSessionDirectory @dir@/httpd.conf",
            "DROVER0013: DroverSessionDirectory @dir@/httpd.conf",
            "gets 503",
            None,
        ),
        ("DroverSessionDirectory @dir@/httpd.conf/x", "DROVER0013: DroverSessionDirectory @dir@/httpd.conf/x", "gets 503", None),
    ];
    for (lines, said, instead, count) in cases {
        httpd.reconfigure(|site| site.config(lines));
        httpd.site.refused(&[said, "(@dir@/httpd.conf:"]);
        // apachectl would have asked; who signals all the same still has a server.
        httpd.expect_log(&format!("crit*{said}*{instead}"));
        httpd.graceful();
        until("the new configuration", || httpd.log().contains(&httpd.site.fill(said)));
        match count {
            Some(n) => assert_eq!(get(&httpd, "/count", &cookie).text(), n, "{lines}"),
            // A child process with the old configuration may still respond at first.
            None => until(lines, || {
                let response = get(&httpd, "/read", &cookie);
                (response.status, response.header("retry-after")) == (503, Some("5"))
            }),
        }
        httpd.site =
            std::mem::replace(&mut httpd.site, Site::new(crate::harness::Subject::Ours, Mpm::Event, "spare")).allow_log("DROVER0070");
    }
    httpd.reconfigure(|site| site.config("DroverSessionDirectory @dir@/sessions"));
    httpd.graceful();
    until("the old store", || get(&httpd, "/count", &cookie).status == 200);
    assert_eq!(get(&httpd, "/read", &cookie).text(), "3", "nothing was lost meanwhile");
});

mpm_test!(sessions_that_nobody_asks_for_do_not_keep_httpd_from_starting, |site| {
    let site = site.app("/plain", "sessions/plain.wsgi").app("/", "hello.wsgi");
    if crate::harness::site::is_root() {
        let directory = site.dir().join("sessions");
        std::fs::create_dir(&directory).expect("directory");
        std::os::unix::fs::chown(&directory, Some(65532), None).expect("chown");
    } else {
        std::fs::write(site.dir().join("sessions"), "").expect("file");
    }
    let line = "warn*DROVER0013: DroverSessionDirectory @dir@/sessions: sessions cannot be kept there: it *DroverSession off";
    let httpd = site.expect_log(line).allow_log("DROVER0013|DROVER0070").start();
    httpd.ok("/");
    assert_eq!(httpd.get("/plain/count").status, 503);
    httpd.ok("/");
});

event_test!(sessions_that_are_asked_for_are_refused_by_the_check, |site| {
    std::fs::write(site.dir().join("sessions"), "").expect("file");
    site.config("DroverSession auto")
        .refused(&["DROVER0013: DroverSessionDirectory @dir@/sessions: sessions cannot be kept there: it is not"]);
});
