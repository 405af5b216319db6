//! Policies and requests in few words.
use authz_core::{
    BackendKind, Compiled, Decision, DefaultAction, Effect, Engine, Http, Input, Levels, PolicyEntry, Reason,
    Request, Traffic, compile,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use policy_model::{
    Action, AgenticGroup, AuthorizerProtocol, Condition, Dialect, ExternalAuth, NamespacedName, Policy,
    PolicyKey, Rule, ServiceRef, Source, Target, TargetKind, Timestamp,
};
use spiffe_id::SpiffeId;

pub(crate) const NS: &str = "ns";
pub(crate) const AGENT: &str = "spiffe://cluster.local/ns/ns/sa/agent";
pub(crate) const OTHER: &str = "spiffe://cluster.local/ns/ns/sa/other";

pub(crate) fn gateway() -> NamespacedName {
    NamespacedName::new(NS, "gw")
}
pub(crate) fn backend() -> NamespacedName {
    NamespacedName::new(NS, "be")
}
pub(crate) fn on_gateway() -> Target {
    Target { kind: TargetKind::Gateway, object: gateway(), section_name: None }
}
pub(crate) fn on_listener(name: &str) -> Target {
    Target { section_name: Some(name.into()), ..on_gateway() }
}
pub(crate) fn on_backend() -> Target {
    Target { kind: TargetKind::XBackend, object: backend(), section_name: None }
}

pub(crate) fn key(name: &str) -> PolicyKey {
    PolicyKey { namespace: NS.into(), name: name.into(), group: AgenticGroup::Networking }
}
pub(crate) fn account(name: &str) -> Source {
    Source::ServiceAccount(NamespacedName::new(NS, name))
}
pub(crate) fn rule(name: &str, source: Source, condition: Condition) -> Rule {
    Rule { name: name.into(), source, condition }
}
pub(crate) fn tools(names: &[&str]) -> Condition {
    Condition::Tools(names.iter().map(|name| (*name).to_owned()).collect())
}
pub(crate) fn cel(expression: &str) -> Condition {
    Condition::Cel { expression: expression.into(), inline: None }
}
pub(crate) fn authorizer(name: &str) -> ExternalAuth {
    ExternalAuth {
        backend: ServiceRef {
            group: String::new(),
            kind: "Service".into(),
            object: NamespacedName::new(NS, name),
            port: Some(50051),
        },
        protocol: AuthorizerProtocol::Grpc { allowed_headers: None },
        forward_body: None,
    }
}

/// A v0alpha0 policy, created at that second.
pub(crate) fn v0(name: &str, created: i64, target: Target, rules: Vec<Rule>) -> Policy {
    Policy {
        key: key(name),
        created: Some(Timestamp(created)),
        generation: Some(1),
        targets: vec![target],
        dialect: Dialect::V0Alpha0,
        action: Action::Allow,
        rules,
    }
}
/// A v1alpha1 Allow policy.
pub(crate) fn v1(name: &str, created: i64, target: Target, rules: Vec<Rule>) -> Policy {
    Policy { dialect: Dialect::V1Alpha1, ..v0(name, created, target, rules) }
}
/// A v1alpha1 ExternalAuth policy.
pub(crate) fn ext(name: &str, created: i64, target: Target, rules: Vec<Rule>) -> Policy {
    Policy { action: Action::ExternalAuth(authorizer(name)), ..v1(name, created, target, rules) }
}
pub(crate) fn entry(policy: Policy) -> PolicyEntry {
    PolicyEntry::Policy { targets: policy.targets.clone(), policy, fault: None }
}
pub(crate) fn compiled(policies: impl IntoIterator<Item = Policy>) -> Compiled {
    of_entries(policies.into_iter().map(entry).collect(), DefaultAction::Allow)
}
pub(crate) fn of_entries(policies: Vec<PolicyEntry>, default_action: DefaultAction) -> Compiled {
    compile(Input { policies, default_action, ..Input::default() })
}

#[derive(Debug, Clone)]
pub(crate) enum Carries {
    Mcp(String),
    EventStream,
    EndSession,
    OtherJson,
    NoBody,
    Unparsed,
}

/// A request, owned.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) identity: Option<String>,
    pub(crate) listener: String,
    pub(crate) port: u16,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) host: String,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) backend: BackendKind,
    pub(crate) carries: Carries,
}

impl Ask {
    pub(crate) fn new(identity: Option<&str>, carries: Carries) -> Self {
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
    pub(crate) fn call(identity: &str, tool: &str) -> Self {
        Self::call_with(identity, tool, "{}")
    }
    pub(crate) fn call_with(identity: &str, tool: &str, arguments: &str) -> Self {
        let params = format!(r#"{{"name":"{tool}","arguments":{arguments}}}"#);
        Self::mcp(Some(identity), "tools/call", &params)
    }
    pub(crate) fn mcp(identity: Option<&str>, method: &str, params: &str) -> Self {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
        Self::new(identity, Carries::Mcp(body))
    }
    pub(crate) fn to(self, backend: BackendKind) -> Self {
        Self { backend, ..self }
    }
    pub(crate) fn on(self, listener: &str) -> Self {
        Self { listener: listener.into(), ..self }
    }
    pub(crate) fn header(mut self, name: &str, value: &[u8]) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(crate) fn levels(&self, engine: &Engine) -> Levels {
        engine.levels(&gateway(), (self.backend != BackendKind::Service).then_some(&backend()))
    }

    /// The borrowed request.
    pub(crate) fn with<R>(&self, then: impl FnOnce(&Request<'_>) -> R) -> R {
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

    pub(crate) fn decide<'e>(&self, engine: &'e Engine) -> Decision<'e> {
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

#[track_caller]
pub(crate) fn check(engine: &Engine, ask: &Ask, expected: Effect) {
    let decision = ask.decide(engine);
    assert_eq!(decision.effect, expected, "{ask:?}: {decision:?}");
}

/// Effect, reason of the determining level, policy and rule by name.
#[track_caller]
pub(crate) fn check_by(engine: &Engine, ask: &Ask, expected: (Effect, Reason, Option<(&str, Option<&str>)>)) {
    let decision = ask.decide(engine);
    let level = decision.determining_level();
    let by = level.determining.map(|by| (by.policy.name.as_str(), by.rule));
    assert_eq!((decision.effect, level.reason, by), expected, "{ask:?}");
}
