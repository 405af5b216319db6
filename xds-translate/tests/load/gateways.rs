//! The rules of GatewayClasses, Gateways, ReferenceGrants and BackendTLSPolicies, and of what an API server checks of Services.
use super::{check, check_spec, many};

#[test]
fn rules_of_gateway_classes_and_grants() {
    let class = |name: &str, expected: &[(&str, &str)]| {
        check_spec("GatewayClass", &format!("{{controllerName: {name}}}"), expected);
    };
    class("example.com/a/b~c", &[]);
    for bad in ["example.com", "example.com/", "/a", "Example.com/a", "example_com/a", "''"] {
        let told = bad.trim_matches('\'');
        let message = format!("`{told}` is no domain-prefixed path such as `example.com/controller`");
        class(bad, &[("spec.controllerName", &message)]);
    }

    let grant = |from: usize, to: usize, expected: &[(&str, &str)]| {
        let from = many(from, "{group: g.example, kind: K, namespace: n#}");
        let to = many(to, "{group: '', kind: Service, name: s#}");
        check_spec("ReferenceGrant", &format!("{{from: [{from}], to: [{to}]}}"), expected);
    };
    grant(1, 16, &[]);
    grant(16, 1, &[]);
    grant(0, 1, &[("spec.from", "must have at least 1 items")]);
    grant(1, 0, &[("spec.to", "must have at least 1 items")]);
    grant(17, 1, &[("spec.from", "must have at most 16 items, not 17; split the object")]);
    grant(1, 17, &[("spec.to", "must have at most 16 items, not 17; split the object")]);
}

/// Ranges and lengths of the Gateway CRD: what is just within, and just outside.
#[test]
fn limits_of_gateways() {
    const ONE: &str = "{name: l, port: 80, protocol: HTTP}";
    let spec = |spec: &str, expected: &[(&str, &str)]| {
        check_spec("Gateway", &format!("{{gatewayClassName: c, {spec}}}"), expected);
    };
    let check_class = |name: &str, expected: &[(&str, &str)]| {
        check_spec("Gateway", &format!("{{gatewayClassName: '{name}', listeners: [{ONE}]}}"), expected);
    };
    check_class(&"c".repeat(253), &[]);
    check_class("", &[("spec.gatewayClassName", "must not be empty")]);
    check_class(&"c".repeat(254), &[("spec.gatewayClassName", "must have at most 253 characters, not 254")]);

    let listeners = |count| format!("listeners: [{}]", many(count, "{name: l#, port: 8#, protocol: HTTP}"));
    spec(&listeners(64), &[]);
    spec(&listeners(0), &[("spec.listeners", "must have at least 1 items")]);
    spec(&listeners(65), &[("spec.listeners", "must have at most 64 items, not 65; split the object")]);
    spec(
        "listeners: [{name: l, port: 80, protocol: HTTP}, {name: l, port: 81, protocol: HTTP}]",
        &[("spec.listeners[1].name", "Listener name must be unique within the Gateway")],
    );
    spec(
        "listeners: [{name: l, port: 80, protocol: HTTP}, {name: m, port: 80, protocol: HTTP}]",
        &[(
            "spec.listeners[1]",
            "Combination of port, protocol and hostname must be unique for each listener",
        )],
    );
    spec(
        "listeners: [{name: l, port: 80, protocol: HTTP}, {name: m, port: 80, protocol: HTTP, hostname: a.example}]",
        &[],
    );

    let listener = |fields: &str, expected: &[(&str, &str)]| {
        spec(&format!("listeners: [{{{fields}}}]"), expected);
    };
    listener("name: a.b, port: 65535, protocol: HTTP", &[]);
    listener("name: L, port: 80, protocol: HTTP", &[("spec.listeners[0].name", "`L` is no name")]);
    listener(
        "name: l, port: 65536, protocol: HTTP",
        &[("spec.listeners[0].port", "must be 1 to 65535, not `65536`")],
    );
    let long = format!("{}.example.com", "a".repeat(242));
    for good in ["a.example.com", "'*.example.com'", "com"] {
        listener(&format!("name: l, port: 80, protocol: HTTP, hostname: {good}"), &[]);
    }
    for bad in ["Example.com", "*", "*.*.com", "a.*.com", "a..com", "a_b.com", "-a.com", &long] {
        let message = format!("`{bad}` is no host name; use lower case, perhaps with a leading `*.`");
        listener(
            &format!("name: l, port: 80, protocol: HTTP, hostname: '{bad}'"),
            &[("spec.listeners[0].hostname", &message)],
        );
    }
    for protocol in ["HTTP", "TCP", "UDP"] {
        listener(
            &format!("name: l, port: 80, protocol: {protocol}, tls: {{certificateRefs: [{{name: s}}]}}"),
            &[("spec.listeners[0].tls", "tls must not be specified for protocols ['HTTP', 'TCP', 'UDP']")],
        );
    }
    for protocol in ["TCP", "UDP"] {
        listener(&format!("name: l, port: 80, protocol: {protocol}"), &[]);
        listener(
            &format!("name: l, port: 80, protocol: {protocol}, hostname: a.example"),
            &[("spec.listeners[0].hostname", "hostname must not be specified for protocols ['TCP', 'UDP']")],
        );
    }
    listener("name: l, port: 80, protocol: TLS, tls: {mode: Passthrough}", &[]);
    listener(
        "name: l, port: 80, protocol: TLS",
        &[("spec.listeners[0].tls.mode", "tls mode must be set for protocol TLS")],
    );
    let certificates = |count| {
        format!(
            "name: l, port: 443, protocol: HTTPS, tls: {{certificateRefs: [{}]}}",
            many(count, "{name: s#}")
        )
    };
    listener(&certificates(64), &[]);
    listener(
        &certificates(65),
        &[("spec.listeners[0].tls.certificateRefs", "must have at most 64 items, not 65; split the object")],
    );
    listener(
        "name: l, port: 443, protocol: HTTPS, tls: {}",
        &[(
            "spec.listeners[0].tls",
            "certificateRefs or options must be specified when mode is Terminate; \
             leave `tls` out to serve with the gateway's SPIFFE certificate",
        )],
    );
    listener(
        "name: l, port: 443, protocol: HTTPS, tls: {mode: Passthrough}",
        &[("spec.listeners[0].tls.mode", "tls mode must be Terminate for protocol HTTPS")],
    );
    // Options stand in for certificates.
    listener("name: l, port: 443, protocol: HTTPS, tls: {options: {example.com/x: y}}", &[]);
    let kinds = |count| {
        format!(
            "name: l, port: 80, protocol: HTTP, allowedRoutes: {{kinds: [{}]}}",
            many(count, "{kind: K#}")
        )
    };
    listener(&kinds(8), &[]);
    listener(
        &kinds(9),
        &[("spec.listeners[0].allowedRoutes.kinds", "must have at most 8 items, not 9; split the object")],
    );
}

