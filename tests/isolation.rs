//! What one group can do to another that runs as the same user.
//!
//! Responsible for: a worker being closed to other processes of its user, before any code of the application runs and however it was
//! started; and for that costing the application nothing it needs. Called by: `main.rs`.
use crate::harness::{Httpd, Site, site::is_root, until};

/// `/pid`: its number; `/spy?PID`: what it can do to another process; `/self`: what it can do with itself; `/rights`: its capabilities;
/// `/attack?PID,...`: kills those processes, and tries to open the memory of each that droverd starts then, until `/done`.
const SPY: &str = r#"
import ctypes, faulthandler, multiprocessing, os, signal, subprocess, sys, tempfile, threading

PTRACE_ATTACH, PTRACE_DETACH = 16, 17
libc = ctypes.CDLL(None, use_errno=True)

def can(what, action):
    try:
        return [what] if action() is not False else []
    except OSError:
        return []

def trace(pid):
    if libc.ptrace(PTRACE_ATTACH, pid, None, None) != 0:
        return False
    os.waitpid(pid, 0x40000000)
    libc.ptrace(PTRACE_DETACH, pid, None, None)

def take_a_descriptor(pid):
    fd = os.pidfd_open(pid)
    PIDFD_GETFD = 438
    return libc.syscall(PIDFD_GETFD, fd, 0, 0) >= 0

def spy(pid):
    found = can("list descriptors", lambda: os.listdir(f"/proc/{pid}/fd"))
    found += can("open a descriptor", lambda: os.readlink(f"/proc/{pid}/fd/0"))
    found += can("read memory", lambda: open(f"/proc/{pid}/mem", "rb").close())
    found += can("read the environment", lambda: open(f"/proc/{pid}/environ", "rb").read())
    found += can("take a descriptor", lambda: take_a_descriptor(pid))
    return found + can("trace", lambda: trace(pid))

done = threading.Event()

def attack(victims):
    old, opened = set(os.listdir("/proc")), set()
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    while not done.is_set():
        for pid in set(os.listdir("/proc")) - old - opened:
            try:
                if pid.isdigit():
                    os.close(os.open(f"/proc/{pid}/mem", os.O_RDWR))
                    with open(f"/proc/{pid}/stat") as stat:
                        if int(stat.read().rpartition(")")[2].split()[1]) == os.getppid():
                            opened.add(pid)
            except OSError:
                pass
    done.clear()
    return sorted(opened)

def rights():
    AT_SECURE = 23
    libc.getauxval.restype = ctypes.c_ulong
    libc.getauxval.argtypes = [ctypes.c_ulong]
    with open("/proc/self/status") as status:
        sets = [line.split() for line in status if line.startswith("Cap") and not line.startswith("CapBnd")]
    return [name for name, mask in sets if int(mask, 16) != 0] + ["AT_SECURE"] * libc.getauxval(AT_SECURE)

def child(pipe):
    pipe.send(len(os.listdir("/proc/self/fd")) > 0)

def itself():
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=child, args=(theirs,))
    process.start()
    forked = ours.recv()
    process.join()
    with tempfile.TemporaryFile() as stacks:
        faulthandler.dump_traceback(stacks)
    started = subprocess.run(["python3", "-c", "print(open('/proc/self/environ').read(1) != '')"], capture_output=True, text=True)
    return [
        len(os.listdir("/proc/self/fd")) > 3,
        bool(os.readlink("/proc/self/exe")),
        "Pss:" in open("/proc/self/smaps_rollup").read(),
        len(os.listdir("/proc/self/task")) > 0,
        forked,
        started.stdout.strip() == "True",
    ]

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/pid":
        body = str(os.getpid())
    elif path == "/spy":
        body = ", ".join(spy(int(environ["QUERY_STRING"])))
    elif path == "/attack":
        body = ", ".join(attack(map(int, environ["QUERY_STRING"].split(","))))
    elif path == "/done":
        done.set()
        body = ""
    elif path == "/rights":
        body = ", ".join(rights())
    else:
        body = "fine" if all(itself()) else str(itself())
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body.encode()]
"#;

const EVERYTHING: &str = "list descriptors, open a descriptor, read memory, read the environment, take a descriptor, trace";

