//! XAccessPolicy's rules, in both shapes.
use serde_json::{Value, json};

use super::{
    backends::{NO_SUBDOMAINS, SUBDOMAINS, condition, conditions},
    table::Table,
};

/// Namespaces: DNS labels of RFC 1123.
const LABELS: [&str; 3] = ["a", "a-b", "0"];
const NO_LABELS: [&str; 6] = ["A", "a_b", "-a", "a-", "a.b", "a\n"];
const KINDS: [&str; 3] = ["Service", "x", "My-Kind9"];
const NO_KINDS: [&str; 4] = ["9a", "-a", "a-", "a b"];
/// Tokens of RFC 9110, section 5.6.2.
const TOKENS: [&str; 3] = ["x-user", "X_USER", "!#$%&'*+-.^_`|~09az"];
const NO_TOKENS: [&str; 6] = ["a b", "a:b", ":path", "ä", "a\n", "a/b"];

const TARGETS: &str = "TargetRef must have group agentic.networking.x-k8s.io and kind XBackend, or group \
                       gateway.networking.k8s.io and kind Gateway";

/// The table of XAccessPolicies.
pub(crate) fn table() -> Table {
    let mut table = Table::default();
    for (name, object) in examples() {
        table.example(name, object);
    }
    shapes(&mut table);
    targets(&mut table);
    rules(&mut table);
    tools_and_cel(&mut table);
    http(&mut table);
    mcp(&mut table);
    for (grpc, http, at) in [
        ("tools", "tools over HTTP", "/spec/rules/2/authorization/externalAuth"),
        ("delegated", "delegated over HTTP", "/spec/externalAuth"),
    ] {
        external_auth(&mut table, grpc, http, at);
    }
    status(&mut table);
    table
}

