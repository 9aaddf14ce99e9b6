//! A connection after its handshake: records in, records out, and the few messages that TLS 1.3 knows then.

use std::io;
use std::task::{Context, Poll, ready};

use rustls::client::ClientConnectionData;
use rustls::crypto::tls13::OkmBlock;
use rustls::kernel::KernelConnection;
use rustls::{
    AlertDescription, ConnectionTrafficSecrets, ContentType, Error, HandshakeType, InvalidMessage, PeerMisbehaved,
    Tls13CipherSuite,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::buffer::{Inbox, Outbox};
use super::record::{self, Opener, Sealer};

const WARNING: u8 = 1;
const FATAL: u8 = 2;
/// Type, length 1, `update_not_requested` (RFC 8446 §4.6.3).
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
/// Records in a row that may carry nothing, and key updates in a row without data: as rustls allows.
const MAX_IDLE: u8 = 32;
/// Longest message after the handshake: a ticket. Ours have about 1.5 KiB.
const MAX_MESSAGE: usize = 1 << 16;

/// Why nothing is read any more.
enum End {
    /// `close_notify`: all that the peer had to say was read.
    Closed,
    /// Told again at every further read or write; the peer was told once.
    Failed { error: Box<Error>, told: bool },
}

/// Both directions of a connection.
pub(crate) struct Wire {
    pub(super) inbox: Inbox,
    pub(super) outbox: Outbox,
    opener: Opener,
    sealer: Sealer,
    /// What rustls needs to keep the first ticket; further ones are not kept.
    tickets: Option<Box<KernelConnection<ClientConnectionData>>>,
    is_client: bool,
    end: Option<End>,
    /// Part of a message that goes on in the next record.
    message: Vec<u8>,
    idle: u8,
    owes_key_update: bool,
    sent_close: bool,
    /// A writer waits for the peer: readers leave the sending to it, whose waker the socket has.
    writer_waits: bool,
}

/// What the handshake leaves: for each direction the secret, and the key and number of the next record that came of it.
pub(crate) struct Agreed {
    pub(crate) suite: &'static Tls13CipherSuite,
    pub(crate) sealing: (OkmBlock, (u64, ConnectionTrafficSecrets)),
    pub(crate) opening: (OkmBlock, (u64, ConnectionTrafficSecrets)),
    pub(crate) tickets: Option<Box<KernelConnection<ClientConnectionData>>>,
    pub(crate) is_client: bool,
}

/// What a look at the records at hand gave.
enum Look {
    /// Plaintext, in the inbox or where the caller wanted it.
    Data,
    /// The peer closed.
    Closed,
    /// No whole record is there.
    Short,
}

impl Wire {
    pub(super) fn new(agreed: Agreed, inbox: Inbox, outbox: Outbox) -> Result<Self, Error> {
        let Agreed { suite, sealing, opening, tickets, is_client } = agreed;
        Ok(Self {
            inbox,
            outbox,
            opener: Opener::new(suite, opening.0, opening.1)?,
            sealer: Sealer::new(suite, sealing.0, sealing.1)?,
            tickets,
            is_client,
            end: None,
            message: Vec::new(),
            idle: 0,
            owes_key_update: false,
            sent_close: false,
            writer_waits: false,
        })
    }

    /// Adds any record at all.
    #[cfg(test)]
    pub(super) fn push_raw(&mut self, kind: ContentType, message: &[u8]) {
        assert!(self.outbox.push_control(&mut self.sealer, kind, message).unwrap());
    }

    #[cfg(test)]
    pub(super) fn sealer(&mut self) -> &mut Sealer {
        &mut self.sealer
    }

    /// Makes plaintext available: in the inbox, or straight in `direct` if whole records fit there. False at the end.
    pub(super) fn poll_fill<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
        mut direct: Option<&mut ReadBuf<'_>>,
    ) -> Poll<io::Result<bool>> {
        loop {
            match self.look(direct.as_deref_mut()) {
                Ok(Look::Data) => return Poll::Ready(Ok(true)),
                Ok(Look::Closed) => {
                    self.send_what_waits(io, cx);
                    return Poll::Ready(Ok(false));
                }
                Ok(Look::Short) => {}
                Err(error) => return Poll::Ready(Err(self.fail(io, cx, error))),
            }
            match self.inbox.poll_receive(io, cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.send_what_waits(io, cx);
                    return Poll::Pending;
                }
            }
        }
    }

    /// Whoever waits for an answer has said all there is to say; and a peer that came for the handshake alone, and has closed, still takes
    /// its ticket. What fails here fails the next write too.
    fn send_what_waits<S: AsyncWrite + Unpin>(&mut self, io: &mut S, cx: &mut Context<'_>) {
        if !self.writer_waits {
            let _ = self.poll_send(io, cx);
        }
    }

    /// Takes application data. Less than given, but not nothing, when the buffer is full.
    pub(super) fn poll_push<S: AsyncWrite + Unpin>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.may_write()?;
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        loop {
            self.update_keys_if_due().map_err(invalid)?;
            match self.outbox.push(&mut self.sealer, data).map_err(invalid)? {
                0 => ready!(self.poll_write_out(io, cx))?,
                count => return Poll::Ready(Ok(count)),
            }
        }
    }

    /// Sends everything that was taken.
    pub(super) fn poll_write_out<S: AsyncWrite + Unpin>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let sent = self.poll_send(io, cx);
        self.writer_waits = sent.is_pending();
        sent
    }

    /// Says that nothing follows, once, and sends everything.
    pub(super) fn poll_close<S: AsyncWrite + Unpin>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.sent_close {
            self.sent_close = self.push_alert(WARNING, AlertDescription::CloseNotify).map_err(invalid)?;
            if !self.sent_close {
                ready!(self.poll_write_out(io, cx))?;
            }
        }
        self.poll_write_out(io, cx)
    }

    /// Refuses the peer for this reason: tells it so as far as the socket takes it at once. Gives the error for the caller.
    pub(super) fn fail<S: AsyncWrite + Unpin>(&mut self, io: &mut S, cx: &mut Context<'_>, error: Error) -> io::Error {
        // An alert is not answered with an alert.
        let told = matches!(self.end, Some(End::Failed { told: true, .. })) || matches!(error, Error::AlertReceived(_));
        if !told && !self.sent_close && matches!(self.push_alert(FATAL, record::alert(&error)), Ok(true)) {
            let _ = self.poll_send(io, cx);
        }
        self.sent_close = true;
        self.end = Some(End::Failed { error: Box::new(error.clone()), told: true });
        invalid(error)
    }

    fn may_write(&self) -> io::Result<()> {
        match &self.end {
            Some(End::Failed { error, .. }) => Err(invalid((**error).clone())),
            _ if self.sent_close => Err(io::ErrorKind::BrokenPipe.into()),
            _ => Ok(()),
        }
    }

    fn poll_send<S: AsyncWrite + Unpin>(&mut self, io: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.outbox.is_empty() && !self.owes_key_update {
            return Poll::Ready(Ok(()));
        }
        self.update_keys_if_due().map_err(invalid)?;
        self.outbox.seal(&mut self.sealer).map_err(invalid)?;
        self.outbox.poll_send(io, cx)
    }

    fn push_alert(&mut self, level: u8, description: AlertDescription) -> Result<bool, Error> {
        self.outbox.push_control(&mut self.sealer, ContentType::Alert, &[level, description.into()])
    }

    /// Changes our key when the peer asked for it, or before it has sealed too much (RFC 8446 §4.6.3, §5.5). Later, when
    /// there is no room: nothing else is sealed before.
    fn update_keys_if_due(&mut self) -> Result<(), Error> {
        if !self.owes_key_update && !self.sealer.is_used_up() || self.sent_close {
            return Ok(());
        }
        if self.outbox.push_control(&mut self.sealer, ContentType::Handshake, &KEY_UPDATE)? {
            self.owes_key_update = false;
            self.sealer.update()?;
        }
        Ok(())
    }

    /// Opens records until one gives plaintext. With `direct`, as many as fit there.
    fn look(&mut self, direct: Option<&mut ReadBuf<'_>>) -> Result<Look, Error> {
        match &self.end {
            Some(End::Closed) => return Ok(Look::Closed),
            Some(End::Failed { error, .. }) => return Err((**error).clone()),
            None => {}
        }
        let mut filled = false;
        match self.open_records(direct, &mut filled) {
            // What was good is given out first.
            Err(error) if filled => {
                self.end = Some(End::Failed { error: Box::new(error), told: false });
                Ok(Look::Data)
            }
            Ok(_) if filled => Ok(Look::Data),
            other => other,
        }
    }

    fn open_records(&mut self, mut direct: Option<&mut ReadBuf<'_>>, filled: &mut bool) -> Result<Look, Error> {
        loop {
            let bytes = self.inbox.sealed();
            let length = match record::length(bytes)? {
                Some(length) if length <= bytes.len() => length,
                _ => return Ok(Look::Short),
            };
            let sealed = &mut bytes[..length];
            let room = record::plain_room(length);
            let (kind, message) = match direct.as_deref_mut() {
                Some(target) if target.remaining() >= room => {
                    let out = target.initialize_unfilled_to(room);
                    let (kind, plain) = self.opener.open_into(sealed, out)?;
                    if kind == ContentType::ApplicationData {
                        target.advance(plain);
                        self.inbox.discard(length);
                        *filled |= self.has_data(plain)?;
                        continue;
                    }
                    (kind, out[..plain].to_vec())
                }
                _ if *filled => return Ok(Look::Data),
                _ => {
                    let (kind, plain) = self.opener.open_in_place(sealed)?;
                    if kind == ContentType::ApplicationData {
                        self.inbox.opened(length, plain);
                        if self.has_data(plain)? {
                            return Ok(Look::Data);
                        }
                        self.inbox.consume(0);
                        continue;
                    }
                    (kind, sealed[record::HEADER..][..plain].to_vec())
                }
            };
            self.inbox.discard(length);
            self.control(kind, &message)?;
            if let Some(End::Closed) = self.end {
                // What comes after `close_notify` is ignored (RFC 8446 §6.1).
                self.inbox = Inbox::default();
                return Ok(Look::Closed);
            }
        }
    }

    /// Notes a record of application data of this length; whether there is any.
    fn has_data(&mut self, length: usize) -> Result<bool, Error> {
        if !self.message.is_empty() {
            return Err(PeerMisbehaved::MessageInterleavedWithHandshakeMessage.into());
        }
        if length > 0 {
            self.idle = 0;
            return Ok(true);
        }
        self.count_idle(PeerMisbehaved::TooManyEmptyFragments)?;
        Ok(false)
    }

    fn count_idle(&mut self, otherwise: PeerMisbehaved) -> Result<(), Error> {
        self.idle += 1;
        if self.idle > MAX_IDLE { Err(otherwise.into()) } else { Ok(()) }
    }

    /// A record that is no application data.
    fn control(&mut self, kind: ContentType, bytes: &[u8]) -> Result<(), Error> {
        match kind {
            ContentType::Alert if self.message.is_empty() => self.alert(bytes),
            ContentType::Handshake => self.handshake(bytes),
            got_type => Err(Error::InappropriateMessage {
                expect_types: vec![ContentType::ApplicationData, ContentType::Handshake, ContentType::Alert],
                got_type,
            }),
        }
    }

    /// RFC 8446 §6: everything but `close_notify` and `user_canceled` ends the connection, whatever its level says.
    fn alert(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let &[_, description] = bytes else { return Err(InvalidMessage::MessageTooShort.into()) };
        match AlertDescription::from(description) {
            AlertDescription::CloseNotify => {
                self.end = Some(End::Closed);
                Ok(())
            }
            AlertDescription::UserCanceled => self.count_idle(PeerMisbehaved::TooManyWarningAlertsReceived),
            description => Err(Error::AlertReceived(description)),
        }
    }

    /// Messages may share a record or be spread over several (RFC 8446 §5.1).
    fn handshake(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if bytes.is_empty() {
            return Err(PeerMisbehaved::TooManyEmptyFragments.into());
        }
        let mut all = std::mem::take(&mut self.message);
        all.extend_from_slice(bytes);
        let mut left = &all[..];
        while let Some((&[kind, a, b, c], body)) = left.split_first_chunk::<4>() {
            let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            if length > MAX_MESSAGE {
                return Err(InvalidMessage::HandshakePayloadTooLarge.into());
            }
            let Some((body, next)) = body.split_at_checked(length) else { break };
            left = next;
            self.message(HandshakeType::from(kind), body, left.is_empty())?;
        }
        self.message = left.to_vec();
        Ok(())
    }

    fn message(&mut self, kind: HandshakeType, body: &[u8], is_last: bool) -> Result<(), Error> {
        match kind {
            HandshakeType::NewSessionTicket if self.is_client => match self.tickets.take() {
                Some(mut tickets) => tickets.handle_new_session_ticket(body),
                None => Ok(()),
            },
            HandshakeType::KeyUpdate => {
                // Nothing of the old key may follow in the record (RFC 8446 §5.1).
                if !is_last {
                    return Err(PeerMisbehaved::KeyEpochWithPendingFragment.into());
                }
                let requested = match body {
                    [0] => false,
                    [1] => true,
                    _ => return Err(InvalidMessage::InvalidKeyUpdate.into()),
                };
                self.opener.update()?;
                self.owes_key_update |= requested;
                self.count_idle(PeerMisbehaved::TooManyKeyUpdateRequests)
            }
            got_type => Err(Error::InappropriateHandshakeMessage {
                expect_types: vec![HandshakeType::KeyUpdate, HandshakeType::NewSessionTicket],
                got_type,
            }),
        }
    }
}

fn invalid(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
