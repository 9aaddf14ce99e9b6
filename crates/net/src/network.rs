//! Connecting and listening.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::stream::Stream;

/// Where connections come from and go to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Network {
    /// The kernel's TCP.
    #[default]
    Tcp,
    /// turmoil's simulated TCP; only inside one of its hosts.
    #[cfg(feature = "sim")]
    Sim,
}

/// How a connection is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct ConnectOptions {
    /// Source address, so that a workload's proxy speaks from the workload's own address. `None`: the kernel chooses.
    pub source: Option<IpAddr>,
    /// `SO_MARK`, which packet-filter rules use to let the proxy's own connections pass (needs `CAP_NET_ADMIN`).
    pub mark: Option<u32>,
}

/// How a listener is made.
#[derive(Debug, Clone, Copy)]
pub struct BindOptions {
    /// `SO_REUSEPORT`: every worker has an accept queue of its own.
    pub reuse_port: bool,
    /// `IP_TRANSPARENT`: takes connections to foreign addresses (TPROXY; needs `CAP_NET_ADMIN`).
    pub transparent: bool,
    /// Length of the accept queue.
    pub backlog: u32,
}

/// As nginx and Envoy: enough for the burst of a reconnecting fleet; the kernel caps it at `net.core.somaxconn`.
const DEFAULT_BACKLOG: u32 = 4096;

/// Wait before accepting again when descriptors or memory are exhausted: long enough for some to be released, short enough
/// not to be noticed afterwards.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl Default for BindOptions {
    fn default() -> Self {
        Self { reuse_port: false, transparent: false, backlog: DEFAULT_BACKLOG }
    }
}

impl Network {
    /// Connects, with `TCP_NODELAY` set. Waits as long as the kernel does: callers put their own time-out around it.
    ///
    /// # Errors
    /// When the connection is refused, unreachable or reset.
    pub async fn connect(self, addr: SocketAddr) -> io::Result<Stream> {
        self.connect_with(addr, ConnectOptions::default()).await
    }

    /// Connects as the options say. A simulated network ignores them.
    ///
    /// # Errors
    /// As [`Network::connect`], and when an option is not permitted.
    pub async fn connect_with(self, addr: SocketAddr, options: ConnectOptions) -> io::Result<Stream> {
        match self {
            Network::Tcp => {
                let stream = connect_tcp(addr, options).await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            #[cfg(feature = "sim")]
            Network::Sim => Ok(Stream::Sim(turmoil::net::TcpStream::connect(addr).await?)),
        }
    }

    /// Listens. A simulated host has one address only, so there the address is taken as *any*, the port counts.
    ///
    /// # Errors
    /// When the address is taken or not ours, or an option is not permitted.
    pub async fn bind(self, addr: SocketAddr, options: BindOptions) -> io::Result<Listener> {
        match self {
            Network::Tcp => bind_tcp(addr, options).map(Listener::Tcp),
            #[cfg(feature = "sim")]
            Network::Sim => {
                let any: IpAddr = match addr {
                    SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
                    SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
                };
                Ok(Listener::Sim(turmoil::net::TcpListener::bind((any, addr.port())).await?))
            }
        }
    }
}

async fn connect_tcp(addr: SocketAddr, options: ConnectOptions) -> io::Result<TcpStream> {
    if options.source.is_none() && options.mark.is_none() {
        return TcpStream::connect(addr).await;
    }
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(mark) = options.mark {
        socket2::SockRef::from(&socket).set_mark(mark)?;
    }
    if let Some(source) = options.source {
        // Without this a source port in TIME_WAIT towards any destination could not be chosen again.
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::new(source, 0))?;
    }
    socket.connect(addr).await
}

fn bind_tcp(addr: SocketAddr, options: BindOptions) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(options.reuse_port)?;
    if addr.is_ipv6() {
        // One listener per family: an IPv4 caller must never appear as a mapped IPv6 address to authorization.
        socket.set_only_v6(true)?;
    }
    if options.transparent {
        match addr {
            SocketAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
            SocketAddr::V6(_) => socket.set_ip_transparent_v6(true)?,
        }
    }
    // The connections that are accepted have it from here, without a system call each.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&addr.into())?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    TcpListener::from_std(socket.into())
}

/// Takes connections.
pub enum Listener {
    /// The kernel's.
    Tcp(TcpListener),
    /// turmoil's.
    #[cfg(feature = "sim")]
    Sim(turmoil::net::TcpListener),
}

impl Listener {
    /// The next connection, with `TCP_NODELAY` set. Errors that concern one connection only are passed over, and exhaustion of
    /// descriptors or memory is waited out, so an error means that the listener itself is of no more use.
    ///
    /// # Errors
    /// When the listening socket is broken.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        match self {
            Listener::Tcp(listener) => loop {
                match listener.accept().await {
                    Ok((stream, peer)) => return Ok((Stream::Tcp(stream), peer)),
                    Err(error) if is_listener_broken(&error) => return Err(error),
                    Err(error) if is_of_one_connection(&error) => {}
                    Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
                }
            },
            #[cfg(feature = "sim")]
            Listener::Sim(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Stream::Sim(stream), peer))
            }
        }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the kernel cannot say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Listener::Tcp(listener) => listener.local_addr(),
            #[cfg(feature = "sim")]
            Listener::Sim(listener) => listener.local_addr(),
        }
    }
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Listener({:?})", self.local_addr().ok())
    }
}

/// `EBADF`, `EINVAL`, `ENOTSOCK`: no later call will do better.
fn is_listener_broken(error: &io::Error) -> bool {
    const EBADF: i32 = 9;
    const EINVAL: i32 = 22;
    const ENOTSOCK: i32 = 88;
    matches!(error.raw_os_error(), Some(EBADF | EINVAL | ENOTSOCK))
}

/// accept(2) hands over errors of the connection that would have been returned.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
    )
}
