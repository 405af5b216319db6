//! Objects that the CRDs of today refuse and an API server with older ones lets through: what becomes of them, and what they say.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on should fail there"
)]
use policy_model::NamespacedName;
use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;
use xds_translate::{
    BackendId, ClientCertificates, Condition, ConditionStatus, Inserted, Objects, Options, Resolution,
    Snapshot, resolve,
};

const WORLD: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: c}
spec: {controllerName: sigs.k8s.io/kube-agentic-networking-controller}
---
apiVersion: v1
kind: Service
metadata: {name: s, namespace: n}
spec: {ports: [{name: p, port: 80}, {name: q, port: 81}]}
---
apiVersion: agentic.networking.x-k8s.io/v0alpha0
kind: XBackend
metadata: {name: b, namespace: n}
spec: {mcp: {serviceName: s, port: 80}}
";

const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: g, namespace: n}
spec: {gatewayClassName: c, listeners: [{name: l, port: 80, protocol: HTTP}]}
";

/// A route to the Service `s` and the XBackend `b`.
const ROUTE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: n}
spec:
  parentRefs: [{name: g}]
  rules:
  - backendRefs: [{name: s, port: 80}]
  - backendRefs: [{group: agentic.networking.x-k8s.io, kind: XBackend, name: b}]
";

/// `WORLD` and these, as an API server gives them.
fn resolved(documents: &[&str]) -> Resolution {
    let mut objects = Objects::default();
    objects.add_yaml("world.yaml", WORLD).unwrap();
    for text in documents.iter().filter(|text| !text.is_empty()) {
        for document in serde_yaml_ng::Deserializer::from_str(text) {
            let object: Value = serde::Deserialize::deserialize(document).unwrap();
            let inserted = objects.insert(&object);
            assert!(matches!(inserted, Inserted::Stored | Inserted::Unreadable { .. }), "{inserted:?}");
        }
    }
    resolve(&objects, &Options::default())
}

fn snapshot(resolution: &Resolution) -> &Snapshot {
    &resolution.gateways[&NamespacedName::new("n", "g")]
}

