//! CORS, and the origins that a request may come from.
use serde_json::{Value, json};

use super::{
    super::json::any,
    regex::{checked, escaped},
    test::{Test, Text, header, header_present, own_flag},
};
use crate::CorsFilter;

/// The filter's name.
pub(super) const FILTER: &str = "envoy.filters.http.cors";

/// A route's `CorsPolicy`. A preflight from another origin is answered too, without the headers that would allow it.
pub(super) fn policy(cors: &CorsFilter) -> Value {
    let origins: Vec<Value> = cors.allow_origins.iter().filter_map(|origin| pattern(origin)).collect();
    any(
        "envoy.extensions.filters.http.cors.v3.CorsPolicy",
        json!({
            "allow_origin_string_match": origins,
            "allow_methods": cors.allow_methods.join(", "),
            "allow_headers": cors.allow_headers.join(", "),
            "expose_headers": cors.expose_headers.join(", "),
            "max_age": cors.max_age.to_string(),
            "allow_credentials": cors.allow_credentials,
            "forward_not_matching_preflights": false,
        }),
    )
}

/// No origin, that of the Host, or one of these.
pub(super) fn is_admitted<'o>(origins: impl Iterator<Item = &'o String>) -> Test {
    let allowed = origins.filter_map(|origin| pattern(origin)).map(|text| header("origin", Text(text)));
    Test::any([header_present("origin").negated(), own_flag("same_origin"), Test::any(allowed)])
}

/// A `StringMatcher` of an origin as Gateway API writes it; `None`: Envoy cannot be given it.
fn pattern(origin: &str) -> Option<Value> {
    const SCHEME: &str = r"[A-Za-z0-9+.-]+://[A-Za-z0-9._:\[\]-]+";
    let regex =
        |pattern: &str| checked(pattern).ok().map(|pattern| json!({"safe_regex": {"regex": pattern}}));
    if origin == "*" {
        return regex(SCHEME);
    }
    let (scheme, host) = origin.split_once("://")?;
    let default = match scheme.to_ascii_lowercase().as_str() {
        "https" => ":443",
        "http" => ":80",
        _ => "",
    };
    // A port that is left out is the scheme's own.
    let (host, port) =
        match host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())) {
            Some((host, port)) if format!(":{port}") == default => (host, format!("(?:{default})?")),
            Some((host, port)) => (host, format!(":{port}")),
            None if default.is_empty() => (host, String::new()),
            None => (host, format!("(?:{default})?")),
        };
    let host = match host.strip_prefix('*') {
        Some(suffix) => format!("[A-Za-z0-9._-]+{}", escaped(suffix)),
        None => escaped(host),
    };
    regex(&format!("(?i){}://{host}{port}", escaped(scheme)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(allowed: &str, origin: &str, expected: bool) {
        let matcher = pattern(allowed).unwrap();
        let regex = matcher["safe_regex"]["regex"].as_str().unwrap();
        let regex = regex::Regex::new(&format!(r"\A(?:{regex})\z")).unwrap();
        assert_eq!(regex.is_match(origin), expected, "`{origin}` against `{allowed}`");
    }

    #[test]
    fn origins() {
        check("*", "https://a.example", true);
        check("*", "null", false);
        check("*", "https://a.example,https://b.example", false);
        check("https://a.example", "https://A.example", true);
        check("https://a.example", "https://a.example:443", true);
        check("https://a.example:443", "https://a.example", true);
        check("https://a.example", "https://a.example:8443", false);
        check("https://a.example", "https://axexample", false);
        check("http://a.example:8080", "http://a.example:8080", true);
        check("https://*.a.example", "https://x.a.example", true);
        check("https://*.a.example", "https://a.example", false);
        check("https://*.a.example", "https://evil/.a.example", false);
        check("https://a.example", "http://a.example", false);
    }
}
