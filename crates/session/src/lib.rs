//! Sessions: what is kept of a visitor between requests.
//!
//! Responsible for: identifiers, records, the engines that keep them (memory, disk), locks per session, and the choice of an engine from what
//! the MPM says of itself. Must never: see a cookie or a request, or keep an identifier where it can be read. Called by:
//! `src/session` in httpd's children; other engines (httpd's socache) implement [`Engine`].
//!
//! * [`id`]: identifiers, and the keys that are made of them.
//! * [`engine`]: the trait, records, errors.
//! * [`disk`], [`memory`]: the engines of this crate; [`owner`]: who may keep sessions in memory.
//! * [`lock`]: one lock a session, over all processes.
//! * [`choice`]: which engine, and why.
//! * [`place`]: the directory of a store; [`stop`]: the signal that ends every wait.
//! * [`store_locks`]: who writes to a store on disk, and how long the others wait.
//! * [`store`]: all of it together; [`visit`]: those that nobody uses.
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
