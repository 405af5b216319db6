//! Against an API server that is told what to answer. Time is paused: it goes on when everybody waits.
use std::convert::Infallible;

use futures_util::stream;
use http::{Request, Response};
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Bytes, Frame};
use kube::{Client, client::Body};
use serde_json::json;
use tokio::time::timeout;
use tower_test::mock::{Handle, SendResponse};

use super::*;

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// In paused time: longer than anything here waits.
const DEADLINE: std::time::Duration = std::time::Duration::from_secs(120);

/// An API server with one client.
struct Server {
    handle: Handle<Request<Body>, Answer>,
    events: mpsc::Receiver<Event>,
    _tasks: JoinSet<()>,
}

/// A watch that is open.
struct Stream(mpsc::UnboundedSender<Bytes>);

impl Stream {
    fn send(&self, r#type: &str, object: &Value) {
        let line = format!("{}\n", json!({"type": r#type, "object": object}));
        self.0.send(Bytes::from(line)).unwrap();
    }
}

impl Server {
    fn of(kind: &str) -> Self {
        let watched = WATCHED.iter().find(|watched| watched.kind == kind).unwrap();
        Self::with(|client, events| follow::follow(client, watched, events))
    }

    fn with<F: Future<Output = ()> + Send + 'static>(
        start: impl FnOnce(Client, mpsc::Sender<Event>) -> F,
    ) -> Self {
        let (service, handle) = tower_test::mock::pair::<Request<Body>, Answer>();
        let (sender, events) = mpsc::channel(100);
        let mut tasks = JoinSet::new();
        tasks.spawn(start(Client::new(service, "default"), sender));
        Self { handle, events, _tasks: tasks }
    }

    /// The next request, which must be for this path and have these in its query.
    async fn request(&mut self, path: &str, query: &[&str]) -> SendResponse<Answer> {
        let next = timeout(DEADLINE, self.handle.next_request()).await;
        let (request, answer) = next.expect("a request").expect("a client");
        let uri = request.uri();
        assert_eq!(uri.path(), path);
        for part in query {
            assert!(uri.query().unwrap_or_default().contains(part), "{uri} has no `{part}`");
        }
        answer
    }

    async fn answer(&mut self, path: &str, query: &[&str], status: u16, body: &Value) {
        self.plain(path, query, status, &body.to_string()).await;
    }

    async fn plain(&mut self, path: &str, query: &[&str], status: u16, body: &str) {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let body = StreamBody::new(stream::iter([Ok(Frame::data(body))])).boxed_unsync();
        let answer = Response::builder().status(status).body(body).unwrap();
        self.request(path, query).await.send_response(answer);
    }

    async fn fail(&mut self, path: &str, query: &[&str], status: u16) {
        let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, "reason": "Test", "message": "a test"});
        self.answer(path, query, status, &body).await;
    }

    /// Answers a watch, and leaves it open.
    async fn watch(&mut self, path: &str, query: &[&str]) -> Stream {
        let (sender, receiver) = mpsc::unbounded_channel();
        let lines = stream::unfold(receiver, |mut receiver: mpsc::UnboundedReceiver<Bytes>| async {
            let line = receiver.recv().await?;
            Some((Ok(Frame::data(line)), receiver))
        });
        let answer = Response::new(StreamBody::new(lines).boxed_unsync());
        self.request(path, &[&["watch=true"], query].concat()).await.send_response(answer);
        Stream(sender)
    }

    async fn event(&mut self) -> Event {
        timeout(DEADLINE, self.events.recv()).await.expect("an event").expect("a task")
    }

    #[track_caller]
    fn is_quiet(&mut self) {
        assert!(self.events.try_recv().is_err(), "an event that nobody expects");
    }
}

const SERVICES: &str = "/api/v1/services";
const POLICIES: &str = "/apis/agentic.networking.x-k8s.io/v1alpha1/xaccesspolicies";

/// An item of a list: without apiVersion and kind.
fn item(name: &str, version: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "ns", "resourceVersion": version, "managedFields": [{"manager": "kubectl"}]},
        "spec": {"of": name},
    })
}

