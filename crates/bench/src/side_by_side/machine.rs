//! The machine and the programs that were measured.

use std::path::Path;
use std::process::Command;

use serde::Serialize;

/// What figures depend on.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Day of the measurement.
    pub date: String,
    /// Model of the processor.
    pub cpu: String,
    /// Cores that may be used.
    pub cores: usize,
    /// RAM in MiB.
    pub memory_mib: u64,
    /// Kernel.
    pub kernel: String,
    /// Hypervisor, if any.
    pub virtualization: String,
    /// Vulnerabilities' mitigations cost proxies a lot: every one that is on.
    pub mitigations: Vec<String>,
    /// What the kernel is told about TCP, and how many files a process may open.
    pub settings: Vec<(String, String)>,
}

impl Machine {
    /// Looks at it.
    pub fn describe() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let after = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(':').map_or_else(String::new, |(_, value)| value.trim().to_owned())
        };
        let cpuinfo = read("/proc/cpuinfo");
        let memory = after(&read("/proc/meminfo"), "MemTotal");
        let uname = rustix::system::uname();
        let has_hypervisor = cpuinfo.lines().any(|line| line.starts_with("flags") && line.contains(" hypervisor"));
        Self {
            date: first_line("date", &["-u", "+%F"]),
            cpu: after(&cpuinfo, "model name"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: memory.trim_end_matches(" kB").parse::<u64>().unwrap_or(0) / 1024,
            kernel: format!("{} {}", uname.sysname().to_string_lossy(), uname.release().to_string_lossy()),
            virtualization: if has_hypervisor { "virtual machine" } else { "none" }.to_owned(),
            mitigations: mitigations(),
            settings: settings(),
        }
    }
}

fn settings() -> Vec<(String, String)> {
    const NAMES: [&str; 8] = [
        "net.core.somaxconn",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.tcp_congestion_control",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_wmem",
        "net.ipv4.tcp_tw_reuse",
        "net.ipv4.tcp_max_tw_buckets",
        "kernel.sched_rt_runtime_us",
    ];
    let read = |name: &&str| {
        let text = std::fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()?;
        Some(((*name).to_owned(), text.split_whitespace().collect::<Vec<_>>().join(" ")))
    };
    let mut settings: Vec<_> = NAMES.iter().filter_map(read).collect();
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    settings.push(("open files".to_owned(), files.map_or("unlimited".to_owned(), |files| files.to_string())));
    settings
}

fn mitigations() -> Vec<String> {
    let entries = std::fs::read_dir("/sys/devices/system/cpu/vulnerabilities").into_iter().flatten().flatten();
    let mut found: Vec<String> = entries
        .filter_map(|entry| {
            let text = std::fs::read_to_string(entry.path()).ok()?;
            let mitigation = text.trim().strip_prefix("Mitigation: ")?.to_owned();
            Some(format!("{}: {mitigation}", entry.file_name().to_string_lossy()))
        })
        .collect();
    found.sort();
    found
}

/// The first line that a program prints, on either stream; empty if it cannot be run.
pub fn first_line(program: impl AsRef<Path>, arguments: &[&str]) -> String {
    let Ok(output) = Command::new(program.as_ref()).args(arguments).output() else { return String::new() };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned()
}
