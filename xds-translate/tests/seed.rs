//! The quickstart's manifests, from text to the whole snapshot.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test that cannot go on should fail there"
)]
use std::{collections::BTreeMap, net::Ipv4Addr};

use authz_core::Effect;
use policy_model::NamespacedName;
use xds_translate::{
    AuthorizerBackend, Backend, BackendId, BackendKind, ClientCertificates, Destination, Endpoint, Listener,
    ListenerTls, Objects, Options, PathRewrite, Protocol, Resolution, RouteRequest, Router, RuleId,
    UpstreamTls, resolve,
};

fn seed() -> Resolution {
    let mut objects = Objects::default();
    let skipped = objects.add_yaml("seed.yaml", include_str!("manifests/seed.yaml")).unwrap();
    assert_eq!(skipped, Vec::<String>::new());
    resolve(&objects, &Options::default())
}

fn name(name: &str) -> NamespacedName {
    NamespacedName::new("quickstart-ns", name)
}

fn endpoint(last: [u8; 4], port: u16) -> Endpoint {
    Endpoint { address: Ipv4Addr::from(last).into(), port }
}

fn spiffe() -> Option<ListenerTls> {
    Some(ListenerTls { certificates: Vec::new(), clients: ClientCertificates::SpiffeRequired })
}

#[test]
fn listeners_backends_and_authorizers() {
    let resolution = seed();
    let gateways: Vec<_> = resolution.gateways.keys().collect();
    assert_eq!(gateways, [&name("agentic-net-gateway")]);
    let snapshot = &resolution.gateways[&name("agentic-net-gateway")];

    let routes = vec![(RuleId(0), Vec::new()), (RuleId(1), Vec::new()), (RuleId(2), Vec::new())];
    let listener = |name: &str, port, protocol, tls| Listener {
        name: name.to_owned(),
        port,
        protocol,
        hostname: None,
        tls,
        routes: routes.clone(),
    };
    assert_eq!(
        snapshot.listeners,
        [
            listener("https", 10001, Protocol::Https, spiffe()),
            listener("plain", 10002, Protocol::Http, None),
            listener("https2", 10003, Protocol::Https, spiffe()),
        ]
    );

    let local = Backend {
        id: BackendId::XBackend(name("local-mcp-backend")),
        kind: BackendKind::XBackend { path: "/mcp".to_owned() },
        // The one that is not ready is left out.
        destination: Destination::Endpoints(vec![
            endpoint([10, 0, 0, 1], 13001),
            endpoint([10, 0, 0, 2], 13001),
        ]),
        tls: None,
        h2c: false,
    };
    let remote = Backend {
        id: BackendId::XBackend(name("remote-mcp-backend")),
        kind: BackendKind::XBackend { path: "/mcp".to_owned() },
        destination: Destination::Hostname { host: "mcp.deepwiki.com".to_owned(), port: 443 },
        tls: Some(UpstreamTls {
            server_name: "mcp.deepwiki.com".to_owned(),
            ca_pem: Vec::new(),
            san_names: Vec::new(),
            san_uris: Vec::new(),
        }),
        h2c: false,
    };
    let service = |service: &str, port, endpoints| Backend {
        id: BackendId::Service(name(service), port),
        kind: BackendKind::Service,
        destination: Destination::Endpoints(endpoints),
        tls: None,
        h2c: false,
    };
    let backends: BTreeMap<_, _> = [
        local,
        remote,
        service("authz", 50051, vec![endpoint([10, 0, 1, 1], 50051)]),
        service("mcp-two-svc", 3002, Vec::new()),
    ]
    .into_iter()
    .map(|backend| (backend.id.clone(), backend))
    .collect();
    assert_eq!(snapshot.backends, backends);

    assert_eq!(
        snapshot.authorizers,
        [AuthorizerBackend {
            authority: "authz.quickstart-ns.svc".to_owned(),
            endpoints: vec![endpoint([10, 0, 1, 1], 50051)],
        }]
    );
    assert_eq!(snapshot.engine.authorizers().len(), 1);
}

