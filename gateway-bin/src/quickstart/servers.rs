//! Two MCP servers on `rmcp`: one with a few tools of the reference server `everything`, one like DeepWiki.
use std::{convert::Infallible, io, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rmcp::{
    ServerHandler,
    handler::server::{router::tool::ToolRouter, wrapper::Parameters},
    model::{CallToolResult, ContentBlock, Implementation, ServerCapabilities, ServerConfig},
    schemars, tool, tool_handler, tool_router,
    transport::streamable_http_server::{
        StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
    },
};
use tokio::{io::AsyncRead, io::AsyncWrite, net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;

use super::{arrivals::Arrivals, story::Server};

/// A red pixel, as PNG in base64.
const TINY_IMAGE: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGP4z8DwHwAFAAH/iZk9HQAAAABJRU5ErkJggg==";

#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
struct Sum {
    /// First number
    a: f64,
    /// Second number
    b: f64,
}

#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
struct Echo {
    /// Message to echo
    message: String,
}

/// Tools of the reference server `everything` that the story needs, with its names and answers.
#[derive(Debug, Clone)]
pub(crate) struct Everything {
    tool_router: ToolRouter<Self>,
}

#[tool_router]
impl Everything {
    pub(crate) fn new() -> Self {
        Self { tool_router: Self::tool_router() }
    }

    #[tool(name = "get-sum", description = "Returns the sum of two numbers")]
    fn sum(&self, Parameters(Sum { a, b }): Parameters<Sum>) -> String {
        format!("The sum of {a} and {b} is {}.", a + b)
    }

    #[tool(name = "echo", description = "Echoes back the input string")]
    fn echo(&self, Parameters(Echo { message }): Parameters<Echo>) -> String {
        format!("Echo: {message}")
    }

    #[tool(name = "get-tiny-image", description = "Returns a tiny image")]
    fn tiny_image(&self) -> CallToolResult {
        CallToolResult::success(vec![ContentBlock::image(TINY_IMAGE, "image/png")])
    }
}

#[tool_handler(router = self.tool_router)]
impl ServerHandler for Everything {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("quickstart-everything", env!("CARGO_PKG_VERSION")))
    }
}

#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Repo {
    /// GitHub repository: owner/repo
    repo_name: String,
}

#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Question {
    /// GitHub repository: owner/repo
    repo_name: String,
    /// The question to ask about the repository
    question: String,
}

/// The three tools of DeepWiki, about any repository.
#[derive(Debug, Clone)]
pub(crate) struct Wiki {
    tool_router: ToolRouter<Self>,
}

#[tool_router]
impl Wiki {
    pub(crate) fn new() -> Self {
        Self { tool_router: Self::tool_router() }
    }

    #[tool(
        name = "read_wiki_structure",
        description = "Get a list of documentation topics for a GitHub repository"
    )]
    fn structure(&self, Parameters(Repo { repo_name }): Parameters<Repo>) -> String {
        format!("Available pages for {repo_name}:\n\n- 1 Overview\n- 2 Architecture\n- 3 Policies")
    }

    #[tool(name = "read_wiki_contents", description = "View documentation about a GitHub repository")]
    fn contents(&self, Parameters(Repo { repo_name }): Parameters<Repo>) -> String {
        format!("# {repo_name}\n\nThis page stands in for the documentation of {repo_name}.")
    }

    #[tool(name = "ask_question", description = "Ask any question about a GitHub repository")]
    fn ask(&self, Parameters(Question { repo_name, question }): Parameters<Question>) -> String {
        format!("You asked about {repo_name}: {question}")
    }
}

#[tool_handler(router = self.tool_router)]
impl ServerHandler for Wiki {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("quickstart-wiki", env!("CARGO_PKG_VERSION")))
    }
}

/// Serves an MCP server at `/mcp` until the future is dropped; with `tls`, over TLS. What it is asked is noted as `at`'s.
/// `hosts` are the names under which it expects to be called (its own defence against DNS rebinding).
///
/// # Errors
/// The listening socket broke.
pub(crate) async fn serve<S, F>(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    hosts: Vec<String>,
    (at, arrivals): (Server, Arrivals),
    server: F,
) -> io::Result<()>
where
    S: ServerHandler + Send + 'static,
    F: Fn() -> S + Send + Sync + 'static,
{
    let config = StreamableHttpServerConfig::default().with_allowed_hosts(hosts);
    let service =
        StreamableHttpService::new(move || Ok(server()), Arc::new(LocalSessionManager::default()), config);
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        while connections.try_join_next().is_some() {}
        let service = service.clone();
        let tls = tls.clone();
        let note = (at, arrivals.clone());
        connections.spawn(async move {
            match tls {
                None => connection(TokioIo::new(stream), service, note).await,
                Some(acceptor) => match acceptor.accept(stream).await {
                    Ok(stream) => connection(TokioIo::new(stream), service, note).await,
                    Err(error) => tracing::debug!(%error, "quickstart server: TLS handshake failed"),
                },
            }
        });
    }
}

async fn connection<IO, S>(
    io: TokioIo<IO>,
    service: StreamableHttpService<S, LocalSessionManager>,
    (at, arrivals): (Server, Arrivals),
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: ServerHandler + Send + 'static,
{
    let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
        let (service, arrivals) = (service.clone(), arrivals.clone());
        async move {
            let (head, body) = request.into_parts();
            let mut response = http::Response::default();
            if head.uri.path() != "/mcp" {
                *response.status_mut() = http::StatusCode::NOT_FOUND;
                return Ok::<_, Infallible>(response);
            }
            let Ok(body) = body.collect().await else {
                *response.status_mut() = http::StatusCode::BAD_REQUEST;
                return Ok(response);
            };
            let body: Bytes = body.to_bytes();
            if head.method == http::Method::POST {
                arrivals.note(at, &body);
            }
            Ok(service.handle(http::Request::from_parts(head, Full::new(body))).await)
        }
    });
    if let Err(error) = auto::Builder::new(TokioExecutor::new()).serve_connection(io, service).await {
        tracing::debug!(%error, "quickstart server: connection ended");
    }
}
