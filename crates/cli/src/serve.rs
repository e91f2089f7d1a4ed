//! `drover serve` and `drover config`.
//!
//! Responsible for: the temporary directory, and checks with a clear message before httpd would
//! print an unclear one. Must never: leave a file behind. Called by: `main.rs`.
use crate::application::Application;
use crate::arguments::Options;
use crate::attend::{self, Event, Watch};
use crate::configuration::{Configuration, GROUP};
use crate::error::Error;
use crate::places::{self, Account, Httpd};
use crate::relay::Relay;
use crate::{connection, launch, listen, probe};
use drover_sys::signals;
use rustix::process::{getpid, set_child_subreaper};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;

/// The directory in a printed configuration: httpd reads the variable from its environment.
const DIRECTORY: &str = "${DROVER_DIRECTORY}";

/// `drover config`: the configuration as `serve` would write it, for a directory that the user
/// creates.
pub fn print(options: &Options) -> Result<String, Error> {
    let directory = Path::new(DIRECTORY);
    let (httpd, configuration) = configure(options, directory, directory.join("error.log"))?;
    let mut hint = String::from("# To run it in a new private directory, with this file as its httpd.conf:\n");
    let mut say = |line: &str| hint += &format!("#   {line}\n");
    say("export DROVER_DIRECTORY=\"$(mktemp -d)\"");
    say("chmod 711 \"$DROVER_DIRECTORY\" && mkdir \"$DROVER_DIRECTORY/run\"");
    say("drover config ... >\"$DROVER_DIRECTORY/httpd.conf\"");
    if let Application::Module { module, callable } = application(options)? {
        // Only names and dots, so nothing needs quoting.
        say(&format!(
            "printf 'import importlib, operator\\napplication = operator.attrgetter(\"{callable}\")(importlib.import_module(\"{module}\"))\\n' \
             >\"$DROVER_DIRECTORY/application.wsgi\""
        ));
    }
    say(&format!("{} -f \"$DROVER_DIRECTORY/httpd.conf\" -DFOREGROUND", httpd.program.display()));
    Ok(hint + &configuration.to_string())
}

/// `drover serve`: runs until a signal, or until httpd exits by itself. Called with signals held
/// back, which it releases as soon as it watches them.
pub fn serve(options: &Options) -> Result<ExitCode, Error> {
    let (sender, events) = mpsc::channel();
    attend::watch_signals(sender.clone())?;
    signals::release();
    let scratch = tempfile::Builder::new().prefix("drover-").tempdir().map_err(Error::Scratch)?;
    let directory = scratch.path();
    let fail = |e| Error::io(directory.display(), e);
    let log = directory.join("error.fifo");
    let (httpd, configuration) = configure(options, directory, log.clone())?;
    if configuration.account.is_some() {
        // The workers' user may enter the directory, but not list it.
        std::fs::set_permissions(directory, Permissions::from_mode(0o711)).map_err(fail)?;
    }
    std::fs::create_dir(directory.join("run")).map_err(fail)?;
    if let Application::Module { module, callable } = application(options)? {
        std::fs::write(&configuration.script, Application::script(&module, &callable)).map_err(fail)?;
    }
    let file = directory.join("httpd.conf");
    std::fs::write(&file, configuration.to_string()).map_err(fail)?;
    configuration.listen.iter().try_for_each(|address| listen::must_be_free(*address))?;
    if attend::is_stopped(&events) {
        return Ok(ExitCode::SUCCESS);
    }
    // If httpd is killed, its child processes become children of drover, which reaps them.
    set_child_subreaper(Some(getpid())).map_err(|e| Error::io("child subreaper", e.into()))?;
    let to_watch = sender.clone();
    let relay = Relay::start(&log, move || {
        let _ = to_watch.send(Event::Ready);
    })?;
    let pid = launch::start(&httpd.program, &file)?;
    let socket = directory.join("run/drover.sock");
    let mut await_the_application = || {
        let (socket, sender) = (socket.clone(), sender.clone());
        std::thread::spawn(move || sender.send(Event::Loaded(connection::await_group(&socket, GROUP))));
    };
    let name = options.application.display();
    let watch = Watch {
        httpd: pid,
        program: httpd.program,
        file,
        grace: options.grace,
        events: &events,
        on_ready: &mut await_the_application,
        serving: format!("drover: serving {name} at http://{}:{}/ (Ctrl-C stops it)", listen::in_url(&options.host), options.port),
    };
    let end = watch.run()?;
    relay.finish();
    scratch.close().map_err(|e| Error::io("temporary directory", e))?;
    end.map_err(|error| match error {
        Error::NotLoaded(why) => Error::NotImportable { application: name.to_string(), python: configuration.python, why: last_line(&why) },
        other => other,
    })
}

