//! XBackends: destinations outside of all clusters, by name.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use veer_core::backend_tls::{Authorities, BackendTls};
use veer_core::names::stable_hash;
use veer_core::policy::TrafficPolicy;
use veer_core::{
    AppProtocol, ClusterEndpoints, Endpoint, EndpointPort, Endpoints, Locality, ObjectName, Reach, ServiceHost,
};
use veer_resources::{Diagnostic, Kind, KindName, Object, XBackendProtocol, XBackendSpec, XBackendTlsMode};

use crate::backend_tls::{Judged, authorities_of};
use crate::faults;
use crate::status::{Condition, No};
use crate::view::View;

/// What comes of one XBackend.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct External {
    /// `None`: nobody is led there.
    pub endpoints: Option<(ServiceHost, Arc<Endpoints>)>,
    /// The same below every parent.
    pub conditions: Vec<Condition>,
    pub faults: Vec<Diagnostic>,
}

/// Compiles one XBackend.
pub(crate) fn external(view: View<'_>, name: &ObjectName, last: Option<&External>) -> External {
    let mut external = External::default();
    let Some((object, spec)) = xbackend(view, name) else { return external };
    let judged = tls(view, object, spec);
    let no = match (target(view, name), &judged) {
        (Ok((host, ..)), tls) => {
            let endpoints = endpoints(view, name, spec, host.clone(), tls.as_ref().ok().cloned().flatten());
            let kept = last.and_then(|last| last.endpoints.clone()).filter(|(_, last)| **last == endpoints);
            external.endpoints = Some(kept.unwrap_or_else(|| (host, Arc::new(endpoints))));
            tls.as_ref().err().cloned()
        }
        (Err(no), _) => Some(no),
    };
    external.faults.extend(no.as_ref().map(|no| faults::xbackend(object, no.0, &no.1)));
    external.conditions = vec![Condition::unless(object, "Accepted", no.as_ref())];
    external
}

/// Where a reference to an XBackend leads. What is spoken: `None` is what the route has.
///
/// # Errors
/// Why it leads nowhere.
pub(crate) fn target(view: View<'_>, name: &ObjectName) -> Result<(ServiceHost, u16, Option<AppProtocol>), No> {
    let missing = |message: String| ("BackendNotFound", message);
    let (_, spec) = xbackend(view, name).ok_or_else(|| missing(format!("XBackend {name} does not exist")))?;
    let unsupported = |what: String| ("Invalid", format!("XBackend {name}: {what}"));
    if spec.hostname().is_none() {
        return Err(unsupported("there is no host name that could be called".to_owned()));
    }
    let tls = spec.tls.as_ref().map(|tls| &tls.mode);
    match tls {
        Some(XBackendTlsMode::ClientAndServer) => {
            return Err(unsupported(
                "a client certificate of its own is not supported (mode ClientAndServer)".to_owned(),
            ));
        }
        Some(XBackendTlsMode::Unknown(mode)) => return Err(unsupported(format!("TLS mode {mode} is not supported"))),
        Some(XBackendTlsMode::None | XBackendTlsMode::ServerOnly) | None => {}
    }
    let sealed = tls == Some(&XBackendTlsMode::ServerOnly);
    let protocol = match &spec.protocol {
        None | Some(XBackendProtocol::Http) => None,
        Some(XBackendProtocol::Http11) => Some(AppProtocol::Http1),
        Some(XBackendProtocol::Http2) => Some(AppProtocol::Http2),
        Some(XBackendProtocol::H2c) if !sealed => Some(AppProtocol::Http2),
        Some(XBackendProtocol::H2c) => {
            return Err(unsupported("H2C is HTTP/2 without TLS, and TLS is written".to_owned()));
        }
        Some(XBackendProtocol::Tcp) => Some(AppProtocol::Tcp),
        Some(other) => {
            let message = format!("XBackend {name}: protocol {} is not supported", other.as_str());
            return Err(("UnsupportedProtocol", message));
        }
    };
    let host = ServiceHost::external(name).map_err(|error| missing(error.to_string()))?;
    Ok((host, spec.port.port, protocol))
}

fn xbackend<'a>(view: View<'a>, name: &ObjectName) -> Option<(&'a Object, &'a XBackendSpec)> {
    let object = view.object(KindName::XBackend, name)?;
    match &object.kind {
        Kind::XBackend(spec) => Some((object, spec)),
        _ => None,
    }
}

/// TLS as it is written. Where the authorities cannot be found nobody may vouch, and no connection is made.
fn tls(view: View<'_>, object: &Object, spec: &XBackendSpec) -> Result<Option<BackendTls>, No> {
    let Some(tls) = spec.tls.as_ref().filter(|tls| tls.mode != XBackendTlsMode::None) else { return Ok(None) };
    let Some(validation) = &tls.validation else {
        return Err(("Invalid", "nobody may vouch for the backend".to_owned()));
    };
    let Judged { accepted, resolved, authorities } = authorities_of(view, object, validation);
    match accepted.or(resolved) {
        Some(no) if matches!(authorities, Authorities::Nobody(_)) => Err(no),
        _ => Ok(Some(BackendTls {
            service_port: spec.port.port,
            hostname: Arc::clone(&validation.hostname),
            names: validation.subject_alt_names.iter().filter_map(|name| name.name()).collect(),
            authorities,
        })),
    }
}

fn endpoints(
    view: View<'_>,
    name: &ObjectName,
    spec: &XBackendSpec,
    host: ServiceHost,
    tls: Option<BackendTls>,
) -> Endpoints {
    let cluster = view.cluster();
    let port = spec.port.port;
    let sealed = spec.tls.as_ref().is_some_and(|tls| tls.mode != XBackendTlsMode::None);
    // Where TLS is asked for and cannot be had, nothing goes out in clear text.
    let nobody = || BackendTls {
        service_port: port,
        hostname: spec.hostname().cloned().unwrap_or_default(),
        names: Vec::new(),
        authorities: Authorities::Nobody(format!("XBackend {name}: nobody may vouch for it").into()),
    };
    let endpoint = Endpoint {
        workload: ObjectName {
            namespace: Arc::clone(&name.namespace),
            name: spec.hostname().cloned().unwrap_or_default(),
        },
        address: placeholder(&host),
        ports: vec![EndpointPort { service_port: port, target_port: port, token: Arc::default() }],
        identity: None,
        mesh_port: 0,
        locality: Locality::default(),
        ready: true,
        capacity: None,
    };
    Endpoints {
        policy: TrafficPolicy::default(),
        clusters: vec![ClusterEndpoints {
            cluster: cluster.name.clone(),
            reach: Reach::Local,
            endpoints: vec![endpoint],
            service_tokens: Vec::new(),
        }],
        tls: if sealed { vec![Arc::new(tls.unwrap_or_else(nobody))] } else { Vec::new() },
        external: spec.hostname().cloned(),
        host,
    }
}

/// Tells endpoints apart, and is never dialled: of the block that RFC 6666 sets aside for what is to be discarded.
fn placeholder(host: &ServiceHost) -> IpAddr {
    let hash = u128::from(stable_hash(host.as_str()));
    Ipv6Addr::from(0x0100_u128 << 112 | hash).into()
}
