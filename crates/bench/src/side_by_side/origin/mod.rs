//! What the proxies stand before: answers over HTTP/1.1 and HTTP/2 with prior knowledge, and an echo. It knows what it is going to
//! say before it is asked, and looks at a request only as far as its end.

mod echo;
mod http1;
mod http2;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::works::{Shape, Spoken};

const BUFFER: usize = 64 * 1024;

/// Listens until dropped.
pub struct Origin {
    tasks: JoinSet<()>,
}

/// What is said to everybody.
enum Said {
    Http { http1: Vec<u8>, http2: http2::Answer },
    Echo,
}

impl Origin {
    /// Does a work's other end on some addresses.
    ///
    /// # Errors
    /// When an address is taken.
    pub async fn start(shape: &Shape, addresses: &[SocketAddr]) -> anyhow::Result<Self> {
        let said = Arc::new(match shape.spoken {
            Spoken::Tcp => Said::Echo,
            _ => Said::Http { http1: http1::answer(shape.body), http2: http2::Answer::new(shape) },
        });
        let mut tasks = JoinSet::new();
        for address in addresses {
            let listener = TcpListener::bind(address).await.with_context(|| format!("origin on {address}"))?;
            tasks.spawn(serve(listener, Arc::clone(&said)));
        }
        Ok(Self { tasks })
    }

    /// Frees the addresses.
    pub async fn end(mut self) {
        self.tasks.shutdown().await;
    }
}

async fn serve(listener: TcpListener, said: Arc<Said>) {
    // Dropped with the listener, so that no connection outlives the origin.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let said = Arc::clone(&said);
        connections.spawn(async move {
            // How a connection ends is the business of the one who asked.
            let _ = stream.set_nodelay(true);
            let _ = match &*said {
                Said::Echo => echo::run(stream).await,
                Said::Http { http1, http2 } => http(stream, http1, http2).await,
            };
        });
    }
}

async fn http(mut stream: TcpStream, http1: &[u8], http2: &http2::Answer) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut filled = 0;
    // No method of HTTP/1.1 that is used here starts like the preface.
    while filled < 3 {
        let n = stream.read(&mut buffer[filled..]).await?;
        if n == 0 {
            return Ok(());
        }
        filled += n;
    }
    if buffer.starts_with(b"PRI") {
        http2::run(stream, buffer, filled, http2).await
    } else {
        http1::run(stream, buffer, filled, http1).await
    }
}
