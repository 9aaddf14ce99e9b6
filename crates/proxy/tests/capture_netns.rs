//! Transparent capture for real: two network namespaces, a packet filter, and connections that must come out where the rules say.
//!
//! Needs root and the packages iproute2, nftables and iptables. It fails when they are missing: a capture nobody has tried is worth nothing.

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::process::Command;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use veer_net::{BindOptions, ConnectOptions, Listener, Network, Stream, original_dst};
use veer_proxy::capture::{Capture, DEFAULT_MARK, Namespace, Tool, apply, is_applied, remove};

const OUTBOUND: u16 = 15001;
const INBOUND: u16 = 15006;
const MESH: u16 = 15008;

#[test]
fn nftables_captures_what_it_should_and_nothing_else() {
    exercise(Tool::Nft, "n");
}

#[test]
fn iptables_captures_what_it_should_and_nothing_else() {
    exercise(Tool::Iptables, "i");
}

fn exercise(tool: Tool, tag: &str) {
    let net = TwoNamespaces::create(tag);
    let namespace = Namespace::Named(net.workload.clone());
    let capture = Capture {
        exclude_outbound_ports: vec![9001],
        exclude_inbound_ports: vec![8022],
        exclude_outbound_ranges: vec![net.spare.to_string().parse().unwrap()],
        ..Capture::default()
    };

    remove(tool, &namespace).expect("removing nothing is no error");
    assert!(!is_applied(tool, &namespace).unwrap());
    net.check("before", &[], &[]);

    apply(&capture, tool, &namespace).expect("applied");
    apply(&capture, tool, &namespace).expect("applying twice is applying once");
    assert!(is_applied(tool, &namespace).unwrap());
    net.check("captured", &net.addresses(), &net.addresses());

    let outbound_v4 = Capture { inbound_port: None, ipv6: false, ..capture };
    apply(&outbound_v4, tool, &namespace).expect("replaced");
    net.check("outbound IPv4 only", &net.addresses()[..1], &[]);

    remove(tool, &namespace).expect("removed");
    remove(tool, &namespace).expect("removing twice is removing once");
    assert!(!is_applied(tool, &namespace).unwrap());
    net.check("after", &[], &[]);
}

/// `workload` and `outside`, joined by a cable; both families.
struct TwoNamespaces {
    workload: String,
    outside: String,
    spare: IpAddr,
}

const FAMILIES: [(&str, &str); 2] = [("10.77.0.1", "10.77.0.2"), ("fd77::1", "fd77::2")];

