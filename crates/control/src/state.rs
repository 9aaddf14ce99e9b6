//! The state folder: everything that must survive a restart of the control plane.
//!
//! | file | what |
//! |---|---|
//! | `ca/` | the certificate authority |
//! | `gateway.key` | master secret from which the keys of route tokens are derived |
//! | `incarnation.json` | who this control plane is: a random id made once, and a count of its starts |
//! | `settings.json` | orders of the operator: rotation, draining gateways |
//! | `tokens.json`, `issued.jsonl` | join tokens; certificates and whose they are |
//! | `peers/<cluster>.json` | what a peer said last |
//! | `lock` | held by the control plane that uses the folder |
//! | `control.sock` | the socket of privileged verbs |
//!
//! A file that is there but cannot be read stops the start where a new one would change who this cluster *is* (CA, master
//! secret); elsewhere it is set aside and reported, and never taken for an empty one.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use veer_identity::EpochKeys;

use crate::{files, random};

/// Who a control plane is, so that a peer tells a restart from a wiped successor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incarnation {
    /// Made once per state folder.
    pub uid: String,
    /// Starts of this folder's control plane; grows.
    pub count: u64,
}

impl std::fmt::Display for Incarnation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.uid, self.count)
    }
}

/// Orders of the operator that survive a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Grows with each order to renew every certificate.
    pub rotate: u64,
    /// Names of gateways that get no new connections.
    pub draining: BTreeSet<String>,
}

/// An opened state folder.
#[derive(Debug)]
pub struct StateDir {
    dir: PathBuf,
    incarnation: Incarnation,
    keys: EpochKeys,
    settings: Settings,
}

/// The state folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("state folder: {path}: {source}", path = .path.display())]
pub struct StateError {
    /// The file.
    pub path: PathBuf,
    /// What went wrong.
    pub source: io::Error,
}

impl StateDir {
    /// Opens the folder, makes what is missing, and counts this start. Also returns what was set aside as unreadable.
    ///
    /// # Errors
    /// When it cannot be written to, or holds a master secret that cannot be read.
    pub fn open(dir: &Path) -> Result<(Self, Vec<StateError>), StateError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| StateError { path, source }
        };
        files::private_dir(dir).map_err(at(dir))?;
        let peers = dir.join("peers");
        files::private_dir(&peers).map_err(at(&peers))?;

        let mut set_aside = Vec::new();
        let key = dir.join("gateway.key");
        // A new secret over an unreadable one would make every token out there stale: that is an error for a human.
        let keys = EpochKeys::load_or_create(&key).map_err(|error| at(&key)(io::Error::other(error)))?;

        let path = dir.join("incarnation.json");
        let before: Option<Incarnation> = read_or_set_aside(&path, &mut set_aside).map_err(at(&path))?;
        let incarnation = match before {
            Some(Incarnation { uid, count }) => Incarnation { uid, count: count + 1 },
            None => Incarnation { uid: random::hex(&random::secret::<16>()), count: 1 },
        };
        files::write_json(&path, &incarnation).map_err(at(&path))?;

        let path = dir.join("settings.json");
        let settings = read_or_set_aside(&path, &mut set_aside).map_err(at(&path))?.unwrap_or_default();
        Ok((Self { dir: dir.to_owned(), incarnation, keys, settings }, set_aside))
    }

    /// Who this control plane is.
    pub fn incarnation(&self) -> &Incarnation {
        &self.incarnation
    }

    /// Derives the keys of route tokens.
    pub fn keys(&self) -> &EpochKeys {
        &self.keys
    }

    /// The operator's orders.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Changes the operator's orders; they are on disk before this returns, else nothing has changed.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn change_settings(&mut self, change: impl FnOnce(&mut Settings)) -> Result<(), StateError> {
        let mut settings = self.settings.clone();
        change(&mut settings);
        let path = self.dir.join("settings.json");
        files::write_json(&path, &settings).map_err(|source| StateError { path, source })?;
        self.settings = settings;
        Ok(())
    }

    /// Folder of the certificate authority.
    pub fn ca(&self) -> PathBuf {
        ca_path(&self.dir)
    }

    /// File of join tokens.
    pub fn tokens(&self) -> PathBuf {
        self.dir.join("tokens.json")
    }

    /// File of issued certificates.
    pub fn issued(&self) -> PathBuf {
        self.dir.join("issued.jsonl")
    }

    /// Folder of what peers said.
    pub fn peers(&self) -> PathBuf {
        self.dir.join("peers")
    }

    /// The socket of privileged verbs.
    pub fn socket(&self) -> PathBuf {
        socket_path(&self.dir)
    }
}

