//! One slow clock for all relays of a thread, so that none needs a timer of its own or asks what time it is.
//!
//! A relay registers once. When it has moved bytes it says so, at most once per beat; a second later, at the beat, it is
//! woken to tell its meter. Those that said nothing for their idle time are woken to end. Without traffic the clock
//! sleeps until the first of them could be idle.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use tokio::runtime::{self, Handle};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

/// Between the first byte that was not told and the telling, in seconds.
const BEAT: u32 = 1;

thread_local! {
    /// One per runtime: in a simulation, many hosts with clocks of their own share a thread.
    static PULSES: RefCell<Vec<Rc<Pulse>>> = const { RefCell::new(Vec::new()) };
}

/// A place in the pulse of this thread's runtime; left when dropped.
pub(super) struct Place {
    pulse: Rc<Pulse>,
    index: usize,
}

/// Why a relay was woken, if it was by the pulse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// It was not.
    None,
    /// To tell its meter what it moved.
    Tell,
    /// Nothing was moved for the idle time.
    Idle,
}

/// What a relay learns at the beginning of its turn.
pub(super) struct Heard {
    /// What the pulse wants.
    pub(super) call: Call,
    /// The task's waker is another than before: whoever holds the former must be given this one.
    pub(super) new_waker: bool,
}

struct Pulse {
    runtime: runtime::Id,
    begun: Instant,
    state: RefCell<State>,
    /// The next beat, in seconds since the beginning.
    due: Cell<u32>,
    ticker: RefCell<Option<AbortHandle>>,
}

#[derive(Default)]
struct State {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Who has moved bytes since the last beat, and some that have left.
    moved: Vec<u32>,
    live: usize,
    /// Nobody is idle before.
    idle_due: u32,
}

/// Seconds are counted from the pulse's beginning.
struct Slot {
    waker: Option<Waker>,
    active: u32,
    idle: u32,
    call: Call,
    moved: bool,
}

impl Place {
    /// Takes a place for a relay that ends after so long without a byte: whole seconds, rounded up.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub(super) fn take(idle: Duration) -> Self {
        let pulse = Pulse::current();
        let idle = u32::try_from(idle.as_secs()).unwrap_or(u32::MAX).saturating_add(u32::from(idle.subsec_nanos() > 0));
        let idle = idle.max(1);
        // The second that has begun does not count.
        let now = pulse.seconds().saturating_add(1);
        let mut state = pulse.state.borrow_mut();
        let slot = Slot { waker: None, active: now, idle, call: Call::None, moved: false };
        let index = match state.free.pop() {
            Some(index) => {
                state.slots[index as usize] = slot;
                index as usize
            }
            None => {
                state.slots.push(slot);
                state.slots.len() - 1
            }
        };
        state.live += 1;
        state.idle_due = state.idle_due.min(now.saturating_add(idle));
        let due = state.idle_due;
        drop(state);
        pulse.wake_by(due);
        Self { pulse, index }
    }

    /// To be called at the beginning of each turn.
    pub(super) fn hear(&self, waker: &Waker) -> Heard {
        let mut state = self.pulse.state.borrow_mut();
        let slot = &mut state.slots[self.index];
        let call = std::mem::replace(&mut slot.call, Call::None);
        if slot.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            return Heard { call, new_waker: false };
        }
        let former = slot.waker.replace(waker.clone());
        // Whatever the former was the last to hold may leave its own place.
        drop(state);
        drop(former);
        Heard { call, new_waker: true }
    }

    /// Bytes were moved. To be called once until [`Call::Tell`] has come.
    pub(super) fn moved(&self) {
        let mut state = self.pulse.state.borrow_mut();
        state.slots[self.index].moved = true;
        state.moved.push(self.index as u32);
        drop(state);
        self.pulse.wake_by(self.pulse.seconds().saturating_add(BEAT));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.pulse.state.borrow_mut();
        let slot = &mut state.slots[self.index];
        slot.moved = false;
        let waker = slot.waker.take();
        state.free.push(self.index as u32);
        state.live -= 1;
        let last = state.live == 0;
        drop((state, waker));
        if last {
            self.pulse.end();
        }
    }
}

impl Pulse {
    fn current() -> Rc<Self> {
        let runtime = Handle::current().id();
        PULSES.with_borrow_mut(|pulses| {
            if let Some(pulse) = pulses.iter().find(|pulse| pulse.runtime == runtime) {
                return Rc::clone(pulse);
            }
            let state = State { idle_due: u32::MAX, ..State::default() };
            let pulse = Rc::new(Self {
                runtime,
                begun: Instant::now(),
                state: RefCell::new(state),
                due: Cell::new(u32::MAX),
                ticker: RefCell::default(),
            });
            pulses.push(Rc::clone(&pulse));
            pulse
        })
    }

