//! Who a client is, by what it shows, on listeners with every kind of terms: one table for our own gateway and for Envoy with
//! the engine beside it. And the engine at a port, where both of them have to say who they are.
use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write as _,
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};

use super::{
    Run,
    certificates::{Certificates, Workload},
    envoy::{MINORS, NEWEST, Pair},
    gateway::{HTTPS, Manifests, NAMESPACE, inline_tools, native},
    http::{Connection, Target},
    pki::{Authority, Leaf, Shown, Validity, client},
    report::Report,
    session::fresh_id,
    upstream::Upstream,
};

/// The oldest and the newest; all with `--long`.
const SHORT: [&str; 2] = ["1.36", NEWEST];
const TOOL: &str = "get-sum";
const AGENT: &str = "spiffe://cluster.local/ns/interop/sa/agent";
const OTHER: &str = "spiffe://cluster.local/ns/interop/sa/other";
const STEP: Duration = Duration::from_secs(90);
/// Within this a changed file is in force, and a server that is there is found.
const SOON: Duration = Duration::from_secs(10);
/// Listeners with a frontend CA; the one of [`HTTPS`] has none.
const VALID_ONLY: u16 = 8444;
const FALLBACK: u16 = 8445;

pub(super) async fn run(run: &Run, report: &mut Report) -> anyhow::Result<()> {
    report.suite("who clients are: our own gateway");
    let world = World::new(run, "tls-native")?;
    let manifests = world.manifests().await?;
    let (_process, addresses) =
        native(run.gateway()?, &manifests.folder, Some(&world.gateway), &PORTS, &[]).await?;
    let served = Served { world: &world, upstream: &manifests.upstream, addresses, is_native: true };
    served.suite(report).await;
    let minors = if run.long { MINORS.as_slice() } else { &SHORT };
    for minor in minors {
        report.suite(&format!("who clients are: Envoy {minor} and the engine"));
        let world = World::new(run, &format!("tls-{minor}"))?;
        let manifests = world.manifests().await?;
        let pair = Pair::new(run.envoy(minor).await?, &world.folder, Some(&world.gateway), &PORTS).await?;
        let _engine = pair.decide().await?;
        let _envoy = pair.envoy().await?;
        let addresses = pair.addresses.clone();
        let served = Served { world: &world, upstream: &manifests.upstream, addresses, is_native: false };
        served.suite(report).await;
        report
            .step(
                "a root that is trusted no more: at once, on open connections too",
                STEP,
                served.distrusted(),
            )
            .await;
        let world = World::new(run, &format!("tls-port-{minor}"))?;
        at_a_port(run, minor, &world, report).await?;
    }
    Ok(())
}

const PORTS: [u16; 3] = [HTTPS, VALID_ONLY, FALLBACK];

/// CAs, and what is configured.
struct World {
    folder: PathBuf,
    certificates: Certificates,
    gateway: Workload,
    /// A root of the trust domain that the gateway knows, one of another that it knows too, and one that is only in the
    /// ConfigMap of the frontend.
    trusted: Authority,
    partner: Authority,
    corporate: Authority,
}

struct Manifested {
    folder: PathBuf,
    upstream: Upstream,
}

impl World {
    fn new(run: &Run, name: &str) -> anyhow::Result<Self> {
        let folder = run.folder(name)?;
        let certificates = Certificates::new(&folder.join("certificates"))?;
        let gateway = certificates.workload(NAMESPACE, "gateway")?;
        let (trusted, partner) = (Authority::root("trusted")?, Authority::root("partner")?);
        OpenOptions::new()
            .append(true)
            .open(gateway.bundle())?
            .write_all(format!("\n{}", trusted.pem).as_bytes())?;
        fs::write(gateway.identity_dir.join("partner.test.trust-bundle.pem"), &partner.pem)?;
        let corporate = Authority::root("corporate")?;
        Ok(Self { folder, certificates, gateway, trusted, partner, corporate })
    }

