//! The store in which queues outlive droverd.
//!
//! The store is a SEQPACKET socket pair whose two ends httpd's parent keeps open and never reads.
//! Each queue is one message in it: the names, with both ends of the queue and its shared memory as
//! descriptors. The kernel keeps what is sent to one end until it is read from the other. A new
//! droverd reads the store and has every queue with all waiting requests.
//!
//! Responsible for: losing no queue whenever droverd is killed. A round through the store peeks at
//! each message (MSG_PEEK), sends it again and only then removes it. If droverd is killed in
//! between, the message is there twice, which the next reader detects by its name. A marker sent
//! first shows where the round ends; markers of killed droverds are discarded.
use crate::control::plan::PoolKey;
use drover_sys::Errno;
use drover_sys::channel::{packet_pair, receive, send, set_send_buffer};
use drover_sys::peek::peek;
use drover_sys::token;
use drover_wire::control::{Bytes, Script, decode, encode};
use rustix::net::sockopt::socket_send_buffer_size;
use rustix::net::{Shutdown, shutdown};
use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};

const MARK: u8 = 0;
const QUEUE: u8 = 1;
/// A record has at most three paths or names, none of which is nearly as long.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;
const ROOM: usize = 4 << 20;
const QUEUE_ROOM: usize = 4 << 20;

/// Kind, marker number, group, application group, and the path and callable of the script that
/// opened the queue.
type Record = (u8, u64, Bytes, Bytes, Bytes, Bytes);

/// Both ends of a queue.
#[derive(Debug)]
pub struct Queue {
    pub send: OwnedFd,
    pub receive: OwnedFd,
    /// Shared memory for its requests ([`drover_sys::token`]).
    pub tokens: OwnedFd,
}

impl Queue {
    /// Creates an empty queue.
    pub fn new() -> Result<Self, Errno> {
        let (send, receive) = packet_pair()?;
        set_send_buffer(&send, QUEUE_ROOM);
        // Nobody reads that end. Closing data that workers left in it could block
        // (`channel::discard`).
        shutdown(&send, Shutdown::Read)?;
        Ok(Self { send, receive, tokens: token::create()? })
    }
}

#[derive(Debug)]
pub struct Stored {
    pub key: PoolKey,
    pub script: Script,
    pub queue: Queue,
}

#[derive(Debug)]
pub struct Store {
    read: OwnedFd,
    write: OwnedFd,
    /// The store's capacity. [`Store::put`] leaves a quarter free, so that a round has space for
    /// its marker and one duplicate message.
    room: usize,
}

impl Store {
    pub fn new(read: OwnedFd, write: OwnedFd) -> Self {
        set_send_buffer(&write, ROOM);
        // The kernel reports twice the size that was set (socket(7)).
        let room = socket_send_buffer_size(&write).map_or(ROOM, |doubled| doubled / 2);
        Self { read, write, room }
    }

