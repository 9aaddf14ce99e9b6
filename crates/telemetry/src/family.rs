//! Metric families beside the edges: names, labels and help in one table, handles that are atomics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A family of counters or gauges.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// Name; a counter's without `_total`, which the exposition adds.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// Label names.
    pub labels: &'static [&'static str],
}

macro_rules! families {
    ($($(#[$doc:meta])* $id:ident: $name:literal, $help:literal, [$($label:literal),*];)*) => {
        $($(#[$doc])* pub const $id: Family = Family { name: $name, help: $help, labels: &[$($label),*] };)*
        const ALL: &[&Family] = &[$(&$id),*];
    };
}

/// Counters.
pub mod counters {
    use super::Family;

    families! {
        /// TLS handshakes of the mesh by outcome (`ok`, or `HandshakeError::outcome`).
        TLS_HANDSHAKES: "veer_tls_handshakes", "TLS handshakes of the mesh", ["direction", "outcome"];
        /// Endpoints taken out of the rotation.
        ENDPOINT_EJECTIONS: "veer_endpoint_ejections", "Endpoints taken out of the rotation",
            ["destination_service", "destination_cluster", "kind"];
        /// Gateway replicas taken out of the rotation.
        PATH_EJECTIONS: "veer_path_ejections", "Gateway replicas taken out of the rotation", ["cluster", "gateway", "kind"];
        /// Connections dialled through a gateway replica, by outcome.
        PATH_CONNECTIONS: "veer_path_connections", "Connections dialled through a gateway replica",
            ["cluster", "gateway", "outcome"];
        /// Connections that a gateway relayed or refused, by peer.
        RELAY_CONNECTIONS: "veer_relay_connections", "Connections that the gateway relayed or refused", ["peer", "outcome"];
        /// Bytes that a gateway relayed.
        RELAY_BYTES: "veer_relay_bytes", "Bytes that the gateway relayed", ["peer", "direction"];
        /// Connections refused before anything could be said about their edge.
        REFUSED_CONNECTIONS: "veer_refused_connections", "Connections refused at a listener", ["direction", "reason"];
        /// Copies of requests, by what became of them.
        MIRRORED_REQUESTS: "veer_mirrored_requests", "Copies of requests", ["destination_service", "outcome"];
        /// Faults injected on purpose, by what was done (`delay`, `abort`).
        INJECTED_FAULTS: "veer_injected_faults", "Faults injected on purpose", ["destination_service", "kind"];
        /// Datagrams at a Gateway's listener, by what became of them.
        DATAGRAMS: "veer_datagrams", "Datagrams at a Gateway's listeners", ["listener", "outcome"];
        /// Sessions of datagrams that were begun.
        DATAGRAM_SESSIONS: "veer_datagram_sessions", "Sessions of datagrams that were begun", ["listener"];
        /// Requests that a rate limit refused, by who shares its bucket (`all`, `caller`).
        RATE_LIMITED: "veer_rate_limited_requests", "Requests that a rate limit refused", ["destination_service", "per"];
        /// Configuration resources that were refused and the former kept.
        CONFIG_REJECTIONS: "veer_config_rejections", "Configuration resources that were refused", ["type"];
        /// Access log entries that were dropped because the writer was behind or failed.
        ACCESS_LOG_DROPPED: "veer_access_log_dropped_entries", "Access log entries that were dropped", [];
        /// Certificates taken into use.
        CERTIFICATE_ROTATIONS: "veer_certificate_rotations", "Certificates taken into use", ["outcome"];
        /// Panics of tasks and threads, which the process outlived.
        PANICS: "veer_panics", "Panics that the process outlived; each is a defect", [];
    }

    /// Every counter family.
    pub const FAMILIES: &[&Family] = ALL;
}

/// Gauges.
pub mod gauges {
    use super::Family;

    families! {
        /// Endpoints known, by state.
        ENDPOINTS: "veer_endpoints", "Endpoints known", ["destination_service", "destination_cluster", "state"];
        /// Seconds since a peer was last heard of.
        PEER_AGE: "veer_peer_age_seconds", "Seconds since the peer cluster was last heard of", ["cluster"];
        /// Requests that may be in flight to a service, where its policy lets the limit follow the latency.
        CONCURRENCY_LIMIT: "veer_concurrency_limit", "Requests that may be in flight", ["destination_service"];
        /// 1 while the lease of a peer is in this state.
        PEER_STATE: "veer_peer_state", "1 for the state that the peer cluster is in", ["cluster", "state"];
        /// Generation of the configuration in use.
        CONFIG_GENERATION: "veer_config_generation", "Generation of the configuration in use", [];
        /// Seconds since the control plane last confirmed the configuration in use.
        CONFIG_AGE: "veer_config_age_seconds", "Seconds since the control plane confirmed the configuration in use", [];
        /// 1 while the session with the control plane stands.
        CONTROL_CONNECTED: "veer_control_connected", "1 while the session with the control plane stands", [];
        /// Faults found in manifests, by severity.
        MANIFEST_FAULTS: "veer_manifest_faults", "Faults found in manifests", ["severity"];
        /// 1 while a gateway replica is in the rotation.
        PATH_UP: "veer_path_up", "1 while the gateway replica is in the rotation", ["cluster", "gateway"];
        /// Smoothed round trip to a gateway replica.
        PATH_ROUND_TRIP: "veer_path_round_trip_seconds", "Smoothed round trip through the gateway replica",
            ["cluster", "gateway"];
        /// Connections that a gateway holds.
        RELAY_OPEN: "veer_relay_connections_open", "Connections that the gateway holds", ["peer"];
        /// End of the own certificate, Unix time.
        CERTIFICATE_EXPIRY: "veer_certificate_expiry_timestamp_seconds", "End of the certificate in use, Unix time", [];
        /// Start of the process, Unix time.
        PROCESS_START: "veer_process_start_timestamp_seconds", "Start of the process, Unix time", [];
        /// 1, with the version.
        BUILD: "veer_build", "1, with version and role", ["version", "role"];
    }

    /// Every gauge family.
    pub const FAMILIES: &[&Family] = ALL;
}

/// A counter. Clone it freely; clones count together.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Counts one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Counts some.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The number so far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A gauge. Clone it freely; clones show the same value.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// Shows this value.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Relaxed);
    }

    /// Adds; negative values subtract.
    pub fn add(&self, delta: f64) {
        // Never refuses: the closure always returns a value.
        let _ = self.0.fetch_update(Relaxed, Relaxed, |bits| Some((f64::from_bits(bits) + delta).to_bits()));
    }

    /// The value shown.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }
}
