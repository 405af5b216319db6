//! What files are refused for, and how it is said.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test that cannot go on should fail there"
)]
use xds_translate::{Inserted, ObjectRef, Objects};

/// Adds `text` and compares the violations, one per line.
#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let mut objects = Objects::default();
    let found = match objects.add_yaml("f.yaml", text) {
        Ok(_) => Vec::new(),
        Err(error) => {
            assert_eq!(objects.len(), 0, "nothing of a refused text is added");
            error.violations.iter().map(ToString::to_string).collect()
        }
    };
    assert_eq!(found, expected, "{text}");
}

fn gateway(listeners: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: g, namespace: ns}}\n\
         spec:\n  gatewayClassName: c\n  listeners:\n{listeners}"
    )
}

fn route(rule: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r, namespace: ns}}\n\
         spec:\n  parentRefs: [{{name: g}}]\n  rules:\n  - {rule}\n"
    )
}

#[test]
fn yaml() {
    check("", &[]);
    check("---\n---\n# nothing\n", &[]);
    check("a: 1\na: 2\n", &["f.yaml, document 1: duplicate entry with key \"a\""]);
    check(
        "[1, 2]",
        &[
            "f.yaml, document 1: is no object; a document must be a mapping with apiVersion, kind and metadata",
        ],
    );
    check(
        "kind: Gateway\n",
        &["f.yaml, document 1, Gateway, apiVersion: is missing; give the object an apiVersion"],
    );
    check("apiVersion: v1\n", &["f.yaml, document 1, kind: is missing; give the object a kind"]);
    check(
        "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: b}\nspec: {ports: [{port: !x 1}]}\n",
        &["f.yaml, document 1: the YAML tag `!x` is not supported; remove it"],
    );
    check(
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Service\nmetadata: {namespace: b}\n",
        &["f.yaml, document 2, Service b/, metadata.name: is missing; give the object a name"],
    );
}

#[test]
fn kinds_and_versions() {
    check(
        "apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: HTTPRoute\nmetadata: {name: r}\n",
        &[
            "f.yaml, document 1, HTTPRoute default/r, apiVersion: `v1alpha2` of HTTPRoute is not served; use `v1`",
        ],
    );
    check(
        "apiVersion: agentic.prototype.x-k8s.io/v1alpha1\nkind: XAccessPolicy\nmetadata: {name: r}\n",
        &[
            "f.yaml, document 1, XAccessPolicy default/r, apiVersion: `v1alpha1` of XAccessPolicy is not served; use `v0alpha0`",
        ],
    );
    check(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HttpRoute\nmetadata: {name: r, namespace: n}\n",
        &[
            "f.yaml, document 1, HttpRoute n/r, kind: there is no `HttpRoute` in `gateway.networking.k8s.io`; check the spelling",
        ],
    );
    check(
        "apiVersion: agentic.networking.x-k8s.io/v1alpha1\nkind: AccessPolicy\nmetadata: {name: r, namespace: n}\n",
        &[
            "f.yaml, document 1, AccessPolicy n/r, kind: there is no `AccessPolicy` in `agentic.networking.x-k8s.io`; \
           use XAccessPolicy or XBackend",
        ],
    );
}

#[test]
fn unknown_fields_and_wrong_types() {
    check(
        &gateway("  - {name: l, port: 80, protocol: HTTP, hostName: a}\n"),
        &["f.yaml, document 1, Gateway ns/g, spec.listeners[0].hostName: is no field of this kind; \
           check the spelling and the indentation"],
    );
    check(
        &gateway("  - {name: l, port: http, protocol: HTTP}\n"),
        &[
            "f.yaml, document 1, Gateway ns/g, spec.listeners[0].port: invalid type: string \"http\", expected a whole number",
        ],
    );
    check(
        &route("matches: [{method: FETCH}]"),
        &[
            "f.yaml, document 1, HTTPRoute ns/r, spec.rules[0].matches[0].method: unsupported value `FETCH`, expected one of \
           `GET`, `HEAD`, `POST`, `PUT`, `DELETE`, `CONNECT`, `OPTIONS`, `TRACE`, `PATCH`",
        ],
    );
    check(
        "apiVersion: v1\nkind: Service\nmetadata: {name: a, labls: {}}\nspec: {prots: []}\n",
        &[
            "f.yaml, document 1, Service default/a, metadata.labls: is no field of this kind; check the spelling and the indentation",
            "f.yaml, document 1, Service default/a, spec.prots: is no field of this kind; check the spelling and the indentation",
        ],
    );
    check(
        "apiVersion: agentic.networking.x-k8s.io/v0alpha0\nkind: XBackend\nmetadata: {name: a}\nspec: {mcp: {hostname: a.b, port: 1, pat: /}}\n",
        &["f.yaml, document 1, XBackend default/a, spec.mcp.pat: unknown field; did you mean `path`?"],
    );
}

