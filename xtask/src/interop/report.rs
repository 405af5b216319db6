//! What was tried, how long it took, and what came of it.
use std::time::{Duration, Instant};

/// Counts steps and prints each as it ends.
#[derive(Debug)]
pub(crate) struct Report {
    began: Instant,
    passed: usize,
    failed: usize,
    not_run: usize,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), passed: 0, failed: 0, not_run: 0 }
    }

    /// A heading.
    pub(crate) fn suite(&self, name: &str) {
        println!("\n== {name} ({:.0} s)", self.began.elapsed().as_secs_f64());
    }

    /// Runs a step; `None` if it failed, which is printed and counted. A step that takes longer than `limit` failed.
    pub(crate) async fn step<T>(
        &mut self,
        name: &str,
        limit: Duration,
        step: impl Future<Output = anyhow::Result<T>>,
    ) -> Option<T> {
        let began = Instant::now();
        let result = match tokio::time::timeout(limit, step).await {
            Ok(result) => result,
            Err(_) => Err(anyhow::anyhow!("not done after {} s", limit.as_secs())),
        };
        match result {
            Ok(value) => {
                self.passed(name, began.elapsed());
                Some(value)
            }
            Err(error) => {
                self.failed(name, began.elapsed(), &error);
                None
            }
        }
    }

    pub(crate) fn passed(&mut self, name: &str, took: Duration) {
        self.passed += 1;
        println!("ok      {name} ({:.2} s)", took.as_secs_f64());
    }

    pub(crate) fn failed(&mut self, name: &str, took: Duration, error: &anyhow::Error) {
        self.failed += 1;
        println!("FAILED  {name} ({:.2} s): {error:#}", took.as_secs_f64());
    }

    /// A step that cannot be done here.
    pub(crate) fn not_run(&mut self, name: &str, why: &str) {
        self.not_run += 1;
        println!("NOT RUN {name}: {why}");
    }

    /// A figure that belongs to the step before it.
    pub(crate) fn note(&self, text: &str) {
        println!("        {text}");
    }

    /// The last line; an error if a step failed, or if there was none.
    pub(crate) fn end(self) -> anyhow::Result<()> {
        let not_run = if self.not_run == 0 { String::new() } else { format!(", {} not run", self.not_run) };
        println!(
            "\n{} passed, {} failed{not_run} ({:.0} s)",
            self.passed,
            self.failed,
            self.began.elapsed().as_secs_f64()
        );
        anyhow::ensure!(self.failed == 0, "{} steps failed", self.failed);
        anyhow::ensure!(self.passed > 0, "nothing was run");
        Ok(())
    }
}
