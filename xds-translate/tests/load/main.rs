//! What files are refused for, and how it is said.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test that cannot go on should fail there"
)]
use xds_translate::Objects;

mod filters;
mod gateways;
mod routes;
mod server;

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

/// A document of one kind with this `spec`.
fn document(kind: &str, spec: &str) -> String {
    let namespace = if kind == "GatewayClass" { "" } else { ", namespace: ns" };
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: o{namespace}}}\nspec: {spec}\n"
    )
}

/// What is wrong with such a document: `field: message`, in order.
#[track_caller]
fn check_spec(kind: &str, spec: &str, expected: &[(&str, &str)]) {
    let name = if kind == "GatewayClass" { "o" } else { "ns/o" };
    let expected: Vec<_> = expected
        .iter()
        .map(|(field, message)| format!("f.yaml, document 1, {kind} {name}, {field}: {message}"))
        .collect();
    let expected: Vec<_> = expected.iter().map(String::as_str).collect();
    check(&document(kind, spec), &expected);
}

/// `item` as often as this, with `#` as its number.
fn many(count: usize, item: &str) -> String {
    (0..count).map(|index| item.replace('#', &index.to_string())).collect::<Vec<_>>().join(", ")
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
    // After an error of syntax nothing more can be read.
    check(
        "a: [\n---\na: [\n",
        &[
            "f.yaml, document 1: did not find expected node content at line 2 column 1, while parsing a flow node",
        ],
    );
}

/// What JSON has no form for.
#[test]
fn values_of_yaml_alone() {
    let labelled = |labels: &str| {
        format!("apiVersion: v1\nkind: Service\nmetadata: {{name: a, namespace: n, labels: {{{labels}}}}}\n")
    };
    // Keys that YAML reads as something else are strings, as with `kubectl`.
    check(&labelled("true: x, 1: y, k: z"), &[]);
    check(&labelled("1: x, '1': y"), &["f.yaml, document 1: the key `1` is given twice; keep one"]);
    check(
        &labelled("k: .inf"),
        &["f.yaml, document 1: `.inf` is no JSON number; quote it or write a finite number"],
    );
    check(&labelled("[a]: x"), &["f.yaml, document 1: a key is neither a string nor a scalar; quote it"]);
    // Numbers keep their value: these are wrong as labels, and nothing else.
    for number in ["18446744073709551615", "-1", "1.5"] {
        let r#type = if number.contains('.') { "floating point" } else { "integer" };
        check(
            &labelled(&format!("k: {number}")),
            &[&format!(
                "f.yaml, document 1, Service n/a, metadata.labels.k: invalid type: {} `{number}`, expected a string",
                r#type
            )],
        );
    }
}

#[test]
fn names() {
    let check = |kind: &str, metadata: &str, described: &str, expected: &[&str]| {
        let expected: Vec<_> =
            expected.iter().map(|text| format!("f.yaml, document 1, {kind} {described}, {text}")).collect();
        let expected: Vec<_> = expected.iter().map(String::as_str).collect();
        check(&format!("apiVersion: v1\nkind: {kind}\nmetadata: {{{metadata}}}\n"), &expected);
    };
    let long = |length: usize| "a".repeat(length);
    let name = "is no name; use lower case letters, digits and `-`";
    check("Secret", "name: a.b-c.1", "default/a.b-c.1", &[]);
    for bad in ["A", "a_b", "-a", "a-", "a..b"] {
        check(
            "Secret",
            &format!("name: {bad}, namespace: n"),
            &format!("n/{bad}"),
            &[&format!("metadata.name: `{bad}` {name}")],
        );
    }
    let (longest, longer) = (long(253), long(254));
    check("Secret", &format!("name: {longest}"), "", &[]);
    check(
        "Secret",
        &format!("name: {longer}"),
        &format!("default/{longer}"),
        &[&format!("metadata.name: `{longer}` {name}")],
    );
    // A namespace is a label: no dots, 63 characters.
    for namespace in ["a.b".to_owned(), long(64)] {
        check(
            "Namespace",
            &format!("name: {namespace}"),
            &namespace,
            &[&format!("metadata.name: `{namespace}` {name}")],
        );
        check(
            "Secret",
            &format!("name: s, namespace: {namespace}"),
            &format!("{namespace}/s"),
            &[&format!(
                "metadata.namespace: `{namespace}` is no namespace; use lower case letters, digits and `-`"
            )],
        );
    }
    check("Namespace", &format!("name: {}", long(63)), "", &[]);
    check(
        "Namespace",
        "name: a, namespace: b",
        "b/a",
        &["metadata.namespace: this kind has no namespace; remove `b`"],
    );
}

#[test]
fn objects_without_their_parts() {
    for metadata in ["", "metadata: {}\n", "metadata: {name: ''}\n"] {
        check(
            &format!("apiVersion: v1\nkind: Secret\n{metadata}"),
            &["f.yaml, document 1, Secret, metadata.name: is missing; give the object a name"],
        );
    }
    for kind in ["GatewayClass", "Gateway", "HTTPRoute", "ReferenceGrant", "BackendTLSPolicy"] {
        let namespace = if kind == "GatewayClass" { "" } else { "default/" };
        check(
            &format!("apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: o}}\n"),
            &[&format!("f.yaml, document 1, {kind} {namespace}o, spec: is missing; add it")],
        );
    }
    // Beside `spec` there is nothing.
    check(
        &format!("{}data: {{}}\n", document("GatewayClass", "{controllerName: a.b/c}")),
        &[
            "f.yaml, document 1, GatewayClass o, data: is no field of this kind; check the spelling and the indentation",
        ],
    );
    check(
        &format!("{}data: {{}}\nstatus: {{}}\n", document("HTTPRoute", "{}")),
        &[
            "f.yaml, document 1, HTTPRoute ns/o, data: is no field of this kind; check the spelling and the indentation",
        ],
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

/// Fields of the experimental channel are stored, those that no channel has are refused.
#[test]
fn fields_of_the_experimental_channel() {
    check_spec(
        "Gateway",
        "{gatewayClassName: c, defaultScope: All, listeners: [{name: l, port: 80, protocol: HTTP}]}",
        &[],
    );
    check_spec(
        "HTTPRoute",
        "{useDefaultGateways: All, rules: [{retry: {attempts: 2}, sessionPersistence: {type: Cookie}}]}",
        &[],
    );
    check_spec(
        "HTTPRoute",
        "{rules: [{retries: {}}], retry: {}}",
        &[
            ("spec.retry", "is no field of this kind; check the spelling and the indentation"),
            ("spec.rules[0].retries", "is no field of this kind; check the spelling and the indentation"),
        ],
    );
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
    let expected = [
        "f.yaml, document 1, Gateway ns/g, spec.listeners[0].port: must be 1 to 65535, not `0`",
        "f.yaml, document 2, HTTPRoute ns/r, spec.rules[0].backendRefs[0].port: Must have port for Service reference",
    ];
    check(&text, &expected);
    // A line each.
    let error = Objects::default().add_yaml("f.yaml", &text).unwrap_err();
    assert_eq!(error.to_string(), expected.join("\n"));
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
