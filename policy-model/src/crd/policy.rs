//! XAccessPolicy: one union of the v0alpha0 and the v1alpha1 shape.
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::status::PolicyStatus;

/// Which calls of MCP servers are allowed to whom, on a Gateway or an XBackend. With `action` this is the v1alpha1
/// shape; without, the v0alpha0 shape.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "agentic.networking.x-k8s.io",
    version = "v1alpha1",
    kind = "XAccessPolicy",
    plural = "xaccesspolicies",
    namespaced,
    category = "gateway-api",
    shortname = "xap",
    status = "PolicyStatus",
    derive = "PartialEq",
    doc = "XAccessPolicy says which identities may call what on its targets, MCP tools above all.",
    printcolumn(json_path = ".spec.targetRefs[0].kind", name = "Target-Kind", type_ = "string"),
    printcolumn(json_path = ".spec.targetRefs[*].name", name = "Targets", type_ = "string"),
    printcolumn(json_path = ".spec.action", name = "Action", type_ = "string"),
    printcolumn(json_path = ".metadata.creationTimestamp", name = "Age", type_ = "date")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.action) || (has(self.rules) && size(self.rules) > 0)").message("rules must be specified when action is not set"),
    validation = Rule::new("!has(self.action) || self.action != 'ExternalAuth' || has(self.externalAuth)").message("externalAuth must be specified when action is set to 'ExternalAuth'"),
    validation = Rule::new("!has(self.externalAuth) || (has(self.action) && self.action == 'ExternalAuth')").message("externalAuth may only be specified when action is set to 'ExternalAuth'"),
    validation = Rule::new("has(self.action) || !has(self.rules) || self.rules.all(r, has(r.source))").message("source must be specified in every rule when action is not set"),
    validation = Rule::new("!has(self.action) || !has(self.rules) || self.rules.all(r, !has(r.authorization) || r.authorization.type in ['Inline', 'CEL'])").message("authorization type must be 'Inline' or 'CEL' when action is set"),
    validation = Rule::new("has(self.action) || !has(self.rules) || self.rules.all(r, !has(r.authorization) || r.authorization.type in ['InlineTools', 'ExternalAuth', 'CEL'])").message("authorization type must be 'InlineTools', 'ExternalAuth' or 'CEL' when action is not set"),
    validation = Rule::new("!has(self.action) || !has(self.rules) || self.rules.all(r, !has(r.authorization) || !has(r.authorization.cel) || !has(r.authorization.cel.message))").message("cel.message may only be specified when action is not set"),
    validation = Rule::new("has(self.action) || !has(self.rules) || self.rules.all(r, !has(r.authorization) || !(has(r.authorization.methods) || has(r.authorization.paths) || has(r.authorization.headers) || has(r.authorization.hosts) || has(r.authorization.ports) || has(r.authorization.mcp)))").message("methods, paths, headers, hosts, ports and mcp may only be specified when action is set"),
)]
pub struct XAccessPolicySpec {
    /// The objects that the policy applies to, in its own namespace, all of one kind.
    #[schemars(length(min = 1, max = 10))]
    #[x_kube(
        merge_strategy = ListMerge::Atomic,
        validation = Rule::new("self.all(x, (x.group in ['agentic.networking.x-k8s.io', 'agentic.prototype.x-k8s.io'] && x.kind == 'XBackend') || (x.group == 'gateway.networking.k8s.io' && x.kind == 'Gateway'))").message("TargetRef must have group agentic.networking.x-k8s.io and kind XBackend, or group gateway.networking.k8s.io and kind Gateway"),
        validation = Rule::new("self.all(ref, ref.kind == self[0].kind)").message("All targetRefs must have the same Kind"),
        validation = Rule::new("self.all(ref, ref.kind != 'XBackend' || !has(ref.sectionName))").message("sectionName may only be specified for a Gateway")
    )]
    pub target_refs: Vec<TargetRef>,
    /// What happens to a request that a rule matches. Left out, the policy has the v0alpha0 shape and its rules allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<ActionType>,
    /// The authorizer that decides what the rules match. Required with the action ExternalAuth, and only then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_auth: Option<ExternalAuth>,
    /// The rules; a request that any of them matches is matched by the policy. Required without an action; with one,
    /// no rules match everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 10))]
    #[x_kube(
        merge_strategy = ListMerge::Atomic,
        validation = Rule::new("self.all(r, self.exists_one(other, other.name == r.name))").message("AccessRule names must be unique"),
        validation = Rule::new("self.filter(r, has(r.authorization) && r.authorization.type == 'ExternalAuth').size() <= 1").message("a maximum of one rule per policy can specify 'ExternalAuth' authorization type")
    )]
    pub rules: Option<Vec<AccessRule>>,
}

