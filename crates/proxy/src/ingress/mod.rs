//! The proxy as the ingress of its cluster: a Gateway's listeners, served with the same engine that serves applications.

mod announced;
mod connection;
mod datagrams;
pub mod door;
mod hosts;
mod table;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use tokio::task::JoinHandle;
use veer_core::ingress::{Certificate, PortKind};
use veer_core::{Ingress, Known};
use veer_identity::PublicCertificate;
use veer_net::BindOptions;

use self::datagrams::{Bounds, DatagramPort, Leads};
pub use self::door::Door;
use self::door::Serving;
use self::table::PortTable;
use crate::worker::Worker;

/// A port that could not be bound is tried again after this.
const RETRY: Duration = Duration::from_secs(1);

/// Serves what the control plane says of the Gateway; ports come and go with its listeners.
pub async fn listen(worker: Rc<Worker>) {
    let name = worker.process.config.workload.to_string();
    let mut subscription = worker.process.xds.subscribe::<Ingress>(&name);
    let mut ports = Ports { worker, open: BTreeMap::new(), datagrams: BTreeMap::new(), shown: None };
    let mut known = subscription.borrow_and_update();
    loop {
        let whole = match &known {
            Known::Present(ingress) => ports.serve(ingress).await,
            // A statement: the Gateway is gone, or has nothing to serve.
            Known::Absent => {
                ports.close_all_but(&[]);
                ports.datagrams.clear();
                true
            }
            Known::Unknown => true,
        };
        if whole {
            known = subscription.changed().await;
        } else {
            tokio::select! {
                changed = subscription.changed() => known = changed,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }
}

struct Ports {
    worker: Rc<Worker>,
    open: BTreeMap<SocketAddr, Port>,
    datagrams: BTreeMap<SocketAddr, DatagramPort>,
    shown: Option<Certificate>,
}

/// What is to be bound at an address.
fn sockets(ingress: &Ingress, address: IpAddr, datagrams: bool) -> impl Iterator<Item = SocketAddr> {
    let ports = ingress.ports.iter().filter(move |port| (port.kind == PortKind::Udp) == datagrams);
    ports.map(move |port| SocketAddr::new(address, port.port))
}

struct Port {
    serving: Serving,
    accepting: JoinHandle<()>,
}

impl Ports {
    /// Opens, changes and closes ports; whether all could be opened.
    async fn serve(&mut self, ingress: &Ingress) -> bool {
        self.show(ingress);
        let wanted: Vec<SocketAddr> =
            ingress.addresses.iter().flat_map(|address| sockets(ingress, *address, false)).collect();
        self.close_all_but(&wanted);
        let mut whole = self.datagrams(ingress);
        for port in ingress.ports.iter().filter(|port| port.kind != PortKind::Udp) {
            let table = Rc::new(PortTable::new(ingress, port));
            for address in ingress.addresses.iter().map(|address| SocketAddr::new(*address, port.port)) {
                match self.open.get(&address) {
                    Some(open) => drop(open.serving.replace(Rc::clone(&table))),
                    None => whole &= self.open(address, &table).await,
                }
            }
        }
        whole
    }

    /// The same for ports of datagrams.
    fn datagrams(&mut self, ingress: &Ingress) -> bool {
        let wanted: Vec<SocketAddr> =
            ingress.addresses.iter().flat_map(|address| sockets(ingress, *address, true)).collect();
        self.datagrams.retain(|address, _| wanted.contains(address));
        let metrics = &self.worker.process.telemetry.metrics;
        let mut whole = true;
        for port in ingress.ports.iter().filter(|port| port.kind == PortKind::Udp) {
            for address in ingress.addresses.iter().map(|address| SocketAddr::new(*address, port.port)) {
                if let Some(open) = self.datagrams.get(&address) {
                    open.lead(Leads::new(port));
                    continue;
                }
                match DatagramPort::open(metrics, address, Leads::new(port), Bounds::default()) {
                    Ok(open) => drop(self.datagrams.insert(address, open)),
                    Err(error) => {
                        tracing::error!(%address, %error, "a listener for datagrams cannot be bound, trying again");
                        whole = false;
                    }
                }
            }
        }
        whole
    }

    /// What is shown to backends outside of the mesh.
    fn show(&mut self, ingress: &Ingress) {
        if self.shown == ingress.client_certificate {
            return;
        }
        self.shown.clone_from(&ingress.client_certificate);
        let read = |one: &Certificate| PublicCertificate::from_pem(&one.chain_pem, &one.key_pem);
        let shown = match self.shown.as_ref().map(read).transpose() {
            Ok(shown) => shown,
            Err(error) => {
                tracing::error!(gateway = %ingress.gateway, %error, "no client certificate is shown to backends");
                None
            }
        };
        self.worker.pools.show_outside(shown);
    }

    async fn open(&mut self, address: SocketAddr, table: &Rc<PortTable>) -> bool {
        let options = BindOptions { reuse_port: true, ..BindOptions::default() };
        let listener = match self.worker.process.config.network.bind(address, options).await {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%address, %error, "a listener cannot be bound, trying again");
                return false;
            }
        };
        let serving: Serving = Rc::new(RefCell::new(Rc::clone(table)));
        let (worker, shared) = (Rc::clone(&self.worker), Rc::clone(&serving));
        let accepting = tokio::task::spawn_local(async move {
            let serve = |stream, place| connection::serve(Rc::clone(&worker), Rc::clone(&shared), stream, place);
            worker.accept(listener, "ingress", serve).await;
        });
        self.open.insert(address, Port { serving, accepting });
        true
    }

    /// Connections that are open stay, and find nothing any more.
    fn close_all_but(&mut self, wanted: &[SocketAddr]) {
        self.open.retain(|address, port| {
            let stays = wanted.contains(address);
            if !stays {
                port.accepting.abort();
                port.serving.replace(Rc::new(PortTable::empty()));
            }
            stays
        });
    }
}

impl Drop for Ports {
    fn drop(&mut self) {
        self.open.values().for_each(|port| port.accepting.abort());
    }
}
