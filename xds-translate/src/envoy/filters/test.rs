//! Conditions as Envoy's RBAC filter evaluates them: a tree of `Principal`s, which can ask for identities, headers, paths
//! and metadata alike.
use serde_json::{Value, json};

/// The namespace of the MCP filter's dynamic metadata.
pub(super) const MCP: &str = "envoy.filters.http.mcp";
/// The filter state with all URI SANs of the client's certificate, comma-joined.
pub(super) const PEER: &str = "agentic.peer";

/// A condition.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Test {
    Always,
    Never,
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    /// A `Principal`.
    Is(Value),
}

impl Test {
    pub(super) fn when(holds: bool) -> Self {
        if holds { Self::Always } else { Self::Never }
    }

    pub(super) fn all(tests: impl IntoIterator<Item = Self>) -> Self {
        let mut kept = Vec::new();
        for test in tests {
            match test {
                Self::Always => {}
                Self::Never => return Self::Never,
                Self::All(more) => kept.extend(more),
                other => kept.push(other),
            }
        }
        match kept.len() {
            0 => Self::Always,
            1 => kept.pop().unwrap_or(Self::Always),
            _ => Self::All(kept),
        }
    }

    pub(super) fn any(tests: impl IntoIterator<Item = Self>) -> Self {
        let mut kept = Vec::new();
        for test in tests {
            match test {
                Self::Never => {}
                Self::Always => return Self::Always,
                Self::Any(more) => kept.extend(more),
                other => kept.push(other),
            }
        }
        match kept.len() {
            0 => Self::Never,
            1 => kept.pop().unwrap_or(Self::Never),
            _ => Self::Any(kept),
        }
    }

    pub(super) fn negated(self) -> Self {
        match self {
            Self::Always => Self::Never,
            Self::Never => Self::Always,
            Self::Not(inner) => *inner,
            other => Self::Not(Box::new(other)),
        }
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self::all([self, other])
    }

    pub(super) fn or(self, other: Self) -> Self {
        Self::any([self, other])
    }

    /// A `Principal`.
    pub(super) fn principal(&self) -> Value {
        let all = |tests: &[Self]| tests.iter().map(Self::principal).collect::<Vec<_>>();
        match self {
            Self::Always => json!({"any": true}),
            Self::Never => json!({"not_id": {"any": true}}),
            Self::All(tests) => json!({"and_ids": {"ids": all(tests)}}),
            Self::Any(tests) => json!({"or_ids": {"ids": all(tests)}}),
            Self::Not(test) => json!({"not_id": test.principal()}),
            Self::Is(principal) => principal.clone(),
        }
    }
}

/// How a text is compared; a `StringMatcher`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Text(pub(super) Value);

impl Text {
    pub(super) fn exact(text: &str) -> Self {
        Self(json!({"exact": text}))
    }

    pub(super) fn prefix(text: &str) -> Self {
        // Envoy refuses an empty prefix.
        if text.is_empty() { Self::regex("(?s).*") } else { Self(json!({"prefix": text})) }
    }

    pub(super) fn suffix(text: &str) -> Self {
        if text.is_empty() { Self::regex("(?s).*") } else { Self(json!({"suffix": text})) }
    }

    pub(super) fn contains(text: &str) -> Self {
        if text.is_empty() { Self::regex("(?s).*") } else { Self(json!({"contains": text})) }
    }

    /// Matches the whole text.
    pub(super) fn regex(pattern: &str) -> Self {
        Self(json!({"safe_regex": {"regex": pattern}}))
    }
}

/// A header, its lines joined with a comma.
pub(super) fn header(name: &str, text: Text) -> Test {
    Test::Is(json!({"header": {"name": name, "string_match": text.0}}))
}

pub(super) fn header_present(name: &str) -> Test {
    Test::Is(json!({"header": {"name": name, "present_match": true}}))
}

/// The path as received, without the query.
pub(super) fn path(text: Text) -> Test {
    Test::Is(json!({"url_path": {"path": text.0}}))
}

pub(super) fn method(name: &str) -> Test {
    header(":method", Text::exact(name))
}

/// A value of the message.
fn metadata(namespace: &str, keys: &[&str], value: Value) -> Test {
    let path: Vec<_> = keys.iter().map(|key| json!({"key": key})).collect();
    let matcher = json!({"filter": namespace, "path": path, "value": value});
    Test::Is(json!({"sourced_metadata": {"metadata_matcher": matcher, "metadata_source": "DYNAMIC"}}))
}

pub(super) fn message(keys: &[&str], text: Text) -> Test {
    metadata(MCP, keys, json!({"string_match": text.0}))
}

pub(super) fn message_has(keys: &[&str]) -> Test {
    metadata(MCP, keys, json!({"present_match": true}))
}

pub(super) fn message_has_number(keys: &[&str]) -> Test {
    metadata(MCP, keys, json!({"double_match": {"range": {"start": -1e308, "end": 1e308}}}))
}

/// Set by the Lua filter.
pub(super) fn own_flag(key: &str) -> Test {
    metadata(super::OWN, &[key], json!({"bool_match": true}))
}

/// The one URI SAN of the client's certificate.
pub(super) fn peer(text: Text) -> Test {
    Test::Is(json!({"filter_state": {"key": PEER, "string_match": text.0}}))
}
