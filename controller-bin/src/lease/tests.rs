//! Replicas against an API server of Leases in memory. Time is paused: it goes on when everybody waits.
use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::stream;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Bytes, Frame};
use kube::client::Body;
use policy_model::NamespacedName;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep},
};
use tower_test::mock::SendResponse;

use super::{Membership, Settings, owner, take_part};
use crate::status::Proxies;

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;
type Published = BTreeMap<NamespacedName, Proxies>;

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/system/leases";
const LEADER: &str = "agentic-controller-leader";

/// What becomes of a replica's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Up,
    /// Answered by 503, and watches end.
    Refused,
    /// Not answered, and nothing comes by watches.
    Silent,
    /// Answered, but nothing comes by watches any more.
    DeafWatches,
    /// Answered, but what comes by watches comes so much later.
    LateWatches(Duration),
}

#[derive(Default)]
struct Store {
    leases: BTreeMap<String, Value>,
    version: u64,
    /// All events, with their versions.
    events: Vec<(u64, String)>,
    watches: Vec<(Arc<Mutex<Link>>, mpsc::UnboundedSender<Bytes>)>,
    /// Names of the Leases that were written.
    writes: Vec<String>,
}

impl Store {
    fn event(&mut self, r#type: &str, lease: &Value) {
        let line = format!("{}\n", json!({"type": r#type, "object": lease}));
        self.watches.retain(|(link, watch)| match *link.lock().unwrap() {
            Link::Up => watch.send(Bytes::from(line.clone())).is_ok(),
            Link::Refused => false,
            Link::Silent | Link::DeafWatches => true,
            Link::LateWatches(by) => {
                let (watch, line) = (watch.clone(), line.clone());
                tokio::spawn(async move {
                    sleep(by).await;
                    // Unless nobody watches any more.
                    drop(watch.send(Bytes::from(line)));
                });
                true
            }
        });
        self.events.push((self.version, line));
    }

    fn put(&mut self, mut lease: Value, r#type: &str) -> (u16, Value) {
        self.version += 1;
        lease["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let name = lease["metadata"]["name"].as_str().unwrap().to_owned();
        self.writes.push(name.clone());
        self.leases.insert(name, lease.clone());
        self.event(r#type, &lease);
        (200, lease)
    }

    fn answer(&mut self, method: &Method, name: Option<&str>, body: &[u8]) -> (u16, Value) {
        let body: Value = if body.is_empty() { Value::Null } else { serde_json::from_slice(body).unwrap() };
        let current = name.and_then(|name| self.leases.get(name)).cloned();
        let version = |lease: &Value| lease["metadata"]["resourceVersion"].clone();
        match (method.as_str(), name, current) {
            ("GET", None, _) => {
                let items: Vec<_> = self.leases.values().cloned().collect();
                let metadata = json!({"resourceVersion": self.version.to_string()});
                (
                    200,
                    json!({"kind": "LeaseList", "apiVersion": "coordination.k8s.io/v1", "metadata": metadata, "items": items}),
                )
            }
            ("GET", Some(_), Some(lease)) => (200, lease),
            ("POST", None, _) => {
                if self.leases.contains_key(body["metadata"]["name"].as_str().unwrap()) {
                    return failure(409, "AlreadyExists");
                }
                let mut lease = body;
                lease["metadata"]["uid"] = json!(format!("uid-{}", self.version));
                self.put(lease, "ADDED")
            }
            ("PUT", Some(_), Some(lease)) if version(&lease) == version(&body) => self.put(body, "MODIFIED"),
            ("DELETE", Some(name), Some(lease)) => {
                let wanted = &body["preconditions"]["resourceVersion"];
                if !wanted.is_null() && *wanted != version(&lease) {
                    return failure(409, "Conflict");
                }
                self.version += 1;
                self.leases.remove(name);
                self.event("DELETED", &lease);
                (200, lease)
            }
            ("PUT", Some(_), Some(_)) => failure(409, "Conflict"),
            (_, Some(_), None) => failure(404, "NotFound"),
            other => panic!("{other:?}"),
        }
    }
}

fn failure(code: u16, reason: &str) -> (u16, Value) {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason});
    (code, status)
}

fn respond(answer: SendResponse<Answer>, (status, body): (u16, Value)) {
    let body = StreamBody::new(stream::iter([Ok(Frame::data(Bytes::from(body.to_string())))])).boxed_unsync();
    answer.send_response(Response::builder().status(status).body(body).unwrap());
}

/// Answers one replica's requests.
async fn serve(
    store: Arc<Mutex<Store>>,
    link: Arc<Mutex<Link>>,
    mut handle: tower_test::mock::Handle<Request<Body>, Answer>,
) {
    let mut unanswered = Vec::new();
    while let Some((request, answer)) = handle.next_request().await {
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await.unwrap();
        let state = *link.lock().unwrap();
        match state {
            Link::Up | Link::DeafWatches | Link::LateWatches(_) => {}
            Link::Refused => {
                respond(answer, failure(503, "ServiceUnavailable"));
                continue;
            }
            Link::Silent => {
                unanswered.push(answer);
                continue;
            }
        }
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let path = parts.uri.path().strip_prefix(LEASES).unwrap_or_else(|| panic!("{}", parts.uri));
        let name = path.strip_prefix('/');
        let mut store = store.lock().unwrap();
        if !query.contains("watch=true") {
            respond(answer, store.answer(&parts.method, name, &body));
            continue;
        }
        let since = query.split('&').find_map(|part| part.strip_prefix("resourceVersion="));
        let since: u64 = since.unwrap().parse().unwrap();
        let (sender, receiver) = mpsc::unbounded_channel();
        for (_, line) in store.events.iter().filter(|(version, _)| *version > since) {
            sender.send(Bytes::from(line.clone())).unwrap();
        }
        store.watches.push((Arc::clone(&link), sender));
        let lines = stream::unfold(receiver, |mut receiver: mpsc::UnboundedReceiver<Bytes>| async {
            let line = receiver.recv().await?;
            Some((Ok(Frame::data(line)), receiver))
        });
        answer.send_response(Response::new(StreamBody::new(lines).boxed_unsync()));
    }
}

struct Replica {
    membership: watch::Receiver<Membership>,
    published: watch::Sender<Published>,
    stop: watch::Sender<bool>,
    link: Arc<Mutex<Link>>,
    taking_part: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct World {
    store: Arc<Mutex<Store>>,
    replicas: Vec<Replica>,
    tasks: JoinSet<()>,
}

impl World {
    fn of(replicas: &[&str]) -> Self {
        let mut world = Self::default();
        for replica in replicas {
            world.start(replica);
        }
        world
    }

    fn start(&mut self, identity: &str) {
        let (service, handle) = tower_test::mock::pair::<Request<Body>, Answer>();
        let link = Arc::new(Mutex::new(Link::Up));
        self.tasks.spawn(serve(Arc::clone(&self.store), Arc::clone(&link), handle));
        let client = kube::Client::new(service, "default");
        let (published, said) = watch::channel(Published::new());
        let (sender, membership) = watch::channel(Membership::default());
        let (stop, stopped) = watch::channel(false);
        let settings = Settings {
            namespace: "system".into(),
            identity: identity.into(),
            duration: Duration::from_secs(15),
        };
        let taking_part = tokio::spawn(async move {
            take_part(client, settings, said, sender, stopped).await.unwrap();
        });
        self.replicas.push(Replica { membership, published, stop, link, taking_part });
    }

    fn link(&self, replica: usize, state: Link) {
        *self.replicas[replica].link.lock().unwrap() = state;
        if state == Link::Refused {
            let refused = &self.replicas[replica].link;
            self.store.lock().unwrap().watches.retain(|(link, _)| !Arc::ptr_eq(link, refused));
        }
    }

    fn memberships(&self) -> Vec<Membership> {
        self.replicas.iter().map(|replica| replica.membership.borrow().clone()).collect()
    }

    /// Waits, and says how long; at no moment may two lead.
    #[track_caller]
    fn until(&self, expected: impl Fn(&[Membership]) -> bool) -> impl Future<Output = Duration> {
        let caller = std::panic::Location::caller();
        async move {
            let start = Instant::now();
            loop {
                let memberships = self.memberships();
                let leaders = memberships.iter().filter(|membership| membership.leader).count();
                assert!(leaders <= 1, "{leaders} leaders");
                if expected(&memberships) {
                    return start.elapsed();
                }
                assert!(start.elapsed() < Duration::from_secs(600), "{caller}: {memberships:#?}");
                sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// Lets time pass; at no moment may two lead, and this holds.
    async fn throughout(&self, seconds: u64, holds: impl Fn(&[Membership]) -> bool) {
        let start = Instant::now();
        self.until(|memberships| {
            assert!(holds(memberships), "after {:?}: {memberships:#?}", start.elapsed());
            start.elapsed() >= Duration::from_secs(seconds)
        })
        .await;
    }

    fn lease(&self, name: &str) -> Option<Value> {
        self.store.lock().unwrap().leases.get(name).cloned()
    }

    fn leader(&self) -> usize {
        self.replicas.iter().position(|replica| replica.membership.borrow().leader).unwrap()
    }
}

fn said(version: &str) -> Published {
    let proxies = Proxies { acknowledged: [version.to_owned()].into(), refused: Vec::new() };
    BTreeMap::from([(NamespacedName::new("ns", "gw"), proxies)])
}

fn all(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn millis(of: u64) -> Duration {
    Duration::from_millis(of)
}

#[tokio::test(start_paused = true)]
async fn a_replica_alone_leads_and_says_what_its_proxies_said() {
    let world = World::of(&["one"]);
    assert!(world.until(|of| of[0].leader).await < millis(100));
    world.until(|of| of[0].replicas == all(&["one"])).await;
    let leader = world.lease(LEADER).unwrap();
    assert_eq!(leader["spec"]["holderIdentity"], "one");
    assert_eq!(leader["spec"]["leaseDurationSeconds"], 15);
    assert_eq!(leader["spec"]["leaseTransitions"], 0);
    assert!(leader["spec"]["renewTime"].is_string() && leader["spec"]["acquireTime"].is_string());

    let own = "agentic-controller-replica-one";
    let annotation = || world.lease(own).unwrap()["metadata"]["annotations"][super::PROXIES].clone();
    world.throughout(2, |of| of[0].leader).await;
    assert_eq!(annotation(), "{}");
    world.store.lock().unwrap().writes.clear();
    // Many changes at once come as one or two writes, within half a second.
    for version in 0..100 {
        world.replicas[0].published.send_replace(said(&format!("v{version}")));
        world.until(|of| of[0].proxies == said(&format!("v{version}"))).await;
    }
    world.until(|_| annotation() == r#"{"ns/gw":{"acknowledged":["v99"]}}"#).await;
    world.throughout(1, |of| of[0].leader).await;
    let writes = world.store.lock().unwrap().writes.iter().filter(|name| *name == own).count();
    assert!((2..=5).contains(&writes), "{writes} writes in two seconds");
}

#[tokio::test(start_paused = true)]
async fn what_is_said_is_known_to_the_others_within_a_second() {
    let world = World::of(&["one", "two"]);
    world.until(|of| of.iter().all(|of| of.replicas == all(&["one", "two"]))).await;
    world.throughout(7, |of| of.iter().filter(|of| of.leader).count() == 1).await;
    world.replicas[0].published.send_replace(said("v1"));
    assert!(world.until(|of| of.iter().all(|of| of.proxies == said("v1"))).await <= millis(600));
    world.replicas[1].published.send_replace(said("v2"));
    let mut both = said("v1");
    both.values_mut().next().unwrap().acknowledged.insert("v2".into());
    assert!(world.until(|of| of.iter().all(|of| of.proxies == both)).await <= millis(600));
    // For as long as they are well nothing changes.
    world.throughout(120, |of| of.iter().all(|of| of.replicas.len() == 2 && of.proxies == both)).await;
    assert_eq!(world.lease(LEADER).unwrap()["spec"]["leaseTransitions"], 0);
}

#[tokio::test(start_paused = true)]
async fn a_clean_stop_hands_over_at_once() {
    let world = World::of(&["one", "two"]);
    world.until(|of| of.iter().all(|of| of.replicas.len() == 2) && of.iter().any(|of| of.leader)).await;
    let (old, new) = (world.leader(), 1 - world.leader());
    world.replicas[old].published.send_replace(said("v1"));
    world.until(|of| of[new].proxies == said("v1")).await;
    world.replicas[old].stop.send_replace(true);
    assert!(world.until(|of| of[new].leader).await < millis(100));
    world.until(|of| of[new].replicas.len() == 1 && of[new].proxies.is_empty()).await;
    world.until(|_| world.replicas[old].taking_part.is_finished()).await;
    let name = ["one", "two"][old];
    assert_eq!(world.lease(&format!("agentic-controller-replica-{name}")), None);
    assert_eq!(world.lease(LEADER).unwrap()["spec"]["leaseTransitions"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_gives_up_before_another_takes_over() {
    for broken in [Link::Silent, Link::Refused] {
        let world = World::of(&["one", "two"]);
        world.until(|of| of.iter().all(|of| of.replicas.len() == 2) && of.iter().any(|of| of.leader)).await;
        let (old, new) = (world.leader(), 1 - world.leader());
        world.throughout(8, |of| of[old].leader).await;
        world.link(old, broken);
        let given_up = world.until(|of| !of[old].leader).await;
        assert!(given_up <= millis(10_050), "{broken:?}: {given_up:?}");
        let taken_over = given_up + world.until(|of| of[new].leader).await;
        assert!((millis(10_000)..=millis(16_000)).contains(&taken_over), "{broken:?}: {taken_over:?}");
        world.until(|of| of.iter().all(|of| of.replicas.len() == 1)).await;
        world.throughout(60, |of| of[new].leader).await;
        world.link(old, Link::Up);
        world.until(|of| of.iter().all(|of| of.replicas.len() == 2)).await;
        world.throughout(60, |of| of[new].leader && of.iter().all(|of| of.replicas.len() == 2)).await;
        assert_eq!(world.lease(LEADER).unwrap()["spec"]["leaseTransitions"], 1, "{broken:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_back_in_time_leads_on() {
    let world = World::of(&["one", "two"]);
    world.until(|of| of.iter().all(|of| of.replicas.len() == 2) && of.iter().any(|of| of.leader)).await;
    let leader = world.leader();
    for broken in [Link::Silent, Link::Refused] {
        world.throughout(7, |of| of[leader].leader).await;
        world.link(leader, broken);
        world.throughout(3, |of| of[leader].leader).await;
        world.link(leader, Link::Up);
        world.throughout(30, |of| of[leader].leader && of.iter().all(|of| of.replicas.len() == 2)).await;
    }
    // The API server is away for all: nobody leads, and then one does again.
    world.link(0, Link::Refused);
    world.link(1, Link::Refused);
    world.until(|of| of.iter().all(|of| !of.leader)).await;
    world.throughout(60, |of| of.iter().all(|of| !of.leader)).await;
    world.link(0, Link::Up);
    world.link(1, Link::Up);
    world.until(|of| of.iter().any(|of| of.leader) && of.iter().all(|of| of.replicas.len() == 2)).await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_vanished_is_forgotten_and_its_lease_deleted() {
    let world = World::of(&["one", "two"]);
    world.until(|of| of.iter().all(|of| of.replicas.len() == 2) && of.iter().any(|of| of.leader)).await;
    let (gone, left) = (world.leader(), 1 - world.leader());
    let mut membership = world.replicas[gone].membership.clone();
    world.replicas[gone].taking_part.abort();
    // Dropped, it does not lead, whatever its Lease says.
    world.until(|of| !of[gone].leader).await;
    assert!(!membership.borrow_and_update().leader);
    let forgotten = world.until(|of| of[left].replicas.len() == 1).await;
    assert!((millis(10_000)..=millis(15_100)).contains(&forgotten), "{forgotten:?}");
    world.until(|of| of[left].leader).await;
    let lease = format!("agentic-controller-replica-{}", ["one", "two"][gone]);
    world.throughout(60, |_| world.lease(&lease).is_some()).await;
    world.until(|_| world.lease(&lease).is_none()).await;
    world.throughout(30, |of| of[left].replicas.len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_died_unnoticed_does_not_make_the_others_vanish() {
    let world = World::of(&["one", "two"]);
    world.until(|of| of.iter().all(|of| of.replicas.len() == 2) && of.iter().any(|of| of.leader)).await;
    let leader = world.leader();
    world.link(0, Link::DeafWatches);
    world.link(1, Link::DeafWatches);
    world.throughout(200, |of| of[leader].leader && of.iter().all(|of| of.replicas.len() == 2)).await;
}

#[tokio::test(start_paused = true)]
async fn what_watches_say_late_delays_no_takeover() {
    for late in [0, 3, 8, 12, 19, 30] {
        let world = World::of(&["one", "two"]);
        world.until(|of| of.iter().all(|of| of.replicas.len() == 2) && of.iter().any(|of| of.leader)).await;
        let (old, new) = (world.leader(), 1 - world.leader());
        world.link(new, Link::LateWatches(Duration::from_secs(late)));
        let renewed = || world.lease(LEADER).unwrap()["spec"]["renewTime"].clone();
        world.throughout(62, |of| of[old].leader).await;
        let last = renewed();
        world.until(|_| renewed() != last).await;
        // Lost just after a renewal.
        world.replicas[old].taking_part.abort();
        world.until(|of| !of[old].leader).await;
        let taken_over = world.until(|of| of[new].leader).await;
        // It looks every 2 s, whatever the watch says.
        assert!((millis(14_900)..=millis(17_600)).contains(&taken_over), "{late} s: {taken_over:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_somebody_took_is_given_up() {
    let world = World::of(&["one"]);
    world.until(|of| of[0].leader).await;
    {
        let mut store = world.store.lock().unwrap();
        let mut lease = store.leases[LEADER].clone();
        lease["spec"]["holderIdentity"] = json!("somebody");
        store.put(lease, "MODIFIED");
    }
    assert!(world.until(|of| !of[0].leader).await < millis(100));
    let back = world.until(|of| of[0].leader).await;
    assert!((millis(14_900)..=millis(15_600)).contains(&back), "{back:?}");
}

#[tokio::test]
async fn a_duration_that_no_lease_can_say_is_an_error() {
    for (duration, expected) in [
        (Duration::from_millis(900), "a Lease cannot hold for 900ms; set a duration of whole seconds"),
        (
            Duration::from_secs(1 << 40),
            "a Lease cannot hold for 1099511627776s; set a duration of whole seconds",
        ),
    ] {
        let (service, _handle) = tower_test::mock::pair::<Request<Body>, Answer>();
        let settings = Settings { namespace: "system".into(), identity: "one".into(), duration };
        let (published, membership, stop) =
            (watch::channel(Published::new()), watch::channel(Membership::default()), watch::channel(false));
        let client = kube::Client::new(service, "default");
        let error = take_part(client, settings, published.1, membership.0, stop.1).await.unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn work_is_shared_about_evenly() {
    let replicas = all(&[
        "agentic-controller-7d9f-aaaaa",
        "agentic-controller-7d9f-bbbbb",
        "agentic-controller-7d9f-ccccc",
    ]);
    let mut shares: BTreeMap<&str, u32> = BTreeMap::new();
    for work in 0..3000 {
        *shares.entry(owner(&replicas, &format!("ns/request-{work}")).unwrap()).or_default() += 1;
    }
    assert_eq!(shares.len(), 3);
    assert!(shares.values().all(|share| (850..1150).contains(share)), "{shares:?}");
    assert_eq!(owner(&BTreeSet::new(), "work"), None);
}

proptest! {
    /// Only the work of a replica that goes moves, and all of it to those that stay.
    #[test]
    fn only_the_share_of_a_replica_moves(
        replicas in prop::collection::btree_set("[a-z]{1,8}", 1..6),
        gone in any::<prop::sample::Index>(),
        work in prop::collection::vec("[a-z/]{0,12}", 1..50),
    ) {
        let gone = replicas.iter().nth(gone.index(replicas.len())).unwrap().clone();
        let mut left = replicas.clone();
        left.remove(&gone);
        for work in work {
            let (before, after) = (owner(&replicas, &work).unwrap(), owner(&left, &work));
            if before == gone {
                prop_assert!(after.is_none_or(|after| left.contains(after)));
                prop_assert_eq!(after.is_none(), left.is_empty());
            } else {
                prop_assert_eq!(after, Some(before));
            }
        }
    }
}
