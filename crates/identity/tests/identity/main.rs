//! Handshakes over in-memory streams: who is believed, who is not, and what each side is told.

mod support;

mod backend;
mod handshakes;
mod lifecycle;
mod public;
mod resumption;
mod rogue;
mod streams;
