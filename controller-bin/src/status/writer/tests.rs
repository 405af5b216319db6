//! Against an API server that is told what to answer. Time is paused: it goes on when everybody waits.
use http::{Request, Response};
use kube::client::Body;
use serde_json::Value;
use tokio::{task::JoinSet, time::timeout};
use tower_test::mock::{Handle, SendResponse};

use super::*;

/// In paused time: longer than anything here waits.
const DEADLINE: Duration = Duration::from_secs(120);

struct Server {
    handle: Handle<Request<Body>, Response<Body>>,
    desired: watch::Sender<Arc<[Write]>>,
    tasks: JoinSet<()>,
}

impl Server {
    fn start() -> Self {
        let (service, handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let (desired, receiver) = watch::channel(Arc::from([]));
        let mut tasks = JoinSet::new();
        tasks.spawn(write_all(Client::new(service, "default"), receiver, |_| ()));
        Self { handle, desired, tasks }
    }

    /// The next request: its method, path and body.
    async fn request(&mut self) -> (String, Value, SendResponse<Response<Body>>) {
        let (request, answer) =
            timeout(DEADLINE, self.handle.next_request()).await.expect("a request").unwrap();
        assert_eq!(request.headers()["content-type"], "application/merge-patch+json");
        let line = format!("{} {}", request.method(), request.uri());
        let body = request.into_body().collect_bytes().await.unwrap();
        (line, serde_json::from_slice(&body).unwrap(), answer)
    }

    /// Answers the next request, which is of that object and version of it.
    async fn answer(&mut self, name: &str, version: &str, status: u16) {
        let (line, body, answer) = self.request().await;
        assert!(line.contains(&format!("/{name}/status")), "{line}");
        assert_eq!(body["metadata"]["resourceVersion"], version);
        answer.send_response(response(status));
    }

    /// Nothing is asked for, however long one waits.
    async fn is_quiet(&mut self) {
        assert!(
            timeout(DEADLINE, self.handle.next_request()).await.is_err(),
            "a request that nobody expects"
        );
    }

    fn want(&self, writes: &[Write]) {
        self.desired.send_replace(Arc::from(writes));
    }
}

fn response(status: u16) -> Response<Body> {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, "reason": "Test", "message": "a test"});
    Response::builder().status(status).body(Body::from(body.to_string().into_bytes())).unwrap()
}

fn of(name: &str, version: &str) -> Write {
    Write {
        object: ObjectRef {
            group: "gateway.networking.k8s.io".to_owned(),
            kind: "Gateway".to_owned(),
            namespace: "ns".to_owned(),
            name: name.to_owned(),
        },
        api_version: "gateway.networking.k8s.io/v1".to_owned(),
        resource_version: version.to_owned(),
        status: json!({"addresses": []}),
    }
}

#[tokio::test(start_paused = true)]
async fn a_merge_patch_of_the_subresource_for_one_version_of_the_object() {
    let mut server = Server::start();
    let class = Write {
        object: ObjectRef {
            kind: "GatewayClass".to_owned(),
            namespace: String::new(),
            ..of("c", "7").object
        },
        ..of("c", "7")
    };
    server.want(&[of("g", "3")]);
    let (line, body, answer) = server.request().await;
    let path = "/apis/gateway.networking.k8s.io/v1/namespaces/ns/gateways/g/status";
    assert_eq!(line, format!("PATCH {path}?&fieldManager=agentic-controller"));
    assert_eq!(body, json!({"metadata": {"resourceVersion": "3"}, "status": {"addresses": []}}));
    answer.send_response(response(200));
    server.want(&[class]);
    let (line, _, answer) = server.request().await;
    assert_eq!(
        line,
        "PATCH /apis/gateway.networking.k8s.io/v1/gatewayclasses/c/status?&fieldManager=agentic-controller"
    );
    answer.send_response(response(200));
    server.is_quiet().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_settled_is_not_written_again() {
    for status in [200, 404, 409, 422] {
        let mut server = Server::start();
        server.want(&[of("g", "3")]);
        server.answer("g", "3", status).await;
        // The same is wanted still: the event of the write has not come back yet.
        server.want(&[of("g", "3"), of("h", "1")]);
        server.answer("h", "1", 200).await;
        server.is_quiet().await;
        server.want(&[of("g", "4")]);
        server.answer("g", "4", 200).await;
        // What was wanted in between by nobody is written again.
        server.want(&[]);
        server.is_quiet().await;
        server.want(&[of("g", "4")]);
        server.answer("g", "4", 200).await;
    }
}

fn at(version: &str, time: &str) -> Write {
    Write { status: json!({"conditions": [{"lastTransitionTime": time}]}), ..of("g", version) }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_to_a_version_that_is_past() {
    // Answered with this version; whether a second status of version 3 is tried.
    for (answered, tried) in [(Some("4"), false), (Some("3"), true), (None, true)] {
        let mut server = Server::start();
        server.want(&[at("3", "first")]);
        let (.., answer) = server.request().await;
        let object = json!({"kind": "Gateway", "metadata": {"name": "g", "resourceVersion": answered}});
        answer.send_response(Response::new(Body::from(object.to_string().into_bytes())));
        server.want(&[at("3", "second")]);
        if tried {
            server.answer("g", "3", 200).await;
        }
        server.is_quiet().await;
        server.want(&[at("4", "second")]);
        server.answer("g", "4", 200).await;
    }
    // A conflict says the same; what is refused for itself may be another status the next time.
    for (status, tried) in [(409, false), (422, true)] {
        let mut server = Server::start();
        server.want(&[at("3", "first")]);
        server.answer("g", "3", status).await;
        server.want(&[at("3", "second")]);
        if tried {
            server.answer("g", "3", 200).await;
        }
        server.is_quiet().await;
    }
}

#[tokio::test(start_paused = true)]
async fn failures_are_tried_again_alone() {
    let mut server = Server::start();
    server.want(&[of("g", "3"), of("h", "1")]);
    let (first, _, one) = server.request().await;
    let (second, _, other) = server.request().await;
    assert!(first.contains("/g/") && second.contains("/h/"));
    one.send_response(response(503));
    other.send_response(response(200));
    for status in [500, 429, 403] {
        server.answer("g", "3", status).await;
    }
    // An answer that does not come is waited for no longer than this.
    let (line, _, never) = server.request().await;
    assert!(line.contains("/g/"));
    server.answer("g", "3", 200).await;
    drop(never);
    server.is_quiet().await;
}

#[tokio::test(start_paused = true)]
async fn a_newer_list_takes_the_place_of_the_rest() {
    let mut server = Server::start();
    let many: Vec<_> = (0..100).map(|number| of(&format!("old-{number}"), "1")).collect();
    server.want(&many);
    let mut open = Vec::new();
    for _ in 0..AT_ONCE {
        open.push(server.request().await.2);
    }
    // No more than these at a time.
    assert!(timeout(Duration::from_millis(1), server.handle.next_request()).await.is_err());
    server.want(&[of("new", "1")]);
    for answer in open {
        answer.send_response(response(200));
    }
    server.answer("new", "1", 200).await;
    server.is_quiet().await;
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_its_sender() {
    let Server { handle: _handle, desired, mut tasks } = Server::start();
    drop(desired);
    timeout(DEADLINE, tasks.join_next()).await.expect("an end").unwrap().unwrap();
}
