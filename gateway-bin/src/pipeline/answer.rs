//! What is answered without a backend: CORS preflights and redirects.
use authz_tower::origin_matches;
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
        ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderName, LOCATION, ORIGIN, VARY,
    },
    request::Parts,
};
use xds_translate::{CorsFilter, Redirect};

use super::{Arrival, path, without_port};

/// Whether a request is a CORS preflight (Fetch standard).
pub(super) fn is_preflight(parts: &Parts) -> bool {
    parts.method == Method::OPTIONS
        && parts.headers.contains_key(ORIGIN)
        && parts.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to a preflight: 204 with what the filter allows, 403 for an origin that it does not name.
pub(super) fn preflight(cors: &CorsFilter, parts: &Parts) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    if !add_origin(cors, &parts.headers, response.headers_mut()) {
        *response.status_mut() = StatusCode::FORBIDDEN;
        return response;
    }
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    add_list(headers, ACCESS_CONTROL_ALLOW_METHODS, &cors.allow_methods, || {
        parts.headers.get(ACCESS_CONTROL_REQUEST_METHOD).cloned()
    });
    add_list(headers, ACCESS_CONTROL_ALLOW_HEADERS, &cors.allow_headers, || {
        parts.headers.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned()
    });
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(cors.max_age));
    response
}

/// What a response to a page of an allowed origin needs.
pub(crate) fn add_cors_headers(cors: &CorsFilter, request: &HeaderMap, response: &mut HeaderMap) {
    for name in [
        ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_ALLOW_CREDENTIALS,
        ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_HEADERS,
        ACCESS_CONTROL_EXPOSE_HEADERS,
        ACCESS_CONTROL_MAX_AGE,
    ] {
        response.remove(name);
    }
    if add_origin(cors, request, response) {
        add_list(response, ACCESS_CONTROL_EXPOSE_HEADERS, &cors.expose_headers, || None);
    }
}

