//! The rules of the HTTPRoute CRD.
use super::{check_spec, many};

#[test]
fn parents_and_hostnames_of_routes() {
    let route = |fields: &str, expected: &[(&str, &str)]| {
        check_spec("HTTPRoute", &format!("{{{fields}}}"), expected);
    };
    let parents = |parents: &str, expected: &[(&str, &str)]| {
        route(&format!("parentRefs: [{parents}]"), expected);
    };
    parents(&many(32, "{name: g#}"), &[]);
    parents(
        &many(33, "{name: g#}"),
        &[("spec.parentRefs", "must have at most 32 items, not 33; split the object")],
    );
    parents("{name: ''}", &[("spec.parentRefs[0].name", "must not be empty")]);
    let (longest, longer) = ("g".repeat(253), "g".repeat(254));
    parents(&format!("{{name: {longest}}}"), &[]);
    parents(
        &format!("{{name: {longer}}}"),
        &[("spec.parentRefs[0].name", "must have at most 253 characters, not 254")],
    );
    for port in [0, 65536] {
        let message = format!("must be 1 to 65535, not `{port}`");
        parents(&format!("{{name: g, port: {port}}}"), &[("spec.parentRefs[0].port", &message)]);
    }
    // Of one parent: each section once, and all with a section or none.
    parents("{name: g, sectionName: a}, {name: g, sectionName: b}, {name: h}", &[]);
    parents("{name: g}, {name: g, namespace: other}, {name: g, kind: Service, group: ''}", &[]);
    parents(
        "{name: g, sectionName: a}, {name: g, sectionName: a}",
        &[(
            "spec.parentRefs[1]",
            "sectionName or port must be unique when parentRefs includes 2 or more references to the same parent",
        )],
    );
    parents(
        "{name: g, sectionName: a}, {name: g}",
        &[(
            "spec.parentRefs[1]",
            "sectionName or port must be specified when parentRefs includes 2 or more references to the same parent",
        )],
    );

    let hostnames = |hostnames: &str, expected: &[(&str, &str)]| {
        route(&format!("hostnames: [{hostnames}]"), expected);
    };
    hostnames(&many(16, "'*.a#.example'"), &[]);
    hostnames(
        &many(17, "a#.example"),
        &[("spec.hostnames", "must have at most 16 items, not 17; split the object")],
    );
    for bad in ["A.example", "*", "a.*", "a:80", ""] {
        let message = format!("`{bad}` is no host name; use lower case, perhaps with a leading `*.`");
        hostnames(&format!("'{bad}'"), &[("spec.hostnames[0]", &message)]);
    }
}

