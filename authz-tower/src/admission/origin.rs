//! Origins: same-origin, given by the operator, or allowed by the route's CORS filter.
use http::{
    HeaderValue,
    header::{HOST, ORIGIN},
    request::Parts,
};

use super::target::request_host;
use crate::Context;

/// Whether the `Origin` of a request, if there is one, may be served (semantics, section 3): exactly one line that
/// names an origin which is same-origin with Host (scheme and port included), in [`crate::Options::allowed_origins`],
/// or among the route's [`Context::cors_origins`]. `null` never is.
pub(super) fn is_admitted(parts: &Parts, context: &Context) -> bool {
    let mut lines = parts.headers.get_all(ORIGIN).iter();
    let Some(line) = lines.next() else { return true };
    if lines.next().is_some() {
        return false;
    }
    let Some(origin) = line.to_str().ok().and_then(Origin::parse) else { return false };
    let host = request_host(parts).or_else(|| parts.headers.get(HOST).and_then(utf8));
    let scheme = if context.peer.tls { "https" } else { "http" };
    if host.and_then(|host| Origin::of(scheme, host)).is_some_and(|own| own == origin) {
        return true;
    }
    let cors = context.cors_origins.as_deref().unwrap_or_default();
    context.options.allowed_origins.iter().chain(cors).any(|pattern| origin.matches(pattern))
}

/// Whether an `Origin` header value is among origin patterns as Gateway API's CORS filter writes them: `*`, or
/// `scheme://host[:port]`, whose host may begin with `*` (one or more characters, dots included). Hosts and schemes
/// compare without case; a port that is left out is the scheme's own. `null` matches nothing.
pub fn origin_matches(origin: &HeaderValue, patterns: &[String]) -> bool {
    utf8(origin)
        .and_then(Origin::parse)
        .is_some_and(|origin| patterns.iter().any(|pattern| origin.matches(pattern)))
}

fn utf8(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok()
}

/// Scheme, host and port (RFC 6454), compared without case.
#[derive(Debug, Clone, Copy)]
struct Origin<'a> {
    scheme: &'a str,
    host: &'a str,
    port: Option<u16>,
}

impl<'a> Origin<'a> {
    fn parse(origin: &'a str) -> Option<Self> {
        let (scheme, rest) = origin.split_once("://")?;
        let scheme_ok = !scheme.is_empty()
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        scheme_ok.then(|| Self::of(scheme, rest)).flatten()
    }

    fn of(scheme: &'a str, host_and_port: &'a str) -> Option<Self> {
        let bracketed = host_and_port.rfind(']').unwrap_or(0);
        let (host, port) = match host_and_port.rfind(':') {
            Some(colon) if colon > bracketed => {
                let port = host_and_port.get(colon + 1..)?;
                let digits = port.bytes().all(|byte| byte.is_ascii_digit());
                (host_and_port.get(..colon)?, Some(port.parse().ok().filter(|_| digits)?))
            }
            _ => (host_and_port, None),
        };
        let host_ok = !host.is_empty()
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._[]:*".contains(&byte));
        host_ok.then(|| Self { scheme, host, port: port.or_else(|| default_port(scheme)) })
    }

    fn matches(&self, pattern: &str) -> bool {
        if pattern == "*" {
            return true;
        }
        let Some(pattern) = Origin::parse(pattern) else { return false };
        let host = match pattern.host.strip_prefix('*') {
            None => self.host.eq_ignore_ascii_case(pattern.host),
            Some(suffix) => {
                let at = self.host.len().checked_sub(suffix.len()).filter(|at| *at > 0);
                at.and_then(|at| self.host.get(at..)).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
            }
        };
        host && self.port == pattern.port && self.scheme.eq_ignore_ascii_case(pattern.scheme)
    }
}

impl PartialEq for Origin<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.port == other.port
            && self.host.eq_ignore_ascii_case(other.host)
            && self.scheme.eq_ignore_ascii_case(other.scheme)
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        _ if scheme.eq_ignore_ascii_case("http") => Some(80),
        _ if scheme.eq_ignore_ascii_case("https") => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(origin: &str, pattern: &str, expected: bool) {
        let found = origin_matches(&HeaderValue::from_str(origin).unwrap(), &[pattern.to_owned()]);
        assert_eq!(found, expected, "`{origin}` against `{pattern}`");
    }

    #[test]
    fn patterns() {
        check("https://a.example", "*", true);
        check("https://a.example", "https://a.example", true);
        check("https://A.example", "https://a.EXAMPLE", true);
        check("https://a.example:443", "https://a.example", true);
        check("https://a.example", "https://a.example:443", true);
        check("http://a.example:80", "http://a.example", true);
        check("https://a.example:8443", "https://a.example", false);
        check("http://a.example", "https://a.example", false);
        check("https://b.example", "https://a.example", false);
        check("https://x.a.example", "https://*.a.example", true);
        check("https://x.y.a.example", "https://*.a.example", true);
        check("https://a.example", "https://*.a.example", false);
        check("https://evila.example", "https://*.a.example", false);
        check("https://.a.example", "https://*.a.example", false);
        check("https://x.a.example:1", "https://*.a.example", false);
        check("https://x.a.example:1", "https://*.a.example:1", true);
        check("https://anything", "https://*", true);
        check("http://anything", "https://*", false);
        check("http://[::1]:80", "http://[::1]", true);
        check("http://[::1]", "http://[::2]", false);
    }

    #[test]
    fn what_is_no_origin_matches_nothing() {
        for origin in [
            "null",
            "",
            "a.example",
            "https://",
            "https://a/",
            "https://a.example:",
            "https://u@a",
            "https://a:+1",
        ] {
            check(origin, "*", false);
        }
    }
}
