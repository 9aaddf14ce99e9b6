//! Limits that the system sets for this process.

/// Two descriptors per relay or request, more while bytes are spliced: the soft limit of 1,024 that most systems start with is for
/// programs that use `select`.
pub(crate) fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "the limit on open files stays as it is");
        }
    }
}
