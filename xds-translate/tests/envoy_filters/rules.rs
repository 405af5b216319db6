//! Rules of policies as conditions of Envoy's RBAC filter.
use authz_core::DefaultAction;
use serde_json::json;

use super::{WORLD, cluster, forwarding, routes, rule, rules, settings, translated};

/// What one Allow rule becomes on the XBackend's MCP path, on the listener with identities.
#[track_caller]
fn check_allow(rule_text: &str, expected: &str) {
    check_on("routes/tls", rule_text, expected);
}

#[track_caller]
fn check_on(table: &str, rule_text: &str, expected: &str) {
    let text = format!("{WORLD}{}", rule("Allow", rule_text));
    let translation = translated(&text, &settings(DefaultAction::Allow));
    assert_eq!(translation.refused, []);
    let found = rules(cluster(routes(&translation, table), "path /b"), "agentic.backend", "rules");
    assert_eq!(found, [("n/p: rule r".to_owned(), expected.to_owned())]);
}

fn cel(expression: &str) -> String {
    format!("authorization: {{type: CEL, cel: {{expression: {}}}}}", json!(expression))
}

#[test]
fn allow_rules() {
    check_allow(
        "source: {type: ServiceAccount, serviceAccount: {name: a}}",
        "all(agentic.peer=spiffe://cluster.local/ns/n/sa/a, is current)",
    );
    check_allow(
        "source: {type: SPIFFE, spiffe: 'spiffe://td/x'}, authorization: {type: Inline, methods: [POST, GET]}",
        "all(agentic.peer=spiffe://td/x, is current, any(:method=POST, :method=GET))",
    );
    check_allow(
        "authorization: {type: Inline, paths: [{type: Exact, value: /b}, {type: PathPrefix, value: /b/c/}, {type: RegularExpression, value: '/b[0-9]+'}]}",
        r"any(path=/b, path=/b/c, path prefix /b/c/, all(path~/b[0-9]+, path~[\t -~]*))",
    );
    // The listener's port is known.
    check_allow("authorization: {type: Inline, ports: [8443]}", "true");
    check_allow("authorization: {type: Inline, ports: [8080]}", "not(true)");
    check_allow(
        "authorization: {type: Inline, hosts: [a.example, '*.b.example']}",
        r"any(:authority~(?i)a\.example(?::\d{1,5})?, :authority~(?i)(?:[\w-]+\.)+b\.example(?::\d{1,5})?)",
    );
    check_allow(
        "authorization: {type: Inline, headers: [{name: X-Env, value: dev}]}",
        "all(x-env=dev, is matched_single, not(x-env contains ,))",
    );
    // Envoy's regular expressions read bytes.
    check_allow(
        "authorization: {type: Inline, headers: [{name: X-Env, type: RegularExpression, value: 'd.v'}]}",
        r"all(x-env~d.v, is matched_single, not(x-env contains ,), x-env~[\t -~]*)",
    );
    // A header that mirrors the body is not compared with it here.
    check_allow("authorization: {type: Inline, headers: [{name: mcp-name, value: x}]}", "not(true)");
    check_allow(
        "authorization: {type: Inline, mcp: {methods: [{name: tools/call, params: [x]}]}}",
        "all(method=tools/call, any(all(any(method=tools/call, method=prompts/get), params.name=x), \
         all(any(method=resources/read, method=resources/subscribe, method=resources/unsubscribe), params.uri=x)))",
    );
    check_allow("authorization: {type: Inline, mcp: {methods: [{name: tools}]}}", "method~(?s)tools/.+");
    check_allow("authorization: {type: Inline, mcp: {methods: []}}", "not(true)");
    check_allow("authorization: {type: Inline, mcp: {}}", "true");
}

