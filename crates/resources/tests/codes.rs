//! The page of codes lists every code that is made, and no other.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn codes_in(text: &str, before: &str, after: &str) -> BTreeSet<String> {
    text.match_indices(before)
        .map(|(at, _)| &text[at + before.len()..])
        .filter(|rest| rest.len() > 5 && rest.starts_with('V') && rest[1..5].bytes().all(|b| b.is_ascii_digit()))
        .filter(|rest| rest[5..].starts_with(after))
        .map(|rest| rest[..5].to_owned())
        .collect()
}

fn sources(folder: &Path, out: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            out.extend(codes_in(&fs::read_to_string(path).unwrap(), "\"", "\""));
        }
    }
}

#[test]
fn the_page_lists_every_code_and_no_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut made = BTreeSet::new();
    for name in ["resources", "source", "compile", "control", "veer"] {
        sources(&root.join("crates").join(name).join("src"), &mut made);
    }
    let page = fs::read_to_string(root.join("docs/user-guide/diagnostics.md")).unwrap();
    let listed = codes_in(&page, "\n| ", " |");
    assert!(listed.len() > 40);
    assert_eq!(made.difference(&listed).collect::<Vec<_>>(), Vec::<&String>::new(), "made and not listed");
    assert_eq!(listed.difference(&made).collect::<Vec<_>>(), Vec::<&String>::new(), "listed and not made");
}