/// An object that the policy applies to.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TargetRef {
    /// agentic.networking.x-k8s.io or gateway.networking.k8s.io.
    #[schemars(
        length(max = 253),
        regex(pattern = r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub group: String,
    /// XBackend or Gateway.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$"))]
    pub kind: String,
    /// The object's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Limits the policy to the listener of that name. Gateways only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub section_name: Option<String>,
}

/// What happens to a request that a rule matches.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "a schema of documented variants is no plain enum")]
pub enum ActionType {
    Allow,
    ExternalAuth,
}

/// One rule of a policy.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessRule {
    /// The rule's name, unique in the policy.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub name: String,
    /// Whom the rule is about. Required without an action; with one, left out means anyone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// What the rule is about. Left out: with an action anything, without one all but tools/call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization: Option<Authorization>,
}

/// Whom a rule is about: a verified workload identity.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("self.type != 'ServiceAccount' || has(self.serviceAccount)").message("serviceAccount must be specified when type is set to 'ServiceAccount'"),
    validation = Rule::new("self.type == 'ServiceAccount' || !has(self.serviceAccount)").message("serviceAccount may only be specified when type is set to 'ServiceAccount'"),
    validation = Rule::new("self.type != 'SPIFFE' || has(self.spiffe)").message("spiffe must be specified when type is set to 'SPIFFE'"),
    validation = Rule::new("self.type == 'SPIFFE' || !has(self.spiffe)").message("spiffe may only be specified when type is set to 'SPIFFE'")
)]
pub struct Source {
    /// Which of the other fields is set.
    #[serde(rename = "type")]
    pub kind: SourceType,
    /// A Kubernetes service account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<ServiceAccountSource>,
    /// A SPIFFE ID, compared as a string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = "^spiffe://[a-z0-9._-]+(?:/[A-Za-z0-9._-]+)*$"))]
    pub spiffe: Option<String>,
}

/// How a source names an identity.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "a schema of documented variants is no plain enum")]
pub enum SourceType {
    ServiceAccount,
    #[serde(rename = "SPIFFE")]
    Spiffe,
}

/// A Kubernetes service account.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceAccountSource {
    /// Its name.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub name: String,
    /// Its namespace; the policy's own when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: Option<String>,
}

