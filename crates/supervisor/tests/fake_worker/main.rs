//! A worker without Python, for tests/supervise.rs: the text of a script file selects its
//! behaviour.
//!
//! `fail`: loading fails. `exit`: the process exits while loading. `hang`: loading never ends. Any
//! other text: each request is answered with that text, the process id and the user id. Callables:
//! `crash` aborts the process; `hold` waits for a byte on the reply socket before it answers;
//! `shut` shuts the queue down for everybody and waits to be told to exit; `deafen` makes the queue
//! drop requests; `garbage` sends droverd a thousand invalid messages, and `again` a thousand
//! messages valid only during a start. Both continue to serve.
//!
//! As a fork server it starts another process of its kind for each Fork, through a shell that exits
//! at once. `refuse`: it reports that it cannot fork. `forge`: it sends Hello itself in place of a
//! new worker. `keep`: the new worker remains its own child. `drop`: it forks no worker.
use drover_sys::Errno;
use drover_sys::channel::{receive, send};
use drover_sys::inherited;
use drover_sys::wait::{PollFd, PollFlags, poll_until, readable_now};
use drover_wire::control::{FromWorker, Loaded, Script, ToWorker, WorkerConfig, decode, encode};
use drover_wire::frame::{Failure, Header, Kind};
use drover_wire::request::{PREFIX, Payload, Prefix};
use std::collections::BTreeMap;
use std::error::Error;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::Duration;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Text and file time of a script that was loaded or has failed.
struct Code {
    mtime_us: u64,
    text: Result<String, String>,
}

fn load(script: &Script) -> Code {
    let path = std::path::Path::new(std::ffi::OsStr::from_bytes(&script.path));
    let mtime_us = std::fs::metadata(path).map_or(0, |m| u64::try_from(m.mtime()).unwrap_or(0) * 1_000_000);
    let text = match std::fs::read_to_string(path).as_deref().map(str::trim) {
        Ok("fail") => Err("Traceback (most recent call last):\n  line 1\nSyntaxError: it says fail".to_owned()),
        Ok("exit") => std::process::exit(3),
        Ok("hang") => loop {
            std::thread::sleep(Duration::from_secs(1000));
        },
        Ok(text) => Ok(text.to_owned()),
        Err(e) => Err(e.to_string()),
    };
    Code { mtime_us, text }
}

/// Makes the kernel drop everything sent to the queue; python3 replaces the unsafe call.
fn deafen(queue: &OwnedFd) -> Outcome<()> {
    let code = "import ctypes, socket, struct\n\
        nothing = ctypes.create_string_buffer(struct.pack('HBBI', 6, 0, 0, 0))\n\
        queue = socket.socket(fileno=0)\n\
        queue.setsockopt(socket.SOL_SOCKET, 26, struct.pack('HxxxxxxQ', 1, ctypes.addressof(nothing)))\n";
    let done = Command::new("python3").args(["-c", code]).stdin(queue.try_clone()?).status()?;
    if done.success() { Ok(()) } else { Err("the queue cannot be made deaf".into()) }
}

fn flood(control: &OwnedFd, message: &[u8]) {
    for _ in 0..1000 {
        let _ = send(control, &[message], &[], false); // the socket may not accept all of them
    }
}

struct Worker {
    control: OwnedFd,
    queue: OwnedFd,
    loaded: BTreeMap<Vec<u8>, Code>,
    kept: BTreeMap<Vec<u8>, u64>,
}

impl Worker {
    fn say(&self, message: &FromWorker, fds: &[OwnedFd]) -> Outcome<()> {
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        send(&self.control, &[&encode(message)?], &fds, true)?;
        Ok(())
    }

    /// `None`: droverd has exited.
    fn hear(&self) -> Outcome<Option<ToWorker>> {
        let mut buffer = vec![0; 200_000];
        let n = receive(&self.control, &mut buffer, &mut Vec::new(), true)?;
        Ok(if n == 0 { None } else { Some(decode(buffer.get(..n).unwrap_or_default())?) })
    }

