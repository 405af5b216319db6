//! Compiled rules and how they match. `decide`, `explain` and `could_call` all come through here.
mod http;
mod mcp;

use std::fmt;

use spiffe_id::SpiffeId;

pub(crate) use self::{http::HttpMatch, mcp::McpMatcher};
use crate::{
    AuthorizerId,
    act::{Act, Case, Mcp},
    cel::{Call, EvalError, Expression, Facts},
};

/// A rule.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) name: Box<str>,
    pub(crate) source: Source,
    pub(crate) condition: Condition,
}

/// Whom a rule is about.
#[derive(Debug)]
pub(crate) enum Source {
    Anyone,
    /// Exactly this SPIFFE ID.
    Identity(Box<str>),
}

/// What a rule is about.
#[derive(Debug)]
pub(crate) enum Condition {
    Anything,
    NotToolCall,
    /// Sorted.
    Tools(Box<[Box<str>]>),
    /// `tools/call`, delegated.
    Delegated(AuthorizerId),
    Inline(Box<Inline>),
}

/// Inline and CEL.
#[derive(Debug, Default)]
pub(crate) struct Inline {
    pub(crate) http: Option<HttpMatch>,
    pub(crate) mcp: Option<McpMatcher>,
    pub(crate) cel: Option<Expression>,
}

/// Whether a rule matches.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Match<'v> {
    Yes,
    No(Part),
    /// Cannot be told: false in an Allow rule, matching in an ExternalAuth policy.
    Unknown(Why<'v>),
}

/// The part of a rule that differs from the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Source,
    NotToolsCall,
    ToolsCall,
    Tool,
    BodyNotParsed,
    Method,
    Path,
    Header,
    Host,
    Port,
    NotMcp,
    McpMethod,
    McpParams,
    Cel,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "another identity, or none",
            Self::NotToolsCall => "not a tools/call",
            Self::ToolsCall => "a tools/call",
            Self::Tool => "a tool that is not listed",
            Self::BodyNotParsed => "the body was not parsed",
            Self::Method => "another HTTP method",
            Self::Path => "another path",
            Self::Header => "a header is missing or has another value",
            Self::Host => "another host",
            Self::Port => "another listener's port",
            Self::NotMcp => "not an MCP message",
            Self::McpMethod => "an MCP method that is not listed",
            Self::McpParams => "a name or uri that is not listed",
            Self::Cel => "the CEL expression is false",
        })
    }
}

/// Why it cannot be told whether a rule matches.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Why<'v> {
    BodyNotParsed,
    HeaderNotText,
    /// A header that mirrors the body, under a revision that does not compare them.
    HeaderUnchecked,
    /// A path or header is too long for a regular expression of that size.
    TooLong,
    HostUnclear,
    Cel(EvalError<'v>),
    /// `could_call`: it depends on the rest of the request.
    RestOfRequest,
}

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BodyNotParsed => f.write_str("the body was not parsed"),
            Self::HeaderNotText => f.write_str("a header's value is not text"),
            Self::HeaderUnchecked => {
                f.write_str("a header mirrors the body, and this revision does not compare them")
            }
            Self::TooLong => f.write_str("the path or a header is too long for the regular expression"),
            Self::HostUnclear => f.write_str("the host is not a plain name or address"),
            Self::Cel(error) => write!(f, "CEL: {error}"),
            Self::RestOfRequest => f.write_str("it depends on the rest of the request"),
        }
    }
}

impl<'v> Match<'v> {
    pub(crate) fn is_yes(&self) -> bool {
        *self == Self::Yes
    }

    /// Yes, or cannot be told.
    pub(crate) fn may_be(&self) -> bool {
        !matches!(self, Self::No(_))
    }

    /// Both must match: a No outweighs what cannot be told.
    fn and(self, next: impl FnOnce() -> Self) -> Self {
        match self {
            Self::Yes => next(),
            Self::No(part) => Self::No(part),
            Self::Unknown(why) => match next() {
                Self::No(part) => Self::No(part),
                _ => Self::Unknown(why),
            },
        }
    }

    fn when(matches: bool, part: Part) -> Self {
        if matches { Self::Yes } else { Self::No(part) }
    }
}

