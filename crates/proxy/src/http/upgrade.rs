//! Changing the protocol of a connection (RFC 9110 §7.8): WebSocket and whatever else is asked for.

use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::body::ResponseBody;
use super::{fields, reply};
use crate::error::RequestError;
use crate::exchange::Exchange;
use crate::tcp::{Copied, RelayOptions, relay};

/// The upstream agreed: tells the downstream, and relays bytes from then on. What the exchange holds is held as long as the
/// relay runs.
///
/// # Errors
/// When the downstream's connection cannot change its protocol.
pub fn switch(
    mut response: Response<Incoming>,
    downstream: Option<OnUpgrade>,
    exchange: &mut Exchange,
) -> Result<Response<ResponseBody>, RequestError> {
    let Some(downstream) = downstream else {
        return Err(RequestError::UpstreamProtocol("101 to a request that did not ask for it".to_owned()));
    };
    let upgrade = response.headers().get(header::UPGRADE).cloned();
    let upstream = hyper::upgrade::on(&mut response);
    let hold = (exchange.take_hold(), exchange.open());
    // The exchange ends with the head (the connection is what lives on); its places stay taken.
    tokio::task::spawn_local(async move {
        let _held = hold;
        let (Ok(upstream), Ok(downstream)) = (upstream.await, downstream.await) else { return };
        let mut downstream = Copied(TokioIo::new(downstream));
        let mut upstream = Copied(TokioIo::new(upstream));
        relay(&mut downstream, &mut upstream, RelayOptions::default(), &mut ()).await;
    });
    let (mut head, _) = response.into_parts();
    fields::strip_hop_by_hop(&mut head.headers);
    let mut answer = reply::empty(StatusCode::SWITCHING_PROTOCOLS);
    *answer.headers_mut() = head.headers;
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(upgrade) = upgrade {
        answer.headers_mut().insert(header::UPGRADE, upgrade);
    }
    Ok(answer)
}