    fn seconds(&self) -> u32 {
        u32::try_from(self.begun.elapsed().as_secs()).unwrap_or(u32::MAX)
    }

    /// Sees to it that there is a beat no later than then.
    fn wake_by(&self, due: u32) {
        if due >= self.due.get() {
            return;
        }
        self.due.set(due);
        let (runtime, at) = (self.runtime, self.begun + Duration::from_secs(due.into()));
        // The task holds nothing of this thread but looks the pulse up, for a spawned task must be free to move.
        let ticker = tokio::spawn(async move {
            sleep_until(at).await;
            let find = |pulses: &mut Vec<Rc<Self>>| pulses.iter().find(|pulse| pulse.runtime == runtime).cloned();
            if let Some(pulse) = PULSES.with_borrow_mut(find) {
                pulse.beat();
            }
        });
        if let Some(former) = self.ticker.replace(Some(ticker.abort_handle())) {
            former.abort();
        }
    }

    fn beat(&self) {
        // The ticker that calls is about to end; it must not be aborted by the next.
        self.ticker.take();
        self.due.set(u32::MAX);
        let now = self.seconds();
        let mut state = self.state.borrow_mut();
        let State { slots, moved, idle_due, .. } = &mut *state;
        let mut woken = Vec::with_capacity(moved.len());
        let mut call = |slot: &mut Slot, call| {
            slot.call = call;
            woken.extend(slot.waker.clone());
        };
        for index in moved.drain(..) {
            let slot = &mut slots[index as usize];
            if std::mem::take(&mut slot.moved) {
                slot.active = now;
                *idle_due = now.saturating_add(slot.idle).min(*idle_due);
                call(slot, Call::Tell);
            }
        }
        if now >= *idle_due {
            *idle_due = u32::MAX;
            // Free places have no waker.
            for slot in slots.iter_mut().filter(|slot| slot.waker.is_some()) {
                let idle_at = slot.active.saturating_add(slot.idle);
                if idle_at <= now {
                    call(slot, Call::Idle);
                } else {
                    *idle_due = idle_at.min(*idle_due);
                }
            }
        }
        let due = *idle_due;
        drop(state);
        self.wake_by(due);
        woken.into_iter().for_each(Waker::wake);
    }

    fn end(&self) {
        if let Some(ticker) = self.ticker.take() {
            ticker.abort();
        }
        // Fails only while the thread ends, and its list with it.
        let _ = PULSES.try_with(|pulses| {
            if let Ok(mut pulses) = pulses.try_borrow_mut() {
                pulses.retain(|pulse| pulse.runtime != self.runtime);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::tcp::tests::run_paused;
    use crate::tcp::{Copied, Direction, RelayOptions, relay};

    fn places() -> usize {
        let live = |pulse: &Rc<Pulse>| pulse.state.borrow().live;
        PULSES.with_borrow(|pulses| pulses.iter().map(live).sum())
    }

    #[test]
    fn the_meter_hears_every_second_while_bytes_move() {
        run_paused(async {
            let (mut caller, first) = duplex(64);
            let (second, mut callee) = duplex(64);
            let heard = Cell::new((0, 0));
            let mut meter = |_: Direction, bytes: u64| heard.set((heard.get().0 + 1, heard.get().1 + bytes));
            let (mut first, mut second) = (Copied(first), Copied(second));
            let relaying = relay(&mut first, &mut second, RelayOptions::default(), &mut meter);
            let talking = async {
                for _ in 0..50 {
                    caller.write_all(b"x").await.unwrap();
                    callee.read_u8().await.unwrap();
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                let (times, bytes) = heard.get();
                assert!((4..=6).contains(&times), "{times} times in five seconds");
                tokio::time::sleep(Duration::from_secs(2)).await;
                assert_eq!(heard.get().1, 50, "also when nothing moves any more, after {bytes}");
            };
            tokio::select! {
                _ = relaying => panic!("nobody closed"),
                () = talking => {}
            }
        });
    }

    #[test]
    fn nothing_is_left_of_a_relay_that_has_ended() {
        run_paused(async {
            for _ in 0..3 {
                let relays: Vec<_> = (0..10)
                    .map(|_| {
                        let ((caller, first), (second, callee)) = (duplex(64), duplex(64));
                        let relaying = async move {
                            relay(&mut Copied(first), &mut Copied(second), RelayOptions::default(), &mut ()).await
                        };
                        (tokio::task::spawn_local(relaying), caller, callee)
                    })
                    .collect();
                tokio::time::sleep(Duration::from_secs(3)).await;
                assert_eq!(places(), 10);
                for (relaying, caller, callee) in relays {
                    drop((caller, callee));
                    relaying.await.unwrap();
                }
                assert_eq!(places(), 0);
            }
        });
    }
}
