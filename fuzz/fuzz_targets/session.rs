//! Session operations as httpd gets them from a worker, and answers as the worker gets them:
//! whatever is understood can be written again and is then the same, and stays within its limits.
#![no_main]
use drover_wire::session::{MAX_KEY, MAX_SESSION, Opened, Request, decode_bool, decode_key};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, &[u8])| {
    let (code, payload) = input;
    if let Ok(request) = Request::decode(code, payload) {
        let mut again = Vec::new();
        request.encode(&mut again).expect("what was read can be written");
        if let Request::Save(save) = &request {
            assert!(save.key.is_none_or(|key| (1..=MAX_KEY).contains(&key.len())));
            again.extend_from_slice(save.data);
        }
        assert!(again.len() <= MAX_SESSION);
        assert_eq!((request.op() as u16, &again[..]), (code, payload));
    }
    if let Ok(opened) = Opened::decode(payload) {
        let mut again = Vec::new();
        opened.encode(&mut again).expect("what was read can be written");
        again.extend_from_slice(opened.record.map_or(&[], |record| record.data));
        assert_eq!(again, payload);
    }
    let _ = (decode_key(payload), decode_bool(payload));
});
