//! What all xDS resources have in common, and what a subscriber can know about one.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A value that travels as one xDS resource: encoded as JSON inside the `google.protobuf.Any` of the delta ADS envelope.
/// Unknown fields are ignored by every reader, absent ones take their default: that is how versions differ in peace.
pub trait Resource: Serialize + DeserializeOwned + Clone + PartialEq + Send + Sync + 'static {
    /// The type URL on the wire; ends with the version of the encoding.
    const TYPE_URL: &'static str;
}

/// What a subscriber knows about one resource. *Unknown* and *absent* are different things: only the second is a statement.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum Known<T> {
    /// No answer yet.
    #[default]
    Unknown,
    /// The control plane stated that there is no such resource (or that this subscriber may not see it).
    Absent,
    /// The resource as last stated.
    Present(Arc<T>),
}

impl<T> Known<T> {
    /// The resource, when present.
    pub fn present(&self) -> Option<&Arc<T>> {
        match self {
            Known::Present(value) => Some(value),
            Known::Unknown | Known::Absent => None,
        }
    }
}

impl<T> Clone for Known<T> {
    fn clone(&self) -> Self {
        match self {
            Known::Unknown => Known::Unknown,
            Known::Absent => Known::Absent,
            Known::Present(value) => Known::Present(Arc::clone(value)),
        }
    }
}