#[test]
fn cel_that_is_tests_of_text() {
    let check = |expression: &str, expected: &str| check_allow(&cel(expression), expected);
    check("request.mcp.tool_name == 'x'", "all(method=tools/call, params.name=x)");
    check(
        "request.mcp.tool_name in ['x', 'y'] && request.path != '/z'",
        "all(method=tools/call, any(params.name=x, params.name=y), not(:path=/z))",
    );
    // An error is not true, nor is its opposite.
    check(
        "!request.headers['x-a'].startsWith('b')",
        r"all(method=tools/call, has x-a, is matched_single, x-a~[\t -~]*, not(x-a prefix b))",
    );
    check(
        "source.namespace == 'a' || request.mcp.method == 'tools/list'",
        "all(method=tools/call, agentic.peer~spiffe://[^,/]+/ns/[^,/]+/sa/[^,/]+, is current, agentic.peer~spiffe://[^,/]+/ns/a/sa/[^,/]+)",
    );
    check(
        "request.url_path.matches('^/b[0-9]')",
        r"all(method=tools/call, path~[\t -~]*, path~(?s:.*)(?:^/b[0-9])(?s:.*))",
    );
    check("true", "method=tools/call");
}

#[test]
fn cel_that_asks_for_headers() {
    let check = |expression: &str, expected: &str| check_allow(&cel(expression), expected);
    let there = r"has x-a, is matched_single, x-a~[\t -~]*";
    check("'x-a' in request.headers", &format!("all(method=tools/call, {there})"));
    check("!('x-a' in request.headers)", "all(method=tools/call, not(has x-a))");
    // Names are lower case: another spelling is never there.
    check("'X-A' in request.headers", "not(true)");
    check("!('X-A' in request.headers)", "method=tools/call");
    check("request.headers['X-A'] != 'b'", "not(true)");
    // Nothing has compared these with the body: an error, unless they are not there at all.
    check("'mcp-name' in request.headers", "not(true)");
    check("!('mcp-name' in request.headers)", "all(method=tools/call, not(has mcp-name))");
    check("request.headers['mcp-name'] == 'x'", "not(true)");
    check("request.headers['mcp-name'] != 'x'", "not(true)");
    check(
        "request.headers['x-a'].matches('^b$')",
        &format!("all(method=tools/call, {there}, x-a~(?s:.*)(?:^b$)(?s:.*))"),
    );
}

#[test]
fn cel_that_looks_at_parts_of_texts() {
    let check = |expression: &str, expected: &str| {
        check_allow(&cel(expression), &format!("all(method=tools/call, {expected})"));
    };
    check("request.host.endsWith('.example')", ":authority suffix .example");
    check("request.method.contains('OS')", ":method contains OS");
    check("request.url_path.startsWith('/b')", "path prefix /b");
    // Envoy refuses empty texts here; every text begins with nothing, ends with it and holds it.
    check("request.path.startsWith('')", ":path~(?s).*");
    check("request.path.endsWith('')", ":path~(?s).*");
    check("request.path.contains('')", ":path~(?s).*");
    check("request.path.matches('z')", r":path~[\t -~]*, :path~(?s:.*)(?:z)(?s:.*)");
    check("request.host.matches('z')", ":authority~(?s:.*)(?:z)(?s:.*)");
    check("request.mcp.tool_name.matches('^a')", r"params.name~[\t -~]*, params.name~(?s:.*)(?:^a)(?s:.*)");
    check_allow(
        "authorization: {type: CEL, cel: {expression: \"request.mcp.tool_name == 'x'\"}, methods: [POST]}",
        "all(:method=POST, method=tools/call, params.name=x)",
    );
}

/// Of an identity only what the client's certificate says, and only on a listener that has identities.
#[test]
fn cel_that_looks_at_identities() {
    let one_name = "agentic.peer~spiffe://[^,]+, is current";
    let account = "agentic.peer~spiffe://[^,/]+/ns/[^,/]+/sa/[^,/]+, is current";
    for (expression, expected) in [
        ("has(source.identity)", one_name.to_owned()),
        ("source.identity == 'spiffe://td/x'", format!("{one_name}, agentic.peer=spiffe://td/x")),
        ("source.identity.matches('/x$')", format!("{one_name}, agentic.peer~(?s:.*)(?:/x$)(?s:.*)")),
        ("has(source.service_account)", account.to_owned()),
        (
            "source.service_account in ['a', 'b.c']",
            format!(
                r"{account}, any(agentic.peer~spiffe://[^,/]+/ns/[^,/]+/sa/a, agentic.peer~spiffe://[^,/]+/ns/[^,/]+/sa/b\.c)"
            ),
        ),
    ] {
        check_allow(&cel(expression), &format!("all(method=tools/call, {expected})"));
        check_on("routes/http-8080", &cel(expression), "not(true)");
    }
    check_on("routes/http-8080", &cel("source.namespace != 'a'"), "not(true)");
    check_on("routes/http-8080", &cel("!has(source.namespace)"), "method=tools/call");
    check_refused(
        &cel("source.namespace.startsWith('a')"),
        "source.namespace and source.service_account are only compared with whole names; use `==` or `in`",
    );
}

