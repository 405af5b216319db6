//! Requests in few words, and at random.
use authz_core::{BackendKind, Decision, Engine, Http, Levels, Request, Traffic};
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::{collection::vec, prelude::*, sample::select};
use spiffe_id::SpiffeId;

use crate::words::{AGENT, OTHER, backend, gateway};

/// What a request carries.
#[derive(Debug, Clone)]
pub enum Carries {
    /// This message.
    Mcp(String),
    /// Nothing: it is for the event stream.
    EventStream,
    /// Nothing: it ends a session.
    EndSession,
    /// JSON that is no message.
    OtherJson,
    /// Nothing.
    NoBody,
    /// A body that nobody parses.
    Unparsed,
}

/// A request, owned.
#[derive(Debug, Clone)]
pub struct Ask {
    /// A SPIFFE ID.
    pub identity: Option<String>,
    /// By name.
    pub listener: String,
    /// Of the listener.
    pub port: u16,
    /// Of HTTP.
    pub method: String,
    /// And query.
    pub path: String,
    /// As it is sent, with a port or without.
    pub host: String,
    /// Besides those that follow from the rest.
    pub headers: Vec<(String, Vec<u8>)>,
    /// What the route chose.
    pub backend: BackendKind,
    /// Its body.
    pub carries: Carries,
}

impl Ask {
    /// A POST to the XBackend through the listener `https`.
    pub fn new(identity: Option<&str>, carries: Carries) -> Self {
        Self {
            identity: identity.map(str::to_owned),
            listener: "https".into(),
            port: 10001,
            method: "POST".into(),
            path: "/local/mcp".into(),
            host: "gw.example".into(),
            headers: Vec::new(),
            backend: BackendKind::XBackendMcp,
            carries,
        }
    }
    /// A call of a tool.
    pub fn call(identity: &str, tool: &str) -> Self {
        Self::call_with(identity, tool, "{}")
    }
    /// A call of a tool with these arguments.
    pub fn call_with(identity: &str, tool: &str, arguments: &str) -> Self {
        let params = format!(r#"{{"name":"{tool}","arguments":{arguments}}}"#);
        Self::mcp(Some(identity), "tools/call", &params)
    }
    /// A request of MCP.
    pub fn mcp(identity: Option<&str>, method: &str, params: &str) -> Self {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
        Self::new(identity, Carries::Mcp(body))
    }
    /// The same to another backend.
    pub fn to(self, backend: BackendKind) -> Self {
        Self { backend, ..self }
    }
    /// The same through another listener.
    pub fn on(self, listener: &str) -> Self {
        Self { listener: listener.into(), ..self }
    }
    /// The same with one more header line.
    pub fn header(mut self, name: &str, value: &[u8]) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The levels that apply.
    pub fn levels(&self, engine: &Engine) -> Levels {
        engine.levels(&gateway(), (self.backend != BackendKind::Service).then_some(&backend()))
    }

    /// The borrowed request.
    ///
    /// # Panics
    /// What it says is no identity, header or message.
    pub fn with<R>(&self, then: impl FnOnce(&Request<'_>) -> R) -> R {
        let identity: Option<SpiffeId> = self.identity.as_ref().map(|id| id.parse().unwrap());
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            headers.append(
                HeaderName::try_from(name.as_str()).unwrap(),
                HeaderValue::from_bytes(value).unwrap(),
            );
        }
        let body = match &self.carries {
            Carries::Mcp(body) => {
                Some(mcp_jsonrpc::parse(body.as_bytes(), &mcp_jsonrpc::Limits::default()).unwrap())
            }
            _ => None,
        };
        let traffic = match &self.carries {
            Carries::Mcp(_) => Traffic::Message(&body.as_ref().unwrap().messages()[0]),
            Carries::EventStream => Traffic::EventStream,
            Carries::EndSession => Traffic::EndSession,
            Carries::OtherJson => Traffic::OtherJson,
            Carries::NoBody => Traffic::NoBody,
            Carries::Unparsed => Traffic::Unparsed,
        };
        then(&Request {
            identity: identity.as_ref(),
            listener: &self.listener,
            port: self.port,
            http: Http {
                method: &self.method,
                path_and_query: &self.path,
                host: &self.host,
                headers: &headers,
            },
            backend: self.backend,
            traffic,
            now_unix_nanos: 1_795_435_994_000_000_000,
        })
    }

    /// What the engine decides.
    ///
    /// # Panics
    /// The explanation is another one.
    pub fn decide<'e>(&self, engine: &'e Engine) -> Decision<'e> {
        let levels = self.levels(engine);
        self.with(|request| {
            let decision = engine.decide(levels, request);
            let explained = engine.explain(levels, request);
            // Wherever a test decides, the explanation agrees.
            assert_eq!(explained.effect, decision.effect, "{self:?}");
            for (explained, decided) in
                [(&explained.gateway, &decision.gateway), (&explained.backend, &decision.backend)]
            {
                let by = decided.determining.map(|by| (by.policy.clone(), by.rule.map(str::to_owned)));
                assert_eq!(
                    (explained.effect, explained.reason, &explained.determining),
                    (decided.effect, decided.reason, &by),
                    "{self:?}"
                );
            }
            decision
        })
    }
}

