//! What a translation depends on besides the snapshot.
use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
    time::Duration,
};

/// A version of Envoy that is translated for: 1.36 to 1.40, all patches but 1.37.0 (it crashes, and lets duplicate keys through).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version {
    minor: u8,
}

impl Version {
    /// The newest one.
    pub const NEWEST: Self = Self { minor: 40 };

    /// The minor version: 36 to 40.
    pub fn minor(self) -> u8 {
        self.minor
    }
}

/// Reads `1.40` or `1.40.2`.
impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let what = "write 1.36, 1.38, 1.39 or 1.40, or a patch version of 1.36 to 1.40";
        let mut parts = text.split('.');
        let major = parts.next();
        let minor = parts.next().and_then(|minor| minor.parse::<u8>().ok());
        let patch = parts.next().map(|patch| patch.parse::<u16>());
        if parts.next().is_some() || matches!(patch, Some(Err(_))) {
            return Err(format!("`{text}` is not a version of Envoy; {what}"));
        }
        match (major, minor, patch) {
            (Some("1"), Some(37), None | Some(Ok(0))) => {
                Err(format!("Envoy `{text}` is refused: 1.37.0 crashes and forwards duplicate keys; {what}"))
            }
            (Some("1"), Some(minor @ 36..=40), _) => Ok(Self { minor }),
            _ => Err(format!("Envoy `{text}` is not supported; {what}")),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{}", self.minor)
    }
}

/// What a translation depends on besides the snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Envoy's.
    pub version: Version,
    /// Who decides.
    pub policy: Policy,
    /// The address that listeners bind.
    pub listen_address: IpAddr,
    /// Listener ports that are served elsewhere.
    pub listen: BTreeMap<u16, SocketAddr>,
    /// Where Envoy finds the proxy's own SPIFFE certificate; `None`: listeners that need it are left out.
    pub own: Option<OwnCertificate>,
    /// Roots (PEM) by trust domain: whose identities are accepted.
    pub bundles: BTreeMap<String, String>,
    /// File with the system's roots where Envoy runs.
    pub system_roots: String,
    /// Roots (PEM) for external hosts in place of that file, unless empty: Envoy takes one source, so whoever adds a root
    /// to the system's gives them all.
    pub extra_roots: String,
    /// Host names that are not asked of DNS (filters; the engine's processor has its own).
    pub resolve: Vec<Resolve>,
    /// How long connecting to a backend may take.
    pub connect_timeout: Duration,
    /// Largest MCP body, in bytes.
    pub max_body_bytes: u32,
    /// How long an external authorizer may take.
    pub authorizer_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            version: Version::NEWEST,
            policy: Policy::Engine(Engine::default()),
            listen_address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            listen: BTreeMap::new(),
            own: None,
            bundles: BTreeMap::new(),
            system_roots: "/etc/ssl/certs/ca-certificates.crt".to_owned(),
            extra_roots: String::new(),
            resolve: Vec::new(),
            connect_timeout: Duration::from_secs(5),
            max_body_bytes: 1 << 20,
            authorizer_timeout: Duration::from_secs(2),
        }
    }
}

/// Who decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policy {
    /// `agentic-gateway decide` beside Envoy.
    Engine(Engine),
    /// Envoy alone, by its own filters: a subset. Envoy 1.39 and later.
    Filters(Filters),
}

/// The engine beside Envoy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    /// Where it listens.
    pub processor: Processor,
    /// How long one of its answers may take, asking authorizers included; then the request is refused (504).
    pub message_timeout: Duration,
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            processor: Processor::Socket("/run/agentic-decide/decide.sock".to_owned()),
            message_timeout: Duration::from_secs(10),
        }
    }
}

/// Where the external processor listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Processor {
    /// Path of a unix socket.
    Socket(String),
    /// Over mTLS with the proxy's own certificate.
    Mtls {
        /// Where.
        address: SocketAddr,
        /// The SPIFFE ID that its certificate must have.
        id: String,
    },
}

/// Envoy's own filters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters {
    /// What happens where no policy has an Allow rule and nothing is delegated.
    pub default_action: authz_core::DefaultAction,
    /// Origins that requests to MCP servers may come from besides the Host's own, as a route's CORS filter has them.
    pub allowed_origins: Vec<String>,
    /// How long clients keep a connection; then they are told to open another, and what runs on it goes on to its end.
    /// `None`: for as long as they like.
    pub max_connection: Option<Duration>,
}

impl Filters {
    /// The first version whose MCP filter can refuse duplicate keys.
    pub const FIRST_MINOR: u8 = 39;
}

/// Files with the proxy's own certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnCertificate {
    /// PEM; may be the same file as the key's.
    pub chain: String,
    /// PEM.
    pub key: String,
    /// A folder that is watched for their replacement.
    pub watched: Option<String>,
}

/// A host name with a fixed address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolve {
    /// The name.
    pub host: String,
    /// The port that was asked for.
    pub port: u16,
    /// Where to connect.
    pub address: SocketAddr,
}