/// The exception of a traceback; the whole of it was logged before.
fn last_line(text: &str) -> String {
    text.trim_end().lines().last().unwrap_or_default().trim().to_owned()
}

fn here() -> Result<PathBuf, Error> {
    std::env::current_dir().map_err(|e| Error::io("the current directory", e))
}

fn application(options: &Options) -> Result<Application, Error> {
    Application::parse(&options.application, &here()?)
}

/// Finds all parts and builds the configuration.
fn configure(options: &Options, directory: &Path, error_log: PathBuf) -> Result<(Httpd, Configuration), Error> {
    let here = here()?;
    let (script, default_home) = match application(options)? {
        Application::Script(path) => {
            // A script below the current directory belongs to the project there.
            let home = if path.starts_with(&here) { here.as_path() } else { path.parent().unwrap_or(Path::new("/")) };
            let home = home.to_path_buf();
            (path, home)
        }
        Application::Module { .. } => (directory.join("application.wsgi"), here.clone()),
    };
    let home = options.working_directory.as_ref().map_or(default_home, |d| here.join(d));
    let companions = places::companions()?;
    let httpd = Httpd::find(options)?;
    let python = places::python(options)?;
    let account = places::account(options)?;
    let beside = script.parent().filter(|directory| *directory != home && script.exists()).map(Path::to_path_buf);
    if let Some(account) = &account {
        check_readable(account, &[&home, &companions.extension, &companions.python, &python])?;
        if script.exists() {
            account.must_read(&script)?;
        }
    }
    if let Application::Module { module, callable } = application(options)? {
        probe::must_exist(&python, account.as_ref(), &home, &module, &callable)?;
    }
    let mut modules = vec![format!("mpm_{}", httpd.mpm(options.mpm.as_deref())?)];
    modules.extend(["unixd", "log_config", "authz_core", "mime", "alias"].map(String::from));
    modules.retain(|m| !httpd.has_compiled_in(m) && !httpd.has_compiled_in(m.trim_start_matches("mpm_")));
    let mime_types = ["/etc/mime.types", "/usr/local/apache2/conf/mime.types"].map(PathBuf::from).into_iter().find(|p| p.exists());
    let configuration = Configuration {
        directory: directory.into(),
        error_log,
        // httpd accepts no IPv6 address as ServerName.
        server_name: if options.host.contains(':') { "localhost".into() } else { options.host.clone() },
        listen: listen::addresses(&options.host, options.port)?,
        modules_dir: httpd.modules.clone(),
        modules,
        module: companions.module,
        account: account.map(|a| (a.user, a.group)),
        script,
        home,
        path: beside,
        python,
        processes: options.processes,
        threads: options.threads,
        aliases: options.aliases.iter().map(|(url, path)| alias(url, &here.join(path))).collect(),
        log_level: options.log_level.clone(),
        access_log: options.access_log.as_ref().map(|f| here.join(f)),
        includes: options.includes.iter().map(|f| here.join(f)).collect(),
        mime_types: Some(mime_types.unwrap_or_else(|| "/dev/null".into())),
    };
    Ok((httpd, configuration))
}

/// The directory to allow for an alias: of a file its parent, of a directory itself.
fn alias(url: &str, path: &Path) -> (String, PathBuf, PathBuf) {
    let directory = if path.is_file() { path.parent().unwrap_or(path) } else { path };
    (url.into(), path.into(), directory.into())
}

fn check_readable(account: &Account, paths: &[&Path]) -> Result<(), Error> {
    paths.iter().try_for_each(|path| account.must_read(path))
}
