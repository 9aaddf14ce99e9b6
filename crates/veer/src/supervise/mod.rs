//! Running a fleet on one machine: a process per cluster, and in each cluster its control plane, gateways, proxies and
//! applications.

pub mod child;
pub mod cluster;
pub mod fleet;
pub mod plan;
pub mod units;

use std::io;
use std::path::{Path, PathBuf};

/// The program that runs now, to be started again with other arguments. Follows `/proc/self/exe`, so that replacing the file
/// on disk while it runs does not matter.
///
/// # Errors
/// When the system does not tell.
pub fn own_program() -> io::Result<PathBuf> {
    std::env::current_exe()
}

/// Writes a file so that readers see the old or the new content, never a part.
///
/// # Errors
/// When the folder cannot be written to.
pub fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    std::fs::write(&temporary, content)?;
    std::fs::rename(&temporary, path)
}
