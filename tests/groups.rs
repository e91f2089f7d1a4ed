//! Daemon groups: who their processes are, which interpreter they run, and that two applications do not meet.
//!
//! Responsible for: the options of WSGIDaemonProcess that a process can see. Called by: `main.rs`.
use crate::harness::{Httpd, paths, processes, site, until};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

fn id(what: &str, name: &str) -> u64 {
    let text = String::from_utf8_lossy(&Command::new("id").args([what, name]).output().expect("id").stdout).into_owned();
    text.trim().parse().expect("number")
}

fn process(httpd: &Httpd, path: &str) -> Value {
    httpd.get(path).json()
}

fn home_of(user: &str) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").expect("passwd");
    let line = passwd.lines().find(|line| line.starts_with(&format!("{user}:"))).expect("the user");
    line.split(':').nth(5).expect("home").into()
}

both_test!(a_process_runs_where_httpd_does, |site| {
    // As in a container, where httpd runs in the foreground in the image's directory.
    let httpd = site.directory("@apps@").environment("HOME", "/root").app("/", "process.wsgi").start();
    let told = process(&httpd, "/");
    assert_eq!(told["cwd"], httpd.site.apps().display().to_string());
    if site::is_root() {
        assert_eq!(told["environ"]["HOME"], home_of(site::user()), "not root's");
    }
});

mpm_test!(where_the_user_may_not_be_is_the_root_instead, |site| {
    if !site::is_root() {
        return;
    }
    let private = site.dir().join("private");
    std::fs::create_dir(&private).expect("directory");
    std::fs::set_permissions(&private, PermissionsExt::from_mode(0o700)).expect("mode");
    let httpd = site.directory("@dir@/private").app("/", "process.wsgi").start();
    assert_eq!(process(&httpd, "/")["cwd"], "/");
});

both_test!(user_group_and_umask, |site| {
    let httpd = site.daemon("user=nobody home=/ group=www-data umask=0027 supplementary-groups=www-data,daemon").app("/", "process.wsgi");
    let httpd = httpd.allow_log("DROVER0009").start();
    let told = process(&httpd, "/");
    if !site::is_root() {
        // Only root can change users; who is not root stays who they are, and is told so.
        assert_eq!((told["uid"].as_u64(), told["umask"].as_u64()), (Some(rustix::process::getuid().as_raw().into()), Some(0o027)));
        return;
    }
    assert_eq!((told["uid"].as_u64(), told["gid"].as_u64()), (Some(id("-u", "nobody")), Some(id("-g", "www-data"))));
    assert_eq!(told["umask"], 0o027);
    let mut groups = vec![id("-g", "www-data"), id("-g", "daemon")];
    groups.sort();
    let mut found: Vec<_> = told["groups"].as_array().expect("list").iter().filter_map(Value::as_u64).collect();
    found.dedup();
    assert_eq!(found, groups);
    assert_eq!(told["environ"]["HOME"], "/nonexistent");
    if !httpd.site.theirs() {
        assert_eq!((told["environ"]["USER"].as_str(), told["environ"]["LOGNAME"].as_str()), (Some("nobody"), Some("nobody")));
    }
    let pid = told["pid"].as_i64().expect("pid") as i32;
    assert!(processes::status(pid, "CapEff").trim_start_matches('0').is_empty(), "no capabilities are left");
});

both_test!(home_language_and_priority, |site| {
    let site = site.daemon("processes=1 threads=2 home=@apps@ lang=C.UTF-8 locale=C.UTF-8 cpu-priority=3").app("/", "process.wsgi");
    let httpd = site.start();
    let told = process(&httpd, "/");
    let apps = httpd.site.apps().display().to_string();
    assert_eq!(told["cwd"], apps);
    assert_eq!(told["path"][0], apps, "home is first in sys.path");
    if site::is_root() {
        assert_eq!(told["environ"]["HOME"], home_of(site::user()), "home= is where the process runs, HOME is its user's");
    }
    assert_eq!(
        (told["environ"]["LANG"].as_str(), told["environ"]["LC_ALL"].as_str(), told["nice"].as_i64()),
        (Some("C.UTF-8"), Some("C.UTF-8"), Some(3))
    );
});

