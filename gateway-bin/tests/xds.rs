//! A gateway that a controller configures: over mTLS and incremental ADS, between real connections.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::map_err_ignore,
    dead_code,
    reason = "all of it is tests, and the parts are shared with others"
)]

#[path = "replay/controller.rs"]
mod controller;
#[path = "gateway/support.rs"]
mod support;

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use agentic_gateway::{
    AccessLog, Gateway,
    cli::{Cli, Command},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Parser as _;
use http::StatusCode;
use spiffe_id::{CaPool, IssuedSvid};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use xds_server::{Cache, Resource, ResourceSet};
use xds_translate::{Options, native};

use self::{
    controller::{CONTROLLER, Controller, resources, with_session_keys},
    support::{
        AGENT, Client, DENIED, Upstream, World, allow_tools, ca, call, eventually, manifests,
        session_upstream, svid, write_identity,
    },
};

const PROXY: &str = "spiffe://cluster.local/ns/ns/sa/gateway";
const GATEWAY: &str = "ns/gw";
const MEMBERS: [(&str, &str); 1] = [(PROXY, GATEWAY)];

fn config(text: &str) -> Arc<ResourceSet> {
    resources(&[text], GATEWAY, &Options::default())
}

fn folder(ca: &CaPool) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("identity")).unwrap();
    write_identity(&dir.path().join("identity"), ca, PROXY);
    dir
}

async fn gateway(dir: &Path, url: &str, more: &[&str]) -> Gateway {
    let identity = dir.join("identity");
    let mut words = vec![
        "agentic-gateway",
        "run",
        "--xds",
        url,
        "--gateway",
        GATEWAY,
        "--identity-dir",
        identity.to_str().unwrap(),
        "--admin-addr=127.0.0.1:0",
        "--health-addr=127.0.0.1:0",
        "--listen-address=127.0.0.1",
        "--listen=10001=127.0.0.1:0",
        "--listen=10002=127.0.0.1:0",
        "--drain-timeout=1s",
    ];
    if !more.iter().any(|word| word.starts_with("--xds-server-id")) {
        words.extend(["--xds-server-id", CONTROLLER]);
    }
    words.extend(more);
    let Command::Run(args) = Cli::try_parse_from(words).unwrap().command else { panic!("not a `run`") };
    Gateway::start(&args, AccessLog::Off).await.unwrap()
}

async fn get(address: SocketAddr, path: &str) -> (StatusCode, String) {
    let reply = Client::plain(address).await.request("GET", path, &[], "").await.unwrap();
    (reply.status, reply.body)
}

async fn metric(gateway: &Gateway, name: &str) -> String {
    let (_, text) = get(gateway.admin_address(), "/metrics").await;
    let line = text.lines().find(|line| line.starts_with(&format!("agentic_gateway_{name} "))).unwrap();
    line.rsplit_once(' ').unwrap().1.to_owned()
}

async fn is_ready(gateway: &Gateway) -> bool {
    get(gateway.health_address().unwrap(), "/readyz").await.0 == StatusCode::OK
}

/// What the agent's call comes to: whether it is allowed and reaches the server.
async fn allowed(world: &World, upstream: &Upstream, tool: &str) -> bool {
    let before = upstream.seen().len();
    let reply = world.client(AGENT).await.call(tool).await;
    let is_allowed = match reply.body.as_str() {
        DENIED => false,
        _ if reply.headers.contains_key("content-type") && reply.status == StatusCode::OK => true,
        other => panic!("{other}"),
    };
    assert_eq!(upstream.seen().len() - before, usize::from(is_allowed), "`{tool}` at the server");
    is_allowed
}

/// A controller with a configuration, a gateway with it in force, and the server behind it.
struct Scene {
    upstream: Upstream,
    controller: Controller,
    world: World,
}

impl Scene {
    async fn start(more: &[&str]) -> Self {
        let ca = ca("cluster.local");
        let upstream = Upstream::json().await;
        let controller = Controller::start(&ca, &MEMBERS).await;
        controller.cache.publish(GATEWAY, config(&manifests(upstream.address, &allow_tools("get-sum"))));
        let dir = folder(&ca);
        let gateway = gateway(dir.path(), &controller.url(), more).await;
        let world = World { gateway, ca, dir, server_roots: None };
        eventually("the first configuration is in force", async || controller.has_acknowledged(GATEWAY, 1))
            .await;
        Self { upstream, controller, world }
    }