/// Adds the headers for the request's origin. False: there is none, or it is not allowed.
fn add_origin(cors: &CorsFilter, request: &HeaderMap, response: &mut HeaderMap) -> bool {
    let Some(origin) = request.get(ORIGIN) else { return false };
    response.append(VARY, HeaderValue::from_static("origin"));
    if !origin_matches(origin, &cors.allow_origins) {
        return false;
    }
    let any = cors.allow_origins.iter().any(|allowed| allowed == "*") && !cors.allow_credentials;
    let allowed = if any { HeaderValue::from_static("*") } else { origin.clone() };
    response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    if cors.allow_credentials {
        response.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    true
}

/// A list; `*` is answered with what was asked for, since browsers take it literally with credentials.
fn add_list(
    headers: &mut HeaderMap,
    name: HeaderName,
    values: &[String],
    asked: impl FnOnce() -> Option<HeaderValue>,
) {
    let value = if values.iter().any(|value| value == "*") {
        asked().or_else(|| Some(HeaderValue::from_static("*")))
    } else if values.is_empty() {
        None
    } else {
        HeaderValue::from_str(&values.join(", ")).ok()
    };
    if let Some(value) = value {
        headers.insert(name, value);
    }
}

/// The answer of a RequestRedirect filter; `None`: no valid location can be made.
pub(super) fn redirect(
    redirect: &Redirect,
    parts: &Parts,
    host: &str,
    matched_prefix: &str,
    arrival: &Arrival<'_>,
) -> Option<Response<Bytes>> {
    let own_scheme = if arrival.tls { "https" } else { "http" };
    let scheme = redirect.scheme.as_deref().unwrap_or(own_scheme);
    let hostname = redirect.hostname.as_deref().unwrap_or_else(|| without_port(host));
    // Gateway API: without `port`, the well-known port of a scheme that is given, else the listener's.
    let port = match (redirect.port, redirect.scheme.as_deref()) {
        (Some(port), _) => Some(port),
        (None, Some(_)) => None,
        (None, None) => Some(arrival.port),
    };
    let port = port.filter(|port| !matches!((scheme, port), ("http", 80) | ("https", 443)));
    let path = match &redirect.path {
        Some(change) => path::rewrite(change, matched_prefix, parts.uri.path()),
        None => parts.uri.path().to_owned(),
    };
    let mut location = format!("{scheme}://{hostname}");
    if let Some(port) = port {
        location.push_str(&format!(":{port}"));
    }
    location.push_str(&path);
    if let Some(query) = parts.uri.query() {
        location.push('?');
        location.push_str(query);
    }
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::from_u16(redirect.status).ok().filter(StatusCode::is_redirection)?;
    response.headers_mut().insert(LOCATION, HeaderValue::try_from(location).ok()?);
    Some(response)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts(headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(Method::OPTIONS).uri("/old/x?q=1");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    const PREFLIGHT: [(&str, &str); 3] = [
        ("origin", "https://app.example.com"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "mcp-session-id"),
    ];

    #[track_caller]
    fn check_preflight(cors: &CorsFilter, status: u16, expected: &[(&str, &str)]) {
        let response = preflight(cors, &parts(&PREFLIGHT));
        assert_eq!(response.status().as_u16(), status);
        let headers: Vec<_> =
            response.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(headers, expected);
    }

    #[test]
    fn preflights() {
        let named = CorsFilter {
            allow_origins: vec!["https://*.example.com".to_owned()],
            allow_methods: vec!["GET".to_owned(), "POST".to_owned()],
            allow_headers: vec!["*".to_owned()],
            max_age: 7,
            ..CorsFilter::default()
        };
        check_preflight(
            &named,
            204,
            &[
                ("vary", "origin"),
                ("access-control-allow-origin", "https://app.example.com"),
                ("access-control-allow-methods", "GET, POST"),
                ("access-control-allow-headers", "mcp-session-id"),
                ("access-control-max-age", "7"),
            ],
        );
        let other =
            CorsFilter { allow_origins: vec!["https://example.org".to_owned()], ..CorsFilter::default() };
        check_preflight(&other, 403, &[("vary", "origin")]);
        assert!(is_preflight(&parts(&PREFLIGHT)));
        assert!(!is_preflight(&parts(&PREFLIGHT[..1])));
    }

    #[test]
    fn an_upstreams_own_cors_headers_do_not_survive() {
        let cors =
            CorsFilter { allow_origins: vec!["https://example.org".to_owned()], ..CorsFilter::default() };
        let mut headers = HeaderMap::new();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        add_cors_headers(&cors, &parts(&PREFLIGHT).headers, &mut headers);
        assert!(!headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
    }

    #[track_caller]
    fn check_redirect(given: Redirect, tls: bool, port: u16, expected: Option<&str>) {
        let arrival = Arrival { port, listener: None, identity: None, tls, with_backend: None };
        let response = redirect(&given, &parts(&[]), "a.example:8080", "/old", &arrival);
        let location = response.map(|response| response.headers()[LOCATION].to_str().unwrap().to_owned());
        assert_eq!(location.as_deref(), expected);
    }

    #[test]
    fn redirects() {
        let base = Redirect { scheme: None, hostname: None, port: None, path: None, status: 302 };
        check_redirect(base.clone(), false, 8080, Some("http://a.example:8080/old/x?q=1"));
        check_redirect(base.clone(), false, 80, Some("http://a.example/old/x?q=1"));
        check_redirect(base.clone(), true, 443, Some("https://a.example/old/x?q=1"));
        let https = Redirect { scheme: Some("https".to_owned()), ..base.clone() };
        check_redirect(https, false, 8080, Some("https://a.example/old/x?q=1"));
        let moved = Redirect {
            hostname: Some("b.example".to_owned()),
            port: Some(8443),
            path: Some(xds_translate::PathRewrite::Prefix("/new".to_owned())),
            ..base.clone()
        };
        check_redirect(moved, false, 80, Some("http://b.example:8443/new/x?q=1"));
        check_redirect(Redirect { status: 200, ..base }, false, 80, None);
    }
}
