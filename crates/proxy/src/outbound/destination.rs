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
    let (host, port) = split_authority(authority).ok_or(RequestError::Malformed("no authority"))?;
    let port = port.unwrap_or(HTTP_PORT);
    let service = match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(address) => knowledge.service(&address.to_string()).await,
        Err(_) => match ServiceHost::complete(host, namespace) {
            Some(name) => knowledge.service(name.as_str()).await,
            None => Err(Missing::Absent),
        },
    };
    let service = service.map_err(|missing| match missing {
        Missing::Absent => RequestError::NoService(host.to_owned()),
        Missing::Unknown => RequestError::Unknown(host.to_owned()),
    })?;
    if service.port(port).is_none() {
        return Err(RequestError::NoPort(service.host.to_string(), port));
    }
    Ok(Destination { service, port })
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
