//! Which rule a request takes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test that cannot go on should fail there"
)]
use http::{HeaderMap, HeaderName, HeaderValue};
use xds_translate::{Objects, Options, RouteFailure, RouteRequest, Router, Snapshot, resolve};

const BASE: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: c}\n\
    spec: {controllerName: sigs.k8s.io/kube-agentic-networking-controller}\n---\n";

fn gateway(listeners: &str) -> String {
    format!(
        "{BASE}apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: g, namespace: ns}}\nspec:\n  \
         gatewayClassName: c\n  listeners: {listeners}\n"
    )
}

/// A route: its name, hostnames, and the `matches` of a rule each. The rules are named `name/0`, `name/1`, ….
fn route(name: &str, hostnames: &str, matches: &[&str]) -> String {
    let rules: String = matches
        .iter()
        .enumerate()
        .map(|(index, matches)| format!("  - {{name: {name}-{index}, matches: [{matches}]}}\n"))
        .collect();
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: ns}}\nspec:\n  \
         parentRefs: [{{name: g}}]\n  hostnames: {hostnames}\n  rules:\n{rules}"
    )
}

const ONE: &str = "[{name: l, port: 80, protocol: HTTP}]";

fn snapshot(text: &str) -> Snapshot {
    let mut objects = Objects::default();
    objects.add_yaml("r.yaml", text).unwrap_or_else(|error| panic!("{error}"));
    resolve(&objects, &Options::default()).gateways.into_values().next().unwrap()
}

