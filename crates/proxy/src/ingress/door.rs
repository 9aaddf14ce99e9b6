//! A client's connection, and whom each of its requests is for.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::rc::Rc;

use veer_core::ingress::PortKind;
use veer_http::{Method, Name, RequestHead};

use super::hosts::normal;
use super::table::PortTable;
use crate::error::RequestError;
use crate::http::fields::split_authority;
use crate::outbound::Destination;

/// What a port serves now; connections look at it for every request, so that routes act on open ones, too.
pub type Serving = Rc<RefCell<Rc<PortTable>>>;

/// A connection of a client.
pub struct Door {
    serving: Serving,
    /// The name that the client asked for within TLS. `None`: there was no TLS.
    sni: Option<Option<Box<str>>>,
    /// What was asked of the client when it was let in ([`ListenerView::asks`](super::table::ListenerView::asks)).
    asked: u64,
    /// Who the client says it is, by the network.
    client: Option<IpAddr>,
}

impl Door {
    /// In clear text.
    pub fn plain(serving: Serving, client: Option<IpAddr>) -> Self {
        Self { serving, sni: None, asked: 0, client }
    }

    /// Behind TLS that was begun with this server name, by a client of which this was asked.
    pub fn sealed(serving: Serving, sni: Option<Box<str>>, asked: u64, client: Option<IpAddr>) -> Self {
        Self { serving, sni: Some(sni), asked, client }
    }

    /// The client's address.
    pub fn client(&self) -> Option<IpAddr> {
        self.client
    }

    /// The routes that are for the request; tells the backend who asked, and for what.
    ///
    /// # Errors
    /// [`RequestError::NoRoute`] when nothing is for the host, [`RequestError::Misdirected`] when another listener than that of the
    /// connection is.
    pub fn enter(&self, head: &mut RequestHead) -> Result<Destination, RequestError> {
        if head.method() == Method::Connect {
            return Err(RequestError::Malformed("a Gateway opens no tunnels"));
        }
        let table = Rc::clone(&self.serving.borrow());
        let authority = head.authority().unwrap_or_default();
        let (host, _) = split_authority(authority).unwrap_or_default();
        let host = normal(host);
        let listener = table.listeners.find(&host).ok_or(RequestError::NoRoute)?;
        match (&self.sni, table.kind) {
            (None, PortKind::Http) => {}
            (Some(sni), PortKind::Tls) if listener.is_http => {
                let own = table.listeners.find(sni.as_deref().unwrap_or_default());
                // More may be asked of clients now than when this one came: it is to come again (RFC 9110 §15.5.20).
                let is_asked = listener.asks == 0 || listener.asks == self.asked;
                if own.is_none_or(|own| !Rc::ptr_eq(own, listener)) || !is_asked {
                    return Err(RequestError::Misdirected);
                }
            }
            // A host whose TLS ends elsewhere, or a port that became another while the connection was open.
            _ => return Err(RequestError::Misdirected),
        }
        let service = Rc::clone(listener.hosts.find(&host).ok_or(RequestError::NoRoute)?);
        let port = service.ports.first().filter(|port| port.has_rules()).ok_or(RequestError::NoRoute)?.port;
        self.forwarded(head);
        Ok(Destination { service, port })
    }

    /// `X-Forwarded-For` grows by the client; what it says of host and scheme is ours to say.
    fn forwarded(&self, head: &mut RequestHead) {
        if let Some(client) = self.client {
            let mut text = String::with_capacity(40);
            let _ = write!(text, "{client}");
            // A second line of a list is its next member (RFC 9110 §5.3).
            head.fields.push(Name::XForwardedFor, text.as_bytes());
        }
        let scheme: &[u8] = if self.sni.is_some() { b"https" } else { b"http" };
        head.fields.set(Name::XForwardedProto, scheme);
        let authority = head.authority().unwrap_or_default().to_vec();
        head.fields.set(Name::XForwardedHost, &authority);
    }
}

#[cfg(test)]
#[path = "door_tests.rs"]
mod tests;
