//! Rooms of sections that are gone: what held one head holds the next of the same thread, so that a head costs no allocation.

use std::cell::RefCell;

use super::{Field, Fields, Names};

/// Rooms that a thread keeps: as many as there are heads under way in one of its turns.
const KEPT: usize = 64;
/// Bytes and fields of a new room: most heads never need more.
const BYTES: usize = 768;
const FIELDS: usize = 16;
/// A larger buffer served an unusual head, and is not kept.
const KEPT_BYTES: usize = 8 * 1024;

thread_local! {
    static ROOMS: RefCell<Vec<(Vec<u8>, Vec<Field>)>> = const { RefCell::new(Vec::new()) };
}

/// An empty section with room.
pub(super) fn take() -> Fields {
    // Nothing is kept any more while the thread ends.
    let kept = ROOMS.try_with(|rooms| rooms.borrow_mut().pop()).ok().flatten();
    match kept {
        Some((text, list)) => Fields { text, list, names: Names::default() },
        None => Fields::with_capacity(BYTES, FIELDS),
    }
}

/// Keeps the room of a section that nobody needs any more.
pub(super) fn give(fields: &mut Fields) {
    if !(1..=KEPT_BYTES).contains(&fields.text.capacity()) || fields.list.capacity() == 0 {
        return;
    }
    let _ = ROOMS.try_with(|rooms| {
        let mut rooms = rooms.borrow_mut();
        if rooms.len() < KEPT {
            fields.clear();
            rooms.push((std::mem::take(&mut fields.text), std::mem::take(&mut fields.list)));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Name;

    #[test]
    fn the_next_section_uses_the_room_of_the_last() {
        let mut fields = Fields::roomy();
        fields.push(Name::Host, b"a");
        let place = fields.text.as_ptr();
        drop(fields);
        let next = Fields::roomy();
        assert!(next.is_empty());
        assert_eq!(next.text.as_ptr(), place);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let many: Vec<Fields> = (0..2 * KEPT).map(|_| Fields::roomy()).collect();
        drop(many);
        drop(Fields::with_capacity(KEPT_BYTES + 1, FIELDS));
        ROOMS.with_borrow(|rooms| {
            assert_eq!(rooms.len(), KEPT);
            assert!(rooms.iter().all(|(text, _)| text.capacity() <= KEPT_BYTES));
        });
    }
}
