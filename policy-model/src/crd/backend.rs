//! XBackend.
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::status::StatusCondition;

/// An MCP server.
#[derive(CustomResource, JsonSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[kube(
    group = "agentic.networking.x-k8s.io",
    version = "v0alpha0",
    kind = "XBackend",
    plural = "xbackends",
    namespaced,
    category = "gateway-api",
    shortname = "xb",
    status = "XBackendStatus",
    derive = "PartialEq",
    doc = "XBackend is an MCP server that routes can send to and policies can target.",
    printcolumn(json_path = ".spec.mcp.serviceName", name = "Service", type_ = "string"),
    printcolumn(json_path = ".spec.mcp.hostname", name = "Hostname", type_ = "string"),
    printcolumn(json_path = ".spec.mcp.port", name = "Port", type_ = "integer"),
    printcolumn(json_path = ".metadata.creationTimestamp", name = "Age", type_ = "date")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct XBackendSpec {
    /// The MCP server.
    pub mcp: McpBackend,
}

/// Where an MCP server is.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("has(self.serviceName) != has(self.hostname)").message("exactly one of serviceName and hostname must be set")
)]
pub struct McpBackend {
    /// A Service in the XBackend's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub service_name: Option<String>,
    /// A host name outside of the cluster, reached over verified TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub hostname: Option<String>,
    /// Its port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// The path of its MCP endpoint.
    #[serde(default = "mcp_path")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^/[!-\x22$->@-~]*$"))]
    pub path: String,
}

fn mcp_path() -> String {
    "/mcp".to_owned()
}

/// What the controller says of an XBackend.
#[derive(KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(rename_all = "camelCase")]
pub struct XBackendStatus {
    /// The state, one condition of a type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Option<Vec<StatusCondition>>,
}
