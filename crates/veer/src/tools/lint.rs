//! `veer lint`: faults in manifests before anybody applies them. Nothing runs for it, and nothing is written.
//!
//! A fleet folder is compiled as its control planes would compile it, all clusters together: what one exports is what the
//! others are offered, so that routes to, and imports of, other clusters are judged too. Of a folder that is not a fleet's
//! only the references within it can be judged.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use veer_control::api::Fault;
use veer_resources::{Diagnostic, check_set};

use super::folder::read_clusters;
use super::look::fault_text;
use super::{Format, read_manifests};

/// `veer lint`
#[derive(Debug, Args)]
pub struct Lint {
    /// Fleet folder (with fleet.yaml), or a folder of one cluster's manifests
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// Warnings count as errors
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    format: Format,
}

/// What was found.
#[derive(Debug, Serialize)]
struct Report {
    /// Objects that were read.
    objects: usize,
    /// By cluster of the fleet, then by place.
    faults: Vec<Fault>,
    errors: usize,
    warnings: usize,
}

impl Lint {
    /// Looks; `Ok(true)` when there is nothing to mend.
    ///
    /// # Errors
    /// When there is no such folder, or `fleet.yaml` cannot be used (its faults are told).
    pub fn run(&self) -> anyhow::Result<bool> {
        let folder = &self.folder;
        anyhow::ensure!(
            folder.is_dir(),
            "{} is not a folder: name the one that the manifests are in",
            folder.display()
        );
        let fleet = folder.join("fleet.yaml").is_file();
        let (objects, faults) = if fleet { lint_fleet(folder)? } else { lint_alone(folder) };
        let errors = faults.iter().filter(|fault| fault.is_error()).count();
        let warnings = faults.len() - errors;
        let report = Report { objects, faults: faults.iter().map(Fault::from).collect(), errors, warnings };
        self.format.print(&report, text)?;
        Ok(errors == 0 && (warnings == 0 || !self.strict))
    }
}

fn lint_alone(folder: &Path) -> (usize, Vec<Diagnostic>) {
    let (objects, mut faults) = read_manifests(&[folder.to_owned()]);
    faults.extend(check_set(&objects));
    faults.sort_by_key(Diagnostic::location);
    (objects.len(), faults)
}

fn lint_fleet(folder: &Path) -> anyhow::Result<(usize, Vec<Diagnostic>)> {
    let clusters = read_clusters(folder)?;
    let objects = clusters.iter().map(|cluster| cluster.objects.len()).sum();
    let mut all = Vec::new();
    for mut cluster in clusters {
        cluster.faults.extend(cluster.meaning.faults);
        cluster.faults.sort_by_key(Diagnostic::location);
        all.extend(cluster.faults);
    }
    Ok((objects, all))
}

fn text(report: &Report) -> String {
    let Report { objects, faults, errors, warnings } = report;
    let faults: String = faults.iter().map(fault_text).collect();
    faults + &format!("{objects} objects, {errors} errors, {warnings} warnings\n")
}
