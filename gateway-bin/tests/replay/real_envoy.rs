//! A real Envoy in front of the servers of a world, with the engine in this process beside it.
use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use agentic_controller::envoy::encode;
use agentic_gateway::{
    AccessLog, Processor,
    cli::{Cli, Command as Gateway, DecideArgs, ProcessorAddress},
};
use clap::Parser as _;
use policy_model::NamespacedName;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use xds_server::{Resource, ResourceSet};
use xds_translate::{
    ObjectStatus, Snapshot,
    envoy::{
        Engine, Filters, OwnCertificate, Policy, ResourceKind, Settings, Translation, bootstrap, translate,
    },
    native, resolve,
};

use super::{
    controller::{CONTROLLER, Controller},
    wire::{exchange, replies},
    world::{GATEWAY, LISTENERS, NAMESPACE, World, from_controller},
};

const START: Duration = Duration::from_secs(30);

/// Which one.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// `1.40`
    pub(crate) minor: String,
    binary: PathBuf,
}

impl Program {
    /// The program that the environment names for a minor version, as `cargo xtask interop --only envoy` does.
    pub(crate) fn of(minor: &str) -> Self {
        let variable = format!("ENVOY_{}", minor.replace('.', "_"));
        let binary = std::env::var_os(&variable).unwrap_or_else(|| {
            panic!("{variable} is to name an Envoy {minor}: run `cargo xtask interop --only envoy`")
        });
        Self { minor: minor.to_owned(), binary: binary.into() }
    }
}

/// Who tells it what to do, and who decides.
#[derive(Debug)]
pub(crate) enum Source {
    /// The bootstrap that `translate` prints, with the engine beside it.
    Translated,
    /// Discovery: Envoy and the engine are fed by one controller.
    Controller(Controller),
    /// The bootstrap that `translate --policy filters` prints: Envoy alone.
    Filters,
}

/// An Envoy, and the engine beside it.
#[derive(Debug)]
pub(crate) struct Pair {
    envoy: Envoy,
    engine: Option<Processor>,
}

impl Pair {
    pub(crate) async fn start(
        world: &World,
        program: &Program,
        source: &Source,
        name: &str,
        manifests: &str,
        flags: &[String],
    ) -> Self {
        let folder = world.folder(&format!("{name}.envoy"));
        let args = decide(world, source, name, &folder, manifests, flags);
        let options = args.common.resolution.options();
        let settings = settings(world, program, source, &args);
        let translated = || {
            let gateways = resolve(&world.objects(manifests), &options).gateways;
            translate(&gateways[&NamespacedName::new(NAMESPACE, "agentic-net-gateway")], &settings)
        };
        let bootstrap = match source {
            Source::Translated | Source::Filters => bootstrap(&translated(), "127.0.0.1:0").to_string(),
            Source::Controller(controller) => {
                let mut set = ResourceSet::clone(&world.published(manifests, &options));
                set.types.extend(encoded(&translated()));
                controller.cache.publish(GATEWAY, set.into());
                discovery(world, controller)
            }
        };
        let engine = beside(source, name, &args).await;
        let envoy = Envoy::start(program, &folder, &bootstrap).await;
        if let (Source::Controller(controller), Some(engine)) = (source, &engine) {
            let types = [ResourceKind::Cluster, ResourceKind::Listener].map(ResourceKind::type_url);
            let ready = || *engine.generation().borrow() > 0;
            controller.until_fed(&[&types, &[native::OBJECT, native::SESSION_KEYS]], ready).await;
        }
        Self { envoy, engine }
    }

    /// One Envoy for several Gateways of the manifests, none of which have a port in common; and the policies that it cannot
    /// be told. Not by discovery.
    pub(crate) async fn of_several(
        world: &World,
        program: &Program,
        source: &Source,
        name: &str,
        manifests: &str,
        gateways: &[&Snapshot],
    ) -> (Self, Vec<ObjectStatus>) {
        let folder = world.folder(&format!("{name}.envoy"));
        let args = decide(world, source, name, &folder, manifests, &[]);
        let mut settings = settings(world, program, source, &args);
        let (mut whole, mut refused) = (Value::Null, Vec::new());
        for snapshot in gateways {
            let loopback = "127.0.0.1:0".parse().unwrap();
            settings.listen = snapshot.listeners.iter().map(|listener| (listener.port, loopback)).collect();
            let translation = translate(snapshot, &settings);
            assert_eq!(translation.unserved, []);
            merge(&mut whole, bootstrap(&translation, "127.0.0.1:0"));
            refused.extend(translation.refused);
        }
        let engine = beside(source, name, &args).await;
        let envoy = Envoy::start(program, &folder, &whole.to_string()).await;
        (Self { envoy, engine }, refused)
    }

