//! `drover check`: is everything there, and does it belong together?
//!
//! Responsible for: one line for each part. Must never: change anything. Called by: `main.rs`.
use crate::arguments::Options;
use crate::error::Error;
use crate::places::{self, Httpd};
use std::path::Path;
use std::process::{Command, ExitCode};

/// Prints what is found; fails when a part is missing or of another version.
pub fn check(options: &Options) -> Result<ExitCode, Error> {
    let own = drover_wire::VERSION;
    println!("drover      {own}");
    let companions = places::companions()?;
    let droverd = said("droverd", &companions.droverd, &["--version"])?;
    let droverd = droverd.split_whitespace().last().unwrap_or("?").to_string();
    println!("droverd     {droverd}  {}", companions.droverd.display());
    println!("module      {}", companions.module.display());
    let httpd = Httpd::find(options)?;
    println!("httpd       {}  {}", httpd.version()?, httpd.program.display());
    println!("MPM         {}  {}", httpd.mpm(options.mpm.as_deref())?, httpd.modules.display());
    let python = places::python(options)?;
    println!(
        "python      {}  {}",
        said("the Python interpreter", &python, &["--version"])?.trim_start_matches("Python "),
        python.display()
    );
    let code = "import sys, importlib.util as u; s = u.spec_from_file_location('_drover', sys.argv[1]); m = u.module_from_spec(s); \
                s.loader.exec_module(m); print(getattr(m, 'VERSION', getattr(m, '__version__', '?')))";
    let extension = said("the worker's extension", &python, &["-c", code, &companions.extension.display().to_string()])?;
    println!("extension   {extension}  {}", companions.extension.display());
    match [("droverd", &droverd), ("the worker's extension", &extension)].iter().find(|(_, version)| *version != own) {
        None => Ok(ExitCode::SUCCESS),
        Some((part, version)) => {
            Err(Error::Missing(part, format!("version {own} is needed, {version} is there; run `make install` again")))
        }
    }
}

/// What a program prints, in one line.
fn said(part: &'static str, program: &Path, arguments: &[&str]) -> Result<String, Error> {
    let output = Command::new(program).args(arguments).output().map_err(|e| Error::io(program.display(), e))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(Error::Broken(part, text.lines().last().unwrap_or("no message").to_string()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_string())
}
