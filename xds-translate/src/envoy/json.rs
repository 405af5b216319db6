//! Pieces of JSON that all parts write.
use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};

/// A message as a `google.protobuf.Any`: `fields` (an object) and the type beside them.
pub(super) fn any(message: &str, fields: Value) -> Value {
    let mut message_fields = fields;
    set(&mut message_fields, "@type", Value::String(format!("type.googleapis.com/{message}")));
    message_fields
}

/// Sets a field of a message (an object).
pub(super) fn set(message: &mut Value, field: &str, value: Value) {
    if let Value::Object(fields) = message {
        fields.insert(field.to_owned(), value);
    }
}

/// An extension: its name and its typed configuration.
pub(super) fn extension(name: &str, message: &str, fields: Value) -> Value {
    json!({"name": name, "typed_config": any(message, fields)})
}

/// A `google.protobuf.Duration`.
pub(super) fn duration(duration: Duration) -> String {
    match duration.subsec_nanos() {
        0 => format!("{}s", duration.as_secs()),
        nanos => format!("{}.{nanos:09}s", duration.as_secs()),
    }
}

/// An `envoy.config.core.v3.Address`.
pub(super) fn address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

/// The address of a unix socket.
pub(super) fn pipe(path: &str) -> Value {
    json!({"pipe": {"path": path}})
}

/// A `DataSource` of PEM texts. PEM is ASCII; what stands around it does not count.
pub(super) fn inline<'a>(pem: impl IntoIterator<Item = &'a [u8]>) -> Value {
    let mut text = String::new();
    for pem in pem {
        text.push_str(&String::from_utf8_lossy(pem));
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    json!({"inline_string": text})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_protobufs() {
        for (millis, expected) in [(0, "0s"), (5_000, "5s"), (500, "0.500000000s"), (61_001, "61.001000000s")]
        {
            assert_eq!(duration(Duration::from_millis(millis)), expected);
        }
    }

    #[test]
    fn pem_texts_do_not_run_into_each_other() {
        let texts: [&[u8]; 3] = [b"a", b"b\n", b"\xffc"];
        assert_eq!(inline(texts), json!({"inline_string": "a\nb\n\u{fffd}c\n"}));
    }
}