both_test!(display_name, |site| {
    let httpd = site.daemon("processes=1 threads=2 display-name=%{GROUP}").app("/", "process.wsgi").start();
    let pid = process(&httpd, "/")["pid"].as_i64().expect("pid") as i32;
    assert!(processes::process(pid).expect("process").command.starts_with("(wsgi:app)"));
});

both_test!(python_path_comes_first, |site| {
    let site = site.script("lib/marker_one.py", "").script("lib2/marker_two.py", "").daemon("python-path=@apps@/lib:@apps@/lib2:@apps@");
    let site = site.script(
        "m.wsgi",
        "import marker_one, marker_two\nfrom runpy import run_path\napplication = run_path('@apps@/process.wsgi')['application']\n",
    );
    let httpd = site.app("/", "m.wsgi").start();
    let told = process(&httpd, "/");
    let path: Vec<_> = told["path"].as_array().expect("list").iter().filter_map(|p| p.as_str()).take(2).collect();
    assert!(path[0].ends_with("/lib") && path[1].ends_with("/lib2"), "{path:?}");
    assert_eq!(told["modules"], serde_json::json!(["marker_one", "marker_two"]));
});

both_test!(what_a_pth_file_names_follows_its_directory, |site| {
    let site = site.script("lib/one.pth", "@apps@/named\n").script("named/which.py", "WHICH = 'named'\n");
    let site = site.script("lib2/which.py", "WHICH = 'second'\n").daemon("python-path=@apps@/lib:@apps@/lib2");
    let httpd = site
        .script("m.wsgi", "import which\ndef application(e, s):\n    s('200 OK', [])\n    return [which.WHICH.encode()]\n")
        .app("/", "m.wsgi")
        .start();
    assert_eq!(httpd.ok("/"), "named");
});

both_test!(two_applications_of_one_group_do_not_meet, |site| {
    let script = |mark: &str| {
        format!(
            "import sys, builtins\nsys.modules['marker_{mark}'] = sys\nbuiltins.seen = getattr(builtins, 'seen', '') + '{mark}'\n\
        def application(e, s):\n    s('200 OK', [])\n    return [(builtins.seen + ' ' + ' '.join(m for m in sys.modules if m.startswith('marker'))).encode()]\n"
        )
    };
    let site = site
        .bare()
        .script("a.wsgi", &script("a"))
        .script("b.wsgi", &script("b"))
        .config("WSGIDaemonProcess app processes=1 threads=2\nWSGIProcessGroup app");
    let httpd = site.app("/a", "a.wsgi").app("/b", "b.wsgi").start();
    for _ in 0..3 {
        assert_eq!((httpd.ok("/a"), httpd.ok("/b")), ("a marker_a".into(), "b marker_b".into()));
    }
});

both_test!(two_scripts_of_one_application_group_share_a_process, |site| {
    let httpd = site.script("second.wsgi", "from runpy import run_path\napplication = run_path('@apps@/process.wsgi')['application']\n");
    let httpd = httpd.app("/a", "process.wsgi").app("/b", "second.wsgi").start();
    assert_eq!(process(&httpd, "/a")["pid"], process(&httpd, "/b")["pid"]);
});

both_test!(light_load_stays_on_few_processes, |site| {
    let httpd = site.daemon("processes=3 threads=2").app("/", "process.wsgi").start();
    let pids: std::collections::BTreeSet<_> = (0..20).map(|_| process(&httpd, "/")["pid"].as_i64()).collect();
    assert!(!pids.is_empty());
    if !httpd.site.theirs() {
        until("all three are ready", || httpd.log().matches("DROVER0230").count() == 3);
        let mut served = std::collections::BTreeMap::<_, u32>::new();
        (0..60).for_each(|_| *served.entry(process(&httpd, "/")["pid"].as_i64()).or_default() += 1);
        // A process that has answered may not be waiting again yet when the next request comes: then that one goes elsewhere.
        assert!(served.values().max() > Some(&30), "one client at a time needs one process most of the time: {served:?}");
    }
});

