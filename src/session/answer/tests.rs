//! Tests of `answer`: what is prefetched, and who owns the lock then.
use super::*;
use crate::config::SessionOptions;
use crate::session::plan;
use crate::session::predictor::Predictor;
use drover_session::{Asked, Engine, Figures, Limits, Stop, Swept, choice::Mpm};
use drover_sys::token::{self, Board, LIVES_S, Token};
use drover_wire::request::{AHEAD_BY_KEY, Prefix};
use std::sync::Arc;

const LIMITS: Limits = Limits { disk_bytes: 64 << 20, memory_bytes: 8 << 20, data_bytes: 1 << 20, always_sync: false };

/// An engine that has nothing: LMDB cannot have one file open twice in a process.
struct Nothing;

impl Engine for Nothing {
    fn load(&self, _: &Key, _: u64) -> Result<Option<Record>, Error> {
        Ok(None)
    }
    fn put(&self, _: &Key, _: &Record, _: drover_session::Put, _: u64) -> Result<(), Error> {
        Ok(())
    }
    fn touch(&self, _: &Key, _: u64) -> Result<(), Error> {
        Ok(())
    }
    fn remove(&self, _: &Key, _: u64) -> Result<bool, Error> {
        Ok(false)
    }
    fn sweep(&self, _: u64, _: usize) -> Result<Swept, Error> {
        Ok(Swept::default())
    }
    fn sync(&self) -> Result<(), Error> {
        Ok(())
    }
    fn figures(&self) -> Result<Figures, Error> {
        Ok(Figures { sessions: 0, bytes: 0 })
    }
}

/// One child of httpd with a store on disk; the second stands for another child: it has the locks of the same directory.
struct Rig {
    settings: Settings,
    stores: [&'static Sessions; 2],
    predictor: Predictor,
    board: Arc<Board>,
    _dir: tempfile::TempDir,
}

/// The cookie of all these requests.
const NAME: &str = "drover_session";
/// Their scope.
const SCOPE: &[u8] = b"group\0shop";

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = crate::config::ServerConfig {
            session: SessionOptions { asked: Some(Asked::Disk), ..SessionOptions::default() },
            ..Default::default()
        };
        let mpm = Mpm { threaded: true, forked: true, max_daemons: 4 };
        let settings = plan::plan(&[&server], mpm, dir.path()).unwrap().servers.remove(0).unwrap();
        let first = Sessions::disk(dir.path(), LIMITS, &Stop::never(), &|text| panic!("{text}")).unwrap();
        let second = Sessions::with_engine(dir.path(), LIMITS, &Stop::never(), &|text| panic!("{text}"), Box::new(Nothing)).unwrap();
        // Sessions live as long as their process.
        let stores = [first, second].map(|store| -> &'static Sessions { Box::leak(Box::new(store)) });
        let board = Arc::new(Board::map(token::create().unwrap()).unwrap());
        Self { settings, stores, predictor: Predictor::default(), board, _dir: dir }
    }

    /// A client's session with these data: its cookie.
    fn client(&self, data: &[u8]) -> Vec<u8> {
        let id = Id::new().unwrap();
        let now = now_ms();
        let record = Record { created_ms: now, accessed_ms: now - 1_000_000, timeout_s: 1800, data: data.to_vec() };
        self.stores[0].put(&Key::derive(SCOPE, &id), &record, drover_session::Put::Create, now).unwrap();
        format!("other=1; {}={}", NAME, id.as_str()).into_bytes()
    }

    fn entry(&self) -> Entry<'_> {
        self.predictor.entry(&"/cart").unwrap()
    }

    fn request<'c>(&'c self, find: Find<'c>) -> RequestSession<'c> {
        RequestSession::new(&self.settings, find, Some(self.entry()), (SCOPE.to_vec(), NAME.to_owned()), false, None)
    }

    /// Prefetches: returns the request's flags and the token, and appends the answer to `out`.
    fn prefetch(&self, request: &mut RequestSession<'_>, cookies: Option<&[u8]>, out: &mut Vec<u8>) -> (u16, Option<Token>) {
        let mut prefix = Prefix::default();
        request.prefetch(cookies, Some(&self.board), &mut prefix, out);
        (prefix.flags, (prefix.token != 0).then_some(Token { place: prefix.token_place, number: prefix.token }))
    }
}

