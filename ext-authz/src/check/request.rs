//! A [`Check`] as Envoy's CheckRequest.
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use envoy_types::pb::{
    envoy::{
        config::core::v3::{
            Address, Metadata, SocketAddress, address,
            socket_address::{self, PortSpecifier},
        },
        service::auth::v3::{AttributeContext, CheckRequest, attribute_context},
    },
    google::protobuf::{Struct, Timestamp, Value, value::Kind},
};
use http::{HeaderName, header};
use mcp_jsonrpc::Message;

use crate::{Check, Peer, Unreachable, headers, json};

/// The namespaces of `filter_metadata` that hold the MCP message: the seed's, and Envoy's own.
pub(crate) const MCP_METADATA: [&str; 2] = ["mcp_proxy", "envoy.filters.http.mcp"];
/// Says that the body was cut.
pub(crate) const PARTIAL_BODY: HeaderName = HeaderName::from_static("x-envoy-auth-partial-body");
/// How deep `params` may nest, the message object being depth 1.
const MAX_DEPTH: usize = 32;

impl Check<'_> {
    /// Whether an authorizer would see what would be forwarded.
    pub(crate) fn judgeable(&self) -> Result<(), Unreachable> {
        let Some(message) = self.message else { return Ok(()) };
        if message.params_have_big_integer() {
            return Err(Unreachable::Unjudgeable("an integer in `params` is beyond 2^53"));
        }
        if message.params_depth() > MAX_DEPTH {
            return Err(Unreachable::Unjudgeable("`params` nest deeper than 32"));
        }
        Ok(())
    }

    /// Whether an authorizer may be told this header of the client's. One that mirrors the body is told only where it
    /// was checked against it: beside a message of a revision that has such headers, which says so in `_meta`.
    pub(crate) fn may_tell(&self, name: &HeaderName) -> bool {
        let checked = self.message.is_some_and(|message| message.meta_protocol_version().is_some());
        !headers::is_private(name.as_str()) && (checked || !headers::is_mirrored(name.as_str()))
    }

    /// What of the body is sent, and whether that is less than all of it.
    pub(crate) fn forwarded_body(&self, limit: u32) -> (Bytes, bool) {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(self.body.len());
        (self.body.slice(..limit), limit < self.body.len())
    }

    /// The question as protobuf. `allowed`: the headers to send, `None` for all.
    pub(crate) fn to_request(
        &self,
        forward_body: Option<u32>,
        allowed: Option<&[String]>,
    ) -> Result<CheckRequest, Unreachable> {
        let mut http = attribute_context::HttpRequest {
            id: self.request_id.to_owned(),
            method: self.method.to_owned(),
            path: self.path_and_query.to_owned(),
            host: self.host.to_owned(),
            scheme: self.scheme.to_owned(),
            protocol: self.http_version.to_owned(),
            size: i64::try_from(self.body.len()).unwrap_or(i64::MAX),
            headers: self.joined_headers(forward_body.is_some(), allowed)?,
            ..Default::default()
        };
        if let Some(limit) = forward_body {
            let (body, cut) = self.forwarded_body(limit);
            match text(&body, cut) {
                Some(text) => http.body = text.to_owned(),
                None => http.raw_body = body.into(),
            }
            if cut {
                http.headers.insert(PARTIAL_BODY.as_str().to_owned(), "true".to_owned());
            }
        }
        let mut metadata = Metadata::default();
        if let Some(message) = self.message {
            let message = to_struct(message)?;
            metadata.filter_metadata =
                MCP_METADATA.into_iter().map(|name| (name.to_owned(), message.clone())).collect();
        }
        Ok(CheckRequest {
            attributes: Some(AttributeContext {
                source: Some(to_peer(self.source)),
                destination: Some(to_peer(self.destination)),
                request: Some(attribute_context::Request {
                    time: Some(to_timestamp(self.time)),
                    http: Some(http),
                }),
                metadata_context: Some(metadata),
                ..Default::default()
            }),
        })
    }

    fn joined_headers(
        &self,
        with_body: bool,
        allowed: Option<&[String]>,
    ) -> Result<std::collections::HashMap<String, String>, Unreachable> {
        let nominated = headers::nominated_by_connection(self.headers);
        let is_sent = |name: &&HeaderName| {
            let listed = allowed.is_none_or(|allowed| headers::lists(allowed, name))
                || (with_body && [header::CONTENT_LENGTH, header::CONTENT_TYPE].contains(name));
            listed && self.may_tell(name) && !nominated.contains(*name)
        };
        self.headers
            .keys()
            .filter(is_sent)
            .map(|name| {
                // RFC 9113 section 8.2.3: the parts of a cookie are joined otherwise than any list.
                let separator = if name == header::COOKIE { "; " } else { "," };
                let lines = self.headers.get_all(name).iter();
                let lines: Result<Vec<&str>, _> =
                    lines.map(|line| std::str::from_utf8(line.as_bytes())).collect();
                match lines {
                    Ok(lines) => Ok((name.as_str().to_owned(), lines.join(separator))),
                    Err(_) => Err(Unreachable::Unjudgeable("a header is not UTF-8")),
                }
            })
            .collect()
    }
}

