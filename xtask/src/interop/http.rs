//! Plain requests, over one connection each caller holds: HTTP/1.1, with or without TLS; HTTP/2 where TLS offers nothing else.
use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, Response, header::HOST};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{net::TcpStream, task::JoinHandle};
use tokio_rustls::TlsConnector;

/// Where to connect, and how.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    name: String,
}

impl Target {
    pub(crate) fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None, name: LOCALHOST.to_owned() }
    }

    /// Over TLS, to a server whose certificate is for `localhost`.
    pub(crate) fn tls(address: SocketAddr, config: Arc<ClientConfig>) -> Self {
        Self { address, tls: Some(config), name: LOCALHOST.to_owned() }
    }

    /// A server of another name, which the handshake and the requests say.
    #[must_use]
    pub(crate) fn named(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }
}

const LOCALHOST: &str = "localhost";

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: Sender,
    host: String,
    port: u16,
    task: JoinHandle<()>,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    pub(crate) async fn open(target: &Target) -> anyhow::Result<Self> {
        // What handshakes need is large, and many wait for one.
        Box::pin(Self::connect(target)).await
    }

    async fn connect(target: &Target) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(target.address).await.context("cannot connect")?;
        stream.set_nodelay(true)?;
        let host = target.name.clone();
        let (sender, task) = match &target.tls {
            None => handshake(stream).await?,
            Some(config) => {
                let name = ServerName::try_from(host.clone())?;
                let stream =
                    TlsConnector::from(Arc::clone(config)).connect(name, stream).await.context("TLS")?;
                if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                    let (sender, connection) =
                        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
                    (Sender::Http2(sender), tokio::spawn(async move { drop(connection.await) }))
                } else {
                    handshake(stream).await?
                }
            }
        };
        let mut connection = Self { sender, host: String::new(), port: target.address.port(), task };
        connection.is_for(&host);
        Ok(connection)
    }

    /// Whom further requests on it are for, whatever its handshake named.
    pub(crate) fn is_for(&mut self, host: &str) {
        self.host = format!("{host}:{}", self.port);
    }

    /// Sends a request; its Host is filled in.
    pub(crate) async fn send(
        &mut self,
        mut request: Request<Full<Bytes>>,
    ) -> anyhow::Result<Response<Incoming>> {
        match &mut self.sender {
            Sender::Http1(sender) => {
                request.headers_mut().insert(HOST, self.host.parse()?);
                sender.ready().await.context("the connection is closed")?;
                sender.send_request(request).await.context("no response")
            }
            Sender::Http2(sender) => {
                let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
                *request.uri_mut() = format!("https://{}{path}", self.host).parse()?;
                sender.ready().await.context("the connection is closed")?;
                sender.send_request(request).await.context("no response")
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn handshake<S>(stream: S) -> anyhow::Result<(Sender, JoinHandle<()>)>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Why a connection ended is seen by whoever waits for a response on it.
    let task = tokio::spawn(async move { drop(connection.await) });
    Ok((Sender::Http1(sender), task))
}

/// The status of a GET.
pub(crate) async fn status(target: &Target, path: &str) -> anyhow::Result<u16> {
    let request = Request::get(path).body(Full::default())?;
    Ok(Connection::open(target).await?.send(request).await?.status().as_u16())
}

/// The body of a GET.
pub(crate) async fn text(target: &Target, path: &str) -> anyhow::Result<String> {
    let request = Request::get(path).body(Full::default())?;
    let mut connection = Connection::open(target).await?;
    let body = connection.send(request).await?.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(body.into())?)
}

/// POSTs JSON; the status and the body, which is JSON too (`null` if it is empty).
pub(crate) async fn post(
    target: &Target,
    path: &str,
    body: &serde_json::Value,
) -> anyhow::Result<(u16, serde_json::Value)> {
    let request = Request::post(path)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::from(body.to_string()))?;
    let mut connection = Connection::open(target).await?;
    let response = connection.send(request).await?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await?.to_bytes();
    let text = String::from_utf8_lossy(&body);
    let json = if text.is_empty() {
        serde_json::Value::Null
    } else {
        serde_json::from_str(&text).with_context(|| format!("{status}, and no JSON: {text}"))?
    };
    Ok((status, json))
}
