//! HTTPRoutes as Envoy gets them: what is matched, what is answered, where it goes and what is changed on the way.
use authz_core::DefaultAction;
use serde_json::{Value, json};
use xds_translate::{
    Inserted, Objects, Options,
    envoy::{Translation, translate},
    resolve,
};

use super::{WORLD, cluster, forwarding, routes, rules, settings, translated};

/// External servers, on the port of HTTPS and on another.
const EXTERNAL: &str = "
---
apiVersion: agentic.networking.x-k8s.io/v0alpha0
kind: XBackend
metadata: {name: x, namespace: n}
spec: {mcp: {hostname: mcp.example, port: 443}}
---
apiVersion: agentic.networking.x-k8s.io/v0alpha0
kind: XBackend
metadata: {name: y, namespace: n}
spec: {mcp: {hostname: mcp.example, port: 8443, path: /other}}
";

/// `WORLD` with a route of this one rule only, as an API server gives it: older CRDs let through what those of today refuse.
fn with_rule(rule: &str) -> Translation {
    let (world, _) =
        WORLD.split_once("---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute").unwrap();
    let mut objects = Objects::default();
    objects.add_yaml("world.yaml", &format!("{world}{EXTERNAL}")).unwrap();
    if !rule.is_empty() {
        let route: Value = serde_yaml_ng::from_str(&format!(
            "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{name: r, namespace: n}}, \
             spec: {{parentRefs: [{{name: g}}], rules: [{rule}]}}}}"
        ))
        .unwrap();
        assert_eq!(objects.insert(&route), Inserted::Stored, "{rule}");
    }
    let resolution = resolve(&objects, &Options::default());
    translate(resolution.gateways.values().next().unwrap(), &settings(DefaultAction::Allow))
}

fn all_routes(translation: &Translation, table: &str) -> Vec<Value> {
    let [host] = routes(translation, table)["virtual_hosts"].as_array().unwrap().as_slice() else {
        panic!("one host")
    };
    assert_eq!(host["domains"], json!(["*"]));
    host["routes"].as_array().unwrap().clone()
}

/// The routes of a table that a rule adds to those that are there without any.
fn added(table: &str, rule: &str) -> Vec<Value> {
    let mut without = all_routes(&with_rule(""), table);
    let last = without.pop().unwrap();
    let mut found = all_routes(&with_rule(rule), table);
    assert_eq!(found.pop(), Some(last));
    // What the filters are told is another matter.
    let bare = |mut route: Value| {
        route.as_object_mut().unwrap().remove("typed_per_filter_config");
        route
    };
    let added = found.split_off(without.len());
    let refusals = |routes: Vec<Value>| routes.into_iter().map(bare).collect::<Vec<_>>();
    assert_eq!(refusals(found), refusals(without));
    added
}

/// A route that Envoy answers itself.
fn answered(matched: Value, status: u16, text: &str) -> Value {
    json!({
        "match": matched,
        "direct_response": {"status": status, "body": {"inline_string": format!("{text}\n")}},
        "response_headers_to_add": [{
            "header": {"key": "content-type", "value": "text/plain"},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }],
    })
}

/// The routes of a rule on the listener with identities, without what the filters are told.
#[track_caller]
fn check(rule: &str, expected: &[Value]) {
    let mut found = added("routes/tls", rule);
    for route in &mut found {
        let route = route.as_object_mut().unwrap();
        route.remove("typed_per_filter_config");
        for cluster in route
            .get_mut("route")
            .map_or(&mut Vec::new(), |to| to["weighted_clusters"]["clusters"].as_array_mut().unwrap())
        {
            cluster.as_object_mut().unwrap().remove("typed_per_filter_config");
        }
    }
    assert_eq!(found, expected, "{rule}");
}

