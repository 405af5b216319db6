//! The rules of the HTTPRoute CRD.
use std::{collections::BTreeSet, str::FromStr};

use gateway_api::{
    Duration,
    httproutes::{
        HttpRouteRules, HttpRouteRulesBackendRefs, HttpRouteRulesFilters,
        HttpRouteRulesFiltersType as FilterType, HttpRouteRulesMatches,
        HttpRouteRulesMatchesPathType as PathType, HttpRouteRulesTimeouts, HttpRouteSpec,
    },
};

use super::{Errors, count, is_dns_name, is_host_pattern, length, port};
use crate::{
    objects::{decode::FieldError, route::Route},
    resolve::rule_filters_of_backend,
};

pub(in crate::objects) fn route(route: &Route, errors: &mut Errors) {
    let spec = &route.spec;
    parents(spec, errors);
    let hostnames = spec.hostnames.as_deref().unwrap_or_default();
    count("spec.hostnames", hostnames.len(), 0, 16, errors);
    for (index, hostname) in hostnames.iter().enumerate() {
        if !is_host_pattern(hostname) {
            let message =
                format!("`{hostname}` is no host name; use lower case, perhaps with a leading `*.`");
            errors.push(FieldError::new(format!("spec.hostnames[{index}]"), message));
        }
    }
    for (index, filters) in &route.rule_filters {
        unknown_filters(&format!("spec.rules[{index}].filters"), filters, errors);
    }
    for ((rule, backend), filters) in &route.backend_filters {
        unknown_filters(&format!("spec.rules[{rule}].backendRefs[{backend}].filters"), filters, errors);
    }
    let Some(rules) = &spec.rules else { return };
    count("spec.rules", rules.len(), 1, 16, errors);
    let matches: usize = rules.iter().map(|rule| rule.matches.as_ref().map_or(1, Vec::len)).sum();
    if matches > 128 {
        let message = "While 16 rules and 64 matches per rule are allowed, the total number of matches across all rules in a \
            route must be less than 128";
        errors.push(FieldError::new("spec.rules", message));
    }
    let mut names = BTreeSet::new();
    for (index, rule) in rules.iter().enumerate() {
        let at = format!("spec.rules[{index}]");
        if let Some(name) = &rule.name
            && !names.insert(name)
        {
            errors.push(FieldError::new(format!("{at}.name"), "Rule name must be unique within the route"));
        }
        one_rule(&at, rule, errors);
    }
}

/// A filter type of the experimental channel may be stored (and fails what it is on); any other is refused.
fn unknown_filters(at: &str, filters: &[String], errors: &mut Errors) {
    for filter in filters.iter().filter(|filter| *filter != "ExternalAuth") {
        let message = format!("unsupported value `{filter}`; use one of the filter types of the Gateway API");
        errors.push(FieldError::new(at, message));
    }
}

fn parents(spec: &HttpRouteSpec, errors: &mut Errors) {
    let parents = spec.parent_refs.as_deref().unwrap_or_default();
    count("spec.parentRefs", parents.len(), 0, 32, errors);
    let mut seen = BTreeSet::new();
    for (index, parent) in parents.iter().enumerate() {
        let at = format!("spec.parentRefs[{index}]");
        length(&format!("{at}.name"), &parent.name, 1, 253, errors);
        if let Some(number) = parent.port {
            port(format!("{at}.port"), number, errors);
        }
        let place = (parent.section_name.as_deref().unwrap_or_default(), parent.port.unwrap_or_default());
        let object = (&parent.group, &parent.kind, &parent.namespace, &parent.name);
        if !seen.insert((object, place)) {
            let message = "sectionName or port must be unique when parentRefs includes 2 or more references to the same parent";
            errors.push(FieldError::new(at, message));
        } else if seen.iter().any(|(other, (section, port))| {
            *other == object && (section.is_empty() != place.0.is_empty() || (*port == 0) != (place.1 == 0))
        }) {
            let message = "sectionName or port must be specified when parentRefs includes 2 or more references to the same parent";
            errors.push(FieldError::new(at, message));
        }
    }
}

