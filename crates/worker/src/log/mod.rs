//! What the worker and its application write: log lines, standard streams, tracebacks, stacks.

pub mod dump;
pub mod level;
pub mod restrict;
pub mod stderr;
pub mod stream;
pub mod streams;
pub mod traceback;
