//! Units: processes that belong together (a workload and its proxy), brought to what is wanted.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::child::{Child, Command, Places};

/// How long the next process of a unit waits for the one before it to be ready.
const READY_WAIT: Duration = Duration::from_secs(10);

/// Processes in the order in which they start. They also stop in this order: the proxy sends requests elsewhere and lets
/// those in flight end while the application behind it still answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Its processes.
    pub commands: Vec<Command>,
}

/// The pids of what runs, as written for the tools (`run.json`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// The supervisor itself.
    pub supervisor: u32,
    /// Process ids by process name.
    pub processes: BTreeMap<String, u32>,
}

/// Runs units and keeps `run.json` true.
pub struct Units {
    places: Places,
    units: BTreeMap<String, Active>,
    running: Rc<RunFile>,
}

struct Active {
    unit: Unit,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Units {
    /// `run_file` is written whenever a process starts or ends.
    pub fn new(places: Places, run_file: PathBuf) -> Self {
        let running = Running { supervisor: std::process::id(), processes: BTreeMap::new() };
        let running = Rc::new(RunFile { path: run_file, running: RefCell::new(running) });
        running.write();
        Self { places, units: BTreeMap::new(), running }
    }

    /// Starts what is new, stops what is no longer wanted, and replaces what changed. Stopping goes on in the background; a
    /// changed unit starts anew when its predecessor is gone.
    pub fn reconcile(&mut self, wanted: BTreeMap<String, Unit>) {
        let obsolete: Vec<String> = self
            .units
            .iter()
            .filter(|(name, active)| wanted.get(*name).is_none_or(|unit| *unit != active.unit))
            .map(|(name, _)| name.clone())
            .collect();
        let mut stopping = BTreeMap::new();
        for name in obsolete {
            if let Some(active) = self.units.remove(&name) {
                // Its task has ended by itself only when every process was of the kind that is not restarted.
                let _ = active.stop.send(());
                stopping.insert(name, active.task);
            }
        }
        for (name, unit) in wanted {
            if self.units.contains_key(&name) {
                continue;
            }
            let (stop, stopped) = oneshot::channel();
            let before = stopping.remove(&name);
            let (places, running, commands) = (self.places.clone(), Rc::clone(&self.running), unit.commands.clone());
            let task = tokio::task::spawn_local(async move {
                if let Some(before) = before {
                    // It ends by itself; a panic there was reported by the runtime.
                    let _ = before.await;
                }
                run_unit(commands, places, running, stopped).await;
            });
            self.units.insert(name, Active { unit, stop, task });
        }
    }

    /// Stops everything, all units at once, and returns when all are gone.
    pub async fn stop(mut self) {
        let units = std::mem::take(&mut self.units);
        let tasks: Vec<_> = units
            .into_values()
            .map(|active| {
                let _ = active.stop.send(());
                active.task
            })
            .collect();
        for task in tasks {
            let _ = task.await;
        }
    }
}

async fn run_unit(commands: Vec<Command>, places: Places, running: Rc<RunFile>, mut stopped: oneshot::Receiver<()>) {
    let mut children = Vec::new();
    for command in commands {
        let ready = command.ready;
        let name = command.name.clone();
        let child = Child::start(command, places.clone());
        let (mut pid, running) = (child.pid(), Rc::clone(&running));
        tokio::task::spawn_local(async move {
            while pid.changed().await.is_ok() {
                running.set(&name, *pid.borrow_and_update());
            }
            running.set(&name, None);
        });
        children.push(child);
        if let Some((address, path)) = ready {
            tokio::select! {
                () = wait_ready(address, path) => {}
                _ = &mut stopped => return stop_all(children).await,
            }
        }
    }
    // An error means that the supervisor itself is gone, which ends everything as well.
    let _ = stopped.await;
    stop_all(children).await;
}

async fn stop_all(children: Vec<Child>) {
    for child in children {
        child.stop().await;
    }
}

async fn wait_ready(address: std::net::SocketAddr, path: &str) {
    let client = veer_load::Client::new(address, veer_load::Protocol::Http1, 1);
    let request = veer_load::Request::get("ready", &address.to_string(), path);
    let deadline = Instant::now() + READY_WAIT;
    while Instant::now() < deadline {
        let asked = tokio::time::timeout(Duration::from_secs(1), client.send(&request)).await;
        if matches!(asked, Ok(Ok(answer)) if answer.status == 200) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tracing::warn!(%address, path, "not ready in {READY_WAIT:?}; going on without");
}

struct RunFile {
    path: PathBuf,
    running: RefCell<Running>,
}

impl RunFile {
    fn set(&self, name: &str, pid: Option<u32>) {
        {
            let mut running = self.running.borrow_mut();
            match pid {
                Some(pid) => running.processes.insert(name.to_owned(), pid),
                None => running.processes.remove(name),
            };
        }
        self.write();
    }

    fn write(&self) {
        let text = serde_json::to_vec_pretty(&*self.running.borrow()).unwrap_or_default();
        if let Err(error) = super::write_atomically(&self.path, &text) {
            tracing::warn!(file = %self.path.display(), %error, "cannot tell the tools what runs");
        }
    }
}
