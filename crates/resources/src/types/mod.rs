//! The typed form of what manifests say: the fields that Veer acts on, named as upstream names them. Fields that upstream
//! knows and Veer does not act on are accepted in silence; fields that nobody knows are reported.

mod backend_tls;
mod fault;
mod fleet;
mod gateway;
mod hashing;
mod meta;
mod policy;
mod rate;
mod route;
mod service;
mod workload;
mod xbackend;

pub use backend_tls::*;
pub use fault::*;
pub use fleet::*;
pub use gateway::*;
pub use hashing::*;
pub use meta::*;
pub use policy::*;
pub use rate::*;
pub use route::*;
pub use service::*;
pub use workload::*;
pub use xbackend::*;