/// What is not as a healthy object's, and why: `scope: Type=Status/Reason: message`, in order.
fn faults(resolution: &Resolution, object: &str) -> Vec<String> {
    let is_fine = |condition: &&Condition| {
        (condition.status == ConditionStatus::True) != (condition.r#type == "Conflicted")
    };
    let of = |name: &str, kind: &str| format!("{kind} {name}") == object;
    let statuses = resolution.statuses.iter().filter(|status| of(&status.object.name, &status.object.kind));
    statuses
        .flat_map(|status| {
            status.conditions.iter().filter(|condition| !is_fine(condition)).map(|condition| {
                let Condition { r#type, status: value, reason, message } = condition;
                format!("{}: {}={value:?}/{reason}: {message}", status.scope, r#type)
            })
        })
        .collect()
}

fn gateway(listeners: &str) -> String {
    GATEWAY.replace("{name: l, port: 80, protocol: HTTP}", listeners)
}

const NOT_SERVED: &str = "Programmed=False/Invalid: the listener is not served; see the other conditions";

/// What is wrong with the last of these listeners; whether the others are served.
#[track_caller]
fn check_listener(listeners: &str, extra: &str, last: &str, expected: &[&str]) {
    let resolution = resolved(&[&gateway(listeners), extra]);
    let scope = format!("listener {last}: ");
    let found = faults(&resolution, "Gateway g");
    let found: Vec<_> = found.iter().filter_map(|fault| fault.strip_prefix(&scope)).collect();
    let expected: Vec<_> = expected.iter().copied().chain([NOT_SERVED]).collect();
    assert_eq!(found, expected, "{listeners}");
    let served = resolution.gateways.get(&NamespacedName::new("n", "g"));
    let served = served.into_iter().flat_map(|snapshot| &snapshot.listeners);
    assert_eq!(served.filter(|listener| listener.name == last).count(), 0, "{listeners}");
}

#[test]
fn listeners() {
    check_listener(
        "{name: k, port: 80, protocol: HTTP}, {name: l, port: 443, protocol: HTTPS, tls: {mode: Passthrough}}",
        "",
        "l",
        &["Accepted=False/UnsupportedValue: tls mode must be Terminate for protocol HTTPS"],
    );
    for port in [-1, 0, 65_536] {
        check_listener(
            &format!("{{name: l, port: {port}, protocol: HTTP}}"),
            "",
            "l",
            &[&format!("Accepted=False/PortUnavailable: port must be 1 to 65535, not `{port}`")],
        );
    }
    // Of two of one name the first is meant.
    let resolution =
        resolved(&[&gateway("{name: l, port: 80, protocol: HTTP}, {name: l, port: 81, protocol: HTTP}")]);
    let conflict = "HostnameConflict: another listener is named `l`; rename one";
    assert_eq!(
        faults(&resolution, "Gateway g"),
        [
            format!("listener l: Accepted=False/{conflict}"),
            format!("listener l: Conflicted=True/{conflict}"),
            format!("listener l: {NOT_SERVED}"),
        ]
    );
    let ports: Vec<_> = snapshot(&resolution).listeners.iter().map(|listener| listener.port).collect();
    assert_eq!(ports, [80]);
}

fn certificate() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let names = vec!["a.example".to_owned()];
    (CertificateParams::new(names).unwrap().self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn secret(data: &str) -> String {
    format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: t, namespace: n}}\nstringData: {{{data}}}\n")
}

#[test]
fn certificates() {
    let (pem, key) = certificate();
    let (pem, key) = (Value::from(pem), Value::from(key));
    let check = |reference: &str, extra: &str, reason: &str, message: &str| {
        check_listener(
            &format!("{{name: l, port: 443, protocol: HTTPS, tls: {{certificateRefs: [{reference}]}}}}"),
            extra,
            "l",
            &[&format!("ResolvedRefs=False/{reason}: {message}")],
        );
    };
    let invalid = "InvalidCertificateRef";
    check("{name: t, kind: ConfigMap}", "", invalid, "certificateRefs must name a Secret, not `ConfigMap`");
    check("{name: t, group: x.example}", "", invalid, "certificateRefs must name a Secret, not `Secret`");
    check("{name: t}", "", invalid, "Secret `n/t` does not exist; create it with tls.crt and tls.key");
    let no_keys = "Secret `n/t` has no tls.crt and tls.key; add them";
    check("{name: t}", &secret(&format!("tls.crt: {pem}")), invalid, no_keys);
    check("{name: t}", &secret(&format!("tls.key: {key}")), invalid, no_keys);
    check(
        "{name: t}",
        &secret(&format!("tls.crt: '', tls.key: {key}")),
        invalid,
        "tls.crt of Secret `n/t` holds no PEM certificate; mend it",
    );
    // A certificate, and another that is none: not half of it.
    let half =
        format!("{}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", pem.as_str().unwrap());
    check(
        "{name: t}",
        &secret(&format!("tls.crt: {}, tls.key: {key}", Value::from(half))),
        invalid,
        "tls.crt of Secret `n/t` holds no PEM certificate; mend it",
    );
    check(
        "{name: t}",
        &secret(&format!("tls.crt: {pem}, tls.key: {pem}")),
        invalid,
        "tls.key of Secret `n/t` holds no PEM private key; mend it",
    );
    let unread = "apiVersion: v1\nkind: Secret\nmetadata: {name: t, namespace: n}\ndata: 1\n";
    check("{name: t}", unread, invalid, "Secret `n/t` does not exist; create it with tls.crt and tls.key");
}

/// Frontend validation of a port stands for the default's.
#[test]
fn client_certificates_by_port() {
    let (pem, _) = certificate();
    let frontend = |per_port: &str| {
        GATEWAY.replace(
            "listeners: [{name: l, port: 80, protocol: HTTP}]",
            &format!(
                "listeners: [{{name: l, port: 443, protocol: HTTPS}}], \
                 tls: {{frontend: {{default: {{}}, perPort: [{{port: 443, tls: {{validation: {per_port}}}}}]}}}}"
            ),
        )
    };
    let config_map = |data: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: ca, namespace: n}}\ndata: {{{data}}}\n")
    };
    let fine = config_map(&format!("ca.crt: {}", Value::from(pem.clone())));
    let reference = "{group: '', kind: ConfigMap, name: ca}";
    for (mode, insecure_fallback) in [("AllowValidOnly", false), ("AllowInsecureFallback", true)] {
        let gateway = frontend(&format!("{{mode: {mode}, caCertificateRefs: [{reference}]}}"));
        let resolution = resolved(&[&gateway, &fine]);
        let tls = snapshot(&resolution).listeners[0].tls.clone().unwrap();
        let ca_pem = vec![pem.clone().into_bytes()];
        assert_eq!(tls.clients, ClientCertificates::Frontend { ca_pem, insecure_fallback });
    }
    let check = |references: &str, extra: &str, reason: &str, message: &str| {
        let gateway = frontend(&format!("{{caCertificateRefs: [{references}]}}"));
        let resolution = resolved(&[&gateway, extra]);
        let expected = [
            "listener l: Accepted=False/NoValidCACertificate: no caCertificateRef of spec.tls.frontend resolves; \
             clients cannot be verified"
                .to_owned(),
            format!("listener l: ResolvedRefs=False/{reason}: {message}"),
            format!("listener l: {NOT_SERVED}"),
        ];
        let found = faults(&resolution, "Gateway g");
        let of_listener: Vec<_> = found.iter().filter(|fault| fault.starts_with("listener")).collect();
        assert_eq!(of_listener, expected.iter().collect::<Vec<_>>());
    };
    let kind = "InvalidCACertificateKind";
    check(
        "{group: '', kind: Secret, name: ca}",
        "",
        kind,
        "caCertificateRefs must name a ConfigMap, not `Secret`",
    );
    check(
        "{group: x.example, kind: ConfigMap, name: ca}",
        &fine,
        kind,
        "caCertificateRefs must name a ConfigMap, not `ConfigMap`",
    );
    let invalid = "InvalidCACertificateRef";
    check(reference, &config_map("other: x"), invalid, "ConfigMap `n/ca` has no key ca.crt; add it");
    check(reference, "", invalid, "ConfigMap `n/ca` does not exist; create it with the key ca.crt");
    check(
        reference,
        &config_map("ca.crt: x"),
        invalid,
        "ca.crt of ConfigMap `n/ca` holds no PEM certificate; mend it",
    );

    // One that resolves is enough, and the other is told.
    let two = frontend(&format!(
        "{{caCertificateRefs: [{{group: '', kind: ConfigMap, name: none}}, {reference}]}}"
    ));
    let resolution = resolved(&[&two, &fine]);
    assert_eq!(
        faults(&resolution, "Gateway g"),
        [
            "listener l: ResolvedRefs=False/InvalidCACertificateRef: ConfigMap `n/none` does not exist; create it with the key ca.crt"
        ]
    );
    assert_eq!(snapshot(&resolution).listeners.len(), 1);
}

