//! Every condition, by the manifests that lead to it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test that cannot go on should fail there"
)]
use std::fmt::Write as _;

use policy_model::NamespacedName;
use rcgen::{CertificateParams, KeyPair};
use xds_translate::{
    BackendId, ClientCertificates, ConditionStatus, Destination, Objects, Options, Resolution, Snapshot,
    resolve,
};

/// What most tests have in common: a class, a Gateway with one listener, a Service with an endpoint, an XBackend and a route to it.
const BASE: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: c}
spec: {controllerName: sigs.k8s.io/kube-agentic-networking-controller}
---
apiVersion: v1
kind: Service
metadata: {name: s, namespace: ns}
spec: {ports: [{name: mcp, port: 80}, {name: other, port: 81}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: s-1, namespace: ns, labels: {kubernetes.io/service-name: s}}
addressType: IPv4
ports: [{name: mcp, port: 8080}]
endpoints: [{addresses: [10.0.0.1]}]
---
apiVersion: agentic.networking.x-k8s.io/v0alpha0
kind: XBackend
metadata: {name: b, namespace: ns}
spec: {mcp: {serviceName: s, port: 80}}
"#;

const GATEWAY: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: g, namespace: ns, generation: 7}
spec:
  gatewayClassName: c
  listeners: [{name: l, port: 80, protocol: HTTP}]
"#;

fn gateway(listeners: &str) -> String {
    GATEWAY.replace("[{name: l, port: 80, protocol: HTTP}]", listeners)
}

/// A route of namespace `ns` with these fields of `spec`.
fn route(spec: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r, namespace: ns, generation: 3}}\nspec: {spec}\n"
    )
}

const TO_BACKEND: &str = "{parentRefs: [{name: g}], rules: [{backendRefs: [{group: agentic.networking.x-k8s.io, kind: XBackend, name: b}]}]}";

fn policy(spec: &str) -> String {
    format!(
        "apiVersion: agentic.networking.x-k8s.io/v1alpha1\nkind: XAccessPolicy\nmetadata: {{name: p, namespace: ns}}\nspec: {spec}\n"
    )
}

fn resolved(documents: &[&str]) -> Resolution {
    let mut objects = Objects::default();
    for (index, text) in documents.iter().enumerate() {
        objects.add_yaml(&format!("{index}.yaml"), text).unwrap_or_else(|error| panic!("{error}"));
    }
    resolve(&objects, &Options::default())
}

fn snapshot(resolution: &Resolution) -> &Snapshot {
    &resolution.gateways[&NamespacedName::new("ns", "g")]
}

