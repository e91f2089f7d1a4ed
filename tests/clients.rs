//! Clients that other people wrote: pip, twine, the test-suite of requests, slowhttptest.
//!
//! Responsible for: real traffic meeting what its authors expect. Must never: reach anything but loopback. Called by: `main.rs`.
use crate::harness::{Httpd, Site, paths};
use std::process::{Command, Output};

const PYPI: &str = "import pypiserver\napplication = pypiserver.app(roots=['@dir@/packages'], password_file='.', authenticate=[])\n";
const HTTPBIN: &str = "from httpbin import app as application\n";

fn site(site: Site) -> Site {
    let packages = site.dir().join("packages");
    std::fs::create_dir(&packages).expect("directory");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(&packages, mode).expect("mode");
    let venv = paths::clients_venv();
    site.script("pypi.wsgi", PYPI)
        .script("bin.wsgi", HTTPBIN)
        .daemon(&format!("processes=2 threads=8 python-home={}", venv.display()))
        .config("WSGIPassAuthorization On\nWSGIChunkedRequest On")
        .app("/pypi", "pypi.wsgi")
        .app("/", "bin.wsgi")
        .allow_log("flasgger")
}

fn done(output: &Output) -> String {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    text
}

fn client(httpd: &Httpd, program: &str) -> Command {
    let mut command = Command::new(paths::clients_venv().join("bin").join(program));
    command.current_dir(httpd.site.dir()).env_clear().env("HOME", httpd.site.dir()).env("PATH", "/usr/bin:/bin");
    command
}

event_test!(twine_uploads_and_pip_installs, |site| {
    let httpd = self::site(site).start();
    let source = httpd.site.dir().join("source");
    std::fs::create_dir_all(source.join("drover_demo")).expect("directory");
    std::fs::write(source.join("drover_demo/__init__.py"), "answer = 42\n").expect("module");
    let setup = "from setuptools import setup\nsetup(name='drover-demo', version='1.0', packages=['drover_demo'])\n";
    std::fs::write(source.join("setup.py"), setup).expect("setup.py");
    done(&client(&httpd, "python").args(["setup.py", "-q", "bdist_wheel", "sdist"]).current_dir(&source).output().expect("setup.py"));
    let files: Vec<_> = std::fs::read_dir(source.join("dist")).expect("dist").flatten().map(|e| e.path()).collect();
    assert_eq!(files.len(), 2);
    let url = format!("http://127.0.0.1:{}/pypi/", httpd.site.port);
    let upload = ["upload", "--repository-url", &url, "-u", "a", "-p", "b", "--disable-progress-bar"];
    done(&client(&httpd, "twine").args(upload).args(&files).output().expect("twine"));
    for file in &files {
        let there = httpd.site.dir().join("packages").join(file.file_name().expect("name"));
        assert_eq!(std::fs::read(there).expect("uploaded"), std::fs::read(file).expect("built"));
    }
    let index = format!("{url}simple/");
    let install =
        ["install", "--no-cache-dir", "--disable-pip-version-check", "--index-url", &index, "--target", "installed", "drover-demo"];
    done(&client(&httpd, "pip").args(install).output().expect("pip"));
    let answer =
        client(&httpd, "python").args(["-c", "import drover_demo; print(drover_demo.answer)"]).env("PYTHONPATH", "installed").output();
    assert_eq!(done(&answer.expect("python")), "42\n");
});

/// Puts our server in the place of pytest-httpbin's own.
const OVERRIDE: &str = "import pytest\n\nclass Server:\n    url = 'http://127.0.0.1:@port@'\n    def __add__(self, other):\n        \
return self.url + other\n\n@pytest.fixture(scope='session')\ndef httpbin():\n    return Server()\n";

event_test!(the_tests_of_requests, |site| {
    // httpbin answers 500 and worse when it is asked to.
    let httpd = self::site(site).allow_output().start();
    let mut unpack = Command::new("tar");
    unpack.arg("xzf").arg(paths::requests_sources()).arg("--strip-components=1").current_dir(httpd.site.dir());
    done(&unpack.output().expect("tar"));
    std::fs::write(httpd.site.dir().join("override.py"), httpd.site.fill(OVERRIDE)).expect("plugin");
    let mut pytest = client(&httpd, "python");
    pytest.args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "override", "tests/test_requests.py"]);
    // These two ask an address outside of this machine.
    pytest.args(["-k", "not connect_timeout and not total_timeout_connect"]).env("PYTHONPATH", ".:src");
    let text = done(&pytest.output().expect("pytest"));
    let count = |line: &str| line.split_once(" passed, ")?.0.parse::<u32>().ok();
    let passed = text.lines().find_map(count).unwrap_or(0);
    assert!(passed > 300, "{text}");
});

event_test!(slow_clients_leave_the_others_alone, |site| {
    let limits = "RequestReadTimeout header=3 body=3,MinRate=500\nTimeout 20";
    let site = self::site(site)
        .modules("reqtimeout")
        .config(limits)
        .daemon(&format!("processes=2 threads=60 python-home={}", paths::clients_venv().display()));
    let httpd = site.allow_log("DROVER0040|DROVER0060|DROVER0069").allow_output().start();
    let url = |path: &str| format!("http://127.0.0.1:{}{path}", httpd.site.port);
    let attack = |kind: &str, more: &[&str], path: &str| {
        let mut command = Command::new("slowhttptest");
        command.args([kind, "-c", "25", "-r", "50", "-i", "1", "-l", "6", "-u", &url(path)]).args(more);
        command.stdout(std::process::Stdio::null()).spawn().expect("slowhttptest")
    };
    let mut attacks = [
        attack("-H", &[], "/"),
        attack("-B", &["-s", "100000", "-t", "POST"], "/post"),
        attack("-X", &["-w", "1", "-y", "8", "-n", "2", "-z", "4"], "/bytes/50000"),
    ];
    let mut answered = 0;
    while attacks.iter_mut().any(|a| a.try_wait().expect("wait").is_none()) {
        assert_eq!(httpd.get("/get").status, 200, "after {answered} answers");
        answered += 1;
    }
    assert!(answered > 50, "only {answered} requests were answered meanwhile");
    assert_eq!(httpd.get("/get").status, 200);
});
