//! Processes: their start, their signals, and the users that they run as.
//!
//! Responsible for: the calls around fork(2) and execve(2) that std does not make. Must never:
//! decide which process runs when. Called by: the module at start, droverd.
//!
//! * [`spawn`]: fork and exec of a worker.
//! * [`inherited`]: descriptors that a program was started with.
//! * [`signals`]: signals as a descriptor.
//! * [`users`]: the databases of users and groups.
//! * [`bury`]: closing a socket together with a process.
//! * [`credentials`]: the process at the other end of a Unix socket.
pub mod bury;
pub mod credentials;
pub mod inherited;
pub mod signals;
pub mod spawn;
pub mod users;
