//! From the tree to types: every field that cannot be read is reported, and the next one is read all the same.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Location};
use crate::node::{Key, Node, Pos, Scalar, Value, clip};
use crate::suggest::nearest;

mod filter;
mod values;

/// Where reading stands, and what was found wrong so far.
pub(crate) struct Cx<'a> {
    pub file: &'a Arc<str>,
    pub out: &'a mut Vec<Diagnostic>,
    /// Unknown fields are errors: leaving one out would widen what is allowed.
    pub strict: bool,
    /// What could not be read.
    pub failed: Failed,
    path: String,
}

/// What could not be read of a document: keeps the checks of meaning from taking it for not written, and from counting
/// the items of lists wrong.
#[derive(Debug, Default)]
pub(crate) struct Failed {
    fields: HashSet<String>,
    /// Items that are not in the typed list, by the path of the list, ascending.
    items: HashMap<String, Vec<usize>>,
}

impl Failed {
    /// Whether the field or items of it could not be read.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.fields.contains(path) || self.items.contains_key(path)
    }

    /// The path in the file of a path in the typed object: counts the items that were left out.
    pub(crate) fn written(&self, path: &str) -> String {
        let mut out = String::with_capacity(path.len());
        let mut rest = path;
        while let Some(open) = rest.find('[').filter(|_| !self.items.is_empty()) {
            out.push_str(&rest[..open]);
            let end = rest[open..].find(']').map_or(rest.len(), |close| open + close + 1);
            let index = rest[open + 1..end].trim_end_matches(']').parse::<usize>();
            match (index, self.items.get(&out)) {
                (Ok(mut index), Some(left_out)) => {
                    for item in left_out {
                        index += usize::from(*item <= index);
                    }
                    out.push_str(&format!("[{index}]"));
                }
                _ => out.push_str(&rest[open..end]),
            }
            rest = &rest[end..];
        }
        out.push_str(rest);
        out
    }
}

impl<'a> Cx<'a> {
    pub(crate) fn new(file: &'a Arc<str>, out: &'a mut Vec<Diagnostic>, strict: bool) -> Self {
        Self { file, out, strict, failed: Failed::default(), path: String::new() }
    }

    /// Reads a field.
    pub(crate) fn field<T: Decode>(&mut self, key: &str, node: &Node) -> Option<T> {
        let length = self.path.len();
        if !self.path.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(key);
        let value = T::decode(node, self);
        if value.is_none() {
            self.failed.fields.insert(self.path.clone());
        }
        self.path.truncate(length);
        value
    }

    fn item<T: Decode>(&mut self, index: usize, node: &Node) -> Option<T> {
        let length = self.path.len();
        self.path.push_str(&format!("[{index}]"));
        let value = T::decode(node, self);
        self.path.truncate(length);
        if value.is_none() {
            self.failed.items.entry(self.path.clone()).or_default().push(index);
        }
        value
    }

    /// The entries of a mapping.
    pub(crate) fn entries<'n>(&mut self, node: &'n Node) -> Option<&'n [(Key, Node)]> {
        match &node.value {
            Value::Map(entries) => Some(entries),
            _ => {
                self.wrong_type(node, "a mapping (key: value)", "write its fields indented below it");
                None
            }
        }
    }

    fn place(&self, at: Pos) -> Location {
        Location { file: Arc::clone(self.file), line: at.0, column: at.1 }
    }

    pub(crate) fn error(&mut self, code: &'static str, at: Pos, reason: String, mend: impl Into<String>) {
        let reason = if self.path.is_empty() { reason } else { format!("{}: {reason}", self.path) };
        self.out.push(Diagnostic::error(code, &self.place(at), reason, mend));
    }

    fn warning(&mut self, code: &'static str, at: Pos, reason: String, mend: impl Into<String>) {
        let reason = if self.path.is_empty() { reason } else { format!("{}: {reason}", self.path) };
        self.out.push(Diagnostic::warning(code, &self.place(at), reason, mend));
    }

    fn wrong_type(&mut self, node: &Node, needed: &str, mend: &str) {
        self.error("V0012", node.at, format!("is {}; {needed} is needed", node.describe()), mend);
    }

    pub(crate) fn unknown_field(&mut self, key: &Key, known: &[&str]) {
        let reason = format!("unknown field {:?}", clip(&key.text));
        let mend = match nearest(&key.text, known.iter().copied()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("remove it; known here: {}", known.join(", ")),
        };
        if self.strict {
            self.error("V0010", key.at, reason, mend);
        } else {
            self.warning("V0010", key.at, reason, mend);
        }
    }

    pub(crate) fn missing(&mut self, node: &Node, key: &str) {
        self.error("V0011", node.at, format!("the field {key:?} is missing"), format!("add {key}: …"));
    }

    /// An enumeration has no such value; returns nothing, the caller decides what it stands for.
    pub(crate) fn unknown_value(&mut self, at: Pos, text: &str, known: &[&str]) {
        let mend = match nearest(text, known.iter().copied()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("known values: {}", known.join(", ")),
        };
        self.warning("V0017", at, format!("{:?} is not known to this version", clip(text)), mend);
    }

    pub(crate) fn text<'n>(&mut self, node: &'n Node) -> Option<&'n Arc<str>> {
        let text = node.text();
        if text.is_none() {
            let quoted = match &node.value {
                Value::Scalar(Scalar::Number | Scalar::Bool, text) => format!("put it in quotes: \"{}\"", clip(text)),
                _ => "write a text".to_owned(),
            };
            self.wrong_type(node, "a text", &quoted);
        }
        text
    }

    fn parsed<T>(
        &mut self,
        node: &Node,
        code: &'static str,
        mend: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(node)?;
        parse(text).map_err(|reason| self.error(code, node.at, reason, mend)).ok()
    }

    fn integer(&mut self, node: &Node, code: &'static str, low: i64, high: i64) -> Option<i64> {
        let needed = format!("a whole number from {low} to {high}");
        match &node.value {
            Value::Scalar(Scalar::Number, text) => {
                let number = whole(text).filter(|n| (low..=high).contains(n));
                if number.is_none() {
                    let reason = format!("{} is not {needed}", clip(text));
                    self.error(code, node.at, reason, format!("write {needed}"));
                }
                number
            }
            Value::Scalar(Scalar::Text, text) if text.parse::<i64>().is_ok() => {
                self.wrong_type(node, &needed, "remove the quotes");
                None
            }
            _ => {
                self.wrong_type(node, &needed, &format!("write {needed}"));
                None
            }
        }
    }
}