/// The conditions of `Kind name`, by scope: `scope: Type=Status/Reason …`, one line each.
fn conditions(resolution: &Resolution, object: &str) -> String {
    let mut found = String::new();
    for status in &resolution.statuses {
        if format!("{} {}", status.object.kind, status.object.name) != object {
            continue;
        }
        write!(found, "{}:", status.scope).unwrap();
        for condition in &status.conditions {
            assert!(!condition.message.is_empty(), "{condition:?} says nothing");
            let value = match condition.status {
                ConditionStatus::True => "True",
                ConditionStatus::False => "False",
                ConditionStatus::Unknown => "Unknown",
            };
            write!(found, " {}={value}/{}", condition.r#type, condition.reason).unwrap();
        }
        found.push('\n');
    }
    found
}

fn message<'r>(resolution: &'r Resolution, object: &str, r#type: &str) -> &'r str {
    resolution
        .statuses
        .iter()
        .filter(|status| format!("{} {}", status.object.kind, status.object.name) == object)
        .flat_map(|status| &status.conditions)
        .find(|condition| condition.r#type == r#type)
        .map(|condition| condition.message.as_str())
        .unwrap_or_else(|| panic!("no condition {type} of {object}", r#type = r#type))
}

#[track_caller]
fn check(documents: &[&str], object: &str, expected: &str) {
    let found = conditions(&resolved(documents), object);
    assert_eq!(found.trim_end(), expected, "{documents:#?}");
}

const SERVED: &str = "Accepted=True/Accepted Conflicted=False/NoConflicts ResolvedRefs=True/ResolvedRefs Programmed=True/Programmed";

#[test]
fn classes_and_gateways() {
    check(&[BASE], "GatewayClass c", ": Accepted=True/Accepted");
    check(
        &[BASE, GATEWAY],
        "Gateway g",
        &format!(": Accepted=True/Accepted Programmed=True/Programmed\nlistener l: {SERVED}"),
    );
    let with_parameters = |reference: &str| {
        BASE.replace(
            "networking-controller}",
            &format!("networking-controller, parametersRef: {{{reference}, name: p}}}}"),
        )
    };
    let invalid = ": Accepted=False/InvalidParameters";
    for (reference, expected) in [
        ("group: '', kind: ConfigMap, namespace: ns", ": Accepted=True/Accepted"),
        ("group: '', kind: ConfigMap", invalid),
        ("group: '', kind: Secret, namespace: ns", invalid),
        ("group: example.com, kind: ConfigMap, namespace: ns", invalid),
    ] {
        check(&[&with_parameters(reference)], "GatewayClass c", expected);
    }
    let other_class = BASE.replace("kube-agentic-networking-controller", "another");
    let resolution = resolved(&[&other_class, GATEWAY]);
    assert_eq!(conditions(&resolution, "Gateway g"), "");
    assert!(resolution.gateways.is_empty());
    assert_eq!(
        resolution.notes[0].message,
        "is not served: GatewayClass `c` has another controllerName than `sigs.k8s.io/kube-agentic-networking-controller`"
    );
    let resolution = resolved(&[GATEWAY]);
    assert_eq!(
        resolution.notes[0].message,
        "is not served: GatewayClass `c` does not exist; create it with controllerName \
         `sigs.k8s.io/kube-agentic-networking-controller`"
    );
}

#[test]
fn listeners() {
    let check = |listeners: &str, expected: &str| check(&[BASE, &gateway(listeners)], "Gateway g", expected);
    check(
        "[{name: a, port: 80, protocol: HTTP}, {name: t, port: 81, protocol: TCP}]",
        &format!(
            ": Accepted=True/ListenersNotValid Programmed=True/Programmed\nlistener a: {SERVED}\n\
             listener t: Accepted=False/UnsupportedProtocol Conflicted=False/NoConflicts ResolvedRefs=True/ResolvedRefs \
             Programmed=False/Invalid"
        ),
    );
    let protocol = "Accepted=False/ProtocolConflict Conflicted=True/ProtocolConflict ResolvedRefs=True/ResolvedRefs Programmed=False/Invalid";
    check(
        "[{name: a, port: 80, protocol: HTTP}, {name: b, port: 80, protocol: HTTPS}]",
        &format!(
            ": Accepted=False/ListenersNotValid Programmed=False/Invalid\nlistener a: {protocol}\nlistener b: {protocol}"
        ),
    );
    check(
        "[{name: a, port: 80, protocol: HTTP, hostname: a.example.com}, {name: b, port: 80, protocol: HTTP, hostname: b.example.com}]",
        &format!(
            ": Accepted=True/Accepted Programmed=True/Programmed\nlistener a: {SERVED}\nlistener b: {SERVED}"
        ),
    );
    check(
        "[{name: a, port: 80, protocol: HTTP, allowedRoutes: {kinds: [{kind: TCPRoute}, {kind: HTTPRoute}]}}]",
        ": Accepted=True/Accepted Programmed=True/Programmed\n\
         listener a: Accepted=True/Accepted Conflicted=False/NoConflicts ResolvedRefs=False/InvalidRouteKinds Programmed=True/Programmed",
    );
}

/// A file with two listeners of one place is refused; an API server could still hold one by different case, or an older CRD.
#[test]
fn host_name_conflict() {
    let mut objects = Objects::default();
    objects.add_yaml("b", BASE).unwrap();
    objects.insert(&serde_json::json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "g", "namespace": "ns"},
        "spec": {"gatewayClassName": "c", "listeners": [
            {"name": "a", "port": 80, "protocol": "HTTP", "hostname": "x.example.com"},
            {"name": "b", "port": 80, "protocol": "HTTP", "hostname": "X.example.com"},
        ]},
    }));
    let conflict = "Accepted=False/HostnameConflict Conflicted=True/HostnameConflict ResolvedRefs=True/ResolvedRefs Programmed=False/Invalid";
    assert_eq!(
        conditions(&resolve(&objects, &Options::default()), "Gateway g"),
        format!(
            ": Accepted=False/ListenersNotValid Programmed=False/Invalid\nlistener a: {conflict}\nlistener b: {conflict}\n"
        )
    );
}

fn secret(namespace: &str, certificate: &str, key: &str) -> String {
    let indent = |pem: &str| pem.lines().map(|line| format!("    {line}\n")).collect::<String>();
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: tls, namespace: {namespace}}}\nstringData:\n  tls.crt: |\n{}  tls.key: |\n{}",
        indent(certificate),
        indent(key)
    )
}

fn ca(namespace: &str, certificate: &str) -> String {
    let pem: String = certificate.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: ca, namespace: {namespace}}}\ndata:\n  ca.crt: |\n{pem}"
    )
}

fn certificate() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["a.example.com".to_owned()]).unwrap().self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

#[test]
fn certificates_of_listeners() {
    let (pem, key) = certificate();
    let with = |namespace: &str| {
        gateway(&format!(
            "[{{name: l, port: 443, protocol: HTTPS, tls: {{certificateRefs: [{{name: tls, namespace: {namespace}}}]}}}}]"
        ))
    };
    let bad = |reason: &str| {
        format!(
            ": Accepted=False/ListenersNotValid Programmed=False/Invalid\nlistener l: Accepted=True/Accepted \
             Conflicted=False/NoConflicts ResolvedRefs=False/{reason} Programmed=False/Invalid"
        )
    };
    check(&[BASE, &with("ns")], "Gateway g", &bad("InvalidCertificateRef"));
    check(&[BASE, &with("ns"), &secret("ns", "no", &key)], "Gateway g", &bad("InvalidCertificateRef"));
    check(&[BASE, &with("ns"), &secret("ns", &pem, "no")], "Gateway g", &bad("InvalidCertificateRef"));
    check(&[BASE, &with("else"), &secret("else", &pem, &key)], "Gateway g", &bad("RefNotPermitted"));
    let good = format!(": Accepted=True/Accepted Programmed=True/Programmed\nlistener l: {SERVED}");
    check(&[BASE, &with("ns"), &secret("ns", &pem, &key)], "Gateway g", &good);
    let grant = "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {name: x, namespace: else}\n\
        spec: {from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: ns}], to: [{group: '', kind: Secret}]}\n";
    check(&[BASE, &with("else"), &secret("else", &pem, &key), grant], "Gateway g", &good);

    let resolution = resolved(&[BASE, &with("ns"), &secret("ns", &pem, &key)]);
    let tls = snapshot(&resolution).listeners[0].tls.clone().unwrap();
    assert_eq!(tls.certificates[0].certificate_pem, pem.as_bytes());
    assert_eq!(tls.certificates[0].key_pem, key.as_bytes());
    assert_eq!(tls.clients, ClientCertificates::SpiffeOptional);
}

