//! Buffers that connections share: one has memory only while bytes are under way.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

/// What one read may bring.
const READ: usize = 16 * 1024;
/// Less room than this is not worth a read.
const LEAST: usize = 2 * 1024;
/// Buffers kept per thread.
const KEPT: usize = 32;
/// A larger output buffer is not kept: it served a burst.
const KEPT_OUTPUT: usize = 64 * 1024;

thread_local! {
    static INPUT: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
    static OUTPUT: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Reads what is there, after what `input` holds already; 0 at the end of the stream. While nothing is there `input` holds no
/// memory.
///
/// # Errors
/// When the connection is lost.
pub fn poll_read(
    io: &mut (impl AsyncRead + Unpin),
    input: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    if input.is_empty() && input.capacity() == 0 {
        *input = INPUT.with_borrow_mut(Vec::pop).unwrap_or_default();
    }
    if input.capacity() - input.len() < LEAST {
        input.reserve(READ);
    }
    let polled = pin!(io.read_buf(input)).poll(cx);
    if input.is_empty() {
        give_back(std::mem::take(input));
    }
    polled
}

/// An empty buffer for output.
pub fn output() -> Vec<u8> {
    OUTPUT.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Gives an output buffer back.
pub fn give_output(mut buffer: Vec<u8>) {
    if buffer.capacity() == 0 || buffer.capacity() > KEPT_OUTPUT {
        return;
    }
    buffer.clear();
    OUTPUT.with_borrow_mut(|kept| {
        if kept.len() < KEPT {
            kept.push(buffer);
        }
    });
}

fn give_back(buffer: BytesMut) {
    INPUT.with_borrow_mut(|kept| {
        if kept.len() < KEPT {
            kept.push(buffer);
        }
    });
}
