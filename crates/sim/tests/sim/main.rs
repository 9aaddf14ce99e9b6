//! Whole fleets on a simulated network: the real control planes, gateways and proxies, virtual time, chance from a seed.

mod control;
mod crossing;
mod partition;
mod repeat;
