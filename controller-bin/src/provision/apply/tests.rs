use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::client::Body;
use policy_model::NamespacedName;
use serde_json::json;

use super::*;
use crate::provision::{DataPlane, EnvoyImage, release};

/// As much of an API server as `apply` speaks to: objects by path, and what was asked.
#[derive(Debug, Clone, Default)]
struct Server(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Value>,
    requests: Vec<String>,
    bodies: Vec<Value>,
    /// What a write of a path is answered with instead.
    refusals: BTreeMap<String, (u16, String)>,
}

impl Server {
    fn client(&self) -> kube::Client {
        let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let server = self.clone();
        tokio::spawn(async move {
            while let Some((request, send)) = handle.next_request().await {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let (code, answer) = server.answer(&parts, &body);
                let answer =
                    Response::builder().status(code).body(Body::from(answer.to_string().into_bytes()));
                send.send_response(answer.unwrap());
            }
        });
        kube::Client::new(service, "default")
    }

    fn answer(&self, parts: &http::request::Parts, body: &[u8]) -> (u16, Value) {
        let mut state = self.0.lock().unwrap();
        let path = parts.uri.path().to_owned();
        let short = path.rsplit('/').nth(1).unwrap().to_owned();
        let query = parts.uri.query().unwrap_or_default();
        if parts.method != Method::GET {
            state.requests.push(format!("{} {short}", parts.method));
            state.bodies.push(serde_json::from_slice(body).unwrap_or_default());
            if let Some((code, message)) = state.refusals.get(&short) {
                return (*code, status(*code, message));
            }
        }
        match parts.method {
            Method::GET => match state.objects.get(&path) {
                Some(object) => (200, object.clone()),
                None => (404, status(404, "not found")),
            },
            Method::PATCH => {
                let mut object: Value = serde_json::from_slice(body).unwrap();
                let patch_type = parts.headers["content-type"].to_str().unwrap();
                if patch_type == "application/json-patch+json" {
                    return (200, json!({"apiVersion": "v1", "kind": "X", "metadata": {"name": "x"}}));
                }
                assert_eq!(patch_type, "application/apply-patch+yaml");
                assert!(
                    query.contains("force=true") && query.contains("fieldManager=agentic-controller"),
                    "{query}"
                );
                // What the API server fills in.
                object["metadata"]["uid"] = json!("made-by-the-server");
                object["metadata"]["resourceVersion"] = json!("7");
                object["status"] = json!({"observedGeneration": 1});
                state.objects.insert(path, object.clone());
                (200, object)
            }
            Method::DELETE => {
                let object = state.objects.remove(&path).unwrap();
                let body: Value = serde_json::from_slice(body).unwrap();
                assert_eq!(body["preconditions"]["uid"], object["metadata"]["uid"]);
                (200, object)
            }
            _ => (StatusCode::METHOD_NOT_ALLOWED.as_u16(), status(405, "no")),
        }
    }

    fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().requests)
    }

    fn edit(&self, path: &str, change: impl FnOnce(&mut Value)) {
        change(self.0.lock().unwrap().objects.get_mut(path).unwrap());
    }

    fn put(&self, path: &str, object: Value) {
        self.0.lock().unwrap().objects.insert(path.to_owned(), object);
    }
}

fn status(code: u16, message: &str) -> Value {
    let reason = if code == 404 { "NotFound" } else { "Forbidden" };
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message, "reason": reason})
}

// sha256("ns/gw"), by sha256sum.
const NAME: &str = "envoy-proxy-057713b22de2";

fn path(kind: &str) -> String {
    let prefix = match kind {
        "deployments" => "/apis/apps/v1",
        "poddisruptionbudgets" => "/apis/policy/v1",
        _ => "/api/v1",
    };
    format!("{prefix}/namespaces/ns/{kind}/{NAME}")
}

