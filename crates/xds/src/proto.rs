//! Messages on the wire.
//!
//! Those of `envoy.service.discovery.v3` and what they refer to are derived by hand: the fields that Veer reads or writes, with
//! the numbers of Envoy's `discovery.proto`, `base.proto` and Google's `any.proto`, `status.proto`, `struct.proto`. Fields that are not
//! here are ignored, as proto3 prescribes. Envoy's own crates would bring some 90,000 generated lines for the same bytes.

use std::collections::HashMap;

use bytes::Bytes;

/// `envoy.service.discovery.v3.DeltaDiscoveryRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeltaDiscoveryRequest {
    /// Who asks; on the first request of a stream.
    #[prost(message, optional, tag = "1")]
    pub node: Option<Node>,
    /// Type of the resources that the request is about.
    #[prost(string, tag = "2")]
    pub type_url: String,
    /// Names to subscribe to; `*` means all that the server lists.
    #[prost(string, repeated, tag = "3")]
    pub resource_names_subscribe: Vec<String>,
    /// Names to give back.
    #[prost(string, repeated, tag = "4")]
    pub resource_names_unsubscribe: Vec<String>,
    /// What the client still has from an earlier stream: name to version.
    #[prost(map = "string, string", tag = "5")]
    pub initial_resource_versions: HashMap<String, String>,
    /// The response that this acknowledges; empty when it acknowledges none.
    #[prost(string, tag = "6")]
    pub response_nonce: String,
    /// Present when that response was refused.
    #[prost(message, optional, tag = "7")]
    pub error_detail: Option<Status>,
}

/// `envoy.service.discovery.v3.DeltaDiscoveryResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeltaDiscoveryResponse {
    /// The server's generation, for people.
    #[prost(string, tag = "1")]
    pub system_version_info: String,
    /// New and changed resources.
    #[prost(message, repeated, tag = "2")]
    pub resources: Vec<Resource>,
    /// Their type.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// To be repeated by the acknowledgement.
    #[prost(string, tag = "5")]
    pub nonce: String,
    /// Names that are stated not to exist.
    #[prost(string, repeated, tag = "6")]
    pub removed_resources: Vec<String>,
    /// Which server answers.
    #[prost(message, optional, tag = "7")]
    pub control_plane: Option<ControlPlane>,
    /// Names that the server cannot answer for, which is not the same as their absence.
    #[prost(message, repeated, tag = "9")]
    pub resource_errors: Vec<ResourceError>,
    /// Veer's own: the change goes on in the next response, so what is complete only as a whole is not complete yet. Other
    /// clients ignore it.
    #[prost(bool, tag = "15000")]
    pub more: bool,
}

/// `envoy.service.discovery.v3.Resource`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Resource {
    /// Version of this resource alone.
    #[prost(string, tag = "1")]
    pub version: String,
    /// The resource.
    #[prost(message, optional, tag = "2")]
    pub resource: Option<Any>,
    /// Its name.
    #[prost(string, tag = "3")]
    pub name: String,
}

/// `envoy.service.discovery.v3.ResourceError`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ResourceError {
    /// Which.
    #[prost(message, optional, tag = "1")]
    pub resource_name: Option<ResourceName>,
    /// Why.
    #[prost(message, optional, tag = "2")]
    pub error_detail: Option<Status>,
}

/// `envoy.service.discovery.v3.ResourceName`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ResourceName {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// `envoy.config.core.v3.Node`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Node {
    /// Unique among the clients of a control plane.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Kubernetes-shaped cluster.
    #[prost(string, tag = "2")]
    pub cluster: String,
    /// Anything else.
    #[prost(message, optional, tag = "3")]
    pub metadata: Option<Struct>,
    /// Name of the program.
    #[prost(string, tag = "6")]
    pub user_agent_name: String,
    /// Its version.
    #[prost(string, tag = "7")]
    pub user_agent_version: String,
    /// What it can do.
    #[prost(string, repeated, tag = "10")]
    pub client_features: Vec<String>,
}

/// `envoy.config.core.v3.ControlPlane`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ControlPlane {
    /// Name of the server.
    #[prost(string, tag = "1")]
    pub identifier: String,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Any {
    /// Type of the value.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The value; JSON for Veer's types.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Status {
    /// A gRPC status code.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// For people.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// `google.protobuf.Struct`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Struct {
    /// Its members.
    #[prost(map = "string, message", tag = "1")]
    pub fields: HashMap<String, Value>,
}

/// `google.protobuf.Value`, as far as Veer uses it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Value {
    /// Text, when it is text.
    #[prost(string, optional, tag = "3")]
    pub string_value: Option<String>,
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    /// A length-delimited field.
    fn field(tag: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![tag << 3 | 2, bytes.len() as u8];
        out.extend_from_slice(bytes);
        out
    }

    #[test]
    fn requests_have_envoys_layout() {
        let request = DeltaDiscoveryRequest {
            node: Some(Node { id: "n".into(), cluster: "c".into(), ..Node::default() }),
            type_url: "t".into(),
            resource_names_subscribe: vec!["a".into(), "b".into()],
            resource_names_unsubscribe: vec!["d".into()],
            initial_resource_versions: HashMap::from([("a".into(), "1".into())]),
            response_nonce: "5".into(),
            error_detail: Some(Status { code: 3, message: "m".into() }),
        };
        let expected = [
            field(1, &[field(1, b"n"), field(2, b"c")].concat()),
            field(2, b"t"),
            field(3, b"a"),
            field(3, b"b"),
            field(4, b"d"),
            field(5, &[field(1, b"a"), field(2, b"1")].concat()),
            field(6, b"5"),
            field(7, &[vec![0x08, 3], field(2, b"m")].concat()),
        ];
        assert_eq!(request.encode_to_vec(), expected.concat());
    }

    #[test]
    fn responses_have_envoys_layout() {
        let any = Any { type_url: "t".into(), value: Bytes::from_static(b"{}") };
        let response = DeltaDiscoveryResponse {
            system_version_info: "9".into(),
            resources: vec![Resource { version: "1".into(), resource: Some(any), name: "a".into() }],
            type_url: "t".into(),
            nonce: "5".into(),
            removed_resources: vec!["b".into()],
            control_plane: Some(ControlPlane { identifier: "w".into() }),
            ..DeltaDiscoveryResponse::default()
        };
        let any = [field(1, b"t"), field(2, b"{}")].concat();
        let expected = [
            field(1, b"9"),
            field(2, &[field(1, b"1"), field(2, &any), field(3, b"a")].concat()),
            field(4, b"t"),
            field(5, b"5"),
            field(6, b"b"),
            field(7, &field(1, b"w")),
        ];
        assert_eq!(response.encode_to_vec(), expected.concat());
    }

    #[test]
    fn nodes_have_envoys_layout_and_unknown_fields_are_ignored() {
        let value = field(3, b"shop/web");
        let entry = [field(1, b"workload"), field(2, &value)].concat();
        let metadata = field(1, &entry);
        let bytes = [
            field(1, b"n"),
            field(3, &metadata),
            // Locality, and a field of the future.
            field(4, &field(1, b"region")),
            field(6, b"envoy"),
            field(10, b"feature"),
            field(15, b"?"),
        ];
        let node = Node::decode(bytes.concat().as_slice()).unwrap();
        assert_eq!(node.user_agent_name, "envoy");
        assert_eq!(node.client_features, ["feature"]);
        assert_eq!(crate::NodeInfo::from_proto(&node).workload, "shop/web");
    }
}
