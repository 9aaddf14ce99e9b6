//! Where the fields of an object stand, long after its tree is gone.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::node::{Node, Pos, Value};

/// Where every field of a document stands: one hash of the path and one position for each, sorted.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Positions(Arc<[(u64, u32, u32)]>);

impl Positions {
    pub(crate) fn of(root: &Node) -> Self {
        let mut all = Vec::new();
        note(root, 0, &mut all);
        all.sort_unstable();
        Self(all.into())
    }

    /// Whether the field itself is written.
    pub(crate) fn has(&self, path: &str) -> bool {
        let hash = segments(path).fold(0, step);
        self.0.binary_search_by_key(&hash, |(h, ..)| *h).is_ok()
    }

    /// Position of a field, or of the nearest part of its path that is written.
    pub(crate) fn find(&self, path: &str) -> Option<Pos> {
        let mut found = None;
        let mut hash = 0;
        for segment in segments(path) {
            hash = step(hash, segment);
            let at = self.0.partition_point(|(h, ..)| *h < hash);
            match self.0.get(at) {
                Some((h, line, column)) if *h == hash => found = Some((*line, *column)),
                _ => break,
            }
        }
        found
    }
}

fn note(node: &Node, hash: u64, all: &mut Vec<(u64, u32, u32)>) {
    let mut one = |segment: Segment<'_>, node: &Node| {
        let hash = step(hash, segment);
        all.push((hash, node.at.0, node.at.1));
        note(node, hash, all);
    };
    match &node.value {
        Value::Scalar(..) => {}
        Value::List(items) => items.iter().enumerate().for_each(|(i, item)| one(Segment::Index(i), item)),
        Value::Map(entries) => entries.iter().for_each(|(key, item)| one(Segment::Key(&key.text), item)),
    }
}

#[derive(Hash)]
enum Segment<'a> {
    Key(&'a str),
    Index(usize),
}

fn step(hash: u64, segment: Segment<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (hash, segment).hash(&mut hasher);
    hasher.finish()
}

/// Splits `a.b[0].c["d.e"]`.
fn segments(path: &str) -> impl Iterator<Item = Segment<'_>> {
    let mut rest = path;
    std::iter::from_fn(move || {
        rest = rest.strip_prefix('.').unwrap_or(rest);
        if rest.is_empty() {
            return None;
        }
        if let Some(quoted) = rest.strip_prefix("[\"") {
            let end = quoted.find("\"]").unwrap_or(quoted.len());
            rest = quoted.get(end + 2..).unwrap_or("");
            return Some(Segment::Key(&quoted[..end]));
        }
        if let Some(index) = rest.strip_prefix('[') {
            let end = index.find(']').unwrap_or(index.len());
            rest = index.get(end + 1..).unwrap_or("");
            return Some(Segment::Index(index[..end].parse().unwrap_or(usize::MAX)));
        }
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let (key, more) = rest.split_at(end);
        rest = more;
        Some(Segment::Key(key))
    })
}
