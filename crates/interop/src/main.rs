//! The interoperability cases of gRPC with Rust's tonic: `veer-interop server ADDRESS:PORT`, or
//! `veer-interop client ADDRESS:PORT AUTHORITY`, which prints one line for each case, `CASE pass` or `CASE FAIL why`.
//!
//! hyper drives the connections, as elsewhere in this workspace; messages, statuses, deadlines and metadata are tonic's.

mod client;
mod messages;
mod server;

use anyhow::bail;
use tonic::codec::{CompressionEncoding, EnabledCompressionEncodings};

/// Echoed among the fields of an answer.
const INITIAL: &str = "x-grpc-test-echo-initial";
/// Echoed among its trailers.
const TRAILING: &str = "x-grpc-test-echo-trailing-bin";

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["server", address] => server::serve(address.parse()?).await,
        ["client", address, authority] => client::run(address.parse()?, authority).await,
        _ => bail!("usage: veer-interop server ADDRESS:PORT | client ADDRESS:PORT AUTHORITY"),
    }
}

fn gzip() -> EnabledCompressionEncodings {
    let mut gzip = EnabledCompressionEncodings::default();
    gzip.enable(CompressionEncoding::Gzip);
    gzip
}
