//! One match of one rule, compiled.
use std::borrow::Cow;

use gateway_api::httproutes::{
    HttpRouteRulesMatches, HttpRouteRulesMatchesHeadersType as HeaderType,
    HttpRouteRulesMatchesMethod as Method, HttpRouteRulesMatchesPathType as PathType,
    HttpRouteRulesMatchesQueryParamsType as QueryType,
};
use http::{HeaderMap, HeaderName};
use regex::{Regex, RegexBuilder};

use crate::RouteRequest;

/// Bytes that one compiled expression may take. In the worst case each byte of a text meets every state, some 80 ns for
/// each KiB, and expressions are tried before anybody is known to be allowed.
const REGEX_SIZE_LIMIT: usize = 64 << 10;

/// How a path is matched.
#[derive(Debug)]
pub(super) enum PathMatcher {
    Exact(String),
    /// By path element; without a trailing slash, so that `/` is empty.
    Prefix(String),
    Regex(Regex),
}

/// How a value is matched.
#[derive(Debug)]
enum ValueMatcher {
    Exact(String),
    Regex(Regex),
}

/// Everything of a match other than its path.
#[derive(Debug)]
pub(super) struct Conditions {
    method: Option<&'static str>,
    headers: Vec<(HeaderName, ValueMatcher)>,
    query: Vec<(String, ValueMatcher)>,
}

/// Compiles a match.
///
/// # Errors
/// What does not compile; it then matches nothing.
pub(super) fn compile(one: &HttpRouteRulesMatches) -> Result<(PathMatcher, Conditions), String> {
    let path = match &one.path {
        None => PathMatcher::Prefix(String::new()),
        Some(path) => {
            let value = path.value.as_deref().unwrap_or("/");
            match path.r#type {
                Some(PathType::Exact) => PathMatcher::Exact(value.to_owned()),
                None | Some(PathType::PathPrefix) => {
                    PathMatcher::Prefix(value.strip_suffix('/').unwrap_or(value).to_owned())
                }
                Some(PathType::RegularExpression) => PathMatcher::Regex(anchored(value)?),
            }
        }
    };
    let mut headers: Vec<(HeaderName, ValueMatcher)> = Vec::new();
    for header in one.headers.iter().flatten() {
        let name = HeaderName::from_bytes(header.name.as_bytes())
            .map_err(|_invalid| format!("`{}` is no header name; mend it", header.name))?;
        let value = match header.r#type {
            None | Some(HeaderType::Exact) => ValueMatcher::Exact(header.value.clone()),
            Some(HeaderType::RegularExpression) => ValueMatcher::Regex(anchored(&header.value)?),
        };
        // Of entries with an equivalent name only the first counts.
        if !headers.iter().any(|(other, _)| *other == name) {
            headers.push((name, value));
        }
    }
    let mut query: Vec<(String, ValueMatcher)> = Vec::new();
    for param in one.query_params.iter().flatten() {
        let value = match param.r#type {
            None | Some(QueryType::Exact) => ValueMatcher::Exact(param.value.clone()),
            Some(QueryType::RegularExpression) => ValueMatcher::Regex(anchored(&param.value)?),
        };
        if !query.iter().any(|(other, _)| *other == param.name) {
            query.push((param.name.clone(), value));
        }
    }
    Ok((path, Conditions { method: one.method.as_ref().map(method_name), headers, query }))
}

/// A regular expression that must match the whole of a text.
fn anchored(pattern: &str) -> Result<Regex, String> {
    let build = |text: &str| {
        RegexBuilder::new(text).size_limit(REGEX_SIZE_LIMIT).build().map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => format!(
                "regular expression `{pattern}` is over {REGEX_SIZE_LIMIT} bytes when compiled; shorten it or its repetitions"
            ),
            other => format!("regular expression `{pattern}` does not compile ({other}); mend it"),
        })
    };
    // On its own first: `a)|(b` would compile within the group.
    build(pattern)?;
    build(&format!(r"\A(?:{pattern})\z"))
}

fn method_name(method: &Method) -> &'static str {
    match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
        Method::Connect => "CONNECT",
        Method::Options => "OPTIONS",
        Method::Trace => "TRACE",
        Method::Patch => "PATCH",
    }
}

impl Conditions {
    /// The more specific the greater: a method, then the number of headers, then of query parameters.
    pub(super) fn specificity(&self) -> (bool, usize, usize) {
        (self.method.is_some(), self.headers.len(), self.query.len())
    }

    pub(super) fn matches(&self, request: &RouteRequest<'_>) -> bool {
        self.method.is_none_or(|method| method == request.method)
            && self.headers.iter().all(|(name, value)| header_matches(request.headers, name, value))
            && self.query.iter().all(|(name, value)| query_matches(request.query, name, value))
    }
}

impl ValueMatcher {
    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(value) => value == text,
            Self::Regex(regex) => regex.is_match(text),
        }
    }
}

/// A repeated header is compared as one, its lines joined with `,` (RFC 9110, 5.3). A value that is no UTF-8 matches nothing.
fn header_matches(headers: &HeaderMap, name: &HeaderName, matcher: &ValueMatcher) -> bool {
    let mut lines = headers.get_all(name).iter();
    let Some(first) = lines.next() else { return false };
    let Ok(first) = std::str::from_utf8(first.as_bytes()) else { return false };
    let mut joined = Cow::Borrowed(first);
    for line in lines {
        let Ok(line) = std::str::from_utf8(line.as_bytes()) else { return false };
        let joined = joined.to_mut();
        joined.push(',');
        joined.push_str(line);
    }
    matcher.matches(&joined)
}

/// The first parameter of that name counts; names and values are compared decoded.
fn query_matches(query: Option<&str>, name: &str, matcher: &ValueMatcher) -> bool {
    let pairs = query.unwrap_or_default().split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut values = pairs.filter(|(key, _)| decoded(key).as_deref() == Some(name)).map(|(_, value)| value);
    values.next().and_then(decoded).is_some_and(|value| matcher.matches(&value))
}

/// Percent-decoded, `+` as a space. `None` for what is no UTF-8, or an escape that is none.
fn decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}
