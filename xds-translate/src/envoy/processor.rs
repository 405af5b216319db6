//! What Envoy and the external processor (`agentic-gateway decide`) agree on with [`Policy::Engine`](super::Policy::Engine).
//!
//! Envoy holds one route table for all requests: first a route that matches only where the dynamic metadata
//! [`NAMESPACE`] says [`DECIDED`], to the cluster named by the header [`CLUSTER_HEADER`]; then one that answers 403.
//! Routing is part of the decision: the processor routes, decides, asks authorizers, rewrites the request, and only its
//! last answer sets the metadata and clears the route cache. A stream that ends early, in whatever way, leaves the request
//! with the 403: nobody can forge dynamic metadata, and the processor alone may write this namespace.
//!
//! What the processor has to know besides (each seen on Envoy 1.36 to 1.40):
//! - Envoy sends request headers, and nothing else unless the answer to them says so in its `mode_override`: the body with
//!   `request_body_mode: BUFFERED`, response headers with `response_header_mode: SEND`. A `mode_override` replaces the mode
//!   as a whole. An answer to headers that neither asks for the body nor decides leaves the request with the 403.
//! - A `content-length` over the limit is best refused (413) at the headers. A body that turns out to be longer than Envoy
//!   holds (the limit and 64 KiB) never reaches the processor: Envoy answers 413, or 408 after 30 s where the body was there
//!   before the answer to the headers. One just over the limit does reach it.
//! - Trailers of a request come where they are asked for with the body, which says by its `end_of_stream` whether there are
//!   any; the request waits for the answer to them. Where the body is not asked for, trailers go on as they are.
//! - A repeated Host arrives joined: `:authority` is `a,b`. Of an absolute URI nothing is made (404).
//! - Envoy replaces the client's `x-forwarded-client-cert` by its own ([`PEER_CHAIN`]) or removes it, removes most `x-envoy-*`,
//!   and sets `x-forwarded-proto` and `x-envoy-external-address`; it leaves `x-forwarded-for` and the last to the processor, which completes the one and
//!   removes the other. Everything else is received and forwarded as it is, but for what the processor changes. A change
//!   that Envoy cannot make is an error (500).
//! - [`SESSION`] must be set by the answer that decides. A session that the response opens is sealed by changing the
//!   response's header.
//!
//! A second filter has the processor asked about event streams, and about nothing else: it opens a stream of its own, with
//! [`WATCH`] in its initial metadata, when the head of a response says `text/event-stream`, sends that head, and keeps its
//! stream open for as long as the response lasts. An answer that is an immediate response ends the event stream, at
//! whatever time it comes. This filter fails open: without the processor event streams begin and go on.
use std::fmt::Write as _;

use crate::BackendId;

/// Namespace of the dynamic metadata that the processor sets (`receiving_namespaces.untyped`).
pub const NAMESPACE: &str = "agentic";
/// How many header lines a request may have, the Host's included, those that Envoy adds not.
pub const MAX_HEADERS: usize = 100;
/// Key: `"1"` on a request that was decided and let through.
pub const DECIDED: &str = "decided";
/// Key: `IP:PORT` (`[IP]:PORT`) of the endpoint that a request must go to: `override_host` of clusters with endpoints,
/// the original destination of clusters with a host name. Of the former there may be up to [`MAX_ENDPOINTS`],
/// comma-joined: the next one is for the case that no connection can be made to the one before.
pub const ENDPOINT: &str = "endpoint";
/// How many endpoints of a backend are tried, at most.
pub const MAX_ENDPOINTS: usize = 3;
/// Key: the sealed session id of an open session; the route overwrites an `Mcp-Session-Id` in the response with it (only
/// where there is one).
pub const SESSION: &str = "session";
/// Key: names a request that was let through to the processor itself, should an event stream answer it.
pub const WATCHED: &str = "watched";
/// Request header: the cluster that a decided request goes to; always overwritten by the processor, removed by the route.
pub const CLUSTER_HEADER: &str = "x-agentic-cluster";

/// Initial metadata of the processor's stream: `namespace/name` of the Gateway.
pub const GATEWAY: &str = "x-agentic-gateway";
/// Initial metadata: the listener's port in the Gateway (not the Pod's).
pub const PORT: &str = "x-agentic-port";
/// Initial metadata, of TLS connections only: the listener that SNI chose (one filter chain per HTTPS listener).
pub const LISTENER: &str = "x-agentic-listener";
/// Initial metadata, of TLS connections only: [`clients_digest`] of the terms on which the client was let in; a
/// connection that outlives a change of them is refused (421).
pub const CLIENTS: &str = "x-agentic-clients";
/// Initial metadata, of TLS connections only: the client's certificate (URL-encoded PEM), of which the handshake has proven that it is the client's and
/// nothing else: the processor verifies it against the trust bundles itself, whatever Envoy has verified.
pub const PEER_CERTIFICATE: &str = "x-agentic-peer-certificate";
/// Request header: the certificates that the client has shown (`Chain="..."`, URL-encoded PEM), of which the processor takes
/// the intermediates. They only lead to a root: one that somebody made up makes no identity. It goes before policies
/// see the request.
pub const PEER_CHAIN: &str = "x-forwarded-client-cert";
/// Initial metadata: notAfter of the client's certificate, seconds since the epoch; after it there is no identity.
pub const PEER_NOT_AFTER: &str = "x-agentic-peer-not-after";
/// Initial metadata: the client's address, `IP:PORT`.
pub const SOURCE: &str = "x-agentic-source";
/// Initial metadata: the address that the client reached, `IP:PORT`.
pub const DESTINATION: &str = "x-agentic-destination";
/// Initial metadata for people who route in an Envoy of their own (optional): the backend that Envoy's route leads to, as
/// [`cluster_name`] writes it. A request that the processor would send elsewhere is refused.
pub const BACKEND: &str = "x-agentic-backend";

/// Initial metadata, of streams about event streams only: [`WATCH_PREFIX`], then what [`WATCHED`] says of the request.
pub const WATCH: &str = "x-agentic-watch";
/// What the value of [`WATCH`] begins with, so that there is a value where nothing follows.
pub const WATCH_PREFIX: &str = "of/";

/// Value of initial metadata whose formatter had nothing to say; counts as absent, as an empty one does.
pub const ABSENT: &str = "-";

/// The cluster of a backend: `xbackend/NAMESPACE/NAME` or `service/NAMESPACE/NAME:PORT`. Kubernetes names hold no `/`: none collide.
pub fn cluster_name(backend: &BackendId) -> String {
    match backend {
        BackendId::XBackend(name) => format!("xbackend/{name}"),
        BackendId::Service(name, port) => format!("service/{name}:{port}"),
    }
}

/// A digest of what a listener asks of its clients: hexadecimal, equal for equal terms in every process. The trust bundles
/// are not in it: the processor verifies each identity by those that are in force.
pub fn clients_digest(clients: &crate::ClientCertificates) -> String {
    use sha2::{Digest as _, Sha256};
    let mut hash = Sha256::new();
    match clients {
        crate::ClientCertificates::SpiffeRequired => hash.update(b"required"),
        crate::ClientCertificates::SpiffeOptional => hash.update(b"optional"),
        crate::ClientCertificates::Frontend { ca_pem, insecure_fallback } => {
            hash.update([b'f', u8::from(*insecure_fallback)]);
            for pem in ca_pem {
                hash.update(Sha256::digest(pem));
            }
        }
    }
    let mut digits = String::new();
    for byte in hash.finalize().iter().take(8) {
        // Writing to a String cannot fail.
        write!(digits, "{byte:02x}").unwrap_or_default();
    }
    digits
}
