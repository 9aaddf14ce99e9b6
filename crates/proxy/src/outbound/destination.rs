//! Whom a request is for.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use veer_core::ServiceHost;
use veer_http::RequestHead;

use crate::error::RequestError;
use crate::http::fields::split_authority;
use crate::knowledge::{Knowledge, Missing, ServiceView};

/// Port of an authority that names none.
const HTTP_PORT: u16 = 80;

/// A service and the port that was asked for; the service has it.
#[derive(Clone)]
pub struct Destination {
    /// The service.
    pub service: Rc<ServiceView>,
    /// Its port.
    pub port: u16,
}

/// From what the caller wrote: a host as Kubernetes' resolver would complete it in the own namespace, or a virtual address.
///
/// # Errors
/// No such service or port, or nothing known of it yet.
pub async fn by_authority(
    knowledge: &Knowledge,
    namespace: &str,
    head: &RequestHead,
) -> Result<Destination, RequestError> {
    let authority = head.authority().unwrap_or_default();
    let parts = || split_authority(authority).ok_or(NotFound::Malformed);
    let read = || {
        let (host, port) = parts()?;
        let name = match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) => address.to_string(),
            Err(_) => ServiceHost::complete(host, namespace).ok_or(Missing::Absent)?.to_string(),
        };
        Ok((name, port.unwrap_or(HTTP_PORT)))
    };
    let found = knowledge.by_authority(authority, read).await;
    let (service, port) = found.map_err(|error| {
        let host = || parts().map_or_else(|_| String::new(), |(host, _)| host.to_owned());
        match error {
            NotFound::Malformed => RequestError::Malformed("the authority is no host with an optional port"),
            NotFound::Missing(Missing::Absent) => RequestError::NoService(host()),
            NotFound::Missing(Missing::Unknown) => RequestError::Unknown(host()),
        }
    })?;
    if service.port(port).is_none() {
        return Err(RequestError::NoPort(service.host.to_string(), port));
    }
    Ok(Destination { service, port })
}

enum NotFound {
    Malformed,
    Missing(Missing),
}

impl From<Missing> for NotFound {
    fn from(missing: Missing) -> Self {
        NotFound::Missing(missing)
    }
}

/// From where a captured connection was going. `None`: not a service of the mesh.
///
/// # Errors
/// Nothing is known of the address yet: letting it pass in plaintext would be a guess.
pub async fn by_address(knowledge: &Knowledge, original: SocketAddr) -> Result<Option<Destination>, RequestError> {
    let name = original.ip().to_string();
    match knowledge.service(&name).await {
        Ok(service) if service.port(original.port()).is_some() => {
            Ok(Some(Destination { service, port: original.port() }))
        }
        Ok(_) | Err(Missing::Absent) => Ok(None),
        Err(Missing::Unknown) => Err(RequestError::Unknown(name)),
    }
}
