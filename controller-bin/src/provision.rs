//! Proxies: what runs for each Gateway, by server-side apply.
use policy_model::NamespacedName;
use serde_json::Value;
use std::collections::BTreeMap;

/// The data planes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataPlane {
    /// Our own gateway.
    Native,
}

/// How the proxies of one Gateway run: everything that the applied objects depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// The Gateway.
    pub gateway: NamespacedName,
    /// metadata.uid of the Gateway, for owner references.
    pub uid: String,
    /// Labels and annotations of `spec.infrastructure`.
    pub labels: BTreeMap<String, String>,
    /// Annotations of `spec.infrastructure`.
    pub annotations: BTreeMap<String, String>,
    /// Listener ports, sorted.
    pub ports: Vec<u16>,
    /// What runs.
    pub data_plane: DataPlane,
    /// From the GatewayClass's parameters; the controller's default otherwise.
    pub image: Option<String>,
    /// Replicas; 1 by default.
    pub replicas: u32,
    /// Further flags of the data plane that the parameters allow (validated).
    pub flags: Vec<String>,
}

/// What the controller adds to each.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Image of the native data plane.
    pub gateway_image: String,
    /// `https://agentic-controller.agentic-net-system.svc:15010`
    pub xds_url: String,
    /// The controller's SPIFFE ID, which proxies pin.
    pub xds_server_id: String,
    /// Trust domain.
    pub trust_domain: String,
    /// Signer of `podCertificate` volumes.
    pub signer: String,
    /// Further flags for every proxy (`--default-action deny`).
    pub flags: Vec<String>,
}

/// Parameters of a GatewayClass (`data` of the ConfigMap in `parametersRef`). Unknown keys and bad values are errors: `InvalidParameters`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parameters {
    /// `dataPlane`: `native`.
    pub data_plane: Option<DataPlane>,
    /// `image`
    pub image: Option<String>,
    /// `replicas`, 1 to 100.
    pub replicas: Option<u32>,
    /// Flags for what else may be set.
    pub flags: Vec<String>,
}

impl Parameters {
    /// Reads the `data` of a ConfigMap.
    ///
    /// # Errors
    /// What is wrong and what to write instead, for the class's status.
    pub fn read(_data: &BTreeMap<String, String>) -> Result<Self, String> {
        todo!()
    }
}

/// Name of everything that is made for a Gateway: `envoy-proxy-<first 12 hex digits of sha256("ns/name")>` (upstream's name for both data planes: agents pin it).
pub fn proxy_name(_gateway: &NamespacedName) -> String {
    todo!()
}

/// The objects to apply, in order.
pub fn objects(_proxy: &Proxy, _settings: &Settings) -> Vec<Value> {
    todo!()
}

/// Applies them by server-side apply (field manager `agentic-controller`, forced), and removes what is no longer wanted of
/// ours for this Gateway. Finalizers that upstream left on Gateways, classes and backends of ours are removed.
///
/// # Errors
/// For people: which object, and what the API server said.
pub async fn apply(_client: &kube::Client, _proxy: &Proxy, _settings: &Settings) -> Result<(), String> {
    todo!()
}
