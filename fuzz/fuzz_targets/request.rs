//! Requests, as a worker and droverd read them from a queue: no panic, no pair outside of the
//! message.
#![no_main]
use drover_wire::request::{PREFIX, Payload, Prefix, mark_resent};
use libfuzzer_sys::fuzz_target;

fn read(bytes: &[u8]) {
    let mut marked = bytes.to_vec();
    mark_resent(&mut marked);
    let Ok(prefix) = Prefix::decode(bytes) else { return };
    assert_eq!(Prefix::decode(&prefix.encode()).as_ref(), Ok(&prefix), "a prefix survives being written and read again");
    let Some(behind) = bytes.get(PREFIX..) else { return };
    let Ok(payload) = Payload::decode(&prefix, behind) else { return };
    assert!(payload.environment.count() <= usize::from(prefix.pairs) + 1);
    let pairs: Vec<_> = payload.environment.flatten().collect();
    let held: usize = pairs.iter().map(|(name, value)| name.len() + value.len()).sum();
    assert!(held + payload.script.len() + payload.callable.len() + payload.body.len() <= behind.len());
}

fuzz_target!(|input: (bool, u16, u16, &[u8], &[u8])| {
    let (raw, flags, pairs, environment, body) = input;
    if raw {
        return read(body);
    }
    // The prefix is valid, so that the rest is reached; it may promise more or fewer
    // pairs than there are.
    let (env_len, body_len) = (environment.len() as u32, body.len() as u32);
    let prefix = Prefix { flags, pairs, env_len, body_len, ..Prefix::default() };
    read(&[&prefix.encode(), environment, body].concat());
});
