//! Handshakes: rustls says what to send, we carry it.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::crypto::tls13::OkmBlock;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{CommonState, Error, SupportedCipherSuite, Tls13CipherSuite};
use tokio::io::{AsyncRead, AsyncWrite};

use super::buffer::{Inbox, Outbox};
use super::record;
use super::stream::{Session, TlsStream};
use super::wire::{Agreed, Wire};
use crate::verifier::{Notes, Verdict};

/// One side of a handshake.
pub(crate) trait Side: Sized {
    type Data;
    /// See [`UnbufferedClientConnection::process_tls_records`].
    fn process<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn common(&self) -> &CommonState;
    /// What the handshake leaves; `secrets` are the client's and the server's.
    fn agreed(self, secrets: (OkmBlock, OkmBlock), keeps_ticket: bool) -> Result<Agreed, Error>;
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(bytes)
    }

    fn common(&self) -> &CommonState {
        self
    }

    fn agreed(self, (client, server): (OkmBlock, OkmBlock), keeps_ticket: bool) -> Result<Agreed, Error> {
        let (keys, rest) = self.dangerous_into_kernel_connection()?;
        Ok(Agreed {
            suite: suite(rest.negotiated_cipher_suite())?,
            sealing: (client, keys.tx),
            opening: (server, keys.rx),
            tickets: keeps_ticket.then(|| Box::new(rest)),
            is_client: true,
        })
    }
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, bytes: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(bytes)
    }

    fn common(&self) -> &CommonState {
        self
    }

    fn agreed(self, (client, server): (OkmBlock, OkmBlock), _: bool) -> Result<Agreed, Error> {
        let (keys, rest) = self.dangerous_into_kernel_connection()?;
        Ok(Agreed {
            suite: suite(rest.negotiated_cipher_suite())?,
            sealing: (server, keys.tx),
            opening: (client, keys.rx),
            tickets: None,
            is_client: false,
        })
    }
}

fn suite(suite: SupportedCipherSuite) -> Result<&'static Tls13CipherSuite, Error> {
    suite.tls13().ok_or_else(|| Error::General("not TLS 1.3".to_owned()))
}

/// Why there is no stream.
pub(crate) struct Broken {
    pub(crate) error: io::Error,
    /// What our verifier said, if it was asked.
    pub(crate) verdict: Option<Verdict>,
    /// Whether the peer has taken part: its ServerHello or ClientHello was understood.
    pub(crate) heard: bool,
}

/// What a caller of [`shake_hands`] wants.
pub(crate) struct Wants {
    /// What is to be sent last leaves with the first write, flush or read of the stream.
    pub(crate) hold: bool,
    /// A client's: the first ticket is kept in its configuration's store.
    pub(crate) ticket: bool,
}

/// Shakes hands. `inbox` holds what was received already. `judge` is given the connection as rustls leaves it, and what our
/// verifier said.
pub(crate) async fn shake_hands<S, C, T>(
    mut io: S,
    inbox: Inbox,
    mut connection: C,
    Wants { hold, ticket }: Wants,
    judge: impl FnOnce(&C, Option<Verdict>) -> T,
) -> Result<(TlsStream<S>, T), Broken>
where
    S: AsyncRead + AsyncWrite + Unpin,
    C: Side,
{
    let mut shaking = Shaking { inbox, outbox: Outbox::default(), given: 0, notes: Notes::default() };
    let done = poll_fn(|cx| {
        ready!(shaking.poll(&mut io, cx, &mut connection))?;
        if hold { Poll::Ready(Ok(())) } else { shaking.poll_send(&mut io, cx) }
    })
    .await;
    let common = connection.common();
    let heard = common.protocol_version().is_some();
    let Shaking { inbox, outbox, notes, .. } = shaking;
    let Notes { verdict, server_name, client_secret, server_secret } = notes;
    if let Err(error) = done {
        return Err(Broken { error, verdict, heard });
    }
    let session = Session { alpn: common.alpn_protocol().map(Into::into), server_name, kind: common.handshake_kind() };
    let judged = judge(&connection, verdict);
    let wire = client_secret
        .zip(server_secret)
        .ok_or_else(|| Error::General("a handshake without secrets".to_owned()))
        .and_then(|secrets| connection.agreed(secrets, ticket))
        .and_then(|agreed| Wire::new(agreed, inbox, outbox))
        .map_err(|error| Broken { error: invalid(error), verdict: None, heard })?;
    Ok((TlsStream::new(io, wire, session), judged))
}

