//! The dynamic table (RFC 7541 §2.3.2, §4): first in, first out, bounded in bytes.

use std::ops::Range;

/// What every entry counts beyond its bytes (RFC 7541 §4.1).
const OVERHEAD: usize = 32;

/// Entries are numbered in the order of their insertion; numbers wrap. `M` is what an end keeps with each.
///
/// Names and values lie behind each other in one buffer. Removed entries leave their bytes at its front; when it is full, the rest moves
/// there. That is at most twice the table's size, and one copy per byte inserted.
pub(super) struct Table<M> {
    bytes: Vec<u8>,
    /// The position of the buffer's first byte among all bytes ever inserted; wraps.
    base: u32,
    /// A ring: the entry of a number is at `number & (ring.len() - 1)`.
    ring: Vec<Entry<M>>,
    /// The number of the next entry.
    next: u32,
    count: u32,
    size: usize,
    max: usize,
}

#[derive(Clone, Copy, Default)]
struct Entry<M> {
    start: u32,
    name: u32,
    value: u32,
    meta: M,
}

/// Which entries a table holds: as long as it is the same, the same block means the same fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TableState {
    next: u32,
    count: u32,
}

/// Where an entry's name comes from.
#[derive(Clone, Copy)]
pub(super) enum NameFrom<'a> {
    Text(&'a [u8]),
    /// That of an entry of the same table, which the insertion may remove.
    Entry(u32),
}

impl<M: Copy + Default> Table<M> {
    /// Takes no memory yet.
    pub(super) fn new(max: usize) -> Self {
        Self { bytes: Vec::new(), base: 0, ring: Vec::new(), next: 0, count: 0, size: 0, max }
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.count as usize
    }

    /// Which entries there are.
    #[inline]
    pub(super) fn state(&self) -> TableState {
        TableState { next: self.next, count: self.count }
    }

    /// The number of the entry at an index of the dynamic table: 0 is the newest.
    #[inline]
    pub(super) fn number(&self, index: usize) -> Option<u32> {
        (index < self.count as usize).then(|| self.next.wrapping_sub(1).wrapping_sub(index as u32))
    }

    /// The index of a number: 0 is the newest. `None`: it is no longer there, or never was.
    #[inline]
    pub(super) fn index(&self, number: u32) -> Option<usize> {
        let index = self.next.wrapping_sub(1).wrapping_sub(number);
        (index < self.count).then_some(index as usize)
    }

    /// Name and value of an entry that is there.
    #[inline]
    pub(super) fn line(&self, number: u32) -> (&[u8], &[u8], M) {
        let entry = self.entry(number);
        let Range { start, end } = self.text(entry);
        let (name, value) = self.bytes[start..end].split_at(entry.name as usize);
        (name, value, entry.meta)
    }

    /// The value of an entry that is there, and what is kept with it, to be changed.
    #[inline]
    pub(super) fn value_of(&mut self, number: u32) -> (&[u8], &mut M) {
        let at = self.slot(number);
        let entry = &mut self.ring[at];
        let start = entry.start.wrapping_add(entry.name).wrapping_sub(self.base) as usize;
        (&self.bytes[start..start + entry.value as usize], &mut entry.meta)
    }

    #[inline]
    pub(super) fn meta(&mut self, number: u32) -> &mut M {
        let at = self.slot(number);
        &mut self.ring[at].meta
    }

    /// Changes the bound and removes what is beyond it.
    pub(super) fn set_max(&mut self, max: usize) {
        self.max = max;
        self.evict(0);
    }

    /// What an entry counts.
    pub(super) fn cost(name: usize, value: usize) -> usize {
        name + value + OVERHEAD
    }

    /// Adds an entry and removes the oldest to make room; its number. `None`: it is larger than the table, which is now empty
    /// (RFC 7541 §4.4).
    pub(super) fn insert(&mut self, name: NameFrom<'_>, value: &[u8], meta: M) -> Option<u32> {
        let name_length = match name {
            NameFrom::Text(text) => text.len(),
            NameFrom::Entry(number) => self.entry(number).name as usize,
        };
        let cost = Self::cost(name_length, value.len());
        if cost > self.max {
            self.evict(self.max);
            return None;
        }
        // The bytes come first: the name may be that of an entry that has to go.
        self.make_room(name_length + value.len());
        let start = self.base.wrapping_add(self.bytes.len() as u32);
        match name {
            NameFrom::Text(text) => self.bytes.extend_from_slice(text),
            NameFrom::Entry(number) => {
                let from = self.text(self.entry(number)).start;
                self.bytes.extend_from_within(from..from + name_length);
            }
        }
        self.bytes.extend_from_slice(value);
        self.evict(cost);
        if self.count as usize == self.ring.len() {
            self.grow_ring();
        }
        let number = self.next;
        let at = self.slot(number);
        self.ring[at] = Entry { start, name: name_length as u32, value: value.len() as u32, meta };
        self.next = number.wrapping_add(1);
        self.count += 1;
        self.size += cost;
        Some(number)
    }

