//! Places for values whose type the session does not know.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::watch;
use veer_core::{Known, Resource};

/// Resources of one collection, beyond which the server is not believed: a captured one must not fill its clients' memory.
const MOST_RESOURCES: usize = 20_000;
/// Bytes of one resource of a collection, as it was sent.
const MOST_OF_ONE: usize = 4 << 20;
/// Bytes of a collection, names and bodies as they were sent.
const MOST_BYTES: usize = 128 << 20;

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
    staged: Mutex<Staged<R>>,
}

/// What is not shown yet, and what all of the collection counts for.
struct Staged<R> {
    values: BTreeMap<String, Option<Arc<R>>>,
    sizes: HashMap<String, usize>,
    bytes: usize,
}

impl<R: Resource> All<R> {
    pub(super) fn new() -> Self {
        let staged = Staged { values: BTreeMap::new(), sizes: HashMap::new(), bytes: 0 };
        Self { sender: watch::Sender::new(Known::Unknown), staged: Mutex::new(staged) }
    }

    fn staged(&self) -> MutexGuard<'_, Staged<R>> {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R> Staged<R> {
    /// What a body counts for, when there is room for it.
    fn room(&self, name: &str, body: &[u8]) -> Result<usize, String> {
        let size = name.len() + body.len();
        let before = self.sizes.get(name).copied();
        if before.is_none() && self.sizes.len() >= MOST_RESOURCES {
            return Err(format!("more than {MOST_RESOURCES} resources of a type are not taken"));
        }
        if size > MOST_OF_ONE {
            return Err(format!("{size} bytes are more than the {MOST_OF_ONE} that are taken"));
        }
        if self.bytes - before.unwrap_or(0) + size > MOST_BYTES {
            return Err(format!("more than {MOST_BYTES} bytes of a type are not taken"));
        }
        Ok(size)
    }

    fn count(&mut self, name: &str, size: Option<usize>) {
        let before = match size {
            Some(size) => self.sizes.insert(name.to_owned(), size),
            None => self.sizes.remove(name),
        };
        self.bytes = self.bytes - before.unwrap_or(0) + size.unwrap_or(0);
    }
}

impl<R: Resource> CollectionSlot for All<R> {
    fn put(&self, name: &str, body: &[u8]) -> Result<(), String> {
        let mut staged = self.staged();
        let size = staged.room(name, body)?;
        let value: R = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        staged.count(name, Some(size));
        staged.values.insert(name.to_owned(), Some(Arc::new(value)));
        Ok(())
    }

    fn absent(&self, name: &str) {
        let mut staged = self.staged();
        // What was never there need not be remembered as gone.
        if staged.sizes.contains_key(name) {
            staged.count(name, None);
            staged.values.insert(name.to_owned(), None);
        }
    }

    fn commit(&self) -> bool {
        let staged = std::mem::take(&mut self.staged().values);
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
        let mut staged = self.staged();
        let dropped = std::mem::take(&mut staged.values);
        let shown = self.sender.borrow().present().cloned().unwrap_or_default();
        for name in dropped.into_keys() {
            // What is shown counts for a little at least until it is said again.
            staged.count(&name, shown.contains_key(&name).then_some(name.len()));
        }
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

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Part {
        size: u32,
    }

    impl Resource for Part {
        const TYPE_URL: &'static str = "veer.dev/v1.Part";
    }

    fn body(length: usize) -> Vec<u8> {
        let text = format!("{{\"size\":1,\"pad\":\"{}\"}}", "x".repeat(length));
        text.into_bytes()
    }

    #[test]
    fn a_collection_is_bounded_in_bytes() {
        let all = All::<Part>::new();
        assert!(all.put("huge", &body(MOST_OF_ONE)).is_err());
        let large = body(MOST_OF_ONE - 100);
        let taken = (0..100).take_while(|n| all.put(&format!("part-{n}"), &large).is_ok()).count();
        assert_eq!(taken, MOST_BYTES / MOST_OF_ONE);
        // Saying the same again is no growth; what goes makes room.
        assert!(all.put("part-0", &large).is_ok());
        all.absent("part-0");
        assert!(all.put("another", &large).is_ok());
        assert!(all.put("one too many", &large).is_err());
        // What was not shown is forgotten with its stream.
        all.discard();
        assert!(all.put("one too many", &large).is_ok());
        assert!(all.commit());
        assert!(all.put("broken", b"{").is_err());
        assert_eq!(all.sender.borrow().present().map(|parts| parts.len()), Some(1));
    }

    #[test]
    fn what_was_never_there_is_not_remembered_as_gone() {
        let all = All::<Part>::new();
        (0..1000).for_each(|n| all.absent(&format!("nothing-{n}")));
        assert!(all.staged().values.is_empty());
    }
}
