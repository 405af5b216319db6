//! What a data plane needs to serve one Gateway; no Kubernetes types in it.
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use authz_core::{Engine, Levels};
use http::{HeaderName, HeaderValue};
use policy_model::NamespacedName;

/// One Gateway, resolved.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Which.
    pub gateway: NamespacedName,
    /// In the order of the object; only those that can be programmed.
    pub listeners: Vec<Listener>,
    /// Every route rule that is attached to some listener.
    pub rules: Vec<Arc<RouteRule>>,
    /// Every backend that some rule names, and every authorizer's Service.
    pub backends: BTreeMap<BackendId, Backend>,
    /// The policies.
    pub engine: Arc<Engine>,
    /// Parallel to `engine.authorizers()`.
    pub authorizers: Vec<AuthorizerBackend>,
}

/// Index into [`Snapshot::rules`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub u32);

/// A listener.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Its name.
    pub name: String,
    /// Its port.
    pub port: u16,
    /// HTTP or HTTPS.
    pub protocol: Protocol,
    /// `None`: any host. May begin with `*.`; lower case.
    pub hostname: Option<String>,
    /// For HTTPS.
    pub tls: Option<ListenerTls>,
    /// Attached rules with the host names under which each is reachable here (already intersected with `hostname`; empty: any).
    pub routes: Vec<(RuleId, Vec<String>)>,
}

/// A listener's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Plain: no identity.
    Http,
    /// TLS terminated here.
    Https,
}

/// How an HTTPS listener does TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerTls {
    /// From `certificateRefs`; empty: the gateway's own SPIFFE certificate.
    pub certificates: Vec<CertificateAndKey>,
    /// What is asked of clients.
    pub clients: ClientCertificates,
}

/// From a Secret, PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateAndKey {
    /// `tls.crt`
    pub certificate_pem: Vec<u8>,
    /// `tls.key`
    pub key_pem: Vec<u8>,
}
impl std::fmt::Debug for CertificateAndKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateAndKey").finish_non_exhaustive()
    }
}

/// What is asked of clients (semantics section 2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCertificates {
    /// No `certificateRefs`: an identity from the trust bundles is required.
    SpiffeRequired,
    /// `certificateRefs`, no frontend CA: asked for, verified against the bundles, not required.
    SpiffeOptional,
    /// Frontend validation: these roots (PEM) admit a connection; identities still come only from trust bundles.
    Frontend {
        /// CA certificates, PEM.
        ca_pem: Vec<Vec<u8>>,
        /// AllowInsecureFallback: connections without (or with an unverified) certificate are admitted, without identity.
        insecure_fallback: bool,
    },
}

/// Name of a backend: cannot collide.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BackendId {
    /// An XBackend.
    XBackend(NamespacedName),
    /// A Service and port.
    Service(NamespacedName, u16),
}

/// A backend.
#[derive(Debug, Clone, PartialEq)]
pub struct Backend {
    /// Which.
    pub id: BackendId,
    /// XBackend with its MCP path, or Service.
    pub kind: BackendKind,
    /// Where.
    pub destination: Destination,
    /// TLS to it; `None`: plain.
    pub tls: Option<UpstreamTls>,
    /// `appProtocol: kubernetes.io/h2c`: HTTP/2 with prior knowledge.
    pub h2c: bool,
}

/// What kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendKind {
    /// `spec.mcp.path`
    XBackend {
        /// The MCP path.
        path: String,
    },
    /// A Service.
    Service,
}

/// Where a backend is.
#[derive(Debug, Clone, PartialEq)]
pub enum Destination {
    /// Ready endpoints of a Service (EndpointSlices), sorted; may be empty (503).
    Endpoints(Vec<Endpoint>),
    /// An external host name, resolved by DNS or `--resolve`.
    Hostname {
        /// The name.
        host: String,
        /// The port.
        port: u16,
    },
}

