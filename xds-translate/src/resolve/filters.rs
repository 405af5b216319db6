//! Filters and timeouts of HTTPRoutes, reduced to what a data plane does. What cannot be done fails what it is on.
use std::{str::FromStr, sync::Arc, time::Duration};

use gateway_api::httproutes::{
    HttpRouteRulesBackendRefs, HttpRouteRulesFilters, HttpRouteRulesFiltersRequestRedirectScheme as Scheme,
    HttpRouteRulesFiltersType as FilterType, HttpRouteRulesTimeouts,
};
use http::{HeaderName, HeaderValue, header};

use crate::{CorsFilter, Filters, HeaderFilter, PathRewrite, Redirect, Timeouts};

/// The filters of a backendRef in the type of a rule's: their shape is the same.
pub(crate) fn rule_filters_of_backend(backend: &HttpRouteRulesBackendRefs) -> Vec<HttpRouteRulesFilters> {
    let filters = backend.filters.as_deref().unwrap_or_default();
    let converted =
        filters.iter().map(|filter| serde_json::to_value(filter).and_then(serde_json::from_value));
    converted.collect::<Result<_, _>>().unwrap_or_else(|_| {
        // An ExtensionRef without a target fails the backend, as the filter that could not be read would have.
        vec![HttpRouteRulesFilters { r#type: FilterType::ExtensionRef, ..HttpRouteRulesFilters::default() }]
    })
}

/// Headers that frame a message or name a connection: a filter that touches them could change what was decided on.
const FRAMING: [HeaderName; 9] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::HOST,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The filters of a rule.
///
/// # Errors
/// What is not supported.
pub(super) fn rule(filters: &[HttpRouteRulesFilters]) -> Result<Filters, String> {
    let mut reduced = Filters::default();
    let mut rewritten = false;
    for filter in filters {
        match filter.r#type {
            FilterType::RequestHeaderModifier => {
                let modifier =
                    filter.request_header_modifier.as_ref().ok_or("requestHeaderModifier is missing")?;
                let pairs = |list: Option<Vec<(String, String)>>| list.unwrap_or_default();
                let set = modifier
                    .set
                    .as_ref()
                    .map(|list| list.iter().map(|h| (h.name.clone(), h.value.clone())).collect());
                let add = modifier
                    .add
                    .as_ref()
                    .map(|list| list.iter().map(|h| (h.name.clone(), h.value.clone())).collect());
                once(reduced.request_headers == HeaderFilter::default(), "RequestHeaderModifier")?;
                reduced.request_headers =
                    headers(&pairs(set), &pairs(add), modifier.remove.as_deref().unwrap_or_default())?;
            }
            FilterType::ResponseHeaderModifier => {
                let modifier =
                    filter.response_header_modifier.as_ref().ok_or("responseHeaderModifier is missing")?;
                let pairs = |list: Option<Vec<(String, String)>>| list.unwrap_or_default();
                let set = modifier
                    .set
                    .as_ref()
                    .map(|list| list.iter().map(|h| (h.name.clone(), h.value.clone())).collect());
                let add = modifier
                    .add
                    .as_ref()
                    .map(|list| list.iter().map(|h| (h.name.clone(), h.value.clone())).collect());
                once(reduced.response_headers == HeaderFilter::default(), "ResponseHeaderModifier")?;
                reduced.response_headers =
                    headers(&pairs(set), &pairs(add), modifier.remove.as_deref().unwrap_or_default())?;
            }
            FilterType::UrlRewrite => {
                let rewrite = filter.url_rewrite.as_ref().ok_or("urlRewrite is missing")?;
                once(!rewritten, "URLRewrite")?;
                rewritten = true;
                reduced.hostname = rewrite.hostname.as_deref().map(str::to_ascii_lowercase);
                if let Some(path) = &rewrite.path {
                    reduced.path = Some(path_rewrite(
                        path.replace_full_path.as_deref(),
                        path.replace_prefix_match.as_deref(),
                    )?);
                }
            }
            FilterType::RequestRedirect => {
                once(reduced.redirect.is_none(), "RequestRedirect")?;
                reduced.redirect = Some(redirect(filter)?);
            }
            FilterType::Cors => {
                once(reduced.cors.is_none(), "CORS")?;
                reduced.cors = Some(Arc::new(cors(filter)?));
            }
            FilterType::RequestMirror => {
                return Err("filter RequestMirror is not supported; remove it".to_owned());
            }
            FilterType::ExtensionRef => {
                return Err("filter ExtensionRef is not supported; remove it".to_owned());
            }
        }
    }
    if rewritten && reduced.redirect.is_some() {
        return Err("filters RequestRedirect and URLRewrite exclude each other; remove one".to_owned());
    }
    Ok(reduced)
}

/// The filters of a backendRef.
///
/// # Errors
/// What is not supported.
pub(super) fn backend(backend: &HttpRouteRulesBackendRefs) -> Result<Filters, String> {
    let filters = rule(&rule_filters_of_backend(backend))?;
    if filters.redirect.is_some() || filters.cors.is_some() {
        return Err(
            "filters RequestRedirect and CORS are not supported on a backendRef; put them on the rule"
                .to_owned(),
        );
    }
    Ok(filters)
}

fn once(first: bool, filter: &str) -> Result<(), String> {
    if first { Ok(()) } else { Err(format!("filter {filter} is given twice; keep one")) }
}

fn headers(
    set: &[(String, String)],
    add: &[(String, String)],
    remove: &[String],
) -> Result<HeaderFilter, String> {
    let pairs = |list: &[(String, String)]| -> Result<Vec<(HeaderName, HeaderValue)>, String> {
        let mut pairs: Vec<(HeaderName, HeaderValue)> = Vec::new();
        for (name, value) in list {
            let name = header_name(name)?;
            let value = HeaderValue::from_str(value).map_err(|_invalid| {
                format!("the value of header `{name}` holds characters that no header may; remove them")
            })?;
            // Of entries with an equivalent name only the first counts.
            if !pairs.iter().any(|(other, _)| *other == name) {
                pairs.push((name, value));
            }
        }
        Ok(pairs)
    };
    Ok(HeaderFilter {
        set: pairs(set)?,
        add: pairs(add)?,
        remove: remove.iter().map(|name| header_name(name)).collect::<Result<_, _>>()?,
    })
}

fn header_name(name: &str) -> Result<HeaderName, String> {
    let parsed = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_invalid| format!("`{name}` is no header name; mend it"))?;
    let own =
        parsed.as_str().starts_with("mcp-") || matches!(parsed.as_str(), "keep-alive" | "proxy-connection");
    if own || FRAMING.contains(&parsed) {
        return Err(format!("header `{parsed}` cannot be changed by a filter; remove it"));
    }
    Ok(parsed)
}