/// `METHOD host/path?query` with headers; the name of the rule it takes, or why none.
fn taken(
    router: &Router,
    port: u16,
    request: &str,
    headers: &[(&str, &str)],
) -> Result<String, RouteFailure> {
    let (method, url) = request.split_once(' ').unwrap();
    let (host, path) = url.split_at(url.find('/').unwrap());
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let headers: HeaderMap = headers
        .iter()
        .map(|(name, value)| {
            (name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
        })
        .collect();
    let request = RouteRequest { host, path, query, method, headers: &headers };
    router.route(port, None, &request).map(|routed| routed.rule.name.clone().unwrap())
}

#[track_caller]
fn check(router: &Router, request: &str, expected: &str) {
    check_with(router, request, &[], expected);
}

#[track_caller]
fn check_with(router: &Router, request: &str, headers: &[(&str, &str)], expected: &str) {
    let expected = match expected {
        "no rule" => Err(RouteFailure::NoRule),
        "no listener" => Err(RouteFailure::NoListener),
        name => Ok(name.to_owned()),
    };
    assert_eq!(taken(router, 80, request, headers), expected, "{request} {headers:?}");
}

fn router(listeners: &str, routes: &[String]) -> Router {
    Router::new(&snapshot(&format!("{}{}", gateway(listeners), routes.concat())))
}

#[test]
fn paths() {
    let router = router(
        ONE,
        &[route(
            "r",
            "[]",
            &[
                "{path: {value: /}}",
                "{path: {value: /a}}",
                "{path: {value: /a/b/}}",
                "{path: {type: Exact, value: /a/b}}",
                "{path: {type: RegularExpression, value: '/x/[0-9]+'}}",
                "{path: {value: /x/1}}",
                "{path: {type: RegularExpression, value: '/x/12|/y'}}",
                "{path: {type: Exact, value: /x/7}}",
            ],
        )],
    );
    check(&router, "GET h/", "r-0");
    check(&router, "GET h/ab", "r-0");
    check(&router, "GET h/a", "r-1");
    check(&router, "GET h/a/", "r-1");
    check(&router, "GET h/a/c", "r-1");
    check(&router, "GET h/A", "r-0");
    check(&router, "GET h/a/b", "r-3");
    check(&router, "GET h/a/b/", "r-2");
    check(&router, "GET h/a/b/c", "r-2");
    check(&router, "GET h/a/bc", "r-1");
    check(&router, "GET h/a/b?x=/", "r-3");
    // Exact before a regular expression, that before a prefix; both ends are anchored; the longer expression first.
    check(&router, "GET h/x/1", "r-4");
    check(&router, "GET h/x/12", "r-4");
    check(&router, "GET h/x/7", "r-7");
    check(&router, "GET h/x/1/2", "r-5");
    check(&router, "GET h/y", "r-6");
    check(&router, "GET h/y/", "r-0");
}

#[test]
fn matched_prefixes() {
    let snapshot = snapshot(&format!(
        "{}{}",
        gateway(ONE),
        route(
            "r",
            "[]",
            &["{path: {value: /}}", "{path: {value: /a/b/}}", "{path: {type: Exact, value: /e}}"]
        )
    ));
    let router = Router::new(&snapshot);
    let headers = HeaderMap::new();
    let prefix = |path: &str| {
        let request = RouteRequest { host: "h", path, query: None, method: "GET", headers: &headers };
        router.route(80, None, &request).unwrap().matched_prefix.to_owned()
    };
    assert_eq!(prefix("/"), "/");
    assert_eq!(prefix("/x"), "/");
    assert_eq!(prefix("/a/b"), "/a/b");
    assert_eq!(prefix("/a/b/c"), "/a/b");
    assert_eq!(prefix("/e"), "");
}

#[test]
fn methods_headers_and_query() {
    let router = router(
        ONE,
        &[route(
            "r",
            "[]",
            &[
                "{}",
                "{method: POST}",
                "{headers: [{name: X-A, value: '1'}]}",
                "{headers: [{name: X-A, value: '1'}, {name: x-b, type: RegularExpression, value: 'b+'}]}",
                "{queryParams: [{name: q, value: a b}]}",
                "{queryParams: [{name: q, value: a b}, {name: p, type: RegularExpression, value: '[0-9]*'}]}",
                "{method: POST, headers: [{name: x-a, value: '1'}]}",
                "{headers: [{name: x-c, value: 'one,two'}]}",
                "{headers: [{name: x-d, value: d}, {name: X-D, value: e}]}",
            ],
        )],
    );
    check(&router, "GET h/", "r-0");
    check(&router, "POST h/", "r-1");
    check(&router, "post h/", "r-0");
    check_with(&router, "GET h/", &[("x-a", "1")], "r-2");
    check_with(&router, "GET h/", &[("x-a", "2")], "r-0");
    check_with(&router, "GET h/", &[("x-a", "1"), ("x-a", "1")], "r-0");
    check_with(&router, "GET h/", &[("x-a", "1"), ("x-b", "bbb")], "r-3");
    check_with(&router, "GET h/", &[("x-a", "1"), ("x-b", "bbbc")], "r-2");
    check_with(&router, "POST h/", &[("x-b", "bbb")], "r-1");
    check_with(&router, "POST h/", &[("x-a", "1"), ("x-b", "b")], "r-6");
    check(&router, "GET h/?q=a+b", "r-4");
    check(&router, "GET h/?q=a%20b", "r-4");
    check(&router, "GET h/?%71=a%20b", "r-4");
    check(&router, "GET h/?q=c&q=a%20b", "r-0");
    check(&router, "GET h/?q=a%20b&p=%39", "r-5");
    check(&router, "GET h/?q=a%20b&p=%3a", "r-4");
    check(&router, "GET h/?q=a%20b&p=%3A", "r-4");
    check(&router, "GET h/?q=%61%20%62", "r-4");
    check(&router, "GET h/?q=%6a%20%62", "r-0");
    check(&router, "GET h/?q=a%20b%ff", "r-0");
    check(&router, "GET h/?q=a%2gb", "r-0");
    check(&router, "GET h/?q=a%2", "r-0");
    check(&router, "GET h/?q=a%20b&p=12", "r-5");
    check(&router, "GET h/?q=a%20b&p", "r-5");
    check(&router, "GET h/?q=a%20b&p=x", "r-4");
    check_with(&router, "GET h/", &[("x-c", "one"), ("x-c", "two")], "r-7");
    check_with(&router, "GET h/", &[("x-c", "two"), ("x-c", "one")], "r-0");
    // Of equivalent names only the first counts.
    check_with(&router, "GET h/", &[("x-d", "d")], "r-8");
}

#[test]
fn every_method() {
    let methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    let matches = methods.map(|method| format!("{{method: {method}}}"));
    let router = router(ONE, &[route("r", "[]", &matches.each_ref().map(String::as_str))]);
    for (index, method) in methods.iter().enumerate() {
        check(&router, &format!("{method} h/"), &format!("r-{index}"));
        check(&router, &format!("{} h/", method.to_ascii_lowercase()), "no rule");
    }
    check(&router, "QUERY h/", "no rule");
}

#[test]
fn hosts_of_routes() {
    let router = router(
        ONE,
        &[
            route("any", "[]", &["{path: {value: /any}}"]),
            route("wide", "['*.example.com']", &["{path: {value: /}}"]),
            route("narrow", "['*.b.example.com']", &["{path: {value: /}}"]),
            route("exact", "['a.b.example.com']", &["{path: {value: /exact}}"]),
        ],
    );
    check(&router, "GET a.example.com/", "wide-0");
    check(&router, "GET a.example.com/any/longer", "wide-0");
    check(&router, "GET A.EXAMPLE.com./", "wide-0");
    check(&router, "GET x.b.example.com/", "narrow-0");
    check(&router, "GET x.y.b.example.com/", "narrow-0");
    check(&router, "GET a.b.example.com/exact", "exact-0");
    // A host name that is more specific is before, not instead of, a less specific one.
    check(&router, "GET a.b.example.com/", "narrow-0");
    check(&router, "GET b.example.com/", "wide-0");
    check(&router, "GET example.com/", "no rule");
    check(&router, "GET example.com/any", "any-0");
    check(&router, "GET .example.com/", "no rule");
    check(&router, "GET /any", "any-0");
}

#[test]
fn listeners_are_isolated() {
    let listeners = "[{name: any, port: 80, protocol: HTTP}, {name: wide, port: 80, protocol: HTTP, hostname: '*.example.com'}, \
        {name: exact, port: 80, protocol: HTTP, hostname: a.example.com}, {name: other, port: 81, protocol: HTTP, hostname: z.example.com}]";
    let of = |name: &str, section: &str| {
        route(name, "[]", &["{path: {value: /}}"])
            .replace("{name: g}", &format!("{{name: g, sectionName: {section}}}"))
    };
    let text =
        format!("{}{}{}{}", gateway(listeners), of("any", "any"), of("wide", "wide"), of("other", "other"));
    let router = Router::new(&snapshot(&text));
    check(&router, "GET h/", "any-0");
    check(&router, "GET b.example.com/", "wide-0");
    // The listener of that name has no route; another listener's are not its.
    check(&router, "GET a.example.com/", "no rule");
    assert_eq!(taken(&router, 81, "GET z.example.com/", &[]), Ok("other-0".to_owned()));
    assert_eq!(taken(&router, 81, "GET y.example.com/", &[]), Err(RouteFailure::NoListener));
    assert_eq!(taken(&router, 82, "GET y.example.com/", &[]), Err(RouteFailure::NoListener));

    assert_eq!(router.listener(80, Some("A.example.com")), Some(2));
    assert_eq!(router.listener(80, Some("b.example.com")), Some(1));
    assert_eq!(router.listener(80, Some("example.com")), Some(0));
    assert_eq!(router.listener(80, None), Some(0));
    assert_eq!(router.listener(81, None), None);

    // A connection that SNI gave to one listener does not reach another's hosts.
    let headers = HeaderMap::new();
    let request =
        |host: &'static str| RouteRequest { host, path: "/", query: None, method: "GET", headers: &headers };
    assert_eq!(router.route(80, Some(1), &request("b.example.com")).unwrap().listener, 1);
    assert_eq!(
        router.route(80, Some(0), &request("b.example.com")).map(|_| ()),
        Err(RouteFailure::NoListener)
    );
    assert_eq!(
        router.route(80, Some(1), &request("a.example.com")).map(|_| ()),
        Err(RouteFailure::NoListener)
    );
    assert_eq!(router.route(80, Some(9), &request("h")).map(|_| ()), Err(RouteFailure::NoListener));
}

#[test]
fn ties() {
    let route = |name: &str, time: &str| {
        let time = if time.is_empty() { String::new() } else { format!(", creationTimestamp: '{time}'") };
        route(name, "[]", &["{path: {value: /a}}"])
            .replace("namespace: ns}", &format!("namespace: ns{time}}}"))
    };
    // The oldest first; one without a time is the youngest; then by name.
    let first = |routes: &[String]| taken(&router(ONE, routes), 80, "GET h/a", &[]).unwrap();
    assert_eq!(
        first(&[route("a", ""), route("b", "2026-01-02T00:00:00Z"), route("c", "2026-01-01T00:00:00Z")]),
        "c-0"
    );
    assert_eq!(first(&[route("b", ""), route("a", "")]), "a-0");
    assert_eq!(first(&[route("b", "2026-01-01T00:00:00Z"), route("a", "2026-01-01T00:00:00Z")]), "a-0");
    // Within a route, the first rule, and of a rule the first match.
    let one = self::route("r", "[]", &["{path: {value: /a}}", "{path: {value: /a}}"]);
    assert_eq!(first(&[one]), "r-0");
}

/// A rule whose expression does not compile answers 500 to what its other matches take, and takes nothing by that one.
#[test]
fn expressions_that_do_not_compile() {
    let router = router(
        ONE,
        &[route(
            "r",
            "[]",
            &[
                "{path: {type: RegularExpression, value: 'a)|(/'}}",
                "{headers: [{name: x, type: RegularExpression, value: '('}]}",
            ],
        )],
    );
    check(&router, "GET h/", "no rule");
    check_with(&router, "GET h/", &[("x", "(")], "no rule");
}
