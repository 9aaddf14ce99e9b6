//! Programs under test: started on a core, watched through `/proc`, killed with everything they started.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal};
use rustix::thread::CpuSet;

/// A program that runs; it and its children are killed when this is dropped.
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts a command on one core, its output in a file.
    pub fn start(mut command: Command, core: usize, log: &Path) -> anyhow::Result<Self> {
        let output = File::create(log)?;
        // A group of its own, so that children (nginx's workers) can be killed with it.
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
        let program = command.get_program().to_owned();
        // A new process has the affinity of the thread that starts it.
        let before = rustix::thread::sched_getaffinity(None)?;
        pin(None, core)?;
        let child = command.spawn().with_context(|| format!("starting {}", program.display()));
        rustix::thread::sched_setaffinity(None, &before)?;
        Ok(Self { child: child? })
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error when it has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => anyhow::bail!("ended by itself: {status}"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(group) = Pid::from_raw(self.child.id() as i32) {
            // Fails only when everything has ended.
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// Binds a thread (the current one if none is named) to one core.
pub fn pin(thread: Option<Pid>, core: usize) -> anyhow::Result<()> {
    ensure!(core < CpuSet::MAX_CPU, "no core {core}");
    let mut set = CpuSet::new();
    set.set(core);
    rustix::thread::sched_setaffinity(thread, &set).with_context(|| format!("binding to core {core}"))
}

/// This process, and all that it starts from now on, comes before everything else on the machine, as far as it may (root).
pub fn prefer() {
    // What cannot be had is told by the share of the core that others took.
    let _ = rustix::process::setpriority_process(None, -20);
    // Where sessions are scheduled as groups (sched(7)), the one above only counts among those of this session.
    let _ = std::fs::write("/proc/self/autogroup", "-20");
}

/// Nothing else runs where one of these processes wants to, as far as this may be had (root): for latencies, which a slice of anybody else's time
/// would spoil. A process that has nothing to wait for would then be held up by the kernel, for 5 % of the time.
pub fn take_over(pids: &[u32], really: bool) {
    for pid in pids {
        let policy = if really { ["-r", "1"] } else { ["-o", "0"] };
        let mut command = Command::new("chrt");
        command.args(["-a", policy[0], "-p", policy[1], &pid.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
        // What cannot be had is told by the share of the core that others took.
        let _ = command.status();
    }
}

/// Binds all threads of a process to one core.
pub fn pin_all(pid: u32, core: usize) -> anyhow::Result<()> {
    for thread in numbers(&format!("/proc/{pid}/task"))? {
        pin(Pid::from_raw(thread as i32), core)?;
    }
    Ok(())
}

/// The processes and everything they started.
pub fn with_children(roots: &[u32]) -> anyhow::Result<Vec<u32>> {
    let mut found = roots.to_vec();
    let mut at = 0;
    while let Some(pid) = found.get(at).copied() {
        at += 1;
        for thread in numbers(&format!("/proc/{pid}/task"))? {
            // Empty for a thread that has just ended.
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{thread}/children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    Ok(found)
}

/// CPU time that the processes have used so far, by all their threads, in user and kernel mode.
pub fn cpu_time(pids: &[u32]) -> anyhow::Result<Duration> {
    let mut total = Duration::ZERO;
    for pid in pids {
        total += threads_cpu_time(*pid).or_else(|_| process_cpu_time(*pid))?;
    }
    Ok(total)
}

/// To the nanosecond, where the kernel keeps scheduler statistics.
fn threads_cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let mut total = Duration::ZERO;
    for thread in numbers(&format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{thread}/schedstat"))?;
        let nanoseconds = text.split_whitespace().next().context("an empty schedstat")?;
        total += Duration::from_nanos(nanoseconds.parse()?);
    }
    Ok(total)
}

/// In clock ticks of (nearly always) 10 ms, everywhere: utime and stime of `/proc/PID/stat`.
fn process_cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold anything.
    let (_, fields) = text.rsplit_once(") ").context("unexpected /proc/PID/stat")?;
    let mut ticks = 0;
    for field in fields.split(' ').skip(11).take(2) {
        ticks += field.parse::<u64>()?;
    }
    Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// Most memory that the processes had in RAM at once, in bytes, added up (pages that they share count for each).
pub fn peak_memory(pids: &[u32]) -> anyhow::Result<u64> {
    let mut total = 0;
    for pid in pids {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        total += 1024 * line.trim().trim_end_matches(" kB").parse::<u64>()?;
    }
    Ok(total)
}

/// Memory that processes have now, in bytes, added up.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    /// `VmRSS`: pages in RAM; those that processes share count for each.
    pub resident: u64,
    /// The same of the largest process.
    pub largest_peak: u64,
    /// `Pss`: shared pages count by share.
    pub proportional: u64,
    /// Pages that no other process has.
    pub private: u64,
}

impl Memory {
    /// Of these processes.
    ///
    /// # Errors
    /// When one has ended.
    pub fn of(pids: &[u32]) -> anyhow::Result<Self> {
        let mut total = Self::default();
        for pid in pids {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
            total.resident += kilobytes(&status, &["VmRSS:"]);
            total.largest_peak = total.largest_peak.max(kilobytes(&status, &["VmHWM:"]));
            let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
            total.proportional += kilobytes(&rollup, &["Pss:"]);
            total.private += kilobytes(&rollup, &["Private_Clean:", "Private_Dirty:"]);
        }
        Ok(total)
    }
}

/// The lines of these names in a file of `/proc`, added up, in bytes.
fn kilobytes(text: &str, names: &[&str]) -> u64 {
    let value = |line: &str| {
        let (name, value) = line.split_once(char::is_whitespace)?;
        names.contains(&name).then(|| value.trim().trim_end_matches(" kB").parse::<u64>().ok())?
    };
    1024 * text.lines().filter_map(value).sum::<u64>()
}

/// Time that a core has been busy since the machine started, with whatever.
///
/// # Errors
/// When there is no such core.
pub fn core_busy(core: usize) -> anyhow::Result<Duration> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let name = format!("cpu{core} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name)).context("no such core")?;
    let fields: Vec<u64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    // user nice system idle iowait irq softirq steal
    let busy: u64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|n| fields.get(*n)).sum();
    Ok(Duration::from_secs_f64(busy as f64 / rustix::param::clock_ticks_per_second() as f64))
}

fn numbers(folder: &str) -> anyhow::Result<Vec<u32>> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.to_owned())?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_found_and_counted_and_killed() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new("sh");
        command.args(["-c", "while :; do :; done & exec sleep 60"]);
        let mut process = Process::start(command, 0, &folder.path().join("log"))?;
        let deadline = std::time::Duration::from_secs(20);
        let begun = tokio::time::Instant::now();
        let all = loop {
            assert!(begun.elapsed() < deadline, "no child seen working");
            let all = with_children(&[process.pid()])?;
            if all.len() == 2 && cpu_time(&all)? > Duration::from_millis(30) {
                break all;
            }
            std::thread::yield_now();
        };
        assert!(threads_cpu_time(all[1])? > Duration::ZERO);
        assert!(peak_memory(&all)? > 0);
        let memory = Memory::of(&all)?;
        assert!(memory.resident >= memory.proportional && memory.private > 0, "{memory:?}");
        process.check()?;
        drop(process);
        while Path::new(&format!("/proc/{}/task", all[1])).exists() {
            // A zombie without a parent is collected by init; until then it has no memory.
            let status = std::fs::read_to_string(format!("/proc/{}/status", all[1])).unwrap_or_default();
            if !status.contains("VmHWM") {
                break;
            }
            assert!(begun.elapsed() < deadline, "the child lives on");
        }
        Ok(())
    }
}
