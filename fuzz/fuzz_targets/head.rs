//! The head of an answer, as httpd gets it from a worker: what is accepted can never split a
//! response.
#![no_main]
use drover_wire::head::{Head, begin, field};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(head) = Head::decode(bytes) else { return };
    assert!((100..=999).contains(&head.status));
    assert!(!head.reason.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)));
    let fields: Vec<_> = head.fields.flatten().collect();
    for (name, value) in &fields {
        assert!(!name.is_empty());
        assert!(!name.iter().chain(*value).any(|b| matches!(b, b'\r' | b'\n' | 0)));
        assert!(!name.iter().any(|b| matches!(b, b':' | b' ' | b'\t')));
    }
    let mut again = Vec::new();
    begin(&mut again, head.status, head.reason, fields.len() as u16).expect("what was read can be written");
    for (name, value) in &fields {
        field(&mut again, name, value).expect("what was read can be written");
    }
    let head = Head::decode(&again).expect("what was written can be read");
    assert_eq!(head.fields.flatten().collect::<Vec<_>>(), fields);
});
