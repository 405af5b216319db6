//! Header lines: from Envoy's messages to ours, and what has to change for Envoy to have ours.
use envoy_types::pb::envoy::{
    config::core::v3::{
        HeaderMap as EnvoyHeaders, HeaderValue as EnvoyHeader, HeaderValueOption,
        header_value_option::HeaderAppendAction,
    },
    service::ext_proc::v3::HeaderMutation,
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING},
    request, response,
    uri::PathAndQuery,
};
use xds_translate::envoy::processor::PEER_CHAIN;

/// Envoy frames messages itself.
pub(super) const FRAMING: [HeaderName; 3] = [CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION];

/// A header line as Envoy has it; the pseudo headers (`:path`) are lines too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) value: Vec<u8>,
}

/// The lines of a message, in order.
pub(super) fn lines(headers: Option<EnvoyHeaders>) -> Vec<Line> {
    let headers = headers.unwrap_or_default().headers;
    headers
        .into_iter()
        .map(|EnvoyHeader { key, value, raw_value }| Line {
            name: key,
            value: if raw_value.is_empty() { value.into_bytes() } else { raw_value },
        })
        .collect()
}

/// The value of the last line of that name.
pub(super) fn last<'a>(lines: &'a [Line], name: &str) -> Option<&'a [u8]> {
    lines.iter().rev().find(|line| line.name == name).map(|line| line.value.as_slice())
}

/// How many header lines the client sent, or so: Host is one, what Envoy has added is none.
pub(super) fn sent_by_client(lines: &[Line]) -> usize {
    let is_sent = |line: &&Line| match line.name.as_str() {
        ":authority" => true,
        PEER_CHAIN | "x-forwarded-proto" | "x-envoy-external-address" => false,
        name => !name.starts_with(':'),
    };
    lines.iter().filter(is_sent).count()
}

/// The one line of that name; `None`: there is none.
fn only<'a>(lines: &'a [Line], name: &str) -> Result<Option<&'a [u8]>, String> {
    let mut named = lines.iter().filter(|line| line.name == name);
    match (named.next(), named.next()) {
        (first, None) => Ok(first.map(|line| line.value.as_slice())),
        (_, Some(_)) => Err(format!("`{name}` is repeated")),
    }
}

fn headers(lines: &[Line], headers: &mut HeaderMap) -> Result<(), String> {
    for line in lines.iter().filter(|line| !line.name.starts_with(':')) {
        let name = HeaderName::from_bytes(line.name.as_bytes())
            .map_err(|_error| format!("`{}` is no header name", line.name.escape_debug()))?;
        let value = HeaderValue::from_bytes(&line.value)
            .map_err(|_error| format!("the value of `{name}` is none of a header"))?;
        headers.try_append(name, value).map_err(|_error| "there are too many headers".to_owned())?;
    }
    Ok(())
}

/// The request as a server of HTTP/1.1 would have it: a path, and the host in the Host header.
///
/// # Errors
/// What cannot be put so.
pub(super) fn request(lines: &[Line], version: Version) -> Result<request::Parts, String> {
    let (mut parts, ()) = Request::new(()).into_parts();
    let method = only(lines, ":method")?.ok_or("there is no method")?;
    parts.method = Method::from_bytes(method).map_err(|_error| "the method is no token".to_owned())?;
    let path = only(lines, ":path")?.ok_or("there is no path")?;
    let path = PathAndQuery::try_from(path).map_err(|_error| "the path is none".to_owned())?;
    parts.uri = Uri::from(path);
    parts.version = version;
    if let Some(host) = only(lines, ":authority")? {
        let host = HeaderValue::from_bytes(host).map_err(|_error| "the host is none".to_owned())?;
        parts.headers.insert(HOST, host);
    }
    headers(lines, &mut parts.headers)?;
    Ok(parts)
}

/// The head of a response.
///
/// # Errors
/// What is none.
pub(super) fn response(lines: &[Line]) -> Result<response::Parts, String> {
    let (mut parts, ()) = Response::new(()).into_parts();
    let status = only(lines, ":status")?.ok_or("there is no status")?;
    parts.status = StatusCode::from_bytes(status).map_err(|_error| "the status is none".to_owned())?;
    headers(lines, &mut parts.headers)?;
    Ok(parts)
}

/// What makes `before` into `after` and the pseudo headers; those of `except` stay as they are.
pub(super) fn difference(
    before: &[Line],
    after: &HeaderMap,
    pseudo: &[(&str, &[u8])],
    except: &[HeaderName],
) -> HeaderMutation {
    let had = |name: &str| -> Vec<&[u8]> {
        before.iter().filter(|line| line.name == name).map(|line| line.value.as_slice()).collect()
    };
    let mut change = HeaderMutation::default();
    for (name, value) in pseudo {
        if had(name) != [*value] {
            change.set_headers.push(set(name, value, false));
        }
    }
    for line in before {
        let name = line.name.as_str();
        let goes = !name.starts_with(':')
            && !after.contains_key(name)
            && !except.iter().any(|except| except == name)
            && !change.remove_headers.iter().any(|removed| removed == name);
        if goes {
            change.remove_headers.push(name.to_owned());
        }
    }
    for name in after.keys().filter(|name| !except.contains(name)) {
        let old = had(name.as_str());
        let new: Vec<&[u8]> = after.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        if old == new {
            continue;
        }
        // Overwriting is about one line.
        if !old.is_empty() && (old.len() > 1 || new.len() > 1) {
            change.remove_headers.push(name.as_str().to_owned());
        }
        change
            .set_headers
            .extend(new.iter().enumerate().map(|(at, value)| set(name.as_str(), value, at > 0)));
    }
    change
}

