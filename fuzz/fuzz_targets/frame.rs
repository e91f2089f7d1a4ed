//! Frames on the way back: no panic, no endless loop, no event beyond what was given.
#![no_main]
use drover_wire::frame::Deframer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u32, &[u8])| {
    let (number, mut rest) = input;
    let mut deframer = Deframer::new(number);
    while let Ok(Some((_, used))) = deframer.next(rest) {
        assert!(used > 0 && used <= rest.len());
        rest = &rest[used..];
    }
});