    pub(crate) fn address(&self, port: u16) -> SocketAddr {
        self.envoy.address(port)
    }

    pub(crate) async fn stop(self) {
        drop(self.envoy);
        if let Some(engine) = self.engine {
            engine.shutdown().await;
        }
    }
}

/// The flags of the engine beside it.
fn decide(
    world: &World,
    source: &Source,
    name: &str,
    folder: &Path,
    manifests: &str,
    flags: &[String],
) -> DecideArgs {
    let mut words = vec!["agentic-gateway".to_owned(), "decide".to_owned()];
    words.push(format!("--listen=unix:{}", folder.join("decide.sock").display()));
    words.extend(world.about_the_world());
    match source {
        Source::Translated | Source::Filters => {
            words.extend(world.files_of(&world.write(name, manifests)));
        }
        Source::Controller(controller) => words.extend(from_controller(controller)),
    }
    words.extend(flags.iter().cloned());
    let Gateway::Decide(args) = Cli::try_parse_from(words).unwrap().command else { panic!("not a `decide`") };
    *args
}

/// The engine beside it, where there is one.
async fn beside(source: &Source, name: &str, args: &DecideArgs) -> Option<Processor> {
    match source {
        Source::Filters => None,
        Source::Translated | Source::Controller(_) => {
            let engine = Processor::start(args, AccessLog::Off).await;
            Some(engine.unwrap_or_else(|error| panic!("{name}: {error}")))
        }
    }
}

/// Adds the resources of one bootstrap to those of another. What both have is the same.
fn merge(whole: &mut Value, one: Value) {
    if whole.is_null() {
        *whole = one;
        return;
    }
    for kind in ["listeners", "clusters", "secrets"] {
        let all = whole["static_resources"][kind].as_array_mut().unwrap();
        for resource in one["static_resources"][kind].as_array().unwrap() {
            match all.iter().find(|known| known["name"] == resource["name"]) {
                Some(known) => assert_eq!(known, resource),
                None => all.push(resource.clone()),
            }
        }
    }
}

/// What `translate` would be told of the world.
fn settings(world: &World, program: &Program, source: &Source, decide: &DecideArgs) -> Settings {
    let file = |name: &str| world.file(name).display().to_string();
    let read = |name: &str| fs::read_to_string(world.file(name)).unwrap();
    let certificate = file("gateway/credential-bundle.pem");
    let ProcessorAddress::Socket(socket) = &decide.listen else { panic!("not a socket") };
    let policy = match source {
        Source::Filters => Policy::Filters(Filters {
            default_action: decide.common.resolution.default_action,
            allowed_origins: decide.common.policy.allowed_origins.clone(),
            max_connection: None,
        }),
        Source::Translated | Source::Controller(_) => Policy::Engine(Engine {
            processor: xds_translate::envoy::Processor::Socket(socket.display().to_string()),
            ..Engine::default()
        }),
    };
    let loopback = "127.0.0.1:0".parse().unwrap();
    Settings {
        version: program.minor.parse().unwrap(),
        policy,
        listen: LISTENERS.iter().map(|(_, port)| (*port, loopback)).collect(),
        own: Some(OwnCertificate { chain: certificate.clone(), key: certificate, watched: None }),
        bundles: [
            ("cluster.local", read("gateway/cluster.local.trust-bundle.pem")),
            ("other.domain", read("other.pem")),
        ]
        .map(|(domain, pem)| (domain.to_owned(), pem))
        .into(),
        system_roots: file("public.pem"),
        resolve: vec![world.remote()],
        max_body_bytes: u32::try_from(decide.common.max_body_bytes).unwrap(),
        ..Settings::default()
    }
}

