//! What the neutral model holds of every field.
#![cfg(feature = "kube")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what a test calls may fail as the test may"
)]
use policy_model::{
    Action, AgenticGroup, AuthorizerProtocol, BackendAddress, Condition, Dialect, ExternalAuth, HeaderMatch,
    HostMatch, HttpMethod, Inline, McpMatch, McpMethodMatch, NamespacedName, PathMatch, Policy, PolicyKey,
    Rule, ServiceRef, Source, StringMatch, Target, TargetKind, Timestamp, XBackend, read_backend,
    read_policy,
};
use serde_json::{Value, json};

fn name(namespace: &str, name: &str) -> NamespacedName {
    NamespacedName::new(namespace, name)
}

#[track_caller]
fn policy(yaml: &str) -> Policy {
    let object: Value = serde_yaml_ng::from_str(yaml).unwrap();
    read_policy(&object).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_v0alpha0_policy() {
    let read = policy(
        "
apiVersion: agentic.prototype.x-k8s.io/v0alpha0
kind: XAccessPolicy
metadata: {name: p, namespace: team, generation: 4, creationTimestamp: '2026-01-31T12:00:00Z'}
spec:
  targetRefs:
  - {group: agentic.prototype.x-k8s.io, kind: XBackend, name: one}
  - {group: agentic.networking.x-k8s.io, kind: XBackend, name: two}
  rules:
  - name: tools
    source: {type: ServiceAccount, serviceAccount: {name: agent}}
    authorization: {type: InlineTools, tools: [get-sum, Get-Sum]}
  - name: none
    source: {type: ServiceAccount, serviceAccount: {name: agent, namespace: other}}
    authorization: {type: InlineTools, tools: []}
  - name: nothing
    source: {type: SPIFFE, spiffe: 'spiffe://example.org/Path'}
  - name: asked
    source: {type: SPIFFE, spiffe: 'spiffe://example.org/a'}
    authorization:
      type: ExternalAuth
      externalAuth:
        protocol: GRPC
        grpc: {allowedHeaders: [X-Tenant, x-tenant, Authorization]}
        backendRef: {name: authz, port: 50051}
        forwardBody: {maxSize: 8192}
  - name: cel
    source: {type: SPIFFE, spiffe: 'spiffe://example.org/b'}
    authorization: {type: CEL, cel: {expression: 'no ((', message: shown}}
",
    );
    let expected = Policy {
        key: PolicyKey { namespace: "team".into(), name: "p".into(), group: AgenticGroup::Prototype },
        // 31 January 2026, noon.
        created: Some(Timestamp(1_769_860_800)),
        generation: Some(4),
        targets: vec![
            Target { kind: TargetKind::XBackend, object: name("team", "one"), section_name: None },
            Target { kind: TargetKind::XBackend, object: name("team", "two"), section_name: None },
        ],
        dialect: Dialect::V0Alpha0,
        action: Action::Allow,
        rules: vec![
            Rule {
                name: "tools".into(),
                source: Source::ServiceAccount(name("team", "agent")),
                condition: Condition::Tools(vec!["get-sum".into(), "Get-Sum".into()]),
            },
            Rule {
                name: "none".into(),
                source: Source::ServiceAccount(name("other", "agent")),
                condition: Condition::NotToolCall,
            },
            Rule {
                name: "nothing".into(),
                source: Source::Spiffe("spiffe://example.org/Path".into()),
                condition: Condition::NotToolCall,
            },
            Rule {
                name: "asked".into(),
                source: Source::Spiffe("spiffe://example.org/a".into()),
                condition: Condition::ExternalAuth(ExternalAuth {
                    backend: ServiceRef {
                        group: String::new(),
                        kind: "Service".into(),
                        object: name("team", "authz"),
                        port: Some(50051),
                    },
                    protocol: AuthorizerProtocol::Grpc {
                        allowed_headers: Some(vec!["x-tenant".into(), "authorization".into()]),
                    },
                    forward_body: Some(8192),
                }),
            },
            Rule {
                name: "cel".into(),
                source: Source::Spiffe("spiffe://example.org/b".into()),
                condition: Condition::Cel { expression: "no ((".into(), inline: None },
            },
        ],
    };
    assert_eq!(read, expected);
}

#[test]
fn a_v1alpha1_policy() {
    let read = policy(
        "
apiVersion: agentic.networking.x-k8s.io/v1alpha1
kind: XAccessPolicy
metadata: {name: p}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g, sectionName: https}]
  action: Allow
  rules:
  - name: everything
    source: {type: ServiceAccount, serviceAccount: {name: agent}}
    authorization:
      type: Inline
      methods: [GET, DELETE]
      paths: [{value: /default}, {type: PathPrefix, value: /p}, {type: Exact, value: /E}, {type: RegularExpression, value: '/[0-9]+'}]
      headers: [{name: X-Tenant, value: A}, {name: x-env, type: RegularExpression, value: 'dev|test'}]
      hosts: ['*.example.com', exact.org]
      ports: [443, 65535]
      mcp:
        mcpBaseProtocolMethodsOption: MATCH_BASE_PROTOCOL_METHODS
        methods: [{name: tools/call, params: [get-sum]}, {name: resources/templates/list}, {name: prompts}]
  - name: anyone
  - name: empty
    authorization: {type: Inline, methods: [], paths: [], headers: [], hosts: [], ports: [], mcp: {methods: []}}
  - name: bare
    authorization: {type: Inline}
  - name: any-mcp
    authorization: {type: Inline, mcp: {}}
  - name: cel
    authorization: {type: CEL, cel: {expression: 'true'}}
  - name: cel-on-a-port
    authorization: {type: CEL, cel: {expression: 'true'}, ports: [1]}
",
    );
    assert_eq!(
        read.key,
        PolicyKey { namespace: "default".into(), name: "p".into(), group: AgenticGroup::Networking }
    );
    assert_eq!((read.created, read.generation), (None, None));
    assert_eq!(read.dialect, Dialect::V1Alpha1);
    assert_eq!(read.action, Action::Allow);
    assert_eq!(
        read.targets,
        [Target {
            kind: TargetKind::Gateway,
            object: name("default", "g"),
            section_name: Some("https".into())
        }]
    );
    let method = |name: &str, params: Option<&[&str]>| McpMethodMatch {
        name: name.into(),
        params: params.map(|params| params.iter().map(|&param| param.into()).collect()),
    };
    let inline = |inline: Inline| Condition::Inline(Box::new(inline));
    let expected = [
        (
            "everything",
            Source::ServiceAccount(name("default", "agent")),
            inline(Inline {
                methods: Some(vec![HttpMethod("GET".into()), HttpMethod("DELETE".into())]),
                paths: Some(vec![
                    PathMatch::Prefix("/default".into()),
                    PathMatch::Prefix("/p".into()),
                    PathMatch::Exact("/E".into()),
                    PathMatch::Regex("/[0-9]+".into()),
                ]),
                headers: Some(vec![
                    HeaderMatch { name: "x-tenant".into(), value: StringMatch::Exact("A".into()) },
                    HeaderMatch { name: "x-env".into(), value: StringMatch::Regex("dev|test".into()) },
                ]),
                hosts: Some(vec![
                    HostMatch::Wildcard("example.com".into()),
                    HostMatch::Exact("exact.org".into()),
                ]),
                ports: Some(vec![443, 65535]),
                mcp: Some(McpMatch {
                    match_base_protocol: true,
                    methods: Some(vec![
                        method("tools/call", Some(&["get-sum"])),
                        method("resources/templates/list", None),
                        method("prompts", None),
                    ]),
                }),
            }),
        ),
        ("anyone", Source::Anyone, Condition::Anything),
        (
            "empty",
            Source::Anyone,
            inline(Inline {
                methods: Some(vec![]),
                paths: Some(vec![]),
                headers: Some(vec![]),
                hosts: Some(vec![]),
                ports: Some(vec![]),
                mcp: Some(McpMatch { match_base_protocol: false, methods: Some(vec![]) }),
            }),
        ),
        ("bare", Source::Anyone, inline(Inline::default())),
        (
            "any-mcp",
            Source::Anyone,
            inline(Inline {
                mcp: Some(McpMatch { match_base_protocol: false, methods: None }),
                ..Inline::default()
            }),
        ),
        ("cel", Source::Anyone, Condition::Cel { expression: "true".into(), inline: None }),
        (
            "cel-on-a-port",
            Source::Anyone,
            Condition::Cel {
                expression: "true".into(),
                inline: Some(Box::new(Inline { ports: Some(vec![1]), ..Inline::default() })),
            },
        ),
    ];
    assert_eq!(read.rules.len(), expected.len());
    for (rule, (name, source, condition)) in read.rules.into_iter().zip(expected) {
        assert_eq!(rule, Rule { name: name.into(), source, condition });
    }
}