#[test]
fn rules_of_frontend_validation() {
    let validation = |count| {
        format!(
            "{{validation: {{caCertificateRefs: [{}]}}}}",
            many(count, "{group: '', kind: ConfigMap, name: c#}")
        )
    };
    let frontend = |default: &str, ports: &str, expected: &[(&str, &str)]| {
        check_spec(
            "Gateway",
            &format!(
                "{{gatewayClassName: c, listeners: [{{name: l, port: 80, protocol: HTTP}}], \
                 tls: {{frontend: {{default: {default}, perPort: [{ports}]}}}}}}"
            ),
            expected,
        );
    };
    frontend(
        &validation(8),
        &format!("{{port: 1, tls: {}}}, {{port: 65535, tls: {{}}}}", validation(1)),
        &[],
    );
    let of_default = "spec.tls.frontend.default.validation.caCertificateRefs";
    frontend(&validation(0), "", &[(of_default, "must have at least 1 items")]);
    frontend(&validation(9), "", &[(of_default, "must have at most 8 items, not 9; split the object")]);
    let per_port = "spec.tls.frontend.perPort";
    let of_port = format!("{per_port}[0].tls.validation.caCertificateRefs");
    frontend(
        "{}",
        &format!("{{port: 1, tls: {}}}", validation(0)),
        &[(&of_port, "must have at least 1 items")],
    );
    frontend(
        "{}",
        &format!("{{port: 1, tls: {}}}", validation(9)),
        &[(&of_port, "must have at most 8 items, not 9; split the object")],
    );
    frontend(
        "{}",
        "{port: 0, tls: {}}, {port: 65536, tls: {}}",
        &[
            (&format!("{per_port}[0].port"), "must be 1 to 65535, not `0`"),
            (&format!("{per_port}[1].port"), "must be 1 to 65535, not `65536`"),
        ],
    );
    frontend(
        "{}",
        "{port: 7, tls: {}}, {port: 7, tls: {}}",
        &[(&format!("{per_port}[1]"), "Port for TLS configuration must be unique within the Gateway")],
    );
}

