//! Filters and timeouts of HTTPRoutes: what each becomes, and what fails the rule or backendRef that it is on.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on should fail there"
)]
use std::{sync::Arc, time::Duration};

use policy_model::NamespacedName;
use serde_json::Value;
use xds_translate::{
    ConditionStatus, CorsFilter, Filters, HeaderFilter, Objects, Options, PathRewrite, Redirect, Resolution,
    RouteRule, Timeouts, resolve,
};

const WORLD: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: c}
spec: {controllerName: sigs.k8s.io/kube-agentic-networking-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: g, namespace: n}
spec:
  gatewayClassName: c
  listeners: [{name: l, port: 80, protocol: HTTP}]
---
apiVersion: v1
kind: Service
metadata: {name: s, namespace: n}
spec: {ports: [{port: 80}]}
";

/// A route with this rule, as an API server gives it: older CRDs let through what those of today refuse.
fn resolved(rule: &str) -> Resolution {
    let mut objects = Objects::default();
    objects.add_yaml("world.yaml", WORLD).unwrap();
    let route: Value = serde_yaml_ng::from_str(&format!(
        "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{name: r, namespace: n}}, \
         spec: {{parentRefs: [{{name: g}}], rules: [{rule}]}}}}"
    ))
    .unwrap();
    assert_eq!(objects.insert(&route), xds_translate::Inserted::Stored, "{rule}");
    resolve(&objects, &Options::default())
}

fn only_rule(resolution: &Resolution) -> Arc<RouteRule> {
    let [rule] = resolution.gateways[&NamespacedName::new("n", "g")].rules.as_slice() else {
        panic!("not one rule")
    };
    Arc::clone(rule)
}

