//! Where queues outlive droverd.
//!
//! The store is a SEQPACKET pair whose two ends httpd's parent keeps open and never reads. Each queue lies in it as one message:
//! the names, and both ends of the queue and the memory of its tokens as descriptors. What is sent to the one end stays in the kernel until it is read from the
//! other; a new droverd reads it and knows every queue, with all requests that wait in them.
//!
//! Responsible for: no queue being lost whenever droverd is killed. To go through the store each message is looked at (MSG_PEEK),
//! sent again, and only then taken away: being killed between the two leaves it there twice, which the next reader notices by the
//! name. A mark sent first says where the round ends; marks of droverds that were killed are thrown away.
use crate::group::PoolKey;
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
/// A record has three paths or names in it at most; none is near this.
const LARGEST: usize = 64 * 1024;
const ROOM: usize = 4 << 20;
const QUEUE_ROOM: usize = 4 << 20;

/// Kind, number of the mark, group, application group, path and callable of the script that opened the queue.
type Record = (u8, u64, Bytes, Bytes, Bytes, Bytes);

/// Both ends of a queue.
#[derive(Debug)]
pub struct Queue {
    pub send: OwnedFd,
    pub receive: OwnedFd,
    /// Memory for tokens that go with its requests ([`drover_sys::token`]).
    pub tokens: OwnedFd,
}

impl Queue {
    /// An empty one.
    pub fn new() -> Result<Self, Errno> {
        let (send, receive) = packet_pair()?;
        set_send_buffer(&send, QUEUE_ROOM);
        // Nobody reads that end. What workers could leave in it would be closed with it, which could wait (`channel::discard`).
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
    /// What the system lets the store hold. A quarter is left free by [`Store::put`], so that a round always has room for its mark
    /// and for the one message that is there twice.
    room: usize,
}

impl Store {
    pub fn new(read: OwnedFd, write: OwnedFd) -> Self {
        set_send_buffer(&write, ROOM);
        // The kernel answers with twice what it was told (socket(7)).
        let room = socket_send_buffer_size(&write).map_or(ROOM, |doubled| doubled / 2);
        Self { read, write, room }
    }

    /// Puts a queue in.
    pub fn put(&self, key: &PoolKey, script: &Script, queue: &Queue) -> Result<(), Errno> {
        let record: Record = (QUEUE, 0, key.group.clone(), key.application.clone(), script.path.clone(), script.callable.clone());
        let bytes = encode(&record).map_err(|_| Errno::INVAL)?;
        if bytes.len() > LARGEST {
            return Err(Errno::MSGSIZE);
        }
        set_send_buffer(&self.write, self.room / 4 * 3);
        self.append(&bytes, queue)
    }

    fn append(&self, record: &[u8], queue: &Queue) -> Result<(), Errno> {
        let fds = [queue.send.as_fd(), queue.receive.as_fd(), queue.tokens.as_fd()];
        send(&self.write, &[record], &fds, false).map(drop)
    }

    /// Puts another queue in the place of one.
    pub fn replace(&self, key: &PoolKey, script: &Script, queue: &Queue) -> Result<(), Errno> {
        // What is not in there at the moment is opened anew by whoever needs it.
        self.round(|k| k != key)?;
        self.put(key, script, queue)
    }

    /// Goes once through the store: everything for which `keep` is true stays and is returned, the rest is thrown away.
    pub fn round(&self, mut keep: impl FnMut(&PoolKey) -> bool) -> Result<Vec<Stored>, Errno> {
        let mark = drover_sys::clock::realtime_ns();
        let last: Record = (MARK, mark, vec![], vec![], vec![], vec![]);
        let last = encode(&last).map_err(|_| Errno::INVAL)?;
        let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
        let mut buffer = vec![0; LARGEST];
        set_send_buffer(&self.write, self.room);
        send(&self.write, &[&last], &[], false)?;
        loop {
            let mut fds = Vec::new();
            let n = peek(&self.read, &mut buffer, &mut fds);
            let n = match n {
                // Not a message of ours: it goes.
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
            // Taken away only now. Its descriptors are copies and are closed here.
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
        // A droverd that was killed in the middle of a round has left a mark and one queue twice.
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
