//! Meaning within one object (placeholder until the checks land in the next commit).

use crate::diagnostic::{Diagnostic, Location};
use crate::node::Positions;
use crate::object::{KindName, Object};
use crate::types::{DEFAULT_NAMESPACE, ObjectMeta};

pub(crate) mod fleet;
pub mod set;

pub(crate) fn scope(kind: KindName, meta: &mut ObjectMeta, _: &Location, _: &Positions, _: &mut Vec<Diagnostic>) {
    if kind.is_namespaced() && meta.namespace.is_empty() {
        meta.namespace = DEFAULT_NAMESPACE.into();
    }
}

pub(crate) fn object(_: &Object, _: &mut Vec<Diagnostic>) {}