fn tls_policy(spec: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\nmetadata: {{name: t, namespace: n}}\nspec: {{{spec}}}\n"
    )
}

/// The backends that requests of `ROUTE` reach.
fn reached(resolution: &Resolution) -> Vec<&BackendId> {
    let rules = &snapshot(resolution).rules;
    rules.iter().flat_map(|rule| &rule.backends).filter_map(|weighted| weighted.backend.as_ref()).collect()
}

/// A BackendTLSPolicy that cannot be enforced keeps requests from what it targets: the Service, and the XBackend in front of it.
#[test]
fn backend_tls_policies_that_cannot_be_enforced() {
    const TARGET: &str = "targetRefs: [{group: '', kind: Service, name: s}]";
    let check = |rest: &str, message: &str| {
        let policy = tls_policy(&format!("{TARGET}, {rest}"));
        let resolution = resolved(&[GATEWAY, ROUTE, &policy]);
        assert_eq!(
            faults(&resolution, "BackendTLSPolicy t"),
            [format!(
                "ancestor Gateway n/g: Accepted=False/Invalid: {message}; until then its targets receive nothing"
            )],
            "{rest}"
        );
        assert_eq!(reached(&resolution), Vec::<&BackendId>::new(), "{rest}");
    };
    let system = "wellKnownCACertificates: System";
    let both = "caCertificateRefs: [{group: '', kind: ConfigMap, name: c}]";
    check(
        "validation: {hostname: a.example}",
        "has no CA; give caCertificateRefs or wellKnownCACertificates",
    );
    check(
        &format!("validation: {{hostname: a.example, {both}, {system}}}"),
        "has caCertificateRefs and wellKnownCACertificates; give one",
    );
    check(
        "validation: {hostname: a.example, wellKnownCACertificates: x.example/y}",
        "wellKnownCACertificates `x.example/y` is not supported; use `System`",
    );
    check(
        &format!("validation: {{hostname: '', {system}}}"),
        "validation.hostname is empty; give the name of the server",
    );
    for san in
        ["{type: Hostname}", "{type: Hostname, hostname: ''}", "{type: URI}", "{type: URI, hostname: a}"]
    {
        check(
            &format!("validation: {{hostname: a.example, {system}, subjectAltNames: [{san}]}}"),
            "a subjectAltNames entry has no value; give it one",
        );
    }
    check(
        &format!("validation: {{hostname: a.example, {system}}}, options: {{x.example/y: z}}"),
        "option `x.example/y` is not supported; remove it",
    );
    check(
        &format!("validation: {{hostname: a.example, {system}, minimum: '1.3'}}"),
        "`spec.validation.minimum` is not supported; remove it",
    );
    check(
        "validation: {hostname: 1}",
        "cannot be read: spec.validation.hostname: invalid type: integer `1`, expected a string",
    );
}

