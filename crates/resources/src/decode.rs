//! From the tree to types: every field that cannot be read is reported, and the next one is read all the same.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use veer_core::policy::AuthorizationAction;
use veer_core::time::parse_duration;
use veer_core::{ClusterName, Locality, TrustDomain};

use crate::cidr::Cidr;
use crate::diagnostic::{Diagnostic, Location};
use crate::node::{Key, Node, Pos, Scalar, Value, clip};
use crate::suggest::nearest;
use crate::types::{GATEWAY_PORT, GatewayAddress, Labels, PortRef, Present, RouteFilter, ServicePattern};

/// Where reading stands, and what was found wrong so far.
pub(crate) struct Cx<'a> {
    pub file: &'a Arc<str>,
    pub out: &'a mut Vec<Diagnostic>,
    /// Unknown fields are errors: leaving one out would widen what is allowed.
    pub strict: bool,
    path: String,
}

impl<'a> Cx<'a> {
    pub(crate) fn new(file: &'a Arc<str>, out: &'a mut Vec<Diagnostic>, strict: bool) -> Self {
        Self { file, out, strict, path: String::new() }
    }

    /// Reads a field.
    pub(crate) fn field<T: Decode>(&mut self, key: &str, node: &Node) -> Option<T> {
        let length = self.path.len();
        if !self.path.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(key);
        let value = T::decode(node, self);
        self.path.truncate(length);
        value
    }

    fn item<T: Decode>(&mut self, index: usize, node: &Node) -> Option<T> {
        let length = self.path.len();
        self.path.push_str(&format!("[{index}]"));
        let value = T::decode(node, self);
        self.path.truncate(length);
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

impl Decode for Labels {
    fn decode(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        let mut all = BTreeMap::new();
        for (key, value) in cx.entries(node)? {
            let text: Option<Arc<str>> = if value.is_null() {
                Some(Arc::default())
            } else {
                cx.field(&format!("[{:?}]", clip(&key.text)), value)
            };
            if let Some(text) = text {
                all.insert(Arc::clone(&key.text), text);
            }
        }
        Some(all)
    }
}

impl Decode for Arc<str> {
    fn decode(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        cx.text(node).cloned()
    }
}

impl Decode for bool {
    fn decode(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        match &node.value {
            Value::Scalar(Scalar::Bool, text) => Some(text.eq_ignore_ascii_case("true")),
            _ => {
                cx.wrong_type(node, "true or false", "write true or false, without quotes");
                None
            }
        }
    }
}

/// Every 16-bit number of the kinds is a port or a status code, and neither is ever 0.
impl Decode for u16 {
    fn decode(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        cx.integer(node, "V0013", 1, u16::MAX.into()).and_then(|n| n.try_into().ok())
    }
}

impl Decode for u32 {
    fn decode(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        cx.integer(node, "V0013", 0, i32::MAX.into()).and_then(|n| n.try_into().ok())
    }
}

impl Decode for f64 {
    fn decode(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        let number = match &node.value {
            Value::Scalar(Scalar::Number, text) => text.parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0),
            _ => None,
        };
        if number.is_none() {
            cx.wrong_type(node, "a number of at least 0", "write a number like 0.5, without quotes");
        }
        number
    }
}

impl Decode for Duration {
    fn decode(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        let mend = "write groups of digits with h, m, s or ms, like 10s, 1m30s or 250ms (GEP-2257)";
        match &node.value {
            Value::Scalar(Scalar::Number, text) => {
                cx.error("V0015", node.at, format!("{} has no unit", clip(text)), mend);
                None
            }
            // Without the advice of the parser, which `mend` repeats.
            _ => cx.parsed(node, "V0015", mend, |text| {
                parse_duration(text).map_err(|_| format!("{:?} is not a duration", clip(text)))
            }),
        }
    }
}

impl Decode for IpAddr {
    fn decode(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        cx.parsed(node, "V0014", "write an address like 10.0.0.1 or fd00::1", |text| {
            text.parse().map_err(|_| format!("{:?} is not an IP address", clip(text)))
        })
    }
}

impl Decode for Cidr {
    fn decode(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        cx.parsed(node, "V0016", "write a range like 10.0.0.0/8, or an address alone", str::parse)
    }
}

impl Decode for GatewayAddress {
    fn decode(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        cx.parsed(node, "V0014", "write an address like 10.0.0.1:15443; without a port, 15443 is meant", |text| {
            let address = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, GATEWAY_PORT));
            address
                .or_else(|_| text.parse::<SocketAddr>())
                .ok()
                .filter(|address| address.port() != 0)
                .map(GatewayAddress)
                .ok_or_else(|| format!("{:?} is not an address with a port", clip(text)))
        })
    }
}

impl Decode for ClusterName {
    fn decode(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        cx.parsed(node, "V0018", "write a DNS label: lower-case letters, digits and '-', at most 63", |text| {
            ClusterName::new(text).map_err(|error| format!("{:?} {}", clip(text), error.reason))
        })
    }
}

