//! What the handler reads of a request and does with it, as traits, so that it runs without httpd.
//!
//! Responsible for: the only words that `handler` and its caller share about a request. Must never: name an `ap_*` type.
//! Implemented by: `httpd::request` and `httpd::client` for httpd's requests, and by the handler's tests.
use crate::messages::{Code, Level};
use drover_wire::head::Head;
use std::ffi::{CStr, CString};
use std::os::fd::BorrowedFd;

/// One step of reading the request body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyRead {
    /// This many bytes are in the buffer.
    Data(usize),
    /// The body is complete.
    End,
    /// No data is available now. Only returned when the caller did not ask to wait.
    NotYet,
    /// The body cannot be completed.
    Failed(BodyError),
}

/// Why a request body could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// The client closed the connection.
    ClientGone,
    /// The client was too slow.
    Timeout,
    /// The body is larger than LimitRequestBody.
    TooLarge,
    /// The chunked coding is malformed.
    Malformed,
    /// An input filter sent a response itself.
    Answered,
}

/// How a piece of the response is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Send it to the client now.
    Flush,
    /// It is the last piece: end the response.
    End,
    /// Close the connection so that the client sees an incomplete response.
    Cut,
}

/// Why a piece of the response could not be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotPassed {
    /// The client closed the connection.
    Gone,
    /// An output filter of httpd sent its own response; nothing is left to do.
    Answered,
    /// An output filter failed before anything was sent: the client can still get an error.
    Refused,
    /// An output filter failed in the middle of the response.
    AbortedMidway,
}

/// Why the response headers cannot be used; the text goes to the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadHead(pub String);