/// One address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// IP address.
    pub address: IpAddr,
    /// Target port.
    pub port: u16,
}
impl Endpoint {
    /// As a socket address.
    pub fn socket_addr(self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

/// TLS to a backend: always verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    /// SNI, and the name to verify when `san_names`/`san_uris` are empty.
    pub server_name: String,
    /// CA certificates (PEM); empty: the system's roots (and `--extra-ca`).
    pub ca_pem: Vec<Vec<u8>>,
    /// BackendTLSPolicy `subjectAltNames`: DNS names, any of which (or of the URIs) must be in the certificate.
    pub san_names: Vec<String>,
    /// URI SANs.
    pub san_uris: Vec<String>,
}

/// An authorizer's endpoints.
#[derive(Debug, Clone, PartialEq)]
pub struct AuthorizerBackend {
    /// `name.namespace.svc`
    pub authority: String,
    /// Ready endpoints; empty where the reference does not resolve (then the policy fails closed anyway).
    pub endpoints: Vec<Endpoint>,
}

/// One rule of an HTTPRoute, with its matches.
#[derive(Debug, Clone)]
pub struct RouteRule {
    /// The HTTPRoute.
    pub route: NamespacedName,
    /// creationTimestamp of the HTTPRoute, for precedence; `None` is the youngest.
    pub created: Option<policy_model::Timestamp>,
    /// Index of the rule in the HTTPRoute.
    pub index: usize,
    /// `name`, if given.
    pub name: Option<String>,
    /// As in the object; at least one (the default matches all).
    pub matches: Vec<gateway_api::httproutes::HttpRouteRulesMatches>,
    /// Filters of the rule.
    pub filters: Filters,
    /// Backends; one with `backend: None` answers 500. No backends and no redirect: 500.
    pub backends: Vec<WeightedBackend>,
    /// Timeouts.
    pub timeouts: Timeouts,
}

/// One `backendRef`.
#[derive(Debug, Clone)]
pub struct WeightedBackend {
    /// `None`: the reference does not resolve or is not permitted; requests that choose it get 500.
    pub backend: Option<BackendId>,
    /// Share; 0: none.
    pub weight: u32,
    /// Filters of the backendRef, applied after the rule's.
    pub filters: Filters,
    /// Which policies apply: this Gateway's, and the XBackend's.
    pub levels: Levels,
}

/// Filters, reduced.
#[derive(Debug, Clone, Default)]
pub struct Filters {
    /// RequestHeaderModifier.
    pub request_headers: HeaderFilter,
    /// ResponseHeaderModifier.
    pub response_headers: HeaderFilter,
    /// URLRewrite path.
    pub path: Option<PathRewrite>,
    /// URLRewrite hostname.
    pub hostname: Option<String>,
    /// RequestRedirect.
    pub redirect: Option<Redirect>,
    /// CORS.
    pub cors: Option<Arc<CorsFilter>>,
}

/// Header changes: set, add, remove, in this order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeaderFilter {
    /// Replace.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Append.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Remove.
    pub remove: Vec<HeaderName>,
}

/// URLRewrite / RequestRedirect path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathRewrite {
    /// The whole path.
    Full(String),
    /// The matched prefix.
    Prefix(String),
}

/// RequestRedirect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// Scheme, if changed.
    pub scheme: Option<String>,
    /// Host, if changed.
    pub hostname: Option<String>,
    /// Port, if changed.
    pub port: Option<u16>,
    /// Path, if changed.
    pub path: Option<PathRewrite>,
    /// 301, 302, 303, 307 or 308. Default 302.
    pub status: u16,
}

/// CORS (Gateway API HTTPCORSFilter).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CorsFilter {
    /// `*`, `https://example.com`, `https://*.example.com`
    pub allow_origins: Vec<String>,
    /// Methods, or `*`.
    pub allow_methods: Vec<String>,
    /// Headers, or `*`.
    pub allow_headers: Vec<String>,
    /// Exposed headers.
    pub expose_headers: Vec<String>,
    /// Seconds; default 5.
    pub max_age: u32,
    /// `Access-Control-Allow-Credentials: true`
    pub allow_credentials: bool,
}

/// HTTPRoute timeouts; `None`: unlimited (event streams live long).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// The whole request.
    pub request: Option<Duration>,
    /// One attempt at a backend.
    pub backend_request: Option<Duration>,
}