fn path_rewrite(full: Option<&str>, prefix: Option<&str>) -> Result<PathRewrite, String> {
    match (full, prefix) {
        (Some(full), None) => Ok(PathRewrite::Full(full.to_owned())),
        (None, Some(prefix)) => Ok(PathRewrite::Prefix(prefix.to_owned())),
        _ => Err("a path rewrite needs exactly one of replaceFullPath and replacePrefixMatch".to_owned()),
    }
}

fn redirect(filter: &HttpRouteRulesFilters) -> Result<Redirect, String> {
    let redirect = filter.request_redirect.as_ref().ok_or("requestRedirect is missing")?;
    let status = redirect.status_code.unwrap_or(302);
    let path = redirect.path.as_ref();
    let path = path
        .map(|path| path_rewrite(path.replace_full_path.as_deref(), path.replace_prefix_match.as_deref()));
    let port = redirect.port.map(|port| u16::try_from(port).ok().filter(|port| *port > 0).ok_or(port));
    Ok(Redirect {
        scheme: redirect.scheme.as_ref().map(|scheme| match scheme {
            Scheme::Http => "http".to_owned(),
            Scheme::Https => "https".to_owned(),
        }),
        hostname: redirect.hostname.as_deref().map(str::to_ascii_lowercase),
        port: port.transpose().map_err(|port| format!("redirect port must be 1 to 65535, not `{port}`"))?,
        path: path.transpose()?,
        status: u16::try_from(status)
            .ok()
            .filter(|status| [301, 302, 303, 307, 308].contains(status))
            .ok_or_else(|| {
                format!("redirect status `{status}` is not supported; use 301, 302, 303, 307 or 308")
            })?,
    })
}

fn cors(filter: &HttpRouteRulesFilters) -> Result<CorsFilter, String> {
    let cors = filter.cors.as_ref().ok_or("cors is missing")?;
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    Ok(CorsFilter {
        allow_origins: list(&cors.allow_origins),
        allow_methods: list(&cors.allow_methods),
        allow_headers: list(&cors.allow_headers),
        expose_headers: list(&cors.expose_headers),
        max_age: cors.max_age.and_then(|age| u32::try_from(age).ok()).unwrap_or(5),
        allow_credentials: cors.allow_credentials.unwrap_or(false),
    })
}

/// The timeouts of a rule; `0s` is none.
///
/// # Errors
/// What is not a duration.
pub(super) fn timeouts(limits: Option<&HttpRouteRulesTimeouts>) -> Result<Timeouts, String> {
    let Some(limits) = limits else { return Ok(Timeouts::default()) };
    let read = |text: &Option<String>| -> Result<Option<Duration>, String> {
        let Some(text) = text else { return Ok(None) };
        let parsed = gateway_api::Duration::from_str(text)
            .map_err(|_invalid| format!("timeout `{text}` is no duration; write it as `10s` or `1m30s`"))?;
        Ok(Some(Duration::new(parsed.as_secs(), parsed.subsec_nanos()))
            .filter(|duration| !duration.is_zero()))
    };
    Ok(Timeouts { request: read(&limits.request)?, backend_request: read(&limits.backend_request)? })
}
