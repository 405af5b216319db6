//! The strict reader.
mod message;
mod protocol_keys;

use self::message::Draft;
pub(crate) use self::protocol_keys::variant_of;
use crate::scan::Scanner;
use crate::{Body, Json, error_code};

/// Limits on one body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of the body. Default 1 MiB (1,048,576).
    pub max_bytes: usize,
    /// Nesting; the message object is depth 1 (also inside a batch). Default 64. Values over 512 count as 512.
    pub max_depth: usize,
    /// Messages in a batch. Default 32.
    pub max_batch: usize,
}

impl Limits {
    /// These limits with another [`max_bytes`](Self::max_bytes).
    #[must_use]
    pub fn with_max_bytes(self, max_bytes: usize) -> Self {
        Self { max_bytes, ..self }
    }

    /// These limits with another [`max_depth`](Self::max_depth).
    #[must_use]
    pub fn with_max_depth(self, max_depth: usize) -> Self {
        Self { max_depth, ..self }
    }

    /// These limits with another [`max_batch`](Self::max_batch).
    #[must_use]
    pub fn with_max_batch(self, max_batch: usize) -> Self {
        Self { max_batch, ..self }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_bytes: 1 << 20, max_depth: 64, max_batch: 32 }
    }
}

/// Why a body was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    // Boxed: results stay small on the path where nothing is wrong.
    fault: Box<(Reason, usize)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reason {
    TooLarge(usize),
    Utf8,
    ByteOrderMark,
    /// What was expected.
    Syntax(&'static str),
    Trailing,
    ControlCharacter,
    Surrogate,
    NumberOverflow,
    TooDeep(usize),
    DuplicateKey(Box<str>),
    /// The key, and the protocol's key that some parsers take it for.
    KeyVariant(Box<str>, &'static str),
    /// A rule for messages that does not hold.
    Message(&'static str),
    BatchTooLong(usize),
}

impl ParseError {
    #[cold]
    pub(crate) fn new(reason: Reason, offset: usize) -> Self {
        Self { fault: Box::new((reason, offset)) }
    }

    /// -32700 (not JSON, or JSON on which parsers disagree) or -32600 (not a message).
    pub fn code(&self) -> i64 {
        match self.fault.0 {
            Reason::TooLarge(_) | Reason::KeyVariant(..) | Reason::Message(_) | Reason::BatchTooLong(_) => {
                error_code::INVALID_REQUEST
            }
            _ => error_code::PARSE_ERROR,
        }
    }

    /// The body is over `Limits::max_bytes` (HTTP 413).
    pub fn is_too_large(&self) -> bool {
        matches!(self.fault.0, Reason::TooLarge(_))
    }

    /// Byte offset in the body near which the fault lies.
    pub fn offset(&self) -> usize {
        self.fault.1
    }
}

/// At most this many characters of a key are repeated in a message.
const SHOWN: usize = 64;

fn shown(key: &str) -> String {
    key.chars().take(SHOWN).flat_map(char::escape_debug).collect()
}

impl std::fmt::Display for ParseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (reason, offset) = &*self.fault;
        match reason {
            Reason::TooLarge(limit) => {
                return write!(f, "the body is over the limit of {limit} bytes, send a smaller one");
            }
            Reason::Utf8 => write!(f, "invalid UTF-8, encode the body in UTF-8"),
            Reason::ByteOrderMark => write!(f, "a byte-order mark, leave it out"),
            Reason::Syntax(expected) => write!(f, "not strict JSON, expected {expected}"),
            Reason::Trailing => write!(f, "more than one JSON value, send one only"),
            Reason::ControlCharacter => write!(f, "a control character in a string, escape it"),
            Reason::Surrogate => write!(f, "an unpaired surrogate escape, send both halves or none"),
            Reason::NumberOverflow => write!(f, "a number that overflows a double, send it as a string"),
            Reason::TooDeep(limit) => write!(f, "nesting over the limit of {limit}, flatten the value"),
            Reason::DuplicateKey(key) => write!(f, "duplicate key `{}`, send each key once", shown(key)),
            Reason::KeyVariant(key, of) => {
                write!(f, "key `{}` could be taken for `{of}`, spell it so or leave it out", shown(key))
            }
            Reason::Message(rule) => f.write_str(rule),
            Reason::BatchTooLong(limit) => write!(f, "a batch of more than {limit} messages, split it"),
        }?;
        write!(f, " (at byte {offset})")
    }
}

impl std::error::Error for ParseError {}

/// Reads a body that must be MCP traffic (an XBackend's MCP path): one message object, or an array of them. Whether
/// the protocol revision admits an array is [`MirroredHeaders::check`](crate::MirroredHeaders::check)'s question.
///
/// # Errors
/// Any body on which two JSON parsers could disagree, or that is no MCP message or batch.
pub fn parse<'a>(body: &'a [u8], limits: &Limits) -> Result<Body<'a>, ParseError> {
    match read(body, limits, true)? {
        Json::Mcp(body) => Ok(body),
        Json::Other => Err(ParseError::new(Reason::Message("not an MCP message, send a JSON-RPC object"), 0)),
    }
}