/// What a request asks, and how it is answered.
fn ask(session: &mut RequestSession<'_>, request: &Request<'_>, cookies: Option<&[u8]>) -> Answered {
    let mut payload = Vec::new();
    request.encode(&mut payload).unwrap();
    if let Request::Save(save) = request {
        payload.extend_from_slice(save.data);
    }
    let mut never = || false;
    session.answer(request.op() as u16, &payload, Now { cookies, head_sent: false, cancelled: &mut never }).unwrap()
}

const OPEN: Request<'static> = Request::Open { key: None, lock: true };

fn save(data: &[u8]) -> Request<'_> {
    Request::Save(Save {
        key: None,
        put: Put::Any,
        timeout_s: 0,
        created_ms: 0,
        cookie: false,
        replaces: None,
        no_reply: true,
        keep_lock: true,
        data,
    })
}

fn data_of(answered: Answered) -> Option<Vec<u8>> {
    let Answered::Reply(Status::Ok, payload) = answered else { panic!("{answered:?}") };
    Opened::decode(&payload).unwrap().record.map(|record| record.data.to_vec())
}

/// Whether another request can have the session's lock now, in this child or in another.
fn is_free(rig: &Rig, child: usize, cookie: &[u8]) -> bool {
    let find: Find<'_> = &|| Ok(rig.stores[child]);
    let settings = Settings { lock_timeout_ns: 0, ..rig.settings.clone() };
    let mut other = RequestSession::new(&settings, find, None, (SCOPE.to_vec(), NAME.to_owned()), false, None);
    matches!(ask(&mut other, &OPEN, Some(cookie)), Answered::Reply(Status::Ok, _))
}

#[test]
fn only_what_was_used_before_is_prefetched() {
    let rig = Rig::new();
    let cookie = rig.client(b"{}");
    let find: Find<'_> = &|| Ok(rig.stores[0]);
    let mut out = Vec::new();
    assert!(rig.prefetch(&mut rig.request(find), Some(&cookie), &mut out).1.is_none() && out.is_empty());
    // A request that asks is what tells.
    assert_eq!(data_of(ask(&mut rig.request(find), &OPEN, Some(&cookie))), Some(b"{}".to_vec()));
    let mut next = rig.request(find);
    assert!(rig.prefetch(&mut next, Some(&cookie), &mut out).1.is_some());
    let opened = Opened::decode(&out).unwrap();
    assert_eq!((opened.record.unwrap().data, opened.engine), (&b"{}"[..], "disk"));
    assert!(cookie.ends_with(opened.id.unwrap().as_bytes()));
    // Without a cookie, or with one that names nothing, that there is no session.
    for cookie in [None, Some(&b"drover=none"[..]), Some(&format!("{}={}", NAME, Id::new().unwrap().as_str()).into_bytes())] {
        let mut out = Vec::new();
        assert!(rig.prefetch(&mut rig.request(find), cookie, &mut out).1.is_none());
        assert_eq!((Opened::decode(&out).unwrap().id, Opened::decode(&out).unwrap().record), (None, None), "{cookie:?}");
    }
    // After enough misses it is prefetched no more.
    for _ in 0..9 {
        let mut request = rig.request(find);
        let _ = rig.prefetch(&mut request, Some(&cookie), &mut Vec::new());
        request.release();
    }
    out.clear();
    assert!(rig.prefetch(&mut rig.request(find), Some(&cookie), &mut out).1.is_none() && out.is_empty());
}

#[test]
fn a_cookie_of_the_applications_own_is_learnt() {
    let rig = Rig::new();
    let find: Find<'_> = &|| Ok(rig.stores[0]);
    let ours = rig.client(b"{}");
    let key = std::str::from_utf8(ours.rsplit(|b| *b == b'=').next().unwrap()).unwrap().to_owned();
    let cookie = format!("csrftoken=1; sessionid={key}").into_bytes();
    rig.entry().hit(false);
    let mut out = Vec::new();
    assert_eq!(rig.prefetch(&mut rig.request(find), Some(&cookie), &mut out), (0, None));
    assert_eq!(Opened::decode(&out).unwrap().id, None);
    let _ = ask(&mut rig.request(find), &Request::Open { key: Some(&key), lock: true }, Some(&cookie));
    out.clear();
    let (flags, token) = rig.prefetch(&mut rig.request(find), Some(&cookie), &mut out);
    assert!(flags == AHEAD_BY_KEY && token.is_some());
    assert_eq!(Opened::decode(&out).unwrap().id, Some(key.as_str()));
    out.clear();
    let (flags, token) = rig.prefetch(&mut rig.request(find), Some(&ours), &mut out);
    assert!(flags == 0 && token.is_some(), "ours stays ours");
}

