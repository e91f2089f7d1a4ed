//! What a worker writes to its standard output: no line grows without bound, none is lost, and none
//! holds what a terminal would obey.
#![no_main]
use libfuzzer_sys::fuzz_target;

#[path = "../../crates/supervisor/src/workers/lines.rs"]
mod lines;

fuzz_target!(|input: (u8, &[u8])| {
    let (step, bytes) = input;
    let (mut held, mut count, mut text) = (0, 0, String::new());
    let mut lines = lines::Lines::default();
    let mut take = |line: &[u8]| {
        assert!(line.len() <= lines::LONGEST);
        (held, count) = (held + line.len(), count + 1);
        lines::printable(line, &mut text);
    };
    for read in bytes.chunks(usize::from(step).max(1)) {
        lines.push(read, &mut take);
    }
    lines.end(&mut take);
    assert!(held <= bytes.len() && held + 2 * count + 1 >= bytes.len(), "{held} bytes in {count} lines of {}", bytes.len());
    assert!(!text.chars().any(|c| c.is_control() && c != '\t'));
});
