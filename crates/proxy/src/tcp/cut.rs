//! Ending many relays of a thread at once: what ends them is awaited once, not by each of them.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Ends everything that runs under it. Cheap to clone.
#[derive(Clone, Default)]
pub struct Cut(Rc<State>);

#[derive(Default)]
struct State {
    fired: Cell<bool>,
    waiting: RefCell<Waiting>,
}

#[derive(Default)]
struct Waiting {
    wakers: Vec<Option<Waker>>,
    free: Vec<u32>,
}

/// Something that runs until the cut. See [`Cut::unless`].
#[must_use = "futures do nothing unless polled"]
pub struct Unless<F> {
    cut: Cut,
    main: F,
    place: Option<u32>,
}

impl Cut {
    /// Ends what runs under it, and what will.
    pub fn fire(&self) {
        self.0.fired.set(true);
        let wakers = std::mem::take(&mut self.0.waiting.borrow_mut().wakers);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// Whether that has happened.
    pub fn fired(&self) -> bool {
        self.0.fired.get()
    }

    /// Runs `main` to its end, or until the cut: then `None`.
    ///
    /// # Cancel safety
    /// That of `main`.
    pub fn unless<F: Future + Unpin>(&self, main: F) -> Unless<F> {
        Unless { cut: self.clone(), main, place: None }
    }
}

impl<F: Future + Unpin> Future for Unless<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Poll::Ready(done) = Pin::new(&mut this.main).poll(cx) {
            return Poll::Ready(Some(done));
        }
        if this.cut.fired() {
            return Poll::Ready(None);
        }
        let mut waiting = this.cut.0.waiting.borrow_mut();
        let Waiting { wakers, free } = &mut *waiting;
        let place = *this.place.get_or_insert_with(|| {
            free.pop().unwrap_or_else(|| {
                wakers.push(None);
                (wakers.len() - 1) as u32
            })
        });
        let waker = &mut wakers[place as usize];
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            let former = waker.replace(cx.waker().clone());
            // Whatever the former was the last to hold may leave its own place.
            drop(waiting);
            drop(former);
        }
        Poll::Pending
    }
}

impl<F> Drop for Unless<F> {
    fn drop(&mut self) {
        let Some(place) = self.place else { return };
        let mut waiting = self.cut.0.waiting.borrow_mut();
        // After the cut there is no list any more.
        let waker = waiting.wakers.get_mut(place as usize).and_then(Option::take);
        if !self.cut.fired() {
            waiting.free.push(place);
        }
        drop((waiting, waker));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::tests::run_paused;

    #[test]
    fn a_cut_ends_all_that_run_under_it() {
        run_paused(async {
            let cut = Cut::default();
            assert_eq!(cut.unless(std::future::ready(7)).await, Some(7));
            let waiting: Vec<_> = (0..5)
                .map(|_| {
                    let cut = cut.clone();
                    tokio::task::spawn_local(async move { cut.unless(std::future::pending::<()>()).await })
                })
                .collect();
            tokio::task::yield_now().await;
            waiting[2].abort();
            tokio::task::yield_now().await;
            let late = tokio::task::spawn_local(cut.unless(std::future::pending::<()>()));
            tokio::task::yield_now().await;
            assert!(!late.is_finished() && !cut.fired());
            cut.fire();
            for (number, waiting) in waiting.into_iter().enumerate() {
                assert!(if number == 2 { waiting.await.is_err() } else { waiting.await.unwrap().is_none() });
            }
            assert!(late.await.unwrap().is_none());
            assert_eq!(cut.unless(std::future::pending::<()>()).await, None, "also what comes later");
        });
    }
}
