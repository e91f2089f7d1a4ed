//! mod_drover.so.
#![deny(unsafe_code)]