/// Policies with every field. `tools` has the v0alpha0 shape, the others the v1alpha1 shape.
pub(crate) fn examples() -> [(&'static str, Value); 5] {
    let tools = |external: Value| {
        json!({
            "spec": {
                "targetRefs": [
                    {"group": "agentic.networking.x-k8s.io", "kind": "XBackend", "name": "everything"},
                    {"group": "agentic.prototype.x-k8s.io", "kind": "XBackend", "name": "other"},
                ],
                "rules": [
                    {
                        "name": "tools",
                        "source": {
                            "type": "ServiceAccount",
                            "serviceAccount": {"name": "agent", "namespace": "agents"},
                        },
                        "authorization": {"type": "InlineTools", "tools": ["add", "echo"]},
                    },
                    {
                        "name": "expression",
                        "source": {"type": "SPIFFE", "spiffe": "spiffe://cluster.local/ns/agents/sa/agent"},
                        "authorization": {
                            "type": "CEL",
                            "cel": {"expression": "request.mcp.tool_name == 'add'", "message": "only add"},
                        },
                    },
                    {
                        "name": "asked",
                        "source": {"type": "ServiceAccount", "serviceAccount": {"name": "agent"}},
                        "authorization": {"type": "ExternalAuth", "externalAuth": external},
                    },
                    {"name": "lists", "source": {"type": "ServiceAccount", "serviceAccount": {"name": "agent"}}},
                ],
            },
            "status": {"ancestors": [ancestor("everything")]},
        })
    };
    let delegated = |external: Value| {
        json!({
            "spec": {
                "targetRefs": [
                    {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "agents"},
                ],
                "action": "ExternalAuth",
                "externalAuth": external,
                "rules": [{"name": "anything"}],
            },
        })
    };
    let inline = json!({
        "spec": {
            "targetRefs": [
                {
                    "group": "gateway.networking.k8s.io",
                    "kind": "Gateway",
                    "name": "agents",
                    "sectionName": "https",
                },
            ],
            "action": "Allow",
            "rules": [
                {
                    "name": "requests",
                    "source": {
                        "type": "ServiceAccount",
                        "serviceAccount": {"name": "agent", "namespace": "agents"},
                    },
                    "authorization": {
                        "type": "Inline",
                        "methods": ["POST"],
                        "paths": [{"type": "Exact", "value": "/mcp"}],
                        "headers": [{"name": "x-tenant", "type": "Exact", "value": "one"}],
                        "hosts": ["*.example.com"],
                        "ports": [443],
                        "mcp": {
                            "mcpBaseProtocolMethodsOption": "MATCH_BASE_PROTOCOL_METHODS",
                            "methods": [{"name": "tools/call", "params": ["add", "echo"]}],
                        },
                    },
                },
                {"name": "expression", "authorization": {"type": "CEL", "cel": {"expression": "true"}}},
            ],
        },
    });
    [
        ("tools", tools(over_grpc())),
        ("tools over HTTP", tools(over_http())),
        ("delegated", delegated(over_grpc())),
        ("delegated over HTTP", delegated(over_http())),
        ("inline", inline),
    ]
}

fn authorizer() -> Value {
    json!({"group": "", "kind": "Service", "name": "authorizer", "namespace": "auth", "port": 50051})
}

fn over_grpc() -> Value {
    json!({
        "protocol": "GRPC",
        "backendRef": authorizer(),
        "grpc": {"allowedHeaders": ["x-user"]},
        "forwardBody": {"maxSize": 1024},
    })
}

fn over_http() -> Value {
    json!({
        "protocol": "HTTP",
        "backendRef": authorizer(),
        "http": {"path": "/check", "allowedHeaders": ["x-user"], "allowedResponseHeaders": ["x-found"]},
        "forwardBody": {"maxSize": 1024},
    })
}

fn ancestor(name: &str) -> Value {
    json!({
        "ancestorRef": {
            "group": "agentic.networking.x-k8s.io",
            "kind": "XBackend",
            "namespace": "default",
            "name": name,
            "sectionName": "https",
            "port": 443,
        },
        "controllerName": "sigs.k8s.io/kube-agentic-networking-controller",
        "conditions": [condition("Accepted")],
    })
}

/// What tells the two shapes apart and keeps them apart.
fn shapes(table: &mut Table) {
    table.at("tools", "").required(&["spec"]);
    table.at("tools", "/spec").required(&["targetRefs"]);
    table.at("inline", "/spec/action").one_of_these(
        &["Allow", "ExternalAuth"],
        "Allow",
        &["allow", "Deny", ""],
    );
    table.at("delegated", "/spec").cel_edits(
        "externalAuth must be specified when action is set to 'ExternalAuth'",
        &[&[]],
        &[&[("/externalAuth", Value::Null)]],
    );
    table.at("delegated", "/spec").cel_edits(
        "externalAuth may only be specified when action is set to 'ExternalAuth'",
        &[&[("/action", json!("Allow")), ("/externalAuth", Value::Null)]],
        &[&[("/action", json!("Allow"))]],
    );
    // Without an action, this also lacks rules with sources: a policy of neither shape.
    let source = json!({"type": "ServiceAccount", "serviceAccount": {"name": "agent"}});
    table.at("delegated", "/spec").cel_edits(
        "externalAuth may only be specified when action is set to 'ExternalAuth'",
        &[],
        &[&[("/action", Value::Null), ("/rules", json!([{"name": "all", "source": source}]))]],
    );
    table.at("tools", "/spec").cel_edits(
        "rules must be specified when action is not set",
        &[
            &[("/action", json!("Allow")), ("/rules", json!([]))],
            &[("/action", json!("Allow")), ("/rules", Value::Null)],
        ],
        &[&[("/rules", Value::Null)], &[("/rules", json!([]))]],
    );
    table.at("tools", "/spec").cel_edits(
        "source must be specified in every rule when action is not set",
        &[&[("/action", json!("Allow")), ("/rules", json!([{"name": "anyone"}]))]],
        &[&[("/rules/3/source", Value::Null)], &[("/rules", json!([{"name": "anyone"}]))]],
    );
    let mixed = "authorization type must be 'Inline' or 'CEL' when action is set";
    let tools = json!({"type": "InlineTools", "tools": ["add"]});
    let asked = json!({"type": "ExternalAuth", "externalAuth": over_grpc()});
    table.at("inline", "/spec").cel_edits(
        mixed,
        &[&[("/rules/0/authorization", json!({"type": "CEL", "cel": {"expression": "true"}}))]],
        &[&[("/rules/0/authorization", tools)], &[("/rules/1/authorization", asked)]],
    );
    table.at("tools", "/spec").cel_edits(
        "authorization type must be 'InlineTools', 'ExternalAuth' or 'CEL' when action is not set",
        &[&[("/rules/0/authorization", json!({"type": "CEL", "cel": {"expression": "true"}}))]],
        &[&[("/rules/0/authorization", json!({"type": "Inline"}))]],
    );
    table.at("inline", "/spec").cel_edits(
        "cel.message may only be specified when action is not set",
        &[&[]],
        &[&[("/rules/1/authorization/cel/message", json!("no"))]],
    );
    let only_with_action =
        "methods, paths, headers, hosts, ports and mcp may only be specified when action is set";
    for (field, value) in [
        ("methods", json!(["GET"])),
        ("paths", json!([{"value": "/"}])),
        ("headers", json!([{"name": "a", "value": "b"}])),
        ("hosts", json!(["a"])),
        ("ports", json!([80])),
        ("mcp", json!({})),
        ("methods", json!([])),
    ] {
        let with_action = [
            ("/action", json!("Allow")),
            ("/rules", json!([{"name": "a", "authorization": {"type": "Inline", field: value.clone()}}])),
        ];
        let without = format!("/rules/1/authorization/{field}");
        table.at("tools", "/spec").cel_edits(only_with_action, &[&with_action[..]], &[&[(&*without, value)]]);
    }
}

fn targets(table: &mut Table) {
    let target = |group: &str, kind: &str| json!({"group": group, "kind": kind, "name": "a"});
    let (networking, prototype, gateway) =
        ("agentic.networking.x-k8s.io", "agentic.prototype.x-k8s.io", "gateway.networking.k8s.io");
    let numbered =
        |count: usize| json!({"group": networking, "kind": "XBackend", "name": format!("backend-{count}")});
    table
        .at("tools", "/spec/targetRefs")
        .not_empty(numbered(0))
        .items(10, numbered)
        .cel(
            TARGETS,
            vec![
                json!([target(networking, "XBackend")]),
                json!([target(prototype, "XBackend")]),
                json!([target(gateway, "Gateway")]),
            ],
            vec![
                json!([target(gateway, "XBackend")]),
                json!([target(networking, "Gateway")]),
                json!([target(gateway, "HTTPRoute")]),
                json!([target("", "Service")]),
                json!([target(networking, "XBackend"), target("", "XBackend")]),
            ],
        )
        .cel(
            "All targetRefs must have the same Kind",
            vec![json!([target(networking, "XBackend"), target(prototype, "XBackend")])],
            vec![json!([target(networking, "XBackend"), target(gateway, "Gateway")])],
        );
    let mut section = target(networking, "XBackend");
    if let Some(fields) = section.as_object_mut() {
        fields.insert("sectionName".to_owned(), json!("https"));
    }
    table.at("inline", "/spec/targetRefs").cel_edits(
        "sectionName may only be specified for a Gateway",
        &[&[("/0/sectionName", json!("https"))]],
        &[&[("", json!([section]))]],
    );
    table.at("tools", "/spec/targetRefs/0").required(&["group", "kind", "name"]);
    // Which groups and kinds there can be is for the rules above; the schema's own are for what cannot be one at all.
    table
        .at("tools", "/spec/targetRefs/0/group")
        .pattern(&[networking, prototype], &["A", "a_b", "-a", "a..b", "a b"])
        .also(TARGETS)
        .too_long(networking, 253);
    table
        .at("inline", "/spec/targetRefs/0/kind")
        .pattern(&["Gateway"], &NO_KINDS)
        .also(TARGETS)
        .too_long("Gateway", 63)
        .not_blank("Gateway")
        .also(TARGETS);
    table.at("tools", "/spec/targetRefs/0/name").length(253, |count| "a".repeat(count));
    table
        .at("inline", "/spec/targetRefs/0/sectionName")
        .length(253, |count| "a".repeat(count))
        .pattern(&SUBDOMAINS, &NO_SUBDOMAINS);
}

fn rules(table: &mut Table) {
    let source = json!({"type": "ServiceAccount", "serviceAccount": {"name": "agent"}});
    let rule = |name: &str| json!({"name": name, "source": source});
    let asked = |name: &str| {
        let authorization = json!({"type": "ExternalAuth", "externalAuth": over_http()});
        json!({"name": name, "source": source, "authorization": authorization})
    };
    table
        .at("tools", "/spec/rules")
        .items(10, |count| rule(&format!("rule-{count}")))
        .cel(
            "AccessRule names must be unique",
            vec![json!([rule("a"), rule("b")])],
            vec![json!([rule("a"), rule("b"), rule("a")])],
        )
        .cel(
            "a maximum of one rule per policy can specify 'ExternalAuth' authorization type",
            vec![json!([asked("a"), rule("b")])],
            vec![json!([asked("a"), rule("b"), asked("c")])],
        );
    table.at("tools", "/spec/rules/0").required(&["name"]);
    table
        .at("tools", "/spec/rules/0/name")
        .length(63, |count| "a".repeat(count))
        .pattern(&SUBDOMAINS, &NO_SUBDOMAINS);

    let account = json!({"name": "agent"});
    let id = "spiffe://cluster.local/ns/a/sa/b";
    let by_account = json!({"type": "ServiceAccount", "serviceAccount": account});
    let by_id = json!({"type": "SPIFFE", "spiffe": id});
    let both = |kind: &str| json!({"type": kind, "serviceAccount": account, "spiffe": id});
    table
        .at("tools", "/spec/rules/0/source")
        .required(&["type"])
        .cel(
            "serviceAccount must be specified when type is set to 'ServiceAccount'",
            vec![by_account.clone()],
            vec![json!({"type": "ServiceAccount"}), json!({"type": "ServiceAccount", "spiffe": id})],
        )
        .cel(
            "serviceAccount may only be specified when type is set to 'ServiceAccount'",
            vec![by_id.clone()],
            vec![both("SPIFFE")],
        )
        .cel(
            "spiffe must be specified when type is set to 'SPIFFE'",
            vec![by_id],
            vec![json!({"type": "SPIFFE"}), json!({"type": "SPIFFE", "serviceAccount": account})],
        )
        .cel(
            "spiffe may only be specified when type is set to 'SPIFFE'",
            vec![by_account],
            vec![both("ServiceAccount")],
        );
    table.at("tools", "/spec/rules/0/source/type").one_of_these(
        &["ServiceAccount", "SPIFFE"],
        "ServiceAccount",
        &["spiffe", "Anyone", ""],
    );
    table.at("tools", "/spec/rules/0/source/serviceAccount").required(&["name"]);
    table
        .at("tools", "/spec/rules/0/source/serviceAccount/name")
        .length(253, |count| "a".repeat(count))
        .pattern(&SUBDOMAINS, &NO_SUBDOMAINS);
    namespace(table, "tools", "/spec/rules/0/source/serviceAccount/namespace");
    table
        .at("tools", "/spec/rules/1/source/spiffe")
        .longest(2048, |count| format!("spiffe://td/{}", "a".repeat(count - 12)))
        .pattern(
            &["spiffe://td", "spiffe://cluster.local/ns/a/sa/b", "spiffe://a_b.c-d/A.b_c-9"],
            &[
                "",
                "SPIFFE://td/a",
                "https://td/a",
                "spiffe://TD/a",
                "spiffe://td/",
                "spiffe://td/a/",
                "spiffe://td//a",
                "spiffe://td/a b",
                "spiffe://td:80/a",
                "spiffe://td/a?b",
            ],
        );
}

fn tools_and_cel(table: &mut Table) {
    let tools = json!(["add"]);
    let cel = json!({"expression": "true"});
    let by_tools = json!({"type": "InlineTools", "tools": tools});
    let by_cel = json!({"type": "CEL", "cel": cel});
    let by_asking = json!({"type": "ExternalAuth", "externalAuth": over_grpc()});
    table
        .at("tools", "/spec/rules/0/authorization")
        .required(&["type"])
        .cel(
            "tools must be specified when type is set to 'InlineTools'",
            vec![by_tools.clone(), json!({"type": "InlineTools", "tools": []})],
            vec![json!({"type": "InlineTools"}), json!({"type": "InlineTools", "cel": cel})],
        )
        .cel(
            "tools may only be specified when type is set to 'InlineTools'",
            vec![by_cel.clone()],
            vec![json!({"type": "CEL", "cel": cel, "tools": tools})],
        )
        .cel(
            "externalAuth may only be specified when type is set to 'ExternalAuth'",
            vec![by_tools.clone()],
            vec![json!({"type": "InlineTools", "tools": tools, "externalAuth": over_grpc()})],
        )
        .cel(
            "cel must be specified when type is set to 'CEL'",
            vec![by_cel],
            vec![json!({"type": "CEL"}), json!({"type": "CEL", "tools": tools})],
        )
        .cel(
            "cel may only be specified when type is set to 'CEL'",
            vec![by_tools],
            vec![json!({"type": "InlineTools", "tools": tools, "cel": cel})],
        );
    // There may be one of these, and that is the example's rule 2.
    table.at("tools", "/spec/rules/2/authorization").cel(
        "externalAuth must be specified when type is set to 'ExternalAuth'",
        vec![by_asking],
        vec![json!({"type": "ExternalAuth"}), json!({"type": "ExternalAuth", "tools": tools})],
    );
    table.at("tools", "/spec/rules/0/authorization/type").one_of_these(
        &["InlineTools", "ExternalAuth", "CEL", "Inline"],
        "InlineTools",
        &["Tools", "Cel", ""],
    );
    table
        .at("tools", "/spec/rules/0/authorization/tools")
        .items(1024, |count| json!(format!("tool-{count}")))
        .unique(json!("add"), json!("Add"), json!("add"));
    table.at("tools", "/spec/rules/0/authorization/tools/0").longest(256, |count| "ä".repeat(count));
    table.at("tools", "/spec/rules/1/authorization/cel").required(&["expression"]);
    table.at("tools", "/spec/rules/1/authorization/cel/expression").length(4096, |count| "a".repeat(count));
    table.at("tools", "/spec/rules/1/authorization/cel/message").longest(4096, |count| "a".repeat(count));
}

/// What a rule of the v1alpha1 shape says of HTTP.
fn http(table: &mut Table) {
    let at = |field: &str| format!("/spec/rules/0/authorization/{field}");
    let methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    // A tenth method can only be one of the nine again.
    table.at("inline", at("methods")).items(9, |count| json!(methods.get(count).unwrap_or(&"GET"))).unique(
        json!("GET"),
        json!("PUT"),
        json!("GET"),
    );
    table.at("inline", at("methods/0")).one_of(&methods, &["get", "PURGE", ""]);

    table.at("inline", at("paths")).items(10, |count| json!({"value": format!("/{count}")}));
    let must_be_absolute =
        "value must be an absolute path and start with '/' when type is 'Exact' or 'PathPrefix'";
    table.at("inline", at("paths/0")).required(&["value"]).cel(
        must_be_absolute,
        vec![
            json!({"type": "Exact", "value": "/"}),
            json!({"type": "PathPrefix", "value": "/a"}),
            json!({"type": "RegularExpression", "value": ".*"}),
            json!({"value": "/a"}),
        ],
        vec![
            json!({"type": "Exact", "value": "a"}),
            json!({"type": "PathPrefix", "value": "a"}),
            json!({"value": "a"}),
        ],
    );
    table
        .at("inline", at("paths/0/type"))
        .one_of(&["Exact", "PathPrefix", "RegularExpression"], &["Prefix", ""])
        .default(json!("PathPrefix"));
    table
        .at("inline", at("paths/0/value"))
        .longest(1024, |count| "/".repeat(count))
        .not_blank("/")
        .also(must_be_absolute);

    table.at("inline", at("headers")).items(10, |count| json!({"name": format!("x-{count}"), "value": "a"}));
    table.at("inline", at("headers/0")).required(&["name", "value"]);
    table
        .at("inline", at("headers/0/type"))
        .one_of(&["Exact", "RegularExpression"], &["Regex", ""])
        .default(json!("Exact"));
    header_name(table, "inline", &at("headers/0/name"));
    table.at("inline", at("headers/0/value")).length(4096, |count| "ä".repeat(count));

    table.at("inline", at("hosts")).items(10, |count| json!(format!("host-{count}"))).unique(
        json!("a"),
        json!("*.a"),
        json!("a"),
    );
    table.at("inline", at("hosts/0")).length(253, |count| "a".repeat(count)).pattern(
        &["a", "a.b", "*.a", "*.example.com", "10.0.0.1"],
        &["A", "*", "a.*", "*a", "*.*.a", "*.", "a:80", "[::1]", "a\n"],
    );
    table.at("inline", at("ports")).items(10, |count| json!(count + 1)).unique(
        json!(80),
        json!(443),
        json!(80),
    );
    table.at("inline", at("ports/0")).range(1, 65535);
}

fn mcp(table: &mut Table) {
    let at = |field: &str| format!("/spec/rules/0/authorization/mcp/{field}");
    table
        .at("inline", at("mcpBaseProtocolMethodsOption"))
        .one_of(&["SKIP_BASE_PROTOCOL_METHODS", "MATCH_BASE_PROTOCOL_METHODS"], &["SKIP", ""])
        .default(json!("SKIP_BASE_PROTOCOL_METHODS"));
    let methods = [
        "tools",
        "prompts",
        "resources",
        "prompts/list",
        "tools/list",
        "resources/list",
        "resources/templates/list",
        "prompts/get",
        "tools/call",
        "resources/subscribe",
        "resources/unsubscribe",
        "resources/read",
    ];
    let named = |name: &str| json!({"name": name});
    table.at("inline", at("methods")).items(10, |count| named(methods.get(count).unwrap_or(&"none"))).unique(
        named("tools"),
        named("prompts"),
        named("tools"),
    );
    let with = |name: &str| json!({"name": name, "params": ["a"]});
    let takes =
        ["prompts/get", "tools/call", "resources/subscribe", "resources/unsubscribe", "resources/read"];
    let others = methods.iter().filter(|method| !takes.contains(method));
    table.at("inline", at("methods/0")).required(&["name"]).cel(
        "Params can only be specified for get, call, subscribe, unsubscribe, or read methods",
        takes.map(with).into_iter().chain([named("tools/list")]).collect(),
        others.map(|method| with(method)).chain([json!({"name": "tools", "params": []})]).collect(),
    );
    table.at("inline", at("methods/0/params")).items(10, |count| json!(format!("tool-{count}"))).unique(
        json!("a"),
        json!("b"),
        json!("a"),
    );
    table.at("inline", at("methods/0/params/0")).length(128, |count| "ä".repeat(count));
    table.at("inline", at("methods/0/name")).one_of_without(
        "params",
        &methods,
        &["tools/", "initialize", "tools/*", ""],
    );
}

/// The authorizer, which is asked for in two places.
fn external_auth(table: &mut Table, grpc: &'static str, http: &'static str, at: &str) {
    let field = |name: &str| format!("{at}/{name}");
    table.at(grpc, at).required(&["protocol", "backendRef"]);
    table.at(grpc, field("protocol")).one_of_these(&["HTTP", "GRPC"], "GRPC", &["grpc", "TCP", ""]);
    table.at(grpc, at).cel_edits(
        "grpc must be specified when protocol is set to 'GRPC'",
        &[&[("/grpc", json!({}))]],
        &[&[("/grpc", Value::Null)]],
    );
    table.at(http, at).cel_edits(
        "protocol must be 'GRPC' when grpc is set",
        &[&[]],
        &[&[("/grpc", json!({}))]],
    );
    table.at(http, at).cel_edits(
        "http must be specified when protocol is set to 'HTTP'",
        &[&[("/http", json!({}))]],
        &[&[("/http", Value::Null)]],
    );
    table.at(grpc, at).cel_edits(
        "protocol must be 'HTTP' when http is set",
        &[&[]],
        &[&[("/http", json!({}))]],
    );

    let reference = |group: &str, kind: &str| json!({"group": group, "kind": kind, "name": "a"});
    table.at(grpc, field("backendRef")).required(&["name"]).cel(
        "Must have port for Service reference",
        vec![json!({"name": "a", "port": 80}), reference("", "Other"), reference("example.com", "Service")],
        vec![json!({"name": "a"}), reference("", "Service")],
    );
    table
        .at(grpc, field("backendRef/group"))
        .longest(253, |count| "a".repeat(count))
        .pattern(&["", "a", "example.com"], &NO_SUBDOMAINS)
        .default(json!(""));
    table
        .at(grpc, field("backendRef/kind"))
        .length(63, |count| "a".repeat(count))
        .pattern(&KINDS, &NO_KINDS)
        .default(json!("Service"));
    table.at(grpc, field("backendRef/name")).length(253, |count| "a".repeat(count));
    namespace(table, grpc, &field("backendRef/namespace"));
    table.at(grpc, field("backendRef/port")).range(1, 65535);
    table.at(grpc, field("forwardBody/maxSize")).range(0, 65535);

    table
        .at(http, field("http/path"))
        .longest(1024, |count| "/".repeat(count))
        .pattern(&["", "/", "/check/a.b~c%20"], &["check", "/a?b", "/a#b", "/a b", "/ä", "/a\n"]);
    for (example, name) in
        [(grpc, "grpc/allowedHeaders"), (http, "http/allowedHeaders"), (http, "http/allowedResponseHeaders")]
    {
        table.at(example, field(name)).items(64, |count| json!(format!("x-{count}"))).unique(
            json!("a"),
            json!("b"),
            json!("a"),
        );
        header_name(table, example, &field(&format!("{name}/0")));
    }
}

fn header_name(table: &mut Table, example: &'static str, at: &str) {
    table.at(example, at).length(256, |count| "a".repeat(count)).pattern(&TOKENS, &NO_TOKENS);
}

fn namespace(table: &mut Table, example: &'static str, at: &str) {
    table.at(example, at).length(63, |count| "a".repeat(count)).pattern(&LABELS, &NO_LABELS);
}

fn status(table: &mut Table) {
    table.at("tools", "/status").required(&["ancestors"]);
    table.at("tools", "/status/ancestors").items(16, |count| ancestor(&format!("backend-{count}")));
    table.at("tools", "/status/ancestors/0").required(&["ancestorRef", "controllerName", "conditions"]);
    let at = |field: &str| format!("/status/ancestors/0/{field}");
    table
        .at("tools", at("controllerName"))
        .not_blank("a/b")
        .longest(253, |count| format!("a/{}", "b".repeat(count - 2)))
        .pattern(&["a/b", "example.com/a/b.c~d"], &["a", "a/", "/b", "A/b", "a/b c", "a/b?"]);
    conditions(table, "tools", &at("conditions"), true);
    let at = |field: &str| format!("/status/ancestors/0/ancestorRef/{field}");
    table.at("tools", "/status/ancestors/0/ancestorRef").required(&["name"]);
    table
        .at("tools", at("group"))
        .longest(253, |count| "a".repeat(count))
        .pattern(&["", "a", "example.com"], &NO_SUBDOMAINS)
        .default(json!("gateway.networking.k8s.io"));
    table
        .at("tools", at("kind"))
        .length(63, |count| "a".repeat(count))
        .pattern(&KINDS, &NO_KINDS)
        .default(json!("Gateway"));
    table.at("tools", at("name")).length(253, |count| "a".repeat(count));
    namespace(table, "tools", &at("namespace"));
    table
        .at("tools", at("sectionName"))
        .length(253, |count| "a".repeat(count))
        .pattern(&SUBDOMAINS, &NO_SUBDOMAINS);
    table.at("tools", at("port")).range(1, 65535);
}
