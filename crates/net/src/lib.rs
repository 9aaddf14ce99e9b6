//! The seam between the mesh and the outside world.
//!
//! Everything that a test wants to replace is behind here: sockets ([`Network`], which is the real one or turmoil's simulated
//! one), randomness ([`rng`]), and the waiting that follows from both ([`backoff`], [`drain`]). Whole fleets therefore run as
//! tasks of one runtime, on a virtual clock and from a seed; the data path loses nothing, because the real case is a plain
//! enum variant and not a boxed trait.

pub mod backoff;
pub mod drain;
mod network;
mod prefixed;
mod random;
mod stream;

use tokio::io::{AsyncRead, AsyncWrite};

pub use backoff::Backoff;
pub use drain::{Drain, DrainTrigger, drain};
pub use network::{BindOptions, ConnectOptions, Listener, Network};
pub use prefixed::Prefixed;
pub use random::{clear_seed, rng, set_seed};
pub use stream::{ReadHalf, Stream, WriteHalf, original_dst, set_keepalive, set_user_timeout};

/// What a connection must be able to do, whatever carries it (TCP, TLS over TCP, a pipe in a test).
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Io for T {}

/// A connection whose carrier does not matter: for control traffic, not for the data path.
pub type BoxedIo = Box<dyn Io>;
