//! `agentic-controller translate`: what an Envoy would be sent, as a bootstrap that it runs as is.
use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use authz_core::DefaultAction;
use clap::{Args, ValueEnum};
use command_line::{BundleFile, ListenAt, ResolveTo, parse_duration, status_text};
use policy_model::NamespacedName;
use spiffe_id::{SpiffeId, TrustBundle, TrustDomain};
use xds_translate::{
    Snapshot,
    envoy::{
        Engine, Filters, OwnCertificate, Policy, Processor, Resolve, Settings, Translation, Version,
        bootstrap, translate,
    },
    resolve,
};

/// Key and chain of a proxy in its identity folder.
const CREDENTIAL: &str = "credential-bundle.pem";
const BUNDLE_SUFFIX: &str = ".trust-bundle.pem";

/// `translate`
#[derive(Debug, Clone, Args)]
pub(crate) struct TranslateArgs {
    /// Files or folders of manifests
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The Gateway
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = command_line::namespaced_name,
          env = "AGENTIC_CONTROLLER_GATEWAY")]
    gateway: NamespacedName,
    /// Who decides: `agentic-gateway decide` beside Envoy, or Envoy's own filters (a subset of policies, Envoy 1.39 and later)
    #[arg(long, default_value = "engine", env = "AGENTIC_CONTROLLER_POLICY")]
    policy: Who,
    /// The version of Envoy that it is for: 1.36 to 1.40
    #[arg(long, value_name = "VERSION", default_value_t = Version::NEWEST, env = "AGENTIC_CONTROLLER_ENVOY_VERSION")]
    envoy_version: Version,
    /// Where `decide` listens: the path of its unix socket, or IP:PORT (mTLS, with --processor-id)
    #[arg(
        long,
        value_name = "PATH|IP:PORT",
        default_value = "/run/agentic-decide/decide.sock",
        env = "AGENTIC_CONTROLLER_PROCESSOR"
    )]
    processor: String,
    /// The SPIFFE ID that `decide` must have where it is reached over mTLS
    #[arg(long, value_name = "SPIFFE", env = "AGENTIC_CONTROLLER_PROCESSOR_ID")]
    processor_id: Option<SpiffeId>,
    /// How long one answer of `decide` may take, asking authorizers included
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = parse_duration,
          env = "AGENTIC_CONTROLLER_MESSAGE_TIMEOUT")]
    message_timeout: Duration,
    /// Where Envoy finds `credential-bundle.pem`, its own SPIFFE certificate and key. Of `<trust-domain>.trust-bundle.pem`
    /// files in it, those that are there now are trusted
    #[arg(long, value_name = "DIR", env = "AGENTIC_CONTROLLER_IDENTITY_DIR")]
    identity_dir: Option<PathBuf>,
    /// Roots (PEM) of one more trust domain whose identities are accepted
    #[arg(
        long = "trust-bundle",
        value_name = "DOMAIN=FILE",
        value_delimiter = ',',
        env = "AGENTIC_CONTROLLER_TRUST_BUNDLE"
    )]
    trust_bundles: Vec<BundleFile>,
    /// The address that listeners bind
    #[arg(long, default_value = "0.0.0.0", value_name = "IP", env = "AGENTIC_CONTROLLER_LISTEN_ADDRESS")]
    listen_address: IpAddr,
    /// Serve the listeners of a port at another address
    #[arg(long, value_name = "PORT=ADDR:PORT", value_delimiter = ',', env = "AGENTIC_CONTROLLER_LISTEN")]
    listen: Vec<ListenAt>,
    /// With --policy filters: connect to this address instead of asking DNS (`decide` has this flag too)
    #[arg(long, value_name = "HOST:PORT:ADDR", value_delimiter = ',', env = "AGENTIC_CONTROLLER_RESOLVE")]
    resolve: Vec<ResolveTo>,
    /// With --policy filters: origins that are allowed besides the Host's own, `scheme://host[:port]` (`decide` has this
    /// flag too)
    #[arg(long, value_delimiter = ',', value_name = "ORIGIN", env = "AGENTIC_CONTROLLER_ALLOWED_ORIGINS")]
    allowed_origins: Vec<String>,
    /// The file with the system's roots where Envoy runs
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/ssl/certs/ca-certificates.crt",
        env = "AGENTIC_CONTROLLER_SYSTEM_ROOTS"
    )]
    system_roots: PathBuf,
    /// A root certificate (PEM) to trust besides the system's. Then these are read here too: Envoy takes one source
    #[arg(long, value_name = "FILE", value_delimiter = ',', env = "AGENTIC_CONTROLLER_EXTRA_CA")]
    extra_ca: Vec<PathBuf>,
    /// How long connecting to a backend may take
    #[arg(long, default_value = "5s", value_name = "TIME", value_parser = parse_duration,
          env = "AGENTIC_CONTROLLER_CONNECT_TIMEOUT")]
    connect_timeout: Duration,
    /// Largest MCP body, in bytes; that of `decide` should be the same
    #[arg(long, default_value_t = 1 << 20, value_name = "BYTES", env = "AGENTIC_CONTROLLER_MAX_BODY_BYTES")]
    max_body_bytes: u32,
    /// With --policy filters: how long an external authorizer may take (`decide` has this flag too)
    #[arg(long, default_value = "2s", value_name = "TIME", value_parser = parse_duration,
          env = "AGENTIC_CONTROLLER_AUTHORIZER_TIMEOUT")]
    authorizer_timeout: Duration,
    /// Where Envoy's own pages are: an address on loopback, or the path of a unix socket
    #[arg(long, default_value = "127.0.0.1:15000", value_name = "IP:PORT|PATH", value_parser = admin,
          env = "AGENTIC_CONTROLLER_ADMIN")]
    admin: String,
    /// What happens where no policy has an Allow rule and nothing is delegated; that of `decide` should be the same
    #[arg(long, default_value = "allow", value_name = "allow|deny", value_parser = command_line::default_action,
          env = "AGENTIC_CONTROLLER_DEFAULT_ACTION")]
    default_action: DefaultAction,
    /// The trust domain of ServiceAccount sources
    #[arg(
        long,
        default_value = "cluster.local",
        value_name = "DOMAIN",
        env = "AGENTIC_CONTROLLER_TRUST_DOMAIN"
    )]
    trust_domain: TrustDomain,
}

