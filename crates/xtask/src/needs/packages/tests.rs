use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use super::*;

/// A machine in a folder: its policy, and an `apt-get` that is a script of the test's.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    fn new(apt_get: &str) -> Self {
        let machine = Self { folder: tempfile::tempdir().expect("a folder") };
        machine.set_apt_get(apt_get);
        machine.write_program("systemctl", "exit 0");
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write_program(&self, name: &str, body: &str) {
        let path = self.path(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("makes it a program");
    }

    /// `body` runs for `apt-get install`; `$POLICY` is the policy.
    fn set_apt_get(&self, body: &str) {
        let policy = self.path("policy-rc.d");
        self.write_program(
            "apt-get",
            &format!("[ \"$1\" = install ] || exit 0\nPOLICY={}\n{body}", policy.display()),
        );
    }

    fn install(&self) -> Output {
        Command::new("sh")
            .args(["-c", SCRIPT, "sh"])
            .args([self.path("policy-rc.d"), self.path("lock")])
            .args(["redis-server", "nginx"])
            .env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.folder.path().display()))
            .output()
            .expect("sh starts")
    }

    /// What Debian's tools would be told now.
    fn policy_says(&self) -> Option<i32> {
        let policy = self.path("policy-rc.d");
        policy
            .exists()
            .then(|| Command::new(policy).args(["nginx", "start"]).status().expect("starts").code())?
    }

    fn left(&self) -> Vec<String> {
        let names = fs::read_dir(self.folder.path())
            .expect("lists")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
        let mut names: Vec<String> = names.filter(|name| name.starts_with("policy")).collect();
        names.sort();
        names
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("readable")
}

/// Notes what the policy says while packages are installed.
const ASK: &str = "code=0; $POLICY nginx start || code=$?; echo \"$code $*\" > $POLICY.asked";

#[test]
fn no_service_may_start_while_packages_are_installed_and_nothing_is_left_behind() {
    let machine = Machine::new(ASK);
    assert!(machine.install().status.success());
    let asked = read(&machine.path("policy-rc.d.asked"));
    assert_eq!(asked, "101 install --yes --no-install-recommends redis-server nginx\n");
    assert_eq!(machine.left(), ["policy-rc.d.asked"]);
}

#[test]
fn the_machines_own_policy_is_put_back_as_it_was_even_when_apt_fails() {
    let machine = Machine::new(&format!("{ASK}; exit 100"));
    machine.write_program("policy-rc.d", "exit 0");
    let before = read(&machine.path("policy-rc.d"));
    assert_eq!(machine.install().status.code(), Some(100));
    assert!(read(&machine.path("policy-rc.d.asked")).starts_with("101 "));
    assert_eq!(read(&machine.path("policy-rc.d")), before);
    assert_eq!(machine.left(), ["policy-rc.d", "policy-rc.d.asked"]);
}

#[test]
fn a_policy_that_says_no_already_is_not_touched() {
    let machine = Machine::new("cp $POLICY $POLICY.asked");
    machine.write_program("policy-rc.d", "exit 101");
    assert!(machine.install().status.success());
    assert_eq!(read(&machine.path("policy-rc.d.asked")), "#!/bin/sh\nexit 101\n");
    assert_eq!(machine.left(), ["policy-rc.d", "policy-rc.d.asked"]);
}

#[test]
fn a_killed_run_leaves_services_free_to_start_and_the_next_run_cleans_up() {
    for own_policy in [None, Some("exit 0"), Some("exit 104")] {
        let machine = Machine::new("kill -9 $PPID");
        if let Some(body) = own_policy {
            machine.write_program("policy-rc.d", body);
        }
        let before = machine.policy_says();
        assert_eq!(machine.install().status.code(), None, "killed by a signal");
        assert!(read(&machine.path("policy-rc.d")).contains("tenk:"), "ours was left");
        assert_eq!(machine.policy_says(), before.or(Some(0)));

        machine.set_apt_get(ASK);
        assert!(machine.install().status.success());
        assert!(read(&machine.path("policy-rc.d.asked")).starts_with("101 "));
        assert_eq!(machine.policy_says(), before);
        assert!(!machine.path("policy-rc.d.before-tenk").exists());
    }
}

#[test]
fn every_package_says_why_it_is_wanted() {
    for package in OF_TESTS.iter().chain(OF_BARS) {
        assert!(package.why.len() > 20 && !package.why.ends_with('.'), "{}", package.name);
    }
}