    /// An MCP server of which the agent may call one tool, behind four listeners.
    async fn manifests(&self) -> anyhow::Result<Manifested> {
        let upstream = Upstream::start().await?;
        let own = json!({"mode": "Terminate", "certificateRefs": [{"name": "server-certificate"}]});
        let validation = |mode: &str| json!({"validation": {"mode": mode, "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "clients"}]}});
        let folder = self.folder.join("manifests");
        Manifests::gateway(json!({
            "listeners": [
                {"name": "required", "protocol": "HTTPS", "port": HTTPS, "hostname": "required.test"},
                {"name": "optional", "protocol": "HTTPS", "port": HTTPS, "hostname": "optional.test", "tls": own},
                {"name": "valid-only", "protocol": "HTTPS", "port": VALID_ONLY, "tls": own},
                {"name": "fallback", "protocol": "HTTPS", "port": FALLBACK, "tls": own},
            ],
            "tls": {"frontend": {"default": {}, "perPort": [
                {"port": VALID_ONLY, "tls": validation("AllowValidOnly")},
                {"port": FALLBACK, "tls": validation("AllowInsecureFallback")},
            ]}},
        }))
        .server_certificate(&self.certificates.server()?)
        .with(json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "clients", "namespace": NAMESPACE},
            "data": {"ca.crt": format!("{}{}", self.corporate.pem, self.trusted.pem)},
        }))
        .mcp_server("upstream", upstream.address.port())
        .policy("upstream", &[("agent", inline_tools(&[TOOL]))])
        .write(&folder)?;
        Ok(Manifested { folder, upstream })
    }

    /// Every kind of client.
    fn clients(&self, is_native: bool) -> anyhow::Result<Vec<Row>> {
        use Gets::{Denied as D, Refused as R, Served as S};
        let forger = Authority::root("trusted")?;
        let uri = |uris| Leaf { uris, ..Leaf::default() };
        let agent = self.trusted.sign(uri(&[AGENT]))?;
        let other = self.trusted.sign(uri(&[OTHER]))?;
        let by_path = self.trusted.intermediate("intermediate")?.sign(uri(&[AGENT]))?;
        let timed = |validity| self.trusted.sign(Leaf { validity, ..uri(&[AGENT]) });
        let dns = self.trusted.sign(Leaf { dns: &["agent.test"], ..Leaf::default() })?;
        Ok(vec![
            ("the agent", Some(agent.clone()), [S, S, S, S]),
            ("nobody", None, [R, D, R, D]),
            ("another identity", Some(other.clone()), [D, D, D, D]),
            (
                "another trust domain's",
                Some(self.partner.sign(uri(&["spiffe://partner.test/a"]))?),
                [D, D, R, D],
            ),
            ("another trust domain's CA", Some(self.partner.sign(uri(&[AGENT]))?), [R, R, R, D]),
            ("a CA of the same name", Some(forger.sign(uri(&[AGENT]))?), [R, R, R, D]),
            (
                "a trust domain that nobody knows",
                Some(forger.sign(uri(&["spiffe://nowhere.test/a"]))?),
                [R, R, R, D],
            ),
            ("over", Some(timed(Validity::Over)?), [R, R, R, D]),
            ("not yet", Some(timed(Validity::NotYet)?), [R, R, R, D]),
            ("two URIs", Some(self.trusted.sign(uri(&[AGENT, OTHER]))?), [R, R, D, D]),
            ("a DNS name", Some(dns), [R, R, D, D]),
            ("with its intermediate", Some(by_path.clone()), [S, S, S, S]),
            ("without its intermediate", Some(by_path.without_path()), [R, R, R, D]),
            (
                "of the frontend CA",
                Some(self.corporate.sign(Leaf { dns: &["laptop.test"], ..Leaf::default() })?),
                [R, R, D, D],
            ),
            ("of the frontend CA, as the agent", Some(self.corporate.sign(uri(&[AGENT]))?), [R, R, D, D]),
            // Envoy's SPIFFE validator keeps to the letter of SPIFFE, and ours does not ask.
            (
                "without a key usage",
                Some(self.trusted.sign(Leaf { bare: true, ..uri(&[AGENT]) })?),
                [if is_native { S } else { R }, S, S, S],
            ),
            // Whose key it is the handshake proves, wherever the certificate is verified.
            ("the agent's, with another's key", Some(agent.stolen_by(&other)), [R, R, R, R]),
        ])
    }
}

/// A client, what it shows, and what it gets: where an identity is required, where it is asked for, where a frontend CA
/// admits, and where that CA lets in everybody.
type Row = (&'static str, Option<Shown>, [Gets; 4]);

/// What a client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gets {
    Served,
    /// It is told that it may not.
    Denied,
    /// It has no connection. Where the engine verifies, it has one, and each request is 403.
    Refused,
}

/// What a client got, and how.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    Answered(u16, Value),
    Nothing(String),
}

