//! Nanoseconds per decision. `cargo bench -p agentic-authz-core`
use std::{hint::black_box, time::Instant};

use authz_core::{BackendKind, Effect, Engine, Http, Input, PolicyEntry, Request, Traffic, compile};
use http::{HeaderMap, HeaderValue};
use policy_model::{
    Action, AgenticGroup, AuthorizerProtocol, Condition, Dialect, ExternalAuth, NamespacedName, Policy,
    PolicyKey, Rule, ServiceRef, Source, Target, TargetKind,
};

const ROUNDS: u32 = 200_000;

fn backend() -> NamespacedName {
    NamespacedName::new("ns", "be")
}

fn engine(policies: usize, rules: Vec<Rule>) -> Engine {
    let entry = |n: usize| {
        let target = Target { kind: TargetKind::XBackend, object: backend(), section_name: None };
        let key =
            PolicyKey { namespace: "ns".into(), name: format!("p{n}"), group: AgenticGroup::Networking };
        // The last one holds what matches; the others name other agents.
        let rules = if n + 1 == policies {
            rules.clone()
        } else {
            let other = |r| Rule {
                name: format!("r{r}"),
                source: Source::ServiceAccount(NamespacedName::new("ns", format!("other-{n}-{r}"))),
                condition: Condition::Tools(vec!["get-sum".into()]),
            };
            (0..10).map(other).collect()
        };
        let policy = Policy {
            key,
            created: None,
            generation: None,
            targets: vec![target.clone()],
            dialect: Dialect::V0Alpha0,
            action: Action::Allow,
            rules,
        };
        PolicyEntry::Policy { policy, fault: None, targets: vec![target] }
    };
    compile(Input { policies: (0..policies).map(entry).collect(), ..Input::default() }).engine
}

fn agent(condition: Condition) -> Vec<Rule> {
    let source = Source::ServiceAccount(NamespacedName::new("ns", "agent"));
    vec![Rule { name: "r".into(), source, condition }]
}

fn measure(name: &str, engine: &Engine, expected: Effect) {
    let body = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read_file","arguments":{"path":"/tmp/a","amount":50,"tags":["x","y"]}}}"#;
    let Ok(body) = mcp_jsonrpc::parse(body, &mcp_jsonrpc::Limits::default()) else { return };
    let Ok(identity) = "spiffe://cluster.local/ns/ns/sa/agent".parse() else { return };
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.insert("x-tenant", HeaderValue::from_static("a"));
    let Some(message) = body.messages().first() else { return };
    let request = Request {
        identity: Some(&identity),
        listener: "https",
        port: 443,
        http: Http { method: "POST", path_and_query: "/local/mcp", host: "gw.example", headers: &headers },
        backend: BackendKind::XBackendMcp,
        traffic: Traffic::Message(message),
        now_unix_nanos: 0,
    };
    let levels = engine.levels(&NamespacedName::new("ns", "gw"), Some(&backend()));
    assert_eq!(engine.decide(levels, &request).effect, expected, "{name}");
    let mut best = f64::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        for _ in 0..ROUNDS {
            black_box(engine.decide(levels, black_box(&request)));
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS));
    }
    println!("{name:<44} {best:>8.0} ns");
}

fn main() {
    let cel = |expression: &str| Condition::Cel { expression: expression.into(), inline: None };
    let listed = || agent(Condition::Tools(vec!["read_file".into(), "read_dir".into()]));
    let authorizer = ExternalAuth {
        backend: ServiceRef {
            group: String::new(),
            kind: "Service".into(),
            object: NamespacedName::new("ns", "authz"),
            port: Some(50051),
        },
        protocol: AuthorizerProtocol::Grpc { allowed_headers: None },
        forward_body: None,
    };
    measure("no policy", &engine(0, Vec::new()), Effect::Allow);
    measure("tools listed", &engine(1, listed()), Effect::Allow);
    measure("delegated", &engine(1, agent(Condition::ExternalAuth(authorizer))), Effect::Delegate);
    measure("41 rules, the last matches", &engine(5, listed()), Effect::Allow);
    let text = "request.mcp.tool_name.startsWith('read_') && request.headers['x-tenant'] == 'a'";
    measure("CEL over tool name and header", &engine(1, agent(cel(text))), Effect::Allow);
    let arguments = "request.mcp.arguments.amount < 100 && request.mcp.arguments.path.startsWith('/tmp/')";
    measure("CEL over arguments", &engine(1, agent(cel(arguments))), Effect::Allow);
    let pattern = "request.mcp.tool_name.matches('^read_[a-z]+$')";
    measure("CEL with a regular expression", &engine(1, agent(cel(pattern))), Effect::Allow);
}
