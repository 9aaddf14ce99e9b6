//! What the story acts on: the fleet, its folder, its processes; and what it watches: the visitors' requests.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use http::Method;
use tokio::time::Instant;
use veer_load::{Client, Protocol, Request};

use super::record::{Recorder, Window};
use super::show::Show;
use crate::api;
use crate::supervise::fleet::{RunningFleet, kill_and_hold, release};
use crate::supervise::plan::{ADMIN_PORT, ClusterPlan};

/// How often conditions are looked at.
const POLL: Duration = Duration::from_millis(50);
/// What [`Stage::until`] shows its condition: the last stretch of this length.
const RECENT: Duration = Duration::from_millis(1500);

/// The stage of the demo.
pub struct Stage {
    /// The fleet.
    pub fleet: RunningFleet,
    /// Its folder, a copy of the example.
    pub folder: PathBuf,
    /// Every request.
    pub recorder: Recorder,
    /// What the audience sees.
    pub show: Show,
}

impl Stage {
    /// Time since the start of the load.
    pub fn now(&self) -> Duration {
        self.recorder.now()
    }

    /// Watches for some seconds; answers with the requests of that time.
    pub async fn observe(&mut self, seconds: u64) -> Window {
        let from = self.now();
        self.wait(Duration::from_secs(seconds), |_| false).await;
        self.between(from, self.now())
    }

    /// Requests that were due since a moment and have ended.
    pub fn since(&self, from: Duration) -> Window {
        self.between(from, Duration::MAX)
    }

    /// Requests that were due between two moments and have ended.
    pub fn between(&self, from: Duration, to: Duration) -> Window {
        self.recorder.window(from, to)
    }

    /// Waits until the last requests satisfy a condition; how long it took, or `None` when it did not come true in time.
    pub async fn until(&mut self, what: &str, seconds: u64, held: impl Fn(&Window) -> bool) -> Option<Duration> {
        let start = self.now();
        self.show.note(&format!("waiting until {what}"));
        let recorder = self.recorder.clone();
        self.wait(Duration::from_secs(seconds), |now| {
            held(&recorder.window(start.max(now.saturating_sub(RECENT)), Duration::MAX))
        })
        .await
    }

    async fn wait(&mut self, limit: Duration, done: impl Fn(Duration) -> bool) -> Option<Duration> {
        let start = Instant::now();
        while start.elapsed() < limit {
            if done(self.now()) {
                return Some(start.elapsed());
            }
            self.show.tick(&self.recorder);
            tokio::time::sleep(POLL).await;
        }
        None
    }

    /// Polls an answer of the fleet's own interfaces until it is as wanted.
    async fn until_answer(&mut self, seconds: u64, ask: impl AsyncFn(&Self) -> bool) -> Option<Duration> {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(seconds) {
            if ask(self).await {
                return Some(start.elapsed());
            }
            self.show.tick(&self.recorder);
            tokio::time::sleep(POLL).await;
        }
        None
    }

    /// Reads a manifest of the fleet's folder.
    ///
    /// # Errors
    /// When it is not there.
    pub fn read(&self, file: &str) -> anyhow::Result<String> {
        std::fs::read_to_string(self.folder.join(file)).with_context(|| format!("reading {file}"))
    }

    /// Writes a manifest, as an editor would.
    ///
    /// # Errors
    /// When the folder cannot be written to.
    pub fn write(&mut self, file: &str, text: &str) -> anyhow::Result<()> {
        self.show.note(&format!("editing {file}"));
        crate::supervise::write_atomically(&self.folder.join(file), text.as_bytes())
            .with_context(|| format!("writing {file}"))
    }

    /// Deletes a manifest.
    ///
    /// # Errors
    /// When it is not there.
    pub fn remove(&mut self, file: &str) -> anyhow::Result<()> {
        self.show.note(&format!("deleting {file}"));
        std::fs::remove_file(self.folder.join(file)).with_context(|| format!("deleting {file}"))
    }

    /// Makes a copy of a shop service misbehave, on the application's own address (see `veer_shop`).
    ///
    /// # Errors
    /// When the application does not answer.
    pub async fn fault(&mut self, application: &str, query: &str) -> anyhow::Result<()> {
        self.show.note(&format!("PUT {application}/-/fault?{query}"));
        let address: SocketAddr = application.parse()?;
        let mut request = Request::get("fault", application, &format!("/-/fault?{query}"));
        request.method = Method::PUT;
        let answer = Client::new(address, Protocol::Http1, 1).send(&request).await.map_err(anyhow::Error::msg)?;
        anyhow::ensure!(answer.status == 200, "{application} answered {}", answer.status);
        Ok(())
    }