    fn start(&mut self) -> Outcome<WorkerConfig> {
        self.say(&FromWorker::Hello { version: drover_wire::VERSION.to_owned(), python: "none".to_owned() }, &[])?;
        let Some(ToWorker::Start(config)) = self.hear()? else { return Err("no Start".into()) };
        eprintln!("loading for generation {}", config.generation);
        let mut outcomes = Vec::new();
        for script in &config.scripts {
            let code = load(script);
            let failure = code.text.as_ref().err().map(|text| (Failure::Import as u16, text.clone()));
            outcomes.push(Loaded { script: script.clone(), mtime_us: code.mtime_us, failure });
            self.loaded.insert(script.path.clone(), code);
        }
        let refuses = config.is_template && self.loaded.values().any(|code| code.text.as_deref() == Ok("refuse"));
        if !refuses {
            self.say(&FromWorker::Loaded(outcomes), &[])?;
        }
        Ok(*config)
    }

    /// Starts workers until droverd closes the socket.
    fn fork_workers(&self) -> Outcome<()> {
        let mode = self.loaded.values().find_map(|code| code.text.clone().ok()).unwrap_or_default();
        if mode == "refuse" {
            return self.say(&FromWorker::SetupFailed("something stands above\nit has threads".to_owned()), &[]);
        }
        loop {
            let (mut buffer, mut fds) = (vec![0; 200_000], Vec::new());
            let n = receive(&self.control, &mut buffer, &mut fds, true)?;
            if n == 0 || decode::<ToWorker>(buffer.get(..n).unwrap_or_default())? != ToWorker::Fork {
                return Ok(());
            }
            let [control, output, error] = <[OwnedFd; 3]>::try_from(fds).map_err(|_| "Fork without its descriptors")?;
            match mode.as_str() {
                "drop" => {}
                "forge" => {
                    let hello = FromWorker::Hello { version: drover_wire::VERSION.to_owned(), python: "none".to_owned() };
                    send(&control, &[&encode(&hello)?], &[], true)?;
                }
                _ => self.start_another(&control, output, error, mode != "keep")?,
            }
        }
    }