/// What becomes of it.
fn seen(api_version: &str, kind: &str, name: &str, version: &str) -> Value {
    json!({
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": name, "namespace": "ns", "resourceVersion": version},
        "spec": {"of": name},
    })
}

fn service(name: &str, version: &str) -> Value {
    seen("v1", "Service", name, version)
}

fn list(version: &str, items: &[Value]) -> Value {
    json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items})
}

fn page(token: &str, items: &[Value]) -> Value {
    json!({"kind": "List", "apiVersion": "v1", "metadata": {"continue": token}, "items": items})
}

fn services(objects: Vec<Value>) -> Event {
    Event::Reset(Kind { group: String::new(), kind: "Service".to_owned() }, objects)
}

fn deleted(group: &str, kind: &str, name: &str) -> Event {
    Event::Delete(ObjectRef {
        group: group.to_owned(),
        kind: kind.to_owned(),
        namespace: "ns".to_owned(),
        name: name.to_owned(),
    })
}

#[tokio::test(start_paused = true)]
async fn a_list_comes_whole_or_not_at_all() {
    let mut server = Server::of("Service");
    server.answer(SERVICES, &["limit=500"], 200, &page("more", &[item("a", "1")])).await;
    server.fail(SERVICES, &["continue=more"], 500).await;
    server.answer(SERVICES, &["limit=500"], 200, &page("more", &[item("a", "1")])).await;
    server.is_quiet();
    server.answer(SERVICES, &["continue=more"], 200, &list("7", &[item("b", "2")])).await;
    assert_eq!(server.event().await, services(vec![service("a", "1"), service("b", "2")]));
    let _stream = server.watch(SERVICES, &["resourceVersion=7", "allowWatchBookmarks=true"]).await;
    server.is_quiet();
}

