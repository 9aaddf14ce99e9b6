//! The floor: a relay in C that only reads and writes (`benches/floor/relay.c`), compiled when it is needed.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

const SOURCE: &str = include_str!("../../../../../benches/floor/relay.c");

/// Compiles it to `program`.
pub fn build(program: &Path) -> anyhow::Result<()> {
    let source = program.with_extension("c");
    std::fs::write(&source, SOURCE)?;
    let output = Command::new("cc").args(["-O2", "-o"]).arg(program).arg(&source).output();
    let output = output.context("running cc: it is in the Debian package gcc")?;
    ensure!(output.status.success(), "cc: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Relays from one address to another, through a pipe in the kernel if told so.
pub fn command(program: &Path, listen: SocketAddr, to: SocketAddr, splice: bool) -> Command {
    let mut command = Command::new(program);
    for address in [listen, to] {
        command.args([address.ip().to_string(), address.port().to_string()]);
    }
    command.args(splice.then_some("splice"));
    command
}
