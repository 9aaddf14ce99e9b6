//! What processes hold: descriptors and memory, before and after.

use std::collections::BTreeMap;

use veer_testkit::Fleet;

use crate::world::CLUSTERS;

/// More descriptors than before that are no leak: connections come and go.
const MORE_DESCRIPTORS: usize = 40;
/// More resident KiB than before that are no leak: rooms for the most that was ever under way.
const MORE_KIB: usize = 24 * 1024;

/// What one process holds.
#[derive(Debug, Clone, Copy)]
pub struct Vital {
    descriptors: usize,
    resident_kib: usize,
}

/// Every process of the fleet, by `cluster/process`.
pub type Vitals = BTreeMap<String, Vital>;

/// Looks at all of them.
///
/// # Errors
/// When it is not known what runs, or something of it does not.
pub fn vitals(fleet: &Fleet) -> anyhow::Result<Vitals> {
    let mut all = Vitals::new();
    for cluster in CLUSTERS {
        for (process, pid) in fleet.processes(cluster)? {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
            let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let resident_kib = resident.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0);
            let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count();
            all.insert(format!("{cluster}/{process}"), Vital { descriptors, resident_kib });
        }
    }
    Ok(all)
}

/// What has grown more than it may, and what does not run any more.
pub fn leaks(before: &Vitals, after: &Vitals) -> Vec<String> {
    let grown = |name: &String, old: &Vital| match after.get(name) {
        None => Some(format!("{name} does not run")),
        Some(new)
            if new.descriptors > old.descriptors + MORE_DESCRIPTORS
                || new.resident_kib > old.resident_kib + MORE_KIB =>
        {
            Some(format!("{name} grew from {old:?} to {new:?}"))
        }
        Some(_) => None,
    };
    before.iter().filter_map(|(name, old)| grown(name, old)).collect()
}
