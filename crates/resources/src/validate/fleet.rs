//! Meaning of a fleet.
use std::sync::Arc;

use crate::{Diagnostic, Fleet, node::Positions};

pub(crate) fn check(_: &Fleet, _: &Positions, _: &Arc<str>, _: &mut Vec<Diagnostic>) {}
