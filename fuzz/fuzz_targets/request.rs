//! Requests: no panic, no pair outside of the message.
#![no_main]
use drover_wire::request::{PREFIX, Payload, Prefix};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(prefix) = Prefix::decode(bytes) else { return };
    let Ok(payload) = Payload::decode(&prefix, &bytes[PREFIX..]) else { return };
    assert!(payload.environment.count() <= usize::from(prefix.pairs) + 1);
});