#[test]
fn a_read_blocks_nobody() {
    let rig = Rig::new();
    let cookie = rig.client(b"{}");
    let find: Find<'_> = &|| Ok(rig.stores[0]);
    rig.entry().hit(false);
    let (mut request, mut out) = (rig.request(find), Vec::new());
    assert!(rig.prefetch(&mut request, Some(&cookie), &mut out).1.is_none() && !out.is_empty());
    assert!(is_free(&rig, 0, &cookie) && is_free(&rig, 1, &cookie));
    assert!(matches!(ask(&mut request, &Request::Used { lock: false }, Some(&cookie)), Answered::Nothing));
    assert!(request.take_log_name().is_some() && !request.has_changed());
    // It had not been used for long: that it is used is noted.
    let sent = Opened::decode(&out).unwrap().record.unwrap().accessed_ms;
    let key = Key::named(SCOPE, Opened::decode(&out).unwrap().id.unwrap().as_bytes()).unwrap();
    assert!(rig.stores[0].load(&key, now_ms()).unwrap().unwrap().accessed_ms > sent);
}

#[test]
fn the_lock_goes_to_who_takes_the_token() {
    let rig = Rig::new();
    let cookie = rig.client(b"{}");
    let find: Find<'_> = &|| Ok(rig.stores[0]);
    rig.entry().hit(true);
    // The worker takes it: nobody else has it until the request is over.
    let mut request = rig.request(find);
    let token = rig.prefetch(&mut request, Some(&cookie), &mut Vec::new()).1.unwrap();
    assert!(!is_free(&rig, 1, &cookie));
    assert!(rig.board.take(token));
    assert!(!is_free(&rig, 0, &cookie) && !is_free(&rig, 1, &cookie));
    request.withdraw_lease(true);
    let key = std::str::from_utf8(cookie.rsplit(|b| *b == b'=').next().unwrap()).unwrap();
    let Request::Save(new) = save(b"{\"n\":1}") else { unreachable!() };
    assert!(matches!(ask(&mut request, &Request::Save(Save { key: Some(key), ..new }), Some(&cookie)), Answered::Nothing));
    assert!(!is_free(&rig, 0, &cookie) && !is_free(&rig, 1, &cookie));
    request.release();
    assert!(is_free(&rig, 0, &cookie) && is_free(&rig, 1, &cookie));
    // Another request of the child wants it first: then the worker has to ask, and waits.
    let mut request = rig.request(find);
    let token = rig.prefetch(&mut request, Some(&cookie), &mut Vec::new()).1.unwrap();
    let mut other = rig.request(find);
    assert_eq!(data_of(ask(&mut other, &OPEN, Some(&cookie))), Some(b"{\"n\":1}".to_vec()));
    assert!(!rig.board.take(token));
    drop(other);
    assert_eq!(data_of(ask(&mut request, &OPEN, Some(&cookie))), Some(b"{\"n\":1}".to_vec()));
    assert!(!is_free(&rig, 0, &cookie));
    drop(request);
    // Another child wants it: it is withdrawn when its time is over.
    let mut request = rig.request(find);
    let token = rig.prefetch(&mut request, Some(&cookie), &mut Vec::new()).1.unwrap();
    request.withdraw_lease(false);
    assert!(!is_free(&rig, 1, &cookie), "its time is not over");
    request.withdraw_lease(true);
    assert!(is_free(&rig, 1, &cookie) && !rig.board.take(token));
    // Nobody wants it, or it goes back.
    let mut request = rig.request(find);
    let token = rig.prefetch(&mut request, Some(&cookie), &mut Vec::new()).1.unwrap();
    let _ = ask(&mut request, &Request::Used { lock: false }, Some(&cookie));
    assert!(is_free(&rig, 1, &cookie) && !rig.board.take(token));
    let mut request = rig.request(find);
    rig.entry().hit(true);
    let token = rig.prefetch(&mut request, Some(&cookie), &mut Vec::new()).1.unwrap();
    drop(request);
    assert!(is_free(&rig, 1, &cookie) && !rig.board.take(token));
}

