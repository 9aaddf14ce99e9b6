//! How the filters of a route are read: a type, and a body by the type's name.

use std::sync::Arc;

use super::{Cx, Decode};
use crate::node::Node;
use crate::types::RouteFilter;

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
        let Some(key) = body.filter(|_| &*kind_text != "ExtensionRef") else {
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
            "RequestMirror" => cx.field(key, value).map(RouteFilter::RequestMirror),
            "ExternalAuth" => cx.field(key, value).map(RouteFilter::ExternalAuth),
            "CORS" => cx.field(key, value).map(RouteFilter::Cors),
            _ => cx.field(key, value).map(RouteFilter::UrlRewrite),
        }
    }
}
