//! The HTTP parts of a v1alpha1 rule.
use http::HeaderName;
use policy_model::{HostMatch, Inline, PathMatch, StringMatch};

use super::{Match, Part, Why};
use crate::{
    Request,
    cel::{Pattern, anchored},
    request::mirrors_the_body,
};

/// Compiled `methods`, `paths`, `headers`, `hosts`, `ports`; what was not given is `None`.
#[derive(Debug)]
pub(crate) struct HttpMatch {
    methods: Option<Box<[Box<str>]>>,
    paths: Option<Box<[Path]>>,
    headers: Box<[(HeaderName, Text)]>,
    hosts: Option<Box<[Host]>>,
    ports: Option<Box<[u16]>>,
}

#[derive(Debug)]
enum Path {
    Exact(Box<str>),
    /// Without a slash at the end.
    Prefix(Box<str>),
    Regex(Pattern),
}

#[derive(Debug)]
enum Text {
    Exact(Box<str>),
    Regex(Pattern),
}

#[derive(Debug)]
enum Host {
    Exact(Box<str>),
    /// With the dot before it.
    Below(Box<str>),
}

impl HttpMatch {
    /// `None` where the rule has no HTTP parts.
    ///
    /// # Errors
    /// What is wrong with a pattern or a header's name.
    pub(crate) fn new(model: &Inline) -> Result<Option<Self>, String> {
        let Inline { methods, paths, headers, hosts, ports, mcp: _ } = model;
        if methods.is_none() && paths.is_none() && headers.is_none() && hosts.is_none() && ports.is_none() {
            return Ok(None);
        }
        let regex = |pattern: &str| {
            anchored(pattern)
                .map_err(|why| format!("the regular expression `{pattern}` does not compile: {why}"))
        };
        let path = |path: &PathMatch| {
            Ok::<_, String>(match path {
                PathMatch::Exact(path) => Path::Exact(path.as_str().into()),
                PathMatch::Prefix(path) => Path::Prefix(path.strip_suffix('/').unwrap_or(path).into()),
                PathMatch::Regex(pattern) => Path::Regex(regex(pattern)?),
            })
        };
        let header = |header: &policy_model::HeaderMatch| {
            let name = HeaderName::try_from(header.name.as_str())
                .ok()
                .ok_or_else(|| format!("`{}` is no header name", header.name))?;
            let value = match &header.value {
                StringMatch::Exact(value) => Text::Exact(value.as_str().into()),
                StringMatch::Regex(pattern) => Text::Regex(regex(pattern)?),
            };
            Ok::<_, String>((name, value))
        };
        let host = |host: &HostMatch| match host {
            HostMatch::Exact(name) => Host::Exact(name.as_str().into()),
            HostMatch::Wildcard(suffix) => Host::Below(format!(".{suffix}").into()),
        };
        Ok(Some(Self {
            methods: methods
                .as_ref()
                .map(|list| list.iter().map(|method| method.0.as_str().into()).collect()),
            paths: paths.as_ref().map(|list| list.iter().map(path).collect::<Result<_, _>>()).transpose()?,
            headers: headers.iter().flatten().map(header).collect::<Result<_, _>>()?,
            hosts: hosts.as_ref().map(|list| list.iter().map(host).collect()),
            ports: ports.as_ref().map(|list| list.as_slice().into()),
        }))
    }

