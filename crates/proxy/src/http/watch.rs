//! A worker's downstream connections, watched from one place: no timer and no channel per connection.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::{Rc, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::time::Instant;
use veer_core::TrustDomain;

use super::h2::{Close, Link};
use crate::recent::Recent;

/// From a head's first byte to its last.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// An idle HTTP/2 connection gives its memory back after this.
const REST_TIME: Duration = Duration::from_secs(2);
/// A peer that does not answer the farewell is not waited for any longer than this.
const FAREWELL_TIME: Duration = Duration::from_secs(5);
/// An idle connection is closed after this; longer than the keep-alive of common client pools, so that they close first.
const IDLE_TIME: Duration = Duration::from_secs(620);

/// All of a worker.
pub struct Connections {
    list: RefCell<Vec<Weak<Watch>>>,
    /// The list is cleaned when it has grown to twice of what lived last time.
    clean_at: Cell<usize>,
    recent: Recent,
    draining: Cell<bool>,
}

/// One connection as others see it.
pub struct Watch {
    phase: Cell<Phase>,
    since: Cell<Instant>,
    close: Cell<Option<Close>>,
    slow_head: Cell<bool>,
    /// The connection's streams, when it is of HTTP/2.
    link: OnceCell<Weak<Link>>,
    rests: Cell<bool>,
    waker: Cell<Option<Waker>>,
    /// Closed gracefully from then on: the first of both certificates ends.
    until: Option<Instant>,
    /// Closed at once when it is trusted no more.
    domain: Option<TrustDomain>,
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Between requests.
    Idle,
    /// A head has begun.
    Head,
    /// A request is answered.
    Busy,
}

impl Connections {
    /// None yet.
    pub fn new(recent: Recent) -> Self {
        Self { list: RefCell::default(), clean_at: Cell::new(64), recent, draining: Cell::new(false) }
    }

    /// Watches one more.
    pub fn watch(&self, until: Option<Instant>, domain: Option<TrustDomain>) -> Rc<Watch> {
        let watch = Rc::new(Watch {
            phase: Cell::new(Phase::Idle),
            since: Cell::new(self.recent.now()),
            close: Cell::new(self.draining.get().then_some(Close::Gracefully)),
            slow_head: Cell::new(false),
            link: OnceCell::new(),
            rests: Cell::new(false),
            waker: Cell::new(None),
            until,
            domain,
        });
        let mut list = self.list.borrow_mut();
        if list.len() >= self.clean_at.get() {
            list.retain(|watch| watch.strong_count() > 0);
            self.clean_at.set((list.len() * 2).max(64));
        }
        list.push(Rc::downgrade(&watch));
        watch
    }

    /// Closes what was idle, or slow with a head, for too long, and what has come to its end. To be called every second.
    pub fn sweep(&self, now: Instant) {
        self.each(|watch| {
            let quiet = now.saturating_duration_since(watch.since.get());
            if watch.phase.get() == Phase::Idle && quiet >= REST_TIME && !watch.rests.replace(true) {
                watch.link.get().and_then(Weak::upgrade).iter().for_each(|link| link.rest());
            }
            match watch.phase.get() {
                Phase::Idle if watch.closing().is_some() && quiet >= FAREWELL_TIME => watch.end(Close::Now),
                Phase::Idle if quiet >= IDLE_TIME => watch.end(Close::Gracefully),
                Phase::Head if quiet >= HEAD_TIME => {
                    watch.slow_head.set(true);
                    watch.end(Close::Now);
                }
                _ if watch.until.is_some_and(|until| now >= until) => watch.end(Close::Gracefully),
                _ => {}
            }
        });
    }

    /// Closes all gracefully, and all that come.
    pub fn drain(&self) {
        self.draining.set(true);
        self.each(|watch| watch.end(Close::Gracefully));
    }

    /// Cuts those whose peers may not be believed any more.
    pub fn trust(&self, trusted: impl Fn(&TrustDomain) -> bool) {
        self.each(|watch| {
            if watch.domain.as_ref().is_some_and(|domain| !trusted(domain)) {
                watch.end(Close::Now);
            }
        });
    }

    fn each(&self, act: impl Fn(&Watch)) {
        self.list.borrow().iter().filter_map(Weak::upgrade).for_each(|watch| act(&watch));
    }
}

impl Watch {
    /// Tells what the connection is doing from now on.
    pub fn phase(&self, phase: Phase, all: &Connections) {
        if self.phase.replace(phase) != phase {
            self.rests.set(false);
            self.since.set(all.recent.now());
        }
    }

    /// How it is to end, if it is.
    pub fn closing(&self) -> Option<Close> {
        self.close.get()
    }

    /// Whether it is to end because its head was too slow.
    pub fn is_slow(&self) -> bool {
        self.slow_head.get()
    }

    /// The connection is of HTTP/2.
    pub fn attach(&self, link: &Rc<Link>) {
        // Only ever called once, when the connection begins.
        let _ = self.link.set(Rc::downgrade(link));
    }

    /// Wakes the task when the connection is to end. To be called whenever the task is about to wait.
    pub fn wait(&self, cx: &Context<'_>) {
        let waker = match self.waker.take() {
            Some(waker) if waker.will_wake(cx.waker()) => waker,
            _ => cx.waker().clone(),
        };
        self.waker.set(Some(waker));
    }

    fn end(&self, how: Close) {
        if self.close.get() == Some(Close::Now) || self.close.get() == Some(how) {
            return;
        }
        self.close.set(Some(how));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}
