//! Listening sockets: one per port, opened and closed as configurations come and go, without dropping others.
mod accept;
mod framing;
mod tls;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hyper_util::{
    rt::{TokioExecutor, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, watch},
};

use self::accept::accept;
pub(crate) use self::accept::address_value;
use crate::{
    cli::{LimitArgs, ListenAt},
    connection::Shared,
};

/// How long clients of many requests have to see a response that says that the connection closes.
pub(crate) const NOTICE: Duration = Duration::from_secs(2);

/// How a connection is told what happens to the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Serve.
    Serving,
    /// Finish what was begun.
    Draining,
    /// Stop.
    Ended,
}

/// What accept loops share.
#[derive(Debug)]
pub(crate) struct Acceptor {
    pub(crate) shared: Arc<Shared>,
    pub(crate) http: Http,
    pub(crate) connections: Arc<Semaphore>,
    pub(crate) handshake_timeout: Duration,
    pub(crate) header_timeout: Duration,
    pub(crate) phase: watch::Receiver<Phase>,
    /// Held by every connection: all are gone when its receiver says so.
    pub(crate) alive: mpsc::Sender<()>,
}

/// HTTP settings by what is known of the version.
#[derive(Debug)]
pub(crate) struct Http {
    pub(crate) any: auto::Builder<TokioExecutor>,
    pub(crate) http1: auto::Builder<TokioExecutor>,
    pub(crate) http2: auto::Builder<TokioExecutor>,
}

impl Http {
    pub(crate) fn new(limits: &LimitArgs) -> Self {
        Self {
            any: builder(limits),
            http1: builder(limits).http1_only(),
            http2: builder(limits).http2_only(),
        }
    }
}

fn builder(limits: &LimitArgs) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(usize::try_from(limits.max_header_bytes).unwrap_or(65_536))
        .max_headers(limits.max_headers);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_streams)
        .max_header_list_size(limits.max_header_bytes)
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(256)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

/// The open sockets.
#[derive(Debug)]
pub(crate) struct Sockets {
    open: BTreeMap<u16, Socket>,
    address: IpAddr,
    elsewhere: Vec<ListenAt>,
    acceptor: Arc<Acceptor>,
}

#[derive(Debug)]
struct Socket {
    bound: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Sockets {
    pub(crate) fn new(address: IpAddr, elsewhere: Vec<ListenAt>, acceptor: Arc<Acceptor>) -> Self {
        Self { open: BTreeMap::new(), address, elsewhere, acceptor }
    }

    /// Binds what is wanted and not open yet; what could not be bound is named in the second list. Nothing is closed.
    pub(crate) async fn bind(&self, ports: &BTreeSet<u16>) -> (Vec<(u16, TcpListener)>, Vec<String>) {
        let (mut bound, mut faults) = (Vec::new(), Vec::new());
        for &port in ports.iter().filter(|port| !self.open.contains_key(port)) {
            let address = self
                .elsewhere
                .iter()
                .find(|listen| listen.port == port)
                .map_or(SocketAddr::new(self.address, port), |listen| listen.address);
            match TcpListener::bind(address).await {
                Ok(listener) => bound.push((port, listener)),
                Err(error) => {
                    faults.push(format!("cannot listen on {address} for port {port} of the Gateway: {error}"))
                }
            }
        }
        (bound, faults)
    }

    /// Serves what was bound, and closes what is not wanted any more. Open connections go on.
    pub(crate) fn serve(&mut self, bound: Vec<(u16, TcpListener)>, wanted: impl Fn(u16) -> bool) {
        self.open.retain(|port, socket| {
            let keep = wanted(*port);
            if !keep {
                tracing::info!(port, "closed");
                socket.task.abort();
            }
            keep
        });
        for (port, listener) in bound {
            let Ok(address) = listener.local_addr() else { continue };
            tracing::info!(port, %address, "listening");
            let task = tokio::spawn(accept(Arc::clone(&self.acceptor), listener, port));
            self.open.insert(port, Socket { bound: address, task });
        }
    }

    /// Port and address of each open socket.
    pub(crate) fn bound(&self) -> BTreeMap<u16, SocketAddr> {
        self.open.iter().map(|(port, socket)| (*port, socket.bound)).collect()
    }

    /// Closes all sockets. Open connections go on.
    pub(crate) fn close(&mut self) {
        self.serve(Vec::new(), |_| false);
    }
}