/// Holds the state folder for one control plane; let go when dropped, also by the kernel after a crash.
///
/// # Errors
/// When another control plane holds it, or it cannot be made.
pub(crate) fn lock(dir: &Path) -> Result<std::fs::File, StateError> {
    let path = dir.join("lock");
    let fail = |source| StateError { path: path.clone(), source };
    files::private_dir(dir).map_err(fail)?;
    let options = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = options.map_err(fail)?;
    file.try_lock().map_err(|error| match error {
        std::fs::TryLockError::WouldBlock => {
            fail(io::Error::new(io::ErrorKind::ResourceBusy, "another control plane uses this state folder"))
        }
        std::fs::TryLockError::Error(error) => fail(error),
    })?;
    Ok(file)
}

/// Where the control plane with this state folder takes privileged verbs.
pub fn socket_path(state_dir: &Path) -> PathBuf {
    state_dir.join("control.sock")
}

/// Where the certificate authority of a state folder is.
pub fn ca_path(state_dir: &Path) -> PathBuf {
    state_dir.join("ca")
}

/// Reads JSON; a file that does not parse is moved aside (`.unreadable`) and reported. Other errors are the caller's.
fn read_or_set_aside<T: serde::de::DeserializeOwned>(
    path: &Path,
    set_aside: &mut Vec<StateError>,
) -> io::Result<Option<T>> {
    match files::read_json(path) {
        Ok(value) => Ok(value),
        // serde_json's syntax errors arrive as these kinds; the file itself was readable.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
            let mut name = path.file_name().unwrap_or_default().to_os_string();
            name.push(".unreadable");
            std::fs::rename(path, path.with_file_name(name))?;
            set_aside.push(StateError { path: path.to_owned(), source: error });
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_is_the_same_control_plane_and_a_wiped_folder_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let (first, _) = StateDir::open(&state).unwrap();
        let (mut second, _) = StateDir::open(&state).unwrap();
        assert_eq!(first.incarnation().uid, second.incarnation().uid);
        assert_eq!(second.incarnation().count, 2);
        let (peer, now) = (veer_core::ClusterName::new("east").unwrap(), std::time::SystemTime::UNIX_EPOCH);
        assert_eq!(first.keys().current(&peer, now), second.keys().current(&peer, now));
        second.change_settings(|s| s.rotate += 1).unwrap();
        assert_eq!(StateDir::open(&state).unwrap().0.settings().rotate, 1);

        std::fs::remove_dir_all(&state).unwrap();
        let (wiped, _) = StateDir::open(&state).unwrap();
        assert_ne!(first.incarnation().uid, wiped.incarnation().uid);
    }

    #[test]
    fn broken_files_are_set_aside_and_a_broken_secret_stops_the_start() {
        let dir = tempfile::tempdir().unwrap();
        StateDir::open(dir.path()).unwrap();
        std::fs::write(dir.path().join("settings.json"), b"{").unwrap();
        let (_, set_aside) = StateDir::open(dir.path()).unwrap();
        assert_eq!(set_aside.len(), 1);
        assert!(dir.path().join("settings.json.unreadable").exists());

        std::fs::write(dir.path().join("gateway.key"), b"short").unwrap();
        let error = StateDir::open(dir.path()).unwrap_err();
        assert!(error.to_string().contains("gateway.key"), "{error}");
    }

    #[test]
    fn secrets_are_their_owners_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        StateDir::open(&state).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&state), 0o700);
        assert_eq!(mode(&state.join("gateway.key")), 0o600);
    }
}