#[test]
fn authorizers() {
    #[track_caller]
    fn check(auth: Value, expected: ExternalAuth) {
        let object = json!({
            "apiVersion": "agentic.networking.x-k8s.io/v1alpha1",
            "kind": "XAccessPolicy",
            "metadata": {"name": "p", "namespace": "team", "creationTimestamp": null},
            "spec": {
                "targetRefs": [{"group": "agentic.networking.x-k8s.io", "kind": "XBackend", "name": "b"}],
                "action": "ExternalAuth",
                "externalAuth": auth,
            },
        });
        let read = read_policy(&object).unwrap();
        assert_eq!(read.action, Action::ExternalAuth(expected));
        assert_eq!((read.rules, read.dialect, read.created), (vec![], Dialect::V1Alpha1, None));
    }
    let service = |namespace: &str, port| ServiceRef {
        group: String::new(),
        kind: "Service".into(),
        object: name(namespace, "authz"),
        port: Some(port),
    };
    let grpc = AuthorizerProtocol::Grpc { allowed_headers: None };
    check(
        json!({"protocol": "GRPC", "grpc": {}, "backendRef": {"name": "authz", "port": 1}}),
        ExternalAuth { backend: service("team", 1), protocol: grpc.clone(), forward_body: None },
    );
    // An empty list is all headers, as in Gateway API; a size of 0 sends no body.
    check(
        json!({"protocol": "GRPC", "grpc": {"allowedHeaders": []}, "forwardBody": {"maxSize": 0},
            "backendRef": {"name": "authz", "namespace": "other", "port": 65535}}),
        ExternalAuth { backend: service("other", 65535), protocol: grpc.clone(), forward_body: None },
    );
    check(
        json!({"protocol": "GRPC", "grpc": {}, "forwardBody": {},
            "backendRef": {"group": "example.org", "kind": "Authorizer", "name": "authz"}}),
        ExternalAuth {
            backend: ServiceRef {
                group: "example.org".into(),
                kind: "Authorizer".into(),
                object: name("team", "authz"),
                port: None,
            },
            protocol: grpc,
            forward_body: None,
        },
    );
    check(
        json!({"protocol": "HTTP", "http": {}, "backendRef": {"name": "authz", "port": 8080}}),
        ExternalAuth {
            backend: service("team", 8080),
            protocol: AuthorizerProtocol::Http {
                path: String::new(),
                allowed_headers: vec![],
                allowed_response_headers: vec![],
            },
            forward_body: None,
        },
    );
    check(
        json!({"protocol": "HTTP", "http": {"path": "/check", "allowedHeaders": ["X-A"], "allowedResponseHeaders": ["X-B", "x-b"]},
            "forwardBody": {"maxSize": 65535}, "backendRef": {"group": "", "kind": "Service", "name": "authz", "port": 8080}}),
        ExternalAuth {
            backend: service("team", 8080),
            protocol: AuthorizerProtocol::Http {
                path: "/check".into(),
                allowed_headers: vec!["x-a".into()],
                allowed_response_headers: vec!["x-b".into()],
            },
            forward_body: Some(65535),
        },
    );
}