impl Decode for TrustDomain {
    fn decode(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        cx.parsed(node, "V0018", "write a name like west.example", |text| {
            TrustDomain::new(text).map_err(|error| format!("{:?} {}", clip(text), error.reason))
        })
    }
}

impl Decode for ServicePattern {
    fn decode(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        let mend = "write namespace/name, where either may be *: \"shop/*\", \"shop/cart\", \"*/*\"";
        cx.parsed(node, "V0031", mend, |text| {
            let part = |part: &str| match part {
                "*" => Some(None),
                _ => ClusterName::new(part).ok().map(|label| Some(Arc::from(label.as_str()))),
            };
            let pattern = text
                .split_once('/')
                .and_then(|(namespace, name)| Some(ServicePattern { namespace: part(namespace)?, name: part(name)? }));
            pattern.ok_or_else(|| format!("{:?} is not a pattern of services", clip(text)))
        })
    }
}

impl Decode for AuthorizationAction {
    fn decode(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        cx.parsed(node, "V0017", "write ALLOW or DENY", |text| match text {
            "ALLOW" => Ok(AuthorizationAction::Allow),
            "DENY" => Ok(AuthorizationAction::Deny),
            _ => Err(format!("{:?} is not an action", clip(text))),
        })
    }
}

impl Decode for PortRef {
    fn decode(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        match &node.value {
            Value::Scalar(Scalar::Text, text) => Some(PortRef::Name(Arc::clone(text))),
            _ => u16::decode(node, cx).map(PortRef::Number),
        }
    }
}

impl Decode for Present {
    fn decode(_: &Node, _: &mut Cx<'_>) -> Option<Self> {
        Some(Present)
    }
}

impl Decode for Locality {
    fn decode(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        let mut locality = Locality::default();
        for (key, value) in cx.entries(node)? {
            match &*key.text {
                "region" => locality.region = cx.field("region", value).unwrap_or_default(),
                "zone" => locality.zone = cx.field("zone", value).unwrap_or_default(),
                _ => cx.unknown_field(key, &["region", "zone"]),
            }
        }
        Some(locality)
    }
}

/// Filters of upstream and where each keeps its body.
const FILTERS: [(&str, &str); 8] = [
    ("RequestHeaderModifier", "requestHeaderModifier"),
    ("ResponseHeaderModifier", "responseHeaderModifier"),
    ("RequestRedirect", "requestRedirect"),
    ("URLRewrite", "urlRewrite"),
    ("RequestMirror", "requestMirror"),
    ("CORS", "cors"),
    ("ExternalAuth", "externalAuth"),
    ("ExtensionRef", "extensionRef"),
];

impl Decode for RouteFilter {
    fn decode(node: &Node, cx: &mut Cx<'_>) -> Option<Self> {
        let entries = cx.entries(node)?;
        let Some(kind) = node.get("type") else {
            cx.missing(node, "type");
            return None;
        };
        let kind_text = cx.field::<Arc<str>>("type", kind)?;
        let body = FILTERS.iter().find(|(name, _)| *name == &*kind_text).map(|(_, body)| *body);
        for (key, value) in entries {
            let known = &*key.text == "type" || Some(&*key.text) == body;
            if known || value.is_null() {
                continue;
            }
            // Beside a kind that nobody knows, a field that nobody knows belongs to it.
            match (body, FILTERS.iter().find(|(_, b)| *b == &*key.text)) {
                (Some(_), Some((other, _))) => {
                    let reason = format!("{:?} belongs to the type {other}, and the type is {kind_text}", &*key.text);
                    cx.error("V0027", key.at, reason, "keep the one that is meant");
                }
                (Some(body), None) => cx.unknown_field(key, &["type", body]),
                (None, _) => {}
            }
        }
        let unsupported = |cx: &mut Cx<'_>| {
            let names: Vec<&str> = FILTERS.iter().map(|(name, _)| *name).collect();
            let length = cx.path.len();
            cx.path.push_str(".type");
            match body {
                Some(_) => cx.warning(
                    "V0027",
                    kind.at,
                    format!("filters of the type {kind_text} are not supported by this version: its requests are answered with 500"),
                    "remove the filter, or the rule",
                ),
                None => cx.unknown_value(kind.at, &kind_text, &names),
            }
            cx.path.truncate(length);
            Some(RouteFilter::Unsupported(Arc::clone(&kind_text)))
        };
        let Some(key) = body.filter(|_| FILTERS[..4].iter().any(|(name, _)| *name == &*kind_text)) else {
            return unsupported(cx);
        };
        let Some(value) = node.get(key).filter(|value| !value.is_null()) else {
            cx.missing(node, key);
            return None;
        };
        match &*kind_text {
            "RequestHeaderModifier" => cx.field(key, value).map(RouteFilter::RequestHeaderModifier),
            "ResponseHeaderModifier" => cx.field(key, value).map(RouteFilter::ResponseHeaderModifier),
            "RequestRedirect" => cx.field(key, value).map(RouteFilter::RequestRedirect),
            _ => cx.field(key, value).map(RouteFilter::UrlRewrite),
        }
    }
}