    /// `SIGKILL` to a cluster; it stays dead until [`Stage::start_cluster`].
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill_cluster(&mut self, name: &str) -> anyhow::Result<()> {
        self.show.note(&format!("kill -9 cluster {name}"));
        kill_and_hold(&self.fleet.state().join("held"), &self.fleet.state().join("run.json"), name)
    }

    /// Lets a killed cluster start again.
    ///
    /// # Errors
    /// When the state folder cannot be written to.
    pub fn start_cluster(&mut self, name: &str) -> anyhow::Result<()> {
        self.show.note(&format!("starting cluster {name}"));
        Ok(release(&self.fleet.state().join("held"), name)?)
    }

    /// `SIGKILL` to one process of a cluster; it stays dead until [`Stage::start_process`].
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill_process(&mut self, cluster: &str, process: &str) -> anyhow::Result<()> {
        self.show.note(&format!("kill -9 {cluster}/{process}"));
        let plan = self.cluster(cluster)?;
        kill_and_hold(&plan.held(), &plan.run_file(), process)
    }

    /// Lets a killed process start again.
    ///
    /// # Errors
    /// When the state folder cannot be written to.
    pub fn start_process(&mut self, cluster: &str, process: &str) -> anyhow::Result<()> {
        self.show.note(&format!("starting {cluster}/{process}"));
        Ok(release(&self.cluster(cluster)?.held(), process)?)
    }

    fn cluster(&self, name: &str) -> anyhow::Result<&ClusterPlan> {
        self.fleet.plan.cluster(name).with_context(|| format!("no cluster {name}"))
    }

    /// How old a cluster's visitor proxy says its configuration is.
    pub async fn config_age(&self, visitor: &str) -> Option<Duration> {
        let metrics = api::metrics(visitor_admin(visitor)?).await.ok()?;
        let age = metrics.iter().find(|sample| sample.name == "veer_config_age_seconds")?;
        Duration::try_from_secs_f64(age.value).ok()
    }

    /// Waits for a control plane to be ready.
    pub async fn until_control_is_back(&mut self, cluster: &str, seconds: u64) -> Option<Duration> {
        let api = self.cluster(cluster).ok()?.api();
        self.until_answer(seconds, async |_| api::get_ok(api, "/ready").await).await
    }

    /// When each certificate of the fleet's proxies and gateways was issued, by process.
    pub async fn certificates(&self) -> BTreeMap<String, String> {
        let mut certificates = BTreeMap::new();
        for plan in &self.fleet.plan.clusters {
            for (name, address) in api::admin_addresses(plan.api()).await.unwrap_or_default() {
                if let Ok(serial) = api::certificate_serial(address).await {
                    certificates.insert(format!("{}/{name}", plan.name), serial);
                }
            }
        }
        certificates
    }

    /// How many proxies and gateways the fleet has.
    pub fn processes(&self) -> usize {
        let clusters = &self.fleet.plan.clusters;
        clusters.iter().map(|plan| plan.gateways.len() + api::workload_addresses(plan).len()).sum()
    }

    /// Waits until every proxy and gateway has reported to its control plane, as after one was restarted.
    pub async fn until_all_report(&mut self, seconds: u64) -> Option<Duration> {
        self.until_answer(seconds, async |stage: &Self| stage.certificates().await.len() == stage.processes()).await
    }

    /// Has every control plane order new certificates.
    ///
    /// # Errors
    /// When one does not answer.
    pub async fn rotate_certificates(&mut self) -> anyhow::Result<()> {
        for plan in self.fleet.plan.clusters.clone() {
            self.show.note(&format!("veer rotate --cluster {}", plan.name));
            api::control_verb(&plan, Method::POST, "/v1/rotate", "").await?;
        }
        Ok(())
    }

    /// Waits until no certificate is one of `old`.
    pub async fn until_certificates_changed(
        &mut self,
        old: &BTreeMap<String, String>,
        seconds: u64,
    ) -> Option<Duration> {
        self.until_answer(seconds, async |stage: &Self| {
            let new = stage.certificates().await;
            old.iter().all(|(name, serial)| new.get(name).is_some_and(|now| now != serial))
        })
        .await
    }
}

fn visitor_admin(cluster: &str) -> Option<SocketAddr> {
    super::VISITORS.iter().find(|(name, _)| *name == cluster).map(|(_, address)| (*address, ADMIN_PORT).into())
}
