//! Names outside of all clusters: resolved for each connection.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use veer_net::Stream;

use super::dial::{CONNECT_TIME, DialError, Dialer};

/// Of a name with several addresses each but the last gets so much of [`CONNECT_TIME`], and no more than so many are tried.
const ADDRESS_TIME: Duration = Duration::from_millis(300);
const MAX_ADDRESSES: usize = 8;

impl Dialer {
    /// To the first of the name's addresses that answers, as the system resolves it, all within [`CONNECT_TIME`].
    ///
    /// `shown` has the port, and stands for the name in errors. Whoever may write a route does not get at what only this machine can reach: addresses that are no others' ([`is_outside`]) are
    /// passed over.
    ///
    /// # Errors
    /// As [`Dialer::tcp`]; [`DialError::Policy`] when none of the name's addresses is outside.
    pub(super) async fn tcp_by_name(&self, name: &str, shown: SocketAddr) -> Result<Stream, DialError> {
        let on_loopback = self.options.source.is_some_and(|source| source.is_loopback());
        let trying = async {
            let unknown = |error| std::io::Error::other(format!("{name} cannot be resolved: {error}"));
            let failed = |error| DialError::Connect { address: shown, error: Arc::new(error) };
            let found = tokio::net::lookup_host((name, shown.port())).await.map_err(|error| failed(unknown(error)))?;
            let outside = found.filter(|address| is_outside(address.ip(), on_loopback));
            let mut addresses = outside.take(MAX_ADDRESSES).peekable();
            let mut last = DialError::Policy(format!("{name} has no address outside of this machine").into());
            while let Some(address) = addresses.next() {
                let connecting = self.tcp_to(address);
                let tried = match addresses.peek() {
                    Some(_) => tokio::time::timeout(ADDRESS_TIME, connecting).await,
                    // Nobody waits for its time: it has what is left.
                    None => Ok(connecting.await),
                };
                match tried {
                    Ok(Ok(stream)) => return Ok(stream),
                    Ok(Err(error)) => last = error,
                    Err(_) => last = DialError::ConnectTimeout(address),
                }
            }
            Err(last)
        };
        tokio::time::timeout(CONNECT_TIME, trying).await.map_err(|_| DialError::ConnectTimeout(shown))?
    }
}

/// Whether an address can be that of somebody else: not loopback (the proxy's own pages are there), unless all of the fleet is on it, not
/// link-local (where clouds give out a machine's own secrets, RFC 3927, RFC 4291 §2.5.6), not unspecified, not multicast.
fn is_outside(address: IpAddr, on_loopback: bool) -> bool {
    match address.to_canonical() {
        address if address.is_loopback() => on_loopback,
        address if address.is_unspecified() || address.is_multicast() => false,
        IpAddr::V4(address) => !address.is_link_local() && address != Ipv4Addr::BROADCAST,
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_this_machine_can_reach_is_not_outside() {
        let outside = |address: &str, on_loopback| is_outside(address.parse().unwrap(), on_loopback);
        for address in ["10.0.0.1", "192.0.2.1", "fd00::1", "2001:db8::1", "::ffff:192.0.2.1"] {
            assert!(outside(address, false), "{address}");
        }
        for address in ["127.0.0.1", "127.9.0.1", "::1", "::ffff:127.0.0.1"] {
            assert!(!outside(address, false) && outside(address, true), "{address}");
        }
        for address in [
            "0.0.0.0",
            "::",
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "fe80::1",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
        ] {
            assert!(!outside(address, false) && !outside(address, true), "{address}");
        }
    }
}
