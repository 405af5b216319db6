//! Programs that run beside this one and end with the value that stands for them.
use std::{
    collections::VecDeque,
    net::Ipv4Addr,
    ops::Range,
    process::Stdio,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::{Child, Command},
    sync::watch,
    task::JoinSet,
};

const FIRST_LINES: usize = 1000;
const LAST_LINES: usize = 40;

/// A program that keeps running. It is killed, by its id, when this value is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    output: Arc<Output>,
    /// Ends with what it prints.
    reading: JoinSet<()>,
}

impl Process {
    /// Starts it; what it prints is read, so that it never waits for us.
    pub(crate) fn start(name: &str, command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{name} cannot be started"))?;
        let output = Arc::new(Output::default());
        let mut reading = JoinSet::new();
        reading.spawn(read(child.stdout.take().context("no pipe")?, Arc::clone(&output)));
        reading.spawn(read(child.stderr.take().context("no pipe")?, Arc::clone(&output)));
        Ok(Self { name: name.to_owned(), child, output, reading })
    }

    /// Waits until the probe succeeds.
    pub(crate) async fn until_ready(
        &mut self,
        within: Duration,
        mut probe: impl AsyncFnMut() -> bool,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + within;
        while !probe().await {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended early: {status}\n{}", self.name, self.last_lines());
            }
            ensure!(
                Instant::now() < deadline,
                "{} is not ready after {} s\n{}",
                self.name,
                within.as_secs(),
                self.last_lines()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Waits for a line that begins so; gives its rest. Only the first thousand lines are looked at.
    pub(crate) async fn line(&mut self, prefix: &str, within: Duration) -> anyhow::Result<String> {
        let mut changed = self.output.changed.subscribe();
        let found = tokio::time::timeout(within, async {
            loop {
                if let Some(rest) = self.output.find(prefix) {
                    return Some(rest);
                }
                tokio::select! {
                    changed = changed.changed() => changed.ok()?,
                    // What it printed last is perhaps not read yet.
                    _ = self.child.wait() => break,
                }
            }
            while self.reading.join_next().await.is_some() {}
            self.output.find(prefix)
        })
        .await;
        match found {
            Ok(Some(rest)) => Ok(rest),
            _ => bail!("{} did not print `{prefix}`\n{}", self.name, self.last_lines()),
        }
    }

    /// How many of its first thousand lines begin so.
    pub(crate) fn count(&self, prefix: &str) -> usize {
        self.output.count(|line| line.starts_with(prefix))
    }

    /// How many of its first thousand lines hold this text.
    pub(crate) fn count_holding(&self, text: &str) -> usize {
        self.output.count(|line| line.contains(text))
    }

    /// What follows in those of its first thousand lines that begin so.
    pub(crate) fn rests(&self, prefix: &str) -> Vec<String> {
        self.output.rests(prefix)
    }

    /// Waits until it ends by itself; whether it then says that all went well.
    pub(crate) async fn ended(&mut self, within: Duration) -> anyhow::Result<bool> {
        let status = tokio::time::timeout(within, self.child.wait())
            .await
            .with_context(|| format!("{} is not done after {} s", self.name, within.as_secs()))??;
        Ok(status.success())
    }

    /// Kills it and waits until it is gone.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        self.child.kill().await.with_context(|| format!("{} cannot be ended", self.name))
    }

    /// Stops it, so that it holds its connections and says nothing. It can still be killed.
    pub(crate) async fn suspend(&self) -> anyhow::Result<()> {
        let id = self.child.id().with_context(|| format!("{} has ended", self.name))?;
        succeed(
            "kill -STOP",
            Command::new("sh").args(["-c", &format!("kill -STOP {id}")]),
            Duration::from_secs(5),
        )
        .await
    }

    /// Fails if it ended by itself.
    pub(crate) fn still_runs(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended: {status}\n{}", self.name, self.last_lines()),
        }
    }

    /// User and system time so far.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let id = self.child.id().with_context(|| format!("{} has ended", self.name))?;
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).context("no /proc")?;
        cpu_of(&stat)
    }

    /// Resident memory, in KiB.
    pub(crate) fn rss_kib(&self) -> anyhow::Result<u64> {
        let id = self.child.id().with_context(|| format!("{} has ended", self.name))?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).context("no /proc")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    pub(crate) fn last_lines(&self) -> String {
        self.output.last_lines()
    }
}

/// Runs a program to its end within a time; gives what it printed on standard output, whatever its exit status.
pub(crate) async fn finish(
    name: &str,
    command: &mut Command,
    within: Duration,
) -> anyhow::Result<std::process::Output> {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("{name} cannot be started"))?;
    tokio::time::timeout(within, child.wait_with_output())
        .await
        .with_context(|| format!("{name} is not done after {} s", within.as_secs()))?
        .with_context(|| format!("{name} cannot be waited for"))
}

