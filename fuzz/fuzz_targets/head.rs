//! Heads: what is accepted can never split a response.
#![no_main]
use drover_wire::head::Head;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(head) = Head::decode(bytes) else { return };
    assert!((100..=999).contains(&head.status));
    for (name, value) in head.fields.flatten() {
        assert!(!name.is_empty());
        assert!(!name.iter().chain(value).any(|b| matches!(b, b'\r' | b'\n' | 0)));
    }
});
