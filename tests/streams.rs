//! `sys.stdin`, `sys.stdout`, `sys.stderr` and `wsgi.errors` as libraries use them.
//!
//! Responsible for: every question of io.TextIOBase having an answer; descriptors that lead to the group's log; what
//! WSGIRestrictStdin and WSGIRestrictStdout forbid, and nothing else. Called by: `main.rs`.
use crate::harness::{Httpd, Site, until};
use serde_json::{Value, json};

/// What each stream says, by its name and the question.
const ASK: &str = r#"
import faulthandler, io, json, logging, os, select, subprocess, sys

def attempt(question):
    try:
        return question()
    except Exception as e:
        return "%s: %s" % (type(e).__name__, e)

QUESTIONS = {
    "closed": lambda s: s.closed, "isatty": lambda s: s.isatty(), "encoding": lambda s: s.encoding.lower(), "errors": lambda s: s.errors,
    "newlines": lambda s: s.newlines, "line_buffering": lambda s: type(s.line_buffering).__name__, "name": lambda s: s.name,
    "mode": lambda s: s.mode, "readable": lambda s: s.readable(), "writable": lambda s: s.writable(), "seekable": lambda s: s.seekable(),
    "fileno": lambda s: s.fileno(), "flush": lambda s: s.flush(), "is_text": lambda s: isinstance(s, io.TextIOBase),
    "reconfigure": lambda s: s.reconfigure(errors=s.errors), "has": lambda s: hasattr(s, "anything"),
    "buffer": lambda s: isinstance(s.buffer, io.IOBase), "buffer.closed": lambda s: s.buffer.closed, "buffer.mode": lambda s: s.buffer.mode,
    "buffer.name": lambda s: s.buffer.name, "buffer.isatty": lambda s: s.buffer.isatty(), "buffer.fileno": lambda s: s.buffer.fileno(),
    "tell": lambda s: s.tell(), "repr": lambda s: repr(s)[:20], "enter": lambda s: s.__enter__() is s,
}

def use():
    """What libraries do with sys.stderr and sys.stdout."""
    print("printed and flushed", flush=True)
    sys.stdout.buffer.write(b"bytes on stdout\n")
    sys.stderr.buffer.write(b"bytes on stderr\n")
    logging.StreamHandler(sys.stdout).emit(logging.makeLogRecord({"msg": "logged on stdout"}))
    io.TextIOWrapper(sys.stdout.buffer, "utf-8", write_through=True).write("wrapped on stdout\n")
    with sys.stderr as stream:
        stream.writelines(["in a with ", "statement\n"])
    faulthandler.enable()
    faulthandler.dump_traceback()
    for fd in [sys.stdout, sys.stderr]:
        subprocess.run(["sh", "-c", "echo a program says >&$0", str(fd.fileno())], pass_fds=[fd.fileno()], check=True)
    subprocess.run(["sh", "-c", "echo to errors >&2"], stderr=sys.stderr, check=True)
    subprocess.run(["sh", "-c", "echo to output"], stdout=sys.stdout, check=True)
    select.select([], [sys.stdout, sys.stderr], [], 0)
    try:
        os.get_terminal_size(sys.stdout.fileno())
    except OSError:
        pass
    return "used"

def application(environ, start_response):
    start_response("200 OK", [])
    streams = {"stdin": sys.stdin, "stdout": sys.stdout, "stderr": sys.stderr, "wsgi.errors": environ["wsgi.errors"]}
    if environ["PATH_INFO"] == "/use":
        answer = attempt(use)
    elif environ["PATH_INFO"] == "/forbidden":
        out, into = sys.stdout, sys.stdin
        calls = [
            lambda: out.write("x"), lambda: print("x"), lambda: out.writelines(["x"]), lambda: out.buffer.write(b"x"), lambda: out.fileno(),
            lambda: into.read(), lambda: into.read(1), lambda: into.readline(), lambda: next(into), lambda: into.buffer.read(),
            lambda: into.buffer.readline(), lambda: into.readlines(), lambda: input(),
        ]
        answer = [attempt(call) for call in calls]
    else:
        answer = {name: {ask: attempt(lambda: q(s)) for ask, q in QUESTIONS.items()} for name, s in streams.items()}
    return [json.dumps(answer, default=repr).encode()]
