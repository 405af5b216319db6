//! Namespaces of the cluster's own.
use std::{
    env, fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

/// Set inside, for this program only: what it starts is to be removed of it.
const MARKER: &str = "AGENTIC_GATEWAY_CLUSTER_NAMESPACES";

/// Memory that only the namespaces have; it is gone when they are.
pub(crate) const MEMORY: &str = "/run";

/// Address of the bridge, which is the node's.
pub(crate) const NODE_ADDRESS: &str = "10.244.0.1";

const PREPARE: &str = include_str!("namespaces.sh");

const NEW: [&str; 7] = [
    "--net",
    "--mount",
    "--propagation=private",
    "--pid",
    "--fork",
    // When `unshare` ends, so does the first process inside, and with it all others.
    "--kill-child=KILL",
    "--mount-proc",
];

/// Whether this process already runs inside.
pub(crate) fn inside() -> bool {
    env::var_os(MARKER).is_some()
}

/// A command that does not take itself to be inside, though it is: a `cargo xtask` in it makes namespaces of its own.
pub(crate) fn unmarked(command: &mut Command) -> &mut Command {
    command.env_remove(MARKER)
}

/// Runs this program again with `args` inside new network, mount and process namespaces, with loopback up and a bridge
/// `br0` (10.244.0.1/16), and a private `/etc/hosts` and `/run`. Returns when it ends; an error if it failed. When this
/// process is killed, everything inside ends too.
///
/// # Errors
/// If a program that this needs is missing, the system does not let this user make namespaces, or what runs inside failed.
pub(crate) fn enter(args: &[String]) -> anyhow::Result<()> {
    for (program, package) in
        [("unshare", "util-linux"), ("setpriv", "util-linux"), ("mount", "mount"), ("ip", "iproute2")]
    {
        if !on_path(program) {
            bail!("`{program}` is needed: install the package {package}");
        }
    }
    let mut unshare = unshare()?;
    unshare.args(["sh", "-c", PREPARE, "sh"]);
    unshare.arg(env::current_exe().context("this program's own file")?).args(args).env(MARKER, "1");
    // In this thread: the kernel looks at the thread that is the parent.
    let status = unshare.status().context("`setpriv` cannot be started")?;
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => bail!("what ran in the cluster's namespaces failed (exit status {code})"),
        None => bail!("what ran in the cluster's namespaces was ended: {status}"),
    }
}

/// `unshare` with its flags, ending with this process: as this user if that is root, else (or where root may not) as root
/// of a user namespace.
fn unshare() -> anyhow::Result<Command> {
    let root = fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    let ways: &[&[&str]] = if root { &[&[], &["--map-root-user"]] } else { &[&["--map-root-user"]] };
    let mut refusals = Vec::new();
    for way in ways {
        let probe =
            command(way).arg("true").stdin(Stdio::null()).output().context("`setpriv` cannot be started")?;
        if probe.status.success() {
            return Ok(command(way));
        }
        refusals.push(String::from_utf8_lossy(&probe.stderr).trim().to_owned());
    }
    bail!(
        "the system does not let this user make network, mount and process namespaces ({}): run as root, or allow user \
         namespaces (`sysctl kernel.unprivileged_userns_clone=1`, on Ubuntu `sysctl \
         kernel.apparmor_restrict_unprivileged_userns=0`); in a container, run that with --privileged",
        refusals.join("; ")
    )
}

fn command(way: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare"]).args(way).args(NEW);
    command
}

fn on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(Into::into));
    folders.into_iter().any(|folder| is_file(&folder.join(program)))
}

fn is_file(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file())
}
