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
    let found = knowledge.by_authority(authority, || read(authority, namespace)).await;
    let (service, port) = found.map_err(|error| error.told(authority))?;
    if service.port(port).is_none() {
        return Err(RequestError::NoPort(service.host.to_string(), port));
    }
    Ok(Destination { service, port })
}

/// The name (a host or a virtual address) and the port that a head asks for, without looking whether they are there.
///
/// # Errors
/// The authority is none, or its name can be that of no service.
pub fn named(head: &RequestHead, namespace: &str) -> Result<(String, u16), RequestError> {
    let authority = head.authority().unwrap_or_default();
    read(authority, namespace).map_err(|error| error.told(authority))
}

/// Why a service that a head asks for is not known.
pub fn missing(missing: Missing, head: &RequestHead) -> RequestError {
    NotFound::Missing(missing).told(head.authority().unwrap_or_default())
}

fn read(authority: &[u8], namespace: &str) -> Result<(String, u16), NotFound> {
    let (host, port) = split_authority(authority).ok_or(NotFound::Malformed)?;
    let name = match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => ServiceHost::complete(host, namespace).ok_or(Missing::Absent)?.to_string(),
    };
    Ok((name, port.unwrap_or(HTTP_PORT)))
}

enum NotFound {
    Malformed,
    Missing(Missing),
}

impl NotFound {
    fn told(self, authority: &[u8]) -> RequestError {
        let host = || split_authority(authority).map_or_else(String::new, |(host, _)| host.to_owned());
        match self {
            NotFound::Malformed => RequestError::Malformed("the authority is no host with an optional port"),
            NotFound::Missing(Missing::Absent) => RequestError::NoService(host()),
            NotFound::Missing(Missing::Unknown) => RequestError::Unknown(host()),
        }
    }
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