/// Who the request came from is told on every route that is forwarded.
fn forwarded() -> Value {
    json!({
        "header": {"key": "x-forwarded-for", "value": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"},
        "append_action": "APPEND_IF_EXISTS_OR_ADD",
    })
}

/// A route to these clusters.
fn to(matched: Value, clusters: Value) -> Value {
    json!({
        "match": matched,
        "route": {
            "weighted_clusters": {"clusters": clusters},
            "cluster_not_found_response_code": "INTERNAL_SERVER_ERROR",
            "timeout": "0s",
            "idle_timeout": "0s",
        },
        "request_headers_to_add": [forwarded()],
    })
}

fn to_service(matched: Value) -> Value {
    to(matched, json!([{"name": "service/n/s:80", "weight": 1}]))
}

#[test]
fn matches() {
    let check = |matches: &str, expected: Value| {
        check(
            &format!("{{matches: [{matches}], backendRefs: [{{name: s, port: 80}}]}}"),
            &[to_service(expected)],
        );
    };
    check("{}", json!({"prefix": "/"}));
    check("{path: {type: PathPrefix, value: /}}", json!({"prefix": "/"}));
    check("{path: {value: /a/}}", json!({"path_separated_prefix": "/a"}));
    check("{path: {type: Exact, value: /a/}}", json!({"path": "/a/"}));
    check(
        "{path: {type: RegularExpression, value: '/a[0-9]+'}}",
        json!({"safe_regex": {"regex": "/a[0-9]+"}}),
    );
    for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"] {
        check(
            &format!("{{method: {method}}}"),
            json!({"prefix": "/", "headers": [{"name": ":method", "string_match": {"exact": method}}]}),
        );
    }
    // Of equivalent names only the first counts; Envoy has the host in a header of its own.
    check(
        "{path: {value: /a}, method: GET, headers: [{name: X-A, value: b}, {name: x-a, value: c}, {name: Host, value: h}, \
          {name: x-b, type: RegularExpression, value: 'b+'}]}",
        json!({"path_separated_prefix": "/a", "headers": [
            {"name": ":method", "string_match": {"exact": "GET"}},
            {"name": "x-a", "string_match": {"exact": "b"}},
            {"name": ":authority", "string_match": {"exact": "h"}},
            {"name": "x-b", "string_match": {"safe_regex": {"regex": "b+"}}},
        ]}),
    );
}

/// Envoy compares parameters as they are written: what may be written otherwise is refused before.
#[test]
fn query_parameters() {
    let escaped = json!({"name": ":path", "string_match": {"safe_regex": {"regex": r"[^?]*\?.*[%+].*"}}});
    let is_get = json!({"name": ":method", "string_match": {"exact": "GET"}});
    check(
        "{matches: [{path: {type: Exact, value: /a}, method: GET, queryParams: [{name: q, value: b}, {name: q, value: c}, \
          {name: p, type: RegularExpression, value: '[0-9]'}]}], backendRefs: [{name: s, port: 80}]}",
        &[
            answered(
                json!({"path": "/a", "headers": [is_get, escaped]}),
                400,
                "escapes in a query that decides on the route",
            ),
            to_service(json!({"path": "/a", "headers": [is_get], "query_parameters": [
                {"name": "q", "string_match": {"exact": "b"}},
                {"name": "p", "string_match": {"safe_regex": {"regex": "[0-9]"}}},
            ]})),
        ],
    );
}

/// What a match that Envoy cannot be given would have taken is answered, and does not fall to a less specific one.
#[test]
fn what_envoy_cannot_be_given_takes_what_it_would_have_taken() {
    let check = |one: &str, matched: Value| {
        check(
            &format!("{{matches: [{one}], backendRefs: [{{name: s, port: 80}}]}}"),
            &[answered(matched, 500, "the route cannot be given to Envoy")],
        );
    };
    let is_get = json!([{"name": ":method", "string_match": {"exact": "GET"}}]);
    check(r"{path: {type: RegularExpression, value: '/\pL'}}", json!({"prefix": "/"}));
    check(
        r"{path: {type: RegularExpression, value: '/\pL'}, method: GET}",
        json!({"prefix": "/", "headers": is_get}),
    );
    check("{path: {type: PathPrefix, value: '/a?b'}}", json!({"prefix": "/"}));
    for condition in [
        r"headers: [{name: x-a, type: RegularExpression, value: '\pL'}]",
        r"queryParams: [{name: q, type: RegularExpression, value: '\pL'}]",
    ] {
        check(
            &format!("{{path: {{type: Exact, value: /a}}, method: GET, {condition}}}"),
            json!({"path": "/a"}),
        );
    }

    // What our own gateway has no match for is nowhere here either.
    for one in ["{headers: [{name: 'a b', value: c}]}", "{path: {type: RegularExpression, value: '('}}"] {
        self::check(&format!("{{matches: [{one}], backendRefs: [{{name: s, port: 80}}]}}"), &[]);
    }
}

