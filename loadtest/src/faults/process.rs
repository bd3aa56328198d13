//! Processes of this machine that may be signalled.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::Error;

/// A process, told from a later one of the same number by when it started.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pid: u32,
    raw: Pid,
    /// In the kernel's ticks since boot; none where the system does not say.
    started: Option<u64>,
}

impl Process {
    /// Looks a process up.
    pub(super) fn find(pid: u32) -> Result<Self, Error> {
        let refuse = |problem: &str| Error::Config(format!("the fault's process {pid} {problem}"));
        let raw = i32::try_from(pid).map_err(|_| refuse("is no process number"))?;
        if pid <= 1 {
            return Err(refuse("is not one to be disturbed; give a server's own number"));
        }
        if pid == std::process::id() {
            return Err(refuse("is the tester itself; give a server's number"));
        }
        let raw = Pid::from_raw(raw);
        // No signal is sent: this asks whether one could be.
        kill(raw, None)
            .map_err(|error| refuse(&format!("cannot be signalled ({error}); is it running, and yours?")))?;
        let owner = |pid: &str| std::fs::metadata(format!("/proc/{pid}")).map(|metadata| metadata.uid()).ok();
        // The superuser may signal anyone's; that is not what this is for.
        if let (Some(theirs), Some(ours)) = (owner(&pid.to_string()), owner("self"))
            && theirs != ours
        {
            return Err(refuse("belongs to another user; faults are for one's own servers"));
        }
        Ok(Self { pid, raw, started: started(pid) })
    }

    pub(super) const fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn kill(&self) -> Result<(), String> {
        self.signal(Signal::SIGKILL)
    }

    pub(super) fn pause(&self) -> Result<(), String> {
        self.signal(Signal::SIGSTOP)
    }

    pub(super) fn resume(&self) -> Result<(), String> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<(), String> {
        if self.started.is_some() && started(self.pid) != self.started {
            return Err("the process has ended".to_owned());
        }
        kill(self.raw, signal).map_err(|error| error.to_string())
    }
}

/// When a process started.
fn started(pid: u32) -> Option<u64> {
    // The name, in parentheses, may hold blanks; the start is the twentieth field after it.
    stat(pid)?.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

fn stat(pid: u32) -> Option<String> {
    std::fs::read_to_string(PathBuf::from(format!("/proc/{pid}/stat"))).ok()
}

/// `R`, `S`, `T` and so on, as the kernel says.
#[cfg(test)]
pub(super) fn state(pid: u32) -> Option<char> {
    stat(pid)?.rsplit_once(')')?.1.trim_start().chars().next()
}