fn one_rule(at: &str, rule: &HttpRouteRules, errors: &mut Errors) {
    let matches = rule.matches.as_deref().unwrap_or_default();
    count(&format!("{at}.matches"), matches.len(), 0, 64, errors);
    for (index, one) in matches.iter().enumerate() {
        one_match(&format!("{at}.matches[{index}]"), one, errors);
    }
    let one_prefix = match matches {
        [] => true,
        [one] => {
            one.path.as_ref().is_none_or(|path| matches!(path.r#type, None | Some(PathType::PathPrefix)))
        }
        _ => false,
    };
    let rule_filters = rule.filters.as_deref().unwrap_or_default();
    filters(&format!("{at}.filters"), rule_filters, one_prefix, errors);
    let backends = rule.backend_refs.as_deref().unwrap_or_default();
    count(&format!("{at}.backendRefs"), backends.len(), 0, 16, errors);
    if !backends.is_empty() && rule_filters.iter().any(|filter| filter.request_redirect.is_some()) {
        let message = "RequestRedirect filter must not be used together with backendRefs";
        errors.push(FieldError::new(format!("{at}.filters"), message));
    }
    for (index, backend) in backends.iter().enumerate() {
        let at = format!("{at}.backendRefs[{index}]");
        backend_ref(&at, backend, errors);
        filters(&format!("{at}.filters"), &rule_filters_of_backend(backend), one_prefix, errors);
    }
    if let Some(limits) = &rule.timeouts {
        timeouts(&format!("{at}.timeouts"), limits, errors);
    }
}

fn backend_ref(at: &str, backend: &HttpRouteRulesBackendRefs, errors: &mut Errors) {
    length(&format!("{at}.name"), &backend.name, 1, 253, errors);
    let is_service = backend.group.as_deref().unwrap_or_default().is_empty()
        && backend.kind.as_deref().unwrap_or("Service") == "Service";
    match backend.port {
        Some(number) => port(format!("{at}.port"), number, errors),
        None if is_service => {
            errors.push(FieldError::new(format!("{at}.port"), "Must have port for Service reference"))
        }
        None => {}
    }
    if let Some(weight) = backend.weight
        && !(0..=1_000_000).contains(&weight)
    {
        errors.push(FieldError::new(format!("{at}.weight"), format!("must be 0 to 1000000, not `{weight}`")));
    }
}

fn one_match(at: &str, one: &HttpRouteRulesMatches, errors: &mut Errors) {
    if let Some(path) = &one.path {
        let at = format!("{at}.path.value");
        let value = path.value.as_deref().unwrap_or("/");
        length(&at, value, 0, 1024, errors);
        if path.r#type != Some(PathType::RegularExpression) {
            path_value(&at, value, errors);
        }
    }
    let headers = one.headers.as_deref().unwrap_or_default();
    count(&format!("{at}.headers"), headers.len(), 0, 16, errors);
    for (index, header) in headers.iter().enumerate() {
        header_name(&format!("{at}.headers[{index}].name"), &header.name, errors);
        length(&format!("{at}.headers[{index}].value"), &header.value, 1, 4096, errors);
    }
    let params = one.query_params.as_deref().unwrap_or_default();
    count(&format!("{at}.queryParams"), params.len(), 0, 16, errors);
    for (index, param) in params.iter().enumerate() {
        header_name(&format!("{at}.queryParams[{index}].name"), &param.name, errors);
        length(&format!("{at}.queryParams[{index}].value"), &param.value, 1, 1024, errors);
    }
}

fn path_value(at: &str, value: &str, errors: &mut Errors) {
    let mut refuse = |message: &str| errors.push(FieldError::new(at, format!("{message}, not `{value}`")));
    if !value.starts_with('/') {
        refuse("value must be an absolute path and start with '/' when type one of ['Exact', 'PathPrefix']");
    }
    for part in ["//", "/./", "/../", "%2f", "%2F", "#"] {
        if value.contains(part) {
            refuse(&format!("must not contain '{part}' when type one of ['Exact', 'PathPrefix']"));
        }
    }
    for end in ["/..", "/."] {
        if value.ends_with(end) {
            refuse(&format!("must not end with '{end}' when type one of ['Exact', 'PathPrefix']"));
        }
    }
    if !is_path(value) {
        refuse("must only contain valid characters of a path (others as `%` and two hexadecimal digits)");
    }
}

/// `^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$`
fn is_path(value: &str) -> bool {
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        let valid = match byte {
            b'%' => [bytes.next(), bytes.next()]
                .iter()
                .all(|digit| digit.is_some_and(|digit| digit.is_ascii_hexdigit())),
            byte => byte.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@".contains(&byte),
        };
        if !valid {
            return false;
        }
    }
    !value.is_empty()
}

/// `^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$`
fn header_name(at: &str, name: &str, errors: &mut Errors) {
    let valid = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
    if name.is_empty() || name.len() > 256 || !valid {
        errors.push(FieldError::new(at, format!("`{name}` is no name; use letters, digits and `-`")));
    }
}

