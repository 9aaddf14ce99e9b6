//! Tables of the documentation name the tests that prove them: each of these exists.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Documents whose code spans of the form `module::function` name tests.
const TABLES: &[&str] = &["http.md", "attacks.md", "security.md"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Names of all test functions below a folder, each as `file::function` and `parent::function`.
fn tests(folder: &Path, found: &mut BTreeSet<String>) {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            tests(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let file = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let parent = path.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
            for function in functions(&text) {
                found.insert(format!("{file}::{function}"));
                found.insert(format!("{parent}::{function}"));
            }
        }
    }
}

/// Functions that an attribute marks as tests, and those of `proptest!`.
fn functions(text: &str) -> impl Iterator<Item = &str> {
    let mut marked = false;
    text.lines().filter_map(move |line| {
        let line = line.trim();
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            marked = true;
            return None;
        }
        let name = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn "))?;
        std::mem::take(&mut marked).then(|| name.split(['(', '<']).next().unwrap_or_default())
    })
}

/// What stands in backquotes and looks like the name of a test.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let spans = text.split('`').skip(1).step_by(2);
    spans.filter(|span| {
        span.split_once("::").is_some_and(|(module, name)| {
            [module, name]
                .iter()
                .all(|part| part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'))
        })
    })
}

#[test]
fn every_test_that_a_table_names_exists() {
    let mut known = BTreeSet::new();
    tests(&root().join("crates"), &mut known);
    for table in TABLES {
        let path = root().join("docs").join(table);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let missing: Vec<_> = named(&text).filter(|name| !known.contains(*name)).collect();
        assert!(missing.is_empty(), "docs/{table} names tests that do not exist: {missing:#?}");
        assert!(named(&text).count() > 5, "docs/{table} names hardly any test");
    }
}