/// Ranges, lengths and characters of the HTTPRoute CRD: what is just within, and just outside.
#[test]
fn limits_of_routes() {
    let rules = |rules: &str, expected: &[(&str, &str)]| {
        check_spec("HTTPRoute", &format!("{{rules: [{rules}]}}"), expected);
    };
    rules(&many(16, "{name: r#}"), &[]);
    rules("", &[("spec.rules", "must have at least 1 items")]);
    rules(&many(17, "{name: r#}"), &[("spec.rules", "must have at most 16 items, not 17; split the object")]);
    rules("{name: r}, {name: r}", &[("spec.rules[1].name", "Rule name must be unique within the route")]);
    let matches = |count| format!("matches: [{}]", many(count, "{path: {value: /#}}"));
    rules(&format!("{{{}}}, {{{}}}", matches(64), matches(64)), &[]);
    rules(
        &format!("{{{}}}", matches(65)),
        &[("spec.rules[0].matches", "must have at most 64 items, not 65; split the object")],
    );
    // A rule without matches has one.
    rules(
        &format!("{{{}}}, {{{}}}, {{}}", matches(64), matches(64)),
        &[(
            "spec.rules",
            "While 16 rules and 64 matches per rule are allowed, the total number of matches across all rules in a \
             route must be less than 128",
        )],
    );

    let rule = |fields: &str, expected: &[(&str, &str)]| {
        let expected: Vec<_> =
            expected.iter().map(|(field, message)| (format!("spec.rules[0].{field}"), *message)).collect();
        let expected: Vec<_> = expected.iter().map(|(field, message)| (field.as_str(), *message)).collect();
        rules(&format!("{{{fields}}}"), &expected);
    };
    let path = |r#type: &str, value: &str, expected: &[&str]| {
        let expected: Vec<_> = expected
            .iter()
            .map(|message| match message.strip_prefix('=') {
                Some(whole) => whole.to_owned(),
                None => format!("{message} when type one of ['Exact', 'PathPrefix'], not `{value}`"),
            })
            .collect();
        let expected: Vec<_> =
            expected.iter().map(|message| ("matches[0].path.value", message.as_str())).collect();
        rule(&format!("matches: [{{path: {{type: {}, value: '{value}'}}}}]", r#type), &expected);
    };
    for kind in ["Exact", "PathPrefix"] {
        for good in ["/", "/a/b/", "/.a/..b/c.", "/a%20b", "/A-z0-9._~!$&()*+,;=:@", "/%5C"] {
            path(kind, good, &[]);
        }
        path(kind, "a", &["value must be an absolute path and start with '/'"]);
        path(kind, "/a//b", &["must not contain '//'"]);
        path(kind, "/a/./b", &["must not contain '/./'"]);
        path(kind, "/a/../b", &["must not contain '/../'"]);
        path(kind, "/a%2fb", &["must not contain '%2f'"]);
        path(kind, "/a%2Fb", &["must not contain '%2F'"]);
        path(kind, "/a/..", &["must not end with '/..'"]);
        path(kind, "/a/.", &["must not end with '/.'"]);
        for bad in ["/a b", "/a?b", "/%g0", "/%2", "/ä", r"/a\b"] {
            let message = format!(
                "=must only contain valid characters of a path (others as `%` and two hexadecimal digits), not `{bad}`"
            );
            path(kind, bad, &[&message]);
        }
        let characters = "=must only contain valid characters of a path (others as `%` and two hexadecimal digits), not `/a#b`";
        path(kind, "/a#b", &["must not contain '#'", characters]);
        path(kind, &format!("/{}", "a".repeat(1023)), &[]);
        path(kind, &format!("/{}", "a".repeat(1024)), &["=must have at most 1024 characters, not 1025"]);
    }
    path("RegularExpression", "[^/?#]*", &[]);
    path("RegularExpression", &"a".repeat(1025), &["=must have at most 1024 characters, not 1025"]);

    for (list, longest) in [("headers", 4096), ("queryParams", 1024)] {
        let one = |name: &str, value: &str, expected: &[(&str, &str)]| {
            rule(&format!("matches: [{{{list}: [{{name: '{name}', value: '{value}'}}]}}]"), expected);
        };
        let (of_name, of_value) =
            (format!("matches[0].{list}[0].name"), format!("matches[0].{list}[0].value"));
        one("X-a!#$%&*+.^_`|~9", &"v".repeat(longest), &[]);
        one("x", "", &[(&of_value, "must not be empty")]);
        let message = format!("must have at most {longest} characters, not {}", longest + 1);
        one("x", &"v".repeat(longest + 1), &[(&of_value, &message)]);
        for bad in ["", "a b", "a:", "ä", &"a".repeat(257)] {
            let message = format!("`{bad}` is no name; use letters, digits and `-`");
            one(bad, "v", &[(&of_name, &message)]);
        }
        let several = |count| format!("matches: [{{{list}: [{}]}}]", many(count, "{name: n#, value: v}"));
        rule(&several(16), &[]);
        rule(
            &several(17),
            &[(&format!("matches[0].{list}"), "must have at most 16 items, not 17; split the object")],
        );
    }

    let backends = |backends: &str, expected: &[(&str, &str)]| {
        rule(&format!("backendRefs: [{backends}]"), expected);
    };
    backends(&many(16, "{name: s#, port: 80}"), &[]);
    backends(
        &many(17, "{name: s#, port: 80}"),
        &[("backendRefs", "must have at most 16 items, not 17; split the object")],
    );
    backends("{name: s, port: 1, weight: 0}, {name: s, port: 65535, weight: 1000000}", &[]);
    for weight in [-1, 1_000_001] {
        let message = format!("must be 0 to 1000000, not `{weight}`");
        backends(&format!("{{name: s, port: 80, weight: {weight}}}"), &[("backendRefs[0].weight", &message)]);
    }
    backends("{name: s}", &[("backendRefs[0].port", "Must have port for Service reference")]);
    backends("{name: s, port: 0}", &[("backendRefs[0].port", "must be 1 to 65535, not `0`")]);
    backends("{name: '', port: 80}", &[("backendRefs[0].name", "must not be empty")]);
    // Only a Service needs a port.
    backends("{name: b, group: agentic.networking.x-k8s.io, kind: XBackend}", &[]);
    backends("{name: p, kind: Pod}", &[]);

    for good in ["1h", "30m", "10s", "500ms", "1h2m3s4ms", "0s", "99999s"] {
        rule(&format!("timeouts: {{request: {good}}}"), &[]);
    }
    // GEP-2257: no fractions, no signs, no units but these, five digits, four parts.
    for bad in ["", "soon", "10", "1d", "1.5s", "-1s", "100000s", "1s1s1s1s1s", "1 s"] {
        let message = format!("`{bad}` is no duration; write it as `10s` or `1m30s`");
        for field in ["request", "backendRequest"] {
            rule(&format!("timeouts: {{{field}: '{bad}'}}"), &[(&format!("timeouts.{field}"), &message)]);
        }
    }
    rule(
        "timeouts: {request: 1s, backendRequest: 2s}",
        &[("timeouts", "backendRequest timeout cannot be longer than request timeout")],
    );
    // `0s` is no limit, so anything is within it.
    rule("timeouts: {request: 0s, backendRequest: 2s}", &[]);
    rule("timeouts: {request: 1m, backendRequest: 60s}", &[]);
}
