//! Policies as YAML, on top of a Gateway and its backends: whatever they say, nothing panics, `explain` tells of the
//! decision that was made, and where the engine says that no policy looks at bodies, none makes a difference.
#![no_main]

use std::{cell::RefCell, sync::Arc};

use authz_core::{
    BackendKind, Effect, Engine, Http, LevelDecision, LevelExplanation, Levels, Request, Traffic,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use mcp_jsonrpc::{Limits, parse};
use spiffe_id::SpiffeId;
use xds_translate::{Objects, Options, Snapshot, resolve};

const BASE: &str = include_str!("../../gateway-bin/tests/cases/base.yaml");
const MESSAGES: [&str; 7] = [
    r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#,
    r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get-sum","arguments":{"a":2,"amount":500}}}"#,
    r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo"}}"#,
    r#"{"jsonrpc":"2.0","id":1,"method":"resources/subscribe","params":{"uri":"file:///a"}}"#,
    r#"{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{"notifications":{"resourceSubscriptions":["file:///a","file:///b"],"taskIds":["t"]}}}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
    r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
];
const IDENTITIES: [&str; 2] =
    ["spiffe://cluster.local/ns/quickstart-ns/sa/adk-agent-sa", "spiffe://other.domain/agent/7"];

thread_local! {
    static OBJECTS: RefCell<Objects> = RefCell::new(base());
}

fn base() -> Objects {
    let mut objects = Objects::default();
    assert_eq!(objects.add_yaml("base", BASE).expect("the base is valid"), Vec::<String>::new());
    objects
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut objects = OBJECTS.with_borrow(Objects::clone);
    if let Err(error) = objects.add_yaml("fuzz", text) {
        assert!(!error.to_string().is_empty());
        return;
    }
    let resolution = resolve(&objects, &Options::default());
    for status in &resolution.statuses {
        assert!(!format!("{status:?}").is_empty());
    }
    for snapshot in resolution.gateways.values() {
        decide_all(snapshot);
    }
});

fn decide_all(snapshot: &Snapshot) {
    let identities: Vec<SpiffeId> = IDENTITIES.iter().map(|id| id.parse().expect("an ID")).collect();
    let levels: Vec<Levels> =
        snapshot.rules.iter().flat_map(|rule| rule.backends.iter().map(|backend| backend.levels)).collect();
    for listener in &snapshot.listeners {
        for levels in &levels {
            for identity in std::iter::once(None).chain(identities.iter().map(Some)) {
                let asked = Asked { engine: &snapshot.engine, levels: *levels, listener, identity };
                asked.all();
            }
        }
    }
}

struct Asked<'a> {
    engine: &'a Arc<Engine>,
    levels: Levels,
    listener: &'a xds_translate::Listener,
    identity: Option<&'a SpiffeId>,
}

impl Asked<'_> {
    fn all(&self) {
        let reads_bodies = self.engine.needs_body(self.levels, &self.listener.name);
        for backend in [BackendKind::XBackendMcp, BackendKind::Service] {
            let unread = self.decide(backend, "POST", Traffic::Unparsed);
            let other = self.decide(backend, "POST", Traffic::OtherJson);
            let mut read = vec![other];
            for text in MESSAGES {
                let body = parse(text.as_bytes(), &Limits::default()).expect("a message");
                read.extend(
                    body.messages().iter().map(|one| self.decide(backend, "POST", Traffic::Message(one))),
                );
            }
            // What is not looked at must not matter: a Service's body is not read then.
            assert!(reads_bodies || read.iter().all(|effect| *effect == unread), "{read:?} {unread:?}");
        }
        self.decide(BackendKind::XBackendMcp, "GET", Traffic::EventStream);
        self.decide(BackendKind::XBackendMcp, "DELETE", Traffic::EndSession);
        self.decide(BackendKind::XBackendWellKnown, "GET", Traffic::NoBody);
        self.decide(BackendKind::Service, "GET", Traffic::NoBody);
    }

    fn decide(&self, backend: BackendKind, method: &str, traffic: Traffic<'_>) -> Effect {
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::from_static("x-tenant"), HeaderValue::from_static("a"));
        headers
            .append(HeaderName::from_static("x-tenant"), HeaderValue::from_bytes(b"\xff").expect("a value"));
        let request = Request {
            identity: self.identity,
            listener: &self.listener.name,
            port: self.listener.port,
            http: Http {
                method,
                path_and_query: "/svc/a?b=c",
                host: "a.example.com:8080",
                headers: &headers,
            },
            backend,
            traffic,
            now_unix_nanos: 1_700_000_000_000_000_000,
        };
        let decision = self.engine.decide(self.levels, &request);
        let explanation = self.engine.explain(self.levels, &request);
        assert_eq!(decision.effect, explanation.effect);
        same(&decision.gateway, &explanation.gateway);
        same(&decision.backend, &explanation.backend);
        assert_eq!(decision.authorizers().count() > 0, decision.effect == Effect::Delegate);
        for authorizer in decision.authorizers() {
            assert!(self.engine.authorizer(authorizer).is_some());
        }
        decision.effect
    }
}

fn same(decided: &LevelDecision<'_>, explained: &LevelExplanation) {
    assert_eq!((decided.effect, decided.reason), (explained.effect, explained.reason));
    let by = decided.determining.map(|by| (by.policy.clone(), by.rule.map(str::to_owned)));
    assert_eq!(by, explained.determining);
}