fn proxy() -> Proxy {
    Proxy {
        gateway: NamespacedName::new("ns", "gw"),
        uid: "u-1".to_owned(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        ports: vec![80],
        data_plane: DataPlane::Native,
        image: None,
        replicas: 1,
        flags: Vec::new(),
    }
}

fn settings() -> Settings {
    Settings {
        gateway_image: "gateway:1".to_owned(),
        envoy_image: EnvoyImage::read("docker.io/envoyproxy/envoy:distroless-v1.40.0", None).unwrap(),
        xds_host: "agentic-controller.agentic-net-system.svc".to_owned(),
        xds_port: 15010,
        xds_server_id: "spiffe://cluster.local/ns/agentic-net-system/sa/agentic-controller".to_owned(),
        trust_domain: "cluster.local".to_owned(),
        signer: "example.com/signer".to_owned(),
        flags: Vec::new(),
    }
}

const ALL: [&str; 5] = [
    "PATCH serviceaccounts",
    "PATCH configmaps",
    "PATCH deployments",
    "PATCH poddisruptionbudgets",
    "PATCH services",
];

async fn applied(server: &Server, proxy: &Proxy) -> Vec<String> {
    apply(&server.client(), proxy, &settings()).await.unwrap();
    server.take_requests()
}

#[tokio::test]
async fn writes_once_and_repairs_drift() {
    let server = Server::default();
    assert_eq!(applied(&server, &proxy()).await, ALL);
    assert!(applied(&server, &proxy()).await.is_empty());

    server.edit(&path("deployments"), |deployment| {
        deployment["spec"]["template"]["spec"]["containers"][0]["image"] = json!("other:1");
    });
    assert_eq!(applied(&server, &proxy()).await, ["PATCH deployments"]);
    server.0.lock().unwrap().objects.remove(&path("services"));
    assert_eq!(applied(&server, &proxy()).await, ["PATCH services"]);
    assert!(applied(&server, &proxy()).await.is_empty());
}

#[tokio::test]
async fn a_change_writes_what_it_concerns() {
    let server = Server::default();
    applied(&server, &proxy()).await;
    let two_ports = Proxy { ports: vec![80, 443], ..proxy() };
    assert_eq!(applied(&server, &two_ports).await, ["PATCH services"]);
    // A port that is gone: the live object still has everything that is wanted, and more.
    assert_eq!(applied(&server, &proxy()).await, ["PATCH services"]);
    let image = Proxy { image: Some("gateway:2".to_owned()), ..proxy() };
    assert_eq!(applied(&server, &image).await, ["PATCH deployments"]);
    let replicas = Proxy { replicas: 2, ..image };
    assert_eq!(applied(&server, &replicas).await, ["PATCH deployments"]);
    let flags = Proxy { flags: vec!["--filter-lists".to_owned()], ..replicas.clone() };
    assert_eq!(applied(&server, &flags).await, ["PATCH configmaps", "PATCH deployments"]);
    assert_eq!(applied(&server, &replicas).await, ["PATCH configmaps", "PATCH deployments"]);
    let labelled =
        Proxy { labels: BTreeMap::from([("team".to_owned(), "a".to_owned())]), ..replicas.clone() };
    assert_eq!(applied(&server, &labelled).await, ALL);
    assert_eq!(applied(&server, &replicas).await, ALL);
    // The Gateway was deleted and made again: the owner is another one.
    assert_eq!(applied(&server, &Proxy { uid: "u-2".to_owned(), ..replicas }).await, ALL);
}

#[tokio::test]
async fn what_is_not_wanted_is_deleted_if_it_is_ours() {
    let server = Server::default();
    applied(&server, &proxy()).await;
    let without = Proxy { ports: Vec::new(), ..proxy() };
    assert_eq!(applied(&server, &without).await, ["DELETE services"], "a Service needs ports");
    assert!(applied(&server, &without).await.is_empty());

    server.put(&path("services"), json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME}}));
    assert!(applied(&server, &without).await.is_empty(), "this one is not ours");
}

#[tokio::test]
async fn someone_elses_objects_are_left_alone() {
    for metadata in [
        json!({"name": NAME}),
        json!({"name": NAME, "labels": {"gateway.networking.k8s.io/gateway-name": "gw"},
               "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "r", "controller": true}]}),
        json!({"name": NAME,
               "ownerReferences": [{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "name": "gw2", "uid": "r"}]}),
    ] {
        let server = Server::default();
        server.put(
            &path("deployments"),
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata}),
        );
        let error = apply(&server.client(), &proxy(), &settings()).await.unwrap_err();
        assert_eq!(
            error,
            format!(
                "Deployment `ns/{NAME}` belongs to someone else; delete it, or give the Gateway another name"
            )
        );
        assert_eq!(
            server.take_requests(),
            ["PATCH serviceaccounts", "PATCH configmaps", "PATCH poddisruptionbudgets", "PATCH services"],
            "the others are applied all the same"
        );
    }
}

#[tokio::test]
async fn a_deployment_with_another_selector_is_replaced() {
    let server = Server::default();
    server.put(
        &path("deployments"),
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": NAME, "uid": "d", "labels": {"gateway.networking.k8s.io/gateway-name": "gw"}},
            "spec": {"selector": {"matchLabels": {"app": NAME}}}}),
    );
    assert_eq!(
        applied(&server, &proxy()).await,
        [
            "PATCH serviceaccounts",
            "PATCH configmaps",
            "DELETE deployments",
            "PATCH deployments",
            "PATCH poddisruptionbudgets",
            "PATCH services",
        ]
    );
    assert!(applied(&server, &proxy()).await.is_empty());
}

#[tokio::test]
async fn errors_name_the_object_and_what_the_server_said() {
    let server = Server::default();
    server.0.lock().unwrap().refusals.insert("services".to_owned(), (403, "exceeded quota".to_owned()));
    assert_eq!(
        apply(&server.client(), &proxy(), &settings()).await.unwrap_err(),
        format!("cannot apply Service `{NAME}`: the API server says: exceeded quota")
    );
    server.edit(&path("deployments"), |deployment| {
        deployment["metadata"]["deletionTimestamp"] = json!("2026-11-23T15:00:00Z");
    });
    server.0.lock().unwrap().refusals.clear();
    assert_eq!(
        apply(&server.client(), &proxy(), &settings()).await.unwrap_err(),
        format!("Deployment `{NAME}` is being deleted; it is made again when it is gone")
    );
}

#[tokio::test]
async fn finalizers_are_patched_at_their_object() {
    let server = Server::default();
    let finalizer = "kube-agentic-networking.sigs.k8s.io/gateway-finalizer";
    let gateway = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"namespace": "ns", "name": "gw", "finalizers": [finalizer]}});
    assert_eq!(release(&server.client(), &gateway).await, Ok(true));
    assert_eq!(server.take_requests(), ["PATCH gateways"]);
    assert_eq!(
        server.0.lock().unwrap().bodies,
        [json!([
            {"op": "test", "path": "/metadata/finalizers", "value": [finalizer]},
            {"op": "replace", "path": "/metadata/finalizers", "value": []},
        ])]
    );
    let clean =
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "gw"}});
    assert_eq!(release(&server.client(), &clean).await, Ok(false));
    assert!(server.take_requests().is_empty());
}