#[test]
fn a_lease_ends_after_a_while_although_nobody_waits() {
    let rig = Rig::new();
    let dir = tempfile::tempdir().unwrap();
    let alone: &'static Sessions =
        Box::leak(Box::new(Sessions::memory(dir.path(), LIMITS, &Stop::never(), &|text| panic!("{text}")).unwrap()));
    let find: Find<'_> = &|| Ok(alone);
    let id = Id::new().unwrap();
    let record = Record { created_ms: 1, accessed_ms: now_ms(), timeout_s: 1800, data: b"{}".to_vec() };
    alone.put(&Key::derive(SCOPE, &id), &record, drover_session::Put::Create, now_ms()).unwrap();
    let cookie = format!("{NAME}={}", id.as_str()).into_bytes();
    for taken in [false, true] {
        rig.entry().hit(true);
        let mut request = rig.request(find);
        let token = rig.prefetch(&mut request, Some(&cookie), &mut Vec::new()).1.unwrap();
        request.withdraw_lease(true);
        assert!(request.lease_check_at() > request.lease.as_ref().map(|sent| sent.sent_at), "it is looked at again");
        assert!(!taken || rig.board.take(token));
        request.lease.as_mut().unwrap().sent_at -= LIVES_S * 1_000_000_000;
        request.withdraw_lease(true);
        assert_eq!((request.lease_check_at(), request.held.len()), (None, usize::from(taken)));
        assert!(!rig.board.take(token));
    }
}

#[test]
fn a_change_without_the_lock_ends_the_lease() {
    let rig = Rig::new();
    let cookie = rig.client(b"{}");
    let find: Find<'_> = &|| Ok(rig.stores[0]);
    let key = std::str::from_utf8(cookie.rsplit(|b| *b == b'=').next().unwrap()).unwrap();
    let Request::Save(new) = save(b"{\"n\":2}") else { unreachable!() };
    let save = Request::Save(Save { key: Some(key), keep_lock: false, ..new });
    for change in [save, Request::Remove { key: Some(key), cookie: false }] {
        rig.entry().hit(true);
        let mut request = rig.request(find);
        let token = rig.prefetch(&mut request, Some(&cookie), &mut Vec::new()).1.unwrap();
        let _ = ask(&mut rig.request(find), &change, Some(&cookie));
        assert!(!rig.board.take(token), "{change:?}");
    }
}

#[test]
fn a_cookie_with_a_max_age_is_renewed() {
    let mut rig = Rig::new();
    rig.settings.cookie.max_age = Some(600);
    let [used, ahead, foreign] = [(); 3].map(|()| rig.client(b"{}"));
    let name = |cookie: &[u8]| String::from_utf8_lossy(cookie.rsplit(|b| *b == b'=').next().unwrap()).into_owned();
    let find: Find<'_> = &|| Ok(rig.stores[0]);
    let asked = |request: &Request<'_>, cookie: &[u8]| {
        let mut session = rig.request(find);
        let _ = ask(&mut session, request, Some(cookie));
        session.take_cookie()
    };
    // Its time has moved since it was made; at once afterwards it has not.
    let given = asked(&OPEN, &used).unwrap();
    assert!(given.contains(&name(&used)) && given.contains("Max-Age=600"), "{given}");
    assert_eq!(asked(&OPEN, &used), None);
    // A change is worth it always.
    let key = name(&used);
    let Request::Save(new) = save(b"{\"n\":1}") else { unreachable!() };
    assert!(asked(&Request::Open { key: None, lock: false }, &used).is_none());
    let mut session = rig.request(find);
    let _ = ask(&mut session, &OPEN, Some(&used));
    let _ = ask(&mut session, &Request::Save(Save { key: Some(&key), ..new }), Some(&used));
    assert!(session.take_cookie().is_some_and(|cookie| cookie.contains(&key)));
    drop(session);
    // A prefetched session counts when it is used.
    rig.entry().hit(false);
    let mut session = rig.request(find);
    let _ = rig.prefetch(&mut session, Some(&ahead), &mut Vec::new());
    assert_eq!(session.take_cookie(), None);
    let _ = ask(&mut session, &Request::Used { lock: false }, Some(&ahead));
    assert!(session.take_cookie().is_some_and(|cookie| cookie.contains(&name(&ahead))));
    drop(session);
    // A session that the application names has a cookie of the application's.
    assert_eq!(asked(&Request::Open { key: Some(&name(&foreign)), lock: true }, b"x=1"), None);
    // Without an end there is nothing to renew.
    rig.settings.cookie.max_age = None;
    let find: Find<'_> = &|| Ok(rig.stores[0]);
    let mut session = rig.request(find);
    let _ = ask(&mut session, &OPEN, Some(&foreign));
    assert_eq!(session.take_cookie(), None);
}