/// Who decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Who {
    /// `agentic-gateway decide` beside Envoy
    Engine,
    /// Envoy alone
    Filters,
}

/// Prints the bootstrap to `out`, and what is wrong to `faults`. It is printed as well where something is not accepted: it
/// fails closed there, as a cluster would.
///
/// # Errors
/// What cannot be read, a Gateway that is not there, and anything that is not accepted.
pub(crate) fn print(args: &TranslateArgs, out: &mut dyn Write, faults: &mut dyn Write) -> anyhow::Result<()> {
    let settings = settings(args)?;
    let manifests = command_line::load(&args.paths)?;
    let mut options = xds_translate::Options::default();
    options.default_action = args.default_action;
    options.trust_domain = args.trust_domain.clone();
    let resolution = resolve(&manifests.objects, &options);
    let snapshot = snapshot(&resolution.gateways, &args.gateway)?;
    let translation = translate(snapshot, &settings);
    writeln!(out, "{:#}", bootstrap(&translation, &args.admin))?;
    let unaccepted = resolution.statuses.iter().filter(|status| !status.is_accepted());
    let told = tell(unaccepted.chain(&translation.refused).map(status_text), &translation, faults)?;
    ensure!(told == 0, "not everything is served as it is written; what is above is closed");
    Ok(())
}

/// Writes what is wrong; says how many things are.
fn tell(
    statuses: impl Iterator<Item = String>,
    translation: &Translation,
    faults: &mut dyn Write,
) -> anyhow::Result<usize> {
    let unserved = translation
        .unserved
        .iter()
        .map(|unserved| format!("listener `{}` is not served: {}\n", unserved.listener, unserved.reason));
    let mut told = 0;
    for text in statuses.chain(unserved) {
        faults.write_all(text.as_bytes())?;
        told += 1;
    }
    Ok(told)
}

fn snapshot<'a>(
    gateways: &'a BTreeMap<NamespacedName, Snapshot>,
    wanted: &NamespacedName,
) -> anyhow::Result<&'a Snapshot> {
    gateways.get(wanted).with_context(|| {
        let known: Vec<_> = gateways.keys().map(|name| format!("`{name}`")).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        format!("there is no Gateway `{wanted}` of a GatewayClass of ours; there is {known}")
    })
}

