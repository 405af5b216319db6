//! The connection to the controller: mutual TLS, incremental ADS, and coming back when it is away.
use std::{
    fmt,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, anyhow, bail};
use envoy_types::pb::{
    envoy::{
        config::core::v3::Node,
        service::discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse,
            aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
        },
    },
    google::rpc::Status,
};
use http::Uri;
use hyper_util::rt::TokioIo;
use policy_model::NamespacedName;
use rustls::pki_types::ServerName;
use spiffe_id::SpiffeId;
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot, watch},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, transport::Endpoint};
use xds_translate::native;

use super::{Changes, Message, Sent};
use crate::{
    telemetry::Metrics,
    tls::{ExtraRoots, Material, sidecar_config},
    upstream::{Address, Resolver},
};

/// How long connecting may take, TLS included.
const CONNECT: Duration = Duration::from_secs(5);
/// A controller that does not answer a ping for this long is away.
const PING: Duration = Duration::from_secs(10);
/// The largest response.
const MAX_MESSAGE: usize = 256 << 20;
/// Waits between attempts: from, to.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

type Stream = TokioIo<TlsStream<TcpStream>>;

/// Where the controller is, and who it must be.
#[derive(Debug)]
pub(crate) struct ClientSettings {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) server_id: SpiffeId,
    pub(crate) gateway: NamespacedName,
    /// Whether session keys are the controller's to give.
    pub(crate) wants_session_keys: bool,
    pub(crate) resolver: Resolver,
}

impl ClientSettings {
    /// Reads `--xds`.
    ///
    /// # Errors
    /// It is not `https://HOST[:PORT]`.
    pub(crate) fn place(uri: &Uri) -> anyhow::Result<(String, u16)> {
        let bare = uri.path_and_query().is_none_or(|path| path.as_str() == "/");
        match (uri.scheme_str(), uri.host()) {
            (Some("https"), Some(host)) if bare => {
                let host = host.trim_start_matches('[').trim_end_matches(']');
                Ok((host.to_owned(), uri.port_u16().unwrap_or(443)))
            }
            _ => bail!("`{uri}` is not https://HOST[:PORT]; the controller is reached over TLS only"),
        }
    }
}

/// Follows the controller, whatever happens to it.
pub(crate) struct Client {
    pub(crate) settings: ClientSettings,
    /// The own certificate and the roots; a new one is presented on a new connection at once.
    pub(crate) identity: watch::Receiver<Arc<Material>>,
    pub(crate) messages: mpsc::Sender<Message>,
    pub(crate) metrics: Arc<Metrics>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Why a stream ended that did not fail.
enum Ended {
    /// There is a new identity: connect again.
    ByUs,
    /// Nobody keeps the configuration any more.
    ForGood,
}

impl Client {
    /// Runs until the configuration is nobody's any more.
    pub(crate) async fn run(mut self) {
        let mut backoff = Backoff::default();
        let mut last_error = String::new();
        loop {
            self.identity.mark_unchanged();
            let ended = self.follow(&mut backoff).await;
            self.metrics.xds_connected.set(0);
            match ended {
                Ok(Ended::ForGood) => return,
                Ok(Ended::ByUs) => {
                    last_error.clear();
                    continue;
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    if error != last_error {
                        tracing::warn!(
                            error,
                            controller = self.settings.host,
                            "the controller cannot be followed; what is in force stays, and it is tried again"
                        );
                        last_error = error;
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next()) => {}
                // Perhaps the identity was what was wrong.
                changed = self.identity.changed() => if changed.is_err() { return },
            }
        }
    }

    /// One connection, to its end.
    async fn follow(&mut self, backoff: &mut Backoff) -> anyhow::Result<Ended> {
        let material = Arc::clone(&self.identity.borrow());
        let stream = match timeout(CONNECT, self.connect(&material)).await {
            Ok(stream) => stream?,
            Err(_) => bail!("no connection within {CONNECT:?}"),
        };
        // TLS is done: the scheme says what the connection is, not what is to be made of it.
        let origin: Uri =
            format!("https://{}", authority(&self.settings.host, self.settings.port)).parse()?;
        let channel =
            Endpoint::from_shared(format!("http://{}", authority(&self.settings.host, self.settings.port)))?
                .origin(origin)
                .http2_keep_alive_interval(PING)
                .keep_alive_timeout(PING)
                .keep_alive_while_idle(true)
                .connect_with_connector(Made(Some(stream)))
                .await?;
        let mut ads = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE);

        let (reply, versions) = oneshot::channel();
        if self.messages.send(Message::Connecting(reply)).await.is_err() {
            return Ok(Ended::ForGood);
        }
        let Ok(versions) = versions.await else { return Ok(Ended::ForGood) };
        let (requests, outgoing) = mpsc::channel(8);
        let mut first = vec![(native::OBJECT, versions.objects)];
        if self.settings.wants_session_keys {
            first.push((native::SESSION_KEYS, versions.session_keys));
        }
        for (type_url, initial_resource_versions) in first {
            let request = DeltaDiscoveryRequest {
                node: Some(self.node(&material)),
                type_url: type_url.to_owned(),
                resource_names_subscribe: vec!["*".to_owned()],
                initial_resource_versions,
                ..DeltaDiscoveryRequest::default()
            };
            requests.send(request).await?;
        }
        let mut responses = ads.delta_aggregated_resources(ReceiverStream::new(outgoing)).await?.into_inner();
        self.metrics.xds_connected.set(1);
        tracing::info!(controller = self.settings.host, "following the controller");
        loop {
            let response = tokio::select! {
                response = responses.message() => response?,
                changed = self.identity.changed() => {
                    return Ok(if changed.is_err() { Ended::ForGood } else { Ended::ByUs });
                }
            };
            let Some(response) = response else { bail!("it ended the stream") };
            let (type_url, nonce) = (response.type_url.clone(), response.nonce.clone());
            let error_detail = match self.take(response).await {
                None => return Ok(Ended::ForGood),
                Some(Ok(())) => {
                    backoff.reset();
                    self.metrics.xds_updated(SystemTime::now());
                    None
                }
                Some(Err(message)) => {
                    self.metrics.xds_refused.inc();
                    tracing::error!(
                        error = message,
                        "what the controller sent was refused; the configuration before stays in force"
                    );
                    let code = i32::from(Code::InvalidArgument);
                    Some(Status { code, message, details: Vec::new() })
                }
            };
            let answer = DeltaDiscoveryRequest {
                type_url,
                response_nonce: nonce,
                error_detail,
                ..DeltaDiscoveryRequest::default()
            };
            requests.send(answer).await?;
        }
    }