fn set(name: &str, value: &[u8], append: bool) -> HeaderValueOption {
    let action = if append {
        HeaderAppendAction::AppendIfExistsOrAdd
    } else {
        HeaderAppendAction::OverwriteIfExistsOrAdd
    };
    // Versions of Envoy differ in which of the two they look at.
    #[expect(deprecated, reason = "`append` is the one that all versions know")]
    HeaderValueOption {
        header: Some(EnvoyHeader { key: name.to_owned(), value: String::new(), raw_value: value.to_vec() }),
        append: append.then_some(envoy_types::pb::google::protobuf::BoolValue { value: true }),
        append_action: action.into(),
        keep_empty_value: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pairs<'a> = &'a [(&'a str, &'a str)];

    fn map(pairs: Pairs<'_>) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap()))
            .collect()
    }

    fn lines_of(pairs: Pairs<'_>) -> Vec<Line> {
        let line = |(name, value): &(&str, &str)| Line { name: (*name).to_owned(), value: (*value).into() };
        pairs.iter().map(line).collect()
    }

    /// What is removed, and what is set (`+`: added to what is there).
    #[track_caller]
    #[expect(deprecated, reason = "`append` is the one that all versions know")]
    fn check(before: Pairs<'_>, after: Pairs<'_>, removed: &[&str], set: &[&str]) {
        let path = [(":path", b"/a".as_slice())];
        let change = difference(&lines_of(before), &map(after), &path, &FRAMING);
        let found: Vec<String> = change
            .set_headers
            .iter()
            .map(|option| {
                let header = option.header.as_ref().unwrap();
                let plus = if option.append.is_some_and(|append| append.value) { "+" } else { "" };
                assert!(header.value.is_empty(), "only one of the two may be set");
                format!("{plus}{}={}", header.key, std::str::from_utf8(&header.raw_value).unwrap())
            })
            .collect();
        assert_eq!(
            (change.remove_headers, found.as_slice()),
            (
                removed.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(),
                set.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>().as_slice(),
            )
        );
    }

    #[test]
    fn differences() {
        let path = (":path", "/a");
        check(&[path], &[], &[], &[]);
        check(&[(":path", "/b")], &[], &[], &[":path=/a"]);
        check(&[], &[], &[], &[":path=/a"]);
        check(&[path, ("a", "1")], &[("a", "1")], &[], &[]);
        check(&[path, ("a", "1")], &[("a", "2")], &[], &["a=2"]);
        check(&[path, ("a", "1"), ("b", "1"), ("a", "2")], &[("b", "1")], &["a"], &[]);
        check(&[path], &[("a", "1"), ("a", "2")], &[], &["a=1", "+a=2"]);
        check(&[path, ("a", "1")], &[("a", "1"), ("a", "2")], &["a"], &["a=1", "+a=2"]);
        check(&[path, ("a", "1"), ("a", "2")], &[("a", "2"), ("a", "1")], &["a"], &["a=2", "+a=1"]);
        check(&[path, ("a", "1"), ("a", "2")], &[("a", "1")], &["a"], &["a=1"]);
        check(&[path, ("a", "1")], &[("a", "")], &[], &["a="]);
        // Envoy frames messages itself.
        check(&[path, ("transfer-encoding", "chunked")], &[("content-length", "5")], &[], &[]);
    }

    #[test]
    fn requests() {
        let head: Pairs<'_> =
            &[(":method", "GET"), (":path", "/a?b=c"), (":authority", "h:1"), ("a", "1"), ("a", "2")];
        let parts = request(&lines_of(head), Version::HTTP_2).unwrap();
        assert_eq!(
            (parts.method, parts.uri.to_string().as_str(), parts.version),
            (Method::GET, "/a?b=c", Version::HTTP_2)
        );
        assert_eq!(parts.headers, map(&[("host", "h:1"), ("a", "1"), ("a", "2")]));
        let bytes = [lines_of(head), vec![Line { name: "b".to_owned(), value: vec![0xFF] }]].concat();
        assert_eq!(request(&bytes, Version::HTTP_11).unwrap().headers["b"].as_bytes(), [0xFF]);
        for (name, value) in [(":path", "/b"), (":method", "PUT"), ("B C", "x"), ("b", "\r"), ("", "x")] {
            let with = [lines_of(head), lines_of(&[(name, value)])].concat();
            assert!(request(&with, Version::HTTP_11).is_err(), "{name} {value:?}");
        }
    }
}
