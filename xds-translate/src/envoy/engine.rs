//! The filters and the one route table with the engine beside Envoy ([`super::processor`]).
use serde_json::{Value, json};

use super::{
    Engine,
    cluster::PROCESSOR,
    http::Http,
    json::{duration, extension},
    processor::{
        CLIENTS, CLUSTER_HEADER, DECIDED, DESTINATION, GATEWAY, LISTENER, MAX_ENDPOINTS, NAMESPACE,
        PEER_CERTIFICATE, PEER_NOT_AFTER, PORT, SESSION, SOURCE, WATCH, WATCH_PREFIX, WATCHED,
        clients_digest,
    },
};
use crate::{Listener, Snapshot};

/// For one filter chain: the HTTPS listener that it is of, or all HTTP listeners of a port.
/// `held`: how many bytes of a body Envoy holds while it is decided.
pub(super) fn http(snapshot: &Snapshot, listeners: &[&Listener], engine: &Engine, held: u32) -> Http {
    Http {
        // Responses pass them from the last to the first: an event stream is watched when all else was done with its head.
        filters: vec![watch(), processor(snapshot, listeners, engine), router()],
        routes: routes(held),
        client_chain: listeners.iter().any(|listener| listener.tls.is_some()),
        local_replies: None,
    }
}

/// The external processor. There is no way around it: without its answer a request has no cluster to go to.
fn processor(snapshot: &Snapshot, listeners: &[&Listener], engine: &Engine) -> Value {
    let metadata: Vec<_> = initial_metadata(snapshot, listeners)
        .into_iter()
        .map(|(key, value)| json!({"key": key, "value": value}))
        .collect();
    extension(
        "envoy.filters.http.ext_proc",
        "envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor",
        json!({
            "grpc_service": {"envoy_grpc": {"cluster_name": PROCESSOR}, "initial_metadata": metadata},
            "failure_mode_allow": false,
            "message_timeout": duration(engine.message_timeout),
            // The processor asks for the body where it looks at it, with `mode_override`. Were it asked for here, every body
            // over the limit would be refused (413) that comes before the processor can say that it may stream.
            "processing_mode": {
                "request_header_mode": "SEND",
                "request_body_mode": "NONE",
                "request_trailer_mode": "SKIP",
                "response_header_mode": "SKIP",
                "response_body_mode": "NONE",
                "response_trailer_mode": "SKIP",
            },
            "allow_mode_override": true,
            // A change that Envoy would not make is an error, not left out.
            "mutation_rules": {"allow_all_routing": true, "allow_envoy": true, "disallow_is_error": true},
            "metadata_options": {"receiving_namespaces": {"untyped": [NAMESPACE]}},
            // Authorizers are told.
            "request_attributes": ["request.protocol"],
            // Which endpoint answered: a session stays there.
            "response_attributes": ["upstream.address"],
        }),
    )
}

/// How long the head of an event stream waits for a processor that says nothing.
const WATCH_TIMEOUT: &str = "1s";

/// Has the processor end event streams that a changed policy would deny: a stream of its own for each, and for nothing
/// else, open for as long as the event stream is. The processor's end is not theirs.
fn watch() -> Value {
    let of =
        json!({"key": WATCH, "value": format!("{WATCH_PREFIX}%DYNAMIC_METADATA({NAMESPACE}:{WATCHED})%")});
    let asks = extension(
        "envoy.filters.http.ext_proc",
        "envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor",
        json!({
            "grpc_service": {"envoy_grpc": {"cluster_name": PROCESSOR}, "initial_metadata": [of]},
            "failure_mode_allow": true,
            "message_timeout": WATCH_TIMEOUT,
            "processing_mode": {
                "request_header_mode": "SKIP",
                "request_body_mode": "NONE",
                "request_trailer_mode": "SKIP",
                "response_header_mode": "SEND",
                "response_body_mode": "NONE",
                // There are none; but what may still have to be sent keeps the stream open.
                "response_trailer_mode": "SEND",
            },
        }),
    );
    let content_type = extension(
        "content-type",
        "envoy.type.matcher.v3.HttpResponseHeaderMatchInput",
        json!({"header_name": "content-type"}),
    );
    let is_events = json!({
        "input": content_type,
        "value_match": {"contains": "text/event-stream", "ignore_case": true},
    });
    let skip = extension("skip", "envoy.extensions.filters.common.matcher.action.v3.SkipFilter", json!({}));
    extension(
        "watch",
        "envoy.extensions.common.matching.v3.ExtensionWithMatcher",
        json!({
            "extension_config": asks,
            "xds_matcher": {"matcher_list": {"matchers": [{
                "predicate": {"not_matcher": {"single_predicate": is_events}},
                "on_match": {"action": skip},
            }]}},
        }),
    )
}