    /// Starts another process of this program. It waits until the intermediate shell has exited, so
    /// that its parent is the process that adopts it.
    fn start_another(&self, control: &OwnedFd, output: OwnedFd, error: OwnedFd, is_orphan: bool) -> Outcome<()> {
        let (wait, go) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        for fd in [control, &self.queue, &wait] {
            rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
        }
        let mut command = Command::new("/bin/sh");
        command.args(["-c", if is_orphan { "\"$@\" &" } else { "exec \"$@\"" }, "sh"]).arg(std::env::current_exe()?);
        for (name, fd) in [("--control", control), ("--queue", &self.queue), ("--wait", &wait)] {
            command.arg(name).arg(fd.as_raw_fd().to_string());
        }
        let mut between = command.stdout(output).stderr(error).spawn()?;
        for fd in [control, &self.queue, &wait] {
            rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC)?;
        }
        if is_orphan {
            between.wait()?;
        }
        drop(go);
        Ok(())
    }

    fn serve(&mut self) -> Outcome<()> {
        loop {
            let mut fds = [PollFd::new(&self.control, PollFlags::IN), PollFd::new(&self.queue, PollFlags::IN)];
            poll_until(&mut fds, None)?;
            if readable_now(&self.control) {
                match self.hear()? {
                    Some(ToWorker::Keep { path, mtime_us }) => drop(self.kept.insert(path, mtime_us)),
                    Some(ToWorker::Serve | ToWorker::Dump | ToWorker::Look | ToWorker::LastWords { .. }) => {}
                    Some(ToWorker::Drain) | None => return Ok(()),
                    Some(ToWorker::Start(_) | ToWorker::Fork) => return Err("Start or Fork while serving".into()),
                }
            } else if let Some((message, way_back)) = self.take()? {
                self.request(message, way_back)?;
            } else {
                return Ok(());
            }
        }
    }

    fn take(&self) -> Outcome<Option<(Vec<u8>, Vec<OwnedFd>)>> {
        let (mut buffer, mut fds) = (vec![0; 200_000], Vec::new());
        match receive(&self.queue, &mut buffer, &mut fds, false) {
            Ok(0) => Ok(None),
            Ok(n) => {
                buffer.truncate(n);
                Ok(Some((buffer, fds)))
            }
            // Another worker took the request first.
            Err(Errno::AGAIN) => Ok(Some((Vec::new(), Vec::new()))),
            Err(e) => Err(e.into()),
        }
    }

    fn request(&mut self, message: Vec<u8>, fds: Vec<OwnedFd>) -> Outcome<()> {
        let Some(way_back) = fds.first() else { return Ok(()) };
        let prefix = Prefix::decode(&message)?;
        let payload = Payload::decode(&prefix, message.get(PREFIX..).unwrap_or_default())?;
        let script = Script { path: payload.script.to_vec(), callable: payload.callable.to_vec() };
        let known = self.loaded.contains_key(&script.path);
        let code = self.loaded.entry(script.path.clone()).or_insert_with(|| load(&script));
        if !known {
            let message = FromWorker::AlsoLoaded(script.clone());
            send(&self.control, &[&encode(&message)?], &[], true)?;
        }
        let seen = prefix.script_mtime_us;
        if seen != 0 && seen != code.mtime_us && self.kept.get(&script.path) != Some(&seen) {
            return self.say(&FromWorker::Changed { path: script.path, mtime_us: seen, request: message }, &fds);
        }
        match script.callable.as_slice() {
            b"crash" => std::process::abort(),
            b"hold" => {
                eprintln!("holding a request");
                receive(way_back, &mut [0; 8], &mut Vec::new(), true)?;
            }
            b"garbage" => flood(&self.control, b"garbage"),
            b"again" => {
                flood(&self.control, &encode(&FromWorker::SetupFailed("again".to_owned()))?);
            }
            b"large" => drop(send(&self.control, &[&encode(&FromWorker::Memory(1 << 40))?], &[], true)?),
            b"descriptors" => drop(send(&self.control, &[&encode(&FromWorker::Memory(1))?], &[way_back.as_fd()], true)?),
            b"deafen" => deafen(&self.queue)?,
            b"shut" => rustix::net::shutdown(&self.queue, rustix::net::Shutdown::Both)?,
            _ => {}
        }
        let (kind, code, text) = match &code.text {
            Ok(text) => (Kind::Body, 0, format!("{text} {} {}", std::process::id(), rustix::process::getuid().as_raw())),
            Err(text) => (Kind::Fail, Failure::Import as u16, text.clone()),
        };
        let head = Header { len: u32::try_from(text.len())?, number: prefix.number, kind, code }.encode();
        let end = Header { len: 0, number: prefix.number, kind: Kind::End, code: 0 }.encode();
        let _ = send(way_back, &[&head, text.as_bytes(), if kind == Kind::Body { &end } else { &[] }], &[], true);
        if script.callable == b"shut" {
            while !matches!(self.hear()?, Some(ToWorker::Drain) | None) {}
            std::process::exit(0);
        }
        Ok(())
    }
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |name: &str| {
        let at = arguments.iter().position(|a| a == name).ok_or("an argument is missing")?;
        arguments.get(at + 1).ok_or("a number is missing")?.parse::<i32>().map_err(Box::<dyn Error>::from)
    };
    let (control, queue) = match number("--wait") {
        Ok(wait) => {
            let [control, queue, wait] = inherited::take([number("--control")?, number("--queue")?, wait]).map_err(|(_, e)| e)?;
            rustix::io::read(&wait, &mut [0; 1])?;
            (control, queue)
        }
        Err(_) => {
            let [control, queue] = inherited::take([number("--control")?, number("--queue")?]).map_err(|(_, e)| e)?;
            (control, queue)
        }
    };
    let mut worker = Worker { control, queue, loaded: BTreeMap::new(), kept: BTreeMap::new() };
    if worker.start()?.is_template {
        return worker.fork_workers();
    }
    match worker.hear()? {
        Some(ToWorker::Serve) => worker.serve(),
        _ => Ok(()),
    }
}
