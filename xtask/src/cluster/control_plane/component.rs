//! A process of the control plane, with its log.
use std::{
    fs::OpenOptions,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use tokio::process::{Child, Command};

const LAST_LINES: usize = 20;

/// A process that keeps running and appends what it prints to `NAME.log`. It is killed when this value is dropped.
#[derive(Debug)]
pub(crate) struct Component {
    name: &'static str,
    log: PathBuf,
    child: Child,
}

impl Component {
    pub(crate) fn start(name: &'static str, dir: &Path, mut command: Command) -> anyhow::Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let file = OpenOptions::new().create(true).append(true).open(&log);
        let file = file.with_context(|| format!("`{}` cannot be written", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{name} cannot be started"))?;
        Ok(Self { name, log, child })
    }

    /// Waits until the probe succeeds.
    pub(crate) async fn until(
        &mut self,
        within: Duration,
        mut probe: impl AsyncFnMut() -> bool,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + within;
        while !probe().await {
            self.still_runs()?;
            ensure!(
                Instant::now() < deadline,
                "{} is not ready after {} s; its log ends\n{}",
                self.name,
                within.as_secs(),
                self.last_lines()
            );
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        Ok(())
    }

    /// Fails if it has ended by itself.
    pub(crate) fn still_runs(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended: {status}; its log ends\n{}", self.name, self.last_lines()),
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().await.with_context(|| format!("{} cannot be ended", self.name))
    }

    fn last_lines(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let skip = log.lines().count().saturating_sub(LAST_LINES);
        log.lines().skip(skip).map(|line| format!("    | {line}\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(dir: &Path, script: &str) -> Component {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Component::start("sh", dir, command).unwrap()
    }

    #[tokio::test]
    async fn an_early_end_is_told_with_the_end_of_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut component = sh(dir.path(), "seq 1 30; echo no such flag >&2; exit 3");
        let error = component.until(Duration::from_secs(10), async || false).await.unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("no such flag"), "{error}");
        assert!(error.contains("| 30\n") && !error.contains("| 11\n"), "{error}");
    }

    #[tokio::test]
    async fn what_does_not_get_ready_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut component = sh(dir.path(), "exec sleep 60");
        component.until(Duration::ZERO, async || true).await.unwrap();
        let error = component.until(Duration::ZERO, async || false).await.unwrap_err().to_string();
        assert!(error.contains("sh is not ready after 0 s"), "{error}");
        component.kill().await.unwrap();
        assert!(component.still_runs().is_err());
    }
}
