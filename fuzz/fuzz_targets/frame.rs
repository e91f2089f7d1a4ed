//! Frames on a reply socket, in both directions: no panic, no endless loop, nothing beyond what was
//! given, and the same frames however the stream is cut.
#![no_main]
use drover_wire::frame::{Deframer, Event, HEADER};
use libfuzzer_sys::fuzz_target;

/// Everything the stream holds, the pieces of a body joined; what is left of the bytes; whether it
/// ended in an error.
fn read(number: u32, bytes: &[u8], step: usize) -> (Vec<(Vec<u8>, bool)>, usize, bool) {
    let (mut deframer, mut out, mut begin, mut end) = (Deframer::new(number), Vec::<(Vec<u8>, bool)>::new(), 0, 0);
    loop {
        let given = &bytes[begin..end];
        assert!(deframer.wanted(given) >= HEADER);
        match deframer.next(given) {
            Err(_) => return (out, 0, true),
            Ok(None) if end == bytes.len() => return (out, end - begin, false),
            Ok(None) => end = (end + step).min(bytes.len()),
            Ok(Some((event, used))) => {
                assert!(used > 0 && used <= given.len());
                begin += used;
                match (event, out.last_mut()) {
                    (Event::Body(piece), Some((body, true))) => body.extend_from_slice(piece),
                    (Event::Body(piece), _) => out.push((piece.to_vec(), true)),
                    (Event::Frame(header, payload), _) => {
                        assert_eq!((header.number, header.len as usize), (number, payload.len()));
                        out.push((payload.to_vec(), false));
                    }
                    (Event::Oversized(..) | Event::Skipped, _) => unreachable!("no limit is set"),
                }
            }
        }
    }
}

fuzz_target!(|input: (u32, u8, &[u8])| {
    let (number, step, bytes) = input;
    let whole = read(number, bytes, bytes.len().max(1));
    assert_eq!(whole, read(number, bytes, usize::from(step).max(1)));
});
