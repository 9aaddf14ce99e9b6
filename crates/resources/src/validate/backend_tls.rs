//! Meaning of a BackendTLSPolicy. References that lead nowhere are told by `veer-compile`.

use super::Check;
use crate::types::*;

pub(super) fn policy(check: &mut Check<'_>, spec: &BackendTlsPolicySpec) {
    if check.is_empty("spec.targetRefs", &spec.target_refs) {
        check.error("V0011", "spec.targetRefs", "there is none", "name a Service");
    }
    for (index, _) in spec.target_refs.iter().enumerate().filter(|(_, target)| !target.is_service()) {
        let reason = "only a Service can have a BackendTLSPolicy; this target is not served";
        check.warning("V0042", &format!("spec.targetRefs[{index}]"), reason, "write group: \"\" and kind: Service");
    }
    validated(check, "spec.validation", &spec.validation);
}

/// What is asked of a backend.
pub(super) fn validated(check: &mut Check<'_>, at: &str, validation: &BackendTlsValidation) {
    check.hostname(&format!("{at}.hostname"), &validation.hostname);
    let well_known = validation.well_known.as_deref().filter(|name| !name.is_empty());
    match (well_known, validation.ca_certificate_refs.is_empty()) {
        (Some(_), false) => {
            let reason = "caCertificateRefs and wellKnownCACertificates exclude each other";
            check.error("V0038", at, reason, "remove one of the two");
        }
        (None, true) => {
            let reason = "nobody may vouch for the backend";
            check.error(
                "V0011",
                at,
                reason,
                "name a ConfigMap in caCertificateRefs, or write wellKnownCACertificates: System",
            );
        }
        _ => {}
    }
    for (index, name) in validation.subject_alt_names.iter().enumerate() {
        let known = !matches!(name.name_type, SubjectAltNameType::Unknown(_));
        if known && name.name().is_none() {
            let at = format!("{at}.subjectAltNames[{index}]");
            check.error("V0011", &at, "the name itself is missing", "write hostname or uri, as the type says");
        }
    }
}
