//! The request as Authorino shows it to policies.
use std::collections::HashMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use envoy_types::pb::{
    envoy::{
        config::core::v3::{Metadata, SocketAddress, address, socket_address::PortSpecifier},
        service::auth::v3::{
            AttributeContext,
            attribute_context::{HttpRequest, Peer},
        },
    },
    google::protobuf::Timestamp,
};
use serde_json::{Map, Value, json};

use crate::json;

/// Authorino's well-known attributes, its older `context`, and an empty `auth`.
pub(super) fn authorino(attributes: &AttributeContext) -> Value {
    Object::new()
        .with("metadata", metadata(attributes.metadata_context.as_ref()))
        .with("request", request(attributes))
        .with("source", peer(attributes.source.as_ref()))
        .with("destination", peer(attributes.destination.as_ref()))
        .with("context", context(attributes))
        .with("auth", json!({}))
        .0
        .into()
}

/// An object without its empty fields, as Go's `omitempty` leaves them out.
struct Object(Map<String, Value>);

impl Object {
    fn new() -> Self {
        Self(Map::new())
    }

    fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    fn text(self, name: &str, value: &str) -> Self {
        if value.is_empty() { self } else { self.with(name, value) }
    }

    fn number(self, name: &str, value: i64) -> Self {
        if value == 0 { self } else { self.with(name, value) }
    }

    fn object(self, name: &str, value: Option<Value>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    fn strings(self, name: &str, values: &HashMap<String, String>) -> Self {
        if values.is_empty() {
            return self;
        }
        let object: Map<String, Value> =
            values.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
        self.with(name, object)
    }
}

fn request(attributes: &AttributeContext) -> Value {
    let request = attributes.request.as_ref();
    let none = HttpRequest::default();
    let http = request.and_then(|request| request.http.as_ref()).unwrap_or(&none);
    let without_fragment = http.path.split_once('#').map_or(&*http.path, |(path, _)| path);
    let (url_path, query) = without_fragment.split_once('?').unwrap_or((without_fragment, ""));
    let header = |name: &str| http.headers.get(name).map_or("", String::as_str);
    http_fields(Object::new(), http)
        .object("time", request.and_then(|request| request.time.as_ref()).map(time))
        .text("url_path", &percent_decoded(url_path))
        .text("query", query)
        .text("referer", header("referer"))
        .text("user_agent", header("user-agent"))
        .strings("context_extensions", &attributes.context_extensions)
        .0
        .into()
}

/// What `request` and `context.request.http` have in common.
fn http_fields(object: Object, http: &HttpRequest) -> Object {
    object
        .text("id", &http.id)
        .text("protocol", &http.protocol)
        .text("scheme", &http.scheme)
        .text("host", &http.host)
        .text("method", &http.method)
        .text("path", &http.path)
        .strings("headers", &http.headers)
        .number("size", http.size)
        .text("body", &http.body)
        .text("raw_body", &STANDARD.encode(&http.raw_body))
}

fn time(time: &Timestamp) -> Value {
    Object::new().number("seconds", time.seconds).number("nanos", time.nanos.into()).0.into()
}

fn metadata(metadata: Option<&Metadata>) -> Value {
    let namespaces: Option<Map<String, Value>> =
        metadata.filter(|metadata| !metadata.filter_metadata.is_empty()).map(|metadata| {
            let namespaces = metadata.filter_metadata.iter();
            namespaces.map(|(name, fields)| (name.clone(), json::from_struct(fields))).collect()
        });
    Object::new().object("filter_metadata", namespaces.map(Value::Object)).0.into()
}

fn socket_address(peer: &Peer) -> Option<&SocketAddress> {
    match peer.address.as_ref()?.address.as_ref()? {
        address::Address::SocketAddress(address) => Some(address),
        _ => None,
    }
}

fn port(address: &SocketAddress) -> Option<u32> {
    match address.port_specifier {
        Some(PortSpecifier::PortValue(port)) => Some(port),
        _ => None,
    }
}

fn identity(object: Object, peer: &Peer) -> Object {
    object
        .text("service", &peer.service)
        .strings("labels", &peer.labels)
        .text("principal", &peer.principal)
        .text("certificate", &peer.certificate)
}

fn peer(peer: Option<&Peer>) -> Value {
    let none = Peer::default();
    let peer = peer.unwrap_or(&none);
    let address = socket_address(peer);
    let object = Object::new()
        .text("address", address.map_or("", |address| address.address.as_str()))
        .number("port", address.and_then(port).unwrap_or(0).into());
    identity(object, peer).0.into()
}

fn context(attributes: &AttributeContext) -> Value {
    let peer = |peer: &Peer| -> Value {
        let address = socket_address(peer).map(|address| {
            let port = port(address).map(|port| json!({"PortValue": port}));
            let socket_address =
                Object::new().text("address", &address.address).object("PortSpecifier", port).0;
            json!({"Address": {"SocketAddress": socket_address}})
        });
        identity(Object::new().object("address", address), peer).0.into()
    };
    let request = attributes.request.as_ref().map(|request| -> Value {
        let http = request.http.as_ref().map(|http| http_fields(Object::new(), http).0.into());
        Object::new().object("time", request.time.as_ref().map(time)).object("http", http).0.into()
    });
    Object::new()
        .object("source", attributes.source.as_ref().map(peer))
        .object("destination", attributes.destination.as_ref().map(peer))
        .object("request", request)
        .strings("context_extensions", &attributes.context_extensions)
        .object(
            "metadata_context",
            attributes.metadata_context.as_ref().map(|context| metadata(Some(context))),
        )
        .0
        .into()
}

/// A path with its percent-escapes decoded; as it is if that gives no UTF-8.
fn percent_decoded(path: &str) -> String {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%'
            && let Some((&[high, low], after)) = after.split_first_chunk::<2>()
            && let (Some(high), Some(low)) = (char::from(high).to_digit(16), char::from(low).to_digit(16))
            && let Ok(byte) = u8::try_from(high * 16 + low)
        {
            decoded.push(byte);
            rest = after;
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests;