/// A v0alpha0 policy on the Gateway: on a server's MCP path, below `/.well-known/`, and on the two halves of a Service.
#[test]
fn v0alpha0_rules_by_what_a_request_is() {
    let policy = "apiVersion: agentic.networking.x-k8s.io/v0alpha0\nkind: XAccessPolicy\nmetadata: {name: p, namespace: n}\n\
        spec:\n  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g}]\n  rules:\n  \
        - {name: calls, source: {type: SPIFFE, spiffe: 'spiffe://td/x'}, authorization: {type: InlineTools, tools: [a, b]}}\n  \
        - {name: rest, source: {type: SPIFFE, spiffe: 'spiffe://td/x'}}\n";
    let world = WORLD.replace("replacePrefixMatch: /mcp", "replacePrefixMatch: ''");
    let translation = translated(&format!("{world}{policy}"), &settings(DefaultAction::Allow));
    let table = routes(&translation, "routes/tls");
    let check = |path: &str, nth: usize, base: &str, calls: &str, rest: &str| {
        let found = forwarding(table);
        let (_, route) = found.iter().filter(|(for_path, _)| for_path == path).nth(nth).unwrap();
        let cluster = &route["route"]["weighted_clusters"]["clusters"][0];
        let expected = [("n/p: base protocol", base), ("n/p: rule calls", calls), ("n/p: rule rest", rest)];
        let expected = expected.map(|(name, test)| (name.to_owned(), test.to_owned()));
        assert_eq!(rules(cluster, "agentic.gateway", "rules"), expected, "{path} {nth}");
    };
    let one_of =
        |names: &[&str]| names.iter().map(|name| format!("method={name}")).collect::<Vec<_>>().join(", ");
    let tasks = one_of(&["tasks/get", "tasks/result", "tasks/update", "tasks/cancel"]);
    let base = one_of(&[
        "initialize",
        "server/discover",
        "ping",
        "tools/list",
        "completion/complete",
        "logging/setLevel",
    ]);
    let base = format!("{base}, all(method~(?s)notifications/.+, not(has id))");
    let named = "agentic.peer=spiffe://td/x, is current";
    let named_twice = format!("any(all({named}), all({named}))");
    let calls = format!("all({named}, method=tools/call, any(params.name=a, params.name=b))");
    let rest = format!("all({named}, not(method=tools/call))");
    let streams = ":method=GET, :method=DELETE";
    check(
        "path /b/mcp",
        0,
        &format!("any({streams}, {base}, all(any({streams}, {base}, {tasks}), {named_twice}))"),
        &calls,
        &rest,
    );
    check("prefix /b/.well-known/", 0, "not(true)", "not(true)", &format!("all({named})"));
    check("path_separated_prefix /s", 0, &format!("all(any({base}, {tasks}), {named_twice})"), &calls, &rest);
    let bodiless = "any(content-length=0, not(has content-length)), is bodiless, \
        any(:method=GET, :method=HEAD, :method=DELETE, :method=OPTIONS)";
    check("path_separated_prefix /s", 1, "not(true)", "not(true)", &format!("all({named}, {bodiless})"));
}

