//! Network namespaces: clusters as networks of their own, even with the same addresses inside.
//!
//! A [`Wan`] is a namespace with a bridge; every [`Namespace`] attached to it has one public address there and any
//! number of private ones that the others cannot reach. Everything is removed when the values are dropped.

use std::os::fd::AsFd as _;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, ensure};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Runs a command and fails with what it said.
///
/// # Errors
/// When it cannot be run (the message names the package that is missing) or fails.
pub fn run(program: &str, arguments: &[&str]) -> anyhow::Result<Output> {
    let output = Command::new(program).args(arguments).output().with_context(|| {
        let package = if program == "nft" { "nftables" } else { "iproute2" };
        format!("running {program}: it is in the Debian package {package}")
    })?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {}", arguments.join(" "), said.trim());
    Ok(output)
}

pub(crate) fn ip(arguments: &str) -> anyhow::Result<()> {
    run("ip", &arguments.split_whitespace().collect::<Vec<_>>()).map(drop)
}

/// Keeps the namespaces and interfaces of different tests apart.
pub(crate) fn unique_id() -> String {
    format!("{:x}{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// The network between the clusters.
#[derive(Debug)]
pub struct Wan {
    name: String,
    id: String,
}

impl Wan {
    /// Makes an empty one. Needs root.
    ///
    /// # Errors
    /// When namespaces cannot be made.
    pub fn new() -> anyhow::Result<Self> {
        let id = unique_id();
        let name = format!("vw-{id}");
        ip(&format!("netns add {name}"))?;
        let wan = Self { name, id };
        ip(&format!("-n {} link add wan type bridge", wan.name))?;
        ip(&format!("-n {} link set wan up", wan.name))?;
        Ok(wan)
    }

    /// A namespace with this public address (a /24), able to reach every other of this network.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn attach(&self, name: &str, public: &str) -> anyhow::Result<Namespace> {
        let (inside, outside) = (format!("i{}{name}", self.id), format!("o{}{name}", self.id));
        // Names of interfaces have at most 15 characters.
        let (inside, outside) = (&inside[..inside.len().min(15)], &outside[..outside.len().min(15)]);
        let namespace = format!("vn-{}-{name}", self.id);
        Namespace::with_interface(&namespace, inside, public, |namespace| {
            ip(&format!("link add {inside} netns {namespace} type veth peer name {outside} netns {}", self.name))?;
            ip(&format!("-n {} link set {outside} master wan up", self.name))
        })
    }
}

impl Drop for Wan {
    fn drop(&mut self) {
        // Left behind, it would only be in the way of nothing.
        let _ = ip(&format!("netns del {}", self.name));
    }
}

/// One cluster's network.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    /// Its interface to the others.
    public: String,
}

impl Namespace {
    /// A namespace with this public address (a /24) on an interface that `bring` puts into it.
    pub(crate) fn with_interface(
        name: &str,
        interface: &str,
        public: &str,
        bring: impl FnOnce(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        ip(&format!("netns add {name}"))?;
        let namespace = Self { name: name.to_owned(), public: interface.to_owned() };
        bring(name)?;
        ip(&format!("-n {name} link set lo up"))?;
        ip(&format!("-n {name} addr add {public}/24 dev {interface}"))?;
        ip(&format!("-n {name} link set {interface} up"))?;
        // What leaves with a private address leaves with the public one, as at the edge of any cluster.
        namespace.run("nft", &["add", "table", "ip", "edge"])?;
        let hook = "{ type nat hook postrouting priority 100 ; }";
        namespace.run("nft", &["add", "chain", "ip", "edge", "postrouting", hook])?;
        namespace.run("nft", &["add", "rule", "ip", "edge", "postrouting", "oifname", interface, "masquerade"])?;
        Ok(namespace)
    }

    /// As `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds another address (of the same /24) that the other namespaces can reach.
    ///
    /// # Errors
    /// When it is taken.
    pub fn add_public(&self, address: &str) -> anyhow::Result<()> {
        ip(&format!("-n {} addr add {address}/24 dev {}", self.name, self.public))
    }

    /// Adds an address that only this namespace can reach.
    ///
    /// # Errors
    /// When it is taken.
    pub fn add_private(&self, address: &str) -> anyhow::Result<()> {
        ip(&format!("-n {} addr add {address}/32 dev lo", self.name))
    }

    /// Runs a future on a thread of its own inside: the sockets that it makes are in this network.
    ///
    /// # Errors
    /// When there is no such namespace any more, or no thread.
    pub fn spawn<F: Future<Output = ()>>(
        &self,
        work: impl FnOnce() -> F + Send + 'static,
    ) -> anyhow::Result<std::thread::JoinHandle<()>> {
        let namespace = std::fs::File::open(format!("/run/netns/{}", self.name))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name(self.name.clone());
        Ok(thread.spawn(move || {
            let kind = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(namespace.as_fd(), kind).expect("root may enter a namespace");
            runtime.block_on(work());
        })?)
    }

    /// A command inside; its arguments follow.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs a command inside and returns what it printed.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.command(program).args(arguments).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{program} {}: {}", arguments.join(" "), said.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Drops every packet from and to the other namespaces, without a word to anybody: a cut cable.
    ///
    /// # Errors
    /// When the packet filter refuses.
    pub fn cut(&self) -> anyhow::Result<()> {
        self.drop_packets("iifname != lo drop", "oifname != lo drop")
    }

    /// Drops packets of the given nftables matches instead (`tcp dport 15443 …`), for cutting one path of many.
    ///
    /// # Errors
    /// When the packet filter refuses.
    pub fn drop_packets(&self, input: &str, output: &str) -> anyhow::Result<()> {
        for (chain, rule) in [("input", input), ("output", output)] {
            self.run("nft", &["add", "table", "inet", "cut"])?;
            let hook = format!("{{ type filter hook {chain} priority 0 ; }}");
            self.run("nft", &["add", "chain", "inet", "cut", chain, &hook])?;
            if !rule.is_empty() {
                self.run("nft", &["add", "rule", "inet", "cut", chain, rule])?;
            }
        }
        Ok(())
    }

    /// Takes every cut back.
    ///
    /// # Errors
    /// When there was none.
    pub fn mend(&self) -> anyhow::Result<()> {
        self.run("nft", &["delete", "table", "inet", "cut"]).map(drop)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = ip(&format!("netns del {}", self.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_reach_each_other_by_public_addresses_only() -> anyhow::Result<()> {
        let wan = Wan::new()?;
        let (west, east) = (wan.attach("west", "192.0.2.1")?, wan.attach("east", "192.0.2.2")?);
        // The same address in both, and neither sees the other's.
        west.add_private("10.0.0.1")?;
        east.add_private("10.0.0.1")?;
        let listen = "import socket,sys\ns=socket.create_server((sys.argv[1],7))\nprint('up',flush=True)\ns.accept()";
        let mut server =
            east.command("python3").args(["-c", listen, "192.0.2.2"]).stdout(std::process::Stdio::piped()).spawn()?;
        let mut up = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(server.stdout.take().unwrap()), &mut up)?;
        let connect = "import socket,sys\nsocket.create_connection((sys.argv[1],7),timeout=0.5)";
        east.cut()?;
        assert!(west.run("python3", &["-c", connect, "192.0.2.2"]).is_err(), "the cut lets packets through");
        east.mend()?;
        assert!(west.run("python3", &["-c", connect, "10.0.0.1"]).is_err(), "private addresses are reachable");
        west.run("python3", &["-c", connect, "192.0.2.2"])?;
        server.wait()?;
        Ok(())
    }
}
