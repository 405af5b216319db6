//! `mcp` of a v1alpha1 rule.
use policy_model::McpMatch;

use super::{Match, Part, Why};
use crate::act::{Act, Mcp};

/// A compiled `mcp` part.
#[derive(Debug)]
pub(crate) struct McpMatcher {
    base: bool,
    methods: Option<Box<[MethodMatch]>>,
}

#[derive(Debug)]
struct MethodMatch {
    name: MethodName,
    /// Sorted; `None`: any.
    params: Option<Box<[Box<str>]>>,
}

#[derive(Debug)]
enum MethodName {
    /// `tools/` and the like: every method that begins so.
    Category(Box<str>),
    Exact(Box<str>),
}

impl McpMatcher {
    pub(crate) fn new(model: &McpMatch) -> Self {
        let methods = model.methods.as_ref().map(|methods| {
            let compile = |method: &policy_model::McpMethodMatch| MethodMatch {
                name: match method.name.as_str() {
                    category @ ("tools" | "prompts" | "resources") => {
                        MethodName::Category(format!("{category}/").into())
                    }
                    exact => MethodName::Exact(exact.into()),
                },
                params: method.params.as_deref().filter(|params| !params.is_empty()).map(|params| {
                    let mut sorted: Vec<Box<str>> =
                        params.iter().map(|param| param.as_str().into()).collect();
                    sorted.sort_unstable();
                    sorted.into()
                }),
            };
            methods.iter().map(compile).collect()
        });
        Self { base: model.match_base_protocol, methods }
    }

    /// An empty list of methods without base protocol: no message at all.
    pub(crate) fn matches_nothing(&self) -> bool {
        !self.base && self.methods.as_deref().is_some_and(<[_]>::is_empty)
    }

    pub(super) fn matches<'v>(&self, act: Act<'v>) -> Match<'v> {
        if self.matches_nothing() {
            return Match::No(Part::McpMethod);
        }
        let mcp = match act {
            Act::Message(mcp) => mcp,
            Act::NotMcp => return Match::No(Part::NotMcp),
            Act::Unparsed => return Match::Unknown(Why::BodyNotParsed),
        };
        if self.base && mcp.is_base {
            return Match::Yes;
        }
        let Some(methods) = &self.methods else {
            // Absent: any message, unless base protocol is all that was asked for.
            return Match::when(!self.base, Part::McpMethod);
        };
        let mut named = methods.iter().filter(|method| method.names(&mcp)).peekable();
        if named.peek().is_none() {
            return Match::No(Part::McpMethod);
        }
        Match::when(named.any(|method| method.admits(&mcp)), Part::McpParams)
    }
}

impl MethodMatch {
    fn names(&self, mcp: &Mcp<'_>) -> bool {
        match &self.name {
            MethodName::Category(prefix) => {
                mcp.method.len() > prefix.len() && mcp.method.starts_with(&**prefix)
            }
            MethodName::Exact(name) => mcp.method == &**name,
        }
    }

    fn admits(&self, mcp: &Mcp<'_>) -> bool {
        match &self.params {
            None => true,
            Some(params) => mcp.target.is_some_and(|target| super::holds(params, target)),
        }
    }
}
