//! Looking into a fleet that runs: its processes, and what proxies and gateways say of themselves.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use veer_telemetry::text::Sample;

use crate::fleet::Fleet;

impl Fleet {
    /// State folder of a cluster.
    pub fn state(&self, cluster: &str) -> PathBuf {
        self.folder().join(".veer/clusters").join(cluster)
    }

    /// What the process of a cluster runs now: process ids by process name. The cluster's own process is `cluster`.
    ///
    /// # Errors
    /// When it never ran.
    pub fn processes(&self, cluster: &str) -> anyhow::Result<BTreeMap<String, u32>> {
        let json: Value = serde_json::from_slice(&std::fs::read(self.state(cluster).join("run.json"))?)?;
        let pid = |value: &Value| value.as_u64().and_then(|pid| u32::try_from(pid).ok());
        let mut all: BTreeMap<String, u32> = json["processes"]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(name, value)| Some((name.clone(), pid(value)?)))
            .collect();
        all.extend(pid(&json["supervisor"]).map(|pid| ("cluster".to_owned(), pid)));
        Ok(all)
    }

    /// Every process on this machine whose command line names the folder of this fleet or an address of this cluster, with that
    /// command line. Those of the test itself do not count.
    pub fn traces(&self, cluster: &str) -> BTreeMap<u32, String> {
        let needles = [self.state(cluster).display().to_string(), format!("{}.", self.cluster(cluster).network)];
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let mut found = BTreeMap::new();
        for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if needles.iter().any(|needle| line.contains(needle)) {
                found.insert(pid, line);
            }
        }
        found
    }

    /// `SIGKILL` to one process of a cluster, which its supervisor starts again; the id that it had.
    ///
    /// # Errors
    /// When it does not run.
    pub fn crash(&self, cluster: &str, process: &str) -> anyhow::Result<u32> {
        let running = self.processes(cluster)?;
        let pid = *running.get(process).with_context(|| format!("{process} is not among {running:?}"))?;
        signal(pid, Signal::KILL)?;
        Ok(pid)
    }

    /// A page of a proxy's or gateway's admin listener.
    ///
    /// # Errors
    /// When it does not answer with 200.
    pub fn page(&self, cluster: &str, last: u8, path: &str) -> anyhow::Result<String> {
        let url = format!("http://{}:15020{path}", self.address(cluster, last));
        let output = self.command(cluster, "curl").args(["-sSf", "-m", "5", &url]).output()?;
        ensure!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Every series of a proxy or gateway.
    ///
    /// # Errors
    /// When it does not answer, or not in the Prometheus text format.
    pub fn samples(&self, cluster: &str, last: u8) -> anyhow::Result<Vec<Sample>> {
        Ok(veer_telemetry::text::parse(&self.page(cluster, last, "/metrics")?)?)
    }

    /// What a proxy or gateway knows.
    ///
    /// # Errors
    /// When it does not answer in JSON.
    pub fn dump(&self, cluster: &str, last: u8) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.page(cluster, last, "/dump")?)?)
    }
}

/// Sends a signal.
///
/// # Errors
/// When there is no such process.
pub fn signal(pid: u32, signal: Signal) -> anyhow::Result<()> {
    let pid = Pid::from_raw(pid.cast_signed()).context("process id 0")?;
    Ok(kill_process(pid, signal)?)
}