#[test]
fn redirects() {
    let rule = |path: &str, fields: &str| {
        format!(
            "{{matches: [{{path: {path}}}], filters: [{{type: RequestRedirect, requestRedirect: {{{fields}}}}}]}}"
        )
    };
    let at_b = "{type: PathPrefix, value: /b}";
    let redirected = |fields: &str, expected: Value| {
        check(
            &rule(at_b, fields),
            &[json!({"match": {"path_separated_prefix": "/b"}, "redirect": expected})],
        );
    };
    // "If port is not specified and the scheme is … 80 … 443 … the Gateway Listener port".
    redirected("", json!({"response_code": "FOUND", "port_redirect": 8443}));
    redirected(
        "scheme: http",
        json!({"response_code": "FOUND", "scheme_redirect": "http", "port_redirect": 80}),
    );
    redirected(
        "scheme: https",
        json!({"response_code": "FOUND", "scheme_redirect": "https", "port_redirect": 443}),
    );
    redirected(
        "scheme: https, hostname: a.example, port: 8080",
        json!({
            "response_code": "FOUND", "scheme_redirect": "https", "host_redirect": "a.example", "port_redirect": 8080,
        }),
    );
    let [plain] = added("routes/http-8080", &rule(at_b, "")).try_into().unwrap();
    assert_eq!(plain["redirect"], json!({"response_code": "FOUND", "port_redirect": 8080}));
    for (status, code) in [
        (301, "MOVED_PERMANENTLY"),
        (302, "FOUND"),
        (303, "SEE_OTHER"),
        (307, "TEMPORARY_REDIRECT"),
        (308, "PERMANENT_REDIRECT"),
    ] {
        redirected(&format!("statusCode: {status}"), json!({"response_code": code, "port_redirect": 8443}));
    }
    for full in ["/x", "x"] {
        redirected(
            &format!("path: {{type: ReplaceFullPath, replaceFullPath: {full}}}"),
            json!({"response_code": "FOUND", "port_redirect": 8443, "path_redirect": "/x"}),
        );
    }

    let prefix = |from: &str, to: &str, expected: Value| {
        let path = format!("{{type: PathPrefix, value: {from}}}");
        let fields = format!("path: {{type: ReplacePrefixMatch, replacePrefixMatch: '{to}'}}");
        let [mut route] = added("routes/tls", &rule(&path, &fields)).try_into().unwrap();
        let found = route["redirect"].as_object_mut().unwrap();
        assert_eq!(found.remove("response_code"), Some(json!("FOUND")));
        assert_eq!(found.remove("port_redirect"), Some(json!(8443)));
        assert_eq!(route["redirect"], expected, "{from} to {to}");
    };
    prefix("/b", "/x", json!({"prefix_rewrite": "/x"}));
    prefix("/b", "x/", json!({"prefix_rewrite": "/x"}));
    prefix("/b", "/", json!({"regex_rewrite": {"pattern": {"regex": r"^\/b/?"}, "substitution": "/"}}));
    prefix("/", "/x", json!({"regex_rewrite": {"pattern": {"regex": "^/$|^"}, "substitution": "/x"}}));
    let long = format!("/{}", "a".repeat(90));
    check(
        &rule(
            &format!("{{type: PathPrefix, value: {long}}}"),
            "path: {type: ReplacePrefixMatch, replacePrefixMatch: /}",
        ),
        &[answered(json!({"path_separated_prefix": long}), 500, "the redirect cannot be given to Envoy")],
    );
}

