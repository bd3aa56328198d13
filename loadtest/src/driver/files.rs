//! Each connection is an open file, and systems start with few.

/// What is open besides connections.
const OTHER_FILES: u64 = 64;

/// Raises this process's limit of open files for so many connections, as far as the system lets it. What does not
/// suffice shows as requests without a connection.
#[cfg(target_os = "linux")]
pub(super) fn allow_connections(connections: u32) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};

    let wanted = u64::from(connections) + OTHER_FILES;
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < wanted
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard), hard);
    }
}

/// Elsewhere the limit stays as it is.
#[cfg(not(target_os = "linux"))]
pub(super) const fn allow_connections(_connections: u32) {}
