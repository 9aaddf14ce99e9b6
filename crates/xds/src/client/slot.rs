//! Places for values whose type the session does not know.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::watch;
use veer_core::{Known, Resource};

/// A place for one resource.
pub(super) trait Slot: Send + Sync {
    /// Takes a body; says whether anything is different now.
    ///
    /// # Errors
    /// Why the body was refused; then the last good one stays.
    fn put(&self, body: &[u8]) -> Result<bool, String>;
    /// States that there is none; says whether that is news.
    fn absent(&self) -> bool;
    /// What is known, as JSON when present.
    fn known(&self) -> Known<Value>;
    fn as_any(&self) -> &dyn Any;
}

pub(super) struct One<R> {
    pub sender: watch::Sender<Known<R>>,
}

impl<R: Resource> One<R> {
    pub(super) fn new() -> Self {
        Self { sender: watch::Sender::new(Known::Unknown) }
    }
}

impl<R: Resource> Slot for One<R> {
    fn put(&self, body: &[u8]) -> Result<bool, String> {
        let value: R = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        Ok(self.sender.send_if_modified(|known| {
            let same = known.present().is_some_and(|present| **present == value);
            if !same {
                *known = Known::Present(Arc::new(value));
            }
            !same
        }))
    }

    fn absent(&self) -> bool {
        self.sender.send_if_modified(|known| {
            let same = matches!(known, Known::Absent);
            *known = Known::Absent;
            !same
        })
    }

    fn known(&self) -> Known<Value> {
        match &*self.sender.borrow() {
            Known::Unknown => Known::Unknown,
            Known::Absent => Known::Absent,
            Known::Present(value) => Known::Present(Arc::new(serde_json::to_value(&**value).unwrap_or_default())),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A place for all resources of a type. Changes are staged and shown as a whole.
pub(super) trait CollectionSlot: Send + Sync {
    /// Stages a body.
    ///
    /// # Errors
    /// Why the body was refused; then the last good one stays.
    fn put(&self, name: &str, body: &[u8]) -> Result<(), String>;
    /// Stages an absence.
    fn absent(&self, name: &str);
    /// Shows what was staged; says whether anything is different now.
    fn commit(&self) -> bool;
    /// Forgets what was staged.
    fn discard(&self);
    /// What is known, as JSON by name.
    fn known(&self) -> Known<BTreeMap<String, Value>>;
    fn as_any(&self) -> &dyn Any;
}

pub(super) struct All<R> {
    pub sender: watch::Sender<Known<BTreeMap<String, Arc<R>>>>,
    staged: Mutex<BTreeMap<String, Option<Arc<R>>>>,
}

impl<R: Resource> All<R> {
    pub(super) fn new() -> Self {
        Self { sender: watch::Sender::new(Known::Unknown), staged: Mutex::default() }
    }

    fn staged(&self) -> MutexGuard<'_, BTreeMap<String, Option<Arc<R>>>> {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: Resource> CollectionSlot for All<R> {
    fn put(&self, name: &str, body: &[u8]) -> Result<(), String> {
        let value: R = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        self.staged().insert(name.to_owned(), Some(Arc::new(value)));
        Ok(())
    }

    fn absent(&self, name: &str) {
        self.staged().insert(name.to_owned(), None);
    }

    fn commit(&self) -> bool {
        let staged = std::mem::take(&mut *self.staged());
        self.sender.send_if_modified(|known| {
            let before = known.present().cloned();
            let mut all = before.as_deref().cloned().unwrap_or_default();
            for (name, value) in staged {
                match value {
                    Some(value) => drop(all.insert(name, value)),
                    None => drop(all.remove(&name)),
                }
            }
            let same = before.is_some_and(|before| *before == all);
            if !same {
                *known = Known::Present(Arc::new(all));
            }
            !same
        })
    }

    fn discard(&self) {
        self.staged().clear();
    }

    fn known(&self) -> Known<BTreeMap<String, Value>> {
        match &*self.sender.borrow() {
            Known::Present(all) => Known::Present(Arc::new(
                all.iter()
                    .map(|(name, value)| (name.clone(), serde_json::to_value(&**value).unwrap_or_default()))
                    .collect(),
            )),
            Known::Unknown | Known::Absent => Known::Unknown,
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
