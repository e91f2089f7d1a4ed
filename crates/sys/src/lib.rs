//! The kernel calls that neither httpd nor Python makes for us.
//!
//! Responsible for: socket pairs, descriptor passing, waiting, memory files, clocks. Must never: hold a policy, retry without
//! bound, leave a descriptor open over exec. Called by: the module, droverd, the worker.
#![deny(unsafe_code)]

pub mod channel;
pub mod clock;
pub mod memfile;
pub mod wait;
