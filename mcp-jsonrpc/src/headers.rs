//! Protocol revisions and the headers that mirror the body (SEP-2243).
use std::borrow::Cow;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::{Body, Kind, Message, Method, Target, error_code};

/// A revision of the MCP specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each variant is the revision of that date")]
pub enum Revision {
    V2024_11_05,
    V2025_03_26,
    V2025_06_18,
    V2025_11_25,
    V2026_07_28,
}

impl Revision {
    /// From the date, exactly.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "2024-11-05" => Self::V2024_11_05,
            "2025-03-26" => Self::V2025_03_26,
            "2025-06-18" => Self::V2025_06_18,
            "2025-11-25" => Self::V2025_11_25,
            "2026-07-28" => Self::V2026_07_28,
            _ => return None,
        })
    }
    /// The date.
    pub fn name(self) -> &'static str {
        match self {
            Self::V2024_11_05 => "2024-11-05",
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }
    /// 2026-07-28 and later: no sessions, no GET, no DELETE.
    pub fn is_stateless(self) -> bool {
        self >= Self::V2026_07_28
    }
    /// Whether the revision has JSON-RPC batches (2025-03-26 only).
    pub fn has_batches(self) -> bool {
        self == Self::V2025_03_26
    }
}

/// The field lines of the headers that matter, in order of arrival, values as received.
#[derive(Debug, Clone, Copy, Default)]
pub struct MirroredHeaders<'a> {
    /// `MCP-Protocol-Version`
    pub protocol_version: &'a [&'a [u8]],
    /// `Mcp-Method`
    pub method: &'a [&'a [u8]],
    /// `Mcp-Name`
    pub name: &'a [&'a [u8]],
}