#[test]
fn changes_of_headers() {
    let filters = "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-A, value: '50%'}, {name: x-c, value: c}], \
         add: [{name: x-b, value: ''}], remove: [X-C, x-d]}}, \
         {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-e, value: e}], remove: [server]}}";
    let entry = |name: &str, value: &str, action: &str| {
        json!({
            "header": {"key": name, "value": value},
            "append_action": action,
            "keep_empty_value": true,
        })
    };
    // A percent sign begins a formatter; what is removed is not set before.
    let request =
        [entry("x-a", "50%%", "OVERWRITE_IF_EXISTS_OR_ADD"), entry("x-b", "", "APPEND_IF_EXISTS_OR_ADD")];
    let response = json!([entry("x-e", "e", "OVERWRITE_IF_EXISTS_OR_ADD")]);

    let mut of_rule = to_service(json!({"prefix": "/"}));
    of_rule["request_headers_to_add"] = json!([request[0], request[1], forwarded()]);
    of_rule["request_headers_to_remove"] = json!(["x-c", "x-d"]);
    of_rule["response_headers_to_add"] = response.clone();
    of_rule["response_headers_to_remove"] = json!(["server"]);
    check(&format!("{{filters: [{filters}], backendRefs: [{{name: s, port: 80}}]}}"), &[of_rule]);

    let of_backend = json!([{
        "name": "service/n/s:80",
        "weight": 1,
        "request_headers_to_add": request,
        "request_headers_to_remove": ["x-c", "x-d"],
        "response_headers_to_add": response,
        "response_headers_to_remove": ["server"],
    }]);
    check(
        &format!("{{backendRefs: [{{name: s, port: 80, filters: [{filters}]}}]}}"),
        &[to(json!({"prefix": "/"}), of_backend)],
    );
}

#[test]
fn backends() {
    let none = answered(json!({"prefix": "/"}), 500, "the route has no backend");
    for rule in ["{}", "{backendRefs: [{name: s, port: 80, weight: 0}]}"] {
        check(rule, std::slice::from_ref(&none));
    }
    // What does not resolve is a cluster that is not there: 500 for its share.
    check(
        "{backendRefs: [{name: s, port: 80, weight: 3}, {name: s, port: 80, weight: 0}, {name: none, port: 80}]}",
        &[to(
            json!({"prefix": "/"}),
            json!([{"name": "service/n/s:80", "weight": 3}, {"name": "none", "weight": 1}]),
        )],
    );
    let translation = with_rule("{backendRefs: [{name: none, port: 80}]}");
    let missing = cluster(routes(&translation, "routes/tls"), "prefix /");
    for filter in ["agentic.admission", "agentic.gateway", "agentic.backend"] {
        assert_eq!(rules(missing, filter, "rules"), [("no backend".to_owned(), "true".to_owned())]);
    }

    let timeout = |limits: &str, expected: &str| {
        let mut route = to_service(json!({"prefix": "/"}));
        route["route"]["timeout"] = json!(expected);
        check(&format!("{{timeouts: {{{limits}}}, backendRefs: [{{name: s, port: 80}}]}}"), &[route]);
    };
    timeout("", "0s");
    timeout("request: 10s", "10s");
    timeout("backendRequest: 500ms", "0.500000000s");
    timeout("request: 10s, backendRequest: 3s", "3s");
    timeout("request: 3s, backendRequest: 0s", "3s");
}

/// The Host that a backend sees.
#[test]
fn hosts_of_backends() {
    let check = |rule_filters: &str, backend: &str, filters: &str, expected: Option<&str>| {
        let rule = format!(
            "{{matches: [{{path: {{type: Exact, value: /mcp}}}}], filters: [{rule_filters}], \
             backendRefs: [{{{backend}, filters: [{filters}]}}]}}"
        );
        let translation = with_rule(&rule);
        let cluster = cluster(routes(&translation, "routes/tls"), "path /mcp");
        assert_eq!(cluster.get("host_rewrite_literal"), expected.map(|host| json!(host)).as_ref(), "{rule}");
    };
    let host = |name: &str| format!("{{type: URLRewrite, urlRewrite: {{hostname: {name}}}}}");
    let rewritten = "{type: URLRewrite, urlRewrite: {hostname: b.example, path: {type: ReplaceFullPath, replaceFullPath: /other}}}";
    let x_backend = |name: &str| format!("group: agentic.networking.x-k8s.io, kind: XBackend, name: {name}");
    check("", "name: s, port: 80", "", None);
    check("", &x_backend("x"), "", Some("mcp.example"));
    check(&host("a.example"), "name: s, port: 80", "", Some("a.example"));
    check(&host("a.example"), "name: s, port: 80", &host("b.example"), Some("b.example"));
    check(&host("a.example"), &x_backend("x"), "", Some("a.example"));
    check("", &x_backend("y"), rewritten, Some("b.example"));
    let at_its_port =
        "{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /other}}}";
    check("", &x_backend("y"), at_its_port, Some("mcp.example:8443"));
}

