//! Policy sets at random, each on a Gateway, an XBackend and a Service in a namespace of its own, and requests to them.
use std::collections::VecDeque;

use authz_core::{Effect, Engine, Fault, PolicyEntry};
use generators::{Ask, Carries, NS, any_ask, any_policies, manifest, storable};
use policy_model::{
    Action, AuthorizerProtocol, Condition, ExternalAuth, Inline, NamespacedName, Policy, Rule, read_policy,
};
use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::{Index, select},
    strategy::ValueTree as _,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Value, json};

use super::twists::{self, Meaning, Twist};

/// Requests to each set, and how many they are chosen from.
pub(super) const CASES: usize = 8;
const CANDIDATES: usize = 24;

/// Expressions, nearly all of them within what Envoy alone can be told.
fn any_expression() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        60 => select(vec![
            "true",
            "request.mcp.tool_name == 't1'",
            "!(request.mcp.tool_name in ['t1', 'T1'])",
            "request.mcp.tool_name.startsWith('t') && request.path != '/a'",
            "request.headers['x-tenant'] == 'a'",
            "request.headers['x-tenant'] != 'a' || request.mcp.tool_name == 't2'",
            "has(request.headers['x-tenant'])",
            "!has(request.headers.authorization)",
            "source.service_account == 'agent'",
            "!(source.namespace == 'else')",
            "source.identity.endsWith('/agent')",
            "request.host == 'a.example' && request.url_path == '/a'",
            "request.host.contains('a.example') || request.path.contains('?')",
            "request.path == '/a/b?q'",
            "request.url_path.matches('^/a(/b)?$')",
            "request.method == 'POST'",
            "request.path.matches('^/a/.$') || request.headers['x-tenant'].matches('^.$')",
        ]),
        2 => select(vec!["request.mcp.arguments.n > 1", "request.mcp.method == 'tools/call'"]),
        1 => select(vec!["request.path", "request.foo == 'a'"]),
    ]
}

/// One set of policies in its place.
#[derive(Debug)]
pub(super) struct Set {
    /// Of all the sets of a seed.
    number: usize,
    /// Ports of the listeners `https` and `plain`.
    ports: [u16; 2],
    pub(super) policies: Vec<Policy>,
    /// What may be asked, and how it is written.
    candidates: Vec<(Ask, Option<&'static Twist>)>,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Expected {
    /// Refused before policy.
    Refused,
    Denied,
    /// An authorizer would be asked if it could be shown the request: denied.
    Unanswerable,
    Delegated,
    Allowed,
}

impl Expected {
    const ALL: [Self; 5] = [Self::Delegated, Self::Allowed, Self::Denied, Self::Refused, Self::Unanswerable];

    pub(super) fn is_forwarded(self, authorizers_allow: bool) -> bool {
        match self {
            Self::Refused | Self::Denied | Self::Unanswerable => false,
            Self::Delegated => authorizers_allow,
            Self::Allowed => true,
        }
    }
}

impl Set {
    /// The set of that number, at a place within its batch.
    pub(super) fn at_random(seed: u64, number: usize, place: u16) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8..16].copy_from_slice(&u64::try_from(number).unwrap().to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        let asks = vec((any_ask(), option::weighted(0.4, any::<Index>())), CANDIDATES);
        let (entries, asks) = (any_policies(any_expression()), asks).new_tree(&mut runner).unwrap().current();
        let ports = [20_000 + 2 * place, 20_001 + 2 * place];
        let mut set = Self { number, ports, policies: Vec::new(), candidates: Vec::new() };
        set.policies = entries.into_iter().filter_map(|entry| set.placed(entry)).collect();
        set.candidates = asks
            .into_iter()
            .map(|(ask, twist)| {
                let ask = set.through_a_listener(ask);
                // Of what is no message there is little to be odd.
                let fitting = twists::that_fit(&ask);
                let room = fitting.len().max(twists::TWISTS.len() / 2);
                let twist = twist.and_then(|index| fitting.get(index.index(room)).copied());
                (ask, twist)
            })
            .collect();
        set
    }

    fn namespace(&self) -> String {
        format!("s{}", self.number)
    }

    pub(super) fn gateway(&self) -> NamespacedName {
        NamespacedName::new(self.namespace(), "gw")
    }

    pub(super) fn backend(&self) -> NamespacedName {
        NamespacedName::new(self.namespace(), "be")
    }

    /// The policy, if it can be in a file, with the set's namespace, ports and authorizers.
    fn placed(&self, entry: PolicyEntry) -> Option<Policy> {
        let PolicyEntry::Policy { mut policy, fault, .. } = entry else { return None };
        let is_missing = matches!(fault, Some(Fault::BackendNotFound { .. }));
        policy.key.namespace = self.namespace();
        for target in policy.targets.iter_mut().filter(|target| target.object.namespace == NS) {
            target.object.namespace = self.namespace();
        }
        if let Action::ExternalAuth(auth) = &mut policy.action {
            self.place_authorizer(auth, is_missing);
        }
        for Rule { condition, .. } in &mut policy.rules {
            match condition {
                Condition::ExternalAuth(auth) => self.place_authorizer(auth, is_missing),
                Condition::Inline(inline) => self.place_ports(inline),
                Condition::Cel { inline: Some(inline), .. } => self.place_ports(inline),
                _ => {}
            }
        }
        Some(storable(policy))
    }

    fn place_authorizer(&self, auth: &mut ExternalAuth, is_missing: bool) {
        let speaks_http = self.number % 2 == 1 && auth.backend.object.name == "v1";
        let name = match auth.backend.object.name.as_str() {
            _ if is_missing => "missing".to_owned(),
            _ if speaks_http => "authz-http".to_owned(),
            name => format!("authz-{name}"),
        };
        auth.backend.object = NamespacedName::new(self.namespace(), name);
        if speaks_http {
            auth.protocol = AuthorizerProtocol::Http {
                path: "/check".to_owned(),
                allowed_headers: vec![crate::world::CASE_ID.to_owned()],
                allowed_response_headers: Vec::new(),
            };
        }
    }

