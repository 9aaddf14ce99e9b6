//! The time as a worker last looked at it: for limits of seconds it is exact enough, and reading it is free.

use std::cell::Cell;
use std::rc::Rc;

use tokio::time::Instant;

/// Set by the worker's upkeep ten times a second; shared by what a worker owns.
#[derive(Debug, Clone)]
pub struct Recent(Rc<Cell<Instant>>);

impl Default for Recent {
    fn default() -> Self {
        Self(Rc::new(Cell::new(Instant::now())))
    }
}

impl Recent {
    /// The time of the last look.
    pub fn now(&self) -> Instant {
        self.0.get()
    }

    /// Looks again.
    pub fn look(&self) -> Instant {
        self.0.set(Instant::now());
        self.now()
    }
}
