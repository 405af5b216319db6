//! Error replies with the exact id token.
use crate::Id;

/// JSON-RPC error codes that a gateway answers with.
pub mod error_code {
    /// Not JSON.
    pub const PARSE_ERROR: i64 = -32700;
    /// Not a message.
    pub const INVALID_REQUEST: i64 = -32600;
    /// Internal error.
    pub const INTERNAL_ERROR: i64 = -32603;
    /// Mirrored header mismatch (MCP 2026-07-28).
    pub const HEADER_MISMATCH: i64 = -32020;
    /// Unsupported protocol version (MCP 2026-07-28).
    pub const UNSUPPORTED_VERSION: i64 = -32022;
    /// Denied by policy.
    pub const FORBIDDEN: i64 = 403;
}

/// What stands in the reply's `id` member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyId<'a> {
    /// The request's token.
    Token(Id<'a>),
    /// `null`: the request's id could not be read.
    Null,
    /// No member: the message was a notification or a response.
    Absent,
}

/// `{"jsonrpc":"2.0","id":TOKEN,"error":{"code":CODE,"message":MESSAGE}}`, members in this order, no spaces.
pub fn error_reply(id: ReplyId<'_>, code: i64, message: &str) -> Vec<u8> {
    let _ = (id, code, message);
    todo!()
}
