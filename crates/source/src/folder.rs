//! The folders of one cluster, looked at again and again.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::time::Instant;
use veer_resources::{Diagnostic, Location, Object, remove_duplicates};

use crate::file::ManifestFile;
use crate::hold::Hold;
use crate::scan::{Scan, Stamp, scan};
use crate::{CONFIRM_FILE, Confirm, MassLoss, Silence, Snapshot, SourceState};

/// Folders of manifests. [`FolderSource::poll`] looks once; [`FolderSource::watch`] keeps looking.
#[derive(Debug)]
pub struct FolderSource {
    roots: Vec<Root>,
    hold: Hold,
    confirm: Confirm,
    /// Confirming files as they were when the loss that is held began.
    markers: Vec<Option<Stamp>>,
    snapshot: Snapshot,
    looked: bool,
}

#[derive(Debug)]
struct Root {
    path: PathBuf,
    files: BTreeMap<PathBuf, ManifestFile>,
    /// Read completely at least once.
    known: bool,
    silent: Option<(Silence, Instant)>,
    /// What is wrong with the folder itself.
    diagnostics: Vec<Diagnostic>,
}

impl FolderSource {
    /// A source of these folders; nothing is read yet.
    pub fn new(folders: Vec<PathBuf>) -> Self {
        let root = |path| Root { path, files: BTreeMap::new(), known: false, silent: None, diagnostics: Vec::new() };
        Self {
            roots: folders.into_iter().map(root).collect(),
            hold: Hold::default(),
            confirm: Confirm::default(),
            markers: Vec::new(),
            snapshot: Snapshot {
                objects: Arc::new([]),
                diagnostics: Arc::new([]),
                generation: 0,
                state: SourceState::Starting,
                held: None,
            },
            looked: false,
        }
    }

    /// Lets go what is held, now or later.
    pub fn confirm(&self) -> Confirm {
        self.confirm.clone()
    }

    /// What is known now.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.clone()
    }

    /// Looks once at all folders; says whether there is a new snapshot.
    pub fn poll(&mut self) -> bool {
        let now = Instant::now();
        let mut changed = !std::mem::replace(&mut self.looked, true);
        for root in &mut self.roots {
            changed |= root.look(now);
        }
        let confirmed = self.confirmed();
        if changed || confirmed {
            self.publish(now);
        }
        changed || confirmed
    }

    /// Whether somebody lets go what is held.
    fn confirmed(&mut self) -> bool {
        let asked = self.confirm.take();
        if self.hold.loss().is_none() {
            return false;
        }
        let touched = markers(&self.roots).iter().zip(&self.markers).any(|(now, then)| now.is_some() && now != then);
        let confirmed = (asked || touched) && self.hold.release();
        if confirmed {
            tracing::info!("the loss of intent is confirmed; what was held is let go");
        }
        confirmed
    }

    fn publish(&mut self, now: Instant) {
        // Whoever says something now comes before whoever said it once.
        let files = || self.roots.iter().flat_map(|root| root.files.values());
        let yields = |file: &&ManifestFile| file.yields || file.missing;
        let mut objects: Vec<Object> = files().filter(|f| !yields(f)).flat_map(|f| f.objects.clone()).collect();
        let mut diagnostics: Vec<Diagnostic> = files().flat_map(|file| file.diagnostics.clone()).collect();
        diagnostics.extend(remove_duplicates(&mut objects));
        objects.extend(files().filter(yields).flat_map(|file| file.objects.clone()));
        keep_first(&mut objects);
        let had_loss = self.hold.loss().is_some();
        let held: Vec<Object> = self.hold.take(&objects, now).cloned().collect();
        objects.extend(held);
        let loss = self.hold.loss();
        if loss.is_some() && !had_loss {
            self.markers = markers(&self.roots);
        }
        diagnostics.extend(self.roots.iter().flat_map(|root| root.diagnostics.clone()));
        diagnostics.extend(loss.as_deref().map(|loss| told(loss, &self.roots)));
        diagnostics.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        self.snapshot = Snapshot {
            objects: objects.into(),
            diagnostics: diagnostics.into(),
            generation: self.snapshot.generation + 1,
            state: self.state(),
            held: loss,
        };
    }

    fn state(&self) -> SourceState {
        if self.roots.iter().any(|root| !root.known) {
            return SourceState::Starting;
        }
        let silent = self.roots.iter().find_map(|root| Some((root, root.silent.as_ref()?)));
        match silent {
            Some((root, (silence, since))) => {
                SourceState::Stale { folder: shown(&root.path), silence: silence.clone(), since: *since }
            }
            None => SourceState::Synced,
        }
    }
}