#[test]
fn frontend_validation() {
    let (pem, _) = certificate();
    let with = |mode: &str, namespace: &str| {
        gateway("[{name: l, port: 443, protocol: HTTPS}, {name: m, port: 444, protocol: HTTPS}]").replace(
            "  gatewayClassName",
            &format!(
                "  tls: {{frontend: {{default: {{validation: {{mode: {mode}, caCertificateRefs: \
                 [{{group: '', kind: ConfigMap, name: ca, namespace: {namespace}}}]}}}}, perPort: [{{port: 444, tls: {{}}}}]}}}}\n  \
                 gatewayClassName"
            ),
        )
    };
    let resolution = resolved(&[BASE, &with("AllowValidOnly", "ns"), &ca("ns", &pem)]);
    let clients: Vec<_> = snapshot(&resolution)
        .listeners
        .iter()
        .map(|listener| listener.tls.clone().unwrap().clients)
        .collect();
    let frontend =
        ClientCertificates::Frontend { ca_pem: vec![pem.clone().into_bytes()], insecure_fallback: false };
    // What is said for a port replaces the default, even where it says nothing.
    assert_eq!(clients, [frontend, ClientCertificates::SpiffeRequired]);

    check(
        &[BASE, &with("AllowInsecureFallback", "ns"), &ca("ns", &pem)],
        "Gateway g",
        &format!(
            ": Accepted=True/Accepted Programmed=True/Programmed InsecureFrontendValidationMode=True/ConfigurationChanged\n\
             listener l: {SERVED}\nlistener m: {SERVED}"
        ),
    );
    let bad = |reason: &str| {
        format!(
            ": Accepted=True/ListenersNotValid Programmed=True/Programmed\nlistener l: Accepted=False/NoValidCACertificate \
             Conflicted=False/NoConflicts ResolvedRefs=False/{reason} Programmed=False/Invalid\nlistener m: {SERVED}"
        )
    };
    check(&[BASE, &with("AllowValidOnly", "ns")], "Gateway g", &bad("InvalidCACertificateRef"));
    check(
        &[BASE, &with("AllowValidOnly", "ns"), &ca("ns", "no")],
        "Gateway g",
        &bad("InvalidCACertificateRef"),
    );
    check(&[BASE, &with("AllowValidOnly", "else"), &ca("else", &pem)], "Gateway g", &bad("RefNotPermitted"));
}

#[test]
fn routes_attach() {
    let parent = "parent Gateway ns/g";
    let fine = "Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs";
    let check = |gateway: &str, spec: &str, expected: &str| {
        check(&[BASE, gateway, &route(spec)], "HTTPRoute r", expected)
    };
    check(GATEWAY, TO_BACKEND, &format!("{parent}: {fine}"));
    check(GATEWAY, "{parentRefs: [{name: g, sectionName: l}]}", &format!("{parent}/l: {fine}"));
    check(GATEWAY, "{parentRefs: [{name: g, port: 80}]}", &format!("{parent}:80: {fine}"));
    let no_parent = "Accepted=False/NoMatchingParent ResolvedRefs=True/ResolvedRefs";
    check(GATEWAY, "{parentRefs: [{name: g, sectionName: m}]}", &format!("{parent}/m: {no_parent}"));
    check(GATEWAY, "{parentRefs: [{name: g, port: 81}]}", &format!("{parent}:81: {no_parent}"));
    let host = gateway("[{name: l, port: 80, protocol: HTTP, hostname: '*.example.com'}]");
    check(&host, "{parentRefs: [{name: g}], hostnames: [a.example.com]}", &format!("{parent}: {fine}"));
    check(
        &host,
        "{parentRefs: [{name: g}], hostnames: [a.example.org]}",
        &format!("{parent}: Accepted=False/NoMatchingListenerHostname ResolvedRefs=True/ResolvedRefs"),
    );
    check(
        &gateway("[{name: l, port: 80, protocol: HTTP, allowedRoutes: {kinds: [{kind: GRPCRoute}]}}]"),
        "{parentRefs: [{name: g}]}",
        &format!("{parent}: Accepted=False/NotAllowedByListeners ResolvedRefs=True/ResolvedRefs"),
    );
    check(GATEWAY, "{parentRefs: [{name: g, kind: Service, group: ''}]}", "");
    let resolution = resolved(&[BASE, GATEWAY, &route("{parentRefs: [{name: h}]}")]);
    assert_eq!(
        resolution.notes[0].message,
        "parent Gateway `ns/h` does not exist; create it or change parentRefs"
    );
}