fn settings(args: &TranslateArgs) -> anyhow::Result<Settings> {
    let policy = match args.policy {
        Who::Engine => {
            ensure!(
                args.resolve.is_empty(),
                "host names are resolved by `agentic-gateway decide`; give `--resolve` to it"
            );
            ensure!(
                args.allowed_origins.is_empty(),
                "origins are looked at by `agentic-gateway decide`; give `--allowed-origins` to it"
            );
            Policy::Engine(Engine { processor: processor(args)?, message_timeout: args.message_timeout })
        }
        Who::Filters => {
            ensure!(
                args.envoy_version.minor() >= Filters::FIRST_MINOR,
                "`--policy filters` needs Envoy 1.{} or later, not {}; use `--policy engine`",
                Filters::FIRST_MINOR,
                args.envoy_version
            );
            Policy::Filters(Filters {
                default_action: args.default_action,
                allowed_origins: args.allowed_origins.clone(),
                max_connection: None,
            })
        }
    };
    let own = match &args.identity_dir {
        None => None,
        Some(dir) => {
            let credential = path_text(&dir.join(CREDENTIAL))?;
            Some(OwnCertificate {
                chain: credential.clone(),
                key: credential,
                watched: Some(path_text(dir)?),
            })
        }
    };
    Ok(Settings {
        version: args.envoy_version,
        policy,
        listen_address: args.listen_address,
        listen: args.listen.iter().map(|listen| (listen.port, listen.address)).collect(),
        own,
        bundles: bundles(args)?,
        system_roots: path_text(&args.system_roots)?,
        extra_roots: extra_roots(args)?,
        resolve: args
            .resolve
            .iter()
            .map(|entry| Resolve { host: entry.host.clone(), port: entry.port, address: entry.address })
            .collect(),
        connect_timeout: args.connect_timeout,
        max_body_bytes: args.max_body_bytes,
        authorizer_timeout: args.authorizer_timeout,
    })
}

fn processor(args: &TranslateArgs) -> anyhow::Result<Processor> {
    let at = &args.processor;
    match (at.parse::<SocketAddr>(), &args.processor_id) {
        (Ok(address), Some(id)) => Ok(Processor::Mtls { address, id: id.to_string() }),
        (Ok(_), None) => {
            bail!("`--processor {at}` is reached over mTLS; say with `--processor-id` who it must be")
        }
        (Err(_), None) if at.starts_with('/') => Ok(Processor::Socket(at.clone())),
        (Err(_), None) => {
            bail!("`--processor {at}` is neither the absolute path of a unix socket nor IP:PORT")
        }
        (Err(_), Some(_)) => {
            bail!("`--processor-id` is for a processor that is reached over mTLS, at IP:PORT")
        }
    }
}

/// The bundles of the identity folder and the given ones; two of one trust domain are joined.
fn bundles(args: &TranslateArgs) -> anyhow::Result<BTreeMap<String, String>> {
    let mut files = Vec::new();
    // Envoy may run elsewhere: then the folder is not here.
    if let Some(entries) = args.identity_dir.as_ref().and_then(|dir| fs::read_dir(dir).ok()) {
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if let Some(domain) = name.strip_suffix(BUNDLE_SUFFIX) {
                let trust_domain = domain.parse().with_context(|| format!("`{}`", path.display()))?;
                files.push(BundleFile { trust_domain, path });
            }
        }
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    files.extend(args.trust_bundles.iter().cloned());
    let mut bundles: BTreeMap<String, String> = BTreeMap::new();
    for BundleFile { trust_domain, path } in files {
        let pem = read(&path)?;
        TrustBundle::from_pem(trust_domain.clone(), pem.as_bytes())
            .with_context(|| format!("`{}`", path.display()))?;
        let bundle = bundles.entry(trust_domain.as_str().to_owned()).or_default();
        bundle.push_str(&pem);
        bundle.push('\n');
    }
    Ok(bundles)
}

/// The further roots with the system's, if there are any.
fn extra_roots(args: &TranslateArgs) -> anyhow::Result<String> {
    let mut roots = String::new();
    for path in &args.extra_ca {
        let pem = read(path)?;
        ensure!(pem.contains("-----BEGIN CERTIFICATE-----"), "`{}` holds no PEM certificate", path.display());
        roots.push_str(&pem);
        roots.push('\n');
    }
    if !roots.is_empty() {
        roots.push_str(
            &read(&args.system_roots).context("`--extra-ca` adds to the system's roots; `--system-roots`")?,
        );
    }
    Ok(roots)
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))
}

fn path_text(path: &Path) -> anyhow::Result<String> {
    let text = path.to_str().with_context(|| format!("`{}` is not UTF-8", path.display()))?;
    Ok(text.to_owned())
}

/// Whoever reaches Envoy's own pages can stop it and read its configuration.
fn admin(text: &str) -> Result<String, String> {
    let on_loopback = text.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback());
    if on_loopback || text.starts_with('/') {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is neither IP:PORT on loopback nor the absolute path of a unix socket"))
    }
}
