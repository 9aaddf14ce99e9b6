//! Tests of the whole state machine.

mod faults;
mod floods;
mod heads;
mod peers;
mod random;
mod raw;
mod repeats;
mod streams;