#[test]
fn rules_of_backend_tls_policies() {
    const TARGET: &str = "{group: '', kind: Service, name: s}";
    const CA: &str = "{group: '', kind: ConfigMap, name: c#}";
    let policy = |targets: &str, validation: &str, expected: &[(&str, &str)]| {
        check_spec(
            "BackendTLSPolicy",
            &format!("{{targetRefs: [{targets}], validation: {{{validation}}}}}"),
            expected,
        );
    };
    let system = "hostname: a.example, wellKnownCACertificates: System";
    policy(&many(16, "{group: '', kind: Service, name: s#}"), system, &[]);
    policy("", system, &[("spec.targetRefs", "must have at least 1 items")]);
    policy(
        &many(17, "{group: '', kind: Service, name: s#}"),
        system,
        &[("spec.targetRefs", "must have at most 16 items, not 17; split the object")],
    );
    policy(&many(2, "{group: '', kind: Service, name: s, sectionName: p#}"), system, &[]);
    policy(
        &format!("{TARGET}, {TARGET}"),
        system,
        &[(
            "spec.targetRefs[1]",
            "sectionName must be unique when targetRefs includes 2 or more references to the same target",
        )],
    );

    let validation = |fields: &str, expected: &[(&str, &str)]| policy(TARGET, fields, expected);
    for bad in ["", "A.example", "*.example", "a_b"] {
        let message = format!("`{bad}` is no host name; give the name that the server's certificate is for");
        validation(
            &format!("hostname: '{bad}', wellKnownCACertificates: System"),
            &[("spec.validation.hostname", &message)],
        );
    }
    let references = |count| format!("hostname: a.example, caCertificateRefs: [{}]", many(count, CA));
    validation(&references(8), &[]);
    validation(
        &references(9),
        &[("spec.validation.caCertificateRefs", "must have at most 8 items, not 9; split the object")],
    );
    validation(
        &format!("{}, wellKnownCACertificates: System", references(1)),
        &[("spec.validation", "must not contain both CACertificateRefs and WellKnownCACertificates")],
    );
    for neither in ["hostname: a.example".to_owned(), references(0)] {
        validation(
            &neither,
            &[("spec.validation", "must specify either CACertificateRefs or WellKnownCACertificates")],
        );
    }

    let names = |names: &str, expected: &[(&str, &str)]| {
        validation(&format!("{system}, subjectAltNames: [{names}]"), expected);
    };
    names(&many(5, "{type: URI, uri: 'spiffe://td/#'}"), &[]);
    names("{type: Hostname, hostname: a.example}", &[]);
    names(
        &many(6, "{type: URI, uri: 'spiffe://td/#'}"),
        &[("spec.validation.subjectAltNames", "must have at most 5 items, not 6; split the object")],
    );
    for (name, expected) in [
        ("{type: Hostname}", "must contain Hostname, if Type is set to Hostname"),
        ("{type: Hostname, hostname: ''}", "must contain Hostname, if Type is set to Hostname"),
        ("{type: Hostname, hostname: a, uri: 'a:b'}", "must not contain URI, if Type is not set to URI"),
        ("{type: URI}", "must contain URI, if Type is set to URI"),
        ("{type: URI, uri: ''}", "must contain URI, if Type is set to URI"),
        ("{type: URI, uri: 'a:b', hostname: a}", "must not contain Hostname, if Type is not set to Hostname"),
    ] {
        let expected = format!("SubjectAltName element {expected}");
        names(name, &[("spec.validation.subjectAltNames[0]", &expected)]);
    }
}

#[test]
fn rules_of_services_and_slices() {
    let ports = |ports: &str, expected: &[&str]| {
        let text =
            format!("apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {{ports: [{ports}]}}\n");
        let expected: Vec<_> = expected
            .iter()
            .map(|text| format!("f.yaml, document 1, Service default/s, spec.ports{text}"))
            .collect();
        check(&text, &expected.iter().map(String::as_str).collect::<Vec<_>>());
    };
    ports("{port: 65535}", &[]);
    ports("{port: 0}", &["[0].port: must be 1 to 65535, not `0`"]);
    ports("{port: 65536}", &["[0].port: must be 1 to 65535, not `65536`"]);
    ports("{name: a, port: 1}, {name: b, port: 1, protocol: UDP}", &[]);
    ports(
        "{name: a, port: 1}, {name: b, port: 1, protocol: TCP}",
        &["[1].port: `1` is given twice; remove one"],
    );
    ports(
        "{name: a, port: 1}, {port: 2}",
        &["[1].name: is missing; a Service with several ports names each"],
    );
    ports("{name: a, port: 1}, {name: a, port: 2}", &["[1].name: `a` is given twice; use another name"]);

    let slice = |fields: &str, expected: &[&str]| {
        let text = format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: s}}\n{fields}\n"
        );
        let expected: Vec<_> = expected
            .iter()
            .map(|text| format!("f.yaml, document 1, EndpointSlice default/s, {text}"))
            .collect();
        check(&text, &expected.iter().map(String::as_str).collect::<Vec<_>>());
    };
    slice("addressType: IPv4\nports: [{port: 1}, {}]\nendpoints: [{addresses: [10.0.0.1]}]", &[]);
    slice("addressType: IPv6\nendpoints: [{addresses: ['fd00::1']}]", &[]);
    slice("addressType: FQDN\nendpoints: [{addresses: [a.example]}]", &[]);
    slice(
        "addressType: IPv5\nendpoints: []",
        &["addressType: unsupported value `IPv5`; use `IPv4` or `IPv6`"],
    );
    slice(
        "addressType: IPv4\nports: [{port: 0}]\nendpoints: []",
        &["ports[0].port: must be 1 to 65535, not `0`"],
    );
    slice(
        "addressType: IPv4\nendpoints: [{addresses: []}]",
        &["endpoints[0].addresses: must have at least 1 items"],
    );
    for (family, address) in [
        ("IPv4", "fd00::1"),
        ("IPv4", "10.0.0.256"),
        ("IPv4", "010.0.0.1"),
        ("IPv6", "10.0.0.1"),
        ("FQDN", "a_b"),
    ] {
        slice(
            &format!("addressType: {family}\nendpoints: [{{addresses: ['{address}']}}]"),
            &[&format!("endpoints[0].addresses[0]: `{address}` is no {family} address")],
        );
    }
}