    fn place_ports(&self, inline: &mut Inline) {
        for port in inline.ports.iter_mut().flatten() {
            *port = self.ports[usize::from(*port != 10_001)];
        }
    }

    /// Who asks decides through which listener: identities are known at `https` alone, which wants one.
    fn through_a_listener(&self, ask: Ask) -> Ask {
        let is_plain = ask.identity.is_none();
        let listener = if is_plain { "plain" } else { "https" };
        Ask { port: self.ports[usize::from(is_plain)], ..ask }.on(listener)
    }

    /// The requests, and what the engine decides: of all that can become of them by turns.
    pub(super) fn cases(&self, engine: &Engine) -> Vec<(&Ask, Option<&'static Twist>, Expected)> {
        let mut by_turns: Vec<VecDeque<_>> = vec![VecDeque::new(); Expected::ALL.len()];
        for (ask, twist) in &self.candidates {
            let expected = self.expected(engine, ask, *twist);
            let turn = Expected::ALL.iter().position(|one| *one == expected).unwrap();
            by_turns[turn].push_back((ask, *twist, expected));
        }
        let mut cases = Vec::new();
        while cases.len() < CASES {
            cases.extend(by_turns.iter_mut().filter_map(VecDeque::pop_front));
        }
        cases.truncate(CASES);
        cases
    }

    fn expected(&self, engine: &Engine, ask: &Ask, twist: Option<&Twist>) -> Expected {
        let is_refused = twist.is_some_and(|twist| twist.meaning == Meaning::Refused);
        // A user in the Host; and Envoy's codec takes no other bytes in a path.
        if is_refused || ask.host.contains('@') || !ask.path.is_ascii() {
            return Expected::Refused;
        }
        let backend = (ask.backend != authz_core::BackendKind::Service).then(|| self.backend());
        let levels = engine.levels(&self.gateway(), backend.as_ref());
        let is_showable = twist.is_none_or(|twist| twist.meaning != Meaning::Unshowable)
            && !matches!(&ask.carries, Carries::Mcp(body) if body.contains("18446744073709551615"));
        let is_text = ask.headers.iter().all(|(_, value)| value.is_ascii());
        ask.with(|request| {
            let decision = engine.decide(levels, request);
            let mut asked = decision.authorizers().filter_map(|id| engine.authorizer(id));
            match decision.effect {
                Effect::Allow => Expected::Allowed,
                Effect::Deny => Expected::Denied,
                // gRPC shows all headers here, and has texts for them.
                Effect::Delegate
                    if is_showable
                        && (is_text
                            || asked
                                .all(|auth| matches!(auth.protocol, AuthorizerProtocol::Http { .. }))) =>
                {
                    Expected::Delegated
                }
                Effect::Delegate => Expected::Unanswerable,
            }
        })
    }

    /// All objects of the set.
    pub(super) fn objects(&self) -> Vec<Value> {
        let namespace = self.namespace();
        let metadata = |name: &str| json!({"name": name, "namespace": namespace});
        let [https, plain] = self.ports;
        let service = |name: &str, port: u16| {
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": metadata(name),
                "spec": {"ports": [{"name": "p", "port": port}]},
            })
        };
        let rewrite = |path: &str| {
            json!([{"type": "URLRewrite",
                    "urlRewrite": {"path": {"type": "ReplaceFullPath", "replaceFullPath": path}}}])
        };
        let xbackend = json!([{"group": "agentic.networking.x-k8s.io", "kind": "XBackend", "name": "be"}]);
        let rule = |to: &str, more: Value| {
            let mut rule = json!({"matches": [{"headers": [{"name": twists::TO, "value": to}]}]});
            rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            rule
        };
        let mut objects = vec![
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": metadata("gw"),
                "spec": {"gatewayClassName": "kube-agentic-networking", "listeners": [
                    {"name": "https", "protocol": "HTTPS", "port": https},
                    {"name": "plain", "protocol": "HTTP", "port": plain},
                ]},
            }),
            service("mcp-everything-svc", 3001),
            service("mcp-two-svc", 3002),
            service("authz-v0", 50_051),
            service("authz-v1", 50_051),
            service("authz-http", 50_051),
            json!({
                "apiVersion": "agentic.networking.x-k8s.io/v0alpha0", "kind": "XBackend",
                "metadata": metadata("be"),
                "spec": {"mcp": {"serviceName": "mcp-everything-svc", "port": 3001}},
            }),
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": metadata("all"),
                "spec": {"parentRefs": [{"name": "gw"}], "rules": [
                    rule("mcp", json!({"filters": rewrite("/mcp"), "backendRefs": xbackend})),
                    rule("well-known", json!({
                        "filters": rewrite("/.well-known/oauth-protected-resource"), "backendRefs": xbackend,
                    })),
                    rule("service", json!({"backendRefs": [{"name": "mcp-two-svc", "port": 3002}]})),
                ]},
            }),
        ];
        for policy in &self.policies {
            let printed = manifest(policy);
            // What is asked about is what was meant.
            assert_eq!(read_policy(&printed).as_ref(), Ok(policy), "{printed:#}");
            objects.push(printed);
        }
        objects
    }

    /// The policies as a person writes them.
    pub(super) fn yaml(&self) -> String {
        let texts = self.policies.iter().map(|policy| serde_yaml_ng::to_string(&manifest(policy)).unwrap());
        texts.collect::<Vec<_>>().join("---\n")
    }
}
