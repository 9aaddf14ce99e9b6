//! What is wrong with a manifest, and where.

use std::fmt;
use std::sync::Arc;

/// A place in a file. Lines and columns count from 1; columns count characters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location {
    /// The file as it was named to [`parse`](crate::parse).
    pub file: Arc<str>,
    /// Line.
    pub line: u32,
    /// Column.
    pub column: u32,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// Its document is not used.
    Error,
    /// It is used, and probably does not do what was meant.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        })
    }
}

/// One fault. Codes are stable and listed in `docs/user-guide/diagnostics.md`: `V0001` to `V0099` are faults of one file,
/// `V01…` of the objects of one cluster together, `V02…` of sources, `V03…` of what objects mean together with peers. Shown as
/// `file:line:column: severity[code] reason`, then the mend on a line of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Stable code.
    pub code: &'static str,
    /// The file; empty when no file is to blame.
    pub file: Arc<str>,
    /// Line from 1; 0 when the file as a whole is meant.
    pub line: u32,
    /// Column from 1, in characters.
    pub column: u32,
    /// What is wrong.
    pub reason: String,
    /// What would be right.
    pub mend: String,
}

impl Diagnostic {
    /// A fault at a place.
    pub fn new(severity: Severity, code: &'static str, at: &Location, reason: String, mend: String) -> Self {
        Self { severity, code, file: Arc::clone(&at.file), line: at.line, column: at.column, reason, mend }
    }

    /// An error at a place.
    pub fn error(code: &'static str, at: &Location, reason: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, at, reason.into(), mend.into())
    }

    /// A warning at a place.
    pub fn warning(code: &'static str, at: &Location, reason: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, at, reason.into(), mend.into())
    }

    /// Whether its document is not used.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// The place.
    pub fn location(&self) -> Location {
        Location { file: Arc::clone(&self.file), line: self.line, column: self.column }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            f.write_str(&self.file)?;
            if self.line != 0 {
                write!(f, ":{}:{}", self.line, self.column)?;
            }
            f.write_str(": ")?;
        }
        write!(f, "{}[{}] {}", self.severity, self.code, self.reason)?;
        if !self.mend.is_empty() {
            write!(f, "\n  mend: {}", self.mend)?;
        }
        Ok(())
    }
}