#[test]
fn allowed_namespaces() {
    let route = route("{parentRefs: [{name: g, namespace: ns}]}")
        .replace("namespace: ns, generation", "namespace: other, generation");
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: other, labels: {team: a}}\n";
    let from = |from: &str| {
        gateway(&format!("[{{name: l, port: 80, protocol: HTTP, allowedRoutes: {{namespaces: {from}}}}}]"))
    };
    let check = |namespaces: &str, allowed: bool| {
        let expected =
            if allowed { "Accepted=True/Accepted" } else { "Accepted=False/NotAllowedByListeners" };
        let resolution = resolved(&[BASE, &from(namespaces), &route, namespace]);
        let found = conditions(&resolution, "HTTPRoute r");
        assert_eq!(
            found,
            format!("parent Gateway ns/g: {expected} ResolvedRefs=True/ResolvedRefs\n"),
            "{namespaces}"
        );
        let attached: Vec<_> =
            resolution.statuses.iter().filter_map(|status| status.attached_routes).collect();
        assert_eq!(attached, [u32::from(allowed)], "{namespaces}");
    };
    check("{}", false);
    check("{from: Same}", false);
    check("{from: All}", true);
    check("{from: Selector, selector: {}}", true);
    check("{from: Selector}", false);
    check("{from: Selector, selector: {matchLabels: {team: a}}}", true);
    check("{from: Selector, selector: {matchLabels: {team: b}}}", false);
    check("{from: Selector, selector: {matchLabels: {kubernetes.io/metadata.name: other}}}", true);
    for (expression, allowed) in [
        ("{key: team, operator: In, values: [a, b]}", true),
        ("{key: team, operator: In, values: [b]}", false),
        ("{key: none, operator: In, values: [b]}", false),
        ("{key: team, operator: NotIn, values: [b]}", true),
        ("{key: team, operator: NotIn, values: [a]}", false),
        ("{key: none, operator: NotIn, values: [a]}", true),
        ("{key: team, operator: Exists}", true),
        ("{key: none, operator: Exists}", false),
        ("{key: none, operator: DoesNotExist}", true),
        ("{key: team, operator: DoesNotExist}", false),
        ("{key: team, operator: Gt, values: ['1']}", false),
    ] {
        check(&format!("{{from: Selector, selector: {{matchExpressions: [{expression}]}}}}"), allowed);
    }
    // Of a namespace that is not there nothing is known: no selector selects it.
    let selector = from("{from: Selector, selector: {matchExpressions: [{key: x, operator: DoesNotExist}]}}");
    let resolution = resolved(&[BASE, &selector, &route]);
    assert!(conditions(&resolution, "HTTPRoute r").contains("NotAllowedByListeners"));
}

#[test]
fn backend_references() {
    let check = |backend: &str, extra: &str, expected: &str| {
        let route = route(&format!("{{parentRefs: [{{name: g}}], rules: [{{backendRefs: [{backend}]}}]}}"));
        let resolution = resolved(&[BASE, GATEWAY, &route, extra]);
        let found = conditions(&resolution, "HTTPRoute r");
        assert_eq!(
            found,
            format!("parent Gateway ns/g: Accepted=True/Accepted ResolvedRefs={expected}\n"),
            "{backend}"
        );
        let rule = &snapshot(&resolution).rules[0];
        assert_eq!(rule.backends[0].backend.is_some(), expected.starts_with("True"), "{backend}");
    };
    check("{name: s, port: 80}", "", "True/ResolvedRefs");
    check("{name: s, port: 82}", "", "False/BackendNotFound");
    check("{name: none, port: 80}", "", "False/BackendNotFound");
    check("{name: s, kind: Pod}", "", "False/InvalidKind");
    check("{name: s, group: example.com, kind: XBackend}", "", "False/InvalidKind");
    for group in ["agentic.networking.x-k8s.io", "agentic.prototype.x-k8s.io"] {
        check(&format!("{{name: b, kind: XBackend, group: {group}}}"), "", "True/ResolvedRefs");
        check(&format!("{{name: none, kind: XBackend, group: {group}}}"), "", "False/BackendNotFound");
    }
    let other =
        BASE.split("---").filter(|part| !part.contains("GatewayClass")).collect::<Vec<_>>().join("---");
    let other = other.replace("namespace: ns", "namespace: other");
    check("{name: s, namespace: other, port: 80}", &other, "False/RefNotPermitted");
    check(
        "{name: b, namespace: other, kind: XBackend, group: agentic.networking.x-k8s.io}",
        &other,
        "False/RefNotPermitted",
    );
    let grant = |group: &str, kind: &str, name: &str, from: &str| {
        format!(
            "{other}---\napiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {{name: x, namespace: other}}\nspec: \
             {{from: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: {from}}}], \
             to: [{{group: '{group}', kind: {kind}, name: {name}}}]}}\n"
        )
    };
    let to_service = "{name: s, namespace: other, port: 80}";
    check(to_service, &grant("", "Service", "s", "ns"), "True/ResolvedRefs");
    check(to_service, &grant("", "Service", "''", "ns"), "True/ResolvedRefs");
    check(to_service, &grant("", "Service", "t", "ns"), "False/RefNotPermitted");
    check(to_service, &grant("", "Service", "s", "elsewhere"), "False/RefNotPermitted");
    check(to_service, &grant("", "Secret", "s", "ns"), "False/RefNotPermitted");
    let to_backend = "{name: b, namespace: other, kind: XBackend, group: agentic.networking.x-k8s.io}";
    check(to_backend, &grant("agentic.networking.x-k8s.io", "XBackend", "b", "ns"), "True/ResolvedRefs");
    check(to_backend, &grant("agentic.prototype.x-k8s.io", "XBackend", "b", "ns"), "True/ResolvedRefs");
}

