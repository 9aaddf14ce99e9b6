//! One file: what it said last, and whether what it says now is believed yet.

use std::collections::HashSet;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use veer_resources::{Diagnostic, Location, MAX_FILE_BYTES, Object, parse_bytes};

use crate::scan::Stamp;

/// Looks after a change at which the content is read although the stamp stayed: two writes may share one time stamp.
const HOT_LOOKS: u8 = 5;

/// A manifest file.
#[derive(Debug)]
pub(crate) struct ManifestFile {
    /// Its path as it is shown.
    shown: Arc<str>,
    stamp: Option<Stamp>,
    hot: u8,
    /// Hash of the content that was last believed or refused.
    content: Option<u64>,
    /// Hash of a content that deletes objects, seen once.
    doubted: Option<u64>,
    /// Whether [`Self::objects`] came from a content without errors.
    clean: bool,
    /// Its objects in force.
    pub objects: Vec<Object>,
    /// Its objects are what it said before: whoever else says something about them now is right.
    pub yields: bool,
    /// What is wrong with it.
    pub diagnostics: Vec<Diagnostic>,
    /// It was not there at the last look.
    pub missing: bool,
    /// It is there and could not be read, for this reason.
    pub unread: Option<String>,
}

impl ManifestFile {
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            shown: path.display().to_string().into(),
            stamp: None,
            hot: 0,
            content: None,
            doubted: None,
            clean: false,
            objects: Vec::new(),
            yields: false,
            diagnostics: Vec::new(),
            missing: false,
            unread: None,
        }
    }

    /// Looks at the file; says whether anything changed.
    pub(crate) fn look(&mut self, path: &Path, stamp: Stamp) -> bool {
        let returned = std::mem::take(&mut self.missing);
        let moved = self.stamp != Some(stamp);
        if !moved && self.hot == 0 {
            return returned;
        }
        self.hot = if moved { HOT_LOOKS } else { self.hot - 1 };
        self.stamp = Some(stamp);
        self.unread = None;
        let bytes = match read(path) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.unread = Some(format!("{}: {error}", self.shown));
                // Tried again at every look: its stamp does not tell when it can be read.
                self.stamp = None;
                return self.silent("V0203", &format!("cannot be read: {error}"), "make it readable") || returned;
            }
        };
        let hash = hash(&bytes);
        if self.content == Some(hash) {
            self.doubted = None;
            return returned;
        }
        if bytes.is_empty() && !self.objects.is_empty() {
            let mend = "write it again, or remove the file to delete its objects";
            return self.silent("V0204", "has no bytes", mend) || returned;
        }
        let (objects, diagnostics) = parse_bytes(&self.shown, &bytes);
        if diagnostics.iter().any(Diagnostic::is_error) {
            self.content = Some(hash);
            self.doubted = None;
            self.faulty(objects, diagnostics);
            return true;
        }
        let deletes = {
            let said: HashSet<_> = objects.iter().map(Object::key).collect();
            self.objects.iter().any(|object| !said.contains(&object.key()))
        };
        if deletes && self.doubted != Some(hash) {
            self.doubted = Some(hash);
            self.hot = HOT_LOOKS;
            let changed = !self.yields;
            self.yields = true;
            return changed || returned;
        }
        *self = Self {
            shown: Arc::clone(&self.shown),
            stamp: self.stamp,
            hot: self.hot,
            content: Some(hash),
            clean: true,
            objects,
            diagnostics,
            ..Self::new(path)
        };
        true
    }

    /// Nothing can be known about the file now; what it said stays. Says whether that is news.
    fn silent(&mut self, code: &'static str, reason: &str, mend: &str) -> bool {
        self.content = None;
        self.doubted = None;
        let reason = match self.objects.len() {
            0 => reason.to_owned(),
            kept => format!("{reason}; its {kept} objects of before stay in force"),
        };
        let told = vec![Diagnostic::error(code, &self.whole(), reason, mend)];
        let news = self.diagnostics != told;
        self.diagnostics = told;
        news
    }

    /// The file has errors. What is absent from it is no statement.
    fn faulty(&mut self, objects: Vec<Object>, diagnostics: Vec<Diagnostic>) {
        self.diagnostics = diagnostics;
        if self.clean {
            if !self.objects.is_empty() {
                let reason = format!("has errors; its {} objects of before stay in force", self.objects.len());
                let kept = Diagnostic::warning("V0204", &self.whole(), reason, "mend the errors");
                self.diagnostics.push(kept);
            }
            self.yields = true;
            return;
        }
        // It never was without errors: what can be read of it is better than nothing.
        let said: HashSet<_> = objects.iter().map(Object::key).collect();
        self.objects.retain(|object| !said.contains(&object.key()));
        self.objects.extend(objects);
    }

    fn whole(&self) -> Location {
        Location { file: Arc::clone(&self.shown), line: 0, column: 0 }
    }
}

/// One byte more than is allowed is enough to be refused as too large.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}