#[test]
fn targets_of_backend_tls_policies() {
    let fine = "validation: {hostname: a.example, wellKnownCACertificates: System}";
    let service = BackendId::Service(NamespacedName::new("n", "s"), 80);
    let x_backend = BackendId::XBackend(NamespacedName::new("n", "b"));
    let check = |targets: &str, validation: &str, expected: &[&str], reaches: &[&BackendId]| {
        let policy = tls_policy(&format!("targetRefs: {targets}, {validation}"));
        let resolution = resolved(&[GATEWAY, ROUTE, &policy]);
        assert_eq!(faults(&resolution, "BackendTLSPolicy t"), expected, "{targets}");
        assert_eq!(reached(&resolution), reaches, "{targets}");
    };
    let agentic = "agentic.networking.x-k8s.io";
    check(&format!("[{{group: {agentic}, kind: XBackend, name: b}}]"), fine, &[], &[&service, &x_backend]);
    check(
        &format!("[{{group: {agentic}, kind: XBackend, name: none}}]"),
        fine,
        &[
            "ancestor XBackend n/none: Accepted=False/TargetNotFound: XBackend `n/none` does not exist; create it or change the target",
        ],
        &[&service, &x_backend],
    );
    // It targets the XBackend all the same: never plain text to what somebody wanted TLS to.
    check(
        &format!("[{{group: {agentic}, kind: XBackend, name: b, sectionName: p}}]"),
        fine,
        &[
            "ancestor XBackend n/b/p: Accepted=False/TargetNotFound: an XBackend has no sections; remove sectionName `p`",
        ],
        &[&service, &x_backend],
    );
    check(
        "[{group: apps, kind: Deployment, name: d}]",
        fine,
        &[
            "ancestor Deployment n/d: Accepted=False/TargetNotFound: `Deployment` of `apps` cannot be targeted; use a Service or an XBackend",
        ],
        &[&service, &x_backend],
    );
    check(
        "[{group: '', kind: Service, name: s, sectionName: r}]",
        fine,
        &[
            "ancestor Service n/s/r: Accepted=False/TargetNotFound: Service `n/s` has no port named `r`; change sectionName",
        ],
        &[&service, &x_backend],
    );

    let closed = |scope: &str, field: &str| {
        format!(
            "ancestor {scope}: Accepted=False/Invalid: cannot be read: {field}; until then its targets receive nothing"
        )
    };
    let unread = "spec.validation: invalid type: integer `1`, expected struct BackendTlsPolicyValidation";
    // What can be read of its targets is closed; if nothing can, everything of its namespace.
    check(
        &format!("[{{group: {agentic}, kind: XBackend, name: b}}, {{kind: Service, name: s}}]"),
        fine,
        &[&closed("Gateway n/g", "spec.targetRefs[1]: missing field `group`")],
        &[&service],
    );
    check(
        "[{group: '', kind: Service, name: s, sectionName: q}]",
        "validation: 1",
        &[&closed("Service n/s/q", unread)],
        &[&service, &x_backend],
    );
    let no_group = "spec.targetRefs[0]: missing field `group`";
    check("[{kind: Service, name: s}]", fine, &[&closed("Gateway n/g", no_group)], &[]);
    let no_list = "spec.targetRefs: invalid type: integer `1`, expected a sequence";
    check("1", fine, &[&closed("Gateway n/g", no_list)], &[]);
}