    /// Which list was given without an element, if any: it matches nothing.
    pub(crate) fn empty_list(&self) -> Option<&'static str> {
        let is_empty = [
            ("methods", self.methods.as_deref().is_some_and(<[_]>::is_empty)),
            ("paths", self.paths.as_deref().is_some_and(<[_]>::is_empty)),
            ("hosts", self.hosts.as_deref().is_some_and(<[_]>::is_empty)),
            ("ports", self.ports.as_deref().is_some_and(<[_]>::is_empty)),
        ];
        is_empty.into_iter().find_map(|(name, empty)| empty.then_some(name))
    }

    /// A tools/call is a POST.
    pub(crate) fn could_be_a_call(&self) -> bool {
        self.empty_list().is_none()
            && self.methods.as_deref().is_none_or(|list| list.iter().any(|m| **m == *"POST"))
    }

    pub(super) fn matches<'v>(&self, request: &Request<'_>) -> Match<'v> {
        let http = &request.http;
        if let Some(methods) = &self.methods
            && !methods.iter().any(|method| **method == *http.method)
        {
            return Match::No(Part::Method);
        }
        if let Some(ports) = &self.ports
            && !ports.contains(&request.port)
        {
            return Match::No(Part::Port);
        }
        let paths = match &self.paths {
            Some(paths) => any_path(paths, http.path()),
            None => Match::Yes,
        };
        let hosts = || match &self.hosts {
            Some(hosts) => host(hosts, http.host),
            None => Match::Yes,
        };
        paths.and(hosts).and(|| {
            self.headers.iter().fold(Match::Yes, |so_far, (name, value)| {
                so_far.and(|| {
                    let lines = http.headers.get_all(name);
                    if mirrors_the_body(name.as_str())
                        && !request.mirrors_are_checked()
                        && lines.iter().next().is_some()
                    {
                        return Match::Unknown(Why::HeaderUnchecked);
                    }
                    header(value, lines)
                })
            })
        })
    }
}

impl Path {
    /// `None`: too much to search.
    fn matches(&self, path: &str) -> Option<bool> {
        match self {
            Self::Exact(exact) => Some(path == &**exact),
            Self::Prefix(prefix) => Some(
                path.strip_prefix(&**prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            ),
            Self::Regex(pattern) => pattern.is_bounded(path.len()).then(|| pattern.is_match(path)),
        }
    }
}

fn any_path<'v>(paths: &[Path], path: &str) -> Match<'v> {
    let mut so_far = Match::No(Part::Path);
    for one in paths {
        match one.matches(path) {
            Some(true) => return Match::Yes,
            Some(false) => {}
            None => so_far = Match::Unknown(Why::TooLong),
        }
    }
    so_far
}

/// Every line must match; a header that is missing does not.
fn header<'v>(text: &Text, lines: http::header::GetAll<'_, http::HeaderValue>) -> Match<'v> {
    let (mut count, mut bytes) = (0_usize, 0_usize);
    for line in &lines {
        count += 1;
        bytes += line.len();
    }
    if count == 0 {
        return Match::No(Part::Header);
    }
    lines.iter().fold(Match::Yes, |so_far, line| {
        so_far.and(|| match text {
            Text::Exact(exact) => Match::when(line.as_bytes() == exact.as_bytes(), Part::Header),
            // What is searched is bounded for all lines together.
            Text::Regex(pattern) => match std::str::from_utf8(line.as_bytes()) {
                Ok(line) if pattern.is_bounded(bytes) => Match::when(pattern.is_match(line), Part::Header),
                Ok(_) => Match::Unknown(Why::TooLong),
                Err(_) => Match::Unknown(Why::HeaderNotText),
            },
        })
    })
}

fn host<'v>(hosts: &[Host], received: &str) -> Match<'v> {
    // None of none, whatever the host is.
    if hosts.is_empty() {
        return Match::No(Part::Host);
    }
    let Some(name) = host_name(received) else { return Match::Unknown(Why::HostUnclear) };
    let matches = |host: &Host| match host {
        Host::Exact(exact) => name.eq_ignore_ascii_case(exact),
        Host::Below(suffix) => name
            .len()
            .checked_sub(suffix.len())
            .and_then(|at| name.split_at_checked(at))
            .is_some_and(|(labels, rest)| !labels.is_empty() && rest.eq_ignore_ascii_case(suffix)),
    };
    Match::when(hosts.iter().any(matches), Part::Host)
}

/// The host without its port; `None` where it is no plain name or address (user information, a dot at the
/// end, an empty label), which servers read in different ways.
fn host_name(received: &str) -> Option<&str> {
    let (name, port) = if received.starts_with('[') {
        let end = received.find(']')?;
        let (name, port) = received.split_at_checked(end + 1)?;
        (name, port.strip_prefix(':').or_else(|| port.is_empty().then_some(""))?)
    } else {
        received.split_once(':').unwrap_or((received, ""))
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_name = name.bytes().all(plain) && name.split('.').all(|label| !label.is_empty());
    let is_v6 = name.starts_with('[') && name.bytes().all(|b| b.is_ascii_hexdigit() || b"[]:.".contains(&b));
    ((is_name || is_v6) && port.bytes().all(|byte| byte.is_ascii_digit())).then_some(name)
}
