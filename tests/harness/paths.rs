//! Paths of the programs and files under test.
//!
//! Responsible for: finding httpd, its modules, the staged installation and the virtualenvs. Must
//! never: fall back silently; a missing part fails the test and names the command that installs it.
//! Called by: `site.rs`, `httpd.rs`, some tests.
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The root of the repository.
pub fn repository() -> PathBuf {
    match std::env::var_os("DROVER_REPO") {
        Some(dir) => dir.into(),
        None => env!("CARGO_MANIFEST_DIR").into(),
    }
}

/// The directory of `scripts/deps.sh` and `make stage` for files that the workers' user must be
/// able to read.
pub fn shared() -> PathBuf {
    static SHARED: OnceLock<PathBuf> = OnceLock::new();
    SHARED.get_or_init(|| run("sh", &[&repository().join("scripts/shared-dir.sh").display().to_string()]).trim().into()).clone()
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn must_exist(path: PathBuf, how: &str) -> PathBuf {
    assert!(path.exists(), "{} is missing; run: {how}", path.display());
    path
}

/// The prefix of the installation under test.
pub fn prefix() -> PathBuf {
    match std::env::var_os("DROVER_PREFIX") {
        Some(dir) => dir.into(),
        None => shared().join("stage"),
    }
}

/// The module mod_drover.
pub fn our_module() -> PathBuf {
    must_exist(prefix().join("lib/mod_drover/mod_drover.so"), "make stage")
}

/// The command `drover` of the installation.
pub fn drover() -> PathBuf {
    must_exist(prefix().join("bin/drover"), "make stage")
}

/// mod_wsgi's module, from PyPI.
pub fn their_module() -> PathBuf {
    let lib = must_exist(shared().join("theirs/lib"), "make deps");
    let find = || {
        for python in std::fs::read_dir(&lib).ok()?.flatten() {
            for file in std::fs::read_dir(python.path().join("site-packages/mod_wsgi/server")).ok()?.flatten() {
                if file.path().extension().is_some_and(|e| e == "so") {
                    return Some(file.path());
                }
            }
        }
        None
    };
    find().unwrap_or_else(|| panic!("no mod_wsgi below {}; run: make deps", lib.display()))
}

/// The virtualenv with Django, Flask and the other applications that tests serve.
pub fn apps_venv() -> PathBuf {
    must_exist(shared().join("venvs/apps"), "make deps")
}

/// The virtualenv with the clients: pip, twine, pypiserver, httpbin, the requests package and
/// pytest.
pub fn clients_venv() -> PathBuf {
    must_exist(shared().join("venvs/clients"), "make deps")
}

/// The sources of the requests package.
pub fn requests_sources() -> PathBuf {
    must_exist(shared().join("clients/requests.tar.gz"), "make deps")
}

/// The sources of the Django in the applications' virtualenv.
pub fn django_sources() -> PathBuf {
    let directory = must_exist(shared().join("sources"), "make deps");
    let files = std::fs::read_dir(&directory).expect("sources").flatten().map(|entry| entry.path());
    let found = files.into_iter().find(|path| path.to_string_lossy().contains("/sources/django-"));
    found.unwrap_or_else(|| must_exist(directory.join("django-VERSION.tar.gz"), "make deps"))
}

/// The httpd program.
pub fn httpd() -> PathBuf {
    for name in ["/usr/sbin/apache2", "/usr/sbin/httpd", "/usr/local/apache2/bin/httpd", "/usr/local/sbin/httpd"] {
        if Path::new(name).exists() {
            return name.into();
        }
    }
    panic!("no httpd; run: make deps")
}

/// httpd's directory of modules.
pub fn modules() -> PathBuf {
    static MODULES: OnceLock<PathBuf> = OnceLock::new();
    MODULES.get_or_init(|| run(&std::env::var("APXS").unwrap_or_else(|_| "apxs".into()), &["-q", "LIBEXECDIR"]).trim().into()).clone()
}

/// Whether httpd has a module compiled in.
pub fn is_static(module: &str) -> bool {
    static LIST: OnceLock<String> = OnceLock::new();
    LIST.get_or_init(|| run(&httpd().display().to_string(), &["-l"])).contains(&format!(" mod_{module}.c"))
}

/// A Python outside any virtualenv that the workers' user can run.
pub fn system_python() -> PathBuf {
    must_exist("/usr/bin/python3".into(), "make deps")
}
