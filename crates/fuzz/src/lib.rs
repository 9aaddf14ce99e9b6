//! Everything of Veer that reads bytes of strangers, as functions that any bytes may be given to. They panic when a promise is broken,
//! and only then.
//!
//! The same functions run under coverage guidance (`fuzz/`, cargo-fuzz, which needs a nightly compiler) and over the committed corpora
//! with a bounded number of mutations in every run of the tests (`tests/corpus.rs`).

mod http;
mod mesh;

/// A name, which is also that of its corpus, and what to do with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All there are.
pub const TARGETS: &[Target] = &[
    ("http1_request", http::request),
    ("http1_response", http::response),
    ("http1_chunks", http::chunks),
    ("hpack", http::hpack),
    ("http2_server", http::server),
    ("http2_client", http::client),
    ("client_hello", mesh::client_hello),
    ("proxy_protocol", mesh::proxy_protocol),
    ("server_name", mesh::server_name),
    ("manifest", mesh::manifest),
    ("delta_ads", mesh::delta_ads),
    ("offer", mesh::offer),
];

/// Runs one target.
///
/// # Panics
/// When there is none of that name, or when a promise is broken.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    let (_, run) = target.unwrap_or_else(|| panic!("no target is called {name}"));
    run(bytes);
}
