//! Control messages: no panic, no allocation by an unchecked length.
#![no_main]
use drover_wire::control::{Configuration, FromWorker, OpenQueue, OpenReply, ToSupervisor, ToWorker, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = decode::<ToSupervisor>(bytes);
    let _ = decode::<Configuration>(bytes);
    let _ = decode::<OpenQueue>(bytes);
    let _ = decode::<OpenReply>(bytes);
    let _ = decode::<ToWorker>(bytes);
    let _ = decode::<FromWorker>(bytes);
});