impl Root {
    /// Looks at the folder; says whether anything changed.
    fn look(&mut self, now: Instant) -> bool {
        let scanned = scan(&self.path);
        let listed = scanned.is_ok();
        let (silence, mut diagnostics, mut changed) = match scanned {
            Ok(scan) => {
                let changed = self.take(&scan);
                // What cannot be read makes the whole incomplete.
                let unseen = scan.unseen.first().map(|(path, why)| format!("{}: {why}", path.display()));
                let unread = || self.files.values().find_map(|file| file.unread.clone());
                (unseen.or_else(unread).map(Silence::Unreadable), reports(&self.path, &scan), changed)
            }
            Err(silence) => (Some(silence), Vec::new(), false),
        };
        match &silence {
            None => {
                changed |= !self.known || self.silent.is_some();
                self.known = true;
                self.silent = None;
            }
            Some(silence) => {
                // Of what lies below it each was told by itself.
                if !listed {
                    diagnostics.push(self.tell(silence));
                }
                if self.silent.as_ref().is_none_or(|(before, _)| before != silence) {
                    let since = self.silent.as_ref().map_or(now, |(_, since)| *since);
                    self.silent = Some((silence.clone(), since));
                    changed = true;
                    tracing::warn!(folder = %self.path.display(), "the folder of manifests {silence}; what it said stays in force");
                }
            }
        }
        changed |= self.diagnostics != diagnostics;
        self.diagnostics = diagnostics;
        changed
    }

    /// Takes what is there, and at the second look what is not.
    fn take(&mut self, scan: &Scan) -> bool {
        let mut changed = false;
        for (path, stamp) in &scan.files {
            let file = self.files.entry(path.clone()).or_insert_with(|| {
                changed = true;
                ManifestFile::new(path)
            });
            changed |= file.look(path, *stamp);
        }
        let present: HashSet<&Path> = scan.files.iter().map(|(path, _)| path.as_path()).collect();
        self.files.retain(|path, file| {
            if present.contains(path.as_path()) {
                return true;
            }
            // What cannot be looked at may well be there.
            if scan.unseen.iter().any(|(unseen, _)| path.starts_with(unseen)) {
                return true;
            }
            // A folder with too many files says nothing about those that were not listed.
            if scan.too_many {
                return true;
            }
            changed = true;
            !std::mem::replace(&mut file.missing, true)
        });
        changed
    }

    fn tell(&self, silence: &Silence) -> Diagnostic {
        let (code, mend) = match silence {
            Silence::Unreadable(_) => ("V0201", "let the process read it"),
            Silence::Empty => {
                ("V0202", "put the manifests back; to have none on purpose, leave a file that holds a comment")
            }
            Silence::Vanished => {
                ("V0202", "put it back; to have no manifests on purpose, leave a file that holds a comment")
            }
        };
        let kept: usize = self.files.values().map(|file| file.objects.len()).sum();
        let reason = match self.known {
            true => format!("the folder {silence}; its {kept} objects of before stay in force"),
            false => format!("the folder {silence}, so nothing is known of it yet"),
        };
        Diagnostic::error(code, &Location { file: shown(&self.path), line: 0, column: 0 }, reason, mend)
    }
}

fn reports(root: &Path, scan: &Scan) -> Vec<Diagnostic> {
    let at = |path: &Path| Location { file: shown(path), line: 0, column: 0 };
    let unseen = scan.unseen.iter().map(|(path, why)| {
        let reason = format!("cannot be read: {why}; what it said stays in force");
        Diagnostic::error("V0201", &at(path), reason, "let the process read it, or move it out of the folder")
    });
    let mut all: Vec<Diagnostic> = unseen.collect();
    if scan.too_many {
        let reason = format!("holds more manifests than the {} that are read", scan.files.len());
        all.push(Diagnostic::error("V0206", &at(root), reason, "put several objects into one file"));
    }
    all
}

fn told(loss: &MassLoss, roots: &[Root]) -> Diagnostic {
    let names: Vec<String> = loss.objects.iter().take(5).map(|(kind, name)| format!("{kind} {name}")).collect();
    let more = if loss.objects.len() > names.len() { ", …" } else { "" };
    let reason = format!(
        "{} of {} routes, exports and policies vanished at once and stay in force until that is confirmed: {}{more}",
        loss.objects.len(),
        loss.of,
        names.join(", ")
    );
    let folder = roots.first().map(|root| root.path.join(CONFIRM_FILE)).unwrap_or_default();
    let mend = format!("put them back, or confirm: veer confirm, or touch {}", folder.display());
    Diagnostic::warning("V0205", &Location::default(), reason, mend)
}

fn markers(roots: &[Root]) -> Vec<Option<Stamp>> {
    let stamp = |root: &Root| std::fs::metadata(root.path.join(CONFIRM_FILE)).ok().map(|meta| Stamp::of(&meta));
    roots.iter().map(stamp).collect()
}

fn keep_first(objects: &mut Vec<Object>) {
    let mut seen = HashSet::new();
    objects.retain(|object| seen.insert(object.key()));
}

fn shown(path: &Path) -> Arc<str> {
    path.display().to_string().into()
}
