//! One thing that the control plane says, ready for the request path of one worker.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use veer_core::{Known, Resource};
use veer_xds::Subscription;

/// The present view of a resource. A task of the worker follows the subscription and replaces the view; a request only
/// reads a cell of its own thread.
pub struct Entry<V> {
    view: RefCell<Knowing<V>>,
    changed: Notify,
    used: Cell<Instant>,
    follower: RefCell<Option<AbortHandle>>,
}

/// What is known, compiled.
enum Knowing<V> {
    Unknown,
    Absent,
    Present(Rc<V>),
}

/// A view that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// The control plane has not answered within the wait.
    Unknown,
    /// The control plane says that there is none.
    Absent,
}

impl<V: 'static> Entry<V> {
    /// Subscribes and follows. `compile` makes the view from the resource and the view before.
    pub fn follow<R: Resource>(
        mut subscription: Subscription<R>,
        now: Instant,
        mut compile: impl FnMut(&std::sync::Arc<R>, Option<&Rc<V>>) -> Rc<V> + 'static,
    ) -> Rc<Self> {
        let entry = Rc::new(Self {
            view: RefCell::new(Knowing::Unknown),
            changed: Notify::new(),
            used: Cell::new(now),
            follower: RefCell::new(None),
        });
        // What was persisted or another worker knows is there at once.
        entry.take(subscription.borrow_and_update(), &mut compile);
        let weak = Rc::downgrade(&entry);
        let task = tokio::task::spawn_local(async move {
            loop {
                let known = subscription.changed().await;
                let Some(entry) = weak.upgrade() else { return };
                entry.take(known, &mut compile);
            }
        });
        *entry.follower.borrow_mut() = Some(task.abort_handle());
        entry
    }

    /// The view as it is.
    pub fn now(&self) -> Result<Rc<V>, Missing> {
        match &*self.view.borrow() {
            Knowing::Present(view) => Ok(Rc::clone(view)),
            Knowing::Absent => Err(Missing::Absent),
            Knowing::Unknown => Err(Missing::Unknown),
        }
    }

    /// The view; waits for the first word if need be.
    ///
    /// # Errors
    /// When there is none, or no word came in time.
    pub async fn get(&self, wait: Duration, now: Instant) -> Result<Rc<V>, Missing> {
        self.used.set(now);
        match self.now() {
            // In a place of its own: the way of every other request has no room for waiting.
            Err(Missing::Unknown) => self.first_word(wait).await,
            known => known,
        }
    }

    fn first_word(&self, wait: Duration) -> Pin<Box<dyn Future<Output = Result<Rc<V>, Missing>> + '_>> {
        let first_word = async {
            loop {
                let changed = self.changed.notified();
                match self.now() {
                    Err(Missing::Unknown) => changed.await,
                    known => return known,
                }
            }
        };
        Box::pin(async move { tokio::time::timeout(wait, first_word).await.unwrap_or(Err(Missing::Unknown)) })
    }

    /// Since when nobody asked.
    pub fn used(&self) -> Instant {
        self.used.get()
    }

    fn take<R>(&self, known: Known<R>, compile: &mut impl FnMut(&std::sync::Arc<R>, Option<&Rc<V>>) -> Rc<V>) {
        let next = match known {
            // Once known, something never becomes unknown.
            Known::Unknown => return,
            Known::Absent => Knowing::Absent,
            Known::Present(resource) => {
                let before = self.now().ok();
                Knowing::Present(compile(&resource, before.as_ref()))
            }
        };
        *self.view.borrow_mut() = next;
        self.changed.notify_waiters();
    }
}

impl<V> Drop for Entry<V> {
    fn drop(&mut self) {
        if let Some(follower) = self.follower.borrow_mut().take() {
            follower.abort();
        }
    }
}