#[test]
fn backends() {
    #[track_caller]
    fn check(group: &str, mcp: Value, expected: XBackend) {
        let object = json!({
            "apiVersion": format!("{group}/v0alpha0"),
            "kind": "XBackend",
            "metadata": {"name": "b", "namespace": "team", "generation": 2, "creationTimestamp": "1970-01-01T01:00:00+01:00"},
            "spec": {"mcp": mcp},
        });
        assert_eq!(read_backend(&object).unwrap(), expected);
    }
    check(
        "agentic.networking.x-k8s.io",
        json!({"serviceName": "mcp", "port": 3001}),
        XBackend {
            object: name("team", "b"),
            group: AgenticGroup::Networking,
            generation: Some(2),
            created: Some(Timestamp(0)),
            address: BackendAddress::Service("mcp".into()),
            port: 3001,
            path: "/mcp".into(),
        },
    );
    check(
        "agentic.prototype.x-k8s.io",
        json!({"hostname": "mcp.deepwiki.com", "port": 443, "path": "/a/b%20c"}),
        XBackend {
            object: name("team", "b"),
            group: AgenticGroup::Prototype,
            generation: Some(2),
            created: Some(Timestamp(0)),
            address: BackendAddress::Hostname("mcp.deepwiki.com".into()),
            port: 443,
            path: "/a/b%20c".into(),
        },
    );
}