/// What httpd pays: `cargo test --release --lib -- --ignored --nocapture costs_of_httpd`.
#[test]
#[ignore = "measures"]
fn costs_of_httpd() {
    let rig = Rig::new();
    let cookie = rig.client(&[b'x'; 250]);
    let key = std::str::from_utf8(cookie.rsplit(|b| *b == b'=').next().unwrap()).unwrap();
    let memory: &'static Sessions = {
        let dir = Box::leak(Box::new(tempfile::tempdir().unwrap()));
        Box::leak(Box::new(Sessions::memory(dir.path(), LIMITS, &Stop::never(), &|text| panic!("{text}")).unwrap()))
    };
    let now = now_ms();
    let record = Record { created_ms: now, accessed_ms: now, timeout_s: 1800, data: vec![b'x'; 250] };
    memory.put(&Key::named(SCOPE, key.as_bytes()).unwrap(), &record, drover_session::Put::Any, now).unwrap();
    for (name, store) in [("memory", memory), ("disk", rig.stores[0])] {
        let find: Find<'_> = &|| Ok(store);
        for lock in [false, true] {
            let start = std::time::Instant::now();
            let times = 100_000;
            for _ in 0..times {
                rig.entry().hit(lock);
                let mut out = Vec::with_capacity(1000);
                let mut request = rig.request(find);
                let (_, token) = rig.prefetch(&mut request, Some(&cookie), &mut out);
                if let Some(token) = token {
                    assert!(rig.board.take(token));
                    let Request::Save(new) = save(&[b'x'; 250]) else { unreachable!() };
                    let _ = ask(&mut request, &Request::Save(Save { key: Some(key), ..new }), Some(&cookie));
                } else {
                    let _ = ask(&mut request, &Request::Used { lock }, Some(&cookie));
                }
            }
            println!("{name}, {}: {:.2} us", if lock { "changed" } else { "read" }, start.elapsed().as_secs_f64() * 1e6 / f64::from(times));
        }
    }
}

#[test]
fn a_question_that_is_too_large_is_refused_without_its_data() {
    let rig = Rig::new();
    let find: Find<'_> = &|| Ok(rig.stores[0]);
    let mut request = rig.request(find);
    let most = request.largest_question(true);
    assert!(most > rig.settings.max_size as usize && request.largest_question(false) < most);
    let mut save = |first, len| request.refuse(Op::Save as u16, first, len);
    let Ok(Answered::Reply(Status::TooLarge, text)) = save(0, 16 << 20) else { panic!("it is told") };
    assert!(String::from_utf8(text).unwrap().contains("16777216"));
    // The same, of a save that waits for no answer.
    let quiet = Request::Save(Save {
        key: None,
        put: Put::Any,
        timeout_s: 0,
        created_ms: 0,
        cookie: true,
        replaces: None,
        no_reply: true,
        keep_lock: false,
        data: b"",
    });
    let mut bytes = Vec::new();
    quiet.encode(&mut bytes).unwrap();
    assert!(matches!(save(bytes[0], 16 << 20), Ok(Answered::Failed(Error::TooLarge(..)))));
    // One that would fit, if httpd had memory for it.
    assert!(matches!(save(0, most as u32), Ok(Answered::Reply(Status::Unavailable, _))));
    assert!(request.refuse(Op::Open as u16, 0, 1 << 20).is_err(), "no other question is large");
}
