//! Meaning of an XBackend.

use std::net::IpAddr;

use super::Check;
use crate::types::*;

pub(super) fn xbackend(check: &mut Check<'_>, spec: &XBackendSpec) {
    let at = "spec.externalHostname.hostname";
    match &spec.external_hostname {
        None if check.is_missing("spec.externalHostname", &spec.external_hostname) => {
            check.error(
                "V0011",
                "spec",
                "the field \"externalHostname\" is missing",
                "add externalHostname: { hostname: … }",
            );
        }
        None => {}
        Some(host) if host.hostname.parse::<IpAddr>().is_ok() || host.hostname.ends_with(".cluster.local") => {
            let reason = "is an address, or a name of a cluster";
            check.error("V0018", at, reason, "write a name of the outside; a Service stands for what is within");
        }
        Some(host) => check.hostname(at, &host.hostname),
    }
    if spec.port.port == 0 {
        check.error("V0013", "spec.port.port", "0 is no port", "write a number from 1 to 65535");
    }
    let Some(tls) = &spec.tls else { return };
    let missing = check.is_missing("spec.tls.clientCertificateRef", &tls.client_certificate_ref);
    if (tls.mode == XBackendTlsMode::ClientAndServer) == missing {
        let reason = "clientCertificateRef belongs to mode ClientAndServer, and to no other";
        check.error("V0038", "spec.tls", reason, "write both, or none of them");
    }
    match &tls.validation {
        Some(validation) => super::backend_tls::validated(check, "spec.tls.validation", validation),
        None if tls.mode == XBackendTlsMode::None => {}
        None => {
            let reason = "nobody may vouch for the backend";
            check.error(
                "V0011",
                "spec.tls",
                reason,
                "add validation with hostname, and caCertificateRefs or wellKnownCACertificates",
            );
        }
    }
}
