//! What manifests mean, told as tables of manifests and meanings.

mod backend_tls;
mod consent;
mod endpoints;
mod external;
mod gateways;
mod incremental;
mod owners;
mod policies;
mod routes;
mod support;