fn any_carries() -> impl Strategy<Value = (BackendKind, &'static str, Carries)> {
    let request = |method: &str, params: &str| {
        Carries::Mcp(format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#))
    };
    let calls: Vec<Carries> =
        ["{}", r#"{"n":2}"#, r#"{"n":1}"#, r#"{"n":1.5}"#, r#"{"n":-1e3}"#, r#"{"n":"2"}"#, r#"{"n":null}"#]
            .into_iter()
            .chain([r#"{"n":18446744073709551615}"#])
            .flat_map(|arguments| {
                ["t1", "t2"].map(|tool| format!(r#"{{"name":"{tool}","arguments":{arguments}}}"#))
            })
            .chain([r#"{"name":"t1"}"#, r#"{"name":"T1"}"#, r#"{"name":"t3"}"#].map(str::to_owned))
            .map(|params| request("tools/call", &params))
            .collect();
    let listen = |notifications: &str| {
        request("subscriptions/listen", &format!(r#"{{"notifications":{notifications}}}"#))
    };
    let others = vec![
        request("initialize", "{}"),
        request("server/discover", "{}"),
        request("ping", "{}"),
        request("tools/list", "{}"),
        request("prompts/list", "{}"),
        request("resources/list", "{}"),
        request("resources/templates/list", "{}"),
        request("completion/complete", r#"{"ref":{"type":"ref/prompt","name":"t1"}}"#),
        request("logging/setLevel", "{}"),
        request("prompts/get", r#"{"name":"t1"}"#),
        request("resources/read", r#"{"uri":"u1"}"#),
        request("resources/read", r#"{"uri":"u2","name":"u1"}"#),
        request("resources/subscribe", r#"{"uri":"u1"}"#),
        request("resources/unsubscribe", r#"{"uri":"u1"}"#),
        request("tasks/get", r#"{"taskId":"t"}"#),
        request("tasks/result", r#"{"taskId":"t1"}"#),
        request("tasks/update", r#"{"taskId":"t"}"#),
        request("tasks/cancel", r#"{"taskId":"t"}"#),
        request("tasks/list", "{}"),
        request("Tools/call", "{}"),
        request("tools", "{}"),
        request("tools/", "{}"),
        request("toolset/list", "{}"),
        request("unknown", "{}"),
        request("notifications/initialized", "{}"),
        listen("{}"),
        listen(r#"{"toolsListChanged":true}"#),
        listen(r#"{"resourceSubscriptions":["u1"]}"#),
        listen(r#"{"resourceSubscriptions":["u1","u2"]}"#),
        listen(r#"{"resourceSubscriptions":["u1"],"taskIds":["t"]}"#),
        listen(r#"{"resourceSubscriptions":[],"taskIds":["t"]}"#),
        Carries::Mcp(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.to_owned()),
        Carries::Mcp(r#"{"jsonrpc":"2.0","method":"notifications/tools/call"}"#.to_owned()),
        Carries::Mcp(r#"{"jsonrpc":"2.0","id":"a","result":{}}"#.to_owned()),
        Carries::Mcp(r#"{"jsonrpc":"2.0","id":7,"error":{"code":1,"message":"no"}}"#.to_owned()),
    ];
    let (xbackend, service) = (BackendKind::XBackendMcp, BackendKind::Service);
    let posted = prop_oneof![select::<Carries>(calls), select(others)];
    prop_oneof![
        12 => (select(vec![xbackend, xbackend, service]), posted).prop_map(|(to, carries)| (to, "POST", carries)),
        1 => Just((xbackend, "GET", Carries::EventStream)),
        1 => Just((xbackend, "DELETE", Carries::EndSession)),
        1 => Just((BackendKind::XBackendWellKnown, "GET", Carries::NoBody)),
        1 => Just((service, "POST", Carries::OtherJson)),
        1 => (select(vec!["GET", "POST", "DELETE"])).prop_map(move |method| (service, method, Carries::NoBody)),
        1 => (select(vec!["GET", "POST"])).prop_map(move |method| (service, method, Carries::Unparsed)),
    ]
}

/// Requests that the policies of [`any_policies`](crate::any_policies) match, or nearly.
pub fn any_ask() -> impl Strategy<Value = Ask> {
    let tenants = vec(
        select(vec![b"a".to_vec(), b"b".to_vec(), b"ab".to_vec(), b"A".to_vec(), b"\xff".to_vec()]),
        0..3,
    );
    let identities = vec![
        None,
        Some(AGENT),
        Some(AGENT),
        Some(OTHER),
        Some("spiffe://other.domain/ns/ns/sa/agent"),
        Some("spiffe://cluster.local/agent"),
    ];
    let hosts = vec![
        "a.example",
        "a.example",
        "A.EXAMPLE:80",
        "b.a.example",
        "b.a.example",
        "xa.example",
        "example:80",
        "a.example.",
        "x@a.example",
    ];
    (
        select(identities),
        select(vec![("https", 10001), ("plain", 10002)]),
        select(vec!["/a", "/a?q=/b", "/a/", "/a/b?q", "/a/\u{e9}", "/ab", "/b", "/c"]),
        select(hosts),
        tenants,
        any_carries(),
    )
        .prop_map(|(identity, (listener, port), path, host, tenants, (backend, method, carries))| Ask {
            identity: identity.map(str::to_owned),
            listener: listener.into(),
            port,
            method: method.into(),
            path: path.into(),
            host: host.into(),
            headers: tenants.into_iter().map(|value| ("x-tenant".to_owned(), value)).collect(),
            backend,
            carries,
        })
}
