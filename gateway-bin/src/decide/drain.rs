//! An Envoy in the same Pod ends at once when it is told to, and there is nothing in its image that could do better. So the
//! processor, which is there to the last request anyway, has it end its requests first.
use std::{net::SocketAddr, pin::pin, time::Duration};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::{Method, Request, header::HOST};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::listen::NOTICE;

/// How long one of its answers may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often its requests are counted.
const LOOK: Duration = Duration::from_millis(200);
/// More than its statistics of requests take.
const MAX_ANSWER: usize = 1 << 20;
/// Requests of its listeners, by the prefix that each has.
const ACTIVE: &str = r"/stats?filter=^http\..*downstream_rq_active$";
/// Prefixes of what is no listener of a Gateway's.
const OWN: [&str; 2] = ["http.admin.", "http.probes."];

/// Has the Envoy with this administration address close connections with their next response, waits until it has no open
/// request or the time is over, and ends it.
pub(crate) async fn drain(admin: SocketAddr, within: Duration) {
    let begun = Instant::now();
    if let Err(error) = ask(admin, Method::POST, "/drain_listeners?graceful&skip_exit").await {
        tracing::warn!(%error, "Envoy cannot be told to drain");
        return;
    }
    while begun.elapsed() < within {
        match active(admin).await {
            Ok(0) if begun.elapsed() >= NOTICE => break,
            Ok(_) => sleep(LOOK).await,
            Err(error) => {
                tracing::warn!(%error, "Envoy does not say what it still does");
                return;
            }
        }
    }
    match ask(admin, Method::POST, "/quitquitquit").await {
        Ok(_) => tracing::info!("Envoy was told to end"),
        Err(error) => tracing::warn!(%error, "Envoy cannot be told to end"),
    }
}

/// Its open requests.
async fn active(admin: SocketAddr) -> anyhow::Result<u64> {
    let text = ask(admin, Method::GET, ACTIVE).await?;
    Ok(open_requests(&text))
}

/// The sum of `http.PREFIX.downstream_rq_active: COUNT`, one a line.
fn open_requests(text: &str) -> u64 {
    let of_gateways = text.lines().filter(|line| !OWN.iter().any(|own| line.starts_with(own)));
    of_gateways.filter_map(|line| line.rsplit_once(": ")?.1.trim().parse::<u64>().ok()).sum()
}

async fn ask(admin: SocketAddr, method: Method, path: &str) -> anyhow::Result<String> {
    timeout(PATIENCE, async {
        let stream = TcpStream::connect(admin).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, admin.to_string())
            .body(Empty::<Bytes>::new())?;
        let mut exchange = pin!(async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            ensure!(status.is_success(), "status {status}");
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(anyhow::Error::from_boxed)?.to_bytes();
            Ok(String::from_utf8_lossy(&body).into_owned())
        });
        tokio::select! {
            answer = &mut exchange => answer,
            // Closed by the other side, after what may be a whole answer.
            ended = connection => {
                ended?;
                exchange.await
            }
        }
    })
    .await
    .context("no answer in time")?
    .with_context(|| format!("`{path}`"))
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        sync::mpsc,
    };

    use super::*;

    #[test]
    fn requests_of_gateways_are_counted() {
        let text = "http.admin.downstream_rq_active: 1\nhttp.probes.downstream_rq_active: 2\n\
                    http.listener-443.downstream_rq_active: 3\nhttp.a: b.downstream_rq_active: 4\nnonsense\n";
        assert_eq!(open_requests(text), 7);
        assert_eq!(open_requests(""), 0);
    }

    /// An Envoy that has so many open requests, one fewer each time that it is asked; what it was asked.
    async fn envoy(mut open: u64) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, seen) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 1024];
                let length = stream.read(&mut head).await.unwrap();
                let line = String::from_utf8_lossy(&head[..length]).lines().next().unwrap().to_owned();
                let body = format!("http.g.downstream_rq_active: {open}\n");
                open = if line.contains("stats") { open.saturating_sub(1) } else { open };
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
                asked.send(line).unwrap();
            }
        });
        (address, seen)
    }

    fn all(mut seen: mpsc::UnboundedReceiver<String>) -> Vec<String> {
        std::iter::from_fn(|| seen.try_recv().ok()).collect()
    }

    #[tokio::test]
    async fn it_ends_when_its_requests_have() {
        let (address, seen) = envoy(2).await;
        let begun = Instant::now();
        drain(address, Duration::from_secs(60)).await;
        assert!(begun.elapsed() >= NOTICE, "{:?}", begun.elapsed());
        let seen = all(seen);
        assert_eq!(seen.first().unwrap(), "POST /drain_listeners?graceful&skip_exit HTTP/1.1");
        assert_eq!(seen.last().unwrap(), "POST /quitquitquit HTTP/1.1");
        assert!(seen.iter().filter(|line| line.starts_with("GET /stats")).count() >= 3, "{seen:?}");
    }

    #[tokio::test]
    async fn it_ends_when_the_time_is_over() {
        let (address, seen) = envoy(u64::MAX).await;
        drain(address, Duration::from_millis(300)).await;
        assert_eq!(all(seen).last().unwrap(), "POST /quitquitquit HTTP/1.1");
    }

    #[tokio::test]
    async fn one_that_is_gone_holds_nobody_up() {
        let (address, _) = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            (listener.local_addr().unwrap(), drop(listener))
        };
        let begun = Instant::now();
        drain(address, Duration::from_secs(60)).await;
        assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    }
}