impl Source {
    pub(crate) fn matches(&self, identity: Option<&SpiffeId>) -> bool {
        match self {
            Self::Anyone => true,
            Self::Identity(_) => self.names(identity),
        }
    }

    /// Whether it names this very identity.
    pub(crate) fn names(&self, identity: Option<&SpiffeId>) -> bool {
        match (self, identity) {
            (Self::Identity(named), Some(identity)) => **named == *identity.as_str(),
            _ => false,
        }
    }
}

impl Rule {
    /// Whether it matches one act of a request.
    pub(crate) fn matches<'v>(&'v self, case: &'v Case<'_>, act: Act<'v>) -> Match<'v> {
        if !self.source.matches(case.request.identity) {
            return Match::No(Part::Source);
        }
        match &self.condition {
            Condition::Anything => Match::Yes,
            Condition::NotToolCall => match act {
                Act::Message(Mcp { is_call, .. }) => Match::when(!is_call, Part::ToolsCall),
                Act::NotMcp => Match::Yes,
                Act::Unparsed => Match::No(Part::BodyNotParsed),
            },
            Condition::Tools(tools) => match called(act) {
                Some(tool) => Match::when(holds(tools, tool), Part::Tool),
                None => Match::No(Part::NotToolsCall),
            },
            Condition::Delegated(_) => Match::when(called(act).is_some(), Part::NotToolsCall),
            Condition::Inline(inline) => {
                let http = match &inline.http {
                    Some(http) => http.matches(case.request),
                    None => Match::Yes,
                };
                http.and(|| inline.mcp.as_ref().map_or(Match::Yes, |mcp| mcp.matches(act)))
                    .and(|| inline.cel.as_ref().map_or(Match::Yes, |cel| condition_holds(cel, case, act)))
            }
        }
    }

    /// Whether it matches a call of this tool whatever the rest of the request, for some of it, or for none.
    pub(crate) fn matches_tool<'v>(&'v self, identity: Option<&'v SpiffeId>, tool: &'v str) -> Match<'v> {
        if !self.source.matches(identity) {
            return Match::No(Part::Source);
        }
        match &self.condition {
            Condition::Anything | Condition::Delegated(_) => Match::Yes,
            Condition::NotToolCall => Match::No(Part::ToolsCall),
            Condition::Tools(tools) => Match::when(holds(tools, tool), Part::Tool),
            Condition::Inline(inline) => {
                let http = match &inline.http {
                    Some(http) if !http.could_be_a_call() => Match::No(Part::Method),
                    Some(_) => Match::Unknown(Why::RestOfRequest),
                    None => Match::Yes,
                };
                let act = Act::Message(Mcp::call(tool));
                http.and(|| inline.mcp.as_ref().map_or(Match::Yes, |mcp| mcp.matches(act))).and(|| {
                    match &inline.cel {
                        Some(cel) => of_cel(cel.evaluate(Facts { identity, tool, call: None })),
                        None => Match::Yes,
                    }
                })
            }
        }
    }
}

/// The name of the tool that is called.
fn called(act: Act<'_>) -> Option<&str> {
    match act {
        Act::Message(Mcp { is_call: true, target, .. }) => target,
        _ => None,
    }
}

fn holds(sorted: &[Box<str>], text: &str) -> bool {
    sorted.binary_search_by(|entry| (**entry).cmp(text)).is_ok()
}

fn condition_holds<'v>(cel: &'v Expression, case: &'v Case<'_>, act: Act<'v>) -> Match<'v> {
    let tool = match act {
        Act::Unparsed => return Match::Unknown(Why::BodyNotParsed),
        act => called(act),
    };
    let Some(tool) = tool else { return Match::No(Part::NotToolsCall) };
    let call = Call {
        http: case.request.http,
        mirrors_are_checked: case.request.mirrors_are_checked(),
        now: case.request.now_unix_nanos,
        arguments: &case.arguments,
    };
    of_cel(cel.evaluate(Facts { identity: case.request.identity, tool, call: Some(call) }))
}

fn of_cel(result: Result<bool, EvalError<'_>>) -> Match<'_> {
    match result {
        Ok(holds) => Match::when(holds, Part::Cel),
        Err(EvalError::NotKnown) => Match::Unknown(Why::RestOfRequest),
        Err(error) => Match::Unknown(Why::Cel(error)),
    }
}
