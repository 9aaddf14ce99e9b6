//! Meaning of Gateways, their listeners and certificates. What the Gateway API answers in a status (conflicts, references that
//! lead nowhere) is not told here: `veer-compile` says it there, and as a fault.

use super::{Check, grammar};
use crate::types::*;

pub(super) fn gateway(check: &mut Check<'_>, spec: &GatewaySpec) {
    check.text(
        "V0018",
        "spec.gatewayClassName",
        &spec.gateway_class_name,
        grammar::subdomain(&spec.gateway_class_name),
        "write the name of a GatewayClass, like veer",
    );
    listeners(check, &spec.listeners);
    for (index, address) in spec.addresses.iter().enumerate() {
        let wrong = &*address.address_type == "IPAddress"
            && !address.value.is_empty()
            && address.value.parse::<std::net::IpAddr>().is_err();
        if wrong {
            let path = format!("spec.addresses[{index}].value");
            check.error("V0014", &path, "is not an IP address", "write an address like 10.0.0.1 or fd00::1");
        }
    }
    if let Some(asked) = &spec.tls.frontend {
        frontend(check, asked);
    }
    if spec.infrastructure.parameters_ref.is_some() {
        let reason = "is not supported by this version: the Gateway is not accepted";
        check.warning("V0041", "spec.infrastructure.parametersRef", reason, "remove it");
    }
}

fn frontend(check: &mut Check<'_>, frontend: &FrontendTls) {
    let base = "spec.tls.frontend";
    let ports = frontend.per_port.iter().map(|own| Some(own.port));
    check.distinct(&format!("{base}.perPort"), "port", ports);
    let own = frontend.per_port.iter().enumerate();
    let own = own.map(|(index, own)| (format!("{base}.perPort[{index}].tls"), &own.tls));
    for (at, config) in std::iter::once((format!("{base}.default"), &frontend.default)).chain(own) {
        let Some(validation) = &config.validation else { continue };
        let list = format!("{at}.validation.caCertificateRefs");
        if check.is_empty(&list, &validation.ca_certificate_refs) {
            let mend = "name a ConfigMap with a key ca.crt, or remove the validation";
            check.warning("V0011", &list, "there is none: the listeners are not served", mend);
        }
        if validation.mode == FrontendValidationMode::AllowInsecureFallback {
            let reason = "lets clients in that show no valid certificate";
            check.warning(
                "V0047",
                &format!("{at}.validation.mode"),
                reason,
                "write AllowValidOnly when all clients have one",
            );
        }
    }
}

pub(super) fn trust_bundle(check: &mut Check<'_>, spec: &ClusterTrustBundleSpec) {
    if !has_pem(&spec.trust_bundle, "CERTIFICATE") {
        let reason = "holds no sound PEM section CERTIFICATE";
        check.warning("V0045", "spec.trustBundle", reason, "put PEM certificates of authorities there");
    }
}

pub(super) fn class(check: &mut Check<'_>, meta: &ObjectMeta, spec: &GatewayClassSpec) {
    let ours = &*spec.controller_name == CONTROLLER_NAME;
    if ours && spec.parameters_ref.is_some() {
        let reason = "is not supported by this version: the class is not accepted";
        check.warning("V0041", "spec.parametersRef", reason, "remove it");
    }
    if !ours && &*meta.name == GATEWAY_CLASS {
        let reason = format!("the class {GATEWAY_CLASS} is somebody else's now: Veer serves none of its Gateways");
        check.warning(
            "V0046",
            "spec.controllerName",
            &reason,
            &format!("write {CONTROLLER_NAME}, or rename the class"),
        );
    }
}

pub(super) fn set(check: &mut Check<'_>, spec: &ListenerSetSpec) {
    if let Some(namespace) = &spec.parent_ref.namespace {
        check.label("spec.parentRef.namespace", namespace);
    }
    listeners(check, &spec.listeners);
}

pub(super) fn secret(check: &mut Check<'_>, secret: &Secret) {
    if &*secret.secret_type != TLS_SECRET {
        return;
    }
    let parts = [("tls.crt", secret.certificate(), "CERTIFICATE"), ("tls.key", secret.key(), "PRIVATE KEY")];
    for (key, value, label) in parts {
        let mend = format!("put a PEM file with a section {label} there");
        match value {
            None => check.warning("V0045", "data", &format!("there is no {key}"), &mend),
            Some(text) if !has_pem(text, label) => {
                check.warning(
                    "V0045",
                    &format!("data[{key:?}]"),
                    &format!("holds no sound PEM section {label}"),
                    &mend,
                );
            }
            Some(_) => {}
        }
    }
}

fn listeners(check: &mut Check<'_>, listeners: &[ListenerSpec]) {
    let list = "spec.listeners";
    if check.is_empty(list, listeners) {
        check.error("V0011", list, "there is none", "add a listener with name, port and protocol");
    }
    if listeners.len() > 64 {
        check.warning("V0036", list, "Kubernetes would take at most 64", "add the others by ListenerSets");
    }
    check.distinct(list, "name", listeners.iter().map(|listener| Some(&listener.name)));
    for (index, listener) in listeners.iter().enumerate() {
        let at = format!("{list}[{index}]");
        check.text(
            "V0018",
            &format!("{at}.name"),
            &listener.name,
            grammar::subdomain(&listener.name),
            "write a name like https",
        );
        if let Some(hostname) = listener.hostname.as_ref().filter(|hostname| !hostname.is_empty()) {
            check.hostname(&format!("{at}.hostname"), hostname);
        }
        let seals = matches!(listener.protocol, ListenerProtocol::Https | ListenerProtocol::Tls);
        match &listener.tls {
            None if listener.protocol == ListenerProtocol::Tls => {
                check.error("V0011", &at, "the field \"tls\" is missing", "add tls: {mode: Passthrough}");
            }
            None if seals => {
                let reason = "a listener at which TLS ends needs tls.certificateRefs";
                check.warning("V0011", &at, reason, "add tls: {certificateRefs: [{name: …}]}");
            }
            Some(_) if !seals && !matches!(listener.protocol, ListenerProtocol::Unknown(_)) => {
                let reason = format!("has no meaning with protocol {}", listener.protocol.as_str());
                check.error("V0011", &format!("{at}.tls"), &reason, "remove it, or write HTTPS or TLS");
            }
            Some(tls) if tls.mode == TlsMode::Terminate && tls.certificate_refs.is_empty() && seals => {
                let reason = "a listener at which TLS ends needs certificateRefs";
                check.warning("V0011", &format!("{at}.tls"), reason, "name the Secret of type kubernetes.io/tls");
            }
            Some(tls) if tls.mode == TlsMode::Passthrough && listener.protocol == ListenerProtocol::Https => {
                let reason = "HTTPS ends here by its meaning";
                check.error("V0011", &format!("{at}.tls.mode"), reason, "write protocol TLS, or mode Terminate");
            }
            _ => {}
        }
        if listener.hostname.is_some() && matches!(listener.protocol, ListenerProtocol::Tcp | ListenerProtocol::Udp) {
            let reason = format!("has no meaning with protocol {}", listener.protocol.as_str());
            check.error("V0026", &format!("{at}.hostname"), &reason, "remove it");
        }
    }
}