/// Why headers were refused. HTTP 400.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderError {
    reason: Reason,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Reason {
    /// Of the header with this name.
    Repeated(&'static str),
    UnknownVersion(Box<str>),
    /// A stateless version in the header, none in the body.
    VersionMissing(&'static str),
    VersionDiffers,
    /// A version in the body, no stateless one in the header.
    VersionUnexpected,
    Missing(&'static str),
    Differs(&'static str),
    /// A batch under this revision.
    Batch(Revision),
    InitializeInBatch,
    /// Not in this revision.
    Response(Revision),
    Removed(Method, Revision),
}

impl HeaderError {
    /// -32020 (mismatch), -32022 (unknown version), or -32600.
    pub fn code(&self) -> i64 {
        match self.reason {
            Reason::UnknownVersion(_) => error_code::UNSUPPORTED_VERSION,
            Reason::Batch(_) | Reason::InitializeInBatch | Reason::Response(_) | Reason::Removed(..) => {
                error_code::INVALID_REQUEST
            }
            _ => error_code::HEADER_MISMATCH,
        }
    }

    /// Whether the reply bears the request's id (else `null`). Where it does and the body has been read, that is the
    /// id of its one message; a batch, or a body that has not been read, gets `null` all the same.
    pub fn has_request_id(&self) -> bool {
        !matches!(self.reason, Reason::Batch(_) | Reason::InitializeInBatch | Reason::Response(_))
    }
}

impl std::fmt::Display for HeaderError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.reason {
            Reason::Repeated(header) => write!(f, "the `{header}` header is repeated, send it once"),
            Reason::UnknownVersion(version) => {
                write!(f, "protocol version `{version}` is unknown, send one from 2024-11-05 to 2026-07-28")
            }
            Reason::VersionMissing(version) => write!(
                f,
                "`MCP-Protocol-Version` is `{version}`, so `params._meta` must carry the same version"
            ),
            Reason::VersionDiffers => {
                write!(f, "`MCP-Protocol-Version` differs from the version in `params._meta`, send the same")
            }
            Reason::VersionUnexpected => write!(
                f,
                "`params._meta` carries a protocol version, so `MCP-Protocol-Version` must carry the same"
            ),
            Reason::Missing(header) => write!(f, "the `{header}` header is missing, mirror the body"),
            Reason::Differs(header) => {
                write!(f, "the `{header}` header differs from the body, mirror the body")
            }
            Reason::Batch(revision) => {
                write!(f, "{} has no batches, send one message per request", revision.name())
            }
            Reason::InitializeInBatch => write!(f, "`initialize` must not be part of a batch, send it alone"),
            Reason::Response(revision) => {
                write!(f, "{} has no client responses, retry the request instead", revision.name())
            }
            Reason::Removed(method, revision) => {
                write!(f, "{} has no `{}`, leave it out", revision.name(), method.name())
            }
        }
    }
}
impl std::error::Error for HeaderError {}

impl From<Reason> for HeaderError {
    fn from(reason: Reason) -> Self {
        Self { reason }
    }
}

impl<'a> MirroredHeaders<'a> {
    /// The revision that the `MCP-Protocol-Version` header alone names; absent: 2025-03-26
    /// (what the specification says to assume). For GET and DELETE, and before a body is read.
    ///
    /// # Errors
    /// Repeated, unreadable or unknown versions.
    pub fn revision(&self) -> Result<Revision, HeaderError> {
        let Some(value) = once(self.protocol_version, "MCP-Protocol-Version")? else {
            return Ok(Revision::V2025_03_26);
        };
        let known = std::str::from_utf8(value).ok().and_then(Revision::from_name);
        known.ok_or_else(|| {
            let shown = value.iter().take(32).flat_map(|byte| byte.escape_ascii()).map(char::from).collect();
            Reason::UnknownVersion(shown).into()
        })
    }

    /// Checks the headers against the body, and the body against the revision: a batch where the
    /// revision has none, a stateless request without `_meta` version or with one that differs,
    /// `Mcp-Method`/`Mcp-Name` missing or different under 2026-07-28, initialize, ping or client
    /// responses under 2026-07-28.
    ///
    /// Under an older revision (or without a version header) `Mcp-Method` and `Mcp-Name` may say what they like, once
    /// each: do not forward them.
    ///
    /// # Errors
    /// Whatever the revision does not admit.
    pub fn check(&self, body: &Body<'_>) -> Result<Revision, HeaderError> {
        let revision = self.revision()?;
        let method = once(self.method, "Mcp-Method")?;
        let name = once(self.name, "Mcp-Name")?;
        if body.is_batch() && !revision.has_batches() {
            return Err(Reason::Batch(revision).into());
        }
        for message in body.messages() {
            if revision.is_stateless() {
                check_stateless(revision, method, name, message)?;
                continue;
            }
            if message.meta_protocol_version().is_some() {
                return Err(Reason::VersionUnexpected.into());
            }
            if body.is_batch() && message.known_method() == Some(Method::Initialize) {
                return Err(Reason::InitializeInBatch.into());
            }
        }
        Ok(revision)
    }
}

fn check_stateless(
    revision: Revision,
    method: Option<&[u8]>,
    name: Option<&[u8]>,
    message: &Message<'_>,
) -> Result<(), Reason> {
    if message.kind() == Kind::Response {
        return Err(Reason::Response(revision));
    }
    match message.meta_protocol_version() {
        None => return Err(Reason::VersionMissing(revision.name())),
        Some(version) if version != revision.name() => return Err(Reason::VersionDiffers),
        Some(_) => {}
    }
    match method {
        None => return Err(Reason::Missing("Mcp-Method")),
        Some(method) if method != message.method().as_bytes() => return Err(Reason::Differs("Mcp-Method")),
        Some(_) => {}
    }
    if let Some(removed @ (Method::Initialize | Method::Ping)) = message.known_method() {
        return Err(Reason::Removed(removed, revision));
    }
    let target = match message.target() {
        Target::Name(target) | Target::Uri(target) | Target::TaskId(target) => Some(target.as_bytes()),
        _ => None,
    };
    match name {
        // The header's value could be taken for a target by whatever looks at headers only, so it must be the body's.
        Some(name) if decoded(name).as_deref() != target || target.is_none() => {
            Err(Reason::Differs("Mcp-Name"))
        }
        None if mirrors_name(message) => Err(Reason::Missing("Mcp-Name")),
        _ => Ok(()),
    }
}

/// Whether the specification demands an `Mcp-Name` header.
fn mirrors_name(message: &Message<'_>) -> bool {
    matches!(
        message.known_method(),
        Some(
            Method::ToolsCall
                | Method::PromptsGet
                | Method::ResourcesRead
                | Method::TasksGet
                | Method::TasksUpdate
                | Method::TasksCancel
        )
    )
}

/// The only line, trimmed of outer spaces and tabs.
fn once<'a>(lines: &[&'a [u8]], header: &'static str) -> Result<Option<&'a [u8]>, Reason> {
    match lines {
        [] => Ok(None),
        [line] => Ok(Some(trimmed(line))),
        _ => Err(Reason::Repeated(header)),
    }
}

fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// A mirrored value: plain ASCII as it stands, or what `=?base64?...?=` holds (canonical base64). `None`: unreadable.
fn decoded(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    if let Some(inner) = value.strip_prefix(b"=?base64?").and_then(|rest| rest.strip_suffix(b"?=")) {
        // The standard engine refuses missing padding and stray trailing bits.
        return BASE64_STANDARD.decode(inner).ok().map(Cow::Owned);
    }
    value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~')).then_some(Cow::Borrowed(value))
}
