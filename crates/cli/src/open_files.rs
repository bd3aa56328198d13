//! Each connection is an open file, and systems start programs with few.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::voice::Voice;

/// What is open besides clients' connections: the model, logs, and connections to workers and to Redis.
const OTHER_FILES: u64 = 512;

/// Raises this process's limit of open files to what the system lets it have, and says so where that is too little.
pub(crate) fn allow(connections: usize, voice: Voice) {
    let wanted = connections as u64 + OTHER_FILES;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let raised = soft == hard || setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    let allowed = if raised { hard } else { soft };
    if allowed < wanted {
        voice.warn(&format!(
            "the system allows this process {allowed} open files, but {connections} connections take {wanted}; raise \
             the limit (`ulimit -Hn`) or lower `connections_max`"
        ));
    }
}
