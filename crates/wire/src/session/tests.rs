//! Tests of `session`: every message survives a round trip, and nothing else is accepted.
use super::*;
use proptest::prelude::*;

fn bytes(request: &Request<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    request.encode(&mut out).unwrap();
    if let Request::Save(save) = request {
        out.extend_from_slice(save.data);
    }
    out
}

fn save(data: &[u8]) -> Save<'_> {
    Save { key: None, put: Put::Any, timeout_s: 0, created_ms: 0, cookie: false, replaces: None, no_reply: false, keep_lock: false, data }
}

#[test]
fn each_operation_survives_a_round_trip() {
    for request in [
        Request::Open { key: None, lock: true },
        Request::Open { key: Some("abc"), lock: false },
        Request::Save(save(b"data")),
        Request::Remove { key: Some("abc"), cookie: true },
        Request::Remove { key: None, cookie: false },
        Request::Exists { key: "abc" },
        Request::Lock { key: None },
        Request::Unlock { key: Some("abc") },
        Request::Used { lock: true },
    ] {
        let payload = bytes(&request);
        assert_eq!(Request::decode(request.op() as u16, &payload), Ok(request));
    }
}

#[test]
fn what_no_worker_sends_is_refused() {
    for (code, payload, error) in [
        (0, &b""[..], WireError::Bad("session operation")),
        (8, b"", WireError::Bad("session operation")),
        (7, b"\x02", WireError::Bad("flag")),
        (1, b"", WireError::Short("flag")),
        (1, b"\x02\0\0", WireError::Bad("flag")),
        (1, b"\x01", WireError::Short("session key")),
        (1, b"\x01\0\0x", WireError::Bad("bytes behind a session's message")),
        (4, b"\0\0", WireError::Bad("session key")),
        (5, b"\x01\0\xff", WireError::Bad("session key")),
        (2, b"\x08\0", WireError::Bad("flags")),
        (2, b"\0\x03", WireError::Bad("condition")),
    ] {
        assert_eq!(Request::decode(code, payload), Err(error), "{code} {payload:?}");
    }
    let long = [&(MAX_KEY as u16 + 1).to_ne_bytes()[..], &[b'a'; MAX_KEY + 1]].concat();
    assert_eq!(Request::decode(4, &long), Err(WireError::TooLarge("session key")));
}

#[test]
fn limits_hold_when_writing() {
    let (long, large) = ("a".repeat(MAX_KEY + 1), vec![0; MAX_DATA + 1]);
    let mut out = Vec::new();
    assert_eq!(Request::Exists { key: &long }.encode(&mut out), Err(WireError::TooLarge("session key")));
    assert_eq!(Request::Exists { key: "" }.encode(&mut out), Err(WireError::Bad("session key")));
    assert_eq!(Request::Save(save(&large)).encode(&mut out), Err(WireError::TooLarge("session data")));
    let full = Save { key: Some(&long[1..]), replaces: Some(&long[1..]), data: &large[1..], ..save(b"") };
    assert!(bytes(&Request::Save(full)).len() <= MAX_SESSION);
}

#[test]
fn keys_are_plain() {
    for (text, good) in [("a", true), ("Az09_-", true), ("", false), ("a b", false), ("ä", false), ("a/b", false)] {
        assert_eq!(is_key(text), good, "{text}");
    }
    assert!(is_key(&"a".repeat(MAX_KEY)) && !is_key(&"a".repeat(MAX_KEY + 1)));
}

#[test]
fn texts_are_cut_between_characters() {
    assert_eq!(error_text("why"), "why");
    assert_eq!(error_text(&"ä".repeat(400)).len(), MAX_TEXT);
    assert_eq!(error_text(&format!("x{}", "ä".repeat(400))).len(), MAX_TEXT - 1);
}

#[test]
fn short_answers_come_back() {
    let mut out = Vec::new();
    encode_key(&mut out, "abc").unwrap();
    assert_eq!(decode_key(&out), Ok("abc"));
    assert_eq!(decode_key(b"\0\0"), Err(WireError::Bad("session key")));
    for yes in [true, false] {
        let mut out = Vec::new();
        encode_bool(&mut out, yes);
        assert_eq!(decode_bool(&out), Ok(yes));
    }
    assert_eq!(decode_bool(b"\0\0"), Err(WireError::Bad("bytes behind a session's message")));
    assert_eq!(Status::from_code(Status::Full as u16), Status::Full);
    assert_eq!(Status::from_code(77), Status::Unavailable);
}

fn key() -> impl Strategy<Value = Option<String>> {
    proptest::option::of("[A-Za-z0-9_-]{1,128}")
}

proptest! {
    #[test]
    fn saves_come_back((key, replaces) in (key(), key()), put in 0u8..3, timeout_s: u32, created_ms: u64, flags in 0u8..8,
                       data in proptest::collection::vec(any::<u8>(), 0..300)) {
        let put = [Put::Create, Put::Replace, Put::Any][usize::from(put)];
        let (cookie, no_reply, keep_lock) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
        let save = Save { key: key.as_deref(), put, timeout_s, created_ms, cookie, replaces: replaces.as_deref(), no_reply, keep_lock, data: &data };
        let payload = bytes(&Request::Save(save));
        prop_assert_eq!(Request::decode(Op::Save as u16, &payload), Ok(Request::Save(save)));
    }

    #[test]
    fn what_was_opened_comes_back(id in key(), default_timeout_s: u32, max_size: u32, engine in "[a-z:]{0,40}", serializer in 0u8..3,
                                  record in proptest::option::of((any::<u64>(), any::<u64>(), any::<u32>(), proptest::collection::vec(any::<u8>(), 0..300)))) {
        let serializer = [Serializer::Json, Serializer::Pickle, Serializer::Msgpack][usize::from(serializer)];
        let record = record.as_ref().map(|(created_ms, accessed_ms, timeout_s, data)| {
            Stored { created_ms: *created_ms, accessed_ms: *accessed_ms, timeout_s: *timeout_s, data }
        });
        let opened = Opened { id: id.as_deref(), default_timeout_s, serializer, max_size, engine: &engine, record };
        let mut out = Vec::new();
        opened.encode(&mut out).unwrap();
        out.extend_from_slice(record.map_or(&[], |r| r.data));
        prop_assert_eq!(Opened::decode(&out), Ok(opened));
    }

    #[test]
    fn never_panics(code in 0u16..9, bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = (Request::decode(code, &bytes), Opened::decode(&bytes), decode_key(&bytes), decode_bool(&bytes));
    }

    #[test]
    fn a_cut_front_is_an_error(cut in 1usize..20) {
        let whole = bytes(&Request::Save(Save { key: Some("abc"), ..save(b"") }));
        prop_assert!(Request::decode(2, &whole[..whole.len() - cut.min(whole.len())]).is_err());
    }
}