#[test]
fn unsupported_parts_of_routes_fail_and_say_so() {
    let check = |rules: &str, expected: &str, served: &[bool]| {
        let route = route(&format!("{{parentRefs: [{{name: g}}], rules: [{rules}]}}"));
        let resolution = resolved(&[BASE, GATEWAY, &route]);
        let found = conditions(&resolution, "HTTPRoute r");
        assert_eq!(found, format!("parent Gateway ns/g: {expected}\n"), "{rules}");
        let rules = &snapshot(&resolution).rules;
        let found: Vec<_> = rules.iter().map(|rule| rule.backends[0].backend.is_some()).collect();
        assert_eq!(found, served);
    };
    let backend = "backendRefs: [{name: s, port: 80}]";
    let bad = "Accepted=False/UnsupportedValue ResolvedRefs=True/ResolvedRefs";
    for filter in [
        "{type: RequestMirror, requestMirror: {backendRef: {name: s, port: 80}}}",
        "{type: ExtensionRef, extensionRef: {group: example.com, kind: X, name: x}}",
        "{type: ExternalAuth, externalAuth: {protocol: GRPC, backendRef: {name: s, port: 80}}}",
        "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: Mcp-Session-Id, value: x}]}}",
        "{type: RequestHeaderModifier, requestHeaderModifier: {remove: [Content-Length]}}",
        "{type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: Transfer-Encoding, value: chunked}]}}",
    ] {
        check(&format!("{{filters: [{filter}], {backend}}}"), bad, &[false]);
    }
    for value in ["(", "/[ab]*a[ab]{2000}", "/(.{99}){99}"] {
        check(
            &format!("{{matches: [{{path: {{type: RegularExpression, value: '{value}'}}}}], {backend}}}"),
            bad,
            &[false],
        );
    }
    check(
        &format!(
            "{{filters: [{{type: RequestMirror, requestMirror: {{backendRef: {{name: s, port: 80}}}}}}], {backend}}}, {{{backend}}}"
        ),
        "Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs PartiallyInvalid=True/UnsupportedValue",
        &[false, true],
    );
    check(
        "{backendRefs: [{name: s, port: 80, filters: [{type: ExternalAuth, externalAuth: {}}]}]}",
        bad,
        &[false],
    );
    let route =
        route(&format!("{{parentRefs: [{{name: g}}], rules: [{{retry: {{attempts: 1}}, {backend}}}]}}"));
    let resolution = resolved(&[BASE, GATEWAY, &route]);
    assert_eq!(
        message(&resolution, "HTTPRoute r", "Accepted"),
        "the route is accepted; not supported and without effect: `spec.rules[0].retry`"
    );
}

const TLS_POLICY: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\nmetadata: {name: t, namespace: ns}\nspec:\n  \
    targetRefs: [{group: '', kind: Service, name: s}]\n  validation: {hostname: s.example.com, wellKnownCACertificates: System}\n";

#[test]
fn backend_tls() {
    let (pem, _) = certificate();
    let to_service = route("{parentRefs: [{name: g}], rules: [{backendRefs: [{name: s, port: 80}]}]}");
    let id = BackendId::Service(NamespacedName::new("ns", "s"), 80);
    let tls = |policy: &str, extra: &str| {
        let resolution = resolved(&[BASE, GATEWAY, &to_service, policy, extra]);
        let found = conditions(&resolution, "BackendTLSPolicy t");
        let backend = snapshot(&resolution).backends.get(&id).cloned();
        // Where it cannot be enforced nothing is forwarded.
        assert_eq!(snapshot(&resolution).rules[0].backends[0].backend.is_some(), backend.is_some());
        (found, backend.map(|backend| backend.tls))
    };
    let fine = "ancestor Gateway ns/g: Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs\n";
    let (found, backend) = tls(TLS_POLICY, "");
    assert_eq!(found, fine);
    let system = backend.unwrap().unwrap();
    assert_eq!((system.server_name.as_str(), system.ca_pem.len()), ("s.example.com", 0));

    let with_ca = TLS_POLICY.replace(
        "wellKnownCACertificates: System",
        "caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}], subjectAltNames: [{type: URI, uri: 'spiffe://a/b'}, {type: Hostname, hostname: x.example.com}]",
    );
    let (found, backend) = tls(&with_ca, &ca("ns", &pem));
    assert_eq!(found, fine);
    let own = backend.unwrap().unwrap();
    assert_eq!(own.ca_pem, [pem.as_bytes()]);
    assert_eq!(
        (own.san_uris, own.san_names),
        (vec!["spiffe://a/b".to_owned()], vec!["x.example.com".to_owned()])
    );

    let (found, backend) = tls(&with_ca, "");
    assert_eq!(
        found,
        "ancestor Gateway ns/g: Accepted=False/NoValidCACertificate ResolvedRefs=False/InvalidCACertificateRef\n"
    );
    assert_eq!(backend, None);
    let (found, backend) = tls(&with_ca.replace("kind: ConfigMap", "kind: Secret"), "");
    assert_eq!(
        found,
        "ancestor Gateway ns/g: Accepted=False/NoValidCACertificate ResolvedRefs=False/InvalidKind\n"
    );
    assert_eq!(backend, None);
    let (found, backend) = tls(&TLS_POLICY.replace("System", "example.com/x"), "");
    assert_eq!(found, "ancestor Gateway ns/g: Accepted=False/Invalid ResolvedRefs=True/ResolvedRefs\n");
    assert_eq!(backend, None);

    // Of another port only.
    let (found, backend) = tls(&TLS_POLICY.replace("name: s}", "name: s, sectionName: other}"), "");
    assert_eq!(found, "ancestor Service ns/s/other: Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs\n");
    assert_eq!(backend, Some(None));
    let (found, _) = tls(&TLS_POLICY.replace("name: s}", "name: s, sectionName: none}"), "");
    assert_eq!(found, "ancestor Service ns/s/none: Accepted=False/TargetNotFound\n");
    let (found, _) = tls(&TLS_POLICY.replace("name: s}", "name: none}"), "");
    assert_eq!(found, "ancestor Service ns/none: Accepted=False/TargetNotFound\n");

    // The older of two has the target; without a time an object is the youngest.
    let older = TLS_POLICY
        .replace("name: t,", "name: z, creationTimestamp: '2026-01-01T00:00:00Z',")
        .replace("s.example.com", "z.example.com");
    let (found, backend) = tls(TLS_POLICY, &older);
    assert_eq!(found, "ancestor Service ns/s: Accepted=False/Conflicted ResolvedRefs=True/ResolvedRefs\n");
    assert_eq!(backend.unwrap().unwrap().server_name, "z.example.com");
}