#[test]
fn rules_of_gateways() {
    let at = |field: &str, message: &str| format!("f.yaml, document 1, Gateway ns/g, {field}: {message}");
    check(
        &gateway("  - {name: l, port: 0, protocol: HTTP}\n"),
        &[&at("spec.listeners[0].port", "must be 1 to 65535, not `0`")],
    );
    check(
        &gateway("  - {name: l, port: 80, protocol: HTTP}\n  - {name: l, port: 81, protocol: HTTP}\n"),
        &[&at("spec.listeners[1].name", "Listener name must be unique within the Gateway")],
    );
    check(
        &gateway("  - {name: l, port: 80, protocol: HTTP}\n  - {name: m, port: 80, protocol: HTTP}\n"),
        &[&at(
            "spec.listeners[1]",
            "Combination of port, protocol and hostname must be unique for each listener",
        )],
    );
    check(
        &gateway("  - {name: l, port: 443, protocol: HTTPS, tls: {}}\n"),
        &[&at(
            "spec.listeners[0].tls",
            "certificateRefs or options must be specified when mode is Terminate; \
             leave `tls` out to serve with the gateway's SPIFFE certificate",
        )],
    );
    check(
        &gateway("  - {name: l, port: 443, protocol: HTTPS, tls: {mode: Passthrough}}\n"),
        &[&at("spec.listeners[0].tls.mode", "tls mode must be Terminate for protocol HTTPS")],
    );
    check(
        &gateway("  - {name: l, port: 80, protocol: HTTP, hostname: 'Example.com'}\n"),
        &[&at(
            "spec.listeners[0].hostname",
            "`Example.com` is no host name; use lower case, perhaps with a leading `*.`",
        )],
    );
    check(
        &gateway("  - {name: l, port: 80, protocol: HTTP, tls: {certificateRefs: [{name: s}]}}\n"),
        &[&at("spec.listeners[0].tls", "tls must not be specified for protocols ['HTTP', 'TCP', 'UDP']")],
    );
}

#[test]
fn rules_of_routes() {
    let at = |field: &str, message: &str| format!("f.yaml, document 1, HTTPRoute ns/r, {field}: {message}");
    let one = "spec.rules[0]";
    check(
        &route("matches: [{path: {value: x}}]"),
        &[&at(
            &format!("{one}.matches[0].path.value"),
            "value must be an absolute path and start with '/' when type one of ['Exact', 'PathPrefix'], not `x`",
        )],
    );
    check(
        &route("matches: [{path: {value: /a//b}}]"),
        &[&at(
            &format!("{one}.matches[0].path.value"),
            "must not contain '//' when type one of ['Exact', 'PathPrefix'], not `/a//b`",
        )],
    );
    check(&route("matches: [{path: {type: RegularExpression, value: '.*'}}]"), &[]);
    check(
        &route("backendRefs: [{name: s}]"),
        &[&at(&format!("{one}.backendRefs[0].port"), "Must have port for Service reference")],
    );
    check(
        &route(
            "filters: [{type: URLRewrite, urlRewrite: {hostname: a}}, {type: RequestRedirect, requestRedirect: {hostname: a}}]",
        ),
        &[&at(
            &format!("{one}.filters"),
            "May specify either httpRouteFilterRequestRedirect or httpRouteFilterRequestRewrite, but not both",
        )],
    );
    check(
        &route("filters: [{type: URLRewrite}]"),
        &[&at(
            &format!("{one}.filters[0]"),
            "filter.urlRewrite must be specified for URLRewrite filter.type",
        )],
    );
    check(
        &route("filters: [{type: Teleport}]"),
        &[&at(
            &format!("{one}.filters"),
            "unsupported value `Teleport`; use one of the filter types of the Gateway API",
        )],
    );
    check(
        &route(
            "{matches: [{path: {type: Exact, value: /a}}], \
             filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]}",
        ),
        &[&at(
            &format!("{one}.filters[0].path"),
            "When using URLRewrite filter with path.replacePrefixMatch, exactly one PathPrefix match must be specified",
        )],
    );
    check(
        &route("timeouts: {request: 1s, backendRequest: 2s}"),
        &[&at(&format!("{one}.timeouts"), "backendRequest timeout cannot be longer than request timeout")],
    );
    check(
        &route("timeouts: {request: soon}"),
        &[&at(&format!("{one}.timeouts.request"), "`soon` is no duration; write it as `10s` or `1m30s`")],
    );
    // The experimental channel stores these; a condition says that they have no effect.
    check(&route("{retry: {attempts: 2}, sessionPersistence: {type: Cookie}}"), &[]);
}