/// What a rule is about.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("self.type != 'InlineTools' || has(self.tools)").message("tools must be specified when type is set to 'InlineTools'"),
    validation = Rule::new("self.type == 'InlineTools' || !has(self.tools)").message("tools may only be specified when type is set to 'InlineTools'"),
    validation = Rule::new("self.type != 'ExternalAuth' || has(self.externalAuth)").message("externalAuth must be specified when type is set to 'ExternalAuth'"),
    validation = Rule::new("self.type == 'ExternalAuth' || !has(self.externalAuth)").message("externalAuth may only be specified when type is set to 'ExternalAuth'"),
    validation = Rule::new("self.type != 'CEL' || has(self.cel)").message("cel must be specified when type is set to 'CEL'"),
    validation = Rule::new("self.type == 'CEL' || !has(self.cel)").message("cel may only be specified when type is set to 'CEL'"),
)]
pub struct Authorization {
    /// Inline or CEL with an action; InlineTools, ExternalAuth or CEL without.
    #[serde(rename = "type")]
    pub kind: AuthorizationType,
    /// Names of MCP tools that may be called. An empty list allows all but tools/call. Only without an action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024), inner(length(max = 256)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub tools: Option<Vec<String>>,
    /// The authorizer that must also allow what the rule matches. Only without an action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_auth: Option<ExternalAuth>,
    /// An expression that must be true of a tools/call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cel: Option<Cel>,
    /// HTTP methods, any of. Only with an action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 9))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub methods: Option<Vec<HttpMethod>>,
    /// Paths as received, any of. Only with an action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 10))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub paths: Option<Vec<PathMatch>>,
    /// Headers, all of. Only with an action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 10))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub headers: Option<Vec<HeaderMatch>>,
    /// Host names, any of; a leading `*.` stands for one or more labels. Only with an action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 10),
        inner(
            length(min = 1, max = 253),
            regex(pattern = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
        )
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub hosts: Option<Vec<String>>,
    /// Ports of listeners, any of. Only with an action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 10), inner(range(min = 1, max = 65535)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub ports: Option<Vec<i32>>,
    /// MCP messages. Only with an action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcp: Option<Mcp>,
}

/// How a rule says what it is about.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "a schema of documented variants is no plain enum")]
pub enum AuthorizationType {
    InlineTools,
    ExternalAuth,
    #[serde(rename = "CEL")]
    Cel,
    Inline,
}

/// A CEL expression.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cel {
    /// The expression, which yields a bool.
    #[schemars(length(min = 1, max = 4096))]
    pub expression: String,
    /// For people; nothing evaluates it. Only without an action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub message: Option<String>,
}

/// An HTTP method.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "a schema of documented variants is no plain enum")]
pub enum HttpMethod {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
}

impl HttpMethod {
    /// The method as it stands in a request line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Patch => "PATCH",
        }
    }
}

/// A path to match.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("self.type == 'RegularExpression' || self.value.startsWith('/')").message("value must be an absolute path and start with '/' when type is 'Exact' or 'PathPrefix'")
)]
pub struct PathMatch {
    /// How the path is compared.
    #[serde(rename = "type", default)]
    pub kind: PathMatchType,
    /// What it is compared with.
    #[schemars(length(min = 1, max = 1024))]
    pub value: String,
}

/// How a path is compared.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "a schema of documented variants is no plain enum")]
pub enum PathMatchType {
    Exact,
    #[default]
    PathPrefix,
    RegularExpression,
}

/// A header to match.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderMatch {
    /// The header's name, in any case.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$"))]
    pub name: String,
    /// How the value is compared.
    #[serde(rename = "type", default)]
    pub kind: HeaderMatchType,
    /// What it is compared with.
    #[schemars(length(min = 1, max = 4096))]
    pub value: String,
}

/// How a header's value is compared.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "a schema of documented variants is no plain enum")]
pub enum HeaderMatchType {
    #[default]
    Exact,
    RegularExpression,
}

/// MCP messages to match.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mcp {
    /// Whether the messages that every MCP session needs (initialize, ping, tools/list and the like) match too.
    #[serde(default)]
    pub mcp_base_protocol_methods_option: BaseProtocolOption,
    /// MCP methods, any of; left out: any, unless only base protocol methods are to match; empty: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 10))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub methods: Option<Vec<McpMethod>>,
}

/// Whether base protocol messages match too.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "a schema of documented variants is no plain enum")]
pub enum BaseProtocolOption {
    #[default]
    SkipBaseProtocolMethods,
    MatchBaseProtocolMethods,
}

/// An MCP method to match.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("!has(self.params) || self.name in ['prompts/get', 'tools/call', 'resources/subscribe', 'resources/unsubscribe', 'resources/read']").message("Params can only be specified for get, call, subscribe, unsubscribe, or read methods")
)]
pub struct McpMethod {
    /// The method, or tools, prompts or resources for all of theirs.
    pub name: McpMethodName,
    /// Names (of tools or prompts) or uris (of resources), any of; left out or empty: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 10), inner(length(min = 1, max = 128)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub params: Option<Vec<String>>,
}

