//! httpd's log levels that the worker uses.

/// httpd's level "error".
pub const ERROR: u16 = 3;
/// httpd's level "warn".
pub const WARNING: u16 = 4;
/// httpd's level "info".
pub const INFO: u16 = 6;
