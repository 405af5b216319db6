//! `cargo xtask chroot`: both programs linked statically, and run in an empty root directory, as an image FROM scratch has it.
use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use crate::{
    command::{cargo, run, succeeds, target_folder},
    interop::process::free_port,
};

/// The images' user.
const USER: &str = "65532:65532";
/// How long the gateway may take to be ready, or to end.
const PATIENCE: Duration = Duration::from_secs(20);
/// A Gateway that needs no backend: it answers by itself.
const MANIFESTS: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: kube-agentic-networking}
spec: {controllerName: sigs.k8s.io/kube-agentic-networking-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front, namespace: default}
spec:
  gatewayClassName: kube-agentic-networking
  listeners: [{name: http, protocol: HTTP, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: elsewhere, namespace: default}
spec:
  parentRefs: [{name: front}]
  rules:
  - filters:
    - type: RequestRedirect
      requestRedirect: {hostname: example.org}
";

/// `chroot`
#[derive(Debug, Args)]
pub(crate) struct ChrootArgs {
    /// Build as for a release, which takes long
    #[arg(long)]
    release: bool,
}

pub(crate) fn chroot(args: &ChrootArgs) -> anyhow::Result<()> {
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    run(Command::new("rustup").args(["target", "add", &target]))?;
    let folder = tempfile::tempdir()?;
    // Whoever runs in there has to get in.
    let root = folder.path().join("root");
    std::fs::create_dir(&root)?;
    for (package, more) in [("agentic-gateway", &["--no-default-features"][..]), ("agentic-controller", &[])]
    {
        std::fs::copy(build(&target, package, more, args.release)?, root.join(package))?;
    }
    std::fs::write(root.join("manifests.yaml"), MANIFESTS)?;
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;

    let version = |package: &str| format!("{package} {}\n", env!("CARGO_PKG_VERSION"));
    for package in ["agentic-gateway", "agentic-controller"] {
        let said = said(&root, &[&format!("/{package}"), "--version"])?;
        ensure!(said == version(package), "{package} --version: {said}");
    }
    let checked = said(&root, &["/agentic-gateway", "check", "/manifests.yaml"])?;
    ensure!(checked.contains("Accepted"), "check: {checked}");
    let installed = said(&root, &["/agentic-controller", "install"])?;
    ensure!(installed.contains("\nkind: Deployment\n"), "install printed {} bytes", installed.len());
    let pool = said(&root, &["/agentic-controller", "make-ca"])?;
    ensure!(pool.contains("ca-pool.json"), "make-ca printed {} bytes", pool.len());
    serves(&root)?;
    println!("both programs run in an empty root directory");
    Ok(())
}

fn build(target: &str, package: &str, more: &[&str], release: bool) -> anyhow::Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--locked", "--target", target, "-p", package]).args(more);
    if release {
        command.arg("--release");
    }
    // Where musl's own is not installed, the machine's C compiler does: ring's C needs nothing of a C library.
    if !succeeds(Command::new("musl-gcc").arg("--version")) {
        command.env(format!("CC_{}", target.replace('-', "_")), "cc");
    }
    run(&mut command)?;
    let profile = if release { "release" } else { "debug" };
    Ok(target_folder().join(target).join(profile).join(package))
}

/// A command in the root directory: as nobody in particular where this is root's process, else in a user namespace.
fn command(root: &Path, words: &[&str]) -> Command {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let mut command = if is_root {
        let mut command = Command::new("chroot");
        command.arg(format!("--userspec={USER}"));
        command
    } else {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "chroot"]);
        command
    };
    command.arg(root).args(words).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

fn said(root: &Path, words: &[&str]) -> anyhow::Result<String> {
    eprintln!("+ chroot ROOT {}", words.join(" "));
    let output =
        command(root, words).stderr(Stdio::inherit()).output().context("chroot cannot be started")?;
    ensure!(output.status.success(), "{}: {}", words.join(" "), output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// The gateway becomes ready, answers, and ends when it is asked to.
fn serves(root: &Path) -> anyhow::Result<()> {
    let (listener, admin) = (free_port()?, free_port()?);
    let (listen, admin_addr) =
        (format!("--listen=80=127.0.0.1:{listener}"), format!("--admin-addr=127.0.0.1:{admin}"));
    let words = [
        "/agentic-gateway",
        "run",
        "--manifests",
        "/manifests.yaml",
        &listen,
        &admin_addr,
        "--drain-timeout=1s",
    ];
    eprintln!("+ chroot ROOT {}", words.join(" "));
    let mut gateway = Running(command(root, &words).stdout(Stdio::null()).spawn()?);
    let deadline = Instant::now() + PATIENCE;
    while !get(admin, "/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
        if let Some(status) = gateway.0.try_wait()? {
            bail!("the gateway ended: {status}");
        }
        ensure!(Instant::now() < deadline, "the gateway is not ready after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let answer = get(listener, "/")?;
    ensure!(
        answer.starts_with("HTTP/1.1 302") && answer.contains("http://example.org"),
        "not the route's redirect: {answer}"
    );
    run(Command::new("kill").args(["-TERM", &gateway.0.id().to_string()]))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match gateway.0.try_wait()? {
            Some(status) => {
                ensure!(status.success(), "the gateway ended with {status}");
                return Ok(());
            }
            None => ensure!(Instant::now() < deadline, "the gateway does not end"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// An answer to a GET, whole.
fn get(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// A process that ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already, where all went well.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
