//! The version-neutral model: what every API version of XAccessPolicy and XBackend converts into.
//!
//! After conversion nothing asks which version a policy came from, other than [`Dialect`], where the
//! meaning of base protocol messages really differs.
use std::fmt;

/// Namespace and name of an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamespacedName {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// Shorthand used in signatures.
pub type ObjectName = NamespacedName;

impl NamespacedName {
    /// A name in a namespace.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}
impl fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The API groups that XAccessPolicy and XBackend are served in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AgenticGroup {
    /// `agentic.networking.x-k8s.io`
    Networking,
    /// `agentic.prototype.x-k8s.io`
    Prototype,
}
impl AgenticGroup {
    /// The group's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Networking => "agentic.networking.x-k8s.io",
            Self::Prototype => "agentic.prototype.x-k8s.io",
        }
    }
    /// The group of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Networking, Self::Prototype].into_iter().find(|group| group.name() == name)
    }
}

/// Tells policies apart: by group too.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyKey {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The API group.
    pub group: AgenticGroup,
}
impl fmt::Display for PolicyKey {
    /// `namespace/name`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A creationTimestamp: whole seconds since the Unix epoch (UTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

/// What kind of object a policy targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TargetKind {
    /// `gateway.networking.k8s.io` Gateway
    Gateway,
    /// XBackend, of either agentic group: the same object when namespace and name agree.
    XBackend,
}

/// An object that a policy targets, in the policy's own namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// Gateway or XBackend.
    pub kind: TargetKind,
    /// Its name.
    pub object: NamespacedName,
    /// Limits the policy to the listener of that name (Gateways only).
    pub section_name: Option<String>,
}

/// Where the meaning of versions really differs (semantics, section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// No `spec.action`: base protocol messages match implicitly; every rule counts as an Allow rule.
    V0Alpha0,
    /// `spec.action` present.
    V1Alpha1,
}

/// A policy of any version.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Namespace, name, group.
    pub key: PolicyKey,
    /// creationTimestamp; `None` is the youngest.
    pub created: Option<Timestamp>,
    /// metadata.generation
    pub generation: Option<i64>,
    /// One or more, all of one kind.
    pub targets: Vec<Target>,
    /// Which rules of section 4 hold.
    pub dialect: Dialect,
    /// What the rules do. Always `Allow` in v0alpha0.
    pub action: Action,
    /// In the order of the object.
    pub rules: Vec<Rule>,
}

/// What a policy's rules do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Its rules are Allow rules of the level. v1alpha1 without rules: one rule that matches everything.
    Allow,
    /// What a rule matches (or everything, without rules) is delegated. v1alpha1 only.
    ExternalAuth(ExternalAuth),
}

/// One rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Unique within the policy.
    pub name: String,
    /// Who.
    pub source: Source,
    /// What.
    pub condition: Condition,
}

/// Who a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// v1alpha1 with `source` omitted: anyone, with or without an identity.
    Anyone,
    /// Exact string equality with the SPIFFE ID.
    Spiffe(String),
    /// `spiffe://<trust-domain>/ns/<namespace>/sa/<name>`; the trust domain is the engine's.
    ServiceAccount(NamespacedName),
}

/// What a rule is about.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// v1alpha1 without `authorization`: anything.
    Anything,
    /// v0alpha0 without `authorization`, or InlineTools with an empty list: what is not a `tools/call`
    /// (a body that was parsed and is none, or a request without a body).
    NotToolCall,
    /// v0alpha0 InlineTools: `tools/call` of one of these names.
    Tools(Vec<String>),
    /// `tools/call`, and the expression is true (both versions). `inline` holds the other fields of a v1alpha1 rule.
    Cel {
        /// The CEL source text.
        expression: String,
        /// The L7 fields of the same v1alpha1 rule, which still apply.
        inline: Option<Box<Inline>>,
    },
    /// v0alpha0 ExternalAuth: any `tools/call`, delegated.
    ExternalAuth(ExternalAuth),
    /// v1alpha1 Inline: every given part must match.
    Inline(Box<Inline>),
}

