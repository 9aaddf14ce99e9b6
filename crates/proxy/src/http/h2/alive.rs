//! Whether the peer of a connection lives.

use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::{Instant, Sleep};
use veer_http::h2::Connection;

use super::Slot;

/// When a peer that is silent while streams are open is asked whether it lives.
#[derive(Debug, Clone, Copy)]
pub struct Ping {
    /// After so long without a byte.
    pub after: Duration,
    /// It has so long to answer.
    pub time: Duration,
}
/// Whether the peer lives, while somebody waits for it.
pub(super) struct Alive {
    ping: Ping,
    heard: Instant,
    asked: bool,
    sleep: Option<Pin<Box<Sleep>>>,
}

pub(super) enum Look {
    Fine,
    /// A PING is in the output.
    Asked,
    Dead,
}

impl Alive {
    pub(super) fn new(ping: Ping) -> Self {
        Self { ping, heard: Instant::now(), asked: false, sleep: None }
    }

    pub(super) fn heard(&mut self) {
        self.heard = Instant::now();
        self.asked = false;
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>, connection: &mut Connection<Slot>) -> Look {
        if connection.open_streams() == 0 {
            self.sleep = None;
            self.asked = false;
            return Look::Fine;
        }
        loop {
            let limit = if self.asked { self.ping.after + self.ping.time } else { self.ping.after };
            let due = self.heard + limit;
            let Some(sleep) = &mut self.sleep else {
                let now = Instant::now();
                if due <= now && !self.asked {
                    return self.ask(connection, now);
                }
                let mut sleep = Box::pin(tokio::time::sleep_until(due));
                let _ = sleep.as_mut().poll(cx);
                self.sleep = Some(sleep);
                return Look::Fine;
            };
            if !sleep.is_elapsed() {
                return Look::Fine;
            }
            self.sleep = None;
            let now = Instant::now();
            if due > now {
                continue;
            }
            if self.asked {
                return Look::Dead;
            }
            return self.ask(connection, now);
        }
    }

    fn ask(&mut self, connection: &mut Connection<Slot>, now: Instant) -> Look {
        connection.ping(0x7665_6572);
        self.asked = true;
        // The answer's time runs from now, however long the connection was quiet before.
        self.heard = now - self.ping.after;
        Look::Asked
    }
}
