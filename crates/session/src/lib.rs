//! Sessions: data that an application keeps for a client between requests.
//!
//! Responsible for: identifiers, records, the engines that store them (memory, disk), one lock per session, and the choice of an
//! engine from what the MPM reports. Must never: see a cookie or a request, or store an identifier in readable form. Called by:
//! `src/session` in httpd's child processes; other engines (httpd's socache) implement [`Engine`].
//!
//! * [`id`]: identifiers, and the keys derived from them.
//! * [`engine`]: the trait and records; [`error`]: what can go wrong.
//! * [`disk`], [`memory`]: the engines of this crate; [`owner`]: which process may keep sessions in memory.
//! * [`lock`]: one lock per session, across all processes.
//! * [`choice`]: which engine is used, and why.
//! * [`store_directory`]: the directory of a store; [`store_locks`]: its writer lock and reader lock.
//! * [`stop`]: the signal that ends every wait.
//! * [`store`]: an engine and its locks; [`orphan`]: the sweep of stores that no process uses.
#![warn(missing_docs, unreachable_pub)]

pub mod choice;
pub mod disk;
pub mod engine;
pub mod error;
pub mod id;
pub mod lock;
pub mod memory;
pub mod orphan;
pub mod owner;
pub mod stop;
pub mod store;
pub mod store_directory;
pub mod store_locks;
mod walk;

pub use choice::{Asked, Choice, Kept, Refused, choose};
pub use engine::{Engine, Figures, Put, Record, Swept};
pub use error::Error;
pub use id::{Id, Key};
pub use lock::{Guard, Lease};
pub use stop::Stop;
pub use store::{Limits, Sessions, Tending};