mpm_test!(requests_spread_when_a_process_is_busy, |site| {
    let site = site.daemon("processes=2 threads=1").app("/hang", "fail.wsgi").app("/", "process.wsgi");
    let (hanging, go_on) = (site.gate("hanging"), site.gate("go-on"));
    let httpd = site.start();
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| httpd.get("/hang/hang"));
        hanging.reached();
        for _ in 0..10 {
            assert_eq!(httpd.get("/").status, 200);
        }
        go_on.open(1);
        assert_eq!(busy.join().expect("thread").status, 200);
    });
});

mpm_test!(threads_of_a_process_run_at_once_and_one_means_one, |site| {
    let site = site.bare().config(
        "WSGIDaemonProcess four processes=1 threads=4 python-path=@apps@\nWSGIDaemonProcess one processes=1 threads=1 python-path=@apps@",
    );
    let site = site.config("WSGIScriptAlias /four @apps@/fail.wsgi process-group=four application-group=%{GLOBAL}");
    let site = site.config("WSGIScriptAlias /one @apps@/fail.wsgi process-group=one application-group=%{GLOBAL}");
    let (hanging, go_on) = (site.gate("hanging"), site.gate("go-on"));
    let httpd = site.start();
    std::thread::scope(|scope| {
        let four: Vec<_> = (0..4).map(|_| scope.spawn(|| httpd.get("/four/hang"))).collect();
        for _ in &four {
            hanging.reached();
        }
        go_on.open(4);
        let pids: std::collections::BTreeSet<_> = four.into_iter().map(|t| t.join().expect("thread").text()).collect();
        assert_eq!(pids.len(), 1);
        let first = scope.spawn(|| httpd.get("/one/hang"));
        hanging.reached();
        let second = scope.spawn(|| httpd.get("/one/hang"));
        go_on.open(1);
        assert_eq!(first.join().expect("thread").status, 200);
        hanging.reached();
        go_on.open(1);
        assert_eq!(second.join().expect("thread").status, 200);
    });
});

/// Every CPython that the tests may use; `scripts/pythons.sh` lists them.
pub fn pythons() -> Vec<PathBuf> {
    let list = paths::shared().join("pythons/list");
    let text = std::fs::read_to_string(&list).unwrap_or_else(|e| panic!("{}: {e}; run: make deps", list.display()));
    text.lines().map(PathBuf::from).collect()
}

/// A copied interpreter looks for its library where it was built, which the workers' user may not be able to read: LD_LIBRARY_PATH.
pub fn libraries(pythons: &[PathBuf]) -> String {
    let lib = |p: &PathBuf| Some(p.parent()?.parent()?.join("lib").display().to_string());
    pythons.iter().filter_map(lib).filter(|d| d != "/usr/lib").collect::<Vec<_>>().join(":")
}

fn venv(httpd: &crate::harness::Site, python: &PathBuf, name: &str) -> PathBuf {
    let dir = httpd.dir().join(name);
    let made = Command::new(python).args(["-m", "venv", "--without-pip"]).arg(&dir).output().expect("venv");
    assert!(made.status.success(), "{}: {}", python.display(), String::from_utf8_lossy(&made.stderr));
    std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o755)).expect("mode");
    let lib = std::fs::read_dir(dir.join("lib")).expect("lib").flatten().next().expect("python3.x").path();
    std::fs::write(lib.join(format!("site-packages/marker_{name}.py")), "").expect("marker");
    dir
}

mpm_test!(every_python_of_the_machine_at_once, |site| {
    let pythons = pythons();
    assert!(!pythons.is_empty());
    let mut text = String::new();
    let mut venvs = Vec::new();
    for (i, python) in pythons.iter().enumerate() {
        let name = format!("v{i}");
        let dir = venv(&site, python, &name);
        text += &format!("WSGIDaemonProcess {name} processes=1 threads=2 python-home={}\n", dir.display());
        text += &format!("WSGIScriptAlias /{name} @apps@/{name}.wsgi process-group={name} application-group=%{{GLOBAL}}\n");
        site.write(
            &format!("{name}.wsgi"),
            &format!("import marker_{name}\nfrom runpy import run_path\napplication = run_path('@apps@/process.wsgi')['application']\n"),
        );
        venvs.push((name, dir, python));
    }
    let httpd = site.bare().config(&text).environment("LD_LIBRARY_PATH", &libraries(&pythons)).start();
    for (name, dir, python) in &venvs {
        let told = process(&httpd, &format!("/{name}"));
        let version = Command::new(python).args(["-c", "import sys; print(list(sys.version_info[:2]))"]).output().expect("version").stdout;
        assert_eq!(told["version"].to_string().replace(',', ", "), String::from_utf8_lossy(&version).trim());
        assert_eq!((told["prefix"].as_str(), &told["modules"]), (dir.to_str(), &serde_json::json!([format!("marker_{name}")])));
    }
});