#[test]
fn two_objects_of_one_name() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: n}\n";
    let twice = "metadata.name: there is already an object of this kind named `n/a`; remove one";
    check(&format!("{service}---\n{service}"), &[&format!("f.yaml, document 2, Service n/a, {twice}")]);

    let mut objects = Objects::default();
    objects.add_yaml("one.yaml", service).unwrap();
    let error = objects.add_yaml("two.yaml", service).unwrap_err();
    assert_eq!(error.to_string(), format!("two.yaml, document 1, Service n/a, {twice}"));
    assert_eq!(objects.len(), 1);
}

#[test]
fn all_violations_are_reported() {
    let text = format!(
        "{}---\n{}",
        gateway("  - {name: l, port: 0, protocol: HTTP}\n"),
        route("backendRefs: [{name: s}]")
    );
    check(
        &text,
        &[
            "f.yaml, document 1, Gateway ns/g, spec.listeners[0].port: must be 1 to 65535, not `0`",
            "f.yaml, document 2, HTTPRoute ns/r, spec.rules[0].backendRefs[0].port: Must have port for Service reference",
        ],
    );
}

#[test]
fn lists_json_and_other_kinds() {
    let mut objects = Objects::default();
    // `\u` escapes of surrogate pairs are JSON, not YAML.
    let list = r#"{"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "\ud83d\ude00"}}
    ]}"#;
    let skipped = objects.add_yaml("l.json", list).unwrap();
    assert_eq!((objects.len(), skipped), (1, Vec::new()));
    let skipped = objects
        .add_yaml(
            "d.yaml",
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d, namespace: n}\nspec: {anything: 1}\n",
        )
        .unwrap();
    assert_eq!((objects.len(), skipped), (1, vec!["Deployment n/d".to_owned()]));
}

#[test]
fn yaml_aliases_and_merges() {
    let mut objects = Objects::default();
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a, labels: &l {x: y}}\nspec: {selector: *l, ports: [{port: 1}]}\n";
    objects.add_yaml("a.yaml", text).unwrap();
    assert_eq!(objects.len(), 1);
}

#[test]
fn objects_of_an_api_server_are_never_skipped() {
    let mut objects = Objects::default();
    let policy = serde_json::json!({
        "apiVersion": "agentic.networking.x-k8s.io/v1alpha1", "kind": "XAccessPolicy",
        "metadata": {"name": "p", "namespace": "n"},
        "spec": {"action": "Perhaps", "targetRefs": []},
    });
    assert!(matches!(objects.insert(&policy), Inserted::Unreadable { .. }));
    assert_eq!(objects.len(), 1);
    let pod = serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}});
    assert_eq!(objects.insert(&pod), Inserted::OtherKind);
    let nameless = serde_json::json!({"apiVersion": "v1", "kind": "Service", "metadata": {}});
    assert!(matches!(objects.insert(&nameless), Inserted::Refused { .. }));
    let service = serde_json::json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "n", "newField": 1}, "spec": {"newField": 1},
    });
    // An API server may know fields that we do not.
    assert_eq!(objects.insert(&service), Inserted::Stored);
    assert_eq!(objects.insert(&service), Inserted::Stored);
    assert_eq!(objects.len(), 2);

    let reference = |group: &str, kind: &str, name: &str| ObjectRef {
        group: group.to_owned(),
        kind: kind.to_owned(),
        namespace: "n".to_owned(),
        name: name.to_owned(),
    };
    assert!(objects.remove(&reference("agentic.networking.x-k8s.io", "XAccessPolicy", "p")));
    assert!(!objects.remove(&reference("agentic.prototype.x-k8s.io", "XAccessPolicy", "p")));
    assert!(objects.remove(&reference("", "Service", "s")));
    assert!(objects.is_empty());
}