    /// Adds a queue.
    pub fn put(&self, key: &PoolKey, script: &Script, queue: &Queue) -> Result<(), Errno> {
        let record: Record = (QUEUE, 0, key.group.clone(), key.application.clone(), script.path.clone(), script.callable.clone());
        let bytes = encode(&record).map_err(|_| Errno::INVAL)?;
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Err(Errno::MSGSIZE);
        }
        set_send_buffer(&self.write, self.room / 4 * 3);
        self.append(&bytes, queue)
    }

    fn append(&self, record: &[u8], queue: &Queue) -> Result<(), Errno> {
        let fds = [queue.send.as_fd(), queue.receive.as_fd(), queue.tokens.as_fd()];
        send(&self.write, &[record], &fds, false).map(drop)
    }

    /// Replaces a queue.
    pub fn replace(&self, key: &PoolKey, script: &Script, queue: &Queue) -> Result<(), Errno> {
        // A queue that is missing for the moment is opened again on demand.
        self.round(|k| k != key)?;
        self.put(key, script, queue)
    }

    /// Goes once through the store. Queues for which `keep` is true stay and are returned; all
    /// others are discarded.
    pub fn round(&self, mut keep: impl FnMut(&PoolKey) -> bool) -> Result<Vec<Stored>, Errno> {
        let mark = drover_sys::clock::realtime_ns();
        let last: Record = (MARK, mark, vec![], vec![], vec![], vec![]);
        let last = encode(&last).map_err(|_| Errno::INVAL)?;
        let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
        let mut buffer = vec![0; MAX_MESSAGE_BYTES];
        set_send_buffer(&self.write, self.room);
        send(&self.write, &[&last], &[], false)?;
        loop {
            let mut fds = Vec::new();
            let n = peek(&self.read, &mut buffer, &mut fds);
            let n = match n {
                // Not a valid message: discard it.
                Err(Errno::MSGSIZE) => 0,
                other => other?,
            };
            let bytes = buffer.get(..n).unwrap_or_default();
            let record = decode::<Record>(bytes).ok();
            let mut ends = fds.into_iter();
            let ends = (ends.next(), ends.next(), ends.next());
            let mut ours = false;
            match (record, ends) {
                (Some((MARK, number, ..)), _) => ours = number == mark,
                (Some((QUEUE, _, group, application, path, callable)), (Some(send), Some(receive), Some(tokens))) => {
                    let key = PoolKey { group, application };
                    if keep(&key) && seen.insert(key.clone()) {
                        let queue = Queue { send, receive, tokens };
                        self.append(bytes, &queue)?;
                        found.push(Stored { key, script: Script { path, callable }, queue });
                    }
                }
                _ => {}
            }
            // Removed only now. Its descriptors are copies and are closed here.
            match receive(&self.read, &mut buffer, &mut Vec::new(), false) {
                Ok(_) | Err(Errno::MSGSIZE) => {}
                Err(e) => return Err(e),
            }
            if ours {
                return Ok(found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_sys::channel::cookie;
    use drover_sys::token::Board;

    fn key(name: &str) -> PoolKey {
        PoolKey { group: name.into(), application: b"app".to_vec() }
    }

    fn names(stored: &[Stored]) -> Vec<String> {
        stored.iter().map(|s| String::from_utf8(s.key.group.clone()).unwrap()).collect()
    }

    #[test]
    fn a_full_store_can_still_be_read() {
        let (write, read) = packet_pair().unwrap();
        let mut store = Store::new(read, write);
        store.room = 60_000;
        let script = Script { path: vec![b'p'; 5000], callable: vec![] };
        let queue = Queue::new().unwrap();
        let put = (0..1000).take_while(|n| store.put(&key(&n.to_string()), &script, &queue).is_ok()).count();
        assert!((2..900).contains(&put), "{put}");
        for _ in 0..3 {
            assert_eq!(store.round(|_| true).unwrap().len(), put);
        }
    }

    #[test]
    fn queues_and_what_waits_in_them_outlive_their_maker() {
        let (write, read) = packet_pair().unwrap();
        let (parent_write, parent_read) = (write.try_clone().unwrap(), read.try_clone().unwrap());
        let store = Store::new(read, write);
        let script = Script { path: b"/a.wsgi".to_vec(), callable: b"application".to_vec() };
        let (mut cookies, mut tokens) = (Vec::new(), Vec::new());
        for name in ["a", "b", "c"] {
            let queue = Queue::new().unwrap();
            cookies.push(cookie(&queue.receive).unwrap());
            tokens.push(Board::map(&queue.tokens).unwrap().put(0).unwrap());
            store.put(&key(name), &script, &queue).unwrap();
            send(&queue.send, &[name.as_bytes()], &[], false).unwrap();
        }
        // A droverd killed in the middle of a round left a marker and a duplicate queue.
        let left: Record = (MARK, 1, vec![], vec![], vec![], vec![]);
        send(&store.write, &[&encode(&left).unwrap()], &[], false).unwrap();
        let mut found = store.round(|_| true).unwrap();
        let again = found.remove(0);
        store.put(&again.key, &again.script, &again.queue).unwrap();
        send(&store.write, &[b"rubbish"], &[], false).unwrap();
        drop((store, found, again));

        let store = Store::new(parent_read, parent_write);
        let found = store.round(|k| k.group != b"b").unwrap();
        assert_eq!(names(&found), ["a", "c"]);
        assert_eq!(cookie(&found[1].queue.receive).unwrap(), cookies[2]);
        assert!(Board::map(&found[1].queue.tokens).unwrap().take(tokens[2]), "its memory too");
        assert_eq!(found[0].script, script);
        let mut buffer = [0; 8];
        assert_eq!(receive(&found[0].queue.receive, &mut buffer, &mut Vec::new(), false).unwrap(), 1);
        assert_eq!(&buffer[..1], b"a");
        assert_eq!(names(&store.round(|_| true).unwrap()), ["a", "c"]);
        let queue = Queue::new().unwrap();
        let new = cookie(&queue.receive).unwrap();
        store.replace(&key("a"), &script, &queue).unwrap();
        let found = store.round(|_| true).unwrap();
        assert_eq!((names(&found), cookie(&found[1].queue.receive)), (vec!["c".to_owned(), "a".to_owned()], Ok(new)));
        assert_eq!(store.round(|_| false).unwrap().len(), 0);
        assert_eq!(store.round(|_| true).unwrap().len(), 0);
    }
}
