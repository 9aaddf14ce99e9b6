//! The operator's tools: they ask a running fleet and print tables or JSON.

pub mod check;
pub mod explain;
mod explain_text;
mod folder;
pub mod get;
pub mod identity;
pub mod lint;
pub mod load;
pub mod look;
pub mod routes;
pub mod stat;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde::Serialize;
use veer_resources::{Diagnostic, Object};
use veer_source::FolderSource;

use crate::supervise::plan::{ClusterPlan, FleetPlan};

/// Which fleet or control plane a tool asks.
#[derive(Debug, Clone, Args)]
pub struct Target {
    /// Folder of the fleet (the one with fleet.yaml)
    #[arg(long, value_name = "DIR", default_value = ".", env = "VEER_FLEET")]
    pub fleet: PathBuf,
    /// State folder of the fleet, when it is not .veer in the fleet's folder
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Only this cluster
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// Ask this control plane's API (address:15014) instead of a fleet of this machine
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["fleet", "state", "cluster"])]
    pub api: Option<SocketAddr>,
}

/// A control plane to ask.
pub struct Asked {
    /// Its cluster, or its address when only that is known.
    pub name: String,
    /// Its API.
    pub api: SocketAddr,
    /// Where it lies on this machine, when it does.
    pub plan: Option<ClusterPlan>,
}

impl Target {
    /// The fleet's state folder.
    pub fn state(&self) -> PathBuf {
        self.state.clone().unwrap_or_else(|| FleetPlan::default_state(&self.fleet))
    }

    /// The fleet.
    ///
    /// # Errors
    /// When it was never started.
    pub fn plan(&self) -> anyhow::Result<FleetPlan> {
        Ok(FleetPlan::read(&self.state())?)
    }

    /// The clusters meant.
    ///
    /// # Errors
    /// When the fleet was never started, or has no such cluster.
    pub fn clusters(&self) -> anyhow::Result<Vec<ClusterPlan>> {
        let plan = self.plan()?;
        let Some(name) = &self.cluster else { return Ok(plan.clusters) };
        Ok(vec![named(&plan, name)?])
    }

    /// The one cluster meant.
    ///
    /// # Errors
    /// When there are several and none was named.
    pub fn one_cluster(&self) -> anyhow::Result<ClusterPlan> {
        let mut clusters = self.clusters()?;
        match clusters.len() {
            1 => Ok(clusters.remove(0)),
            _ => anyhow::bail!(
                "name the cluster with --cluster: {}",
                clusters.iter().map(|c| c.name.to_string()).collect::<Vec<_>>().join(", ")
            ),
        }
    }

    /// The control planes meant.
    ///
    /// # Errors
    /// As [`Target::clusters`].
    pub fn asked(&self) -> anyhow::Result<Vec<Asked>> {
        if let Some(api) = self.api {
            return Ok(vec![Asked { name: api.to_string(), api, plan: None }]);
        }
        let clusters = self.clusters()?;
        Ok(clusters.into_iter().map(|c| Asked { name: c.name.to_string(), api: c.api(), plan: Some(c) }).collect())
    }
}

/// The cluster of this name, or which there are.
///
/// # Errors
/// When there is none of this name.
pub fn named(plan: &FleetPlan, name: &str) -> anyhow::Result<ClusterPlan> {
    plan.cluster(name).cloned().with_context(|| {
        let known: Vec<_> = plan.clusters.iter().map(|cluster| cluster.name.to_string()).collect();
        format!("no cluster {name:?} in this fleet; there are {}", known.join(", "))
    })
}

/// How a tool answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A table for people
    Text,
    /// JSON for programs
    Json,
}

/// The flag that every tool has.
#[derive(Debug, Clone, Args)]
pub struct Format {
    /// How to answer
    #[arg(short = 'o', long = "output", value_enum, default_value = "text")]
    pub output: Output,
}

impl Format {
    /// Prints a value as JSON, or its text.
    ///
    /// # Errors
    /// When the value has no JSON form.
    pub fn print<T: Serialize>(&self, value: &T, text: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
        match self.output {
            Output::Json => anstream::println!("{}", serde_json::to_string_pretty(value)?),
            Output::Text => anstream::print!("{}", text(value)),
        }
        Ok(())
    }
}

/// Every object of some folders of manifests, and every fault in them, as a control plane that starts now would read them.
pub fn read_manifests(folders: &[PathBuf]) -> (Vec<Object>, Vec<Diagnostic>) {
    let mut source = FolderSource::new(folders.to_vec());
    source.poll();
    let snapshot = source.snapshot();
    (snapshot.objects.to_vec(), snapshot.diagnostics.to_vec())
}