    /// Publishes a configuration in which the agent may call one tool.
    fn publish(&self, tool: &str) {
        self.controller.cache.publish(GATEWAY, config(&manifests(self.upstream.address, &allow_tools(tool))));
    }

    async fn acknowledged(&self) {
        eventually("it is acknowledged", async || self.controller.has_acknowledged(GATEWAY, 1)).await;
    }
}

#[tokio::test]
async fn nothing_is_served_before_the_first_configuration() {
    let ca = ca("cluster.local");
    let upstream = Upstream::json().await;
    let controller = Controller::start(&ca, &MEMBERS).await;
    let dir = folder(&ca);
    let gateway = gateway(dir.path(), &controller.url(), &[]).await;
    let (admin, health) = (gateway.admin_address(), gateway.health_address().unwrap());
    assert!(gateway.bound().is_empty());
    for address in [admin, health] {
        assert_eq!(get(address, "/healthz").await.0, StatusCode::OK);
        assert_eq!(get(address, "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    }
    // Whoever may ask for health is told nothing else.
    assert_eq!(get(health, "/metrics").await.0, StatusCode::NOT_FOUND);
    assert_eq!(metric(&gateway, "config_generation").await, "0");

    controller.cache.publish(GATEWAY, config(&manifests(upstream.address, &allow_tools("get-sum"))));
    eventually("it is ready", async || is_ready(&gateway).await).await;
    assert_eq!(gateway.bound().keys().copied().collect::<Vec<_>>(), [10001, 10002]);
    assert_eq!(metric(&gateway, "config_generation").await, "1");
    assert_eq!(metric(&gateway, "xds_connected").await, "1");
    assert_ne!(metric(&gateway, "xds_last_update_seconds").await, "0.0");
    assert_eq!(get(admin, "/readyz").await.0, StatusCode::OK);
    let world = World { gateway, ca, dir, server_roots: None };
    assert!(allowed(&world, &upstream, "get-sum").await);
    assert!(!allowed(&world, &upstream, "echo").await);
}

#[tokio::test]
async fn a_probe_is_one_short_request() {
    let dir = folder(&ca("cluster.local"));
    let gateway = gateway(dir.path(), "https://localhost:1", &[]).await;
    for (sent, expected) in [("GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n", "HTTP/1.1 200"), ("GET /he", "")] {
        let mut stream = TcpStream::connect(gateway.health_address().unwrap()).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut text = String::new();
        let closed = tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut text));
        closed.await.expect("the connection is closed").unwrap();
        assert_eq!(text.get(..12).unwrap_or_default(), expected);
    }
}

#[tokio::test]
async fn a_change_is_one_resource() {
    let scene = Scene::start(&[]).await;
    let before = scene.controller.cache.counts();
    scene.publish("echo");
    scene.acknowledged().await;
    assert!(allowed(&scene.world, &scene.upstream, "echo").await);
    assert!(!allowed(&scene.world, &scene.upstream, "get-sum").await);
    let after = scene.controller.cache.counts();
    assert_eq!(after.resources - before.resources, 1);
    assert_eq!(after.nacks, 0);
    // A connection that was open is decided by the new policies as well.
    let mut open = scene.world.client(AGENT).await;
    scene.publish("get-sum");
    scene.acknowledged().await;
    assert_eq!(open.call("echo").await.body, DENIED);
}

#[tokio::test]
async fn what_is_refused_changes_nothing() {
    let scene = Scene::start(&[]).await;
    let good = scene.controller.cache.set(GATEWAY).unwrap();
    let mut bad = ResourceSet::clone(&good);
    let objects = bad.types.get_mut(native::OBJECT).unwrap();
    objects.insert("not/An/object/here".into(), Resource::new("{}"));
    // A policy that would change what is allowed, were it taken alone.
    let echo = config(&manifests(scene.upstream.address, &allow_tools("echo")));
    objects.extend(echo.types[native::OBJECT].clone());
    scene.controller.cache.publish(GATEWAY, Arc::new(bad));
    eventually("it is refused", async || scene.controller.cache.counts().nacks == 1).await;
    let reports = scene.controller.cache.reports();
    let refusal = &reports[0].refused[native::OBJECT].message;
    assert!(refusal.contains("`not/An/object/here`"), "{refusal}");
    assert!(
        allowed(&scene.world, &scene.upstream, "get-sum").await
            && !allowed(&scene.world, &scene.upstream, "echo").await
    );
    assert_eq!(metric(&scene.world.gateway, "xds_refused_total").await, "1");
    assert_eq!(metric(&scene.world.gateway, "config_generation").await, "1");

    scene.controller.cache.publish(GATEWAY, echo);
    scene.acknowledged().await;
    assert!(allowed(&scene.world, &scene.upstream, "echo").await);
}

#[tokio::test]
async fn a_gateway_that_is_taken_away_is_closed() {
    let state = tempfile::tempdir().unwrap();
    let file = state.path().join("configuration");
    let flag = format!("--xds-state={}", state.path().display());
    let scene = Scene::start(&[&flag]).await;
    eventually("it is saved", async || file.exists()).await;
    let saved = fs::read(&file).unwrap();
    let mut open = scene.world.client(AGENT).await;
    assert_ne!(open.call("get-sum").await.body, DENIED);
    // Of a type that is not in a set nothing is said: the type is there, and nothing of it.
    let mut nothing = ResourceSet::default();
    nothing.types.entry(native::OBJECT.into()).or_default();
    scene.controller.cache.publish(GATEWAY, Arc::new(nothing));
    scene.acknowledged().await;
    assert!(scene.world.gateway.bound().is_empty());
    assert_eq!(open.call("get-sum").await.status, StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(scene.controller.cache.counts().nacks, 0);
    eventually("that is saved", async || fs::read(&file).unwrap() != saved).await;
    // Nor does it come back without the controller.
    let Scene { upstream, controller, world: World { gateway: first, ca, dir, .. } } = scene;
    first.shutdown().await;
    let (address, url) = (controller.address, controller.url());
    controller.stop().await;
    let second = gateway(dir.path(), &url, &[&flag]).await;
    assert!(second.bound().is_empty());
    // With it, it does.
    let cache = Cache::default();
    cache.publish(GATEWAY, config(&manifests(upstream.address, &allow_tools("echo"))));
    let _controller = Controller::start_at(address, &ca, &MEMBERS, cache).await;
    eventually("it is open", async || !second.bound().is_empty()).await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_bound_when_it_is_free() {
    let scene = Scene::start(&[]).await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let text = manifests(scene.upstream.address, &allow_tools("echo"))
        .replace("port: 10002}", &format!("port: {port}}}"));
    scene.controller.cache.publish(GATEWAY, config(&text));
    // It holds up nothing else.
    scene.acknowledged().await;
    assert!(
        allowed(&scene.world, &scene.upstream, "echo").await
            && !allowed(&scene.world, &scene.upstream, "get-sum").await
    );
    assert!(!scene.world.gateway.bound().contains_key(&port));
    drop(taken);
    eventually("it is bound", async || scene.world.gateway.bound().contains_key(&port)).await;
    let reply = Client::plain(scene.world.address(port)).await.mcp(&call("echo"), &[]).await.unwrap();
    assert_eq!(reply.body, DENIED, "it is served");
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_closes_its_listener_alone() {
    let scene = Scene::start(&["--listen=10003=127.0.0.1:0"]).await;
    let later = SystemTime::now() + Duration::from_secs(3600);
    let web = svid(&scene.world.ca, "spiffe://cluster.local/web", later);
    let other = svid(&scene.world.ca, "spiffe://cluster.local/other", later);
    let publish = |tool: &str, key: &IssuedSvid| {
        let text = manifests(scene.upstream.address, &allow_tools(tool)).replace(
            "{name: plain,",
            "{name: web, protocol: HTTPS, port: 10003, tls: {certificateRefs: [{name: web}]}}\n  - {name: plain,",
        );
        let secret = format!(
            "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: web, namespace: ns}}\ntype: kubernetes.io/tls\ndata:\n  tls.crt: {}\n  tls.key: {}\n",
            STANDARD.encode(web.chain_pem()),
            STANDARD.encode(key.key_pem.as_ref().unwrap()),
        );
        scene.controller.cache.publish(GATEWAY, config(&format!("{text}{secret}")));
    };
    let is_open = || scene.world.gateway.bound().contains_key(&10003);
    for (tool, denied, key, open) in
        [("echo", "get-sum", &web, true), ("get-sum", "echo", &other, false), ("echo", "get-sum", &web, true)]
    {
        publish(tool, key);
        scene.acknowledged().await;
        assert!(
            allowed(&scene.world, &scene.upstream, tool).await
                && !allowed(&scene.world, &scene.upstream, denied).await
        );
        assert_eq!(is_open(), open);
    }
    assert_eq!(scene.controller.cache.counts().nacks, 0);
}

#[tokio::test]
async fn it_serves_while_the_controller_is_away_and_comes_back_with_what_it_has() {
    let Scene { upstream, controller, world } = Scene::start(&[]).await;
    let (address, set) = (controller.address, controller.cache.set(GATEWAY).unwrap());
    controller.stop().await;
    eventually("it notices", async || metric(&world.gateway, "xds_connected").await == "0").await;
    assert!(allowed(&world, &upstream, "get-sum").await && is_ready(&world.gateway).await);

    // The same configuration: nothing is sent.
    let cache = Cache::default();
    cache.publish(GATEWAY, set);
    let controller = Controller::start_at(address, &world.ca, &MEMBERS, cache).await;
    eventually("it is back", async || controller.has_acknowledged(GATEWAY, 1)).await;
    assert_eq!(controller.cache.counts().resources, 0);
    controller.stop().await;
    assert!(allowed(&world, &upstream, "get-sum").await);

    // Another one: what differs is sent.
    let cache = Cache::default();
    cache.publish(GATEWAY, config(&manifests(upstream.address, &allow_tools("echo"))));
    let controller = Controller::start_at(address, &world.ca, &MEMBERS, cache).await;
    eventually("it is back", async || controller.has_acknowledged(GATEWAY, 1)).await;
    assert_eq!(controller.cache.counts().resources, 1);
    assert!(allowed(&world, &upstream, "echo").await);
}

#[tokio::test]
async fn nobody_elses_configuration_is_taken() {
    let ca = ca("cluster.local");
    let upstream = Upstream::json().await;
    let controller = Controller::start(&ca, &MEMBERS).await;
    controller.cache.publish(GATEWAY, config(&manifests(upstream.address, &allow_tools("get-sum"))));
    let dir = folder(&ca);
    let other = "--xds-server-id=spiffe://cluster.local/ns/agentic-net-system/sa/another";
    let refusing = gateway(dir.path(), &controller.url(), &[other]).await;
    eventually("it tries, and tries again", async || controller.cache.counts().refused >= 2).await;
    assert!(refusing.bound().is_empty() && !is_ready(&refusing).await);
    assert_eq!(controller.cache.counts().streams, 0);
    assert_eq!(metric(&refusing, "xds_connected").await, "0");
}

#[tokio::test]
async fn another_gateways_proxy_gets_nothing() {
    let ca = ca("cluster.local");
    let upstream = Upstream::json().await;
    let controller = Controller::start(&ca, &MEMBERS).await;
    controller.cache.publish(GATEWAY, config(&manifests(upstream.address, &allow_tools("get-sum"))));
    let dir = folder(&ca);
    write_identity(&dir.path().join("identity"), &ca, "spiffe://cluster.local/ns/ns/sa/other-gateway");
    let other = gateway(dir.path(), &controller.url(), &[]).await;
    eventually("it is refused", async || controller.cache.counts().refused >= 1).await;
    assert_eq!(controller.cache.counts().resources, 0);
    assert!(other.bound().is_empty() && !is_ready(&other).await);
}

#[tokio::test]
async fn a_start_without_the_controller_begins_with_what_was_saved() {
    let ca = ca("cluster.local");
    let upstream = Upstream::json().await;
    let state = tempfile::tempdir().unwrap();
    let flag = format!("--xds-state={}", state.path().display());
    let file = state.path().join("configuration");
    let controller = Controller::start(&ca, &MEMBERS).await;
    let url = controller.url();
    controller.cache.publish(GATEWAY, config(&manifests(upstream.address, &allow_tools("get-sum"))));
    let dir = folder(&ca);
    let first = gateway(dir.path(), &url, &[&flag]).await;
    eventually("it is saved", async || file.exists()).await;
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    // What comes last is saved too, at the latest at the end.
    controller.cache.publish(GATEWAY, config(&manifests(upstream.address, &allow_tools("echo"))));
    eventually("it is acknowledged", async || controller.has_acknowledged(GATEWAY, 1)).await;
    first.shutdown().await;
    let (address, set) = (controller.address, controller.cache.set(GATEWAY).unwrap());
    controller.stop().await;

    let second = gateway(dir.path(), &url, &[&flag]).await;
    assert!(is_ready(&second).await);
    let world = World { gateway: second, ca, dir, server_roots: None };
    assert!(allowed(&world, &upstream, "echo").await && !allowed(&world, &upstream, "get-sum").await);
    // The controller has nothing to add.
    let cache = Cache::default();
    cache.publish(GATEWAY, set);
    let controller = Controller::start_at(address, &world.ca, &MEMBERS, cache).await;
    eventually("it is back", async || controller.has_acknowledged(GATEWAY, 1)).await;
    assert_eq!(controller.cache.counts().resources, 0);
    controller.stop().await;
    let World { gateway: second, ca: _ca, dir, .. } = world;
    second.shutdown().await;

    // A file that is damaged opens nothing, and stands in nobody's way.
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    let third = gateway(dir.path(), &url, &[&flag]).await;
    assert!(third.bound().is_empty() && !is_ready(&third).await);
}

#[tokio::test]
async fn a_new_identity_is_presented_at_once() {
    let scene = Scene::start(&[]).await;
    assert_eq!(scene.controller.cache.counts().streams, 1);
    let before = scene.controller.cache.counts();
    write_identity(&scene.world.dir.path().join("identity"), &scene.world.ca, PROXY);
    eventually("it connects anew", async || scene.controller.cache.counts().streams == 2).await;
    scene.acknowledged().await;
    assert_eq!(scene.controller.cache.counts().resources, before.resources);
    scene.publish("echo");
    scene.acknowledged().await;
    assert!(allowed(&scene.world, &scene.upstream, "echo").await);
    // A configuration that is wrong does not keep a certificate from being replaced.
    let mut bad = ResourceSet::clone(&scene.controller.cache.set(GATEWAY).unwrap());
    bad.types.get_mut(native::OBJECT).unwrap().insert("not/An/object/here".into(), Resource::new("{}"));
    scene.controller.cache.publish(GATEWAY, Arc::new(bad));
    eventually("it is refused", async || scene.controller.cache.counts().nacks > 0).await;
    write_identity(&scene.world.dir.path().join("identity"), &scene.world.ca, PROXY);
    eventually("it connects anew", async || scene.controller.cache.counts().streams >= 3).await;
    assert!(allowed(&scene.world, &scene.upstream, "echo").await);
}

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#;
const LIST: &str = r#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#;

#[tokio::test]
async fn proxies_of_a_gateway_share_sessions() {
    let ca = ca("cluster.local");
    let upstream = session_upstream().await;
    let controller = Controller::start(&ca, &MEMBERS).await;
    let set = config(&manifests(upstream.address, &allow_tools("get-sum")));
    let publish = |keys: &[[u8; 32]]| controller.cache.publish(GATEWAY, with_session_keys(&set, keys));
    publish(&[[1; 32]]);
    let dir = folder(&ca);
    let one = gateway(dir.path(), &controller.url(), &[]).await;
    let two = gateway(dir.path(), &controller.url(), &[]).await;
    let key_file = dir.path().join("key");
    fs::write(&key_file, [9; 32]).unwrap();
    let own_key = format!("--session-key-file={}", key_file.display());
    let three = gateway(dir.path(), &controller.url(), &[&own_key]).await;
    let all_have_keys = async || {
        let version = controller.cache.set(GATEWAY).unwrap().version_of(native::SESSION_KEYS);
        let reports = controller.cache.reports();
        let with_keys =
            reports.iter().filter(|report| report.acknowledged.get(native::SESSION_KEYS) == Some(&version));
        // The third does not ask for them.
        with_keys.count() == 2 && controller.has_acknowledged(GATEWAY, 3)
    };
    eventually("all have keys", &all_have_keys).await;
    let (roots, agent) = (ca.roots_pem(), svid(&ca, AGENT, SystemTime::now() + Duration::from_secs(3600)));
    let client = async |gateway: &Gateway| {
        Client::tls(gateway.bound()[&10001], &roots, Some(&agent), "gateway.test", false).await.unwrap()
    };
    let open = async |gateway: &Gateway| {
        let reply = client(gateway).await.mcp(INITIALIZE, &[]).await.unwrap();
        reply.headers["mcp-session-id"].to_str().unwrap().to_owned()
    };
    let opens = async |gateway: &Gateway, session: &str| {
        let reply = client(gateway).await.mcp(LIST, &[("mcp-session-id", session)]).await.unwrap();
        reply.status.as_u16()
    };
    let session = open(&one).await;
    assert_eq!(opens(&two, &session).await, 200);
    assert_eq!(opens(&three, &session).await, 404, "its key file wins");
    // A new key seals, the old one still opens; when it is gone, so are its sessions.
    publish(&[[2; 32], [1; 32]]);
    eventually("all have keys", &all_have_keys).await;
    assert_eq!(opens(&two, &session).await, 200);
    let newer = open(&two).await;
    publish(&[[2; 32]]);
    eventually("all have keys", &all_have_keys).await;
    assert_eq!((opens(&one, &session).await, opens(&one, &newer).await), (404, 200));
    // Keys that are none leave those before in use.
    publish(&[]);
    eventually("they are refused", async || controller.cache.counts().nacks == 2).await;
    assert_eq!(opens(&one, &newer).await, 200);
}

#[track_caller]
fn check_flags(words: &str, expected: &str) {
    let words = std::iter::once("agentic-gateway").chain(words.split(' '));
    let error = Cli::try_parse_from(words).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn one_source_of_configuration() {
    check_flags("run", "--manifests");
    check_flags(
        "run --manifests a --xds https://c:1 --xds-server-id spiffe://d/c --gateway a/b",
        "cannot be used with",
    );
    check_flags("run --xds https://c:1 --gateway a/b", "--xds-server-id");
    check_flags("run --xds https://c:1 --xds-server-id spiffe://d/c", "--gateway");
    check_flags("run --manifests a --xds-state b", "--xds");
}

#[tokio::test]
async fn what_cannot_work_is_no_start() {
    let ca = ca("cluster.local");
    let dir = folder(&ca);
    let start = async |words: &[&str]| {
        let all = ["agentic-gateway", "run", "--admin-addr=127.0.0.1:0", "--xds-server-id", CONTROLLER];
        let parsed = Cli::try_parse_from(all.iter().chain(words)).unwrap();
        let Command::Run(args) = parsed.command else { panic!("not a `run`") };
        Gateway::start(&args, AccessLog::Off).await.unwrap_err().to_string()
    };
    let identity = format!("--identity-dir={}", dir.path().join("identity").display());
    let none = format!("--identity-dir={}", dir.path().display());
    let url = "--xds=https://localhost:1";
    let error = start(&[url, "--gateway=a/b", &none]).await;
    assert!(error.contains("--identity-dir"), "{error}");
    let error = start(&[url, "--gateway=a/b,c/d", &identity]).await;
    assert!(error.contains("the one Gateway"), "{error}");
    let error = start(&["--xds=http://localhost:1", "--gateway=a/b", &identity]).await;
    assert!(error.contains("https://HOST"), "{error}");
}
