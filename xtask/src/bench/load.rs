//! A closed-loop load of one fixed request over keep-alive connections.
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

/// What one load showed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Figures {
    pub(super) requests: usize,
    pub(super) per_second: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) cpu_us: f64,
}

impl Figures {
    /// Each figure's median over the rounds.
    pub(super) fn median(rounds: &[Self]) -> Self {
        let middle = |figure: fn(&Self) -> f64| {
            let mut values: Vec<f64> = rounds.iter().map(figure).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or_default()
        };
        Self {
            requests: rounds.iter().map(|round| round.requests).sum(),
            per_second: middle(|round| round.per_second),
            p50_us: middle(|round| round.p50_us),
            p99_us: middle(|round| round.p99_us),
            cpu_us: middle(|round| round.cpu_us),
        }
    }
}

/// A `tools/call` of about 300 bytes, as an agent sends it.
fn request(address: SocketAddr) -> Vec<u8> {
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get-sum","arguments":{"a":2,"b":3,"note":"an argument of a usual length, so that the whole message comes to about three hundred bytes of JSON, as agents send it"},"_meta":{"progressToken":"b8f5c6de-1f04-4a4f-9c4e-3c8f0b6a7d11"}}}"#;
    format!(
        "POST /mcp HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2025-11-25\r\n\
         User-Agent: bench\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

pub(super) async fn load(address: SocketAddr, connections: usize, time: Duration) -> anyhow::Result<Figures> {
    let request: std::sync::Arc<[u8]> = request(address).into();
    let begin = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..connections {
        let request = request.clone();
        clients.spawn(async move { client(address, &request, begin + time).await });
    }
    let mut latencies = Vec::new();
    while let Some(client) = clients.join_next().await {
        latencies.extend(client??);
    }
    let took = begin.elapsed();
    latencies.sort_unstable();
    let at = |part: usize| {
        let index = (latencies.len() * part / 100).min(latencies.len().saturating_sub(1));
        latencies.get(index).map_or(0.0, |latency: &Duration| latency.as_secs_f64() * 1e6)
    };
    Ok(Figures {
        requests: latencies.len(),
        per_second: latencies.len() as f64 / took.as_secs_f64(),
        p50_us: at(50),
        p99_us: at(99),
        cpu_us: 0.0,
    })
}

async fn client(address: SocketAddr, request: &[u8], end: Instant) -> anyhow::Result<Vec<Duration>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut latencies = Vec::with_capacity(100_000);
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let begin = Instant::now();
        if begin >= end {
            return Ok(latencies);
        }
        stream.write_all(request).await?;
        let mut filled = 0;
        while !is_whole(buffer.get(..filled).unwrap_or_default())? {
            let read = stream.read(buffer.get_mut(filled..).context("an answer over 16 KiB")?).await?;
            ensure!(read > 0, "the connection was closed");
            filled += read;
        }
        latencies.push(begin.elapsed());
    }
}

/// Whether these bytes are a whole 200 answer.
fn is_whole(bytes: &[u8]) -> anyhow::Result<bool> {
    let text = std::str::from_utf8(bytes)?;
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return Ok(false) };
    ensure!(head.starts_with("HTTP/1.1 200 "), "not a 200: `{head}`");
    let length: usize = head
        .lines()
        .find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
        })
        .context("no Content-Length")?;
    ensure!(!body.contains("\"error\""), "an error: `{body}`");
    Ok(body.len() >= length)
}