/// The path of each route, and where it goes: the cluster and the path there, or the status that Envoy answers.
#[track_caller]
fn check_reached(rule: &str, expected: &[&str]) {
    let found: Vec<String> = added("routes/tls", rule)
        .iter()
        .map(|route| {
            let (kind, path) = route["match"].as_object().unwrap().iter().next().unwrap();
            let path = path.get("regex").unwrap_or(path).as_str().unwrap();
            let to = match route.get("direct_response") {
                Some(direct) => direct["status"].to_string(),
                None => {
                    let clusters = route["route"]["weighted_clusters"]["clusters"].as_array().unwrap();
                    let names: Vec<_> = clusters.iter().map(|one| one["name"].as_str().unwrap()).collect();
                    let rewriting = &route["route"]["regex_rewrite"];
                    match rewriting["pattern"]["regex"].as_str() {
                        Some("/.*") => {
                            format!("{} {}", names.join(" "), rewriting["substitution"].as_str().unwrap())
                        }
                        None => names.join(" "),
                        Some(other) => panic!("{other}"),
                    }
                }
            };
            format!("{kind} {path}: {to}")
        })
        .collect();
    assert_eq!(found, expected, "{rule}");
}

/// An XBackend's MCP path and what is below `/.well-known/` are reachable, whatever the route matches and rewrites.
#[test]
fn what_is_reachable_of_a_server() {
    const TO_B: &str = "backendRefs: [{group: agentic.networking.x-k8s.io, kind: XBackend, name: b}]";
    let check = |path: &str, rewrite: &str, expected: &[&str]| {
        let rewrite = match rewrite {
            "" => String::new(),
            path => format!("{{type: URLRewrite, urlRewrite: {{path: {path}}}}}"),
        };
        check_reached(&format!("{{matches: [{{path: {path}}}], filters: [{rewrite}], {TO_B}}}"), expected);
    };
    let full = |to: &str| format!("{{type: ReplaceFullPath, replaceFullPath: {to}}}");
    check(
        "{value: /}",
        "",
        &["path /mcp: xbackend/n/b", "prefix /.well-known/: xbackend/n/b", "prefix /: 404"],
    );
    check("{type: Exact, value: /mcp}", "", &["path /mcp: xbackend/n/b"]);
    check("{type: Exact, value: /x}", "", &["path /x: 404"]);
    check("{type: Exact, value: /.well-known/x}", "", &["path /.well-known/x: xbackend/n/b"]);
    check("{type: Exact, value: /x}", &full("/mcp"), &["path /x: xbackend/n/b /mcp"]);
    check("{type: Exact, value: /x}", &full("/.well-known/x"), &["path /x: xbackend/n/b /.well-known/x"]);
    check("{value: /x}", &full("/mcp"), &["path_separated_prefix /x: xbackend/n/b /mcp"]);
    check("{value: /x}", &full("mcp"), &["path_separated_prefix /x: xbackend/n/b /mcp"]);
    check("{value: /x}", &full("/.well-known/y"), &["path_separated_prefix /x: xbackend/n/b /.well-known/y"]);
    check("{value: /x}", &full("/y"), &["path_separated_prefix /x: 404"]);
    check(
        "{type: RegularExpression, value: '/m.*'}",
        "",
        &["path /mcp: xbackend/n/b", "safe_regex /m.*: 404"],
    );
    check("{type: RegularExpression, value: '/x.*'}", "", &["safe_regex /x.*: 404"]);
    check("{type: RegularExpression, value: '/x.*'}", &full("/mcp"), &["safe_regex /x.*: xbackend/n/b /mcp"]);

    // What describes a server is no message, and is read with GET.
    let translation = with_rule(&format!("{{{TO_B}}}"));
    let table = routes(&translation, "routes/tls");
    let admitted = rules(cluster(table, "prefix /.well-known/"), "agentic.admission", "rules");
    let expected = "all(is single, :method=GET, any(content-length=0, not(has content-length)), is bodiless, \
        any(not(has origin), is same_origin))";
    assert_eq!(admitted, [("admitted".to_owned(), expected.to_owned())]);
    for (path, route) in forwarding(table) {
        let is_off = route["typed_per_filter_config"].get("agentic.mcp").map(|config| &config["disabled"]);
        let expected = (path == "prefix /.well-known/").then_some(&Value::Bool(true));
        assert_eq!(is_off, expected, "{path}");
    }
}

