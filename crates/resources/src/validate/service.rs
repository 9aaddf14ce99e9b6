//! Meaning of Services and their relatives.

use std::net::IpAddr;

use super::{Check, grammar, labels};
use crate::node::clip;
use crate::types::*;

pub(super) fn service(check: &mut Check<'_>, spec: &ServiceSpec) {
    labels(check, "spec.selector", &spec.selector);
    if spec.service_type == ServiceType::ExternalName {
        let reason = "a Service of the type ExternalName is not served by the mesh";
        check.warning("V0037", "spec.type", reason, "none, if that is meant");
        return;
    }
    if check.is_empty("spec.ports", &spec.ports) && !spec.is_headless() {
        check.error("V0011", "spec", "the field \"ports\" is missing", "add ports: [{port: 80}]");
    }
    let several = spec.ports.len() > 1;
    for (index, port) in spec.ports.iter().enumerate() {
        let at = |field: &str| format!("spec.ports[{index}].{field}");
        match &port.name {
            Some(name) => check.label(&at("name"), name),
            None if several => check.error(
                "V0011",
                &format!("spec.ports[{index}]"),
                "of several ports each needs a name",
                "add name: …",
            ),
            None => {}
        }
        if let Some(PortRef::Name(name)) = &port.target_port {
            check.label(&at("targetPort"), name);
        }
        check.transport(&at("protocol"), &port.protocol);
        check.app_protocol(&at("appProtocol"), port.app_protocol.as_ref());
    }
    check.distinct("spec.ports", "name", spec.ports.iter().map(|p| p.name.as_ref()));
    let numbers = spec.ports.iter().map(|p| Some(format!("{}/{}", p.port, p.protocol.as_str())));
    check.distinct("spec.ports", "port", numbers);
    virtual_addresses(check, spec);
}

fn virtual_addresses(check: &mut Check<'_>, spec: &ServiceSpec) {
    let mend = "write an address, or None for a headless service";
    let wrong = |text: &str| text != "None" && !text.is_empty() && text.parse::<IpAddr>().is_err();
    if let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| wrong(ip)) {
        check.error("V0014", "spec.clusterIP", &format!("{:?} is not an IP address", clip(ip)), mend);
    }
    for (index, ip) in spec.cluster_ips.iter().enumerate().filter(|(_, ip)| wrong(ip)) {
        let path = format!("spec.clusterIPs[{index}]");
        check.error("V0014", &path, &format!("{:?} is not an IP address", clip(ip)), mend);
    }
    if let (Some(one), Some(first)) = (&spec.cluster_ip, spec.cluster_ips.first())
        && one != first
    {
        let reason = "the first of them differs from spec.clusterIP";
        check.error(
            "V0038",
            "spec.clusterIPs",
            reason,
            "make the first equal to clusterIP, or write only one of the two",
        );
    }
}

pub(super) fn slice(check: &mut Check<'_>, meta: &ObjectMeta, slice: &EndpointSlice) {
    if !meta.labels.contains_key(SERVICE_NAME_LABEL) {
        let reason = format!("without the label {SERVICE_NAME_LABEL} it belongs to no Service");
        check.warning("V0040", "metadata", &reason, &format!("add labels: {{{SERVICE_NAME_LABEL}: …}}"));
    }
    if slice.address_type == AddressType::Fqdn {
        check.warning("V0037", "addressType", "host names as endpoints are not used", "write addresses");
        return;
    }
    let v4 = slice.address_type == AddressType::Ipv4;
    for (index, endpoint) in slice.endpoints.iter().enumerate() {
        let path = format!("endpoints[{index}].addresses");
        if check.is_empty(&path, &endpoint.addresses) {
            check.error("V0011", &path, "an endpoint needs an address", "write one address");
        }
        for (at, text) in endpoint.addresses.iter().enumerate() {
            let path = format!("endpoints[{index}].addresses[{at}]");
            match text.parse::<IpAddr>() {
                Err(_) => check.error(
                    "V0014",
                    &path,
                    &format!("{:?} is not an IP address", clip(text)),
                    "write an address like 10.0.0.1",
                ),
                Ok(ip) if ip.is_ipv4() != v4 => check.error(
                    "V0038",
                    &path,
                    &format!("{ip} is not of the slice's addressType {}", slice.address_type.as_str()),
                    "keep one EndpointSlice for each family",
                ),
                Ok(_) => {}
            }
        }
    }
    for (index, port) in slice.ports.iter().enumerate() {
        check.transport(&format!("ports[{index}].protocol"), &port.protocol);
        check.app_protocol(&format!("ports[{index}].appProtocol"), port.app_protocol.as_ref());
    }
    check.distinct("ports", "name", slice.ports.iter().map(|p| p.name.as_ref()));
}

pub(super) fn export(check: &mut Check<'_>, meta: &ObjectMeta, spec: &ServiceExportSpec) {
    labels(check, "spec.exportedLabels", &spec.exported_labels);
    let path = format!("metadata.annotations[{AUDIENCE:?}]");
    match meta.annotation(AUDIENCE).map(str::trim) {
        None | Some("") => check.warning(
            "V0034",
            &path,
            "the export names no audience, so it is offered to nobody",
            &format!("add the annotation {AUDIENCE}: \"*\", or a list of clusters like \"east,edge\""),
        ),
        Some("*") => {}
        Some(list) => {
            for name in list.split(',').map(str::trim) {
                let rule = grammar::label(name);
                check.text("V0029", &path, name, rule, "write \"*\", or names of clusters with commas between them");
            }
        }
    }
}

pub(super) fn import(check: &mut Check<'_>, spec: &ServiceImportSpec) {
    for (index, port) in spec.ports.iter().enumerate() {
        let at = |field: &str| format!("spec.ports[{index}].{field}");
        if let Some(name) = &port.name {
            check.label(&at("name"), name);
        }
        check.transport(&at("protocol"), &port.protocol);
        check.app_protocol(&at("appProtocol"), port.app_protocol.as_ref());
    }
    check.distinct("spec.ports", "name", spec.ports.iter().map(|p| p.name.as_ref()));
    let numbers = spec.ports.iter().map(|p| Some(format!("{}/{}", p.port, p.protocol.as_str())));
    check.distinct("spec.ports", "port", numbers);
}
