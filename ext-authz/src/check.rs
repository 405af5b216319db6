//! What is asked.
mod request;
pub(crate) use request::{MCP_METADATA, PARTIAL_BODY};

use std::{net::SocketAddr, time::SystemTime};

use bytes::Bytes;
use http::HeaderMap;
use mcp_jsonrpc::Message;

/// One end of the connection.
#[derive(Debug, Clone, Copy, Default)]
pub struct Peer<'a> {
    /// Its address.
    pub address: Option<SocketAddr>,
    /// Its SPIFFE ID.
    pub principal: Option<&'a str>,
}

/// One question: the request as received, and the MCP message in it that is delegated.
#[derive(Debug, Clone)]
pub struct Check<'a> {
    /// The caller.
    pub source: Peer<'a>,
    /// The gateway.
    pub destination: Peer<'a>,
    /// An id of this request, for logs of both sides.
    pub request_id: &'a str,
    /// `POST`
    pub method: &'a str,
    /// Path with query, as received.
    pub path_and_query: &'a str,
    /// Host as received.
    pub host: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// `HTTP/1.1` or `HTTP/2`.
    pub http_version: &'a str,
    /// Headers as received. Those that mirror the body (`Mcp-Method`, `Mcp-Name`, `Mcp-Param-*`) are sent only if
    /// `message` carries a protocol version in `_meta`; check them against it first
    /// ([`mcp_jsonrpc::MirroredHeaders::check`]).
    pub headers: &'a HeaderMap,
    /// The whole body (sent only with `forwardBody`, cut to its size).
    pub body: &'a Bytes,
    /// The MCP message; goes whole into `filter_metadata["mcp_proxy"]` and `["envoy.filters.http.mcp"]`.
    pub message: Option<&'a Message<'a>>,
    /// When it arrived.
    pub time: SystemTime,
}
