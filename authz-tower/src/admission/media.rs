//! Content-Type, Accept and the codings of a body.
use http::{
    HeaderMap, HeaderName,
    header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, TRANSFER_ENCODING},
};

/// The first two lines of a header: the second is only ever proof that it is repeated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lines<'a> {
    values: [&'a [u8]; 2],
    count: usize,
}

impl<'a> Lines<'a> {
    pub(crate) fn of(headers: &'a HeaderMap, name: &HeaderName) -> Self {
        let mut lines = Self { values: [&[]; 2], count: 0 };
        for (slot, value) in lines.values.iter_mut().zip(headers.get_all(name)) {
            *slot = value.as_bytes();
            lines.count += 1;
        }
        lines
    }

    pub(crate) fn as_slice(&self) -> &[&'a [u8]] {
        self.values.get(..self.count).unwrap_or_default()
    }

    /// The value, if there is exactly one line.
    pub(crate) fn only(&self) -> Option<&'a [u8]> {
        match self.as_slice() {
            [only] => Some(only),
            _ => None,
        }
    }
}

/// Exactly one Content-Type: `application/json`, with no parameter other than `charset=utf-8`.
pub(crate) fn is_strict_json(headers: &HeaderMap) -> bool {
    let Some(value) = Lines::of(headers, &CONTENT_TYPE).only() else { return false };
    // Nearly all there is.
    if value == b"application/json" {
        return true;
    }
    let mut parts = value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let essence = parts.next().unwrap_or_default();
    let charset = parts.next();
    essence.eq_ignore_ascii_case(b"application/json")
        && parts.next().is_none()
        && charset.is_none_or(|parameter| {
            parameter.eq_ignore_ascii_case(b"charset=utf-8")
                || parameter.eq_ignore_ascii_case(b"charset=\"utf-8\"")
        })
}

/// Some Content-Type line names JSON (`application/json`, `text/json`, `*+json`), whatever its parameters.
pub(crate) fn names_json(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_TYPE).iter().any(|value| {
        value.as_bytes().split(|byte| *byte == b',').map(essence).any(|essence| {
            let suffix = essence.len().checked_sub(5).and_then(|at| essence.get(at..));
            essence.eq_ignore_ascii_case(b"application/json")
                || essence.eq_ignore_ascii_case(b"text/json")
                || suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case(b"+json"))
        })
    })
}

/// The (first) Content-Type is `text/event-stream`, whatever its parameters.
pub fn is_event_stream(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .is_some_and(|value| essence(value.as_bytes()).eq_ignore_ascii_case(b"text/event-stream"))
}

/// `text/event-stream` stands in Accept literally, with a weight over zero wherever it stands.
pub(crate) fn accepts_event_stream(headers: &HeaderMap) -> bool {
    let mut named = false;
    for value in headers.get_all(ACCEPT) {
        for range in split_unquoted(value.as_bytes(), b',') {
            if essence(range).eq_ignore_ascii_case(b"text/event-stream") {
                named = true;
                if !split_unquoted(range, b';').skip(1).all(is_positive_weight_or_other) {
                    return false;
                }
            }
        }
    }
    named
}

/// Every coding of the body is `identity`.
pub(crate) fn has_identity_coding(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .all(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"identity"))
}

/// No transfer coding other than `chunked`, once.
pub(crate) fn has_plain_framing(headers: &HeaderMap) -> bool {
    let lines = Lines::of(headers, &TRANSFER_ENCODING);
    match lines.as_slice() {
        [] => true,
        [coding] => coding.trim_ascii().eq_ignore_ascii_case(b"chunked"),
        _ => false,
    }
}

fn essence(value: &[u8]) -> &[u8] {
    let end = memchr::memchr(b';', value).unwrap_or(value.len());
    value.get(..end).unwrap_or_default().trim_ascii()
}