    /// Hands a response on, and waits until it is in force or refused; `None`: nobody is there any more.
    async fn take(&self, response: DeltaDiscoveryResponse) -> Option<Result<(), String>> {
        let (reply, verdict) = oneshot::channel();
        let type_url = response.type_url.clone();
        let message = match (type_url.as_str(), changes(response)) {
            (native::OBJECT, Ok(changes)) => Message::Objects(changes, reply),
            (native::SESSION_KEYS, Ok(changes)) => Message::SessionKeys(changes, reply),
            (_, Err(error)) => return Some(Err(format!("{error:#}"))),
            (other, _) => return Some(Err(format!("`{other}` was not asked for"))),
        };
        self.messages.send(message).await.ok()?;
        verdict.await.ok()
    }

    fn node(&self, material: &Material) -> Node {
        Node {
            id: material.own_id.as_ref().map(ToString::to_string).unwrap_or_default(),
            cluster: self.settings.gateway.to_string(),
            user_agent_name: "agentic-gateway".to_owned(),
            ..Node::default()
        }
    }

    async fn connect(&self, material: &Material) -> anyhow::Result<Stream> {
        let ClientSettings { host, port, server_id, resolver, .. } = &self.settings;
        // Verified by its SPIFFE ID: no other roots are looked at.
        let mut config = sidecar_config(material, Some(server_id), &ExtraRoots::default())
            .map_err(|error| anyhow!("the identity: {error}"))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from(host.clone()).with_context(|| format!("the host `{host}`"))?;
        let addresses = resolver
            .addresses(&Address::Name(host.to_ascii_lowercase(), *port))
            .await
            .map_err(|error| anyhow!(error))?;
        let mut last = anyhow!("`{host}` has no address");
        for address in addresses {
            let connected = async {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                connector.connect(name.clone(), stream).await
            };
            match connected.await {
                Ok(stream) => return Ok(TokioIo::new(stream)),
                Err(error) => last = anyhow!(error).context(address.to_string()),
            }
        }
        Err(last)
    }
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn changes(response: DeltaDiscoveryResponse) -> anyhow::Result<Changes> {
    let mut changes = Changes { set: Vec::new(), removed: response.removed_resources };
    for resource in response.resources {
        let name = resource.name;
        let body = resource.resource.with_context(|| format!("`{name}`: holds nothing"))?;
        if body.type_url != response.type_url {
            bail!("`{name}`: is of type `{}`, not `{}`", body.type_url, response.type_url);
        }
        changes.set.push(Sent { name, version: resource.version, body: body.value.into() });
    }
    Ok(changes)
}

/// A connection that is there already.
struct Made(Option<Stream>);

impl tower_service::Service<Uri> for Made {
    type Response = Stream;
    type Error = std::io::Error;
    type Future = Ready<Result<Stream, std::io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(self.0.take().ok_or_else(|| std::io::ErrorKind::NotConnected.into()))
    }
}

/// Exponential, with jitter: proxies that lose a controller together do not come back together.
#[derive(Debug, Default)]
struct Backoff {
    attempts: u32,
}

impl Backoff {
    fn reset(&mut self) {
        self.attempts = 0;
    }

    fn next(&mut self) -> Duration {
        let mut random = [0; 4];
        // Without randomness the longest wait.
        let part = match getrandom::fill(&mut random) {
            Ok(()) => f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX),
            Err(_) => 1.0,
        };
        self.wait(part)
    }

    /// Between half of the step and all of it.
    fn wait(&mut self, part: f64) -> Duration {
        let step = BACKOFF.0.saturating_mul(1 << self.attempts.min(16)).min(BACKOFF.1);
        self.attempts = self.attempts.saturating_add(1);
        step.div_f64(2.0) + step.mul_f64(part / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..9).map(|_| backoff.wait(1.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(backoff.wait(0.0), Duration::from_secs(5));
        backoff.reset();
        assert_eq!(backoff.wait(0.5), Duration::from_millis(75));
        for _ in 0..1000 {
            let wait = backoff.next();
            assert!(wait >= BACKOFF.0 / 2 && wait <= BACKOFF.1, "{wait:?}");
        }
    }

    #[track_caller]
    fn check_place(uri: &str, expected: Option<(&str, u16)>) {
        let found = ClientSettings::place(&uri.parse().unwrap()).ok();
        assert_eq!(found, expected.map(|(host, port)| (host.to_owned(), port)), "{uri}");
    }

    #[test]
    fn places_of_controllers() {
        check_place("https://controller.ns.svc:15010", Some(("controller.ns.svc", 15010)));
        check_place("https://controller/", Some(("controller", 443)));
        check_place("https://[::1]:1", Some(("::1", 1)));
        check_place("http://controller:15010", None);
        check_place("https://controller/path", None);
        check_place("controller:15010", None);
    }
}