/// As [`finish`], and an error if it fails.
pub(crate) async fn succeed(name: &str, command: &mut Command, within: Duration) -> anyhow::Result<()> {
    let output = finish(name, command, within).await?;
    ensure!(output.status.success(), "{name} failed: {}\n{}", output.status, shown(&output));
    Ok(())
}

/// The end of what a program printed.
pub(crate) fn shown(output: &std::process::Output) -> String {
    let lines = [&output.stdout, &output.stderr].map(|bytes| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let skip = text.lines().count().saturating_sub(LAST_LINES);
        text.lines().skip(skip).map(|line| format!("    | {line}\n")).collect::<String>()
    });
    lines.concat()
}

/// User and system time in the text of `/proc/PID/stat`.
pub(crate) fn cpu_of(stat: &str) -> anyhow::Result<Duration> {
    // Fields are counted from behind the command's name, which may hold spaces.
    let (_, fields) = stat.rsplit_once(')').context("unreadable /proc/PID/stat")?;
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse().unwrap_or(0u64)).sum();
    // Linux reports in units of USER_HZ, which is 100 on every architecture that Rust knows.
    Ok(Duration::from_millis(ticks * 10))
}

/// Below the ports that Linux gives to outgoing connections.
const PORTS: Range<u16> = 12_000..32_000;

/// A port of loopback that was free a moment ago, and that no outgoing connection takes meanwhile.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let count = u32::from(PORTS.end - PORTS.start);
    // Runs at the same time begin at different ones.
    let begin = std::process::id().wrapping_mul(97) % count;
    for _ in PORTS {
        let at = (begin + NEXT.fetch_add(1, Ordering::Relaxed) % count) % count;
        let port = PORTS.start + u16::try_from(at)?;
        if std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port of loopback from {} to {} is free", PORTS.start, PORTS.end)
}

/// Whether something accepts connections there.
pub(crate) async fn accepts(address: std::net::SocketAddr) -> bool {
    tokio::net::TcpStream::connect(address).await.is_ok()
}

/// What a process printed: the first lines and the last.
#[derive(Debug, Default)]
struct Output {
    lines: Mutex<(Vec<String>, VecDeque<String>)>,
    changed: watch::Sender<()>,
}

impl Output {
    fn push(&self, line: String) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, last) = &mut *lines;
        if first.len() < FIRST_LINES {
            first.push(line.clone());
        }
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        last.push_back(line);
        drop(lines);
        self.changed.send_replace(());
    }

    fn find(&self, prefix: &str) -> Option<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.0.iter().find_map(|line| line.strip_prefix(prefix)).map(str::to_owned)
    }

    fn rests(&self, prefix: &str) -> Vec<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.0.iter().filter_map(|line| line.strip_prefix(prefix)).map(str::to_owned).collect()
    }

    fn count(&self, mut is_meant: impl FnMut(&str) -> bool) -> usize {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.0.iter().filter(|line| is_meant(line)).count()
    }

    fn last_lines(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.1.iter().map(|line| format!("    | {line}\n")).collect()
    }
}

async fn read(pipe: impl AsyncRead + Unpin, output: Arc<Output>) {
    let mut lines = BufReader::new(pipe).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        output.push(String::from_utf8_lossy(&line).into_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn sh(script: &str) -> Process {
        Process::start("sh", Command::new("sh").args(["-c", script])).unwrap()
    }

    #[tokio::test]
    async fn lines_and_ends() {
        let mut process = sh("echo one; echo two words; exit 3");
        assert_eq!(process.line("two", SOON).await.unwrap(), " words");
        assert!(process.line("three", SOON).await.is_err());
        assert!(!process.ended(SOON).await.unwrap());
        assert!(process.still_runs().is_err());
        assert_eq!((process.count("one"), process.count("three")), (1, 0));
        assert_eq!((process.count_holding("ne"), process.rests("o")), (1, vec!["ne".to_owned()]));
    }

    #[tokio::test]
    async fn a_dropped_process_is_gone() {
        let mut process = sh("echo up; exec sleep 60");
        process.line("up", SOON).await.unwrap();
        process.still_runs().unwrap();
        let running = std::path::PathBuf::from(format!("/proc/{}/exe", process.child.id().unwrap()));
        assert!(running.exists());
        drop(process);
        let deadline = Instant::now() + SOON;
        // What is not waited for yet is there, but runs nothing.
        while running.exists() {
            assert!(Instant::now() < deadline, "it still runs");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_program_has_its_time() {
        let mut sleep = Command::new("sleep");
        assert!(finish("sleep", sleep.arg("60"), Duration::from_millis(10)).await.is_err());
        assert!(succeed("false", &mut Command::new("false"), SOON).await.is_err());
        assert!(succeed("true", &mut Command::new("true"), SOON).await.is_ok());
    }
}
