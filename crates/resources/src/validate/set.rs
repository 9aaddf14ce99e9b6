//! Meaning of objects together.
use crate::{Diagnostic, Object};

/// What is wrong with the objects of one cluster together.
pub fn check_set(_: &[Object]) -> Vec<Diagnostic> {
    Vec::new()
}
