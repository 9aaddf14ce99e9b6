//! Every corpus file, and mutations of it from a fixed seed, through the same functions that are fuzzed.

use std::path::{Path, PathBuf};

use veer_fuzz::TARGETS;

/// Mutations of each file.
const MUTATIONS: usize = 300;

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files.into_iter().map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect()
}

fn mutate(rng: &mut fastrand::Rng, bytes: &mut Vec<u8>, others: &[(PathBuf, Vec<u8>)]) {
    for _ in 0..rng.usize(1..5) {
        let at = rng.usize(0..=bytes.len());
        match rng.u8(0..6) {
            0 => bytes.insert(at, rng.u8(..)),
            1 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(0..8),
            2 if at < bytes.len() => drop(bytes.remove(at)),
            3 => bytes.truncate(at),
            4 => {
                let end = (at + rng.usize(0..64)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                let to = rng.usize(0..=bytes.len());
                bytes.splice(to..to, copy);
            }
            _ => {
                let other = &others[rng.usize(0..others.len())].1;
                let from = rng.usize(0..=other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
}

#[test]
fn no_corpus_and_no_mutation_breaks_a_promise() {
    let mut rng = fastrand::Rng::with_seed(20_261_121);
    for (name, run) in TARGETS {
        let files = corpus(name);
        for (path, bytes) in &files {
            // Says which file it was when it panics.
            println!("{name}: {}", path.display());
            run(bytes);
            for _ in 0..MUTATIONS {
                let mut mutated = bytes.clone();
                mutate(&mut rng, &mut mutated, &files);
                println!("  {}", mutated.escape_ascii());
                run(&mutated);
            }
        }
    }
}

#[test]
fn every_target_has_its_program() {
    for (name, _) in TARGETS {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/fuzz_targets").join(format!("{name}.rs"));
        let text = std::fs::read_to_string(&program).unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        assert!(text.contains(&format!("\"{name}\"")), "{}", program.display());
    }
}
