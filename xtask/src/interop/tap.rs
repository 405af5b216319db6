//! A tap before a server that does not record by itself: what was sent to it.
use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// It passes everything on, as long as this value lives.
#[derive(Debug)]
pub(crate) struct Tap {
    pub(crate) address: SocketAddr,
    sent: Arc<Mutex<Vec<u8>>>,
    task: JoinHandle<()>,
}

impl Tap {
    pub(crate) async fn start(server: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let sent = Arc::default();
        let record = Arc::clone(&sent);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let record = Arc::clone(&record);
                // Either end may go at any time.
                tokio::spawn(async move { drop(relay(client, server, &record).await) });
            }
        });
        Ok(Self { address, sent, task })
    }

    /// How many bytes were sent to the server.
    pub(crate) fn bytes(&self) -> usize {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// How many requests of HTTP/1.1 for this path were sent to the server.
    pub(crate) fn requests(&self, path: &str) -> usize {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let line = format!(" {path} HTTP/1.1\r\n");
        sent.windows(line.len()).filter(|window| *window == line.as_bytes()).count()
    }

    /// Whether a message that was sent to the server names this tool, resource or prompt.
    pub(crate) fn saw(&self, name: &str) -> bool {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        names(&sent, name)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether there is a member `name` of this value, however it is spaced.
fn names(sent: &[u8], name: &str) -> bool {
    let text: Vec<u8> = sent.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let member = format!("\"name\":\"{name}\"");
    text.windows(member.len()).any(|window| window == member.as_bytes())
}

async fn relay(client: TcpStream, server: SocketAddr, record: &Mutex<Vec<u8>>) -> io::Result<()> {
    let server = TcpStream::connect(server).await?;
    server.set_nodelay(true)?;
    client.set_nodelay(true)?;
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let up = async {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let count = from_client.read(&mut buffer).await?;
            let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
                return to_server.shutdown().await;
            };
            record.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            to_server.write_all(bytes).await?;
        }
    };
    let down = async {
        tokio::io::copy(&mut from_server, &mut to_client).await?;
        to_client.shutdown().await
    };
    tokio::try_join!(up, down).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_however_they_are_spaced() {
        for (sent, expected) in [
            (&br#"{"params":{"name":"echo"}}"#[..], true),
            (b"{\"params\" : { \"name\" :\n \"echo\" } }", true),
            (br#"{"params":{"name":"echoes"}}"#, false),
            (br#"{"name":"get-sum","arguments":{"message":"echo"}}"#, false),
            (b"", false),
        ] {
            assert_eq!(names(sent, "echo"), expected, "{}", String::from_utf8_lossy(sent));
        }
    }

    #[tokio::test]
    async fn everything_is_passed_on_and_remembered() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tap = Tap::start(listener.local_addr().unwrap()).await.unwrap();
        let mut client = TcpStream::connect(tap.address).await.unwrap();
        client.write_all(b"POST /mcp HTTP/1.1\r\n\r\n\"name\": \"echo\"").await.unwrap();
        client.shutdown().await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let mut text = String::new();
        server.read_to_string(&mut text).await.unwrap();
        assert_eq!((text.len(), tap.bytes(), tap.saw("echo")), (36, 36, true));
        assert_eq!((tap.requests("/mcp"), tap.requests("/")), (1, 0));
        server.write_all(b"answer").await.unwrap();
        drop(server);
        text.clear();
        client.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "answer");
    }
}