/// Why the route is not accepted.
fn refusal(resolution: &Resolution) -> Option<String> {
    let status = resolution.statuses.iter().find(|status| status.object.kind == "HTTPRoute").unwrap();
    let accepted = &status.conditions[0];
    assert_eq!(accepted.r#type, "Accepted");
    (accepted.status == ConditionStatus::False).then(|| {
        assert_eq!(accepted.reason, "UnsupportedValue");
        accepted.message.clone()
    })
}

#[track_caller]
fn assert_same(found: &Filters, expected: &Filters) {
    let Filters { request_headers, response_headers, path, hostname, redirect, cors } = found;
    assert_eq!(*request_headers, expected.request_headers);
    assert_eq!(*response_headers, expected.response_headers);
    assert_eq!(*path, expected.path);
    assert_eq!(*hostname, expected.hostname);
    assert_eq!(*redirect, expected.redirect);
    assert_eq!(*cors, expected.cors);
}

/// What filters become on a rule.
#[track_caller]
fn on_rule(filters: &str, expected: &Filters) {
    let resolution = resolved(&format!("{{filters: [{filters}], backendRefs: [{{name: s, port: 80}}]}}"));
    assert_eq!(refusal(&resolution), None);
    let rule = only_rule(&resolution);
    assert_same(&rule.filters, expected);
    assert_same(&rule.backends[0].filters, &Filters::default());
    assert!(rule.backends[0].backend.is_some());
}

/// What filters become on a backendRef.
#[track_caller]
fn on_backend(filters: &str, expected: &Filters) {
    let resolution = resolved(&format!("{{backendRefs: [{{name: s, port: 80, filters: [{filters}]}}]}}"));
    assert_eq!(refusal(&resolution), None);
    let rule = only_rule(&resolution);
    assert_same(&rule.filters, &Filters::default());
    assert_same(&rule.backends[0].filters, expected);
    assert!(rule.backends[0].backend.is_some());
}

/// Filters that cannot be done: the whole rule answers 500, as if it had no filters.
#[track_caller]
fn fails_rule(fields: &str, expected: &str) {
    let resolution = resolved(&format!("{{{fields}, backendRefs: [{{name: s, port: 80}}]}}"));
    let expected = format!("rule 0: {expected} (until then it answers 500)");
    assert_eq!(refusal(&resolution), Some(expected));
    let rule = only_rule(&resolution);
    assert_same(&rule.filters, &Filters::default());
    let [backend] = rule.backends.as_slice() else { panic!("{:?}", rule.backends) };
    assert_eq!((backend.backend.as_ref(), backend.weight), (None, 1));
}

/// The same on a backendRef: what would go there gets 500.
#[track_caller]
fn fails_backend(filters: &str, expected: &str) {
    let resolution = resolved(&format!(
        "{{backendRefs: [{{name: s, port: 80, weight: 3, filters: [{filters}]}}, {{name: s, port: 80}}]}}"
    ));
    let expected = format!("rule 0: {expected} (until then it answers 500)");
    assert_eq!(refusal(&resolution), Some(expected));
    let rule = only_rule(&resolution);
    let found: Vec<_> =
        rule.backends.iter().map(|backend| (backend.backend.is_some(), backend.weight)).collect();
    assert_eq!(found, [(false, 3), (true, 1)]);
}

fn headers(set: &[(&str, &str)], add: &[(&str, &str)], remove: &[&str]) -> HeaderFilter {
    let pairs = |list: &[(&str, &str)]| {
        list.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    };
    HeaderFilter {
        set: pairs(set),
        add: pairs(add),
        remove: remove.iter().map(|name| name.parse().unwrap()).collect(),
    }
}

#[test]
fn header_modifiers() {
    for (kind, field) in [
        ("RequestHeaderModifier", "requestHeaderModifier"),
        ("ResponseHeaderModifier", "responseHeaderModifier"),
    ] {
        let expected = |filter: HeaderFilter| match kind {
            "RequestHeaderModifier" => Filters { request_headers: filter, ..Filters::default() },
            _ => Filters { response_headers: filter, ..Filters::default() },
        };
        let with = |fields: &str| format!("{{type: {kind}, {field}: {{{fields}}}}}");
        let check = |fields: &str, filter: HeaderFilter| {
            let expected = expected(filter);
            on_rule(&with(fields), &expected);
            on_backend(&with(fields), &expected);
        };
        check(
            "set: [{name: X-A, value: '1'}], add: [{name: x-b, value: 2 3}, {name: x-c, value: ''}], remove: [X-D, x-e]",
            headers(&[("x-a", "1")], &[("x-b", "2 3"), ("x-c", "")], &["x-d", "x-e"]),
        );
        // "Only the first entry with an equivalent name MUST be considered for a match": names are case-insensitive.
        check(
            "set: [{name: X-A, value: '1'}, {name: x-a, value: '2'}], add: [{name: x-a, value: '3'}, {name: X-A, value: '4'}]",
            headers(&[("x-a", "1")], &[("x-a", "3")], &[]),
        );
        check("", headers(&[], &[], &[]));

        let fails = |fields: &str, message: &str| {
            fails_rule(&format!("filters: [{}]", with(fields)), message);
            fails_backend(&with(fields), message);
        };
        for name in ["'a b'", "'x:'", "''", "ä"] {
            let message = format!("`{}` is no header name; mend it", name.trim_matches('\''));
            fails(&format!("set: [{{name: {name}, value: v}}]"), &message);
            fails(&format!("add: [{{name: {name}, value: v}}]"), &message);
            fails(&format!("remove: [{name}]"), &message);
        }
        for value in [r#""a\nb""#, r#""a\rb""#, r#""\0""#, r#""\x7f""#] {
            let message = "the value of header `x` holds characters that no header may; remove them";
            fails(&format!("set: [{{name: X, value: {value}}}]"), message);
            fails(&format!("add: [{{name: X, value: {value}}}]"), message);
        }
        // What frames a message, is about a connection, or mirrors what was decided on.
        for name in [
            "Connection",
            "Content-Length",
            "Host",
            "Keep-Alive",
            "Proxy-Authenticate",
            "Proxy-Authorization",
            "Proxy-Connection",
            "TE",
            "Trailer",
            "Transfer-Encoding",
            "Upgrade",
            "Mcp-Session-Id",
            "MCP-Protocol-Version",
            "mcp-anything",
        ] {
            let message =
                format!("header `{}` cannot be changed by a filter; remove it", name.to_ascii_lowercase());
            fails(&format!("set: [{{name: {name}, value: v}}]"), &message);
            fails(&format!("add: [{{name: {name}, value: v}}]"), &message);
            fails(&format!("remove: [{name}]"), &message);
        }
        let missing = format!("{field} is missing");
        fails_rule(&format!("filters: [{{type: {kind}}}]"), &missing);
        let one = with("remove: [x]");
        fails_rule(&format!("filters: [{one}, {one}]"), &format!("filter {kind} is given twice; keep one"));
    }
}

#[test]
fn rewrites() {
    let with = |fields: &str| format!("{{type: URLRewrite, urlRewrite: {{{fields}}}}}");
    let check = |fields: &str, hostname: Option<&str>, path: Option<PathRewrite>| {
        let expected = Filters { hostname: hostname.map(str::to_owned), path, ..Filters::default() };
        on_rule(&with(fields), &expected);
        on_backend(&with(fields), &expected);
    };
    check("hostname: A.example", Some("a.example"), None);
    check(
        "path: {type: ReplaceFullPath, replaceFullPath: /a}",
        None,
        Some(PathRewrite::Full("/a".to_owned())),
    );
    check(
        "hostname: a.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: ''}",
        Some("a.example"),
        Some(PathRewrite::Prefix(String::new())),
    );
    check("", None, None);

    fails_rule("filters: [{type: URLRewrite}]", "urlRewrite is missing");
    let one = with("hostname: a.example");
    fails_rule(&format!("filters: [{one}, {one}]"), "filter URLRewrite is given twice; keep one");
    let exactly = "a path rewrite needs exactly one of replaceFullPath and replacePrefixMatch";
    for path in
        ["{type: ReplaceFullPath}", "{type: ReplaceFullPath, replaceFullPath: /a, replacePrefixMatch: /a}"]
    {
        fails_rule(&format!("filters: [{}]", with(&format!("path: {path}"))), exactly);
        fails_backend(&with(&format!("path: {path}")), exactly);
        fails_rule(
            &format!("filters: [{{type: RequestRedirect, requestRedirect: {{path: {path}}}}}]"),
            exactly,
        );
    }
}

#[test]
fn redirects() {
    let with = |fields: &str| format!("{{type: RequestRedirect, requestRedirect: {{{fields}}}}}");
    let check = |fields: &str, redirect: Redirect| {
        let expected = Filters { redirect: Some(redirect), ..Filters::default() };
        on_rule(&with(fields), &expected);
    };
    // "StatusCode … Support: Core; default 302"; what is not given stays as it is.
    let plain = Redirect { scheme: None, hostname: None, port: None, path: None, status: 302 };
    check("", plain.clone());
    check("scheme: http", Redirect { scheme: Some("http".to_owned()), ..plain.clone() });
    check(
        "scheme: https, hostname: A.example, port: 65535, statusCode: 308, \
         path: {type: ReplaceFullPath, replaceFullPath: /x}",
        Redirect {
            scheme: Some("https".to_owned()),
            hostname: Some("a.example".to_owned()),
            port: Some(65535),
            path: Some(PathRewrite::Full("/x".to_owned())),
            status: 308,
        },
    );
    check(
        "path: {type: ReplacePrefixMatch, replacePrefixMatch: /x}",
        Redirect { path: Some(PathRewrite::Prefix("/x".to_owned())), ..plain.clone() },
    );
    for status in [301, 302, 303, 307, 308] {
        check(&format!("statusCode: {status}"), Redirect { status, ..plain.clone() });
    }

    let fails = |fields: &str, message: &str| fails_rule(&format!("filters: [{}]", with(fields)), message);
    for status in [-1, 200, 300, 304, 70_000] {
        let message = format!("redirect status `{status}` is not supported; use 301, 302, 303, 307 or 308");
        fails(&format!("statusCode: {status}"), &message);
    }
    for port in [-1, 0, 65_536] {
        fails(&format!("port: {port}"), &format!("redirect port must be 1 to 65535, not `{port}`"));
    }
    fails_rule("filters: [{type: RequestRedirect}]", "requestRedirect is missing");
    let one = with("hostname: a.example");
    fails_rule(&format!("filters: [{one}, {one}]"), "filter RequestRedirect is given twice; keep one");
    // "MUST NOT be used together with URLRewrite", in whatever order.
    let rewrite = "{type: URLRewrite, urlRewrite: {}}";
    let exclude = "filters RequestRedirect and URLRewrite exclude each other; remove one";
    fails_rule(&format!("filters: [{one}, {rewrite}]"), exclude);
    fails_rule(&format!("filters: [{rewrite}, {one}]"), exclude);
}

#[test]
fn cors() {
    let with = |fields: &str| format!("{{type: CORS, cors: {{{fields}}}}}");
    let check = |fields: &str, cors: CorsFilter| {
        on_rule(&with(fields), &Filters { cors: Some(Arc::new(cors)), ..Filters::default() });
    };
    // "maxAge … default 5"; credentials only where they are asked for.
    check("", CorsFilter { max_age: 5, ..CorsFilter::default() });
    check("maxAge: 1, allowCredentials: false", CorsFilter { max_age: 1, ..CorsFilter::default() });
    let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
    check(
        "allowOrigins: ['https://*.a.example', 'http://b.example:8080'], allowMethods: [GET, '*'], allowHeaders: [X-A], \
         exposeHeaders: [x-b, x-c], maxAge: 600, allowCredentials: true",
        CorsFilter {
            allow_origins: list(&["https://*.a.example", "http://b.example:8080"]),
            allow_methods: list(&["GET", "*"]),
            allow_headers: list(&["X-A"]),
            expose_headers: list(&["x-b", "x-c"]),
            max_age: 600,
            allow_credentials: true,
        },
    );
    fails_rule("filters: [{type: CORS}]", "cors is missing");
    let one = with("allowOrigins: ['*']");
    fails_rule(&format!("filters: [{one}, {one}]"), "filter CORS is given twice; keep one");
}

#[test]
fn what_is_not_supported_where() {
    let mirror = "{type: RequestMirror, requestMirror: {backendRef: {name: s, port: 80}}}";
    let extension = "{type: ExtensionRef, extensionRef: {group: g.example, kind: K, name: x}}";
    let external = "{type: ExternalAuth, externalAuth: {protocol: GRPC, backendRef: {name: s, port: 80}}}";
    for (filter, kind) in [(mirror, "RequestMirror"), (extension, "ExtensionRef"), (external, "ExternalAuth")]
    {
        let message = format!("filter {kind} is not supported; remove it");
        // Beside a filter that is done: that one alone would be something else than what was asked for.
        let fine = "{type: URLRewrite, urlRewrite: {hostname: a.example}}";
        fails_rule(&format!("filters: [{fine}, {filter}]"), &message);
        fails_backend(&format!("{fine}, {filter}"), &message);
    }
    let only_on_rules =
        "filters RequestRedirect and CORS are not supported on a backendRef; put them on the rule";
    fails_backend("{type: RequestRedirect, requestRedirect: {hostname: a.example}}", only_on_rules);
    fails_backend("{type: CORS, cors: {allowOrigins: ['*']}}", only_on_rules);
}

/// All of one rule at once, in an order of their own.
#[test]
fn filters_of_several_kinds() {
    on_rule(
        "{type: CORS, cors: {allowOrigins: ['*']}}, {type: URLRewrite, urlRewrite: {hostname: a.example}}, \
         {type: ResponseHeaderModifier, responseHeaderModifier: {remove: [server]}}, \
         {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-a, value: b}]}}",
        &Filters {
            request_headers: headers(&[("x-a", "b")], &[], &[]),
            response_headers: headers(&[], &[], &["server"]),
            hostname: Some("a.example".to_owned()),
            cors: Some(Arc::new(CorsFilter {
                allow_origins: vec!["*".to_owned()],
                max_age: 5,
                ..CorsFilter::default()
            })),
            ..Filters::default()
        },
    );
}

#[test]
fn timeouts() {
    let check = |fields: &str, request: Option<u64>, backend_request: Option<u64>| {
        let resolution =
            resolved(&format!("{{timeouts: {{{fields}}}, backendRefs: [{{name: s, port: 80}}]}}"));
        assert_eq!(refusal(&resolution), None, "{fields}");
        let expected = Timeouts {
            request: request.map(Duration::from_millis),
            backend_request: backend_request.map(Duration::from_millis),
        };
        assert_eq!(only_rule(&resolution).timeouts, expected, "{fields}");
    };
    check("", None, None);
    check("request: 10s", Some(10_000), None);
    check("backendRequest: 500ms", None, Some(500));
    check("request: 1h2m3s4ms, backendRequest: 1m30s", Some(3_723_004), Some(90_000));
    // "A value of zero disables the timeout."
    check("request: 0s, backendRequest: 0h0m", None, None);
    for bad in ["10", "-1s", "1.5s", "1d", ""] {
        let message = format!("timeout `{bad}` is no duration; write it as `10s` or `1m30s`");
        fails_rule(&format!("timeouts: {{request: '{bad}'}}"), &message);
        fails_rule(&format!("timeouts: {{backendRequest: '{bad}'}}"), &message);
    }
}