/// What looks at a body that is not read asks the authorizer, and what looks at none does not.
#[test]
fn bodies_of_services_that_are_not_read() {
    let check = |authorization: &str, posted: &str, other: &str| {
        let policy = format!(
            "apiVersion: agentic.networking.x-k8s.io/v1alpha1\nkind: XAccessPolicy\nmetadata: {{name: e, namespace: n}}\n\
             spec:\n  targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: g}}]\n  action: ExternalAuth\n  \
             externalAuth: {{protocol: GRPC, grpc: {{}}, backendRef: {{name: s, port: 80}}}}\n  \
             rules: [{{name: r, authorization: {authorization}}}]\n"
        );
        let translation = translated(&format!("{WORLD}{policy}"), &settings(DefaultAction::Allow));
        let found: Vec<_> = forwarding(routes(&translation, "routes/tls"))
            .iter()
            .filter(|(path, _)| path == "path_separated_prefix /s")
            .map(|(_, route)| {
                let cluster = &route["route"]["weighted_clusters"]["clusters"][0];
                let [(name, delegated)] =
                    rules(cluster, "agentic.gateway", "shadow_rules").try_into().unwrap();
                assert_eq!(name, "delegated");
                delegated
            })
            .collect();
        assert_eq!(found, [posted, other], "{authorization}");
    };
    let unread = "not(all(any(content-length=0, not(has content-length)), is bodiless, \
        any(:method=GET, :method=HEAD, :method=DELETE, :method=OPTIONS)))";
    check(
        "{type: CEL, cel: {expression: \"request.mcp.tool_name == 'x'\"}}",
        "all(method=tools/call, params.name=x)",
        unread,
    );
    check("{type: Inline, mcp: {methods: [{name: tools/list}]}}", "method=tools/list", unread);
    check(
        "{type: Inline, mcp: {methods: [{name: prompts/get, params: [x]}], mcpBaseProtocolMethodsOption: SKIP_BASE_PROTOCOL_METHODS}}",
        "all(method=prompts/get, any(all(any(method=tools/call, method=prompts/get), params.name=x), \
         all(any(method=resources/read, method=resources/subscribe, method=resources/unsubscribe), params.uri=x)))",
        unread,
    );
    check("{type: Inline, mcp: {}}", "true", unread);
}

#[track_caller]
fn check_refused(rule_text: &str, expected: &str) {
    let text = format!("{WORLD}{}", rule("Allow", rule_text));
    let translation = translated(&text, &settings(DefaultAction::Allow));
    let [status] = translation.refused.as_slice() else { panic!("{:?}", translation.refused) };
    assert_eq!((status.object.namespace.as_str(), status.object.name.as_str()), ("n", "p"));
    let accepted = &status.conditions[0];
    assert_eq!((accepted.r#type.as_str(), accepted.reason.as_str()), ("Accepted", "UnsupportedValue"));
    assert!(accepted.message.contains(expected), "{}", accepted.message);
    // What is refused closes its target, and nothing else.
    let cluster = cluster(routes(&translation, "routes/tls"), "path /b");
    let admitted = rules(cluster, "agentic.admission", "rules");
    assert_eq!(admitted, [("admitted".to_owned(), "not(true)".to_owned())]);
}

#[test]
fn what_is_outside_is_refused_and_closed() {
    check_refused(&cel("request.mcp.arguments.amount < 100"), "rule `r`");
    check_refused(&cel("has(request.mcp.arguments)"), "arguments");
    check_refused(&cel("request.time > timestamp('2026-01-01T00:00:00Z')"), "tests of text");
    check_refused(&cel("request.path.lowerAscii() == '/b'"), "as they are");
    check_refused(&cel("request.mcp.tool_name == 'x' ? true : false"), "`?:`");
    check_refused(&cel("request.headers['host'] == 'x'"), "header `host`");
    check_refused("authorization: {type: Inline, headers: [{name: x-request-id, value: x}]}", "x-request-id");
    check_refused("authorization: {type: Inline, headers: [{name: x-a, value: 'b,c'}]}", "comma");
    check_refused(
        &format!(
            "authorization: {{type: Inline, paths: [{{type: RegularExpression, value: '/{}'}}]}}",
            "a".repeat(95)
        ),
        "too large",
    );
    check_refused(
        r"authorization: {type: Inline, paths: [{type: RegularExpression, value: '/\pL'}]}",
        "cannot be given to Envoy",
    );
}