fn filters(at: &str, filters: &[HttpRouteRulesFilters], one_prefix: bool, errors: &mut Errors) {
    count(at, filters.len(), 0, 16, errors);
    let has = |kind: FilterType| filters.iter().filter(|filter| filter.r#type == kind).count();
    if has(FilterType::RequestRedirect) > 0 && has(FilterType::UrlRewrite) > 0 {
        let message = "May specify either httpRouteFilterRequestRedirect or httpRouteFilterRequestRewrite, but not both";
        errors.push(FieldError::new(at, message));
    }
    for (kind, name) in [
        (FilterType::Cors, "CORS"),
        (FilterType::RequestHeaderModifier, "RequestHeaderModifier"),
        (FilterType::ResponseHeaderModifier, "ResponseHeaderModifier"),
        (FilterType::RequestRedirect, "RequestRedirect"),
        (FilterType::UrlRewrite, "URLRewrite"),
    ] {
        if has(kind) > 1 {
            errors.push(FieldError::new(at, format!("{name} filter cannot be repeated")));
        }
    }
    for (index, filter) in filters.iter().enumerate() {
        one_filter(&format!("{at}[{index}]"), filter, one_prefix, errors);
    }
}

fn one_filter(at: &str, filter: &HttpRouteRulesFilters, one_prefix: bool, errors: &mut Errors) {
    for (kind, name, field, present) in [
        (FilterType::Cors, "CORS", "cors", filter.cors.is_some()),
        (
            FilterType::RequestHeaderModifier,
            "RequestHeaderModifier",
            "requestHeaderModifier",
            filter.request_header_modifier.is_some(),
        ),
        (
            FilterType::ResponseHeaderModifier,
            "ResponseHeaderModifier",
            "responseHeaderModifier",
            filter.response_header_modifier.is_some(),
        ),
        (FilterType::RequestMirror, "RequestMirror", "requestMirror", filter.request_mirror.is_some()),
        (
            FilterType::RequestRedirect,
            "RequestRedirect",
            "requestRedirect",
            filter.request_redirect.is_some(),
        ),
        (FilterType::UrlRewrite, "URLRewrite", "urlRewrite", filter.url_rewrite.is_some()),
        (FilterType::ExtensionRef, "ExtensionRef", "extensionRef", filter.extension_ref.is_some()),
    ] {
        match (filter.r#type == kind, present) {
            (true, false) => {
                errors.push(FieldError::new(
                    at,
                    format!("filter.{field} must be specified for {name} filter.type"),
                ));
            }
            (false, true) => {
                errors.push(FieldError::new(
                    at,
                    format!("filter.{field} must be nil if the filter.type is not {name}"),
                ));
            }
            _ => {}
        }
    }
    let redirect = filter.request_redirect.as_ref();
    let rewrite = filter.url_rewrite.as_ref();
    let redirect_path = redirect.and_then(|redirect| redirect.path.as_ref());
    let rewrite_path = rewrite.and_then(|rewrite| rewrite.path.as_ref());
    for (name, path) in [
        ("RequestRedirect", redirect_path.map(|path| (&path.replace_full_path, &path.replace_prefix_match))),
        ("URLRewrite", rewrite_path.map(|path| (&path.replace_full_path, &path.replace_prefix_match))),
    ] {
        let Some((full, prefix)) = path else { continue };
        if full.is_some() == prefix.is_some() {
            let message =
                "exactly one of replaceFullPath and replacePrefixMatch must be specified, as type says";
            errors.push(FieldError::new(format!("{at}.path"), message));
        }
        if prefix.is_some() && !one_prefix {
            let message = format!(
                "When using {name} filter with path.replacePrefixMatch, exactly one PathPrefix match must be specified"
            );
            errors.push(FieldError::new(format!("{at}.path"), message));
        }
        for value in [full, prefix].into_iter().flatten() {
            length(&format!("{at}.path"), value, 0, 1024, errors);
        }
    }
    let hostnames = [
        redirect.and_then(|redirect| redirect.hostname.as_ref()),
        rewrite.and_then(|rewrite| rewrite.hostname.as_ref()),
    ];
    for hostname in hostnames.into_iter().flatten() {
        if !is_dns_name(hostname) {
            errors.push(FieldError::new(format!("{at}.hostname"), format!("`{hostname}` is no host name")));
        }
    }
    if let Some(redirect) = redirect {
        if let Some(number) = redirect.port {
            port(format!("{at}.requestRedirect.port"), number, errors);
        }
        if let Some(status) = redirect.status_code
            && ![301, 302, 303, 307, 308].contains(&status)
        {
            let message = format!("unsupported value `{status}`; use 301, 302, 303, 307 or 308");
            errors.push(FieldError::new(format!("{at}.requestRedirect.statusCode"), message));
        }
    }
}

fn timeouts(at: &str, limits: &HttpRouteRulesTimeouts, errors: &mut Errors) {
    let mut read = |field: &str, text: &Option<String>| {
        let text = text.as_deref()?;
        let duration = Duration::from_str(text).ok();
        if duration.is_none() {
            let message = format!("`{text}` is no duration; write it as `10s` or `1m30s`");
            errors.push(FieldError::new(format!("{at}.{field}"), message));
        }
        duration
    };
    let request = read("request", &limits.request);
    let backend = read("backendRequest", &limits.backend_request);
    if let (Some(request), Some(backend)) = (request, backend)
        && !request.is_zero()
        && backend.as_nanos() > request.as_nanos()
    {
        errors.push(FieldError::new(at, "backendRequest timeout cannot be longer than request timeout"));
    }
}
