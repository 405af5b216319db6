//! Requests that wait, and when each is taken up: no clock, no client.
use std::{collections::HashMap, sync::Arc, time::Duration};

use k8s_openapi::api::certificates::v1beta1::PodCertificateRequest;
use tokio::time::Instant;

use super::decide::is_pending;

/// How long another replica's requests are left to it. Two that sign at once do no harm: the second write fails.
pub(super) const LEAVE_TO_OWNER: Duration = Duration::from_secs(5);
/// Pauses before a request is looked at again, twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Namespace and name.
pub(super) type Key = (String, String);

/// The requests that wait.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: HashMap<Key, Waiting>,
    /// While a list arrives: what it held so far.
    listing: Option<Vec<Key>>,
}

#[derive(Debug)]
struct Waiting {
    request: Arc<PodCertificateRequest>,
    due: Instant,
    tries: u32,
    /// Being answered.
    busy: bool,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    /// Answered, or gone.
    Done,
    /// To be looked at again after a pause.
    Again,
}

impl Queue {
    /// A list begins.
    pub(super) fn list_begins(&mut self) {
        self.listing = Some(Vec::new());
    }

    /// A list is complete: what it did not hold is gone.
    pub(super) fn list_ends(&mut self) {
        if let Some(listed) = self.listing.take() {
            let listed: std::collections::HashSet<Key> = listed.into_iter().collect();
            self.waiting.retain(|key, _waiting| listed.contains(key));
        }
    }

    /// A request was seen, as new or changed. `mine`: this replica is its owner.
    pub(super) fn seen(&mut self, request: PodCertificateRequest, mine: bool, now: Instant) {
        let key = key(&request);
        if let Some(listed) = &mut self.listing {
            listed.push(key.clone());
        }
        if !is_pending(&request) {
            self.waiting.remove(&key);
            return;
        }
        let due = if mine { now } else { now + LEAVE_TO_OWNER };
        let waiting = Waiting { request: Arc::new(request), due, tries: 0, busy: false };
        match self.waiting.get_mut(&key) {
            // Another version of the same request: its turn does not change.
            Some(known) if known.request.metadata.uid == waiting.request.metadata.uid => {
                known.request = waiting.request;
            }
            _ => {
                self.waiting.insert(key, waiting);
            }
        }
    }

    /// A request is gone.
    pub(super) fn gone(&mut self, request: &PodCertificateRequest) {
        self.waiting.remove(&key(request));
    }

    /// Takes up at once what may now be answered.
    pub(super) fn hurry(&mut self, now: Instant, mine: impl Fn(&PodCertificateRequest) -> bool) {
        for waiting in self.waiting.values_mut().filter(|waiting| mine(&waiting.request)) {
            waiting.due = waiting.due.min(now);
        }
    }

    /// The request that has waited longest among those whose time has come. It is busy until [`Queue::ended`].
    pub(super) fn take(&mut self, now: Instant) -> Option<Arc<PodCertificateRequest>> {
        let waiting = self
            .waiting
            .values_mut()
            .filter(|waiting| !waiting.busy && waiting.due <= now)
            .min_by_key(|waiting| waiting.due)?;
        waiting.busy = true;
        Some(Arc::clone(&waiting.request))
    }

    /// An attempt at this request ended.
    pub(super) fn ended(&mut self, request: &PodCertificateRequest, attempt: Attempt, now: Instant) {
        let key = key(request);
        let Some(waiting) = self.waiting.get_mut(&key) else {
            return;
        };
        if waiting.request.metadata.uid != request.metadata.uid {
            return;
        }
        match attempt {
            Attempt::Done => {
                self.waiting.remove(&key);
            }
            Attempt::Again => {
                waiting.busy = false;
                waiting.due =
                    now + (FIRST_PAUSE * 2_u32.saturating_pow(waiting.tries.min(16))).min(LONGEST_PAUSE);
                waiting.tries = waiting.tries.saturating_add(1);
            }
        }
    }