mpm_test!(python_names_the_interpreter, |site| {
    let python = paths::system_python();
    let httpd = site.daemon(&format!("processes=1 python={}", python.display())).app("/", "process.wsgi").start();
    assert_eq!(process(&httpd, "/")["executable"].as_str(), python.to_str());
});

mpm_test!(workers_get_no_descriptor_that_is_not_theirs, |site| {
    let group =
        "WSGIDaemonProcess other processes=1 threads=2 python-path=@apps@\nWSGIScriptAlias /other @apps@/process.wsgi process-group=other";
    let httpd = site.config(group).app("/", "process.wsgi").start();
    let pid = process(&httpd, "/")["pid"].as_i64().expect("pid") as i32;
    process(&httpd, "/other");
    let mut sockets = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).expect("fd").flatten() {
        let target = std::fs::read_link(entry.path()).unwrap_or_default().display().to_string();
        assert!(!target.contains("httpd.pid") && !target.contains("httpd.conf"), "{target}");
        if let Some(inode) = target.strip_prefix("socket:[").and_then(|t| t.strip_suffix("]")) {
            sockets.push(inode.to_string());
        }
    }
    let tcp = std::fs::read_to_string("/proc/net/tcp").expect("tcp");
    let listener = tcp.lines().find(|l| l.contains(&format!(":{:04X} 00000000:0000 0A", httpd.site.port))).expect("listening socket");
    let inode = listener.split_whitespace().nth(9).expect("inode");
    assert!(!sockets.iter().any(|s| s == inode), "a worker holds httpd's listening socket");
});

both_test!(chosen_signals_do_not_kill_a_worker, |site| {
    let site = site.script("sig.wsgi", "import signal, subprocess, threading\ndef application(e, s):\n    \
        out = subprocess.run(['sh', '-c', 'kill -PIPE $$; echo survived'], capture_output=True)\n    s('200 OK', [])\n    return [str(out.returncode).encode()]\n");
    let httpd = site.app("/", "sig.wsgi").start();
    assert_eq!(httpd.ok("/"), "-13", "a program that the application starts has the usual signals");
});

/// The stack of the thread that runs the request, as the C library knows it.
const STACK: &str = "import ctypes, threading\nc = ctypes.CDLL(None)\nc.pthread_self.restype = ctypes.c_ulong\n\
def application(e, s):\n    attr, size = ctypes.create_string_buffer(256), ctypes.c_size_t()\n    \
assert c.pthread_getattr_np(ctypes.c_ulong(c.pthread_self()), attr) == 0\n    assert c.pthread_attr_getstacksize(attr, ctypes.byref(size)) == 0\n    \
s('200 OK', [])\n    return [b'%d' % size.value]\n";

both_test!(stack_size, |site| {
    for size in [524_288u64, 3 << 20] {
        let spare = crate::harness::Site::new(site.subject, site.mpm, "stack_size");
        let httpd =
            spare.script("stack.wsgi", STACK).daemon(&format!("processes=1 threads=2 stack-size={size}")).app("/", "stack.wsgi").start();
        assert_eq!(httpd.ok("/").parse::<u64>(), Ok(size));
    }
});

mpm_test!(a_locale_that_is_not_installed_is_told_with_a_code, |site| {
    let site =
        site.daemon("processes=1 threads=2 locale=xx_YY").app("/", "process.wsgi").expect_log("DROVER0400*locale xx_YY is not installed");
    let httpd = site.start();
    httpd.ok("/");
    assert!(!httpd.log().contains("mod_drover worker"));
});

