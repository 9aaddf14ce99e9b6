//! The encoder's way from a field to its entry.

use super::Pseudo;
use crate::name::Name;

/// Finds numbers of entries by hash. It is a cache and not a map: it forgets what falls on the same place as four others, and never
/// learns that an entry is gone. The caller compares what it finds. So a lookup takes the same few steps whatever the fields are, also
/// when somebody chooses them to collide.
pub(super) struct Index {
    /// Groups of [`WAYS`].
    slots: Box<[Slot]>,
    /// The newest entry of each name that has a [`Key`].
    newest: [u32; Key::COUNT],
}

/// A name's number among fields and pseudo-fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key(u8);

#[derive(Clone, Copy, Default)]
struct Slot {
    hash: u32,
    number: u32,
}

const WAYS: usize = 4;

impl Index {
    /// For a table of at most so many bytes.
    pub(super) fn new(table: usize) -> Self {
        // An entry takes two places, one for its name, and seldom has less than 64 bytes.
        let places = (table / 32).next_power_of_two().clamp(64, 4096);
        // No entry has that number for the first 4 billion, and thereafter comparing tells.
        Self { slots: vec![Slot { hash: 0, number: u32::MAX }; places].into(), newest: [u32::MAX; Key::COUNT] }
    }

    #[inline]
    pub(super) fn newest(&self, key: Key) -> u32 {
        self.newest[key.0 as usize]
    }

    #[inline]
    pub(super) fn set_newest(&mut self, key: Key, number: u32) {
        self.newest[key.0 as usize] = number;
    }

    /// The first with this hash that is the one.
    #[inline]
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let (group, hash) = self.place(hash);
        let group = &self.slots[group..group + WAYS];
        group.iter().find(|slot| slot.hash == hash && is_it(slot.number)).map(|slot| slot.number)
    }

    /// Remembers a number in place of `old` or else of the oldest of its group.
    pub(super) fn put(&mut self, hash: u64, number: u32, old: Option<u32>) {
        let (group, hash) = self.place(hash);
        let group = &mut self.slots[group..group + WAYS];
        let same = old.and_then(|old| group.iter().position(|slot| slot.hash == hash && slot.number == old));
        let oldest = || (0..WAYS).max_by_key(|at| number.wrapping_sub(group[*at].number)).unwrap_or(0);
        let at = same.unwrap_or_else(oldest);
        group[at] = Slot { hash, number };
    }

    #[inline]
    fn place(&self, hash: u64) -> (usize, u32) {
        let groups = self.slots.len() / WAYS;
        ((hash as usize & (groups - 1)) * WAYS, (hash >> 32) as u32)
    }
}

impl Key {
    /// That of all names without a number.
    pub(super) const OTHER: Key = Key(Name::Other as u8);
    const COUNT: usize = Name::ALL.len() + 1 + Pseudo::ALL.len();

    #[inline]
    pub(super) fn field(name: Name) -> Self {
        Key(name as u8)
    }

    #[inline]
    pub(super) fn pseudo(pseudo: Pseudo) -> Self {
        Key(Name::ALL.len() as u8 + 1 + pseudo as u8)
    }

    /// What stands for the name in place of its hash.
    #[inline]
    pub(super) fn hash(self) -> u64 {
        u64::from(self.0)
    }
}

impl Default for Key {
    fn default() -> Self {
        Key::OTHER
    }
}

/// A cheap hash of bytes on top of another: who finds collisions gains nothing (see [`Index`]).
#[inline]
pub(super) fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mut hash = mix(seed ^ 0x2d35_8dcc_aa6c_78a5, bytes.len() as u64 ^ 0x8bb8_4b93_962e_acc9);
    let mut rest = bytes;
    while let Some((chunk, after)) = rest.split_first_chunk::<8>() {
        hash = mix(hash ^ u64::from_le_bytes(*chunk), 0x4b33_a62e_d433_d4a3);
        rest = after;
    }
    if !rest.is_empty() {
        // The last eight bytes again where there are so many, which costs no loop.
        let last = bytes.last_chunk::<8>().map_or_else(|| few(rest), |last| u64::from_le_bytes(*last));
        hash = mix(hash ^ last, 0x4d5a_2da5_1de1_aa47);
    }
    hash
}

/// Up to seven bytes as one number; their count is hashed already.
#[inline]
fn few(bytes: &[u8]) -> u64 {
    match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>(), bytes) {
        (Some(first), Some(last), _) => {
            u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last))
        }
        (_, _, [first, .., last]) => {
            u64::from(bytes[bytes.len() / 2]) << 16 | u64::from(*first) << 8 | u64::from(*last)
        }
        (_, _, [only]) => u64::from(*only),
        _ => 0,
    }
}

#[inline]
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}
