//! Secrets on disk: written whole or not at all, readable by their owner only.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Error;

/// Writes the file with mode 0600 so that a reader sees the old content or the new, also after a crash. Missing directories
/// are made with mode 0700.
///
/// # Errors
/// Which path failed, why, and what to do.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), Error> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let dir = parent(path);
    make_private_dir(dir)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let temporary = dir.join(format!(".{name}.{}.{number}", std::process::id()));
    let written = (|| {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        // The rename itself must survive a crash; some file systems cannot sync a directory, which changes nothing else.
        let _ = fs::File::open(dir).and_then(|dir| dir.sync_all());
        Ok(())
    })();
    written.map_err(|error: std::io::Error| {
        let _ = fs::remove_file(&temporary);
        Error::File {
            path: path.to_owned(),
            problem: format!("cannot be written: {error}"),
            mend: "make sure that the directory belongs to the user that runs veer and that the disk is not full",
        }
    })
}

/// Reads a file that must be there.
///
/// # Errors
/// Which path failed, why, and what to do.
pub fn read(path: &Path) -> Result<String, Error> {
    read_if_there(path)?.ok_or_else(|| Error::File {
        path: path.to_owned(),
        problem: "does not exist".to_owned(),
        mend: "restore it from where it was saved, or remove its whole directory to begin with a new identity",
    })
}

/// Reads a file; `None` when there is none.
///
/// # Errors
/// When it is there but cannot be read as text.
pub fn read_if_there(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::File {
            path: path.to_owned(),
            problem: format!("cannot be read: {error}"),
            mend: "give it to the user that runs veer, with mode 0600",
        }),
    }
}

pub(crate) fn malformed(path: &Path, problem: impl std::fmt::Display) -> Error {
    Error::File {
        path: path.to_owned(),
        problem: problem.to_string(),
        mend: "restore it from where it was saved, or remove it to have it made anew",
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn make_private_dir(dir: &Path) -> Result<(), Error> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| Error::File {
        path: PathBuf::from(dir),
        problem: format!("cannot be made: {error}"),
        mend: "name a directory that the user that runs veer may write to",
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn files_are_private_and_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/secret.pem");
        write_private(&path, b"one").unwrap();
        write_private(&path, b"two").unwrap();
        assert_eq!(read(&path).unwrap(), "two");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn errors_name_the_file_and_the_mend() {
        let dir = tempfile::tempdir().unwrap();
        let message = read(&dir.path().join("nothing.pem")).unwrap_err().to_string();
        assert!(message.contains("nothing.pem") && message.contains("restore"), "{message}");
    }
}