#[test]
fn tls_of_external_backends() {
    let external = "apiVersion: agentic.networking.x-k8s.io/v0alpha0\nkind: XBackend\nmetadata: {name: x, namespace: ns}\n\
        spec: {mcp: {hostname: mcp.example.com, port: 443}}\n";
    let to_external = route(&TO_BACKEND.replace("name: b}", "name: x}").replace('\n', ""));
    let id = BackendId::XBackend(NamespacedName::new("ns", "x"));
    let resolution = resolved(&[BASE, GATEWAY, external, &to_external]);
    let backend = &snapshot(&resolution).backends[&id];
    assert_eq!(backend.destination, Destination::Hostname { host: "mcp.example.com".to_owned(), port: 443 });
    assert_eq!(backend.tls.as_ref().unwrap().server_name, "mcp.example.com");

    let policy = TLS_POLICY
        .replace(
            "group: '', kind: Service, name: s",
            "group: agentic.networking.x-k8s.io, kind: XBackend, name: x",
        )
        .replace("s.example.com", "other.example.com");
    let resolution = resolved(&[BASE, GATEWAY, external, &to_external, &policy]);
    assert_eq!(snapshot(&resolution).backends[&id].tls.as_ref().unwrap().server_name, "other.example.com");
    assert_eq!(
        conditions(&resolution, "BackendTLSPolicy t"),
        "ancestor Gateway ns/g: Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs\n"
    );
    let broken = policy.replace("System", "example.com/x");
    let resolution = resolved(&[BASE, GATEWAY, external, &to_external, &broken]);
    assert_eq!(snapshot(&resolution).backends.get(&id), None);
    assert_eq!(snapshot(&resolution).rules[0].backends[0].backend, None);
}

#[test]
fn backends() {
    let other = |spec: &str| {
        format!(
            "apiVersion: agentic.prototype.x-k8s.io/v0alpha0\nkind: XBackend\nmetadata: {{name: b, namespace: ns}}\nspec: {spec}\n"
        )
    };
    let fine = ": Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs";
    check(&[BASE], "XBackend b", fine);
    // The same in both groups is one.
    check(&[BASE, &other("{mcp: {serviceName: s, port: 80}}")], "XBackend b", &format!("{fine}\n{fine}"));
    let conflict = ": Accepted=False/Conflicted";
    check(
        &[BASE, &other("{mcp: {serviceName: s, port: 81}}")],
        "XBackend b",
        &format!("{conflict}\n{conflict}"),
    );
    let resolution =
        resolved(&[BASE, GATEWAY, &route(TO_BACKEND), &other("{mcp: {serviceName: s, port: 81}}")]);
    assert_eq!(snapshot(&resolution).rules[0].backends[0].backend, None);
    assert_eq!(
        conditions(&resolution, "HTTPRoute r"),
        "parent Gateway ns/g: Accepted=True/Accepted ResolvedRefs=False/Conflicted\n"
    );
    let no_port = BASE.replace("{mcp: {serviceName: s, port: 80}}", "{mcp: {serviceName: s, port: 99}}");
    check(&[&no_port], "XBackend b", ": Accepted=True/Accepted ResolvedRefs=False/BackendNotFound");
}

const POLICY_OK: &str = "Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs Enforced=True/Enforced";

