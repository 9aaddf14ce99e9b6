//! One look at a folder: which manifests are there, and what could not be looked at.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::Silence;

/// Most manifests of one folder.
const MAX_FILES: usize = 10_000;
/// Folders below folders.
const MAX_DEPTH: usize = 8;

/// What tells versions of a file apart without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub length: u64,
    inode: (u64, u64),
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(crate) fn of(meta: &std::fs::Metadata) -> Self {
        Self {
            length: meta.len(),
            inode: (meta.dev(), meta.ino()),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// What a folder holds.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Manifests and their stamps, in the order of their paths.
    pub files: Vec<(PathBuf, Stamp)>,
    /// Folders and files below that could not be looked at, and why.
    pub unseen: Vec<(PathBuf, String)>,
    /// There are more manifests than are read.
    pub too_many: bool,
}

/// Looks at a folder and all below it.
pub(crate) fn scan(root: &Path) -> Result<Scan, Silence> {
    let mut scan = Scan::default();
    match folder(root, 0, &mut scan) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(Silence::Vanished),
        Err(error) => return Err(Silence::Unreadable(error.to_string())),
    }
    if scan.files.is_empty() && scan.unseen.is_empty() {
        return Err(Silence::Empty);
    }
    scan.files.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    Ok(scan)
}

fn folder(path: &Path, depth: usize, scan: &mut Scan) -> std::io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        // Follows links, so that mounted ConfigMaps work, whose files are links into a folder that is swapped as a whole.
        let meta = match std::fs::metadata(&path) {
            Ok(meta) => meta,
            // Gone between the listing and the look, or a link that leads nowhere: not there.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => {
                // Without an ending it may be a folder.
                if is_manifest(&path) || path.extension().is_none() {
                    scan.unseen.push((path, error.to_string()));
                }
                continue;
            }
        };
        if meta.is_dir() {
            if depth == MAX_DEPTH {
                scan.unseen.push((path, format!("is more than {MAX_DEPTH} folders deep")));
            } else if let Err(error) = folder(&path, depth + 1, scan)
                && error.kind() != ErrorKind::NotFound
            {
                scan.unseen.push((path, error.to_string()));
            }
        } else if meta.is_file() && is_manifest(&path) {
            if scan.files.len() == MAX_FILES {
                scan.too_many = true;
            } else {
                scan.files.push((path, Stamp::of(&meta)));
            }
        }
    }
    Ok(())
}

fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ["yaml", "yml", "json"].iter().any(|known| ending == *known))
}
