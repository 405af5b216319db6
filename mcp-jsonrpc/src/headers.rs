//! Protocol revisions and the headers that mirror the body (SEP-2243).
use crate::Body;

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
        let _ = name;
        todo!()
    }
    /// The date.
    pub fn name(self) -> &'static str {
        todo!()
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
    _private: (),
}

impl HeaderError {
    /// -32020 (mismatch), -32022 (unknown version), or -32600.
    pub fn code(&self) -> i64 {
        todo!()
    }
    /// Whether the reply bears the request's id (else `null`).
    pub fn has_request_id(&self) -> bool {
        todo!()
    }
}

impl std::fmt::Display for HeaderError {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        todo!()
    }
}
impl std::error::Error for HeaderError {}

impl MirroredHeaders<'_> {
    /// The revision that the `MCP-Protocol-Version` header alone names; absent: 2025-03-26
    /// (what the specification says to assume). For GET and DELETE, and before a body is read.
    ///
    /// # Errors
    /// Repeated, unreadable or unknown versions.
    pub fn revision(&self) -> Result<Revision, HeaderError> {
        todo!()
    }

    /// Checks the headers against the body, and the body against the revision: a batch where the
    /// revision has none, a stateless request without `_meta` version or with one that differs,
    /// `Mcp-Method`/`Mcp-Name` missing or different under 2026-07-28, initialize, ping or client
    /// responses under 2026-07-28.
    ///
    /// # Errors
    /// Whatever the revision does not admit.
    pub fn check(&self, body: &Body<'_>) -> Result<Revision, HeaderError> {
        let _ = body;
        todo!()
    }
}
