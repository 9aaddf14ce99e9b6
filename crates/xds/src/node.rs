//! How a client introduces itself.

use std::collections::HashMap;

use crate::proto;

/// The version of the protocol that this build speaks: of the resources' encoding and of the calls beside the stream.
pub const PROTOCOL: VersionRange = VersionRange { least: 1, most: 1 };

/// Versions that one side speaks, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionRange {
    /// Oldest.
    pub least: u32,
    /// Newest.
    pub most: u32,
}

impl VersionRange {
    /// The newest version that both speak, if any.
    pub fn common(self, other: VersionRange) -> Option<u32> {
        let most = self.most.min(other.most);
        (most >= self.least.max(other.least)).then_some(most)
    }
}

impl Default for VersionRange {
    fn default() -> Self {
        PROTOCOL
    }
}

/// What a client says of itself at the beginning of a stream. All of it is claimed, nothing proven: a
/// [`Source`](crate::Source) decides by the verified identity.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeInfo {
    /// Unique among the clients of a control plane.
    pub id: String,
    /// Its cluster.
    pub cluster: String,
    /// Its workload, `namespace/name`; empty for a peer's control plane.
    pub workload: String,
    /// What it speaks.
    pub versions: VersionRange,
    /// Optional abilities, by name.
    pub features: Vec<String>,
}

const AGENT: &str = "veer";

impl NodeInfo {
    pub(crate) fn to_proto(&self) -> proto::Node {
        let text = |value: String| proto::Value { string_value: Some(value) };
        let fields = HashMap::from([
            ("workload".to_owned(), text(self.workload.clone())),
            ("protocol".to_owned(), text(format!("{}-{}", self.versions.least, self.versions.most))),
        ]);
        proto::Node {
            id: self.id.clone(),
            cluster: self.cluster.clone(),
            metadata: Some(proto::Struct { fields }),
            user_agent_name: AGENT.to_owned(),
            user_agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            client_features: self.features.clone(),
        }
    }

    /// Reads what a client sent, cut to sizes that are worth keeping.
    pub(crate) fn from_proto(node: &proto::Node) -> Self {
        const TEXT: usize = 512;
        const FEATURES: usize = 64;
        let cut = |text: &str| text.chars().take(TEXT).collect::<String>();
        let field = |name: &str| {
            let fields = &node.metadata.as_ref()?.fields;
            fields.get(name)?.string_value.as_deref()
        };
        // A client that does not say speaks the first version.
        let versions = field("protocol")
            .and_then(|text| text.split_once('-'))
            .and_then(|(least, most)| Some(VersionRange { least: least.parse().ok()?, most: most.parse().ok()? }))
            .unwrap_or(VersionRange { least: 1, most: 1 });
        Self {
            id: cut(&node.id),
            cluster: cut(&node.cluster),
            workload: cut(field("workload").unwrap_or_default()),
            versions,
            features: node.client_features.iter().take(FEATURES).map(|feature| cut(feature)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_introduction_survives_the_wire() {
        let node = NodeInfo {
            id: "proxy-1".into(),
            cluster: "west".into(),
            workload: "shop/cart-1".into(),
            versions: VersionRange { least: 1, most: 3 },
            features: vec!["orca".into()],
        };
        assert_eq!(NodeInfo::from_proto(&node.to_proto()), node);
    }

    #[test]
    fn versions_meet_at_the_newest_common_one() {
        let range = |least, most| VersionRange { least, most };
        assert_eq!(range(1, 3).common(range(2, 5)), Some(3));
        assert_eq!(range(1, 1).common(range(2, 5)), None);
    }
}
