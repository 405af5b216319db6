//! Whatever the request: what local rules deny never reaches the inner service, nor an authorizer.
use authz_core::{BackendKind, Effect};
use authz_tower::{Context, admit};
use http::Request;
use policy_model::{Condition, TargetKind};
use proptest::prelude::*;

use super::support::{Authorizers, TestBody, context, external, rule, send, tools, v0, with_options};

fn messages() -> impl Strategy<Value = String> {
    let id = prop_oneof![8 => any::<u16>().prop_map(|id| format!(r#""id":{id},"#)), 1 => Just(r#""id":null,"#.to_owned()), 1 => Just(String::new())];
    let method = prop_oneof![
        8 => proptest::sample::select(&["tools/call", "tools\\/call"][..]),
        4 => proptest::sample::select(
            &[
                "TOOLS/CALL", "tools/list", "prompts/get", "notifications/initialized", "tasks/get", "resources/read",
                "initialize",
            ][..],
        ),
    ];
    let params = prop_oneof![
        10 => proptest::sample::select(
            &[r#""name":"get-sum""#, r#""name":"get\u002dsum""#, r#""name":"echo","taskId":"t","uri":"u""#][..],
        ),
        3 => proptest::sample::select(
            &[
                r#""name":"get-sum","name":"echo""#,
                r#""name":"get-sum","Name":"echo""#,
                r#""name":7"#,
                r#""name":"echo","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#,
                "",
            ][..],
        ),
    ];
    let message = (id, method, params).prop_map(|(id, method, params)| {
        format!(r#"{{"jsonrpc":"2.0",{id}"method":"{method}","params":{{{params}}}}}"#)
    });
    prop_oneof![
        6 => message.clone(),
        2 => proptest::collection::vec(message, 0..4).prop_map(|all| format!("[{}]", all.join(","))),
        1 => Just(r#"{"a":1}"#.to_owned()),
        1 => ".{0,20}",
        1 => Just(String::new()),
    ]
}

type Line = (&'static str, &'static str);

/// Mostly as it should be, else none or any of `others`.
fn header(
    name: &'static str,
    usual: &'static [&'static str],
    others: &'static [&'static str],
) -> impl Strategy<Value = Vec<Line>> {
    let with =
        move |values: &[&'static str]| values.iter().map(|value| (name, *value)).collect::<Vec<Line>>();
    let other = proptest::sample::select(others);
    prop_oneof![20 => Just(with(usual)), 1 => Just(Vec::new()), 2 => other.prop_map(move |other| with(&[other]))]
}

fn requests() -> impl Strategy<Value = (Request<TestBody>, String)> {
    let method = prop_oneof![
        12 => Just("POST"),
        2 => proptest::sample::select(&["GET", "DELETE", "PUT", "OPTIONS"][..]),
    ];
    let path = prop_oneof![9 => Just("/mcp"), 1 => proptest::sample::select(&["/a/../mcp", "/mcp?a=b"][..])];
    let headers = (
        header("content-type", &["application/json"], &["text/plain", "application/x+json"]),
        header("accept", &["text/event-stream"], &["*/*"]),
        header("mcp-protocol-version", &[], &["2025-03-26", "2025-11-25", "2026-07-28", "1"]),
        header("mcp-method", &[], &["tools/call"]),
        header("mcp-name", &[], &["get-sum", "echo"]),
        header("mcp-session-id", &["s"], &[""]),
        header("origin", &[], &["https://h", "https://evil.example"]),
        header("content-encoding", &[], &["identity", "gzip"]),
    );
    (method, path, headers, messages()).prop_map(|(method, path, headers, body)| {
        let (a, b, c, d, e, f, g, h) = headers;
        let request = Request::builder().method(method).uri(path).header("host", "h");
        let request = [a, b, c, d, e, f, g, h]
            .concat()
            .into_iter()
            .fold(request, |request, (name, value)| request.header(name, value));
        let frames = if body.is_empty() { TestBody::empty() } else { TestBody::from(&*body) };
        (request.body(frames).unwrap(), body)
    })
}

fn contexts() -> impl Strategy<Value = Context> {
    let backend = prop_oneof![
        8 => Just(BackendKind::XBackendMcp),
        4 => Just(BackendKind::Service),
        1 => Just(BackendKind::XBackendWellKnown),
    ];
    let conditions = proptest::collection::vec(
        prop_oneof![
            Just(tools(&["get-sum"])),
            Just(tools(&["echo", "other"])),
            Just(Condition::NotToolCall),
            Just(Condition::ExternalAuth(external(None))),
        ],
        0..3,
    );
    let level = prop_oneof![Just(TargetKind::Gateway), Just(TargetKind::XBackend)];
    (backend, level, conditions, any::<bool>(), any::<bool>()).prop_map(
        |(backend, level, conditions, known, lists)| {
            // A v0alpha0 policy has at most one ExternalAuth rule.
            let mut rules = Vec::new();
            for condition in conditions {
                let external = |condition: &Condition| matches!(condition, Condition::ExternalAuth(_));
                if !external(&condition)
                    || !rules.iter().any(|rule: &policy_model::Rule| external(&rule.condition))
                {
                    rules.push(rule(&format!("r{}", rules.len()), condition));
                }
            }
            let context = context(vec![v0(level, rules)], backend);
            let identity = context.identity.clone().filter(|_| known);
            with_options(Context { identity, ..context }, |options| options.filter_lists = lists)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn what_is_denied_or_refused_is_not_forwarded((request, body) in requests(), context in contexts()) {
        let (parts, frames) = request.into_parts();
        let bytes = Some(body.as_bytes()).filter(|body| !body.is_empty());
        // What the layer must do, from the engine's own decision on each message.
        let effects = admit(&parts, bytes, &context).ok().map(|subject| {
            subject
                .traffic()
                .map(|traffic| context.engine.decide(context.levels, &context.request(&parts, traffic)).effect)
                .collect::<Vec<_>>()
        });
        let authorizers = Authorizers::answering([]);
        let context = Context { ask: authorizers.clone(), ..context };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let outcomes = runtime.block_on(send(context, Request::from_parts(parts, frames)));
        let delegated = |effects: &[Effect]| effects.iter().filter(|effect| **effect == Effect::Delegate).count();
        match effects {
            None => {
                prop_assert!(outcomes.forwarded.is_none());
                prop_assert!(authorizers.asked().is_empty());
                prop_assert_eq!(outcomes.observed.len(), 1);
                prop_assert!(outcomes.observed[0].starts_with("reject|"));
                prop_assert!(outcomes.response.status().is_client_error());
            }
            Some(effects) if effects.contains(&Effect::Deny) => {
                prop_assert!(outcomes.forwarded.is_none());
                prop_assert!(authorizers.asked().is_empty());
                prop_assert_eq!(outcomes.observed.len(), effects.len());
                prop_assert!(outcomes.observed.iter().all(|observed| observed.starts_with("deny|")));
            }
            Some(effects) => {
                prop_assert!(outcomes.forwarded.is_some());
                // The authorizer allows all that it is asked about.
                prop_assert_eq!(authorizers.asked().len(), delegated(&effects));
                prop_assert_eq!(outcomes.observed.len(), effects.len());
                prop_assert!(outcomes.observed.iter().all(|observed| observed.starts_with("allow|")));
            }
        }
    }
}