/// The resources as a controller sends them, by type and name.
fn encoded(translation: &Translation) -> BTreeMap<Arc<str>, BTreeMap<Arc<str>, Resource>> {
    let mut types: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Resource>> = BTreeMap::new();
    for resource in &translation.resources {
        let encoded = encode::resource(resource).unwrap();
        types
            .entry(resource.kind.type_url().into())
            .or_default()
            .insert(resource.name.as_str().into(), encoded);
    }
    types
}

/// A bootstrap with which everything else is discovered, over mTLS.
fn discovery(world: &World, controller: &Controller) -> String {
    let certificate = world.file("gateway/credential-bundle.pem");
    let roots = world.file("gateway/cluster.local.trust-bundle.pem");
    let ads = json!({"ads": {}, "resource_api_version": "V3"});
    let address =
        |ip: IpAddr, port: u16| json!({"socket_address": {"address": ip.to_string(), "port_value": port}});
    let at = address(controller.address.ip(), controller.address.port());
    let cluster = json!({
        "name": "controller",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "controller",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": at}}]}],
        },
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }},
        "transport_socket": {"name": "tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2"],
                "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
                "tls_certificates": [{
                    "certificate_chain": {"filename": certificate},
                    "private_key": {"filename": certificate},
                }],
                "validation_context": {
                    "trusted_ca": {"filename": roots},
                    "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": CONTROLLER}}],
                },
            },
        }},
    });
    json!({
        "node": {"id": "replay", "cluster": "replay"},
        "admin": {"address": address(Ipv4Addr::LOCALHOST.into(), 0)},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "controller"}}],
            },
            "cds_config": ads,
            "lds_config": ads,
        },
        "static_resources": {"clusters": [cluster]},
    })
    .to_string()
}

/// One that runs.
#[derive(Debug)]
struct Envoy {
    child: Child,
    listeners: BTreeMap<u16, SocketAddr>,
}

impl Envoy {
    /// Starts it with a bootstrap whose listeners and administration are on free ports of loopback, and waits until it
    /// serves: until all its configuration is there.
    async fn start(program: &Program, folder: &Path, bootstrap: &str) -> Self {
        let file = |name: &str| folder.join(name);
        fs::write(file("bootstrap.json"), bootstrap).unwrap();
        let child = Command::new(&program.binary)
            .args(["--concurrency", "1", "--use-dynamic-base-id", "-l", "warn"])
            .arg("-c")
            .arg(file("bootstrap.json"))
            .arg("--admin-address-path")
            .arg(file("admin"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(file("envoy.log")).unwrap())
            .spawn()
            .unwrap();
        let mut envoy = Self { child, listeners: BTreeMap::new() };
        let deadline = Instant::now() + START;
        while admin(&file("admin"), "/ready").await.is_none() {
            let ended = envoy.child.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "Envoy {} ({ended:?}) in {}: {}",
                program.minor,
                folder.display(),
                fs::read_to_string(file("envoy.log")).unwrap()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let listeners = admin(&file("admin"), "/listeners?format=json").await.unwrap();
        envoy.listeners = listening(&serde_json::from_slice(&listeners).unwrap());
        envoy
    }

    /// Where the listeners of a port are.
    fn address(&self, port: u16) -> SocketAddr {
        self.listeners[&port]
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        // One that has ended already is fine.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What its administration answers with status 200, found by the file in which Envoy says where it is.
async fn admin(address: &Path, path: &str) -> Option<Vec<u8>> {
    let address: SocketAddr = fs::read_to_string(address).ok()?.trim().parse().ok()?;
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
    let received = exchange(&mut stream, request.as_bytes()).await.ok()?;
    let [reply] = <[_; 1]>::try_from(replies(&received, false).ok()?).ok()?;
    (reply.status == 200).then_some(reply.body)
}

/// The listeners' addresses by the port that their names end in.
fn listening(status: &Value) -> BTreeMap<u16, SocketAddr> {
    status["listener_statuses"]
        .as_array()
        .unwrap()
        .iter()
        .map(|listener| {
            let name = listener["name"].as_str().unwrap();
            let digits = name.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap();
            let address = &listener["local_address"]["socket_address"];
            let ip = address["address"].as_str().unwrap().parse().unwrap();
            let port = address["port_value"].as_u64().unwrap();
            (digits.parse().unwrap(), SocketAddr::new(ip, u16::try_from(port).unwrap()))
        })
        .collect()
}