#[tokio::test(start_paused = true)]
async fn changes_and_a_watch_that_ends() {
    let mut server = Server::of("Service");
    server.answer(SERVICES, &[], 200, &list("1", &[])).await;
    assert_eq!(server.event().await, services(vec![]));
    let stream = server.watch(SERVICES, &["resourceVersion=1"]).await;
    stream.send("ADDED", &item("a", "2"));
    assert_eq!(server.event().await, Event::Apply(Box::new(service("a", "2"))));
    stream.send("MODIFIED", &item("a", "3"));
    assert_eq!(server.event().await, Event::Apply(Box::new(service("a", "3"))));
    stream.send("DELETED", &item("a", "4"));
    assert_eq!(server.event().await, deleted("", "Service", "a"));
    stream.send(
        "BOOKMARK",
        &json!({"kind": "Service", "apiVersion": "v1", "metadata": {"resourceVersion": "9"}}),
    );
    drop(stream);
    // It goes on where it was; errors change nothing.
    server.fail(SERVICES, &["resourceVersion=9"], 503).await;
    server.fail(SERVICES, &["resourceVersion=9"], 500).await;
    let stream = server.watch(SERVICES, &["resourceVersion=9"]).await;
    server.is_quiet();
    stream.send("ADDED", &item("b", "10"));
    assert_eq!(server.event().await, Event::Apply(Box::new(service("b", "10"))));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_expired_is_one_new_list() {
    let mut server = Server::of("Service");
    server.answer(SERVICES, &[], 200, &list("1", &[item("a", "1")])).await;
    assert_eq!(server.event().await, services(vec![service("a", "1")]));
    let stream = server.watch(SERVICES, &["resourceVersion=1"]).await;
    stream.send("ERROR", &json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old"}));
    server.answer(SERVICES, &["limit=500"], 200, &list("5", &[item("b", "5")])).await;
    assert_eq!(server.event().await, services(vec![service("b", "5")]));
    // The same as an HTTP status.
    server.fail(SERVICES, &["watch=true", "resourceVersion=5"], 410).await;
    server.answer(SERVICES, &["limit=500"], 200, &list("6", &[item("c", "6")])).await;
    assert_eq!(server.event().await, services(vec![service("c", "6")]));
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_installed_later_and_removed_again() {
    let kind = Kind { group: NETWORKING_GROUP.to_owned(), kind: "XAccessPolicy".to_owned() };
    let mut server = Server::of("XAccessPolicy");
    server.fail(POLICIES, &[], 404).await;
    assert_eq!(server.event().await, Event::Reset(kind.clone(), vec![]));
    for _ in 0..10 {
        server.fail(POLICIES, &[], 404).await;
    }
    server.is_quiet();
    server.answer(POLICIES, &[], 200, &list("1", &[item("p", "1")])).await;
    let policy = seen("agentic.networking.x-k8s.io/v1alpha1", "XAccessPolicy", "p", "1");
    assert_eq!(server.event().await, Event::Reset(kind.clone(), vec![policy]));
    let stream = server.watch(POLICIES, &["resourceVersion=1"]).await;
    stream.send("DELETED", &item("p", "2"));
    assert_eq!(server.event().await, deleted(NETWORKING_GROUP, "XAccessPolicy", "p"));
    drop(stream);
    // The API server's answer for what it does not know is no Status.
    server.plain(POLICIES, &["watch=true"], 404, "404 page not found\n").await;
    for _ in 0..follow::GONE - 1 {
        server.plain(POLICIES, &["limit=500"], 404, "404 page not found\n").await;
    }
    server.is_quiet();
    server.plain(POLICIES, &["limit=500"], 404, "404 page not found\n").await;
    assert_eq!(server.event().await, Event::Reset(kind, vec![]));
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_starts_empties_nothing() {
    let mut server = Server::of("XAccessPolicy");
    server.answer(POLICIES, &[], 200, &list("1", &[item("p", "1")])).await;
    server.event().await;
    drop(server.watch(POLICIES, &["resourceVersion=1"]).await);
    for _ in 0..follow::GONE - 1 {
        server.fail(POLICIES, &[], 404).await;
    }
    server.answer(POLICIES, &["limit=500"], 200, &list("1", &[item("p", "1")])).await;
    let policy = seen("agentic.networking.x-k8s.io/v1alpha1", "XAccessPolicy", "p", "1");
    let kind = Kind { group: NETWORKING_GROUP.to_owned(), kind: "XAccessPolicy".to_owned() };
    assert_eq!(server.event().await, Event::Reset(kind, vec![policy]));
}

#[tokio::test(start_paused = true)]
async fn an_older_version_where_the_newer_is_not_served() {
    let mut server = Server::of("ReferenceGrant");
    server.fail("/apis/gateway.networking.k8s.io/v1/referencegrants", &[], 404).await;
    let path = "/apis/gateway.networking.k8s.io/v1beta1/referencegrants";
    server.answer(path, &[], 200, &list("1", &[item("g", "1")])).await;
    let kind = Kind { group: GATEWAY_GROUP.to_owned(), kind: "ReferenceGrant".to_owned() };
    let grant = seen("gateway.networking.k8s.io/v1beta1", "ReferenceGrant", "g", "1");
    assert_eq!(server.event().await, Event::Reset(kind, vec![grant]));
}

#[tokio::test(start_paused = true)]
async fn odd_metadata_hides_nothing() {
    let odd = json!({
        "metadata": {
            "name": "odd", "resourceVersion": "2", "creationTimestamp": "yesterday", "labels": {"a": 1},
            "ownerReferences": "nobody", "generation": "1", "finalizers": [null], "new": {"field": true},
        },
        "spec": null,
    });
    let mut expected = odd.clone();
    expected["apiVersion"] = json!("v1");
    expected["kind"] = json!("Service");
    let mut server = Server::of("Service");
    server.answer(SERVICES, &[], 200, &list("1", std::slice::from_ref(&odd))).await;
    assert_eq!(server.event().await, services(vec![expected.clone()]));
    let stream = server.watch(SERVICES, &[]).await;
    stream.send("MODIFIED", &odd);
    assert_eq!(server.event().await, Event::Apply(Box::new(expected)));
}

#[tokio::test(start_paused = true)]
async fn secrets_one_by_one() {
    let (name, other) = (NamespacedName::new("ns", "s"), NamespacedName::new("ns", "t"));
    let path = "/api/v1/namespaces/ns/secrets/s";
    let secret = |version: &str| Event::Apply(Box::new(seen("v1", "Secret", "s", version)));
    let (want, wanted) = watch::channel(BTreeSet::new());
    let mut server = Server::with(|client, events| secrets::follow(client, wanted, events));
    want.send_replace(BTreeSet::from([name.clone()]));
    server.answer(path, &[], 200, &item("s", "1")).await;
    assert_eq!(server.event().await, secret("1"));
    // Looked at again; the same is no event, an error is none either.
    server.answer(path, &[], 200, &item("s", "1")).await;
    server.fail(path, &[], 500).await;
    server.answer(path, &[], 200, &item("s", "2")).await;
    assert_eq!(server.event().await, secret("2"));
    server.fail(path, &[], 404).await;
    assert_eq!(server.event().await, deleted("", "Secret", "s"));
    server.answer(path, &[], 200, &item("s", "3")).await;
    assert_eq!(server.event().await, secret("3"));
    // One that is newly wanted is asked for at once, alone; one that is not wanted any more is forgotten.
    want.send_replace(BTreeSet::from([name, other.clone()]));
    server.fail("/api/v1/namespaces/ns/secrets/t", &[], 404).await;
    assert_eq!(server.event().await, deleted("", "Secret", "t"));
    want.send_replace(BTreeSet::from([other]));
    assert_eq!(server.event().await, deleted("", "Secret", "s"));
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_is_refused_holds_nobody_up() {
    let path = "/api/v1/namespaces/ns/secrets/s";
    let (want, wanted) = watch::channel(BTreeSet::new());
    let mut server = Server::with(|client, events| secrets::follow(client, wanted, events));
    want.send_replace(BTreeSet::from([NamespacedName::new("ns", "s")]));
    server.fail(path, &[], 403).await;
    assert_eq!(server.event().await, deleted("", "Secret", "s"));
    // It is asked for again; what was known is not given up because of a refusal.
    server.answer(path, &[], 200, &item("s", "1")).await;
    assert_eq!(server.event().await, Event::Apply(Box::new(seen("v1", "Secret", "s", "1"))));
    server.fail(path, &[], 403).await;
    server.answer(path, &[], 200, &item("s", "2")).await;
    assert_eq!(server.event().await, Event::Apply(Box::new(seen("v1", "Secret", "s", "2"))));
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_its_receiver() {
    let (service, _handle) = tower_test::mock::pair::<Request<Body>, Answer>();
    let (sender, events) = mpsc::channel(1);
    let (_want, wanted) = watch::channel(BTreeSet::new());
    let all = watch_all(Client::new(service, "default"), wanted, sender);
    drop(events);
    timeout(DEADLINE, all).await.expect("an end").unwrap();
}

#[test]
fn synced_when_every_kind_and_secret_was_seen() {
    let secret = NamespacedName::new("ns", "s");
    let wanted = BTreeSet::from([secret]);
    let mut synced = Synced::new();
    for kind in kinds() {
        assert!(!synced.is_done(&BTreeSet::new()), "{:?}", synced.missing().collect::<Vec<_>>());
        synced.see(&Event::Reset(kind, vec![]));
    }
    assert!(synced.is_listed() && !synced.is_done(&wanted));
    synced.see(&deleted("", "Secret", "other"));
    assert!(!synced.is_done(&wanted));
    synced.see(&Event::Apply(Box::new(seen("v1", "Secret", "s", "1"))));
    assert!(synced.is_done(&wanted));
    // A Secret that is named later is no reason to stop.
    assert!(synced.is_done(&BTreeSet::from([NamespacedName::new("ns", "later")])));
}
