//! Each connection is an open file, and systems start programs with few.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::voice::Voice;

/// What is open besides clients' connections: the model, logs, and connections to workers and to Redis.
const OTHER_FILES: u64 = 512;

/// Raises this process's limit of open files for so many connections, as far as the system lets it.
pub(crate) fn allow(connections: usize, voice: Voice) {
    let wanted = connections as u64 + OTHER_FILES;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    if soft >= wanted {
        return;
    }
    if setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard), hard).is_err() || hard < wanted {
        voice.warn(&format!(
            "the system allows this process {hard} open files, but `connections_max` may take {wanted}; raise the limit \
             (`ulimit -Hn`) or lower `connections_max`"
        ));
    }
}