/// Reads a body that may be any strict JSON (a Service). An object with a key that is `jsonrpc`, `method` or `params`
/// (also after Unicode case folding and dropping control characters), or an array that holds such an object as an
/// element, is held to every rule for MCP messages.
///
/// # Errors
/// As [`parse`]; strict JSON that is no MCP traffic is `Json::Other`.
pub fn parse_json<'a>(body: &'a [u8], limits: &Limits) -> Result<Json<'a>, ParseError> {
    read(body, limits, false)
}

fn read<'a>(body: &'a [u8], limits: &Limits, must_be_mcp: bool) -> Result<Json<'a>, ParseError> {
    if body.len() > limits.max_bytes {
        return Err(ParseError::new(Reason::TooLarge(limits.max_bytes), limits.max_bytes));
    }
    let mut scanner = Scanner::new(body, limits.max_depth)?;
    scanner.whitespace();
    match scanner.peek() {
        Some(b'{') => {
            let mut draft = Draft::default();
            draft.read(&mut scanner)?;
            scanner.end()?;
            if must_be_mcp || draft.is_mcp() {
                Ok(Json::Mcp(Body::One(draft.finish()?)))
            } else {
                Ok(Json::Other)
            }
        }
        Some(b'[') => read_array(scanner, limits, must_be_mcp),
        _ => {
            scanner.skip(0)?;
            scanner.end()?;
            Ok(Json::Other)
        }
    }
}

fn read_array<'a>(
    mut scanner: Scanner<'a>,
    limits: &Limits,
    must_be_mcp: bool,
) -> Result<Json<'a>, ParseError> {
    let mut drafts = Vec::new();
    let mut is_mcp = must_be_mcp;
    let mut fault = None;
    scanner.elements(|scanner| {
        let at = scanner.at();
        if scanner.peek() != Some(b'{') {
            fault.get_or_insert((Reason::Message("a batch holds message objects only"), at));
            return scanner.skip(0);
        }
        let mut draft = Draft::default();
        draft.read(scanner)?;
        is_mcp |= draft.is_mcp();
        if drafts.len() < limits.max_batch {
            drafts.push(draft);
        } else {
            fault.get_or_insert((Reason::BatchTooLong(limits.max_batch), at));
        }
        Ok(())
    })?;
    scanner.end()?;
    if !is_mcp {
        return Ok(Json::Other);
    }
    if let Some((reason, at)) = fault {
        return Err(ParseError::new(reason, at));
    }
    if drafts.is_empty() {
        return Err(ParseError::new(Reason::Message("an empty batch, send at least one message"), 0));
    }
    message::ids_differ(&drafts)?;
    let messages = drafts.iter_mut().map(Draft::finish).collect::<Result<_, _>>()?;
    Ok(Json::Mcp(Body::Batch(messages)))
}