/// The MCP methods that a rule can name.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "a schema of documented variants is no plain enum")]
pub enum McpMethodName {
    #[serde(rename = "tools")]
    Tools,
    #[serde(rename = "prompts")]
    Prompts,
    #[serde(rename = "resources")]
    Resources,
    #[serde(rename = "prompts/list")]
    PromptsList,
    #[serde(rename = "tools/list")]
    ToolsList,
    #[serde(rename = "resources/list")]
    ResourcesList,
    #[serde(rename = "resources/templates/list")]
    ResourcesTemplatesList,
    #[serde(rename = "prompts/get")]
    PromptsGet,
    #[serde(rename = "tools/call")]
    ToolsCall,
    #[serde(rename = "resources/subscribe")]
    ResourcesSubscribe,
    #[serde(rename = "resources/unsubscribe")]
    ResourcesUnsubscribe,
    #[serde(rename = "resources/read")]
    ResourcesRead,
}

impl McpMethodName {
    /// The name as it stands in the policy.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources => "resources",
            Self::PromptsList => "prompts/list",
            Self::ToolsList => "tools/list",
            Self::ResourcesList => "resources/list",
            Self::ResourcesTemplatesList => "resources/templates/list",
            Self::PromptsGet => "prompts/get",
            Self::ToolsCall => "tools/call",
            Self::ResourcesSubscribe => "resources/subscribe",
            Self::ResourcesUnsubscribe => "resources/unsubscribe",
            Self::ResourcesRead => "resources/read",
        }
    }
}

/// How to ask an external authorizer; as Gateway API's HTTPExternalAuthFilter.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("self.protocol != 'GRPC' || has(self.grpc)").message("grpc must be specified when protocol is set to 'GRPC'"),
    validation = Rule::new("self.protocol == 'GRPC' || !has(self.grpc)").message("protocol must be 'GRPC' when grpc is set"),
    validation = Rule::new("self.protocol != 'HTTP' || has(self.http)").message("http must be specified when protocol is set to 'HTTP'"),
    validation = Rule::new("self.protocol == 'HTTP' || !has(self.http)").message("protocol must be 'HTTP' when http is set")
)]
pub struct ExternalAuth {
    /// HTTP or GRPC.
    pub protocol: AuthProtocol,
    /// Where the authorizer is.
    pub backend_ref: AuthBackendRef,
    /// Settings for GRPC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcAuth>,
    /// Settings for HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpAuth>,
    /// Send the request's body too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward_body: Option<ForwardBody>,
}

/// What an authorizer speaks.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "a schema of documented variants is no plain enum")]
pub enum AuthProtocol {
    Http,
    Grpc,
}

/// Where an authorizer is.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("self.group != '' || self.kind != 'Service' || has(self.port)").message("Must have port for Service reference")
)]
pub struct AuthBackendRef {
    /// Empty for a Service.
    #[serde(default)]
    #[schemars(
        length(max = 253),
        regex(pattern = r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub group: String,
    /// Service.
    #[serde(default = "service_kind")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$"))]
    pub kind: String,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace; the policy's own when left out. Another one needs a ReferenceGrant there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: Option<String>,
    /// Its port, required for a Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
}

fn service_kind() -> String {
    "Service".to_owned()
}

/// Settings for an authorizer over gRPC.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcAuth {
    /// Headers of the request to send; left out or empty: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 256), regex(pattern = r"^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub allowed_headers: Option<Vec<String>>,
}

/// Settings for an authorizer over HTTP.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpAuth {
    /// Put before the request's path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024), regex(pattern = r"^$|^/[!-\x22$->@-~]*$"))]
    pub path: Option<String>,
    /// Headers of the request to send besides the fixed ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 256), regex(pattern = r"^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub allowed_headers: Option<Vec<String>>,
    /// Headers of the answer to copy to the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 256), regex(pattern = r"^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub allowed_response_headers: Option<Vec<String>>,
}

/// How much of a request's body to send to the authorizer.
#[derive(JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ForwardBody {
    /// In bytes; left out or 0: the body is not sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 65535))]
    pub max_size: Option<i32>,
}
