//! Logs, and the part of a kubelet's API that `kubectl logs` reads through the API server.
use std::{
    convert::Infallible,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;

use super::{KUBELET_PORT, NODE_ADDRESS, context::Context};

/// The logs of a container's runs in this folder, the first first.
fn runs(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut runs = Vec::new();
    let entries = fs::read_dir(folder).context("the container has not started")?;
    for entry in entries {
        let path = entry?.path();
        let number =
            path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u32>().ok());
        runs.extend(number.map(|number| (number, path)));
    }
    runs.sort();
    Ok(runs.into_iter().map(|(_, path)| path).collect())
}

/// What a container wrote in all of its runs.
pub(super) fn all(folder: &Path) -> anyhow::Result<String> {
    let mut all = String::new();
    for run in runs(folder)? {
        all.push_str(&String::from_utf8_lossy(&fs::read(run)?));
    }
    Ok(all)
}

/// Which part of a log is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    previous: bool,
    tail_lines: Option<usize>,
    limit_bytes: Option<usize>,
}

impl Wanted {
    fn of(query: &str) -> anyhow::Result<Self> {
        let mut wanted = Self::default();
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let number = || value.parse().with_context(|| format!("`{name}` is not a number: `{value}`"));
            match name {
                "previous" => wanted.previous = value == "true",
                "tailLines" => wanted.tail_lines = Some(number()?),
                "limitBytes" => wanted.limit_bytes = Some(number()?),
                // `follow` gets what there is; times are not kept.
                _ => {}
            }
        }
        Ok(wanted)
    }

    fn read(&self, folder: &Path) -> anyhow::Result<Vec<u8>> {
        let mut runs = runs(folder)?;
        let mut run = runs.pop();
        if self.previous {
            run = runs.pop();
        }
        let Some(run) = run else { bail!("previous terminated container not found") };
        Ok(self.cut(&fs::read(run)?).to_vec())
    }

    fn cut<'a>(&self, log: &'a [u8]) -> &'a [u8] {
        let mut log = log;
        if let Some(lines) = self.tail_lines {
            let ends = log.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
            // The end of the last line is not the beginning of another.
            let whole = usize::from(log.ends_with(b"\n"));
            let start =
                if lines == 0 { Some(log.len()) } else { ends.skip(whole).nth(lines - 1).map(|at| at + 1) };
            log = start.and_then(|start| log.get(start..)).unwrap_or(log);
        }
        self.limit_bytes.and_then(|limit| log.get(..limit)).unwrap_or(log)
    }
}

/// Serves `/containerLogs/NAMESPACE/POD/CONTAINER` to whoever asks: only what is in the cluster's own network can.
pub(super) async fn serve(context: Arc<Context>, listener: TcpListener, tls: TlsAcceptor) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (context, tls) = (Arc::clone(&context), tls.clone());
        connections.spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let response = answer(&context, request.uri().path(), request.uri().query());
                async move { Ok::<_, Infallible>(response) }
            });
            let Ok(stream) = tls.accept(stream).await else { return };
            let served = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                eprintln!("node: kubelet API: {error}");
            }
        });
    }
}

/// Its socket, and a certificate of its own.
pub(super) async fn listen() -> anyhow::Result<(TcpListener, TlsAcceptor)> {
    let own = rcgen::generate_simple_self_signed([NODE_ADDRESS.to_string()])?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)?;
    let at = SocketAddr::from((NODE_ADDRESS, KUBELET_PORT));
    let listener = TcpListener::bind(at).await.with_context(|| format!("kubelet API on {at}"))?;
    Ok((listener, TlsAcceptor::from(Arc::new(config))))
}

fn answer(context: &Context, path: &str, query: Option<&str>) -> Response<Full<Bytes>> {
    let parts: Vec<_> = path.split('/').collect();
    let (status, body) = match parts.as_slice() {
        ["", "containerLogs", namespace, pod, container] => {
            let read = || {
                let record = context.recorded(namespace, pod).context("no such Pod on this node")?;
                Wanted::of(query.unwrap_or_default())?.read(&record.logs.join(container))
            };
            match read() {
                Ok(log) => (StatusCode::OK, log),
                Err(error) => {
                    let message = format!("container `{container}` in pod `{pod}`: {error:#}\n");
                    (StatusCode::BAD_REQUEST, message.into_bytes())
                }
            }
        }
        _ => (StatusCode::NOT_FOUND, b"this node serves `/containerLogs` only\n".to_vec()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &str, expected: Result<&str, &str>) {
        let dir = tempfile::tempdir().unwrap();
        // Ten follows nine.
        for (run, log) in [("9", "first\nrun\n"), ("10", "a\nb\n\nno end")] {
            fs::write(dir.path().join(format!("{run}.log")), log).unwrap();
        }
        let got = Wanted::of(query).and_then(|wanted| wanted.read(dir.path()));
        match (got, expected) {
            (Ok(got), Ok(expected)) => assert_eq!(String::from_utf8(got).unwrap(), expected, "{query}"),
            (Err(got), Err(expected)) => assert_eq!(got.to_string(), expected),
            (got, expected) => panic!("{query}: {got:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn parts_of_logs() {
        check("", Ok("a\nb\n\nno end"));
        check("follow=true&timestamps=true", Ok("a\nb\n\nno end"));
        check("tailLines=0", Ok(""));
        check("tailLines=1", Ok("no end"));
        check("tailLines=3", Ok("b\n\nno end"));
        check("tailLines=9", Ok("a\nb\n\nno end"));
        check("limitBytes=3", Ok("a\nb"));
        check("limitBytes=300", Ok("a\nb\n\nno end"));
        check("previous=true", Ok("first\nrun\n"));
        check("previous=true&tailLines=1&limitBytes=2", Ok("ru"));
        check("tailLines=x", Err("`tailLines` is not a number: `x`"));
    }

    #[test]
    fn all_runs_and_none() {
        let dir = tempfile::tempdir().unwrap();
        assert!(all(&dir.path().join("none")).is_err());
        fs::write(dir.path().join("1.log"), "two").unwrap();
        let once = Wanted { previous: true, ..Wanted::default() };
        assert_eq!(once.read(dir.path()).unwrap_err().to_string(), "previous terminated container not found");
        fs::write(dir.path().join("0.log"), "one ").unwrap();
        assert_eq!(all(dir.path()).unwrap(), "one two");
    }
}
