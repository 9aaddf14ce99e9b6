//! A network in user space between namespaces: with distance, bad lines and cut ones, where the kernel has no `netem`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::netns::{Namespace, unique_id};

/// How a [`Namespace`]'s line to the others is. The default is a perfect one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Line {
    /// Added to every frame, each way.
    pub delay: Duration,
    /// Up to this more, by chance, so that frames overtake each other.
    pub jitter: Duration,
    /// Part of all frames that are lost, 0 to 1.
    pub loss: f64,
}

/// A switch that every frame between its namespaces passes. Ends when dropped.
#[derive(Debug)]
pub struct Wire {
    id: String,
    process: Child,
    talk: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
}

impl Wire {
    /// Starts one without ports. Needs root, Python and `/dev/net/tun`.
    ///
    /// # Errors
    /// When Python cannot be started.
    pub fn new() -> anyhow::Result<Self> {
        let mut process = Command::new("python3")
            .args(["-c", include_str!("wire.py")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("running python3")?;
        let commands = process.stdin.take().context("no way to talk to the switch")?;
        let answers = process.stdout.take().context("no way to hear the switch")?;
        Ok(Self { id: unique_id(), process, talk: Mutex::new((commands, BufReader::new(answers))) })
    }

    /// A namespace with this public address (a /24), able to reach every other of this network. `name` has at most 4
    /// characters.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn attach(&self, name: &str, public: &str) -> anyhow::Result<Namespace> {
        let interface = self.interface(name);
        self.tell(&format!("port {interface}"))?;
        Namespace::with_interface(&format!("vn-{}-{name}", self.id), &interface, public, |namespace| {
            crate::netns::ip(&format!("link set {interface} netns {namespace}"))
        })
    }

    /// Makes the line of a namespace so, from the next frame on.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn line(&self, name: &str, line: Line) -> anyhow::Result<()> {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
        let (delay, jitter) = (milliseconds(line.delay), milliseconds(line.jitter));
        self.tell(&format!("line {} {delay} {jitter} {}", self.interface(name), line.loss))
    }

    fn interface(&self, name: &str) -> String {
        format!("t{}{name}", self.id)
    }

    fn tell(&self, command: &str) -> anyhow::Result<()> {
        let mut talk = self.talk.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(talk.0, "{command}")?;
        let mut answer = String::new();
        talk.1.read_line(&mut answer)?;
        ensure!(answer.trim() == "ok", "the switch says {answer:?} to {command:?}");
        Ok(())
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_take_their_time_and_stop_at_a_cut() -> anyhow::Result<()> {
        let wire = Wire::new()?;
        let (west, east) = (wire.attach("w", "192.0.2.1")?, wire.attach("e", "192.0.2.2")?);
        let listen = "import socket,sys\ns=socket.create_server((sys.argv[1],7))\nprint('up',flush=True)\nwhile True: s.accept()";
        let mut server = east.command("python3").args(["-c", listen, "192.0.2.2"]).stdout(Stdio::piped()).spawn()?;
        let mut up = String::new();
        BufReader::new(server.stdout.take().context("no output")?).read_line(&mut up)?;
        let connect = "import socket,sys,time\nt=time.time()\nsocket.create_connection((sys.argv[1],7),timeout=2)\nprint(time.time()-t)";
        let connecting =
            || -> anyhow::Result<f64> { Ok(west.run("python3", &["-c", connect, "192.0.2.2"])?.trim().parse()?) };
        connecting()?;
        // Each way of a connection's beginning passes both ends' lines.
        wire.line("e", Line { delay: Duration::from_millis(150), ..Line::default() })?;
        assert!(connecting()? >= 0.3);
        wire.line("e", Line { loss: 1.0, ..Line::default() })?;
        assert!(connecting().is_err(), "the cut lets packets through");
        wire.line("e", Line::default())?;
        connecting()?;
        server.kill()?;
        server.wait()?;
        Ok(())
    }
}