#[test]
fn routes() {
    let check = |backend: &str, expected: &[&str]| {
        let route = ROUTE.replace("{name: s, port: 80}", backend);
        let resolution = resolved(&[GATEWAY, &route]);
        assert_eq!(faults(&resolution, "HTTPRoute r"), expected, "{backend}");
        assert_eq!(reached(&resolution), [&BackendId::XBackend(NamespacedName::new("n", "b"))], "{backend}");
    };
    let no_port = "parent Gateway n/g: ResolvedRefs=False/BackendNotFound: backendRef to Service `n/s` has no port; add one";
    for backend in ["{name: s}", "{name: s, port: 0}", "{name: s, port: 65536}"] {
        check(backend, &[no_port]);
    }
    check(
        "{name: s, port: 80, kind: Pod}",
        &[
            "parent Gateway n/g: ResolvedRefs=False/InvalidKind: backends of kind `Pod` in group `` are not supported; use a Service or an XBackend",
        ],
    );

    // Where the parents of an unread route can be read, it says so there; it serves nothing.
    let unread = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r, namespace: n}\n\
        spec: {parentRefs: [{name: g, sectionName: l, port: 80}, {name: other}, 1]}\n";
    let resolution = resolved(&[GATEWAY, unread]);
    assert_eq!(
        faults(&resolution, "HTTPRoute r"),
        ["parent Gateway n/g/l:80: Accepted=False/UnsupportedValue: cannot be read, and serves nothing: \
          spec.parentRefs[2]: invalid type: integer `1`, expected struct HttpRouteParentRefs"]
    );
    assert_eq!(snapshot(&resolution).rules.len(), 0);
}

/// Whatever is printed of what is kept, the contents of Secrets are not in it.
#[test]
fn secrets_are_not_printed() {
    let (pem, key) = certificate();
    let line = |text: &str| text.lines().nth(1).unwrap().to_owned();
    let secret = secret(&format!("tls.crt: {}, tls.key: {}", Value::from(pem), Value::from(key.clone())));
    let unread =
        "apiVersion: v1\nkind: Secret\nmetadata: {name: u, namespace: n}\nstringData: {a: c2VjcmV0, b: 1}\n";
    let mut objects = Objects::default();
    for text in [GATEWAY, &secret, unread] {
        objects.insert(&serde_yaml_ng::from_str(text).unwrap());
    }
    let printed = format!("{objects:?}");
    assert!(printed.contains(r#"{"tls.crt", "tls.key"}"#), "the keys are there: {printed}");
    assert!(printed.contains("Unreadable { message: \"stringData.b: invalid type"), "{printed}");
    assert!(!printed.contains(&line(&key)) && !printed.contains("c2VjcmV0"), "{printed}");

    let served = resolved(&[
        &gateway("{name: l, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: t}]}}"),
        &secret,
    ]);
    let printed = format!("{:?}", snapshot(&served).listeners);
    assert!(printed.contains("CertificateAndKey { .. }"), "{printed}");
    assert!(!printed.contains(&line(&key)), "{printed}");
}
