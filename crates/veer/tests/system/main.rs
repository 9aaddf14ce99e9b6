//! System tests: the real binary, real processes and sockets, foreign clients and servers. `scripts/test system` runs them.

mod bad_input;
mod balance;
mod bytes;
mod capture;
mod edge;
mod explain;
mod fleet_folder;
mod foreign;
mod front;
mod identity;
mod ingress;
mod interop;
mod lint;
mod observability;
mod peering;
mod requests;
mod routes;
mod support;