    /// Removes the oldest until there is room for `cost`, which is no more than the bound.
    fn evict(&mut self, cost: usize) {
        while self.size + cost > self.max {
            let oldest = self.entry(self.next.wrapping_sub(self.count));
            self.size -= Self::cost(oldest.name as usize, oldest.value as usize);
            self.count -= 1;
        }
    }

    /// Room for so many bytes behind the last.
    fn make_room(&mut self, need: usize) {
        let (length, room) = (self.bytes.len(), self.bytes.capacity());
        if length + need <= room {
            return;
        }
        let dead =
            if self.count == 0 { length } else { self.text(self.entry(self.next.wrapping_sub(self.count))).start };
        if dead * 2 >= length || room >= self.max * 2 {
            self.bytes.drain(..dead);
            self.base = self.base.wrapping_add(dead as u32);
        }
        let length = self.bytes.len();
        if length + need > self.bytes.capacity() {
            let room = (room * 2).min(self.max * 2).max(length + need).max(256);
            self.bytes.reserve_exact(room - length);
        }
    }

    #[cold]
    fn grow_ring(&mut self) {
        let mut ring = vec![Entry::default(); (self.ring.len() * 2).max(8)];
        let mask = ring.len() - 1;
        for index in 0..self.count {
            let number = self.next.wrapping_sub(1).wrapping_sub(index);
            ring[number as usize & mask] = self.entry(number);
        }
        self.ring = ring;
    }

    #[inline]
    fn slot(&self, number: u32) -> usize {
        number as usize & self.ring.len().wrapping_sub(1)
    }

    #[inline]
    fn entry(&self, number: u32) -> Entry<M> {
        self.ring[self.slot(number)]
    }

    /// Where in the buffer name and value are.
    #[inline]
    fn text(&self, entry: Entry<M>) -> Range<usize> {
        let start = entry.start.wrapping_sub(self.base) as usize;
        start..start + (entry.name + entry.value) as usize
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.size
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.bytes.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(table: &Table<u8>) -> Vec<(Vec<u8>, Vec<u8>, u8)> {
        let line = |index| {
            let (name, value, meta) = table.line(table.number(index).unwrap());
            (name.to_vec(), value.to_vec(), meta)
        };
        (0..table.len()).map(line).collect()
    }

    #[test]
    fn an_entry_may_take_its_name_from_one_that_it_evicts() {
        let mut table = Table::new(Table::<u8>::cost(4, 60));
        let first = table.insert(NameFrom::Text(b"name"), &[b'a'; 60], 1).unwrap();
        let second = table.insert(NameFrom::Entry(first), &[b'b'; 60], 2).unwrap();
        assert_eq!(lines(&table), [(b"name".to_vec(), vec![b'b'; 60], 2)]);
        assert_eq!((table.index(first), table.index(second)), (None, Some(0)));
        assert_eq!(table.insert(NameFrom::Entry(second), &[b'c'; 61], 3), None);
        assert_eq!((table.len(), table.size()), (0, 0));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Insert(Vec<u8>, Vec<u8>),
        Again(usize, Vec<u8>),
        Max(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let bytes = |most| prop::collection::vec(any::<u8>(), 0..most);
        prop_oneof![
            6 => (bytes(20), bytes(120)).prop_map(|(name, value)| Step::Insert(name, value)),
            3 => (0usize..40, bytes(120)).prop_map(|(index, value)| Step::Again(index, value)),
            1 => (0usize..600).prop_map(Step::Max),
        ]
    }

    proptest! {
        /// The same as a plain list, with positions that wrap, and within twice its bound.
        #[test]
        fn it_is_a_bounded_list(steps in prop::collection::vec(step(), 1..200), near_wrap: bool) {
            let mut table = Table::<u8>::new(500);
            if near_wrap {
                table.base = u32::MAX - 300;
                table.next = u32::MAX - 3;
            }
            let mut model: Vec<(Vec<u8>, Vec<u8>, u8)> = Vec::new();
            let mut largest = 500;
            for (at, step) in steps.into_iter().enumerate() {
                let meta = at as u8;
                match step {
                    Step::Insert(name, value) => {
                        table.insert(NameFrom::Text(&name), &value, meta);
                        model.insert(0, (name, value, meta));
                    }
                    Step::Again(index, value) => if let Some(number) = table.number(index) {
                        table.insert(NameFrom::Entry(number), &value, meta);
                        model.insert(0, (model[index].0.clone(), value, meta));
                    }
                    Step::Max(max) => table.set_max(max),
                }
                largest = largest.max(table.max());
                while model.iter().map(|(n, v, _)| Table::<u8>::cost(n.len(), v.len())).sum::<usize>() > table.max() {
                    model.pop();
                }
                prop_assert_eq!(lines(&table), model.clone());
                prop_assert!(table.size() <= table.max());
                prop_assert!(table.memory() <= largest * 2 + 256);
            }
        }
    }
}