"#;

fn site(site: Site) -> Site {
    site.script("ask.wsgi", ASK).app("/", "ask.wsgi").allow_output()
}

/// What an output stream must say; the name and the descriptor are the caller's.
fn output(name: &str, fd: Value) -> Value {
    json!({
        "closed": false, "isatty": false, "encoding": "utf-8", "errors": "backslashreplace", "newlines": null, "line_buffering": "bool",
        "name": name, "mode": "w", "readable": false, "writable": true, "seekable": false, "fileno": fd, "flush": null, "is_text": true,
        "reconfigure": null, "has": false, "buffer": true, "buffer.closed": false, "buffer.mode": "wb", "buffer.name": name,
        "buffer.isatty": false, "buffer.fileno": fd, "tell": "UnsupportedOperation: underlying stream is not seekable",
        "repr": "<_io.TextIOWrapper n", "enter": true,
    })
}

#[track_caller]
fn says(httpd: &Httpd, stream: &str, expected: &Value) {
    let told = httpd.get("/").json()[stream].clone();
    for (ask, answer) in expected.as_object().expect("object") {
        assert_eq!(&told[ask], answer, "{stream}: {ask}");
    }
    assert_eq!(told.as_object().map(|told| told.len()), expected.as_object().map(|e| e.len()));
}

mpm_test!(every_question_to_a_stream_has_an_answer, |site| {
    let httpd = self::site(site).start();
    says(&httpd, "stdout", &output("<stdout>", json!(1)));
    says(&httpd, "stderr", &output("<stderr>", json!(2)));
    says(&httpd, "wsgi.errors", &output("<wsgi.errors>", json!(2)));
    assert_eq!(httpd.get("/use").json(), "used");
    let lines = [
        "printed and flushed",
        "bytes on stdout",
        "bytes on stderr",
        "logged on stdout",
        "wrapped on stdout",
        "in a with statement",
        "to errors",
        "to output",
        "in use",
    ];
    for line in lines {
        until(&format!("{line:?} in the log"), || httpd.log().contains(line));
    }
    until("what programs say", || httpd.log().matches("a program says").count() == 2);
});

mpm_test!(restricted_streams_refuse_only_what_is_restricted, |site| {
    let httpd = self::site(site).config("WSGIRestrictStdin On\nWSGIRestrictStdout On").start();
    let refused = |name: &str| format!("OSError: sys.{name} access restricted by mod_wsgi");
    says(&httpd, "stdout", &output("<stdout>", json!(refused("stdout"))));
    says(&httpd, "stderr", &output("<stderr>", json!(2)));
    let mut input = output("<stdin>", json!(0));
    for (ask, answer) in [("mode", json!("r")), ("buffer.mode", json!("rb")), ("readable", json!(true)), ("writable", json!(false))] {
        input[ask] = answer;
    }
    says(&httpd, "stdin", &input);
    let told = httpd.get("/forbidden").json();
    let told: Vec<&str> = told.as_array().expect("list").iter().map(|t| t.as_str().unwrap_or("nothing raised")).collect();
    let (out, input) = told.split_at(5);
    assert!(out.iter().all(|t| *t == refused("stdout")), "{out:?}");
    assert!(input[..7].iter().all(|t| *t == refused("stdin")), "{input:?}");
    // input() writes its prompt first.
    assert!(input[7].starts_with("OSError: sys.std"), "{input:?}");
});

mpm_test!(nothing_is_restricted_unless_it_is_configured, |site| {
    let httpd = self::site(site).start();
    assert_eq!(httpd.get("/forbidden").json()[5], "", "stdin is empty");
    assert_eq!(httpd.get("/").json()["stdin"]["fileno"], 0);
});
