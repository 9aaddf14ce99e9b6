//! Memory of one proxy: at rest, per idle connection, and with many services known and none used.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use veer_testkit::{Fleet, FleetSpec};

use crate::print_table;

const CONNECTIONS: usize = 1_000;
const SERVICES: usize = 10_000;

/// Measures and prints.
pub async fn run(veer: &Path) -> anyhow::Result<()> {
    let fleet =
        FleetSpec::new(veer)?.cluster("west", 63, 1).visitor("west").service("west", "catalog", 1, 20).start().await?;
    veer_testkit::eventually("a request is served", Duration::from_secs(20), || {
        match fleet.curl("west", "catalog", "/items", &[]) {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let idle = resident(&fleet)?;
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut connection = TcpStream::connect("127.63.0.10:15001").await?;
        connection.write_all(b"GET /items HTTP/1.1\r\nHost: catalog\r\n\r\n").await?;
        let mut answer = [0; 2048];
        anyhow::ensure!(connection.read(&mut answer).await? > 0, "the proxy closed a connection");
        open.push(connection);
    }
    let with_connections = resident(&fleet)?;
    drop(open);
    let before = resident(&fleet)?;
    let mut text = String::new();
    for n in 0..SERVICES {
        writeln!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{ name: unused-{n}, namespace: shop }}\nspec: {{ clusterIP: 10.96.{}.{}, ports: [{{ name: http, port: 80 }}] }}",
            n / 250,
            n % 250 + 1
        )?;
    }
    for (n, part) in text.split("---\n").collect::<Vec<_>>().chunks(1000).enumerate() {
        fleet.write(&format!("west/unused-{n}.yaml"), &part.join("---\n"))?;
    }
    veer_testkit::eventually("the control plane knows them", Duration::from_secs(60), || {
        let (text, _) = fleet.tool("west", &["status", "-o", "json"]).map_err(|e| e.to_string())?;
        let status: serde_json::Value = serde_json::from_str(&text).map_err(|e| format!("{e}: {text}"))?;
        let known = status[0]["answer"]["services"].as_u64().unwrap_or(0);
        if known as usize >= SERVICES { Ok(()) } else { Err(format!("{known} services")) }
    })
    .await;
    // The proxy has had its chance to hear of them once it has taken a request for another service.
    anyhow::ensure!(fleet.curl("west", "catalog", "/items", &[])?.0 == 200, "no longer served");
    let with_services = resident(&fleet)?;
    let kib = |kib: i64| format!("{kib} KiB");
    print_table(
        &["what", "resident"],
        &[
            vec!["an idle proxy".to_owned(), kib(idle)],
            vec![
                "one idle client connection".to_owned(),
                format!("{:.1} KiB", (with_connections - idle) as f64 / CONNECTIONS as f64),
            ],
            vec![format!("growth with {SERVICES} known, unused services"), kib(with_services - before)],
        ],
    );
    Ok(())
}

/// Resident memory of the visitor's proxy in KiB.
fn resident(fleet: &Fleet) -> anyhow::Result<i64> {
    let run: serde_json::Value = serde_json::from_str(&fleet.read(".veer/clusters/west/run.json")?)?;
    let pid = &run["processes"]["shop.visitor.proxy"];
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid}"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS")).context("no VmRSS")?;
    Ok(line.split_whitespace().nth(1).context("no figure")?.parse()?)
}
