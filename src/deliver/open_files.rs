//! The open files of the process and their limit, from which the budgets of sockets and lookups are derived.

/// Returns the soft limit on open files. A program may raise it before it builds a client; a library only reads it.
#[cfg(feature = "client")]
pub(super) fn soft_limit() -> usize {
    #[cfg(unix)]
    let files = rlimit::getrlimit(rlimit::Resource::NOFILE).map_or(USUAL, |(soft, _)| soft);
    // Windows limits sockets by memory only.
    #[cfg(not(unix))]
    let files = 16 * USUAL;
    usize::try_from(files).unwrap_or(usize::MAX)
}

/// The soft limit of most Linux systems, which programs that use `select` need.
#[cfg(feature = "client")]
const USUAL: u64 = 1024;

/// How many files the process has open, and how many it may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenFiles {
    pub(crate) open: usize,
    pub(crate) limit: usize,
}

impl OpenFiles {
    /// The files of this process now, on Linux; `None` elsewhere, and without the feature `client`, whose sockets most of them
    /// are.
    pub(crate) fn now() -> Option<Self> {
        #[cfg(all(feature = "client", target_os = "linux"))]
        {
            Some(Self {
                open: count()?,
                limit: soft_limit(),
            })
        }
        #[cfg(not(all(feature = "client", target_os = "linux")))]
        None
    }
}

/// Too many open files: `EMFILE` of `errno(3)` on Linux.
#[cfg(all(feature = "client", target_os = "linux"))]
const EMFILE: i32 = 24;

/// Linux 6.2 and later have the number in the size of the folder, which costs the same for any number of files.
#[cfg(all(feature = "client", target_os = "linux"))]
fn count() -> Option<usize> {
    const FOLDER: &str = "/proc/self/fd";
    let known = std::fs::metadata(FOLDER).ok()?.len();
    if known > 0 {
        return usize::try_from(known).ok();
    }
    match std::fs::read_dir(FOLDER) {
        // Reading the folder takes one itself.
        Ok(files) => Some(files.count().saturating_sub(1)),
        // There is none left to read it with.
        Err(error) if error.raw_os_error() == Some(EMFILE) => Some(soft_limit()),
        Err(_) => None,
    }
}

#[cfg(test)]
#[cfg(all(feature = "client", target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_opened_are_counted() {
        // Other tests open and close some meanwhile.
        let is_counted = || {
            let before = OpenFiles::now().unwrap();
            let opened: Vec<_> = (0..200)
                .map_while(|_| std::fs::File::open("/dev/null").ok())
                .collect();
            let after = OpenFiles::now().unwrap();
            assert_eq!(opened.len(), 200);
            assert!(after.open < after.limit, "{after:?}");
            let more = after.open.saturating_sub(before.open);
            (195..205).contains(&more)
        };
        assert!((0..20).any(|_| is_counted()));
    }
}
