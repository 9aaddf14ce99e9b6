//! How each type of field is read.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use veer_core::policy::AuthorizationAction;
use veer_core::time::parse_duration;
use veer_core::{Cidr, ClusterName, Locality, TrustDomain};

use super::{Cx, Decode};
use crate::node::{Node, Scalar, Value, clip};
use crate::types::{GATEWAY_PORT, GatewayAddress, Labels, PortRef, Present, ServicePattern};

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
