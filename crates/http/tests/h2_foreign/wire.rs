//! Drives a connection over a pipe.

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use veer_http::h2::{Connection, Event, Fault};

pub struct Wire<S> {
    pub connection: Connection<S>,
    io: DuplexStream,
    input: BytesMut,
}

impl<S> Wire<S> {
    pub fn new(connection: Connection<S>, io: DuplexStream) -> Self {
        Self { connection, io, input: BytesMut::new() }
    }

    /// The next event that is there.
    pub fn event(&mut self) -> Result<Option<Event>, Fault> {
        self.connection.receive(&mut self.input)
    }

    /// Writes what is to be written, and reads some. False: the peer has closed.
    pub async fn turn(&mut self) -> bool {
        let (mut reader, mut writer) = tokio::io::split(&mut self.io);
        let output = self.connection.output();
        self.input.reserve(16 << 10);
        if !output.has_remaining() {
            return reader.read_buf(&mut self.input).await.is_ok_and(|read| read > 0);
        }
        tokio::select! {
            written = writer.write_buf(output) => written.is_ok(),
            read = reader.read_buf(&mut self.input) => read.is_ok_and(|read| read > 0),
        }
    }

    /// Writes all that is to be written.
    pub async fn flush(&mut self) {
        while self.connection.output().has_remaining() {
            if self.io.write_buf(self.connection.output()).await.is_err() {
                return;
            }
        }
    }
}
