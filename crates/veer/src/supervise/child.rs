//! One supervised process: started, restarted with backoff, stopped gently.
//!
//! Every process is started through `veer exec`, which asks the kernel to kill it when its parent dies (Linux
//! `PR_SET_PDEATHSIG`) before it becomes the command itself: killing a cluster's process kills the cluster, as pulling the
//! plug of a rack would, and nothing is left behind.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Between a process's end and its next start, doubling up to [`MAX_BACKOFF`] while it ends soon.
const MIN_BACKOFF: Duration = Duration::from_millis(100);
/// See [`MIN_BACKOFF`].
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// A process that ran this long is well; its next restart is quick again.
const WELL: Duration = Duration::from_secs(10);
/// From the polite signal to the other one.
pub const GRACE: Duration = Duration::from_secs(10);
/// How often a held process looks whether it may start.
const HOLD_POLL: Duration = Duration::from_millis(100);

/// What is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Name within its supervisor; also of its log file.
    pub name: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Added to the supervisor's environment.
    pub env: Vec<(String, String)>,
    /// Working directory; the supervisor's own if absent.
    pub dir: Option<PathBuf>,
    /// What happens when it ends by itself.
    pub restart: Restart,
    /// What must answer 200 before the next process of its unit starts (`host:port/path`); bounded, then started anyway.
    pub ready: Option<(std::net::SocketAddr, &'static str)>,
}

/// When a process that ended is started again (Kubernetes' `restartPolicy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Whatever its exit code.
    Always,
    /// Unless it exited with 0.
    OnFailure,
    /// Not.
    Never,
}

/// Where a supervisor keeps what its processes leave behind.
#[derive(Debug, Clone)]
pub struct Places {
    /// Log files, one per process.
    pub logs: PathBuf,
    /// A file of a process's name in here keeps it from being started.
    pub held: PathBuf,
}

/// A process under supervision. Dropping it kills the process.
#[derive(Debug)]
pub struct Child {
    stop: Option<oneshot::Sender<()>>,
    pid: watch::Receiver<Option<u32>>,
    task: JoinHandle<()>,
}

impl Child {
    /// Starts supervising; the process itself starts as soon as it is not held.
    pub fn start(command: Command, places: Places) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (pids, pid) = watch::channel(None);
        let task = tokio::task::spawn_local(supervise(command, places, pids, stopped));
        Self { stop: Some(stop), pid, task }
    }

    /// Process id now, and whenever it changes; `None` while it does not run.
    pub fn pid(&self) -> watch::Receiver<Option<u32>> {
        self.pid.clone()
    }

    /// Asks the process to end (`SIGTERM`), kills it after [`GRACE`], and returns when it is gone.
    pub async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            // The supervising task may have ended already, with a process that is not restarted.
            let _ = stop.send(());
        }
        // A panic in the task was reported by the runtime; the process died with its handle.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn supervise(
    command: Command,
    places: Places,
    pids: watch::Sender<Option<u32>>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut backoff = MIN_BACKOFF;
    loop {
        let held = places.held.join(&command.name);
        while held.exists() {
            tokio::select! {
                () = tokio::time::sleep(HOLD_POLL) => {}
                _ = &mut stopped => return,
            }
        }
        let started = Instant::now();
        let (success, how) = match spawn(&command, &places.logs) {
            Ok(mut process) => {
                pids.send_replace(process.id());
                tokio::select! {
                    ended = process.wait() => match ended {
                        Ok(status) => (status.success(), status.to_string()),
                        Err(error) => (false, error.to_string()),
                    },
                    _ = &mut stopped => {
                        end(&mut process).await;
                        pids.send_replace(None);
                        return;
                    }
                }
            }
            Err(error) => {
                tracing::error!(process = %command.name, program = %command.argv[0], %error, "cannot start");
                (false, "not started".to_owned())
            }
        };
        pids.send_replace(None);
        if command.restart == Restart::Never || (command.restart == Restart::OnFailure && success) {
            return;
        }
        if started.elapsed() > WELL {
            backoff = MIN_BACKOFF;
        }
        tracing::warn!(process = %command.name, how, ?backoff, "ended, starting again");
        tokio::select! {
            () = tokio::time::sleep(backoff) => {}
            _ = &mut stopped => return,
        }
        backoff = (backoff * 2).min(MAX_BACKOFF);
    }
}

fn spawn(command: &Command, logs: &Path) -> io::Result<tokio::process::Child> {
    let log = OpenOptions::new().create(true).append(true).open(logs.join(format!("{}.log", command.name)))?;
    let mut process = tokio::process::Command::new(super::own_program()?);
    process.arg("exec").arg("--parent").arg(std::process::id().to_string()).arg("--").args(&command.argv);
    process.envs(command.env.iter().map(|(name, value)| (name, value)));
    if let Some(dir) = &command.dir {
        process.current_dir(dir);
    }
    process.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true).spawn()
}

async fn end(process: &mut tokio::process::Child) {
    if let Some(pid) = process.id().and_then(|pid| Pid::from_raw(pid.cast_signed())) {
        // Fails only when the process is gone already.
        let _ = kill_process(pid, Signal::TERM);
    }
    if tokio::time::timeout(GRACE, process.wait()).await.is_err() {
        // The same; `kill` also reaps.
        let _ = process.kill().await;
    }
}

/// Becomes `argv`, to be killed by the kernel when `parent` is gone. Returns only when that fails.
pub fn exec(parent: u32, argv: &[String]) -> io::Error {
    use std::os::unix::process::CommandExt as _;
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        return error.into();
    }
    // The parent may have died before the kernel was asked.
    if rustix::process::getppid().is_none_or(|now| now.as_raw_nonzero().get().cast_unsigned() != parent) {
        return io::Error::other("the process that started this one is gone");
    }
    match argv {
        [] => io::Error::other("no command given"),
        [program, arguments @ ..] => std::process::Command::new(program).args(arguments).exec(),
    }
}
