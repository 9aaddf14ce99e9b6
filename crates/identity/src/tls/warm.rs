//! Ciphers made ready. One takes 600 bytes for tables that the key alone gives in a quarter of a microsecond, too much for
//! connections that rest. Each thread keeps those of the connections that it used last.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::aead::LessSafeKey;
use rustls::Error;

/// Ciphers kept by a thread: two for each connection.
const KEPT: usize = 1024;

thread_local! {
    static WARM: RefCell<Warm> = const { RefCell::new(Warm { slots: Vec::new(), free: Vec::new(), hand: 0 }) };
}

/// Where a cipher is, if it still is there.
#[derive(Debug, Default)]
pub(super) struct Place {
    slot: usize,
    /// Never the same twice in a process, so that no place ever leads to the cipher of another. 0: none.
    owner: u64,
}

struct Warm {
    slots: Vec<Slot>,
    free: Vec<usize>,
    hand: usize,
}

#[derive(Default)]
struct Slot {
    owner: u64,
    used: bool,
    cipher: Option<LessSafeKey>,
}

impl Place {
    /// Lets `act` use the cipher, made anew if it is not there.
    pub(super) fn with<T>(
        &mut self,
        make: impl Fn() -> Result<LessSafeKey, Error>,
        act: impl FnOnce(&LessSafeKey) -> T,
    ) -> Result<T, Error> {
        let act = &mut Some(act);
        let mut once = |cipher: &LessSafeKey| act.take().map(|act| act(cipher));
        let done = WARM.try_with(|warm| {
            let warm = &mut *warm.borrow_mut();
            if warm.slots.get(self.slot).is_none_or(|slot| slot.owner != self.owner || self.owner == 0) {
                (self.slot, self.owner) = warm.keep(make()?);
            }
            let slot = &mut warm.slots[self.slot];
            slot.used = true;
            Ok(slot.cipher.as_ref().and_then(&mut once))
        });
        match done {
            Ok(Ok(Some(done))) => Ok(done),
            Ok(Err(error)) => Err(error),
            // The thread ends.
            _ => once(&make()?).ok_or(Error::EncryptError),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = WARM.try_with(|warm| {
            let warm = &mut *warm.borrow_mut();
            if let Some(slot) = warm.slots.get_mut(self.slot).filter(|slot| self.owner != 0 && slot.owner == self.owner)
            {
                *slot = Slot::default();
                warm.free.push(self.slot);
            }
        });
    }
}

impl Warm {
    fn keep(&mut self, cipher: LessSafeKey) -> (usize, u64) {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let owner = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        let slot = self.room();
        self.slots[slot] = Slot { owner, used: true, cipher: Some(cipher) };
        (slot, owner)
    }

    /// A slot of nobody, else of somebody who has not used it since the hand came by.
    fn room(&mut self) -> usize {
        if let Some(slot) = self.free.pop() {
            return slot;
        }
        if self.slots.len() < KEPT {
            self.slots.push(Slot::default());
            return self.slots.len() - 1;
        }
        loop {
            self.hand = (self.hand + 1) % self.slots.len();
            if !std::mem::take(&mut self.slots[self.hand].used) {
                return self.hand;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::aead::{AES_128_GCM, Aad, Nonce, UnboundKey};

    use super::*;

    fn cipher(n: u16) -> LessSafeKey {
        let mut key = [0; 16];
        key[..2].copy_from_slice(&n.to_be_bytes());
        LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).unwrap())
    }

    fn tag(cipher: &LessSafeKey) -> [u8; 16] {
        let mut tag = [0; 16];
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        cipher.seal_in_place_scatter(nonce, Aad::empty(), &mut [], &[], &mut tag).unwrap();
        tag
    }

    /// Whoever comes, in whatever order and on whatever thread, finds its own.
    #[test]
    fn everybody_finds_his_own() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut places: Vec<Place> = (0..3 * KEPT).map(|_| Place::default()).collect();
        let right: Vec<_> = (0..places.len()).map(|n| tag(&cipher(n as u16))).collect();
        for round in 0..6 {
            let use_some = |places: &mut Vec<Place>, rng: &mut fastrand::Rng| {
                for _ in 0..5 * KEPT {
                    let n = rng.usize(..places.len());
                    assert_eq!(places[n].with(|| Ok(cipher(n as u16)), tag).unwrap(), right[n]);
                    if rng.u8(..) < 10 {
                        places[n] = Place::default();
                    }
                }
            };
            if round % 2 == 0 {
                use_some(&mut places, &mut rng);
            } else {
                std::thread::scope(|scope| {
                    scope.spawn(|| use_some(&mut places, &mut rng));
                });
            }
        }
        WARM.with_borrow(|warm| assert!(warm.slots.len() <= KEPT));
        drop(places);
        WARM.with_borrow(|warm| assert!(warm.slots.iter().filter(|slot| slot.cipher.is_some()).count() <= KEPT));
    }

    #[test]
    fn nothing_is_kept_of_who_is_gone() {
        let mut place = Place::default();
        place.with(|| Ok(cipher(1)), tag).unwrap();
        let slot = place.slot;
        drop(place);
        WARM.with_borrow(|warm| assert!(warm.slots[slot].cipher.is_none()));
    }
}
