//! The upstream and the bare proxy.
use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::net::TcpListener;

const ANSWER: &str =
    r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"The sum of 2 and 3 is 5."}]}}"#;

fn one_worker() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?)
}

async fn listen() -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening {}", listener.local_addr()?);
    Ok(listener)
}

pub(super) fn upstream() -> anyhow::Result<()> {
    one_worker()?.block_on(async {
        let listener = listen().await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(async move {
                let service = service_fn(|request: Request<Incoming>| async {
                    request.into_body().collect().await?;
                    let mut response = Response::new(Full::new(Bytes::from_static(ANSWER.as_bytes())));
                    let json = http::HeaderValue::from_static("application/json");
                    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
                    Ok::<_, hyper::Error>(response)
                });
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await
            });
        }
    })
}

pub(super) fn bare_proxy(to: SocketAddr) -> anyhow::Result<()> {
    one_worker()?.block_on(async {
        let listener = listen().await?;
        let client: Client<_, Full<Bytes>> =
            Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build_http();
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let client = client.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let client = client.clone();
                    async move { Ok::<_, Infallible>(forward(&client, to, request).await) }
                });
                let mut server = auto::Builder::new(TokioExecutor::new());
                server.http1().timer(TokioTimer::new());
                server.serve_connection(TokioIo::new(stream), service).await
            });
        }
    })
}

type Answer = Response<http_body_util::Either<Incoming, Full<Bytes>>>;

async fn forward(
    client: &Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>,
    to: SocketAddr,
    request: Request<Incoming>,
) -> Answer {
    let answer = async {
        let (mut parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        parts.uri = http::Uri::builder()
            .scheme("http")
            .authority(to.to_string())
            .path_and_query(parts.uri.path_and_query().map_or("/", |path| path.as_str()))
            .build()?;
        Ok::<_, anyhow::Error>(client.request(Request::from_parts(parts, Full::new(body))).await?)
    };
    match answer.await {
        Ok(response) => response.map(http_body_util::Either::Left),
        Err(_) => {
            let mut response = Response::new(http_body_util::Either::Right(Full::default()));
            *response.status_mut() = http::StatusCode::BAD_GATEWAY;
            response
        }
    }
}
