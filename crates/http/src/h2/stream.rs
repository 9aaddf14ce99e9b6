//! Streams, and the map in which they are found.

use crate::Method;

/// A stream of a connection, from its first head until the engine forgets it.
#[derive(Debug)]
pub(super) struct Stream<S> {
    pub id: u32,
    /// What we may send. Below zero when the peer has made its initial window smaller (RFC 9113 §6.9.2).
    pub send_window: i32,
    /// What the peer may send.
    pub receive_window: i32,
    /// Released and not yet told to the peer.
    pub released: u32,
    /// Handed out and not yet released.
    pub held: u32,
    /// Bytes of the body that the peer's content-length promises and that have not come; [`UNKNOWN`] without one.
    pub promised: u64,
    pub local: Half,
    pub remote: Half,
    /// `data` could not take all.
    pub blocked: bool,
    /// Stands in the queue of streams that can go on as soon as connection and output permit.
    pub queued: bool,
    /// Of a client's request: whether its response has a body depends on it.
    pub method: Method,
    pub state: Option<S>,
}

/// One direction of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    /// No final head was sent or received.
    Head,
    /// Data or trailers may follow.
    Body,
    /// END_STREAM or RST_STREAM was.
    Closed,
}

/// No entry of the table.
const NOTHING: (u32, u32) = (0, u32::MAX);

/// No content-length.
pub(super) const UNKNOWN: u64 = u64::MAX;

impl<S> Stream<S> {
    pub(super) fn new(id: u32, send_window: u32, receive_window: u32) -> Self {
        Self {
            id,
            // Both are at most 2³¹ − 1.
            send_window: send_window as i32,
            receive_window: receive_window as i32,
            released: 0,
            held: 0,
            promised: UNKNOWN,
            local: Half::Head,
            remote: Half::Head,
            blocked: false,
            queued: false,
            method: Method::Get,
            state: None,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.local == Half::Closed && self.remote == Half::Closed
    }

    /// Counts data against the content-length; whether they fit.
    pub(super) fn count_body(&mut self, bytes: usize, end: bool) -> bool {
        if self.promised == UNKNOWN {
            return true;
        }
        match self.promised.checked_sub(bytes as u64) {
            Some(left) if !end || left == 0 => {
                self.promised = left;
                true
            }
            _ => false,
        }
    }
}

/// Streams by their id.
///
/// A slab whose places are used again, and a hash table of small entries with open addressing: the ids are numbers that the peer or
/// we count up, so one multiplication spreads them, and no entry is ever allocated on its own.
#[derive(Debug)]
pub(super) struct Streams<S> {
    slab: Vec<Option<Stream<S>>>,
    free: Vec<u32>,
    /// Id (0: empty) and place in the slab. A power of two, at most half full.
    table: Vec<(u32, u32)>,
    count: usize,
    /// The entry that was found last: what happens to a stream at once asks for it many times.
    last: (u32, u32),
}

impl<S> Default for Streams<S> {
    fn default() -> Self {
        Self { slab: Vec::new(), free: Vec::new(), table: Vec::new(), count: 0, last: NOTHING }
    }
}

impl<S> Streams<S> {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    #[inline]
    pub(super) fn get(&mut self, id: u32) -> Option<&mut Stream<S>> {
        if self.last.0 != id {
            self.last = self.table[self.find(id)?];
        }
        self.slab.get_mut(self.last.1 as usize)?.as_mut()
    }

    /// Adds a stream whose id is not in the map.
    pub(super) fn insert(&mut self, stream: Stream<S>) -> &mut Stream<S> {
        if (self.count + 1) * 2 > self.table.len() {
            self.grow();
        }
        let id = stream.id;
        let place = self.free.pop().unwrap_or_else(|| {
            self.slab.push(None);
            (self.slab.len() - 1) as u32
        });
        self.enter(id, place);
        self.last = (id, place);
        self.count += 1;
        self.slab[place as usize].insert(stream)
    }

    pub(super) fn remove(&mut self, id: u32) -> Option<Stream<S>> {
        let mut hole = self.find(id)?;
        let (_, place) = self.table[hole];
        // Entries behind the hole that could not stand where they belong move up, so that no search stops too early.
        let mask = self.table.len() - 1;
        let mut next = hole;
        loop {
            next = (next + 1) & mask;
            let (other, _) = self.table[next];
            if other == 0 {
                break;
            }
            let home = self.home(other);
            if (next.wrapping_sub(home) & mask) >= (next.wrapping_sub(hole) & mask) {
                self.table[hole] = self.table[next];
                hole = next;
            }
        }
        self.table[hole] = (0, 0);
        self.last = NOTHING;
        self.count -= 1;
        self.free.push(place);
        self.slab[place as usize].take()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream<S>> {
        self.slab.iter_mut().flatten()
    }

    /// Gives all room back when there is no stream.
    pub(super) fn shrink(&mut self) {
        if self.count == 0 {
            *self = Self::default();
        }
    }

    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.slab.capacity() + self.free.capacity() + self.table.capacity()
    }

    fn find(&self, id: u32) -> Option<usize> {
        if self.count == 0 || id == 0 {
            return None;
        }
        let mask = self.table.len() - 1;
        let mut at = self.home(id);
        loop {
            match self.table[at].0 {
                0 => return None,
                found if found == id => return Some(at),
                _ => at = (at + 1) & mask,
            }
        }
    }

    fn enter(&mut self, id: u32, place: u32) {
        let mask = self.table.len() - 1;
        let mut at = self.home(id);
        while self.table[at].0 != 0 {
            at = (at + 1) & mask;
        }
        self.table[at] = (id, place);
    }

    /// Where an id belongs (Fibonacci hashing). The table is not empty.
    fn home(&self, id: u32) -> usize {
        let bits = self.table.len().trailing_zeros();
        (id.wrapping_mul(0x9E37_79B1) >> (32 - bits)) as usize
    }

    fn grow(&mut self) {
        let larger = (self.table.len() * 2).max(16);
        let old = std::mem::replace(&mut self.table, vec![(0, 0); larger]);
        for (id, place) in old.into_iter().filter(|(id, _)| *id != 0) {
            self.enter(id, place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_map_holds_what_a_plain_map_holds(steps in proptest::collection::vec((any::<bool>(), 0u32..200), 0..600)) {
            let mut streams = Streams::<u32>::default();
            let mut plain = BTreeMap::new();
            for (insert, number) in steps {
                let id = number * 2 + 1;
                if insert && !plain.contains_key(&id) {
                    streams.insert(Stream::new(id, 0, 0)).state = Some(number);
                    plain.insert(id, number);
                } else if !insert {
                    let removed = streams.remove(id).and_then(|stream| stream.state);
                    prop_assert_eq!(removed, plain.remove(&id));
                }
                prop_assert_eq!(streams.len(), plain.len());
            }
            for id in 0..400 {
                prop_assert_eq!(streams.get(id).and_then(|stream| stream.state), plain.get(&id).copied());
            }
            prop_assert_eq!(streams.iter_mut().count(), plain.len());
        }
    }

    #[test]
    fn a_body_is_counted_against_what_was_promised() {
        let mut stream = Stream::<()>::new(1, 0, 0);
        assert!(stream.count_body(10, true));
        stream.promised = 10;
        assert!(stream.count_body(4, false) && !stream.count_body(5, true) && !stream.count_body(7, false));
        assert!(stream.count_body(6, true));
    }
}
