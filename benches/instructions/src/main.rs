//! What single steps of a request take, in instructions: run by `benches/instructions/check` under valgrind.
//!
//! `veer-instructions CASE COUNT` does one step so many times; without arguments it names the cases. Instructions of one are the
//! difference between two counts, so that what is prepared does not count.

#[path = "../../../crates/bench/src/choice.rs"]
mod choice;
mod http;
mod steps;

use anyhow::Context as _;

/// Does a step so many times.
type Case = fn(usize) -> anyhow::Result<()>;

/// Add a step here, and run `benches/instructions/check --bless`.
const CASES: &[(&str, Case)] = &[
    ("balance-pick", steps::pick),
    ("route-path", steps::path),
    ("route-find", steps::find),
    ("http1-read-request", http::read_request),
    ("http1-read-response", http::read_response),
    ("http1-write-request", http::write_request),
    ("hpack-decode", http::decode),
    ("hpack-encode", http::encode),
    ("http2-exchange", http::exchange),
];

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [name, count] = &words[..] else {
        CASES.iter().for_each(|(name, _)| println!("{name}"));
        return Ok(());
    };
    let (_, case) = CASES.iter().find(|(known, _)| known == name).with_context(|| format!("no case {name}"))?;
    case(count.parse()?)
}