/// v1alpha1 `authorization.type: Inline`; also the L7 fields beside CEL.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Inline {
    /// Any of; empty and absent are told apart: `None` is absent.
    pub methods: Option<Vec<HttpMethod>>,
    /// Any of.
    pub paths: Option<Vec<PathMatch>>,
    /// All of.
    pub headers: Option<Vec<HeaderMatch>>,
    /// Any of.
    pub hosts: Option<Vec<HostMatch>>,
    /// Any of; the listener's port.
    pub ports: Option<Vec<u16>>,
    /// The MCP part.
    pub mcp: Option<McpMatch>,
}

/// An HTTP method name, upper case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpMethod(pub String);

/// A path matcher. The path as received, before rewrites, without query.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathMatch {
    /// Byte for byte.
    Exact(String),
    /// By path element.
    Prefix(String),
    /// RE2 syntax, anchored at both ends. May not compile: then the policy cannot be enforced as written.
    Regex(String),
}

/// A header matcher: of a repeated header every line must match.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HeaderMatch {
    /// Lower case.
    pub name: String,
    /// What the value must be.
    pub value: StringMatch,
}

/// How a string is compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum StringMatch {
    /// Byte for byte.
    Exact(String),
    /// RE2 syntax, anchored at both ends.
    Regex(String),
}

/// A host matcher; ASCII case-insensitive; the port of the Host header is ignored.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostMatch {
    /// The whole name, lower case.
    Exact(String),
    /// `*.example.com` as `example.com`: one or more labels before it.
    Wildcard(String),
}

/// v1alpha1 `mcp`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct McpMatch {
    /// MATCH_BASE_PROTOCOL_METHODS was given.
    pub match_base_protocol: bool,
    /// `None`: absent (without MATCH: any MCP message; with MATCH: only base protocol). `Some(empty)`: matches no method.
    pub methods: Option<Vec<McpMethodMatch>>,
}

/// One entry of `mcp.methods`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct McpMethodMatch {
    /// `tools`, `prompts`, `resources` (every sub-method), or a whole method name.
    pub name: String,
    /// `None` or empty: any. Compared with `params.name` or `params.uri`.
    pub params: Option<Vec<String>>,
}

/// How to ask an external authorizer (Gateway API HTTPExternalAuthFilter).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ExternalAuth {
    /// The Service that answers.
    pub backend: ServiceRef,
    /// gRPC or HTTP, with its settings.
    pub protocol: AuthorizerProtocol,
    /// `forwardBody.maxSize`, bytes; `None`: the body is not sent.
    pub forward_body: Option<u32>,
}

/// A reference to a Service, or to something that is no Service and so never resolves.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServiceRef {
    /// Group as given; `""` for a Service.
    pub group: String,
    /// Kind as given; `Service` by default.
    pub kind: String,
    /// Namespace (the policy's own when left out) and name.
    pub object: NamespacedName,
    /// The port; `None` never resolves.
    pub port: Option<u16>,
}

/// The authorizer's protocol.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AuthorizerProtocol {
    /// Envoy's `envoy.service.auth.v3.Authorization/Check`.
    Grpc {
        /// Header names (lower case) to send; `None`: all.
        allowed_headers: Option<Vec<String>>,
    },
    /// Envoy's HTTP form.
    Http {
        /// Prefix of the path; empty by default.
        path: String,
        /// Header names (lower case) to send besides the fixed ones.
        allowed_headers: Vec<String>,
        /// Header names (lower case) of the answer to copy to the upstream request.
        allowed_response_headers: Vec<String>,
    },
}

/// An XBackend of either group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XBackend {
    /// Its name.
    pub object: NamespacedName,
    /// The group it was read from.
    pub group: AgenticGroup,
    /// metadata.generation
    pub generation: Option<i64>,
    /// creationTimestamp
    pub created: Option<Timestamp>,
    /// Where it is.
    pub address: BackendAddress,
    /// 1 to 65535.
    pub port: u16,
    /// The MCP path, `/mcp` by default.
    pub path: String,
}

/// Where an XBackend's server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendAddress {
    /// A Service in the XBackend's namespace.
    Service(String),
    /// An external host name: always TLS, verified.
    Hostname(String),
}