/// What the processor is told of a connection. Headers could not say it: clients write those.
fn initial_metadata(snapshot: &Snapshot, listeners: &[&Listener]) -> Vec<(&'static str, String)> {
    let mut metadata = vec![
        (GATEWAY, snapshot.gateway.to_string()),
        (SOURCE, "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%".to_owned()),
        (DESTINATION, "%DOWNSTREAM_LOCAL_ADDRESS%".to_owned()),
    ];
    if let Some(listener) = listeners.first() {
        metadata.push((PORT, listener.port.to_string()));
    }
    // One filter chain per HTTPS listener, so that there is exactly one.
    if let [Listener { name, tls: Some(tls), .. }] = listeners {
        metadata.push((LISTENER, name.clone()));
        metadata.push((CLIENTS, clients_digest(&tls.clients)));
        metadata.push((PEER_CERTIFICATE, "%DOWNSTREAM_PEER_CERT%".to_owned()));
        metadata.push((PEER_NOT_AFTER, "%DOWNSTREAM_PEER_CERT_V_END(%s)%".to_owned()));
    }
    metadata
}

fn router() -> Value {
    extension(
        "envoy.filters.http.router",
        "envoy.extensions.filters.http.router.v3.Router",
        json!({"suppress_envoy_headers": true}),
    )
}

/// What a response says of one connection only (RFC 9110, section 7.6.1), and Envoy would pass on. What
/// `connection` names goes where the processor sees the response.
const HOP_BY_HOP: [&str; 7] = [
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "upgrade",
];

/// Where decided requests go; the rest is refused.
fn routes(held: u32) -> Value {
    let decided = json!({
        "filter": NAMESPACE,
        "path": [{"key": DECIDED}],
        "value": {"string_match": {"exact": "1"}},
    });
    json!({
        "name": "decided",
        "virtual_hosts": [{
            "name": "all",
            "domains": ["*"],
            "routes": [
                {
                    "name": "decided",
                    "match": {"prefix": "/", "dynamic_metadata": [decided]},
                    // Event streams live long and are silent for long.
                    "route": {
                        "cluster_header": CLUSTER_HEADER, "timeout": "0s", "idle_timeout": "0s",
                        // To the next endpoint that the processor named, if any; nothing was sent to the one before.
                        "retry_policy": {
                            "retry_on": "connect-failure",
                            "num_retries": MAX_ENDPOINTS - 1,
                            "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.010s"},
                        },
                    },
                    // What is sent once more is held for it. Envoy 1.36 counts twice what was held before.
                    "request_body_buffer_limit": u64::from(held).saturating_mul(2).to_string(),
                    "request_headers_to_remove": [CLUSTER_HEADER],
                    "response_headers_to_remove": HOP_BY_HOP,
                    // Empty, and so without effect, where the processor did not open a session.
                    "response_headers_to_add": [{
                        "header": {
                            "key": "mcp-session-id",
                            "value": format!("%DYNAMIC_METADATA({NAMESPACE}:{SESSION})%"),
                        },
                        "append_action": "OVERWRITE_IF_EXISTS",
                    }],
                },
                {
                    "name": "undecided",
                    "match": {"prefix": "/"},
                    "direct_response": {"status": 403, "body": {"inline_string": "Forbidden\n"}},
                    "response_headers_to_add": [{
                        "header": {"key": "content-type", "value": "text/plain"},
                        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                    }],
                },
            ],
        }],
    })
}