/// What fails closed for a policy that cannot be read.
#[test]
fn readable_targets() {
    #[track_caller]
    fn check(refs: Value, expected: &[(TargetKind, &str, Option<&str>)]) {
        let object = json!({
            "apiVersion": "agentic.networking.x-k8s.io/v9",
            "kind": "XAccessPolicy",
            "metadata": {"name": "p", "namespace": "team"},
            "spec": {"targetRefs": refs},
        });
        let error = read_policy(&object).unwrap_err();
        let expected: Vec<Target> = expected
            .iter()
            .map(|(kind, object, section)| Target {
                kind: *kind,
                object: name("team", object),
                section_name: section.map(str::to_owned),
            })
            .collect();
        assert_eq!(error.readable_targets(), expected);
        assert_eq!(
            error.key(),
            Some(PolicyKey { namespace: "team".into(), name: "p".into(), group: AgenticGroup::Networking })
        );
    }
    let gateway = json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g"});
    let backend = json!({"group": "agentic.prototype.x-k8s.io", "kind": "XBackend", "name": "b"});
    let (a_gateway, a_backend) = ((TargetKind::Gateway, "g", None), (TargetKind::XBackend, "b", None));
    check(json!([gateway, backend, gateway]), &[a_gateway, a_backend]);
    check(json!([{"name": "x"}, 7, null, [], backend, {}]), &[a_backend]);
    check(json!([{"kind": "Gateway", "name": "g"}]), &[a_gateway]);
    check(json!([{"group": "agentic.networking.x-k8s.io", "kind": null, "name": "b"}]), &[a_backend]);
    check(json!([{"group": "gateway.networking.k8s.io", "kind": "XBackend", "name": "b"}]), &[]);
    check(json!([{"group": "networking.istio.io", "kind": "Gateway", "name": "g"}]), &[]);
    check(json!([{"group": 7, "kind": "Gateway", "name": "g"}]), &[]);
    check(json!([{"kind": "Gateway", "name": ""}, {"kind": "Gateway", "name": 7}]), &[]);
    check(
        json!([{"kind": "Gateway", "name": "g", "sectionName": "https"}]),
        &[(TargetKind::Gateway, "g", Some("https"))],
    );
    check(json!([{"kind": "Gateway", "name": "g", "sectionName": 7}]), &[a_gateway]);
    check(json!([{"kind": "XBackend", "name": "b", "sectionName": "https"}]), &[a_backend]);
    check(json!({"kind": "Gateway", "name": "g"}), &[]);
    check(Value::Null, &[]);
}

#[test]
fn what_an_unreadable_object_is_called() {
    #[track_caller]
    fn check(object: Value, key: Option<&str>, group: Option<AgenticGroup>, namespace: &str) {
        let error = read_policy(&object).unwrap_err();
        assert!(!error.violations().is_empty());
        assert_eq!(error.object().map(ToString::to_string).as_deref(), key);
        assert_eq!(error.key().map(|key| key.group), group);
        assert_eq!(error.key().map(|key| key.to_string()).as_deref(), group.and(key));
        assert_eq!(error.namespace(), namespace);
    }
    let version = "agentic.prototype.x-k8s.io/v0alpha0";
    check(
        json!({"apiVersion": version, "metadata": {"name": "p"}}),
        Some("default/p"),
        Some(AgenticGroup::Prototype),
        "default",
    );
    check(json!({"apiVersion": version, "metadata": {"namespace": "n"}}), None, None, "n");
    check(json!({"apiVersion": "v1", "metadata": {"namespace": "n", "name": "p"}}), Some("n/p"), None, "n");
    check(json!({"metadata": {"namespace": "", "name": "p"}}), Some("default/p"), None, "default");
    check(json!([]), None, None, "default");
    check(Value::Null, None, None, "default");
}
