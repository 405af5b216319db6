//! Event streams, which Envoy carries past us: they end when a changed policy would now deny them.
//!
//! What was let through is kept here under a name, and Envoy has the name in the request's metadata, where no client can
//! write. Should an event stream be the answer, Envoy opens a stream of its own for it ([`WATCH`]), which lasts as long,
//! and has the name in its initial metadata. What was kept is decided on again whenever the configuration changes.
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use authz_tower::GuardedBody;
use bytes::Bytes;
use envoy_types::pb::envoy::{
    extensions::filters::http::ext_proc::v3::processing_mode::BodySendMode,
    service::ext_proc::v3::{
        HeaderMutation, ProcessingRequest, ProcessingResponse, processing_request::Request as Message,
    },
};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tonic::{Streaming, metadata::MetadataMap};
use xds_translate::envoy::processor::{ABSENT, WATCH, WATCH_PREFIX};

use super::{
    answer::{self, Answer},
    exchange::{Broken, next},
};
use crate::{connection::Shared, listen::Phase, upstream::UpstreamBody};

/// How long an answer may take to begin so that it is still known what it answers. An event stream that begins later
/// ends with the next change of configuration, whatever it says.
const KEPT: Duration = Duration::from_secs(300);
/// How many bytes of requests may be kept for answers that have not begun; the oldest go first.
const MAX_BYTES: usize = 64 << 20;
/// What a request takes beside its own bytes, about.
const OVERHEAD: usize = 2048;

/// An event stream that Envoy carries, or will.
#[derive(Debug)]
pub(super) enum Open {
    /// Its bytes pass through the exchange that let its request through, which ends it too.
    Here,
    /// Its bytes do not come by; it must end when `body` does.
    Elsewhere {
        body: Box<GuardedBody<UpstreamBody>>,
        /// Keeps the inner body open.
        chunks: mpsc::UnboundedSender<Bytes>,
    },
}

/// Requests that were let through, and whose answers have not begun.
pub(super) struct Watches {
    /// Random per process: another one's names are not known here.
    instance: u64,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    last: u64,
    bytes: usize,
    /// By number, so the oldest first.
    requests: BTreeMap<u64, Request>,
}

struct Request {
    since: Instant,
    bytes: usize,
    open: oneshot::Receiver<Open>,
}

impl fmt::Debug for Watches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watches").field("kept", &self.lock().requests.len()).finish_non_exhaustive()
    }
}

