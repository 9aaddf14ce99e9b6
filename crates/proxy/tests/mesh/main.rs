//! Real proxies on real sockets of loopback addresses, with a small control plane of the test's own.

mod harness;

mod announced;
mod balance;
mod differential;
mod explain;
mod ext_authz;
mod failure;
mod faults;
mod filters;
mod forward;
mod gateway;
mod hostile;
mod identity;
mod large;
mod policy;
mod semantics;
mod silence;