impl Got {
    fn means(&self) -> anyhow::Result<Gets> {
        match self {
            Self::Nothing(_) => Ok(Gets::Refused),
            Self::Answered(200, message) if message.get("result").is_some() => Ok(Gets::Served),
            Self::Answered(200, message) if message.pointer("/error/code") == Some(&json!(403)) => {
                Ok(Gets::Denied)
            }
            Self::Answered(403, Value::String(text)) if text.contains("gives no identity") => {
                Ok(Gets::Refused)
            }
            other => bail!("{other:?} is none of the answers"),
        }
    }
}

/// A call of the tool.
fn call() -> anyhow::Result<Request<Full<Bytes>>> {
    let message =
        json!({"jsonrpc": "2.0", "id": fresh_id(), "method": "tools/call", "params": {"name": TOOL}});
    Ok(Request::post("/mcp")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json, text/event-stream")
        .body(Full::from(message.to_string()))?)
}

async fn ask(connection: &mut Connection) -> anyhow::Result<Got> {
    let answered = async {
        let response = connection.send(call()?).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        anyhow::Ok((status, serde_json::from_slice(&body).unwrap_or(Value::String(text))))
    };
    Ok(match tokio::time::timeout(SOON, answered).await.context("no answer")? {
        Ok((status, body)) => Got::Answered(status, body),
        Err(error) => Got::Nothing(format!("{error:#}")),
    })
}

/// One call on a connection of its own.
async fn call_once(target: &Target) -> anyhow::Result<Got> {
    match Connection::open(target).await {
        Ok(mut connection) => ask(&mut connection).await,
        Err(error) => Ok(Got::Nothing(format!("{error:#}"))),
    }
}

/// A data plane that serves.
struct Served<'a> {
    world: &'a World,
    upstream: &'a Upstream,
    addresses: BTreeMap<u16, SocketAddr>,
    is_native: bool,
}