impl Watches {
    /// `instance` tells processes apart.
    pub(super) fn new(instance: u64) -> Arc<Self> {
        Arc::new(Self { instance, kept: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request of so many bytes is let through: what is said of it when that is known, and its name.
    pub(super) fn expect(self: &Arc<Self>, bytes: usize) -> (Awaited, String) {
        let (says, open) = oneshot::channel();
        let bytes = bytes.saturating_add(OVERHEAD);
        let since = Instant::now();
        let mut kept = self.lock();
        kept.forget(|kept, oldest| {
            oldest.since + KEPT <= since || kept.bytes.saturating_add(bytes) > MAX_BYTES
        });
        kept.last = kept.last.wrapping_add(1);
        kept.bytes = kept.bytes.saturating_add(bytes);
        let number = kept.last;
        kept.requests.insert(number, Request { since, bytes, open });
        let awaited = Awaited { watches: Arc::clone(self), number, says: Some(says) };
        (awaited, format!("{:016x}-{number}", self.instance))
    }

    /// Forgets what has been kept for too long.
    pub(super) fn tidy(&self) {
        let now = Instant::now();
        self.lock().forget(|_, oldest| oldest.since + KEPT <= now);
    }

    /// What a name stands for; only once.
    fn claim(&self, name: &str) -> Option<oneshot::Receiver<Open>> {
        let (instance, number) = name.split_once('-')?;
        if u64::from_str_radix(instance, 16) != Ok(self.instance) {
            return None;
        }
        Some(self.lock().take(number.parse().ok()?)?.open)
    }
}

impl Kept {
    fn take(&mut self, number: u64) -> Option<Request> {
        let request = self.requests.remove(&number)?;
        self.bytes = self.bytes.saturating_sub(request.bytes);
        Some(request)
    }

    /// Forgets the oldest for as long as `goes` says so.
    fn forget(&mut self, goes: impl Fn(&Self, &Request) -> bool) {
        while let Some((&number, oldest)) = self.requests.first_key_value()
            && goes(self, oldest)
        {
            self.take(number);
        }
    }
}

/// A request whose event stream, should there be one, is still to be told of. Dropped, it is forgotten.
#[derive(Debug)]
pub(super) struct Awaited {
    watches: Arc<Watches>,
    number: u64,
    says: Option<oneshot::Sender<Open>>,
}

impl Awaited {
    pub(super) fn is(mut self, open: Open) {
        if let Some(says) = self.says.take() {
            // Forgotten meanwhile: others came after it.
            drop(says.send(open));
        }
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        if self.says.is_some() {
            self.watches.lock().take(self.number);
        }
    }
}

/// What a stream about an event stream says of the request that it answers; `None`: the stream is about a request.
pub(super) fn asked_about(metadata: &MetadataMap) -> Option<&str> {
    let value = metadata.get(WATCH)?.to_str().unwrap_or_default();
    // What cannot be read names nothing that is known.
    Some(value.strip_prefix(WATCH_PREFIX).unwrap_or(value))
}

/// Ends an event stream. Its client sees this answer only if nothing of the stream has reached it; else the stream breaks off.
pub(super) fn cut_off() -> ProcessingResponse {
    answer::instead(StatusCode::FORBIDDEN, &HeaderMap::new(), b"Forbidden\n".to_vec())
}

/// Until when an event stream goes on.
enum Until {
    /// Until what it answers would be denied.
    Denied { body: Box<GuardedBody<UpstreamBody>>, _chunks: mpsc::UnboundedSender<Bytes> },
    /// It is not known what it answers: until anything changes.
    Changed(watch::Receiver<u64>),
    /// To its own end.
    Itself,
}

impl Until {
    async fn is_over(&mut self) {
        match self {
            // Nothing is put into it, so that only its end can come out.
            Self::Denied { body, .. } => drop(body.frame().await),
            Self::Changed(changes) => {
                if changes.changed().await.is_err() {
                    // There will be no more of them.
                    std::future::pending().await
                }
            }
            Self::Itself => std::future::pending().await,
        }
    }
}

/// One event stream, to its end.
pub(super) async fn attend(
    shared: &Shared,
    watches: &Watches,
    name: &str,
    mut messages: Streaming<ProcessingRequest>,
    answers: mpsc::UnboundedSender<Answer>,
    mut phase: watch::Receiver<Phase>,
) -> Result<(), Broken> {
    let say = |message: ProcessingResponse, is_last: bool| {
        let answer = Answer { message: Box::new(message), is_last };
        answers.send(answer).map_err(|_error| Broken("the proxy waits for no answer any more"))
    };
    let goes_on = || answer::response_head(HeaderMutation::default(), BodySendMode::None);
    let Some(Message::ResponseHeaders(_)) = next(&mut messages).await?.request else {
        return Err(Broken("the first message is not the head of a response"));
    };
    let changes = shared.changes.subscribe();
    let open = match watches.claim(name) {
        Some(open) => open.await.ok(),
        None => None,
    };
    let mut until = match open {
        Some(Open::Elsewhere { body, chunks }) => Until::Denied { body, _chunks: chunks },
        Some(Open::Here) => Until::Itself,
        None if name.is_empty() || name == ABSENT => Until::Itself,
        None => {
            tracing::info!("it is not known what an event stream answers; it ends with the next change");
            Until::Changed(changes)
        }
    };
    if matches!(until, Until::Itself) {
        return say(goes_on(), true);
    }
    tokio::select! {
        biased;
        () = until.is_over() => return say(cut_off(), true),
        () = std::future::ready(()) => {}
    }
    say(goes_on(), false)?;
    tokio::select! {
        () = until.is_over() => {
            tracing::info!("an event stream was ended: the configuration has changed");
            say(cut_off(), true)
        }
        message = next(&mut messages) => match message?.request {
            Some(Message::ResponseTrailers(_)) => say(answer::response_trailers(), true),
            _ => Err(Broken("the proxy sent what nobody asked for")),
        },
        // It goes on without us: whoever ends this process ends Envoy, or starts another one.
        _ = phase.wait_for(|phase| *phase != Phase::Serving) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_is_bounded_in_bytes_and_time() {
        let watches = Watches::new(7);
        let known = |names: &[&String]| -> Vec<bool> {
            let kept = watches.lock();
            let number = |name: &str| name.split_once('-').unwrap().1.parse::<u64>().unwrap();
            names.iter().map(|name| kept.requests.contains_key(&number(name))).collect()
        };
        let half = MAX_BYTES / 2 - OVERHEAD;
        let (_first, one) = watches.expect(half);
        let (_second, two) = watches.expect(half);
        assert_eq!(known(&[&one, &two]), [true, true]);
        let (_third, three) = watches.expect(0);
        assert_eq!(known(&[&one, &two, &three]), [false, true, true], "the oldest went");
        tokio::time::advance(KEPT - Duration::from_secs(1)).await;
        let (_fourth, four) = watches.expect(0);
        tokio::time::advance(Duration::from_secs(1)).await;
        watches.tidy();
        assert_eq!(known(&[&two, &three, &four]), [false, false, true]);
        assert_eq!(watches.lock().bytes, OVERHEAD);
    }

    #[tokio::test]
    async fn a_name_is_good_once_and_here() {
        let watches = Watches::new(7);
        let (awaited, name) = watches.expect(1);
        awaited.is(Open::Here);
        assert_eq!(name, "0000000000000007-1");
        for unknown in ["", "-", "7", "0000000000000008-1", "0000000000000007-2", "0000000000000007-x"] {
            assert!(watches.claim(unknown).is_none(), "{unknown}");
        }
        assert!(matches!(watches.claim(&name).unwrap().await, Ok(Open::Here)));
        assert!(watches.claim(&name).is_none());
        assert_eq!(watches.lock().bytes, 0);
    }

    #[test]
    fn what_comes_to_nothing_is_forgotten() {
        let watches = Watches::new(7);
        let (awaited, name) = watches.expect(1);
        drop(awaited);
        assert!(watches.claim(&name).is_none());
        assert_eq!(watches.lock().bytes, 0);
    }
}
