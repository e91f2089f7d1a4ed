//! `make install` and `make uninstall`.
//!
//! Responsible for: which files are installed, their modes, what `a2enmod` needs, and that nothing is left. Called by: `main.rs`.
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A directory with empty files in place of what `make build` makes, and the root of a Debian system.
struct Machine {
    directory: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("directory");
        std::fs::create_dir_all(directory.path().join("built")).expect("built");
        for name in ["libmod_drover.so", "droverd", "lib_drover.so", "drover"] {
            std::fs::write(directory.path().join("built").join(name), "").expect(name);
        }
        std::fs::create_dir_all(directory.path().join("root/etc/apache2/mods-available")).expect("mods-available");
        Self { directory }
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    fn install(&self, prefix: &str) -> Output {
        self.run("install.sh", &[self.directory.path().join("built").to_str().expect("UTF-8"), prefix])
    }

    fn run(&self, script: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new("sh");
        command.arg(Path::new(ROOT).join("scripts").join(script)).args(arguments).arg(self.root());
        command.output().expect(script)
    }

    /// Every file below the root, with its mode.
    fn files(&self) -> BTreeMap<String, u32> {
        let mut found = BTreeMap::new();
        let mut todo = vec![self.root()];
        while let Some(directory) = todo.pop() {
            for entry in std::fs::read_dir(&directory).expect("directory").map(|e| e.expect("entry")) {
                if entry.file_type().expect("type").is_dir() {
                    todo.push(entry.path());
                } else {
                    let path = entry.path().strip_prefix(self.root()).expect("below").display().to_string();
                    found.insert(format!("/{path}"), entry.metadata().expect("metadata").permissions().mode() & 0o7777);
                }
            }
        }
        found
    }
}

#[test]
fn what_is_installed_is_complete_and_uninstall_removes_it() {
    for prefix in ["/usr/local", "/usr", "/opt/drover"] {
        let machine = Machine::new();
        let other = machine.root().join("etc/apache2/mods-available/other.load");
        std::fs::write(&other, "").expect("other");
        let before = machine.files();
        for _ in 0..2 {
            let output = machine.install(prefix);
            assert!(output.status.success(), "{output:?}");
        }
        let files = machine.files();
        let has = |path: &str, mode: u32| assert_eq!(files.get(path), Some(&mode), "{path} in {files:#?}");
        for program in ["lib/mod_drover/mod_drover.so", "lib/mod_drover/droverd", "lib/mod_drover/_drover.abi3.so", "bin/drover"] {
            has(&format!("{prefix}/{program}"), 0o755);
        }
        for text in ["lib/mod_drover/python/mod_drover/boot.py", "lib/mod_drover/python/mod_wsgi/__init__.py"] {
            has(&format!("{prefix}/{text}"), 0o644);
        }
        for page in ["man1/drover.1", "man8/droverd.8"] {
            has(&format!("{prefix}/share/man/{page}"), 0o644);
        }
        assert!(!files.keys().any(|path| path.ends_with(".new") || path.contains("__pycache__")), "{files:#?}");

        let load = machine.root().join("etc/apache2/mods-available/drover.load");
        if prefix == "/opt/drover" {
            assert!(!load.exists(), "a2enmod is for the system's prefixes");
        } else {
            has("/etc/apache2/mods-available/drover.conf", 0o644);
            let line = format!("LoadModule wsgi_module {prefix}/lib/mod_drover/mod_drover.so");
            assert!(std::fs::read_to_string(&load).expect("drover.load").lines().any(|l| l == line));
        }

        let output = machine.run("uninstall.sh", &[prefix]);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(machine.files(), before);
    }
}

#[test]
fn an_enabled_module_is_not_uninstalled() {
    let machine = Machine::new();
    assert!(machine.install("/usr/local").status.success());
    let enabled = machine.root().join("etc/apache2/mods-enabled");
    std::fs::create_dir_all(&enabled).expect("mods-enabled");
    std::fs::write(enabled.join("drover.load"), "").expect("link");
    let before = machine.files();
    let output = machine.run("uninstall.sh", &["/usr/local"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("a2dismod drover"), "{output:?}");
    assert_eq!(machine.files(), before);
}

#[test]
fn nothing_is_installed_when_a_part_was_not_built() {
    let machine = Machine::new();
    std::fs::remove_file(machine.directory.path().join("built/droverd")).expect("droverd");
    let output = machine.install("/usr/local");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("droverd is missing: run make build first"), "{output:?}");
    assert!(machine.files().is_empty());
}

/// Runs scripts/deps.sh on a machine without any package; gives what it printed, and how apt-get was called.
fn deps(mode: &str, what: &str) -> (Output, String) {
    let directory = tempfile::tempdir().expect("directory");
    let calls = directory.path().join("calls");
    let programs = [
        ("dpkg-query", "exit 1".to_owned()),
        ("sudo", "exec \"$@\"".to_owned()),
        ("apt-get", format!("echo \"$*\" >>{}", calls.display())),
    ];
    for (name, text) in programs {
        let path = directory.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect(name);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect(name);
    }
    let path = format!("{}:{}", directory.path().display(), std::env::var("PATH").expect("PATH"));
    let mut command = Command::new("sh");
    command.arg(Path::new(ROOT).join("scripts/deps.sh")).args([mode, what]).env("PATH", path);
    let output = command.output().expect("deps.sh");
    (output, std::fs::read_to_string(calls).unwrap_or_default())
}

#[test]
fn only_deps_installs_packages() {
    for what in ["build", "check", "fuzz", "valgrind"] {
        let (output, calls) = deps("missing", what);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), calls.as_str()), (Some(1), ""), "{text}");
        assert!(text.contains("apache2-dev") && text.contains("`make deps`"), "{text}");
        let (output, calls) = deps("install", what);
        assert!(output.status.success() && calls.contains("install") && calls.contains(" apache2-dev "), "{output:?} {calls}");
    }
    let makefile = std::fs::read_to_string(Path::new(ROOT).join("Makefile")).expect("Makefile");
    let installs: Vec<&str> = makefile.lines().filter(|line| line.contains("deps.sh install")).collect();
    assert_eq!(installs.len(), 3, "deps, test and run: {installs:?}");
}