/// All of a route is rewritten alike: a backend that would have it otherwise gets nothing.
#[test]
fn backends_that_are_rewritten_otherwise() {
    let backend = |name: &str, to: &str| {
        format!(
            "{{group: agentic.networking.x-k8s.io, kind: XBackend, name: {name}, \
             filters: [{{type: URLRewrite, urlRewrite: {{path: {{type: ReplaceFullPath, replaceFullPath: {to}}}}}}}]}}"
        )
    };
    let rule = format!(
        "{{matches: [{{path: {{type: Exact, value: /a}}}}], backendRefs: [{}, {}]}}",
        backend("b", "/mcp"),
        backend("y", "/other")
    );
    check_reached(&rule, &["path /a: xbackend/n/b xbackend/n/y /mcp"]);
    let translation = with_rule(&rule);
    let found = forwarding(routes(&translation, "routes/tls"));
    let [(_, route)] = found.as_slice() else { panic!("{found:?}") };
    let clusters = &route["route"]["weighted_clusters"]["clusters"];
    for filter in ["agentic.admission", "agentic.gateway", "agentic.backend"] {
        assert_eq!(rules(&clusters[0], filter, "rules").len(), 1, "{filter}");
        assert_eq!(rules(&clusters[1], filter, "rules"), [], "{filter}");
    }
}

#[test]
fn cors() {
    const FILTER: &str = "envoy.filters.http.cors";
    let filter = "{type: CORS, cors: {allowOrigins: ['https://a.example', 'http://*.b.example:8080', 'app://c', '*', 'no origin'], \
        allowMethods: [GET, '*'], allowHeaders: [x-a, x-b], exposeHeaders: [x-c], maxAge: 7, allowCredentials: true}}";
    let origin = |pattern: &str| json!({"safe_regex": {"regex": pattern}});
    let expected = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
        "allow_origin_string_match": [
            origin(r"(?i)https://a\.example(?::443)?"),
            origin(r"(?i)http://[A-Za-z0-9._-]+\.b\.example:8080"),
            origin("(?i)app://c"),
            origin(r"[A-Za-z0-9+.-]+://[A-Za-z0-9._:\[\]-]+"),
        ],
        "allow_methods": "GET, *",
        "allow_headers": "x-a, x-b",
        "expose_headers": "x-c",
        "max_age": "7",
        "allow_credentials": true,
        "forward_not_matching_preflights": false,
    });
    // Wherever the rule's requests go.
    let to_b = "backendRefs: [{group: agentic.networking.x-k8s.io, kind: XBackend, name: b}]";
    for (rest, ways) in [
        ("backendRefs: [{name: s, port: 80}]".to_owned(), 1),
        ("backendRefs: []".to_owned(), 1),
        (to_b.to_owned(), 3),
    ] {
        let found = added("routes/tls", &format!("{{filters: [{filter}], {rest}}}"));
        let found: Vec<_> = found.iter().map(|route| &route["typed_per_filter_config"][FILTER]).collect();
        assert_eq!(found, vec![&expected; ways], "{rest}");
        let without = added("routes/tls", &format!("{{{rest}}}"));
        assert!(without.iter().all(|route| route["typed_per_filter_config"].get(FILTER).is_none()), "{rest}");
    }
    let redirected = format!("{filter}, {{type: RequestRedirect, requestRedirect: {{}}}}");
    let [redirected] = added("routes/tls", &format!("{{filters: [{redirected}]}}")).try_into().unwrap();
    assert_eq!(redirected["typed_per_filter_config"][FILTER], expected);

    // A page of an origin that may ask a server is not refused for its origin.
    let translation = with_rule(&format!("{{filters: [{filter}], {to_b}}}"));
    let [(_, admitted)] = rules(
        cluster(routes(&translation, "routes/tls"), "prefix /.well-known/"),
        "agentic.admission",
        "rules",
    )
    .try_into()
    .unwrap();
    let origins = [
        r"origin~(?i)https://a\.example(?::443)?",
        r"origin~(?i)http://[A-Za-z0-9._-]+\.b\.example:8080",
        "origin~(?i)app://c",
        r"origin~[A-Za-z0-9+.-]+://[A-Za-z0-9._:\[\]-]+",
    ];
    let origins = format!("any(not(has origin), is same_origin, {}))", origins.join(", "));
    assert!(admitted.ends_with(&origins), "{admitted}");
}

