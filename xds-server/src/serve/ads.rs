//! The two calls of the service: each stream is a [`Session`] between a client's requests and its group's sets.
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
    aggregated_discovery_service_server::AggregatedDiscoveryService,
};
use futures_util::stream::unfold;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::{Admit, peer::Peer};
use crate::{
    Cache, Report,
    cache::Following,
    report::Registration,
    session::{Answered, Delta, Protocol, Session, Sotw},
};

/// How long a client may take to say what it wants.
const FIRST_REQUEST: Duration = Duration::from_secs(10);

/// The service for one connection.
pub(super) struct Ads {
    cache: Cache,
    admit: Admit,
    peer: Arc<Peer>,
    /// Turns true when the connection ends.
    ending: watch::Receiver<bool>,
    /// Whether a stream was opened.
    used: Arc<AtomicBool>,
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Ads {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        self.open::<Sotw>(request.into_inner())
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        self.open::<Delta>(request.into_inner())
    }
}

impl Ads {
    pub(super) fn new(
        cache: Cache,
        admit: Admit,
        peer: Peer,
        ending: watch::Receiver<bool>,
        used: Arc<AtomicBool>,
    ) -> Self {
        Self { cache, admit, peer: Arc::new(peer), ending, used }
    }

    fn open<P: Protocol>(
        &self,
        requests: Streaming<P::Request>,
    ) -> Result<Response<Responses<P::Response>>, Status> {
        self.used.store(true, Ordering::Relaxed);
        let peer = &self.peer;
        check(peer, &self.admit)?;
        let following = self.cache.follow(&peer.group).ok_or_else(nothing_published)?;
        self.cache.counters().streams.fetch_add(1, Ordering::Relaxed);
        let registration = self.cache.register(Report {
            group: Arc::clone(&peer.group),
            address: peer.address,
            cluster: Arc::from(""),
            asked: Default::default(),
            acknowledged: Default::default(),
            refused: Default::default(),
        });
        let exchange = Exchange::<P> {
            requests,
            session: Session::default(),
            following,
            registration,
            cache: self.cache.clone(),
            admit: Arc::clone(&self.admit),
            peer: Arc::clone(peer),
            ending: self.ending.clone(),
            silent_until: Some(Instant::now() + FIRST_REQUEST),
        };
        // Driven by the connection as the client takes responses: a client that takes none costs no memory.
        let responses = unfold(Some(exchange), |exchange| async {
            let mut exchange = exchange?;
            match exchange.next().await {
                Ok(Some(response)) => Some((Ok(response), Some(exchange))),
                Ok(None) => None,
                Err(status) => {
                    tracing::debug!(client = %exchange.peer.id, %status, "a stream ended");
                    Some((Err(status), None))
                }
            }
        });
        Ok(Response::new(Box::pin(responses)))
    }
}

/// Whether a client still is who may have the configuration of its group.
fn check(peer: &Peer, admit: &Admit) -> Result<(), Status> {
    if Instant::now() >= peer.expires {
        return Err(expired());
    }
    if admit(&peer.id).as_deref() != Some(&*peer.group) {
        return Err(Status::permission_denied(format!(
            "`{}` does not belong to the group that it belonged to when it connected; connect again",
            peer.id
        )));
    }
    Ok(())
}

fn expired() -> Status {
    Status::unauthenticated("the client's certificate has expired; connect with a new one")
}

fn nothing_published() -> Status {
    Status::unavailable("nothing is published for the client's group; try again later")
}

/// One stream.
struct Exchange<P: Protocol> {
    requests: Streaming<P::Request>,
    session: Session,
    following: Following,
    registration: Registration,
    cache: Cache,
    admit: Admit,
    peer: Arc<Peer>,
    ending: watch::Receiver<bool>,
    /// Until the first request.
    silent_until: Option<Instant>,
}

impl<P: Protocol> Exchange<P> {
    /// The next response; `None` when the client has ended the stream.
    async fn next(&mut self) -> Result<Option<P::Response>, Status> {
        loop {
            let published = self.following.borrow_and_update().clone().ok_or_else(nothing_published)?;
            check(&self.peer, &self.admit)?;
            let next = P::next(&mut self.session, &published);
            let session = &self.session;
            self.registration.update(session.asked(), session.acknowledged(), session.refused());
            let counters = self.cache.counters();
            if let Some((response, resources)) = next {
                add(&counters.responses, 1);
                add(&counters.resources, resources);
                return Ok(Some(response));
            }
            let silent_until = self.silent_until;
            tokio::select! {
                biased;
                () = sleep_until(self.peer.expires) => return Err(expired()),
                _ = self.ending.wait_for(|ending| *ending) => {
                    return Err(Status::unavailable("the connection ends; connect again"));
                }
                _ = self.following.changed() => {}
                request = self.requests.message() => {
                    let Some(request) = request? else { return Ok(None) };
                    self.silent_until = None;
                    if let Some(cluster) = P::cluster(&request) {
                        self.registration.name(cluster);
                    }
                    let answered = P::take(&mut self.session, request, &published)
                        .map_err(|violation| Status::invalid_argument(violation.to_string()))?;
                    match answered {
                        Answered::Nothing => {}
                        Answered::Acknowledged => add(&counters.acknowledged, 1),
                        Answered::Refused => add(&counters.nacks, 1),
                    }
                }
                () = sleep_until(silent_until.unwrap_or(self.peer.expires)) => {
                    return Err(Status::deadline_exceeded("no request came; say what you want"));
                }
            }
        }
    }
}

fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
}