#[test]
fn policies() {
    let check =
        |spec: &str, expected: &str| check(&[BASE, GATEWAY, &policy(spec)], "XAccessPolicy p", expected);
    let on_backend = "targetRefs: [{group: agentic.networking.x-k8s.io, kind: XBackend, name: b}]";
    let on_gateway =
        |target: &str| format!("targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, {target}}}]");
    check(&format!("{{action: Allow, {on_backend}}}"), &format!("ancestor XBackend ns/b: {POLICY_OK}"));
    check(
        &format!("{{action: Allow, {}}}", on_gateway("name: g")),
        &format!("ancestor Gateway ns/g: {POLICY_OK}"),
    );
    check(
        &format!("{{action: Allow, {}}}", on_gateway("name: g, sectionName: l")),
        &format!("ancestor Gateway ns/g/l: {POLICY_OK}"),
    );
    let not_found = "Accepted=False/TargetNotFound";
    check(
        &format!("{{action: Allow, {}}}", on_gateway("name: h")),
        &format!("ancestor Gateway ns/h: {not_found}"),
    );
    check(
        &format!("{{action: Allow, {}}}", on_gateway("name: g, sectionName: m")),
        &format!("ancestor Gateway ns/g/m: {not_found}"),
    );
    check(
        &format!("{{action: Allow, {}}}", on_backend.replace("name: b", "name: c")),
        &format!("ancestor XBackend ns/c: {not_found}"),
    );
    check(
        &format!(
            "{{action: Allow, {on_backend}, rules: [{{name: r, authorization: {{type: CEL, cel: {{expression: 'nonsense('}}}}}}]}}"
        ),
        "ancestor XBackend ns/b: Accepted=False/InvalidCEL ResolvedRefs=True/ResolvedRefs Enforced=False/FailsClosed",
    );
    check(
        &format!(
            "{{action: Allow, {on_backend}, rules: [{{name: r, authorization: {{type: Inline, paths: [{{type: RegularExpression, value: '('}}]}}}}]}}"
        ),
        "ancestor XBackend ns/b: Accepted=False/UnsupportedValue ResolvedRefs=True/ResolvedRefs Enforced=False/FailsClosed",
    );
}

#[test]
fn authorizers() {
    let with = |reference: &str| {
        policy(&format!(
            "{{action: ExternalAuth, targetRefs: [{{group: agentic.networking.x-k8s.io, kind: XBackend, name: b}}], \
             externalAuth: {{protocol: GRPC, grpc: {{}}, backendRef: {reference}}}}}"
        ))
    };
    let check = |reference: &str, extra: &str, expected: &str| {
        check(&[BASE, &with(reference), extra], "XAccessPolicy p", expected)
    };
    let closed = |reason: &str| {
        format!(
            "ancestor XBackend ns/b: Accepted=True/Accepted ResolvedRefs=False/{reason} Enforced=False/FailsClosed"
        )
    };
    let fine = format!("ancestor XBackend ns/b: {POLICY_OK}");
    check("{name: s, port: 80}", "", &fine);
    check("{name: s, port: 99}", "", &closed("BackendNotFound"));
    check("{name: none, port: 80}", "", &closed("BackendNotFound"));
    check("{name: s, kind: Pod, port: 80}", "", &closed("BackendNotFound"));
    let other = BASE
        .split("---")
        .filter(|part| part.contains("kind: Service"))
        .collect::<String>()
        .replace("namespace: ns", "namespace: other");
    let to_other = "{name: s, namespace: other, port: 80}";
    check(to_other, &other, &closed("RefNotPermitted"));

    // The message holds the grant, ready to apply.
    let resolution = resolved(&[BASE, &with(to_other), &other]);
    let told = message(&resolution, "XAccessPolicy p", "ResolvedRefs");
    let grant = &told[told.find("apiVersion:").unwrap()..];
    check(to_other, &format!("{other}---\n{grant}"), &fine);
    // Either agentic group will do.
    let prototype = grant.replace("agentic.networking.x-k8s.io", "agentic.prototype.x-k8s.io");
    check(to_other, &format!("{other}---\n{prototype}"), &fine);
    let of_routes = grant.replace("XAccessPolicy", "HTTPRoute");
    check(to_other, &format!("{other}---\n{of_routes}"), &closed("RefNotPermitted"));

    // Authorizers are asked without TLS, so a Service that asks for it cannot be one.
    check("{name: s, port: 80}", TLS_POLICY, &closed("BackendNotFound"));
    let broken = TLS_POLICY.replace("System", "example.com/x");
    check("{name: s, port: 80}", &broken, &closed("BackendNotFound"));
}

#[test]
fn limits_per_target() {
    let one = |name: &str, time: &str| {
        policy("{action: Allow, targetRefs: [{group: agentic.networking.x-k8s.io, kind: XBackend, name: b}]}")
            .replace("name: p,", &format!("name: {name}, creationTimestamp: '2026-01-0{time}T00:00:00Z',"))
    };
    let policies: Vec<_> = (1..=6).map(|day| one(&format!("p{day}"), &day.to_string())).collect();
    let mut documents = vec![BASE];
    documents.extend(policies.iter().map(String::as_str));
    check(&documents, "XAccessPolicy p5", &format!("ancestor XBackend ns/b: {POLICY_OK}"));
    check(
        &documents,
        "XAccessPolicy p6",
        "ancestor XBackend ns/b: Accepted=False/LimitPerTargetExceeded ResolvedRefs=True/ResolvedRefs \
         Enforced=False/LimitPerTargetExceeded",
    );
    // When an older one goes, it is accepted.
    documents.remove(1);
    check(&documents, "XAccessPolicy p6", &format!("ancestor XBackend ns/b: {POLICY_OK}"));
}

