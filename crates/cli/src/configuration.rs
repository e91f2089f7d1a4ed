//! The private httpd configuration.
//!
//! Responsible for: its text. Must never: look at the system. Called by: `serve.rs`.
use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The daemon process group of the application.
pub const GROUP: &str = "drover";

/// Everything that the text depends on.
pub struct Configuration {
    pub directory: PathBuf,
    pub error_log: PathBuf,
    pub server_name: String,
    pub listen: Vec<SocketAddr>,
    pub modules_dir: PathBuf,
    pub modules: Vec<String>,
    pub module: PathBuf,
    pub account: Option<(String, String)>,
    pub script: PathBuf,
    pub home: PathBuf,
    /// A further directory for sys.path.
    pub path: Option<PathBuf>,
    pub python: PathBuf,
    pub processes: u16,
    pub threads: u16,
    /// URL, its file or directory, and the directory that must be allowed for it.
    pub aliases: Vec<(String, PathBuf, PathBuf)>,
    pub log_level: String,
    pub access_log: Option<PathBuf>,
    pub includes: Vec<PathBuf>,
    pub mime_types: Option<PathBuf>,
}

/// A path as one argument in httpd's configuration syntax.
struct Quoted<'a>(&'a Path);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.display().to_string().chars() {
            if matches!(c, '"' | '\\') {
                f.write_char('\\')?;
            }
            f.write_char(c)?;
        }
        f.write_char('"')
    }
}

impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# Written by drover {}. It is complete: the system's httpd configuration is not read.", drover_wire::VERSION)?;
        writeln!(f, "ServerRoot {}", Quoted(&self.directory))?;
        writeln!(f, "DefaultRuntimeDir {}", Quoted(&self.directory.join("run")))?;
        writeln!(f, "PidFile {}", Quoted(&self.directory.join("run/httpd.pid")))?;
        writeln!(f, "ErrorLog {}\nLogLevel {}", Quoted(&self.error_log), self.log_level)?;
        writeln!(f, "ServerName {}", self.server_name)?;
        self.listen.iter().try_for_each(|address| writeln!(f, "Listen {address}"))?;
        writeln!(f, "ServerTokens Prod\nServerSignature Off\nTraceEnable Off")?;
        if let Some((user, group)) = &self.account {
            writeln!(f, "User {user}\nGroup {group}")?;
        }
        for name in &self.modules {
            writeln!(f, "LoadModule {name}_module {}", Quoted(&self.modules_dir.join(format!("mod_{name}.so"))))?;
        }
        writeln!(f, "LoadModule wsgi_module {}", Quoted(&self.module))?;
        writeln!(f, "DroverSessionDirectory {}", Quoted(&self.directory.join("sessions")))?;
        if let Some(types) = &self.mime_types {
            writeln!(f, "TypesConfig {}", Quoted(types))?;
        }
        if let Some(file) = &self.access_log {
            writeln!(f, "CustomLog {} \"%h %l %u %t \\\"%r\\\" %>s %b\"", Quoted(file))?;
        }
        write!(f, "\nWSGIDaemonProcess {GROUP} processes={} threads={} display-name=%{{GROUP}}", self.processes, self.threads)?;
        write!(f, " home={} python={}", Quoted(&self.home), Quoted(&self.python))?;
        match &self.path {
            Some(path) => writeln!(f, " python-path={}", Quoted(path))?,
            None => writeln!(f)?,
        }
        writeln!(f, "WSGIScriptAlias / {} process-group={GROUP} application-group=%{{GLOBAL}}", Quoted(&self.script))?;
        writeln!(f, "WSGIPassAuthorization On\nWSGIChunkedRequest On")?;
        writeln!(f, "\n<Directory />\n    AllowOverride None\n    Require all denied\n</Directory>")?;
        let directory = self.script.parent().unwrap_or(Path::new("/"));
        writeln!(f, "<Directory {}>\n    Require all granted\n</Directory>", Quoted(directory))?;
        for (url, path, directory) in &self.aliases {
            writeln!(f, "Alias {} {}", Quoted(Path::new(url)), Quoted(path))?;
            writeln!(f, "<Directory {}>\n    Require all granted\n</Directory>", Quoted(directory))?;
        }
        self.includes.iter().try_for_each(|file| writeln!(f, "Include {}", Quoted(file)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        assert_eq!(Quoted(Path::new("/a b/\"c\\d")).to_string(), r#""/a b/\"c\\d""#);
    }
}