    /// When the next request's time comes.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.waiting.values().filter(|waiting| !waiting.busy).map(|waiting| waiting.due).min()
    }
}

fn key(request: &PodCertificateRequest) -> Key {
    let metadata = &request.metadata;
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(name: &str, uid: &str) -> PodCertificateRequest {
        serde_json::from_value(json!({
            "metadata": {"namespace": "ns", "name": name, "uid": uid},
            "spec": {
                "signerName": super::super::SIGNER, "podName": "p", "podUID": "u", "serviceAccountName": "s",
                "serviceAccountUID": "u", "nodeName": "n", "nodeUID": "u",
            },
        }))
        .unwrap()
    }

    fn answered(name: &str, uid: &str) -> PodCertificateRequest {
        let mut request = request(name, uid);
        request.status = serde_json::from_value(json!({"certificateChain": "x"})).unwrap();
        request
    }

    /// The names of all that may be taken now.
    fn due(queue: &mut Queue, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| queue.take(now)).map(|request| request.metadata.name.clone().unwrap()).collect()
    }

    #[test]
    fn own_requests_are_due_at_once_those_of_others_when_they_do_not_act() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.seen(request("mine", "1"), true, now);
        queue.seen(request("other", "2"), false, now);
        queue.seen(answered("done", "3"), true, now);
        assert_eq!(due(&mut queue, now), ["mine"]);
        assert_eq!(queue.next_due(), Some(now + LEAVE_TO_OWNER));
        assert_eq!(due(&mut queue, now + LEAVE_TO_OWNER), ["other"]);
        assert_eq!(queue.next_due(), None);
    }

    #[test]
    fn a_share_that_becomes_ones_own_is_taken_up_at_once() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.seen(request("a", "1"), false, now);
        queue.seen(request("b", "2"), false, now);
        queue.hurry(now, |request| request.metadata.name.as_deref() == Some("b"));
        assert_eq!(due(&mut queue, now), ["b"]);
    }

    #[test]
    fn what_others_answered_or_deleted_is_forgotten() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for name in ["a", "b", "c"] {
            queue.seen(request(name, name), true, now);
        }
        queue.seen(answered("a", "a"), true, now);
        queue.gone(&request("b", "b"));
        assert_eq!(due(&mut queue, now), ["c"]);
    }

    #[test]
    fn a_list_drops_what_it_does_not_hold() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.seen(request("gone", "1"), true, now);
        queue.seen(request("kept", "2"), false, now);
        queue.list_begins();
        queue.seen(request("kept", "2"), false, now + LEAVE_TO_OWNER);
        queue.seen(request("new", "3"), true, now);
        queue.list_ends();
        // And what was seen again keeps its turn.
        let mut names = due(&mut queue, now + LEAVE_TO_OWNER);
        names.sort();
        assert_eq!(names, ["kept", "new"]);
    }

    #[test]
    fn attempts_are_repeated_less_and_less_often() {
        let (mut queue, mut now) = (Queue::default(), Instant::now());
        queue.seen(request("a", "1"), true, now);
        for pause in [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
            let taken = queue.take(now).unwrap();
            assert_eq!(queue.take(now + LONGEST_PAUSE), None, "busy");
            queue.ended(&taken, Attempt::Again, now);
            let next = queue.next_due().unwrap();
            assert_eq!(next - now, Duration::from_millis(pause));
            now = next;
        }
        let taken = queue.take(now).unwrap();
        queue.ended(&taken, Attempt::Done, now);
        assert_eq!(queue.next_due(), None);
    }

    #[test]
    fn a_successor_of_the_same_name_is_another_request() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.seen(request("a", "1"), true, now);
        let first = queue.take(now).unwrap();
        queue.seen(request("a", "2"), true, now);
        queue.ended(&first, Attempt::Done, now);
        assert_eq!(queue.take(now).unwrap().metadata.uid.as_deref(), Some("2"));
    }
}
