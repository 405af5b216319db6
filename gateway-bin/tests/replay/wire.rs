//! HTTP/1.1 as it stands: what is sent is what the test wrote, and nothing is normalised.
use std::{io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::Notify,
};

/// No exchange of a test takes longer.
const DEADLINE: Duration = Duration::from_secs(20);

/// A connection to the gateway.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// One response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends bytes, and reads until the other side closes. Once it has said that it will, this side has no more to say: an
/// Envoy that answered before it had read everything waits for that. A connection that is reset or cut off ends like one that is
/// closed: what came before counts.
///
/// # Errors
/// The other side leaves the connection open past the deadline.
pub(crate) async fn exchange(wire: &mut dyn Wire, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut received = Vec::new();
    let answered = Notify::new();
    let (mut reading, mut writing) = tokio::io::split(wire);
    let write = async {
        // A gateway that has read enough may close before all is sent.
        let sent = writing.write_all(bytes).await;
        if sent.is_ok() {
            drop(writing.flush().await);
        }
        answered.notified().await;
        drop(writing.shutdown().await);
    };
    let read = async {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = reading.read(&mut buffer).await {
            received.extend_from_slice(&buffer[..count]);
            let replies = replies(&received, false).unwrap_or_default();
            if replies.last().is_some_and(|last| last.header("connection") == Some("close")) {
                answered.notify_one();
            }
        }
        answered.notify_one();
    };
    match tokio::time::timeout(DEADLINE, async { tokio::join!(write, read) }).await {
        Ok(((), ())) => Ok(received),
        Err(_) => {
            Err(io::Error::new(io::ErrorKind::TimedOut, String::from_utf8_lossy(&received).into_owned()))
        }
    }
}

/// Reads all responses of a connection that was closed; interim ones (1xx) are passed over. Those to a HEAD have no body.
///
/// # Errors
/// Bytes that are no response, or not a whole one.
pub(crate) fn replies(mut bytes: &[u8], to_head: bool) -> Result<Vec<Reply>, String> {
    let mut replies = Vec::new();
    while !bytes.is_empty() {
        let (reply, rest) = reply(bytes, to_head)
            .ok_or_else(|| format!("not a whole response: {:?}", String::from_utf8_lossy(bytes)))?;
        bytes = rest;
        if reply.status >= 200 {
            replies.push(reply);
        }
    }
    Ok(replies)
}

fn reply(bytes: &[u8], to_head: bool) -> Option<(Reply, &[u8])> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut rest = &bytes[end + 4..];
    let mut lines = head.split("\r\n");
    let status: u16 = lines.next()?.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
    let headers = lines
        .map(|line| {
            line.split_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        })
        .collect::<Option<Vec<_>>>()?;
    let mut reply = Reply { status, headers, body: Vec::new() };
    if to_head || status < 200 || status == 204 || status == 304 {
        return Some((reply, rest));
    }
    if reply.header("transfer-encoding").is_some() {
        loop {
            let line = rest.windows(2).position(|window| window == b"\r\n")?;
            let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).ok()?, 16).ok()?;
            rest = &rest[line + 2..];
            reply.body.extend_from_slice(rest.get(..size)?);
            rest = rest.get(size + 2..)?;
            if size == 0 {
                return Some((reply, rest));
            }
        }
    }
    let length = match reply.header("content-length") {
        Some(length) => length.parse().ok()?,
        None => rest.len(),
    };
    reply.body = rest.get(..length)?.to_vec();
    Some((reply, &rest[length..]))
}