/// The text that these bytes are, less a character that was cut in two.
fn text(bytes: &[u8], cut: bool) -> Option<&str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) if cut && error.error_len().is_none() => {
            std::str::from_utf8(bytes.get(..error.valid_up_to())?).ok()
        }
        Err(_) => None,
    }
}

fn to_peer(peer: Peer<'_>) -> attribute_context::Peer {
    let address = peer.address.map(|address| Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            protocol: socket_address::Protocol::Tcp.into(),
            address: address.ip().to_string(),
            port_specifier: Some(PortSpecifier::PortValue(address.port().into())),
            ..Default::default()
        })),
    });
    attribute_context::Peer {
        address,
        principal: peer.principal.unwrap_or_default().to_owned(),
        ..Default::default()
    }
}

fn to_timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
    }
}

/// `{jsonrpc, id, method, params}`, with the whole of `params`; what the message lacks is left out.
fn to_struct(message: &Message<'_>) -> Result<Struct, Unreachable> {
    let mut whole = Struct { fields: [("jsonrpc".to_owned(), json::string("2.0"))].into() };
    if let Some(id) = message.id() {
        whole.fields.insert("id".to_owned(), to_id(id.token()));
    }
    if !message.method().is_empty() {
        whole.fields.insert("method".to_owned(), json::string(message.method()));
    }
    if let Some(params) = message.params() {
        let params = to_params(params)?;
        whole.fields.insert("params".to_owned(), Value { kind: Some(Kind::StructValue(params)) });
    }
    Ok(whole)
}

fn to_params(params: &str) -> Result<Struct, Unreachable> {
    // The strict reader went over this text before: only depth could stop serde_json, and that was checked.
    let Ok(params) = serde_json::from_str(params) else {
        return Err(Unreachable::Unjudgeable("`params` cannot be read as an object"));
    };
    json::to_struct(params).ok_or(Unreachable::Unjudgeable("an integer in `params` is beyond 2^53"))
}

/// A number or a string, as the token is; a number that a double cannot hold exactly becomes its own text.
fn to_id(token: &str) -> Value {
    let kind = match serde_json::from_str(token) {
        Ok(serde_json::Value::String(text)) => Some(Kind::StringValue(text)),
        Ok(serde_json::Value::Number(number)) if token.contains(['.', 'e', 'E']) || !number.is_f64() => {
            json::exact(&number).map(Kind::NumberValue)
        }
        _ => None,
    };
    Value { kind: Some(kind.unwrap_or_else(|| Kind::StringValue(token.to_owned()))) }
}

#[cfg(test)]
mod tests;