/// The client's side of a running request: its body and its response.
pub trait Client {
    /// Reads part of the body into `buffer`. With `wait`, waits for the first byte.
    fn read_body(&mut self, buffer: &mut [u8], wait: bool) -> BodyRead;
    /// Whether the method is HEAD.
    fn is_head(&self) -> bool;
    /// The client's socket, if there is one to wait on.
    fn socket(&self) -> Option<BorrowedFd<'_>>;
    /// Whether the client closed its side of the connection, or the connection or HTTP/2 stream is broken.
    fn has_left(&self) -> bool;
    /// Sets the status line and the header fields. Nothing is sent before the first [`Client::pass`].
    fn set_head(&mut self, head: &Head<'_>) -> Result<(), BadHead>;
    /// Keeps only the header fields that an ErrorDocument response must carry.
    fn set_error_head(&mut self, head: &Head<'_>);
    /// Passes pieces of the response body on.
    fn pass(&mut self, pieces: &[&[u8]], how: Pass) -> Result<(), NotPassed>;
    /// About how many bytes [`Client::pass`] takes without waiting; `usize::MAX` if unlimited or unknown.
    fn room(&mut self) -> usize;
    /// The Cookie header field.
    fn cookies(&self) -> Option<&[u8]>;
    /// Adds a Set-Cookie header field, to error responses too.
    fn set_cookie(&mut self, value: &str);
    /// Sets what the access log may show of the request's session.
    fn note_session(&mut self, name: &str);
    /// Writes an application's line to the request's error log, at httpd's `level`.
    fn application_log(&mut self, level: u16, text: &[u8]);
}

/// The type of a script's file, as httpd found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// The file does not exist or is not accessible.
    Missing,
    /// A directory.
    Directory,
    /// Anything else.
    File,
}

/// One request: what httpd knows of it, its environment, and how it can end. Data lives for `'r`.
pub trait RequestView<'r>: Client {
    /// The handler's name.
    fn handler(&self) -> Option<&'r [u8]>;
    /// The decoded path of the URL.
    fn uri(&self) -> Option<&'r [u8]>;
    /// The method as the client sent it.
    fn method(&self) -> Option<&'r [u8]>;
    /// The protocol, such as `HTTP/1.1`.
    fn protocol(&self) -> Option<&'r [u8]>;
    /// The query string.
    fn args(&self) -> Option<&'r [u8]>;
    /// The file that the URL was mapped to.
    fn filename(&self) -> Option<&'r [u8]>;
    /// The rest of the path after the script's name.
    fn path_info(&self) -> Option<&'r [u8]>;
    /// The host of the request, without its port.
    fn hostname(&self) -> Option<&'r [u8]>;
    /// The position of PATH_INFO in the URL. Only valid when there is a path info.
    fn path_info_start(&self) -> usize;
    /// The URL as the client sent it, with the query string, or the current one if CGIVar says so.
    fn request_uri(&self) -> &'r [u8];
    /// DocumentRoot for this request.
    fn document_root(&self) -> &'r [u8];
    /// ServerName of the virtual host.
    fn server_hostname(&self) -> &'r [u8];
    /// Timeout of the virtual host, in nanoseconds.
    fn server_timeout_ns(&self) -> u64;
    /// The server's version, such as `2.4.62`.
    fn server_version(&self) -> String;
    /// The port in names of process groups: what `ap_get_server_port` gives, unless only the client's Host header names it.
    fn requested_port(&self) -> u16;
    /// The port in names of application groups: that of ServerName or the virtual host, else the connection's. It does not
    /// depend on the Host header.
    fn configured_port(&self) -> u16;
    /// The port of the server's end of the connection.
    fn local_port(&self) -> u16;
    /// The address in the `Listen` directive of the connection's socket, if it has one.
    fn local_hostname(&self) -> Option<&'r [u8]>;
    /// When the request began, in microseconds since 1970.
    fn started_us(&self) -> u64;
    /// The type of the script's file and its modification time in microseconds since 1970.
    fn script_file(&self) -> (FileKind, u64);
    /// The user and group that own the script's file.
    fn script_owner(&self) -> (u32, u32);
    /// Whether `Options ExecCGI` or one of our aliases allows the script to run.
    fn may_run_script(&self) -> bool;
    /// Whether one of our aliases mapped the URL to the script.
    fn is_aliased(&self) -> bool;
    /// Whether AcceptPathInfo is Off.
    fn rejects_path_info(&self) -> bool;
    /// LimitRequestBody; 0 means no limit.
    fn body_limit(&self) -> u64;
    /// LogLevel of our module for this request.
    fn log_level(&self) -> u8;
    /// The unique ids of request and connection (`%L`).
    fn log_ids(&self) -> (Option<&'r [u8]>, Option<&'r [u8]>);
    /// Whether the connection uses TLS.
    fn is_https(&self) -> bool;
    /// Whether the connection is one stream of a multiplexed connection (HTTP/2).
    fn is_stream(&self) -> bool;
    /// Whether the method is GET or HEAD.
    fn is_get(&self) -> bool;
    /// Whether an output filter needs the body of a HEAD response to compute its header fields.
    fn head_needs_body(&self) -> bool;
    /// Whether the client waits for `100 Continue`.
    fn expects_continue(&self) -> bool;

    /// A note.
    fn note(&self, name: &CStr) -> Option<&'r [u8]>;
    /// A header field of the request.
    fn header(&self, name: &CStr) -> Option<&'r [u8]>;
    /// A variable of the environment.
    fn env(&self, name: &CStr) -> Option<&'r [u8]>;
    /// Sets a variable of the environment.
    fn set_env(&mut self, name: &'static CStr, value: &[u8]);
    /// Removes a variable of the environment.
    fn unset_env(&mut self, name: &CStr);
    /// All variables of the environment, in order.
    fn each_env(&self) -> impl Iterator<Item = (&'r [u8], &'r [u8])>;
    /// Adds httpd's own variables: header fields, server, connection, `REDIRECT_*`.
    fn add_common_vars(&mut self);

    /// Writes a log message of ours.
    fn log(&self, level: Level, code: Code, text: &str);
    /// Sets a header field that error responses carry too.
    fn set_error_header(&mut self, name: &'static CStr, value: &str);
    /// Discards the application's status line, so that httpd can send an error response.
    fn reset_status(&mut self);
    /// Continues with another local URL, as a GET request.
    fn redirect_internally(&mut self, url: &[u8]);
}

/// A C string of the bytes before the first NUL.
#[must_use]
pub fn c_string(text: &[u8]) -> CString {
    CString::new(text.split(|b| *b == 0).next().unwrap_or_default()).unwrap_or_default()
}
