//! Where this process counts and logs.

use veer_telemetry::{AccessLog, Metrics};

/// Metrics and access log of the process.
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// Counters, gauges, histograms.
    pub metrics: Metrics,
    /// One line per request.
    pub log: AccessLog,
}