fn whole(text: &str) -> Option<i64> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    let number = if let Some(hex) = digits.strip_prefix("0x") {
        i64::from_str_radix(hex, 16).ok()?
    } else if let Some(octal) = digits.strip_prefix("0o") {
        i64::from_str_radix(octal, 8).ok()?
    } else {
        digits.parse().ok()?
    };
    Some(number * sign)
}

/// Most items of one list; an EndpointSlice, which has the longest, holds at most 1,000 in Kubernetes.
const MAX_ITEMS: usize = 4096;

/// Reads a value; `None` after having reported why not.
pub(crate) trait Decode: Sized {
    fn decode(node: &Node, cx: &mut Cx<'_>) -> Option<Self>;
}

/// A struct of fields: `pub field: Type = "key" => mode`, where the mode is `required`, `or(value)` or nothing for
/// `Default::default()`; then the upstream fields that are accepted and not read.
macro_rules! manifest {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $( $(#[$field_meta:meta])* pub $field:ident : $type:ty = $key:literal $(=> $mode:ident $(($default:expr))?)? ),* $(,)?
        }
        ignored [ $($ignored:literal),* $(,)? ]
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $( $(#[$field_meta])* pub $field: $type, )*
        }

        impl $crate::decode::Decode for $name {
            fn decode(node: &$crate::node::Node, cx: &mut $crate::decode::Cx<'_>) -> Option<Self> {
                const KNOWN: &[&str] = &[$($key,)* $($ignored),*];
                $( let mut $field: Option<$type> = None; )*
                for (key, value) in cx.entries(node)? {
                    match &*key.text {
                        // A null counts as not written, as in Kubernetes.
                        $( $key if value.is_null() => {} $key => $field = cx.field($key, value), )*
                        $( $ignored => {} )*
                        _ => cx.unknown_field(key, KNOWN),
                    }
                }
                $( let $field = $crate::decode::manifest!(@finish $field, cx, node, $key $(, $mode $(($default))?)?); )*
                Some(Self { $( $field: $field?, )* })
            }
        }
    };
    (@finish $slot:ident, $cx:ident, $node:ident, $key:literal) => {
        Some($slot.unwrap_or_default())
    };
    (@finish $slot:ident, $cx:ident, $node:ident, $key:literal, or($default:expr)) => {
        Some($slot.unwrap_or_else(|| $default))
    };
    (@finish $slot:ident, $cx:ident, $node:ident, $key:literal, required) => {{
        // What is written and could not be read was reported already.
        if $slot.is_none() && $node.get($key).is_none_or($crate::node::Node::is_null) {
            $cx.missing($node, $key);
        }
        $slot
    }};
}
pub(crate) use manifest;

/// An enumeration of upstream: a value that is not known is reported and kept by name.
macro_rules! open_enum {
    (
        $(#[$meta:meta])*
        pub enum $name:ident {
            $( $(#[$variant_meta:meta])* $variant:ident = $text:literal ),* $(,)?
        }
        default $default:ident
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub enum $name {
            $( $(#[$variant_meta])* $variant, )*
            /// A value that this version does not know.
            Unknown(std::sync::Arc<str>),
        }

        impl $name {
            /// As written in manifests.
            pub fn as_str(&self) -> &str {
                match self {
                    $( Self::$variant => $text, )*
                    Self::Unknown(text) => text,
                }
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::$default
            }
        }

        impl $crate::decode::Decode for $name {
            fn decode(node: &$crate::node::Node, cx: &mut $crate::decode::Cx<'_>) -> Option<Self> {
                let text = cx.text(node)?;
                Some(match &**text {
                    $( $text => Self::$variant, )*
                    _ => {
                        cx.unknown_value(node.at, text, &[$($text),*]);
                        Self::Unknown(std::sync::Arc::clone(text))
                    }
                })
            }
        }
    };
}
pub(crate) use open_enum;

impl<T: Decode> Decode for Option<T> {
    fn decode(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        if node.is_null() { Some(None) } else { T::decode(node, cx).map(Some) }
    }
}

impl<T: Decode> Decode for Vec<T> {
    fn decode(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        match &node.value {
            Value::List(items) if items.len() > MAX_ITEMS => {
                let reason = format!("holds {} items; at most {MAX_ITEMS} are read", items.len());
                cx.error("V0003", node.at, reason, "split the object");
                None
            }
            Value::List(items) => {
                Some(items.iter().enumerate().filter_map(|(index, item)| cx.item(index, item)).collect())
            }
            _ => {
                cx.wrong_type(node, "a list", "begin each item with '- '");
                None
            }
        }
    }
}
