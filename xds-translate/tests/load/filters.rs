//! The rules of the HTTPRoute CRD about filters.
use super::{check_spec, many};

/// What the HTTPRoute CRD says of filters, on a rule and on a backendRef alike.
#[test]
fn rules_of_filters() {
    let twice = |matches: &str, filters: &str, expected: &[(&str, &str)]| {
        for (before, after, at) in [
            ("filters: [", "]", "spec.rules[0].filters"),
            ("backendRefs: [{name: s, port: 80, filters: [", "]}]", "spec.rules[0].backendRefs[0].filters"),
        ] {
            let expected: Vec<_> =
                expected.iter().map(|(field, message)| (format!("{at}{field}"), *message)).collect();
            let expected: Vec<_> =
                expected.iter().map(|(field, message)| (field.as_str(), *message)).collect();
            let rule = format!("{{matches: [{matches}], {before}{filters}{after}}}");
            check_spec("HTTPRoute", &format!("{{rules: [{rule}]}}"), &expected);
        }
    };
    let filters = |filters: &str, expected: &[(&str, &str)]| {
        twice("{path: {type: PathPrefix, value: /a}}", filters, expected);
    };
    let mirror = "{type: RequestMirror, requestMirror: {backendRef: {name: s, port: 80}}}";
    filters(&many(16, mirror), &[]);
    filters(&many(17, mirror), &[("", "must have at most 16 items, not 17; split the object")]);
    for (kind, field, value) in [
        ("CORS", "cors", "{allowOrigins: ['https://a.example']}"),
        ("RequestHeaderModifier", "requestHeaderModifier", "{remove: [x]}"),
        ("ResponseHeaderModifier", "responseHeaderModifier", "{remove: [x]}"),
        ("RequestMirror", "requestMirror", "{backendRef: {name: s, port: 80}}"),
        ("RequestRedirect", "requestRedirect", "{hostname: a.example}"),
        ("URLRewrite", "urlRewrite", "{hostname: a.example}"),
        ("ExtensionRef", "extensionRef", "{group: g.example, kind: K, name: n}"),
    ] {
        let one = format!("{{type: {kind}, {field}: {value}}}");
        filters(&one, &[]);
        let missing = format!("filter.{field} must be specified for {kind} filter.type");
        filters(&format!("{{type: {kind}}}"), &[("[0]", &missing)]);
        let (other, others) = if kind == "CORS" {
            ("URLRewrite", "urlRewrite: {hostname: a.example}")
        } else {
            ("CORS", "cors: {allowOrigins: ['https://a.example']}")
        };
        let foreign = format!("filter.{field} must be nil if the filter.type is not {kind}");
        filters(&format!("{{type: {other}, {others}, {field}: {value}}}"), &[("[0]", &foreign)]);
        let repeated = format!("{kind} filter cannot be repeated");
        let expected: &[(&str, &str)] =
            if matches!(kind, "RequestMirror" | "ExtensionRef") { &[] } else { &[("", &repeated)] };
        filters(&format!("{one}, {one}"), expected);
    }
    filters(
        "{type: Teleport}",
        &[("", "unsupported value `Teleport`; use one of the filter types of the Gateway API")],
    );

    filters(
        "{type: URLRewrite, urlRewrite: {}}, {type: RequestRedirect, requestRedirect: {}}",
        &[(
            "",
            "May specify either httpRouteFilterRequestRedirect or httpRouteFilterRequestRewrite, but not both",
        )],
    );

    for (kind, field) in [("RequestRedirect", "requestRedirect"), ("URLRewrite", "urlRewrite")] {
        let with = |fields: &str| format!("{{type: {kind}, {field}: {{{fields}}}}}");
        let full =
            |value: &str| with(&format!("path: {{type: ReplaceFullPath, replaceFullPath: '{value}'}}"));
        let prefix =
            |value: &str| with(&format!("path: {{type: ReplacePrefixMatch, replacePrefixMatch: '{value}'}}"));
        filters(&full(&format!("/{}", "a".repeat(1023))), &[]);
        filters(
            &full(&format!("/{}", "a".repeat(1024))),
            &[("[0].path", "must have at most 1024 characters, not 1025")],
        );
        filters(&prefix("/"), &[]);
        let exactly = "exactly one of replaceFullPath and replacePrefixMatch must be specified, as type says";
        filters(&with("path: {type: ReplaceFullPath}"), &[("[0].path", exactly)]);
        filters(
            &with("path: {type: ReplaceFullPath, replaceFullPath: /a, replacePrefixMatch: /a}"),
            &[("[0].path", exactly)],
        );
        let one_prefix = format!(
            "When using {kind} filter with path.replacePrefixMatch, exactly one PathPrefix match must be specified"
        );
        for matches in [
            "{path: {type: Exact, value: /a}}",
            "{path: {type: RegularExpression, value: /a}}",
            "{path: {value: /a}}, {path: {value: /b}}",
        ] {
            twice(matches, &prefix("/"), &[("[0].path", &one_prefix)]);
            twice(matches, &full("/"), &[]);
        }
        // The default of a match, and of its path, is a prefix.
        for matches in ["{}", "{path: {value: /a}}", "{method: GET}"] {
            twice(matches, &prefix("/"), &[]);
        }
        for bad in ["A.example", "*.example", "a:80"] {
            let message = format!("`{bad}` is no host name");
            filters(&with(&format!("hostname: '{bad}'")), &[("[0].hostname", &message)]);
        }
    }
    let redirect = |fields: &str, expected: &[(&str, &str)]| {
        filters(&format!("{{type: RequestRedirect, requestRedirect: {{{fields}}}}}"), expected);
    };
    for status in [301, 302, 303, 307, 308] {
        redirect(&format!("port: 65535, statusCode: {status}"), &[]);
    }
    for port in [0, 65536] {
        let message = format!("must be 1 to 65535, not `{port}`");
        redirect(&format!("port: {port}"), &[("[0].requestRedirect.port", &message)]);
    }
    for status in [200, 300, 304, 309] {
        let message = format!("unsupported value `{status}`; use 301, 302, 303, 307 or 308");
        redirect(&format!("statusCode: {status}"), &[("[0].requestRedirect.statusCode", &message)]);
    }
    // A rule that redirects has nowhere to send to.
    check_spec(
        "HTTPRoute",
        "{rules: [{filters: [{type: RequestRedirect, requestRedirect: {}}], backendRefs: [{name: s, port: 80}]}]}",
        &[("spec.rules[0].filters", "RequestRedirect filter must not be used together with backendRefs")],
    );
}
