//! Proxies: what runs for each Gateway, by server-side apply.
mod apply;
mod drift;
mod envoy;
mod finalizers;
mod objects;
mod parameters;

use std::collections::BTreeMap;

use policy_model::NamespacedName;
use sha2::{Digest as _, Sha256};
use xds_translate::envoy::Version;

pub(crate) use self::parameters::is_image;
pub use self::{
    apply::{apply, remove},
    envoy::{ALONE, ALONE_CONNECTION, decide_socket, own_certificate},
    finalizers::release,
    objects::objects,
};

/// Who writes what [`apply`] writes, in `managedFields`.
pub const FIELD_MANAGER: &str = "agentic-controller";
/// On everything that is made for a Gateway, with [`gateway_label`] as its value (GEP-1762).
pub const GATEWAY_LABEL: &str = "gateway.networking.k8s.io/gateway-name";
/// On a proxy's Pods, with [`proxy_name`] as its value: what the Deployment, the Service and the disruption budget select
/// by. It says nothing of the data plane, since a Deployment's selector cannot be changed.
pub const PROXY_LABEL: &str = "agentic.networking.x-k8s.io/proxy";
/// The image of Envoy by default.
pub(crate) const ENVOY_IMAGE: &str = "docker.io/envoyproxy/envoy:distroless-v1.40.0";
/// Longest value of a label.
const LABEL_VALUE: usize = 63;

/// The data planes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataPlane {
    /// Our own gateway.
    Native,
    /// Envoy, with our engine beside it or alone.
    Envoy(Envoy),
}

impl DataPlane {
    /// Whether it is Envoy with nothing beside it.
    pub fn is_alone(&self) -> bool {
        matches!(self, Self::Envoy(Envoy { policy: EnvoyPolicy::Filters, .. }))
    }
}

/// Envoy as a data plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envoy {
    /// From the GatewayClass's parameters; the controller's default otherwise.
    pub image: Option<EnvoyImage>,
    /// Who decides.
    pub policy: EnvoyPolicy,
}

/// An image of Envoy's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvoyImage {
    /// The reference.
    pub image: String,
    /// What is in it.
    pub version: Version,
}

/// Who decides where Envoy is the data plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvoyPolicy {
    /// `agentic-gateway decide` in the same Pod.
    Engine,
    /// Envoy's own filters: a subset of policies, and nothing beside Envoy.
    Filters,
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
    /// Image of agentic-gateway from the GatewayClass's parameters; the controller's default otherwise.
    pub image: Option<String>,
    /// Replicas; 1 by default.
    pub replicas: u32,
    /// Further flags of the data plane that the parameters allow (validated), each `--name=value` or `--name`.
    pub flags: Vec<String>,
}

/// What the controller adds to each.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Image of agentic-gateway.
    pub gateway_image: String,
    /// Image of Envoy.
    pub envoy_image: EnvoyImage,
    /// Host name of the discovery service: `agentic-controller.agentic-net-system.svc`
    pub xds_host: String,
    /// Port of the discovery service.
    pub xds_port: u16,
    /// The controller's SPIFFE ID, which proxies pin.
    pub xds_server_id: String,
    /// Trust domain.
    pub trust_domain: String,
    /// Signer of `podCertificate` volumes.
    pub signer: String,
    /// Further flags for every proxy (`--default-action=deny`), one element each.
    pub flags: Vec<String>,
}

/// Parameters of a GatewayClass (`data` of the ConfigMap in `parametersRef`). Unknown keys and bad values are errors: `InvalidParameters`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parameters {
    /// `dataPlane`: `native` or `envoy`, with what else is said about Envoy.
    pub data_plane: Option<DataPlane>,
    /// `image`
    pub image: Option<String>,
    /// `replicas`, 1 to 100.
    pub replicas: Option<u32>,
    /// Flags for what else may be set.
    pub flags: Vec<String>,
}

/// Name of everything that is made for a Gateway: `envoy-proxy-<first 12 hex digits of sha256("ns/name")>` (upstream's name for both data planes: agents pin it).
pub fn proxy_name(gateway: &NamespacedName) -> String {
    format!("envoy-proxy-{}", short_hash(&gateway.to_string()))
}

/// The value of [`GATEWAY_LABEL`]: the Gateway's name, or, where that is longer than the 63 characters that a label's
/// value may have, its beginning and a hash of the whole.
pub fn gateway_label(gateway: &NamespacedName) -> String {
    if gateway.name.len() <= LABEL_VALUE {
        return gateway.name.clone();
    }
    let hash = short_hash(&gateway.name);
    // Names are ASCII; a label's value may hold dots and dashes, but the one before the hash is enough.
    let beginning: String = gateway.name.chars().take(LABEL_VALUE - 1 - hash.len()).collect();
    format!("{}-{hash}", beginning.trim_end_matches(['.', '-']))
}

/// The first 12 hex digits of the SHA-256.
fn short_hash(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()), 6)
}

/// The first bytes as hex digits.
fn hex(bytes: &[u8], count: usize) -> String {
    bytes.iter().take(count).map(|byte| format!("{byte:02x}")).collect()
}
