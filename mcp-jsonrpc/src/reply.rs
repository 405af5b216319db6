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

/// `{"jsonrpc":"2.0","id":TOKEN,"error":{"code":CODE,"message":MESSAGE}}`, members in this order, no spaces;
/// `message` is escaped as JSON asks. With [`ReplyId::Absent`] there is no `id` member.
pub fn error_reply(id: ReplyId<'_>, code: i64, message: &str) -> Vec<u8> {
    let mut reply = String::with_capacity(64 + message.len());
    reply.push_str("{\"jsonrpc\":\"2.0\",");
    match id {
        ReplyId::Token(id) => {
            reply.push_str("\"id\":");
            reply.push_str(id.token());
            reply.push(',');
        }
        ReplyId::Null => reply.push_str("\"id\":null,"),
        ReplyId::Absent => {}
    }
    reply.push_str("\"error\":{\"code\":");
    reply.push_str(&code.to_string());
    reply.push_str(",\"message\":\"");
    for c in message.chars() {
        match c {
            '"' => reply.push_str("\\\""),
            '\\' => reply.push_str("\\\\"),
            '\n' => reply.push_str("\\n"),
            '\r' => reply.push_str("\\r"),
            '\t' => reply.push_str("\\t"),
            c if c.is_control() => reply.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => reply.push(c),
        }
    }
    reply.push_str("\"}}");
    reply.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(id: ReplyId<'_>, code: i64, message: &str, expected: &str) {
        let reply = error_reply(id, code, message);
        assert_eq!(String::from_utf8_lossy(&reply), expected);
        let read: serde_json::Value = serde_json::from_slice(&reply).unwrap();
        assert_eq!(read["error"]["message"], message);
    }

    #[test]
    fn replies() {
        check(
            ReplyId::Token(Id("12345678901234567890")),
            error_code::FORBIDDEN,
            "Access to this tool is forbidden.",
            r#"{"jsonrpc":"2.0","id":12345678901234567890,"error":{"code":403,"message":"Access to this tool is forbidden."}}"#,
        );
        check(
            ReplyId::Token(Id(r#""\u0041\"""#)),
            -32020,
            "x",
            r#"{"jsonrpc":"2.0","id":"\u0041\"","error":{"code":-32020,"message":"x"}}"#,
        );
        check(
            ReplyId::Null,
            -32700,
            "a \"quoted\" \\ line\n\r\t\u{0}\u{7f}\u{85} é",
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"a \"quoted\" \\ line\n\r\t\u0000\u007f\u0085 é"}}"#,
        );
        check(ReplyId::Absent, 403, "no", r#"{"jsonrpc":"2.0","error":{"code":403,"message":"no"}}"#);
    }
}