/// Splits at `separator` outside quoted strings.
fn split_unquoted(value: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    value.split(move |byte| {
        if escaped {
            escaped = false;
            return false;
        }
        match byte {
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
        *byte == separator && !quoted
    })
}

/// A parameter other than `q`, or a weight of RFC 9110, section 12.4.2, over zero.
fn is_positive_weight_or_other(parameter: &[u8]) -> bool {
    let parameter = parameter.trim_ascii();
    let Some((b'q' | b'Q', rest)) = parameter.split_first() else { return true };
    let rest = rest.trim_ascii_start();
    let Some(weight) = rest.strip_prefix(b"=") else { return true };
    match weight.trim_ascii() {
        [b'1'] => true,
        [b'1', b'.', zeros @ ..] => zeros.len() <= 3 && zeros.iter().all(|digit| *digit == b'0'),
        [b'0', b'.', digits @ ..] => {
            digits.len() <= 3
                && digits.iter().all(u8::is_ascii_digit)
                && digits.iter().any(|digit| *digit != b'0')
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, lines: &[&str]) -> HeaderMap {
        lines.iter().map(|line| (name.clone(), http::HeaderValue::from_str(line).unwrap())).collect()
    }

    #[track_caller]
    fn json(lines: &[&str], strict: bool, named: bool) {
        let headers = headers(CONTENT_TYPE, lines);
        assert_eq!(is_strict_json(&headers), strict, "strict {lines:?}");
        assert_eq!(names_json(&headers), named, "named {lines:?}");
    }

    #[test]
    fn content_types() {
        json(&["application/json"], true, true);
        json(&["Application/JSON; Charset=UTF-8"], true, true);
        json(&["application/json;charset=\"utf-8\""], true, true);
        json(&["application/json; charset=latin1"], false, true);
        json(&["application/json; charset=utf-8; charset=latin1"], false, true);
        json(&["application/json; version=1"], false, true);
        json(&["application/json;"], false, true);
        json(&["application/json", "application/json"], false, true);
        json(&["text/plain", "application/json"], false, true);
        json(&["text/plain, application/json"], false, true);
        json(&["application/vnd.api+JSON"], false, true);
        json(&["text/json"], false, true);
        json(&["application/jsonp"], false, false);
        json(&["application/json-rpc"], false, false);
        json(&["text/plain"], false, false);
        json(&[""], false, false);
        json(&[], false, false);
    }

    #[track_caller]
    fn accept(lines: &[&str], expected: bool) {
        assert_eq!(accepts_event_stream(&headers(ACCEPT, lines)), expected, "{lines:?}");
    }

    #[test]
    fn accepts() {
        accept(&["text/event-stream"], true);
        accept(&["application/json, text/event-stream"], true);
        accept(&["application/json", "Text/Event-Stream;q=0.001"], true);
        accept(&["text/event-stream ; q=1.000"], true);
        accept(&["text/event-stream;charset=utf-8"], true);
        accept(&["text/event-stream;x=\",\";q=0.5"], true);
        accept(&["*/*"], false);
        accept(&["text/*"], false);
        accept(&["application/json"], false);
        accept(&["text/event-stream;q=0"], false);
        accept(&["text/event-stream;Q=0.000"], false);
        accept(&["text/event-stream; q = 0"], false);
        accept(&["text/event-stream;q=0, text/event-stream"], false);
        accept(&["text/event-stream;q=2"], false);
        accept(&["text/event-stream;q=0.0001"], false);
        accept(&["text/event-stream;q="], false);
        accept(&["x/y;z=\",text/event-stream,\""], false);
        accept(&["text/event-streams"], false);
        accept(&[], false);
    }

    #[test]
    fn codings() {
        for (lines, expected) in [
            (&[][..], true),
            (&["identity"], true),
            (&["Identity, identity"], true),
            (&["gzip"], false),
            (&["identity, gzip"], false),
            (&["identity", "br"], false),
            (&[""], false),
        ] {
            assert_eq!(has_identity_coding(&headers(CONTENT_ENCODING, lines)), expected, "{lines:?}");
        }
        for (lines, expected) in [
            (&[][..], true),
            (&["chunked"], true),
            (&["Chunked "], true),
            (&["gzip, chunked"], false),
            (&["gzip", "chunked"], false),
            (&["chunked", "chunked"], false),
        ] {
            assert_eq!(has_plain_framing(&headers(TRANSFER_ENCODING, lines)), expected, "{lines:?}");
        }
    }

    #[test]
    fn event_streams() {
        for (lines, expected) in [
            (&["text/event-stream"][..], true),
            (&["Text/Event-Stream; charset=utf-8"], true),
            (&["application/json"], false),
            (&[], false),
        ] {
            assert_eq!(is_event_stream(&headers(CONTENT_TYPE, lines)), expected, "{lines:?}");
        }
    }
}
