//! A log on a disk that is full: the line is lost, and nothing else.

use veer_telemetry::logging::{LogFormat, init};

fn main() {
    init(None, "info", LogFormat::Text).expect("nobody logs yet");
    let full = std::fs::File::options().write(true).open("/dev/full").expect("Linux has it");
    rustix::stdio::dup2_stderr(full).expect("standard error is ours");
    // A panic here would end this program with 101, without a word.
    tracing::info!("nobody can read this");
}
