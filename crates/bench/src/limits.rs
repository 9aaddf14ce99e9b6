//! What limits every proxy: the kernel's price of what proxies do all day (`benches/floor/limits.c`).

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, ensure};
use clap::Args;

use crate::{print_table, side_by_side};

const SOURCE: &str = include_str!("../../../benches/floor/limits.c");

/// `veer-bench limits`
#[derive(Args)]
pub struct Limits {
    /// Core that is measured
    #[arg(long, default_value_t = 1)]
    core: usize,
    /// Core of the other side, where two are needed
    #[arg(long, default_value_t = 0)]
    other_core: usize,
    /// File for the figures, as JSON
    #[arg(long)]
    output: Option<PathBuf>,
}

/// Compiles, measures and prints.
pub fn run(flags: &Limits) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (source, program) = (folder.path().join("limits.c"), folder.path().join("limits"));
    std::fs::write(&source, SOURCE)?;
    let compiled = Command::new("cc").args(["-O2", "-pthread", "-o"]).arg(&program).arg(&source).output();
    let compiled = compiled.context("running cc: it is in the Debian package gcc")?;
    ensure!(compiled.status.success(), "cc: {}", String::from_utf8_lossy(&compiled.stderr));
    side_by_side::prefer();
    let output = Command::new(&program).args([flags.core.to_string(), flags.other_core.to_string()]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let figures: Vec<(&str, f64)> = text
        .lines()
        .map(|line| {
            let (name, value) = line.split_once('\t').context("a line without a figure")?;
            Ok((name, value.parse()?))
        })
        .collect::<anyhow::Result<_>>()?;
    let rows: Vec<Vec<String>> =
        figures.iter().map(|(name, ns)| vec![(*name).to_owned(), format!("{:.2}", ns / 1000.0)]).collect();
    print_table(&["what", "µs"], &rows);
    if let Some(path) = &flags.output {
        let json: serde_json::Map<String, serde_json::Value> =
            figures.iter().map(|(name, ns)| ((*name).to_owned(), (*ns).into())).collect();
        std::fs::write(path, serde_json::to_string_pretty(&json)? + "\n")?;
    }
    Ok(())
}
