//! An MCP server over TLS that stands in for DeepWiki, with its two tools; it prints each call that arrives.
use std::{convert::Infallible, net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// `cluster-part deepwiki`
#[derive(Debug, Args)]
pub(crate) struct Deepwiki {
    /// Where to listen
    #[arg(long, default_value = "0.0.0.0:443")]
    listen: SocketAddr,
    /// Folder with `tls.crt` and `tls.key`
    #[arg(long, default_value = "/tls")]
    tls: PathBuf,
}

/// Serves until it is killed.
pub(crate) async fn serve(args: &Deepwiki) -> anyhow::Result<Infallible> {
    let chain = CertificateDer::pem_file_iter(args.tls.join("tls.crt"))
        .context("tls.crt")?
        .collect::<Result<Vec<_>, _>>()
        .context("tls.crt")?;
    let key = PrivateKeyDer::from_pem_file(args.tls.join("tls.key")).context("tls.key")?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(args.listen).await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            // A client that goes away is none of our business.
            if let Ok(stream) = acceptor.accept(stream).await {
                drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)).await);
            }
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    if request.uri().path() != "/mcp" || request.method() != Method::POST {
        return Ok(empty(StatusCode::METHOD_NOT_ALLOWED));
    }
    let body = request.into_body().collect().await?.to_bytes();
    let Ok(message) = serde_json::from_slice::<Value>(&body) else {
        return Ok(empty(StatusCode::BAD_REQUEST));
    };
    let Some(id) = message.get("id") else { return Ok(empty(StatusCode::ACCEPTED)) };
    let params = message.get("params").cloned().unwrap_or_default();
    let said = match message.get("method").and_then(Value::as_str) {
        Some("initialize") => json!({"result": {
            "protocolVersion": params.get("protocolVersion").cloned().unwrap_or_else(|| json!("2025-06-18")),
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "deepwiki-stand-in", "version": env!("CARGO_PKG_VERSION")},
        }}),
        Some("tools/list") => json!({"result": {"tools": tools()}}),
        Some("tools/call") => called(&params),
        Some("ping") => json!({"result": {}}),
        _ => json!({"error": {"code": -32601, "message": "Method not found"}}),
    };
    let mut reply = json!({"jsonrpc": "2.0", "id": id});
    if let (Some(reply), Some(said)) = (reply.as_object_mut(), said.as_object()) {
        reply.extend(said.clone());
    }
    let mut response = Response::new(Full::from(reply.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    Ok(response)
}

fn called(params: &Value) -> Value {
    let text = |pointer: &str| params.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (tool, repo) = (text("/name"), text("/arguments/repoName"));
    println!("call {tool} {repo}");
    let said = match tool {
        "read_wiki_structure" => format!("Available pages for {repo}: 1 Overview, 2 Architecture"),
        "ask_question" => format!("{repo} is a repository. You asked: {}", text("/arguments/question")),
        _ => return json!({"error": {"code": -32602, "message": "Unknown tool"}}),
    };
    json!({"result": {"content": [{"type": "text", "text": said}]}})
}

fn tools() -> Value {
    let repo = json!({"type": "string", "description": "GitHub repository: owner/repo"});
    json!([
        {
            "name": "read_wiki_structure",
            "description": "Get a list of documentation topics for a GitHub repository",
            "inputSchema": {"type": "object", "properties": {"repoName": repo}, "required": ["repoName"]},
        },
        {
            "name": "ask_question",
            "description": "Ask any question about a GitHub repository",
            "inputSchema": {
                "type": "object",
                "properties": {"repoName": repo, "question": {"type": "string"}},
                "required": ["repoName", "question"],
            },
        },
    ])
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
