//! Measurements that anyone can repeat: `cargo build --release && cargo run --release -p veer-bench -- failures`.

mod allocations;
mod choice;
mod failures;
mod fairness;
mod limits;
mod side_by_side;

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: allocations::Counted = allocations::Counted;

#[derive(Parser)]
#[command(about = "Measurements of Veer on this machine")]
struct Cli {
    /// The veer to measure (default: beside this program)
    #[arg(long, global = true)]
    veer: Option<PathBuf>,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// What callers notice when clusters, control planes, gateways and links fail under load (needs root: network namespaces)
    Failures {
        /// Requests per second
        #[arg(long, default_value_t = 1000)]
        rate: u32,
        /// Only these scenarios
        only: Vec<String>,
    },
    /// How evenly the requests of one HTTP/2 connection are spread over ten remote endpoints in three zones
    Fairness,
    /// What the kernel takes for what proxies do all day: system calls, sends, wake-ups, copies
    Limits(limits::Limits),
    /// Memory of an idle proxy, of idle connections, and its growth with services that are known but not used: part of `side-by-side`
    Memory,
    /// Requests per CPU-second, latency and memory of Veer and of Envoy, HAProxy and nginx doing the same in the same run
    SideBySide(side_by_side::SideBySide),
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let beside = || Ok::<_, std::io::Error>(std::env::current_exe()?.with_file_name("veer"));
    let veer = cli.veer.map_or_else(beside, Ok)?;
    match cli.what {
        // Needs Veer only when Veer is among those measured.
        What::SideBySide(_) | What::Limits(_) => {}
        _ => ensure!(veer.exists(), "{} is not there: cargo build --release", veer.display()),
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting")?;
    runtime.block_on(async {
        match cli.what {
            What::Failures { rate, only } => failures::run(&veer, rate, &only).await,
            What::Fairness => fairness::run(&veer).await,
            What::Memory => side_by_side::run(&veer, side_by_side::SideBySide::of_memory()).await,
            What::Limits(flags) => limits::run(&flags),
            What::SideBySide(flags) => side_by_side::run(&veer, flags).await,
        }
    })
}

/// Prints rows under heads, columns aligned.
fn print_table(head: &[&str], rows: &[Vec<String>]) {
    let width = |n: usize| rows.iter().map(|row| row[n].chars().count()).chain([head[n].len()]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let cells: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("| {} |", cells.join(" | "))
    };
    println!("{}", line(head.to_vec()));
    println!("|{}|", widths.iter().map(|width| "-".repeat(width + 2)).collect::<Vec<_>>().join("|"));
    for row in rows {
        println!("{}", line(row.iter().map(String::as_str).collect()));
    }
}
