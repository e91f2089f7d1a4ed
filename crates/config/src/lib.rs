//! The configuration: from the bytes of a directive to what each process is given.
//!
//! Responsible for: everything that an administrator can write for this module, its defaults, its
//! documentation and what follows from it. Must never: do I/O, read a clock, or name a type of
//! httpd. Questions about the machine go through [`resolved::System`]. Called by: the module, which
//! re-exports it as `crate::config` and `crate::resolved`, and the fuzz targets.
//!
//! In reading order:
//!
//! * `directives`: the tables of directives and options, the values that they set, the generated
//!   documentation. Its names are re-exported here.
//! * [`resolved`]: the groups, for droverd and for the requests.
//! * [`sessions`]: the session stores and the settings of each server.
#![forbid(unsafe_code)]

mod directives;
pub mod resolved;
pub mod sessions;

pub use directives::*;
