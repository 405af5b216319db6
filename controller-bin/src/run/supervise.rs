//! Tasks that the process cannot do without: one that ends ends the process, with its reason.
use std::{future::Future, time::Duration};

use anyhow::{Context as _, anyhow};
use tokio::{sync::watch, task::JoinSet};

/// How long the tasks may take to end when the process is asked to.
const GRACE: Duration = Duration::from_secs(10);

/// Supervised tasks.
#[derive(Debug, Default)]
pub(super) struct Supervised {
    tasks: JoinSet<(&'static str, anyhow::Result<()>)>,
}

impl Supervised {
    pub(super) fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.tasks.spawn(async move { (name, task.await) });
    }

    /// Runs until `asked` completes: then `stop` turns true, and tasks that give something up have a moment for it.
    pub(super) async fn run_until(
        mut self,
        asked: impl Future<Output = anyhow::Result<()>>,
        stop: &watch::Sender<bool>,
    ) -> anyhow::Result<()> {
        tokio::select! {
            asked = asked => asked?,
            ended = self.tasks.join_next() => return Err(reason(ended)),
        }
        tracing::info!("asked to end");
        stop.send_replace(true);
        // Tasks that watch `stop` end by themselves; the others have nothing to lose.
        let deadline = tokio::time::Instant::now() + GRACE;
        let mut left: usize = STOPPING.len();
        while left > 0 {
            match tokio::time::timeout_at(deadline, self.tasks.join_next()).await {
                Ok(Some(Ok((name, result)))) => {
                    result.with_context(|| format!("the task `{name}` failed at the end"))?;
                    left -= usize::from(STOPPING.contains(&name));
                }
                Ok(Some(Err(error))) => return Err(anyhow!("a task failed at the end: {error}")),
                Ok(None) | Err(_) => break,
            }
        }
        Ok(())
    }
}

/// The tasks that watch `stop`.
const STOPPING: [&str; 2] = ["leases", "discovery"];

fn reason(
    ended: Option<Result<(&'static str, anyhow::Result<()>), tokio::task::JoinError>>,
) -> anyhow::Error {
    match ended {
        Some(Ok((name, Ok(())))) => anyhow!("the task `{name}` ended, which it never should"),
        Some(Ok((name, Err(error)))) => error.context(format!("the task `{name}` failed")),
        Some(Err(error)) => anyhow!("a task failed: {error}"),
        None => anyhow!("there are no tasks"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn end_of(tasks: Supervised) -> String {
        let stop = watch::Sender::new(false);
        format!("{:#}", tasks.run_until(std::future::pending(), &stop).await.unwrap_err())
    }

    #[tokio::test]
    async fn a_task_that_ends_ends_the_process() {
        let mut tasks = Supervised::default();
        tasks.spawn("one", async { Ok(()) });
        tasks.spawn("other", std::future::pending());
        assert_eq!(end_of(tasks).await, "the task `one` ended, which it never should");

        let mut tasks = Supervised::default();
        tasks.spawn("one", async { Err(anyhow!("no sockets")) });
        assert_eq!(end_of(tasks).await, "the task `one` failed: no sockets");

        let mut tasks = Supervised::default();
        tasks.spawn("one", async { std::panic::panic_any("oh") });
        assert!(end_of(tasks).await.starts_with("a task failed: "));
    }

    #[tokio::test]
    async fn asked_to_end_it_waits_for_those_that_give_something_up() {
        let stop = watch::Sender::new(false);
        let mut tasks = Supervised::default();
        for name in STOPPING {
            let mut told = stop.subscribe();
            tasks.spawn(name, async move {
                told.wait_for(|stop| *stop).await?;
                Ok(())
            });
        }
        tasks.spawn("other", std::future::pending());
        assert!(tasks.run_until(async { Ok(()) }, &stop).await.is_ok());
    }
}