#[test]
fn policies_that_cannot_be_read() {
    let mut objects = Objects::default();
    objects.add_yaml("b", BASE).unwrap();
    objects.add_yaml("g", GATEWAY).unwrap();
    let broken = |targets: serde_json::Value| {
        serde_json::json!({
            "apiVersion": "agentic.networking.x-k8s.io/v1alpha1", "kind": "XAccessPolicy", "metadata": {"name": "p", "namespace": "ns"},
            "spec": {"action": "Perhaps", "targetRefs": targets},
        })
    };
    objects.insert(&broken(
        serde_json::json!([{"group": "agentic.networking.x-k8s.io", "kind": "XBackend", "name": "b"}]),
    ));
    let resolution = resolve(&objects, &Options::default());
    let closed = "Accepted=False/Invalid ResolvedRefs=True/ResolvedRefs Enforced=False/FailsClosed\n";
    assert_eq!(conditions(&resolution, "XAccessPolicy p"), format!("ancestor XBackend ns/b: {closed}"));

    objects.insert(&broken(serde_json::json!("all of them")));
    let resolution = resolve(&objects, &Options::default());
    assert_eq!(
        conditions(&resolution, "XAccessPolicy p"),
        ": Accepted=False/Invalid Enforced=False/FailsClosed\n"
    );
}

#[test]
fn observed_generation_and_supported_kinds() {
    let resolution = resolved(&[BASE, GATEWAY, &route(TO_BACKEND)]);
    let of = |kind: &str| {
        resolution.statuses.iter().filter(|status| status.object.kind == kind).collect::<Vec<_>>()
    };
    assert!(of("Gateway").iter().all(|status| status.observed_generation == Some(7)));
    assert!(of("HTTPRoute").iter().all(|status| status.observed_generation == Some(3)));
    assert_eq!(of("Gateway")[1].supported_kinds, ["HTTPRoute"]);
    assert_eq!(of("Gateway")[1].attached_routes, Some(1));
}

#[test]
fn endpoints() {
    let check = |slices: &str, expected: &[&str]| {
        let base =
            BASE.split("---").filter(|part| !part.contains("EndpointSlice")).collect::<Vec<_>>().join("---");
        let resolution = resolved(&[&base, GATEWAY, &route(TO_BACKEND), slices]);
        let backend = &snapshot(&resolution).backends[&BackendId::XBackend(NamespacedName::new("ns", "b"))];
        let Destination::Endpoints(endpoints) = &backend.destination else { panic!("no endpoints") };
        let found: Vec<_> = endpoints.iter().map(|endpoint| endpoint.socket_addr().to_string()).collect();
        assert_eq!(found, expected, "{slices}");
    };
    let slice = |name: &str, r#type: &str, rest: &str| {
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}, namespace: ns, labels: \
             {{kubernetes.io/service-name: s}}}}\naddressType: {type}\n{rest}\n---\n",
            r#type = r#type
        )
    };
    check("", &[]);
    let two = "ports: [{name: mcp, port: 1}, {name: other, port: 2}]\nendpoints: [{addresses: [10.0.0.9]}, {addresses: [10.0.0.2]}]";
    check(&slice("a", "IPv4", two), &["10.0.0.2:1", "10.0.0.9:1"]);
    let six = "ports: [{name: mcp, port: 3}]\nendpoints: [{addresses: ['fd00::1']}]";
    let both = format!("{}{}{}", slice("a", "IPv4", two), slice("b", "IPv6", six), slice("c", "IPv4", two));
    check(&both, &["10.0.0.2:1", "10.0.0.9:1", "[fd00::1]:3"]);
    let ready = "ports: [{name: mcp, port: 1}]\nendpoints: [{addresses: [10.0.0.1], conditions: {}}, \
        {addresses: [10.0.0.2], conditions: {ready: false, serving: true}}]";
    check(&slice("a", "IPv4", ready), &["10.0.0.1:1"]);
    check(&slice("a", "IPv4", "ports: [{port: 1}]\nendpoints: [{addresses: [10.0.0.1]}]"), &[]);
    check(
        &slice(
            "a",
            "IPv4",
            "ports: [{name: mcp, port: 1, protocol: UDP}]\nendpoints: [{addresses: [10.0.0.1]}]",
        ),
        &[],
    );
    check(
        &slice("a", "FQDN", "ports: [{name: mcp, port: 1}]\nendpoints: [{addresses: [a.example.com]}]"),
        &[],
    );
    check(&slice("a", "IPv4", two).replace("service-name: s", "service-name: t"), &[]);
}

#[test]
fn app_protocols() {
    let with = |protocol: &str| {
        BASE.replace("{name: mcp, port: 80}", &format!("{{name: mcp, port: 80, appProtocol: {protocol}}}"))
    };
    let id = BackendId::XBackend(NamespacedName::new("ns", "b"));
    let resolution = resolved(&[&with("kubernetes.io/h2c"), GATEWAY, &route(TO_BACKEND)]);
    assert!(snapshot(&resolution).backends[&id].h2c);
    let resolution = resolved(&[&with("http"), GATEWAY, &route(TO_BACKEND)]);
    assert!(!snapshot(&resolution).backends[&id].h2c);
    check(
        &[&with("https"), GATEWAY, &route(TO_BACKEND)],
        "HTTPRoute r",
        "parent Gateway ns/g: Accepted=True/Accepted ResolvedRefs=False/UnsupportedProtocol",
    );
    check(
        &[&with("https"), GATEWAY, &route(TO_BACKEND), TLS_POLICY],
        "HTTPRoute r",
        "parent Gateway ns/g: Accepted=True/Accepted ResolvedRefs=True/ResolvedRefs",
    );
}
