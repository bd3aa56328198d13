//! Programs that are not ours, as packages of the machine's own distribution.

use std::io::{BufRead, IsTerminal, Write};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::workspace::find_program;

/// Runs as root; see there.
const SCRIPT: &str = include_str!("packages.sh");
/// Asked by Debian's tools before they start a service.
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// Held while packages are installed.
const LOCK: &str = "/run/lock/tenk-test-packages";

/// A package, how to tell that it is there, and why it is wanted.
pub(crate) struct Package {
    name: &'static str,
    is_there: fn() -> bool,
    why: &'static str,
}

/// What the tests start.
pub(crate) const OF_TESTS: &[Package] = &[
    Package {
        name: "redis-server",
        is_there: || find_program("redis-server").is_some(),
        why: "the response cache's shared tier is tested against a real Redis",
    },
    Package {
        name: "nginx",
        is_there: || find_program("nginx").is_some(),
        why: "deploy/nginx is tested with a real nginx in front of two gateways",
    },
    Package {
        name: "prometheus",
        is_there: || find_program("prometheus").is_some() && find_program("promtool").is_some(),
        why: "dashboards and alerts are run against a real Prometheus that scrapes real processes",
    },
    Package {
        name: "python3-venv",
        is_there: has_python,
        why: "OpenAI's own Python client talks to the gateway, in a throw-away environment under target/",
    },
];

/// What the bars measure against, and with.
pub(crate) const OF_BARS: &[Package] = &[
    Package {
        name: "nginx",
        is_there: || find_program("nginx").is_some(),
        why: "it is the floor for a proxy that the gateway is measured against",
    },
    Package {
        name: "wrk",
        is_there: || find_program("wrk").is_some(),
        why: "it loads proxies harder than they load the machine",
    },
    Package {
        name: "python3-venv",
        is_there: has_python,
        why: "llama.cpp's server comes as a Python package, into a throw-away environment in the models' cache",
    },
];

/// What a CUDA toolkit comes with and works with.
pub(crate) const OF_CUDA: &[Package] = &[
    Package {
        name: "g++",
        is_there: || find_program("g++").is_some(),
        why: "the CUDA compiler leaves what is not for the GPU to it",
    },
    Package {
        name: "python3-venv",
        is_there: has_python,
        why: "the CUDA compiler comes as Python packages, into a throw-away environment under target/",
    },
];

fn has_python() -> bool {
    Command::new("python3")
        .args(["-c", "import ensurepip, venv"])
        .output()
        .is_ok_and(|output| output.status.success())
}

/// Installs what is missing; says first what and why, and asks unless `unattended`.
pub(crate) fn install_missing(wanted: &[Package], unattended: bool) -> Result<()> {
    let missing: Vec<&Package> = wanted.iter().filter(|package| !(package.is_there)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("xtask: packages are needed that this machine lacks:");
    for package in &missing {
        println!("  {:<14} {}", package.name, package.why);
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    let by_hand =
        "install them by hand (the names are Debian's); `cargo xtask test --fast` and single bars do without";
    ensure!(find_program("apt-get").is_some(), "there is no apt-get here; {by_hand}");
    let mut command = as_root().with_context(|| by_hand.to_owned())?;
    println!("apt-get would install them as root; none of their services is started or enabled.");
    if !unattended {
        ensure!(agreed()?, "nothing was installed; {by_hand}");
    }
    let status = command.args(["-c", SCRIPT, "sh", POLICY, LOCK]).args(&names).status()?;
    ensure!(status.success(), "apt-get failed; {by_hand}");
    if let Some(still) = missing.iter().find(|package| !(package.is_there)()) {
        bail!("{} was installed but is not found; look at PATH", still.name);
    }
    Ok(())
}

/// Whether nobody is there to be asked.
pub(crate) fn is_unattended() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

/// A shell with root's rights.
fn as_root() -> Result<Command> {
    let id = Command::new("id").arg("-u").output().context("`id` did not start")?;
    if id.stdout.trim_ascii() == b"0" {
        return Ok(Command::new("sh"));
    }
    ensure!(find_program("sudo").is_some(), "installing needs root, and there is no sudo here");
    let mut command = Command::new("sudo");
    command.arg("sh");
    Ok(command)
}

fn agreed() -> Result<bool> {
    let input = std::io::stdin();
    ensure!(input.is_terminal(), "there is no terminal to ask on; run with --yes to install");
    print!("Go on? [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    input.lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

#[cfg(test)]
mod tests;