impl Served<'_> {
    async fn suite(&self, report: &mut Report) {
        for alpn in ["http/1.1", "h2"] {
            let step = self.table(alpn);
            report
                .step(&format!("every kind of client on every kind of listener ({alpn})"), STEP, step)
                .await;
            let step = self.names(alpn);
            report.step(&format!("listeners of one port, told apart by SNI ({alpn})"), STEP, step).await;
        }
    }

    fn target(&self, port: u16, name: &str, shown: Option<&Shown>, alpn: &str) -> anyhow::Result<Target> {
        let address = *self.addresses.get(&port).context("no such port")?;
        Ok(Target::tls(address, client(shown, alpn)?).named(name))
    }

    async fn table(&self, alpn: &str) -> anyhow::Result<()> {
        let places = [
            (HTTPS, "required.test"),
            (HTTPS, "optional.test"),
            (VALID_ONLY, "valid-only.test"),
            (FALLBACK, "fallback.test"),
        ];
        let mut wrong = Vec::new();
        for (who, shown, expected) in self.world.clients(self.is_native)? {
            for ((port, name), expected) in places.into_iter().zip(expected) {
                let before = self.upstream.requests();
                let got = call_once(&self.target(port, name, shown.as_ref(), alpn)?).await?;
                let arrived = self.upstream.requests() - before;
                // Our own gateway refuses the connection, and so does Envoy where an identity is required; of several URIs it
                // looks at one, and leaves the rest to the engine.
                let must_not_connect = expected == Gets::Refused
                    && (self.is_native || (name == "required.test" && who != "two URIs"));
                let fits = got.means().is_ok_and(|gets| gets == expected)
                    && arrived == u64::from(expected == Gets::Served)
                    && !(must_not_connect && matches!(got, Got::Answered(..)));
                if !fits {
                    wrong.push(format!("{who} at {name}: {got:?}, not {expected:?}; {arrived} sent up"));
                }
            }
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    }

    /// A connection that was let in on the terms of one listener serves no other's host.
    async fn names(&self, alpn: &str) -> anyhow::Result<()> {
        let agent = self.world.trusted.sign(Leaf { uris: &[AGENT], ..Leaf::default() })?;
        for (shown, own, other) in [
            (Some(&agent), "required.test", "optional.test"),
            (Some(&agent), "optional.test", "required.test"),
            (None, "optional.test", "required.test"),
        ] {
            let mut connection = Connection::open(&self.target(HTTPS, own, shown, alpn)?).await?;
            let before = self.upstream.requests();
            let served = if shown.is_some() { Gets::Served } else { Gets::Denied };
            for (host, expected) in
                [(own, None), (other, Some(421)), ("unknown.test", Some(421)), (own, None)]
            {
                connection.is_for(host);
                let got = ask(&mut connection).await?;
                let fits = match expected {
                    None => got.means()? == served,
                    Some(expected) => matches!(&got, Got::Answered(status, _) if *status == expected),
                };
                ensure!(fits, "a connection for {own} asked for {host}: {got:?}");
            }
            let arrived = self.upstream.requests() - before;
            ensure!(arrived == if shown.is_some() { 2 } else { 0 }, "{arrived} sent up");
        }
        let unknown = call_once(&self.target(HTTPS, "unknown.test", Some(&agent), alpn)?).await?;
        ensure!(matches!(unknown, Got::Nothing(_)), "a name that no listener has: {unknown:?}");
        Ok(())
    }

    /// The engine's bundle loses a root; Envoy is not told.
    async fn distrusted(&self) -> anyhow::Result<()> {
        let agent = self.world.trusted.sign(Leaf { uris: &[AGENT], ..Leaf::default() })?;
        let mut open = Vec::new();
        for name in ["required.test", "optional.test"] {
            let mut connection = Connection::open(&self.target(HTTPS, name, Some(&agent), "h2")?).await?;
            let got = ask(&mut connection).await?;
            ensure!(got.means()? == Gets::Served, "before, at {name}: {got:?}");
            open.push(connection);
        }
        let bundle = self.world.gateway.bundle();
        let with = fs::read_to_string(&bundle)?;
        let without = with.replace(&self.world.trusted.pem, "");
        ensure!(with != without, "the root is not there");
        let new = bundle.with_extension("new");
        fs::write(&new, without)?;
        fs::rename(new, bundle)?;
        let changed = Instant::now();
        for connection in &mut open {
            loop {
                let got = ask(connection).await?;
                if got.means()? == Gets::Refused {
                    ensure!(matches!(got, Got::Answered(403, _)), "{got:?}");
                    break;
                }
                ensure!(changed.elapsed() < SOON, "still {got:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }
}

/// The engine at a port of loopback, over mTLS.
async fn at_a_port(run: &Run, minor: &str, world: &World, report: &mut Report) -> anyhow::Result<()> {
    let upstream = world.manifests().await?.upstream;
    let engine = world.certificates.workload(NAMESPACE, "engine")?;
    let other = world.certificates.workload(NAMESPACE, "other")?;
    // Somebody else's certificate with the engine's name, who knows whom to trust.
    let forger = Certificates::new(&world.folder.join("forged"))?.workload(NAMESPACE, "engine")?;
    fs::copy(engine.bundle(), forger.bundle())?;
    for identity in [&engine, &other, &forger] {
        // The client's root, which decides who the agent is.
        let roots = fs::read_to_string(world.gateway.bundle())?;
        fs::write(identity.bundle(), roots)?;
    }
    let of = |account: &str| format!("spiffe://cluster.local/ns/{NAMESPACE}/sa/{account}");
    let pair = Pair::new(run.envoy(minor).await?, &world.folder, Some(&world.gateway), &PORTS)
        .await?
        .at_a_port(&of("engine"))
        .await?;
    let _envoy = pair.envoy().await?;
    let agent = world.trusted.sign(Leaf { uris: &[AGENT], ..Leaf::default() })?;
    let target = Target::tls(pair.address(HTTPS)?, client(Some(&agent), "http/1.1")?).named("required.test");
    for (name, identity, client_id, served) in [
        ("both are who they should be", &engine, of("gateway"), true),
        ("the engine waits for another Envoy", &engine, of("other"), false),
        ("the engine is another workload", &other, of("gateway"), false),
        ("the engine's certificate is of another CA", &forger, of("gateway"), false),
        ("both are again who they should be", &engine, of("gateway"), true),
    ] {
        let step = async {
            let process = pair.decide_at(&identity.identity_dir, &client_id).await?;
            asked_over_mtls(&target, &upstream, served).await?;
            process.end().await
        };
        report.step(&format!("the engine at a port: {name}"), STEP, step).await;
    }
    Ok(())
}

/// Whether calls are served: once they are, or never.
async fn asked_over_mtls(target: &Target, upstream: &Upstream, served: bool) -> anyhow::Result<()> {
    let (before, began) = (upstream.requests(), Instant::now());
    if served {
        loop {
            let got = call_once(target).await?;
            if matches!(got.means(), Ok(Gets::Served)) {
                return Ok(());
            }
            ensure!(began.elapsed() < SOON, "{got:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    for _ in 0..10 {
        let got = call_once(target).await?;
        ensure!(matches!(got, Got::Answered(500..=599, _)), "{got:?}");
    }
    ensure!(upstream.requests() == before, "{} sent up", upstream.requests() - before);
    Ok(())
}
