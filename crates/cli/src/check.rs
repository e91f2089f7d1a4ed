//! `drover check`: are all parts installed, and of one version?
//!
//! Responsible for: one line for each part. Must never: change anything. Called by: `main.rs`.
use crate::arguments::Options;
use crate::error::Error;
use crate::places::{self, Httpd};
use crate::print;
use std::path::Path;
use std::process::{Command, ExitCode};

/// Prints the parts that are found; fails if one is missing or of another version.
pub fn check(options: &Options) -> Result<ExitCode, Error> {
    let mut found = String::new();
    let result = look(options, &mut found);
    print(&found)?;
    result.map(|()| ExitCode::SUCCESS)
}

fn look(options: &Options, found: &mut String) -> Result<(), Error> {
    let own = drover_wire::VERSION;
    let mut line = |part: &str, version: &str, path: Option<&Path>| {
        let path = path.map(|path| format!("  {}", path.display())).unwrap_or_default();
        *found += &format!("{part:<11} {version}{path}\n");
    };
    line("drover", own, None);
    let companions = places::companions()?;
    let droverd = output_of("droverd", &companions.droverd, &["--version"])?;
    let droverd = droverd.split_whitespace().last().unwrap_or("?").to_string();
    line("droverd", &droverd, Some(&companions.droverd));
    line("module", &companions.module.display().to_string(), None);
    let httpd = Httpd::find(options)?;
    line("httpd", &httpd.version()?, Some(&httpd.program));
    line("MPM", &httpd.mpm(options.mpm.as_deref())?, Some(&httpd.modules));
    let python = places::python(options)?;
    let version = output_of("the Python interpreter", &python, &["--version"])?;
    line("python", version.trim_start_matches("Python "), Some(&python));
    let code = "import sys, importlib.util as u; s = u.spec_from_file_location('_drover', sys.argv[1]); m = u.module_from_spec(s); \
                s.loader.exec_module(m); print(getattr(m, 'VERSION', getattr(m, '__version__', '?')))";
    let extension = output_of("the worker's extension", &python, &["-c", code, &companions.extension.display().to_string()])?;
    line("extension", &extension, Some(&companions.extension));
    match [("droverd", &droverd), ("the worker's extension", &extension)].into_iter().find(|(_, version)| *version != own) {
        None => Ok(()),
        Some((part, version)) => Err(Error::Version { part, needed: own, found: version.clone() }),
    }
}

/// What a program prints, in one line.
fn output_of(part: &'static str, program: &Path, arguments: &[&str]) -> Result<String, Error> {
    let output = Command::new(program).args(arguments).output().map_err(|e| Error::io(program.display(), e))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(Error::Broken(part, text.lines().last().unwrap_or("no message").to_string()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_string())
}
