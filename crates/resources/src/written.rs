//! A document as it is written, as JSON: what a reader typed stays what is shown, also the fields that no type has.

use std::fmt::Write as _;

use crate::node::{Node, Scalar, Value};

impl Node {
    /// The fields of these names of a mapping, as one JSON object.
    pub(crate) fn to_json(&self, fields: &[&str]) -> String {
        let mut out = String::from("{");
        if let Value::Map(entries) = &self.value {
            for (key, node) in entries.iter().filter(|(key, _)| fields.contains(&&*key.text)) {
                field(&mut out, &key.text, node);
            }
        }
        out.push('}');
        out
    }
}

fn field(out: &mut String, key: &str, node: &Node) {
    if !out.ends_with('{') {
        out.push(',');
    }
    string(out, key);
    out.push(':');
    value(out, node);
}

fn value(out: &mut String, node: &Node) {
    match &node.value {
        Value::Scalar(Scalar::Null, _) => out.push_str("null"),
        Value::Scalar(Scalar::Bool, text) => {
            out.push_str(if text.eq_ignore_ascii_case("true") { "true" } else { "false" })
        }
        Value::Scalar(Scalar::Number, text) => number(out, text),
        Value::Scalar(Scalar::Text, text) => string(out, text),
        Value::List(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                value(out, item);
            }
            out.push(']');
        }
        Value::Map(entries) => {
            out.push('{');
            entries.iter().for_each(|(key, node)| field(out, &key.text, node));
            out.push('}');
        }
    }
}

/// YAML has more ways to write numbers than JSON; those that JSON lacks are shown as the text that they were.
fn number(out: &mut String, text: &str) {
    match (text.parse::<i64>(), text.parse::<f64>()) {
        (Ok(whole), _) => drop(write!(out, "{whole}")),
        (_, Ok(number)) if number.is_finite() => drop(write!(out, "{number}")),
        _ => string(out, text),
    }
}

/// RFC 8259 §7.
fn string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c < ' ' => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}