struct Shaking {
    inbox: Inbox,
    outbox: Outbox,
    /// Received bytes that rustls was given. One record at a time: it must not open what is ours.
    given: usize,
    notes: Notes,
}

/// What a step asks for.
enum Next {
    Step,
    Bytes,
    Done,
}

impl Shaking {
    fn poll<S: AsyncRead + AsyncWrite + Unpin, C: Side>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
        connection: &mut C,
    ) -> Poll<io::Result<()>> {
        loop {
            let (step, notes) = Notes::of(|| self.step(connection));
            self.notes.add(notes);
            match step {
                Ok(Next::Step) => {}
                Ok(Next::Done) => return Poll::Ready(Ok(())),
                Ok(Next::Bytes) => {
                    let waiting = self.inbox.sealed();
                    match record::handshake_length(&waiting[self.given..]) {
                        Some(length) if length > 0 && self.given + length <= waiting.len() => self.given += length,
                        _ => ready!(self.poll_exchange(io, cx))?,
                    }
                }
                Err(error) => {
                    self.collect_alert(connection);
                    // As far as the socket takes it at once.
                    if self.outbox.poll_send(io, cx).is_ready() {
                        let _ = Pin::new(io).poll_flush(cx);
                    }
                    return Poll::Ready(Err(invalid(error)));
                }
            }
        }
    }

    /// Sends what is to be sent, then receives.
    fn poll_exchange<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_send(io, cx))?;
        match ready!(self.inbox.poll_receive(io, cx))? {
            0 => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            _ => Poll::Ready(Ok(())),
        }
    }

    fn poll_send<S: AsyncWrite + Unpin>(&mut self, io: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.outbox.is_empty() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.outbox.poll_send(io, cx))?;
        Pin::new(io).poll_flush(cx)
    }

    fn step<C: Side>(&mut self, connection: &mut C) -> Result<Next, Error> {
        let UnbufferedStatus { discard, state } = connection.process(&mut self.inbox.sealed()[..self.given]);
        let mut asks_for_bytes = false;
        match state? {
            ConnectionState::EncodeTlsData(mut data) => self.outbox.append(|room| data.encode(room)).map_err(unfit)?,
            // It is sent in order, from our buffer.
            ConnectionState::TransmitTlsData(data) => data.done(),
            ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => asks_for_bytes = true,
            ConnectionState::PeerClosed | ConnectionState::Closed => {
                return Err(Error::AlertReceived(rustls::AlertDescription::CloseNotify));
            }
            _ => return Err(Error::General("data before the end of the handshake".to_owned())),
        }
        self.given -= discard;
        self.inbox.discard(discard);
        Ok(match asks_for_bytes {
            false => Next::Step,
            true if connection.common().is_handshaking() => Next::Bytes,
            true => Next::Done,
        })
    }

    /// What rustls still wants to say after an error: an alert.
    fn collect_alert<C: Side>(&mut self, connection: &mut C) {
        // While there is something to send, rustls looks at no received byte.
        while connection.common().wants_write() {
            match connection.process(&mut []).state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    if self.outbox.append(|room| data.encode(room)).is_err() {
                        return;
                    }
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                _ => return,
            }
        }
    }
}

fn unfit(error: EncodeError) -> Error {
    Error::General(format!("a handshake that does not fit into a buffer: {error}"))
}

fn invalid(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
