//! Bounds on what a peer can make us do for nothing.
//!
//! There is no clock here: what a peer costs is counted, and useful work pays it back. A peer that only costs is told to calm down
//! (RFC 9113 §10.5), one that asks and is answered never is.

use super::code::{Code, Fault};
use super::output::Output;

/// Streams in a row that came to nothing: reset by the peer before any answer (CVE-2023-44487), or reset by us for its errors
/// (CVE-2025-8671).
const MOST_VAIN_STREAMS: u32 = 500;
/// Frames in a row that move nothing: empty DATA, PRIORITY, WINDOW_UPDATE, frames on closed streams, of unknown kinds
/// (CVE-2019-9511, -9513, -9518).
const MOST_VAIN_FRAMES: u32 = 4000;
/// Answers to PING and SETTINGS that wait to be written: a peer that asks and does not read (CVE-2019-9512, -9515).
const MOST_ANSWERS: u32 = 1000;

/// What frames the useful ones pay for.
const WORTH: u32 = 32;

/// Counts of one connection.
#[derive(Debug, Default)]
pub(super) struct Flood {
    vain_streams: u32,
    vain_frames: u32,
    answers: u32,
    /// The first of `answers` is written when the output has come so far.
    answers_from: u64,
    /// Our own PINGs that are not answered.
    asked: u32,
}

impl Flood {
    /// A stream came to its proper end.
    pub(super) fn served(&mut self) {
        self.vain_streams = self.vain_streams.saturating_sub(1);
    }

    /// Data or a new head came, or data left.
    pub(super) fn worked(&mut self) {
        self.vain_frames = self.vain_frames.saturating_sub(WORTH);
    }

    pub(super) fn vain_stream(&mut self) -> Result<(), Fault> {
        count(&mut self.vain_streams, MOST_VAIN_STREAMS, "too many streams came to nothing")
    }

    pub(super) fn vain_frame(&mut self) -> Result<(), Fault> {
        count(&mut self.vain_frames, MOST_VAIN_FRAMES, "too many frames without use")
    }

    /// We ask the peer for an answer.
    pub(super) fn asked(&mut self) {
        self.asked += 1;
    }

    /// The peer answers.
    pub(super) fn answered(&mut self) -> Result<(), Fault> {
        match self.asked.checked_sub(1) {
            Some(left) => self.asked = left,
            None => return self.vain_frame(),
        }
        Ok(())
    }

    /// An answer is queued behind what the output holds.
    pub(super) fn answer(&mut self, output: &Output) -> Result<(), Fault> {
        if output.passed() >= self.answers_from {
            self.answers = 0;
            self.answers_from = output.end() + 1;
        }
        count(&mut self.answers, MOST_ANSWERS, "too many PING or SETTINGS whose answers are not read")
    }
}

fn count(counter: &mut u32, most: u32, reason: &'static str) -> Result<(), Fault> {
    *counter += 1;
    if *counter > most { Err(Fault::new(Code::ENHANCE_YOUR_CALM, reason)) } else { Ok(()) }
}
