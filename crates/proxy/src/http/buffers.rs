//! Buffers that connections share: one has memory only while bytes are under way.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};
use std::thread::LocalKey;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

/// What a read may bring at first, and when much comes: it is the number of sends and reads that costs, not their size.
const READ: usize = 16 * 1024;
const READ_MUCH: usize = 128 * 1024;
/// Less room than this is not worth a read.
const LEAST: usize = 2 * 1024;
/// Buffers kept per thread; of large ones fewer.
const KEPT: usize = 32;
const KEPT_LARGE: usize = 4;
/// A larger output buffer is not kept: it served a burst.
const KEPT_OUTPUT: usize = 64 * 1024;

thread_local! {
    static INPUT: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
    static LARGE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
    static OUTPUT: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// How much a connection's reads bring.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Amount {
    /// Heads and small bodies.
    #[default]
    Little,
    /// The last read filled its buffer.
    Much,
}

/// Reads what is there, after what `input` holds already; 0 at the end of the stream. While nothing is there `input` holds no
/// memory.
///
/// # Errors
/// When the connection is lost.
pub fn poll_read(
    io: &mut (impl AsyncRead + Unpin),
    input: &mut BytesMut,
    amount: &mut Amount,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let (kept, size) = match amount {
        Amount::Little => (&INPUT, READ),
        Amount::Much => (&LARGE, READ_MUCH),
    };
    if input.is_empty() {
        if input.capacity() == 0 {
            *input = kept.with_borrow_mut(Vec::pop).unwrap_or_default();
        }
        // Takes the room of what was read before and is used up, when nobody holds any of it.
        input.reserve(size);
    } else if input.capacity() - input.len() < LEAST {
        input.reserve(size);
    }
    let room = input.capacity() - input.len();
    let polled = pin!(io.read_buf(input)).poll(cx);
    match &polled {
        Poll::Ready(Ok(count)) if *count == room => *amount = Amount::Much,
        Poll::Ready(_) => {}
        // Between messages: small ones may follow.
        Poll::Pending if *amount == Amount::Much && input.is_empty() => {
            give_back(std::mem::take(input), &LARGE, KEPT_LARGE);
            *amount = Amount::Little;
        }
        Poll::Pending => {}
    }
    if input.is_empty() && input.capacity() > 0 {
        give_back(std::mem::take(input), &INPUT, KEPT);
    }
    polled
}

/// Takes the memory of an input that holds nothing: the next read of any connection finds it still in the processor's cache.
pub fn give_input(input: &mut BytesMut, amount: &mut Amount) {
    if input.is_empty() && input.capacity() > 0 {
        match std::mem::take(amount) {
            Amount::Little => give_back(std::mem::take(input), &INPUT, KEPT),
            Amount::Much => give_back(std::mem::take(input), &LARGE, KEPT_LARGE),
        }
    }
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

fn give_back(buffer: BytesMut, to: &'static LocalKey<RefCell<Vec<BytesMut>>>, most: usize) {
    to.with_borrow_mut(|kept| {
        if kept.len() < most {
            kept.push(buffer);
        }
    });
}
