//! The limit on open files, from which the budgets of sockets and lookups are derived.

/// Returns the soft limit on open files. A program may raise it before it builds a client; a library only reads it.
pub(super) fn soft_limit() -> usize {
    #[cfg(unix)]
    let files = rlimit::getrlimit(rlimit::Resource::NOFILE).map_or(USUAL, |(soft, _)| soft);
    // Windows limits sockets by memory only.
    #[cfg(not(unix))]
    let files = 16 * USUAL;
    usize::try_from(files).unwrap_or(usize::MAX)
}

/// The soft limit of most Linux systems, which programs that use `select` need.
const USUAL: u64 = 1024;