#[test]
fn rules() {
    let resolution = seed();
    let snapshot = &resolution.gateways[&name("agentic-net-gateway")];
    let found: Vec<_> = snapshot
        .rules
        .iter()
        .map(|rule| {
            let backends: Vec<_> = rule
                .backends
                .iter()
                .map(|backend| (backend.backend.clone().unwrap(), backend.weight))
                .collect();
            (rule.route.clone(), rule.index, rule.filters.path.clone(), backends)
        })
        .collect();
    let rewrite = Some(PathRewrite::Prefix("/mcp".to_owned()));
    assert_eq!(
        found,
        [
            (
                name("httproute-local-mcp"),
                0,
                rewrite.clone(),
                vec![(BackendId::XBackend(name("local-mcp-backend")), 1)]
            ),
            (
                name("httproute-remote-mcp"),
                0,
                rewrite,
                vec![(BackendId::XBackend(name("remote-mcp-backend")), 1)]
            ),
            (name("httproute-service"), 0, None, vec![(BackendId::Service(name("mcp-two-svc"), 3002), 1)]),
        ]
    );
}

#[test]
fn everything_is_accepted() {
    let resolution = seed();
    for status in &resolution.statuses {
        assert!(status.is_accepted(), "{status:#?}");
    }
    let subjects: Vec<_> = resolution
        .statuses
        .iter()
        .map(|status| format!("{} {} [{}]", status.object.kind, status.object.name, status.scope))
        .collect();
    assert_eq!(
        subjects,
        [
            "XBackend local-mcp-backend []",
            "XBackend remote-mcp-backend []",
            "XAccessPolicy auth-policy-local-mcp [ancestor XBackend quickstart-ns/local-mcp-backend]",
            "XAccessPolicy auth-policy-remote-mcp [ancestor XBackend quickstart-ns/remote-mcp-backend]",
            "Gateway agentic-net-gateway []",
            "Gateway agentic-net-gateway [listener https]",
            "Gateway agentic-net-gateway [listener plain]",
            "Gateway agentic-net-gateway [listener https2]",
            "GatewayClass kube-agentic-networking []",
            "HTTPRoute httproute-local-mcp [parent Gateway quickstart-ns/agentic-net-gateway]",
            "HTTPRoute httproute-remote-mcp [parent Gateway quickstart-ns/agentic-net-gateway]",
            "HTTPRoute httproute-service [parent Gateway quickstart-ns/agentic-net-gateway]",
        ]
    );
    let attached: Vec<_> = resolution.statuses.iter().filter_map(|status| status.attached_routes).collect();
    assert_eq!(attached, [3, 3, 3]);
    assert_eq!(resolution.notes, []);
}

/// From the route to a decision: the levels of a routed rule are those of its backend.
#[test]
fn a_routed_call_is_decided_by_the_policies_of_its_backend() {
    let resolution = seed();
    let snapshot = &resolution.gateways[&name("agentic-net-gateway")];
    let router = Router::new(snapshot);
    let headers = http::HeaderMap::new();
    let effect = |path: &str, identity: &str, tool: &str| {
        let request =
            RouteRequest { host: "localhost", path, query: None, method: "POST", headers: &headers };
        let routed = router.route(10001, Some(0), &request).unwrap();
        let body =
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}"}}}}"#);
        let body = mcp_jsonrpc::parse(body.as_bytes(), &mcp_jsonrpc::Limits::default()).unwrap();
        let mcp_jsonrpc::Body::One(message) = &body else { panic!("no single message") };
        let identity = identity.parse().unwrap();
        let request = authz_core::Request {
            identity: Some(&identity),
            listener: "https",
            port: 10001,
            http: authz_core::Http {
                method: "POST",
                path_and_query: path,
                host: "localhost",
                headers: &headers,
            },
            backend: authz_core::BackendKind::XBackendMcp,
            traffic: authz_core::Traffic::Message(message),
            now_unix_nanos: 0,
        };
        snapshot.engine.decide(routed.rule.backends[0].levels, &request).effect
    };
    let agent = "spiffe://cluster.local/ns/quickstart-ns/sa/adk-agent-sa";
    let other = "spiffe://cluster.local/ns/quickstart-ns/sa/other-sa";
    assert_eq!(effect("/local/mcp", agent, "get-sum"), Effect::Allow);
    assert_eq!(effect("/local/mcp", agent, "echo"), Effect::Deny);
    assert_eq!(effect("/local/mcp", other, "get-sum"), Effect::Deny);
    assert_eq!(effect("/remote/mcp", agent, "ask_question"), Effect::Delegate);
}