impl TwoNamespaces {
    fn create(tag: &str) -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test makes network namespaces: run it as root");
        let name = |part: &str| format!("veer-{tag}{part}-{}", std::process::id());
        let net = Self { workload: name("w"), outside: name("o"), spare: "10.77.0.3".parse().unwrap() };
        let (w, o) = (&*net.workload, &*net.outside);
        // Interface names are limited to 15 characters.
        let (cable_w, cable_o) =
            (&*format!("vw{tag}{}", std::process::id()), &*format!("vo{tag}{}", std::process::id()));
        ip(&["netns", "add", w]);
        ip(&["netns", "add", o]);
        ip(&["link", "add", cable_w, "netns", w, "type", "veth", "peer", "name", cable_o, "netns", o]);
        for (space, cable, host) in [(w, cable_w, 0), (o, cable_o, 1)] {
            for (v4_or_v6, prefix) in [(0, 24), (1, 64)] {
                let pair = FAMILIES[v4_or_v6];
                let address = format!("{}/{prefix}", if host == 0 { pair.0 } else { pair.1 });
                // Duplicate address detection would keep an IPv6 address unusable for a second.
                let nodad: &[&str] = if v4_or_v6 == 1 { &["nodad"] } else { &[] };
                ip(&[&["-n", space, "addr", "add", &address, "dev", cable], nodad].concat());
            }
            ip(&["-n", space, "link", "set", "lo", "up"]);
            ip(&["-n", space, "link", "set", cable, "up"]);
        }
        ip(&["-n", o, "addr", "add", "10.77.0.3/24", "dev", cable_o]);
        net
    }

    /// The outside's addresses, IPv4 first.
    fn addresses(&self) -> Vec<IpAddr> {
        FAMILIES.iter().map(|(_, outside)| outside.parse().unwrap()).collect()
    }

    /// Connects in all directions. `outbound` and `inbound`: outside addresses to and from which connections are captured.
    fn check(&self, stage: &str, outbound: &[IpAddr], inbound: &[IpAddr]) {
        let workload = self.inside(&self.workload, {
            let ports = [8080, 8022, MESH, OUTBOUND, INBOUND];
            move || Servers::start(ports.to_vec())
        });
        let outside = self.inside(&self.outside, || Servers::start(vec![9000, 9001]));

        for (own, foreign) in FAMILIES {
            let own: IpAddr = own.parse().unwrap();
            let foreign: IpAddr = foreign.parse().unwrap();
            let to = |address: IpAddr, port: u16| SocketAddr::new(address, port);
            let say = |port: u16, original: Option<SocketAddr>| format!("{port} {original:?}");
            let captured_out = outbound.contains(&foreign);
            let captured_in = inbound.contains(&foreign);

            let from_app = |target| self.ask(&self.workload, target, None);
            let from_proxy = |target| self.ask(&self.workload, target, Some(DEFAULT_MARK));
            let from_outside = |target| self.ask(&self.outside, target, None);

            let far = to(foreign, 9000);
            let expected = if captured_out { say(OUTBOUND, Some(far)) } else { say(9000, None) };
            assert_eq!(from_app(far), expected, "{stage}: the application's connection");
            assert_eq!(from_proxy(far), say(9000, None), "{stage}: the proxy's own connection");
            assert_eq!(from_app(to(foreign, 9001)), say(9001, None), "{stage}: an excluded port");
            assert_eq!(from_app(to(self.spare, 9000)), say(9000, None), "{stage}: an excluded address");
            assert_eq!(from_app(to(own, 8080)), say(8080, None), "{stage}: its own address");
            let loopback: IpAddr = if own.is_ipv4() { [127, 0, 0, 1].into() } else { "::1".parse().unwrap() };
            assert_eq!(from_app(to(loopback, 8080)), say(8080, None), "{stage}: loopback");

            let near = to(own, 8080);
            let expected = if captured_in { say(INBOUND, Some(near)) } else { say(8080, None) };
            assert_eq!(from_outside(near), expected, "{stage}: a connection from outside");
            assert_eq!(from_outside(to(own, MESH)), say(MESH, None), "{stage}: the mesh port");
            assert_eq!(from_outside(to(own, 8022)), say(8022, None), "{stage}: an excluded inbound port");
        }
        drop((workload, outside));
    }

    /// Connects and returns what the server said: its port, and where the connection was going.
    fn ask(&self, space: &str, target: SocketAddr, mark: Option<u32>) -> String {
        self.inside(space, move || {
            runtime().block_on(async {
                let asking = async {
                    let options = ConnectOptions { mark, ..Default::default() };
                    let mut stream = Network::Tcp.connect_with(target, options).await?;
                    let mut answer = String::new();
                    stream.read_to_string(&mut answer).await?;
                    std::io::Result::Ok(answer)
                };
                match tokio::time::timeout(Duration::from_secs(5), asking).await {
                    Ok(Ok(answer)) => answer,
                    Ok(Err(error)) => format!("{target}: {error}"),
                    Err(_) => format!("{target}: no answer"),
                }
            })
        })
    }

    /// Runs on a thread of its own, which enters the namespace and ends there.
    fn inside<T: Send + 'static>(&self, space: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = File::open(format!("/run/netns/{space}")).unwrap();
        let thread = std::thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        });
        thread.join().unwrap()
    }
}

impl Drop for TwoNamespaces {
    fn drop(&mut self) {
        for space in [&self.workload, &self.outside] {
            let _ = Command::new("ip").args(["netns", "del", space]).output();
        }
    }
}

/// Listeners on both families that tell who they are. They end when dropped.
struct Servers(Option<tokio::sync::oneshot::Sender<()>>, Option<std::thread::JoinHandle<()>>);

impl Servers {
    fn start(ports: Vec<u16>) -> Self {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        // The new thread begins in the namespace of this one.
        let thread = std::thread::spawn(move || {
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime(), async move {
                for port in ports {
                    for any in ["0.0.0.0", "::"] {
                        let address = SocketAddr::new(any.parse().unwrap(), port);
                        let listener = Network::Tcp.bind(address, BindOptions::default()).await.unwrap();
                        tokio::task::spawn_local(serve(listener, port));
                    }
                }
                ready.send(()).unwrap();
                let _ = stopped.await;
            });
        });
        is_ready.recv().unwrap();
        Self(Some(stop), Some(thread))
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        drop(self.0.take());
        if let Some(thread) = self.1.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: Listener, port: u16) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let answer = format!("{port} {:?}", original(&stream));
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
    }
}

fn original(stream: &Stream) -> Option<SocketAddr> {
    original_dst(stream)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().expect("ip was not found: apt-get install iproute2");
    assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}