/// Each host pattern of a table, and what is answered there to what no rule takes.
#[test]
fn virtual_hosts() {
    let listeners = "
  - {name: a, protocol: HTTPS, port: 8443, hostname: '*.a.example'}
  - {name: b, protocol: HTTPS, port: 8443, hostname: b.example}
  - {name: plain, protocol: HTTP, port: 8080, hostname: c.example}
";
    let (before, after) = WORLD.split_once("\n  - {name: tls, protocol: HTTPS, port: 8443}\n").unwrap();
    let (_, after) = after.split_once('\n').unwrap();
    let world = format!("{before}{listeners}{after}").replace(
        "  parentRefs: [{name: g}]\n",
        "  parentRefs: [{name: g}]\n  hostnames: [x.a.example, '*.y.a.example', b.example]\n",
    );
    let other = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: all, namespace: n}\nspec:\n  \
        parentRefs: [{name: g}]\n  rules: [{matches: [{path: {value: /all}}], backendRefs: [{name: s, port: 80}]}]\n";
    let translation = translated(&format!("{world}{other}"), &settings(DefaultAction::Allow));
    let check = |table: &str, expected: &[(&str, &str, &[&str])]| {
        let table = routes(&translation, table);
        let hosts = table["virtual_hosts"].as_array().unwrap();
        let found: Vec<_> = hosts
            .iter()
            .map(|host| {
                assert_eq!(host["domains"], json!([host["name"]]));
                let last = &host["routes"].as_array().unwrap().last().unwrap();
                assert_eq!(last["match"], json!({"prefix": "/"}));
                let answer = &last["direct_response"];
                let text = answer["body"]["inline_string"].as_str().unwrap().trim_end();
                let one = json!({"virtual_hosts": [host]});
                let paths = forwarding(&one).into_iter().map(|(path, _)| path).collect::<Vec<_>>();
                (host["name"].as_str().unwrap().to_owned(), format!("{} {text}", answer["status"]), paths)
            })
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(host, answer, paths)| {
                let paths = paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>();
                ((*host).to_owned(), (*answer).to_owned(), paths)
            })
            .collect();
        assert_eq!(found, expected);
    };
    let misdirected =
        "421 this host is not served on this connection; connect with it as the TLS server name";
    let unmatched = "404 no route matches";
    let all = "path_separated_prefix /all";
    // The tables of more specific hosts come first; in each, longer paths.
    let both: &[&str] = &["path /b", "path_separated_prefix /s", all];
    let one_table: &[&str] = &[all, "path /b", "path_separated_prefix /s"];
    check(
        "routes/a",
        &[
            ("*", misdirected, &[]),
            ("*.a.example", unmatched, &[all]),
            ("*.y.a.example", unmatched, both),
            ("b.example", misdirected, &[]),
            ("x.a.example", unmatched, both),
        ],
    );
    check(
        "routes/b",
        &[("*", misdirected, &[]), ("*.a.example", misdirected, &[]), ("b.example", unmatched, one_table)],
    );
    check(
        "routes/http-8080",
        &[("*", "404 no listener takes this host", &[]), ("c.example", unmatched, &[all])],
    );
}
