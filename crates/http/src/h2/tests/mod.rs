//! Tests of the whole state machine.

mod peers;