/// Two groups of one user at `/victim` and `/spy`, with these options for the victim.
fn site(site: Site, options: &str) -> Site {
    let groups = format!(
        "WSGIDaemonProcess victim processes=1 threads=2 user=nobody home=/ {options}\nWSGIDaemonProcess spy processes=1 threads=2 user=nobody home=/\n\
         WSGIScriptAlias /v @apps@/spy.wsgi process-group=victim application-group=%{{GLOBAL}}\n\
         WSGIScriptAlias /s @apps@/spy.wsgi process-group=spy application-group=%{{GLOBAL}}"
    );
    site.bare().script("spy.wsgi", SPY).config(&groups)
}

both_test!(a_group_cannot_look_into_another_of_its_user, |site| {
    if !is_root() {
        return; // who cannot choose the groups' user has one that may do everything anyway, or none
    }
    let httpd = self::site(site, "").start();
    let victim = httpd.ok("/v/pid");
    assert_eq!(httpd.ok(&format!("/s/spy?{victim}")), "");
    assert_eq!(httpd.ok("/v/self"), "fine");
});

mpm_test!(a_forked_worker_and_its_fork_server_are_closed_too, |site| {
    if !is_root() {
        return;
    }
    let httpd = self::site(site, "preload=On").start();
    let victim = httpd.ok("/v/pid");
    assert_eq!(httpd.ok("/v/self"), "fine");
    let spy = httpd.ok("/s/pid");
    let others: Vec<_> = httpd.workers().into_iter().map(|p| p.pid.to_string()).filter(|pid| *pid != spy).collect();
    assert!(others.len() == 2 && others.contains(&victim), "{others:?}");
    for pid in others {
        assert_eq!(httpd.ok(&format!("/s/spy?{pid}")), "");
    }
});

mpm_test!(a_dumpable_group_is_open_to_its_user, |site| {
    if !is_root() {
        return;
    }
    for preload in ["", " preload=On"] {
        let site = Site::new(site.subject, site.mpm, module_path!());
        let httpd = self::site(site, &format!("dumpable=On{preload}")).start();
        let victim = httpd.ok("/v/pid");
        let yama = std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").is_ok_and(|scope| scope.trim() != "0");
        let found = httpd.ok(&format!("/s/spy?{victim}"));
        assert!(found == EVERYTHING || yama && found.starts_with("list descriptors"), "{found}");
        assert_eq!(httpd.ok("/v/self"), "fine");
    }
});

mpm_test!(a_worker_has_no_capability, |site| {
    for options in ["", "preload=On", "dumpable=On"] {
        let site = Site::new(site.subject, site.mpm, module_path!());
        let httpd = self::site(site, options).start();
        assert_eq!(httpd.ok("/v/rights"), "", "{options}");
        for process in httpd.workers() {
            let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid)).expect("status");
            for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                assert!(status.contains(&format!("{set}:\t0000000000000000\n")), "{options}: {status}");
            }
        }
    }
});

/// Whether droverd can give a worker the capability that keeps others out before its first line runs.
fn can_shield() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let bounds = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).expect("CapBnd");
    is_root() && u64::from_str_radix(bounds.trim(), 16).expect("hexadecimal") & (3 << 35) != 0
}

/// Kills the victim's processes, and then their successors; each must be closed from its first moment.
fn attack(httpd: &Httpd) {
    let spy = httpd.ok("/s/pid");
    let victims = || httpd.workers().into_iter().map(|p| p.pid.to_string()).filter(|pid| *pid != spy).collect::<Vec<_>>();
    httpd.ok("/v/pid"); // so that each of its processes has been started
    let count = victims().len();
    for _ in 0..4 {
        let (mut old, worker) = (victims(), httpd.ok("/v/pid"));
        // A fork server first: it must not fork the successor of a worker before it ends itself.
        old.sort_by_key(|pid| *pid == worker);
        std::thread::scope(|scope| {
            let attack = scope.spawn(|| httpd.ok(&format!("/s/attack?{}", old.join(","))));
            until("the successors serve", || {
                let now = victims();
                now.len() == count && now.iter().all(|pid| !old.contains(pid)) && now.contains(&httpd.get("/v/pid").text())
            });
            httpd.ok("/s/done");
            assert_eq!(attack.join().expect("attack"), "", "the memory of these processes was opened");
        });
    }
}

mpm_test!(a_starting_process_is_closed_from_its_first_moment, |site| {
    if !can_shield() {
        return;
    }
    for options in ["", "preload=On"] {
        let site = Site::new(site.subject, site.mpm, module_path!()).expect_log("was killed by signal 9");
        attack(&self::site(site, options).start());
    }
});