both_test!(locale_is_set, |site| {
    let group =
        "WSGIDaemonProcess plain processes=1 threads=2 locale=C python-path=@apps@\n<Location /plain>\nWSGIProcessGroup plain\n</Location>";
    let site = site.daemon("processes=1 threads=2 locale=C.UTF-8 lang=nowhere").config(group);
    let httpd = site.app("/plain", "process.wsgi").app("/", "process.wsgi").start();
    let (utf8, plain) = (process(&httpd, "/"), process(&httpd, "/plain"));
    assert_eq!((utf8["locale"].as_str(), utf8["environ"]["LANG"].as_str()), (Some("C.UTF-8"), Some("nowhere")));
    assert_eq!((plain["locale"].as_str(), plain["environ"]["LC_ALL"].as_str()), (Some("C"), Some("C")));
});

/// A directory that a process can live in: Python with what it needs, the applications, and the parts of ours that a worker loads.
fn jail(site: &crate::harness::Site) -> PathBuf {
    let jail = site.dir().join("jail");
    let python = paths::system_python().canonicalize().expect("python");
    let extension = paths::prefix().join("lib/mod_drover");
    let list = format!(
        "set -e; python={}; lib=$($python -c 'import sysconfig; print(sysconfig.get_path(\"stdlib\"))'); \
         echo $python; find $lib -type f ! -path '*/test/*' ! -path '*-packages/*' ! -name '*.pyc'; find {} -type f; find {} -type f; \
         {{ ldd $python {}/_drover.abi3.so; ldd $lib/lib-dynload/*.so; }} | grep -o '/[^ :)]*' | sort -u",
        python.display(),
        extension.display(),
        site.apps().display(),
        extension.display()
    );
    std::fs::create_dir_all(jail.join("usr/bin")).expect("jail");
    for (link, to) in [("lib", "usr/lib"), ("lib64", "usr/lib64")] {
        std::fs::create_dir_all(jail.join(to)).expect("jail");
        std::os::unix::fs::symlink(to, jail.join(link)).expect("link");
    }
    let script =
        format!("({list}) | tar cf - --dereference --hard-dereference -P -T - | tar xf - -C {} --keep-directory-symlink", jail.display());
    let output = Command::new("sh").args(["-c", &script]).output().expect("sh");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let name = python.file_name().expect("name");
    let _ = std::os::unix::fs::symlink(name, jail.join("usr/bin/python3"));
    std::fs::write(jail.join("inside"), "").expect("mark");
    jail
}

both_test!(chroot, |site| {
    let script = "import os\ndef application(e, s):\n    s('200 OK', [])\n    inside = os.path.exists('/inside')\n    \
                  return [('%s %d %s %s' % (inside, os.getuid(), __file__, e['SCRIPT_FILENAME'])).encode()]\n";
    let jail = jail(&site);
    let (inside, directory) = (jail.join("srv/chroot.wsgi").display().to_string(), jail.display().to_string());
    std::fs::create_dir_all(jail.join("srv")).expect("directory");
    std::fs::write(&inside, script).expect("script");
    let options = format!("processes=1 threads=2 user=nobody home=/ python-path=/srv chroot={directory}");
    let site = site.daemon(&options).config(&format!("WSGIScriptAlias /inside {inside}")).app("/", "hello.wsgi");
    if !site::is_root() {
        // Only root can; who is not root stays outside and is told so.
        let httpd = site.expect_log("DROVER0009: httpd does not run as root").start();
        assert_eq!(httpd.ok("/inside"), format!("False {} {inside} {inside}", rustix::process::getuid().as_raw()));
        return;
    }
    // As in mod_wsgi, the configuration names the script as httpd sees it, and one that lies outside cannot be run.
    let site = site.expect_log("DROVER0033*hello.wsgi lies outside|WSGI0081: *hello.wsgi' is not located within chroot");
    let httpd = site.allow_log("WSGI0146: Daemon process 'app' closed connection").start();
    assert_eq!(httpd.ok("/inside"), format!("True {} /srv/chroot.wsgi /srv/chroot.wsgi", id("-u", "nobody")));
    assert_eq!(httpd.get("/").status, if httpd.site.theirs() { 502 } else { 500 });
});
