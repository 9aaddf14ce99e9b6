//! Handing rules to the tools. Blocking: for the command line and for start-up.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use super::iptables::CHAINS;
use super::model::{Capture, CaptureFault};
use super::nft::{TABLE, nft_removal};

/// Which tool puts the rules in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// `nft` (package `nftables`).
    Nft,
    /// `iptables-restore` and `ip6tables-restore` (package `iptables`).
    Iptables,
}

impl Tool {
    /// The tool that is there; nftables when both are.
    ///
    /// # Errors
    /// When neither is, with the package to install.
    pub fn find() -> Result<Self, CaptureError> {
        let there = |program: &str| Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success());
        if there("nft") {
            Ok(Tool::Nft)
        } else if there("iptables-restore") {
            Ok(Tool::Iptables)
        } else {
            Err(CaptureError::Missing { program: "nft", package: "nftables" })
        }
    }
}

/// The network namespace that is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespace {
    /// The one of this process.
    Current,
    /// One that `ip netns` knows by name.
    Named(String),
    /// A file that stands for one, such as `/proc/<pid>/ns/net`.
    Path(PathBuf),
}

/// Why rules were not put in force or removed.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The rules would not do what is meant.
    #[error("capture refused: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Faults(Vec<CaptureFault>),
    /// A program is not installed.
    #[error("{program} was not found: install the package {package} (apt-get install {package})")]
    Missing {
        /// Which.
        program: &'static str,
        /// Debian's name of what holds it.
        package: &'static str,
    },
    /// A program could not be run.
    #[error("{program} could not be run: {error}")]
    Run {
        /// Which.
        program: &'static str,
        /// Why.
        error: io::Error,
    },
    /// A program refused. Changing the packet filter needs `CAP_NET_ADMIN` in the namespace.
    #[error("{program} refused: {text}")]
    Refused {
        /// Which.
        program: &'static str,
        /// What it said.
        text: String,
    },
}

/// Puts the capture in force, in place of an earlier one. Connections that are open stay as they are.
///
/// # Errors
/// When the capture has faults, or a tool is missing or refuses; then an earlier one is in force (nftables) or none.
pub fn apply(capture: &Capture, tool: Tool, namespace: &Namespace) -> Result<(), CaptureError> {
    let faults = capture.faults();
    if !faults.is_empty() {
        return Err(CaptureError::Faults(faults));
    }
    match tool {
        Tool::Nft => run(namespace, "nft", &["-f", "-"], &capture.nft()),
        Tool::Iptables => {
            remove(tool, namespace)?;
            run(namespace, "iptables-restore", &["--noflush", "-w"], &capture.iptables(false))?;
            if capture.ipv6 {
                run(namespace, "ip6tables-restore", &["--noflush", "-w"], &capture.iptables(true))?;
            }
            Ok(())
        }
    }
}

/// Takes the capture out of force. Nothing happens when none is.
///
/// # Errors
/// When a tool is missing or refuses for another reason than that there is nothing to remove.
pub fn remove(tool: Tool, namespace: &Namespace) -> Result<(), CaptureError> {
    match tool {
        Tool::Nft => run(namespace, "nft", &["-f", "-"], &nft_removal()),
        Tool::Iptables => {
            ["iptables", "ip6tables"].into_iter().try_for_each(|program| remove_iptables(namespace, program))
        }
    }
}

/// Whether rules of ours are in force.
///
/// # Errors
/// When the tool is missing or cannot be run.
pub fn is_applied(tool: Tool, namespace: &Namespace) -> Result<bool, CaptureError> {
    match tool {
        Tool::Nft => {
            let mut args = vec!["list", "table"];
            args.extend(TABLE.split(' '));
            Ok(output(namespace, "nft", &args, "")?.status.success())
        }
        Tool::Iptables => {
            let listed = output(namespace, "iptables", &["-w", "-t", "nat", "-S"], "")?;
            Ok(String::from_utf8_lossy(&listed.stdout).contains("-j VEER_"))
        }
    }
}

fn remove_iptables(namespace: &Namespace, program: &'static str) -> Result<(), CaptureError> {
    let listed = output(namespace, program, &["-w", "-t", "nat", "-S"], "")?;
    if !listed.status.success() {
        // IPv6 may be off, then there is nothing to remove from it.
        return if program == "ip6tables" { Ok(()) } else { Err(refused(program, &listed)) };
    }
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    for (from, chain) in CHAINS {
        let jump = format!("-A {from} -p tcp -j {chain}");
        for _ in listed.lines().filter(|line| *line == jump) {
            run(namespace, program, &["-w", "-t", "nat", "-D", from, "-p", "tcp", "-j", chain], "")?;
        }
        if listed.lines().any(|line| line == format!("-N {chain}")) {
            run(namespace, program, &["-w", "-t", "nat", "-F", chain], "")?;
            run(namespace, program, &["-w", "-t", "nat", "-X", chain], "")?;
        }
    }
    Ok(())
}

fn run(namespace: &Namespace, program: &'static str, args: &[&str], input: &str) -> Result<(), CaptureError> {
    let output = output(namespace, program, args, input)?;
    if output.status.success() { Ok(()) } else { Err(refused(program, &output)) }
}

fn refused(program: &'static str, output: &Output) -> CaptureError {
    let said = String::from_utf8_lossy(&output.stderr);
    let text = if said.trim().is_empty() { output.status.to_string() } else { said.trim().to_owned() };
    // nsenter is there, what it was to run is not.
    if text.contains(&format!("failed to execute {program}")) {
        return CaptureError::Missing { program, package: package(program) };
    }
    CaptureError::Refused { program, text }
}

fn output(namespace: &Namespace, program: &'static str, args: &[&str], input: &str) -> Result<Output, CaptureError> {
    let path = match namespace {
        Namespace::Current => None,
        Namespace::Named(name) => Some(PathBuf::from("/run/netns").join(name)),
        Namespace::Path(path) => Some(path.clone()),
    };
    let (started, mut command) = match path {
        None => (program, Command::new(program)),
        Some(path) => {
            let mut net = std::ffi::OsString::from("--net=");
            net.push(path);
            let mut command = Command::new("nsenter");
            command.arg(net).arg("--").arg(program);
            ("nsenter", command)
        }
    };
    let piped = command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let fail = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => CaptureError::Missing { program: started, package: package(started) },
        _ => CaptureError::Run { program: started, error },
    };
    let mut child = piped.spawn().map_err(fail)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A tool that ends without reading says why on its standard error. Rules are far smaller than a pipe.
        let _ = stdin.write_all(input.as_bytes());
    }
    child.wait_with_output().map_err(fail)
}

fn package(program: &str) -> &'static str {
    match program {
        "nft" => "nftables",
        "nsenter" => "util-linux",
        _ => "iptables",
    }
}
