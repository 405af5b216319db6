//! The strict reader.
use crate::{Body, Json};

/// Limits on one body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of the body. Default 1 MiB (1,048,576).
    pub max_bytes: usize,
    /// Nesting; the message object is depth 1 (also inside a batch). Default 64.
    pub max_depth: usize,
    /// Messages in a batch. Default 32.
    pub max_batch: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_bytes: 1 << 20, max_depth: 64, max_batch: 32 }
    }
}

/// Why a body was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    _private: (),
}

impl ParseError {
    /// -32700 (not JSON, or JSON on which parsers disagree) or -32600 (not a message).
    pub fn code(&self) -> i64 {
        todo!()
    }
    /// The body is over `Limits::max_bytes` (HTTP 413).
    pub fn is_too_large(&self) -> bool {
        todo!()
    }
    /// Byte offset in the body near which the fault lies.
    pub fn offset(&self) -> usize {
        todo!()
    }
}

impl std::fmt::Display for ParseError {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        todo!()
    }
}
impl std::error::Error for ParseError {}

/// Reads a body that must be MCP traffic (an XBackend's MCP path).
///
/// # Errors
/// Any body on which two JSON parsers could disagree, or that is no MCP message or batch.
pub fn parse<'a>(body: &'a [u8], limits: &Limits) -> Result<Body<'a>, ParseError> {
    let _ = (body, limits);
    todo!()
}

/// Reads a body that may be any strict JSON (a Service).
///
/// # Errors
/// As [`parse`]; strict JSON that is no MCP traffic is `Json::Other`.
pub fn parse_json<'a>(body: &'a [u8], limits: &Limits) -> Result<Json<'a>, ParseError> {
    let _ = (body, limits);
    todo!()
}
