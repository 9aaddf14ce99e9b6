//! Which certificate was issued to which Workload.
//!
//! Several Workloads may share one identity (a service account), so a certificate alone does not say which of them holds it.
//! The record binds the *key* of each certificate to its Workload at issuance. It is an append-only file: one line per
//! certificate, compacted when it is opened. A record that was lost only loosens the binding to the identity itself.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::files;
use crate::tokens::Subject;

/// Below this many lines the file is not worth compacting.
const COMPACT_FROM: usize = 256;

/// The record of issued certificates.
#[derive(Debug)]
pub struct IssuedRecord {
    path: PathBuf,
    by_key: HashMap<String, Line>,
    /// Lines in the file; compacted when most of them are dead.
    lines: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Line {
    key: String,
    subject: Subject,
    not_after: SystemTime,
}

impl IssuedRecord {
    /// Opens the record and drops what has expired. Lines that cannot be read (a crash in the middle of one) are skipped.
    pub fn open(path: PathBuf, now: SystemTime) -> (Self, Option<io::Error>) {
        let (text, mut fault) = match fs::read_to_string(&path) {
            Ok(text) => (text, None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (String::new(), None),
            Err(error) => (String::new(), Some(error)),
        };
        let mut by_key = HashMap::new();
        for line in text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok()) {
            if line.not_after > now {
                by_key.insert(line.key.clone(), line);
            }
        }
        let mut record = Self { path, by_key, lines: 0 };
        if fault.is_none() {
            fault = record.compact().err();
        }
        (record, fault)
    }

    /// Writes down that the key's certificate is the subject's.
    ///
    /// # Errors
    /// When it cannot be written; the certificate must not be handed out then.
    pub fn record(&mut self, key: &str, subject: &Subject, not_after: SystemTime, now: SystemTime) -> io::Result<()> {
        let line = Line { key: key.to_owned(), subject: subject.clone(), not_after };
        append(&self.path, &line)?;
        self.lines += 1;
        self.by_key.insert(key.to_owned(), line);
        if self.lines > COMPACT_FROM && self.lines > 2 * self.by_key.len() {
            self.by_key.retain(|_, line| line.not_after > now);
            self.compact()?;
        } else if self.lines.is_multiple_of(64) {
            self.by_key.retain(|_, line| line.not_after > now);
        }
        Ok(())
    }

    /// Whose certificate has this key.
    pub fn subject(&self, key: &str) -> Option<&Subject> {
        self.by_key.get(key).map(|line| &line.subject)
    }

    fn compact(&mut self) -> io::Result<()> {
        let mut lines: Vec<&Line> = self.by_key.values().collect();
        lines.sort_by(|a, b| a.key.cmp(&b.key));
        let mut content = Vec::new();
        for line in &lines {
            serde_json::to_writer(&mut content, line)?;
            content.push(b'\n');
        }
        self.lines = lines.len();
        files::write(&self.path, &content)
    }
}

fn append(path: &Path, line: &Line) -> io::Result<()> {
    let mut content = serde_json::to_vec(line)?;
    content.push(b'\n');
    let mut file = fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    file.write_all(&content)?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use veer_core::ObjectName;

    use super::*;

    #[test]
    fn the_record_survives_restarts_and_torn_lines_and_forgets_the_expired() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("issued.jsonl");
        let t = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let day = Duration::from_secs(86_400);
        let web = Subject::Workload(ObjectName::new("shop", "web-1"));
        let (mut record, _) = IssuedRecord::open(path.clone(), t);
        record.record("aa", &web, t + day, t).unwrap();
        record.record("bb", &Subject::Gateway("g1".into()), t + day * 2, t).unwrap();
        fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"key\":\"cc\",").unwrap();

        let (record, fault) = IssuedRecord::open(path.clone(), t);
        assert!(fault.is_none());
        assert_eq!(record.subject("aa"), Some(&web));
        assert_eq!(record.subject("cc"), None);
        let (record, _) = IssuedRecord::open(path.clone(), t + day);
        assert_eq!(record.subject("aa"), None);
        assert_eq!(record.subject("bb"), Some(&Subject::Gateway("g1".into())));
        assert_eq!(fs::read_to_string(path).unwrap().lines().count(), 1);
    }

    #[test]
    fn renewals_do_not_grow_the_record_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("issued.jsonl");
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let subject = Subject::Gateway("g".into());
        let (mut record, _) = IssuedRecord::open(path.clone(), start);
        for n in 0..400_u64 {
            let now = start + Duration::from_secs(n * 60);
            record.record(&format!("{n:04}"), &subject, now + Duration::from_secs(3600), now).unwrap();
        }
        assert!(fs::read_to_string(path).unwrap().lines().count() < 300);
        assert!(record.by_key.len() < 200);
    }
}
