//! A Gateway with a plain listener before the reference MCP server, and a policy to change: what can be asked of it, how
//! soon, and what its proxies were sent.
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::world::{QUICKSTART, SYSTEM, World, until};
use crate::interop::{
    http::{self, Target},
    session::Session,
};

const MINUTE: Duration = Duration::from_secs(60);
/// The policy's name.
pub(super) const POLICY: &str = "probe";
pub(super) const GATEWAY: &str = "probe";
pub(super) const PORT: u16 = 8080;
const HEALTH_PORT: u16 = 15020;
/// Of the controller, as `install` has it.
pub(super) const REPLICAS: usize = 2;

/// The tools that the policy allows in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tool {
    Echo,
    Sum,
}

impl Tool {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Echo => Self::Sum,
            Self::Sum => Self::Echo,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Sum => "get-sum",
        }
    }
}

/// The Gateway, its proxy and its policy.
#[derive(Debug)]
pub(super) struct Probe {
    /// The proxy's Pod.
    pub(super) target: Target,
    policies: Api<DynamicObject>,
}

impl Probe {
    /// Everything that is needed, however much of it is there.
    pub(super) async fn up(world: &mut World) -> anyhow::Result<Self> {
        world.install().await?;
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": QUICKSTART}});
        world.apply(&namespace.to_string()).await?;
        world.apply_examples(&["kubernetes/mcp-everything.yaml"]).await?;
        world.rolled_out(QUICKSTART, "mcp-everything", MINUTE).await?;
        world.apply(&objects().to_string()).await?;
        world.programmed(QUICKSTART, GATEWAY, MINUTE).await?;
        world.served_by(QUICKSTART, GATEWAY, None, MINUTE).await?;
        let target = proxy(world).await?;
        let client = world.client().await?;
        let kind = kube::api::ApiResource {
            group: "agentic.networking.x-k8s.io".to_owned(),
            version: "v1alpha1".to_owned(),
            api_version: "agentic.networking.x-k8s.io/v1alpha1".to_owned(),
            kind: "XAccessPolicy".to_owned(),
            plural: "xaccesspolicies".to_owned(),
        };
        let probe = Self { target, policies: Api::namespaced_with(client, QUICKSTART, &kind) };
        probe.allow(Tool::Echo).await?;
        until(MINUTE, async || {
            let mut session = Session::open(&probe.target).await?;
            ensure!(probe.allows(&mut session, Tool::Echo).await?, "echo is still denied");
            Ok(())
        })
        .await?;
        Ok(probe)
    }

    /// The same, where the proxy's Pod is another one now.
    pub(super) async fn again(&self, world: &World) -> anyhow::Result<Self> {
        Ok(Self { target: proxy(world).await?, policies: self.policies.clone() })
    }

    /// Changes the policy; returns when the API server has answered.
    pub(super) async fn allow(&self, tool: Tool) -> anyhow::Result<()> {
        let patch = json!({"spec": {"rules": rules(tool)}});
        self.policies.patch(POLICY, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Whether a tool may be called. What is neither a result nor the policy's refusal is an error.
    pub(super) async fn allows(&self, session: &mut Session, tool: Tool) -> anyhow::Result<bool> {
        let arguments = match tool {
            Tool::Echo => json!({"message": "hello"}),
            Tool::Sum => json!({"a": 2, "b": 3}),
        };
        let answer = session.call(tool.name(), &arguments).await?;
        if answer.is_forbidden() {
            return Ok(false);
        }
        ensure!(answer.is_result(), "{answer:?}");
        Ok(true)
    }

    /// Changes the policy, and waits until its effect shows; how long that took from the API server's answer.
    pub(super) async fn change(&self, session: &mut Session, tool: Tool) -> anyhow::Result<Duration> {
        self.allow(tool).await?;
        let answered = Instant::now();
        // The tool that comes: an answer to the one that goes might be cut off by the change, as it should be.
        while !self.allows(session, tool).await? {
            ensure!(answered.elapsed() < MINUTE, "the change does not show");
        }
        let took = answered.elapsed();
        ensure!(!self.allows(session, tool.other()).await?, "only half of the change shows");
        Ok(took)
    }

    /// Calls a tool that is allowed throughout, again and again.
    pub(super) fn traffic(&self) -> Traffic {
        let counts = Arc::new(Counts::default());
        let (target, counted) = (self.target.clone(), Arc::clone(&counts));
        let task = tokio::spawn(async move {
            let mut session = None;
            loop {
                tokio::time::sleep(Duration::from_millis(10)).await;
                let served = async {
                    let session = match &mut session {
                        Some(session) => session,
                        none => none.insert(Session::open(&target).await?),
                    };
                    session.request("tools/list", &json!({})).await?.result()
                };
                match tokio::time::timeout(Duration::from_secs(5), served).await {
                    Ok(Ok(_)) => counted.served.fetch_add(1, Ordering::Relaxed),
                    _ => counted.failed.fetch_add(1, Ordering::Relaxed),
                };
            }
        });
        Traffic { counts, task }
    }
}

/// Waits for the proxy's Pod.
async fn proxy(world: &World) -> anyhow::Result<Target> {
    let selector = format!("gateway.networking.k8s.io/gateway-name={GATEWAY}");
    let address = until(MINUTE, async || world.pod_address(QUICKSTART, &selector, PORT).await).await?;
    Ok(Target::plain(address))
}

#[derive(Debug, Default)]
struct Counts {
    served: AtomicU64,
    failed: AtomicU64,
}

/// Requests that go on until it is ended.
#[derive(Debug)]
pub(super) struct Traffic {
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

impl Traffic {
    /// How many were served; an error if one was not, or if there were none.
    pub(super) fn end(self) -> anyhow::Result<u64> {
        self.task.abort();
        let (served, failed) =
            (self.counts.served.load(Ordering::Relaxed), self.counts.failed.load(Ordering::Relaxed));
        ensure!(failed == 0 && served > 0, "{served} were served, {failed} were not");
        Ok(served)
    }
}

fn rules(tool: Tool) -> Value {
    json!([{
        "name": "tools",
        "authorization": {"type": "Inline", "mcp": {
            "mcpBaseProtocolMethodsOption": "MATCH_BASE_PROTOCOL_METHODS",
            "methods": [{"name": "tools/list"}, {"name": "tools/call", "params": [tool.name()]}],
        }},
    }])
}

fn objects() -> Value {
    let agentic = "agentic.networking.x-k8s.io";
    let gateway = "gateway.networking.k8s.io";
    let metadata = json!({"name": "probe", "namespace": QUICKSTART});
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": format!("{gateway}/v1"), "kind": "Gateway", "metadata": metadata,
            "spec": {
                "gatewayClassName": "kube-agentic-networking",
                "listeners": [{"name": "http", "protocol": "HTTP", "port": PORT}],
            },
        },
        {
            "apiVersion": format!("{agentic}/v0alpha0"), "kind": "XBackend", "metadata": metadata,
            "spec": {"mcp": {"serviceName": "mcp-everything-svc", "port": 3001}},
        },
        {
            "apiVersion": format!("{gateway}/v1"), "kind": "HTTPRoute", "metadata": metadata,
            "spec": {
                "parentRefs": [{"name": GATEWAY}],
                "rules": [{
                    "matches": [{"path": {"type": "Exact", "value": "/mcp"}}],
                    "backendRefs": [{"group": agentic, "kind": "XBackend", "name": "probe"}],
                }],
            },
        },
        {
            "apiVersion": format!("{agentic}/v1alpha1"), "kind": "XAccessPolicy", "metadata": metadata,
            "spec": {
                "targetRefs": [{"group": agentic, "kind": "XBackend", "name": "probe"}],
                "action": "Allow",
                "rules": rules(Tool::Echo),
            },
        },
    ]})
}

/// One replica of the controller.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Replica {
    /// Its Pod.
    pub(super) pod: String,
    target: std::net::SocketAddr,
}

impl Replica {
    /// Those that are ready.
    pub(super) async fn all(world: &World) -> anyhow::Result<Vec<Self>> {
        let pods = world.ready_pods(SYSTEM, "app.kubernetes.io/name=agentic-controller").await?;
        pods.into_iter()
            .map(|(pod, address)| {
                Ok(Self { pod, target: (address.parse::<std::net::IpAddr>()?, HEALTH_PORT).into() })
            })
            .collect()
    }

    /// The one that leads: exactly one of them says so, and the Lease names it.
    pub(super) async fn leader(world: &World) -> anyhow::Result<Self> {
        let lease = world
            .object(&format!("lease agentic-controller-leader -n {SYSTEM}"))
            .await?
            .context("there is no Lease of the leader")?;
        let holder =
            lease.pointer("/spec/holderIdentity").and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut leaders = Vec::new();
        for replica in Self::all(world).await? {
            if replica.metric("leader").await? == 1 {
                leaders.push(replica);
            }
        }
        match leaders.as_slice() {
            [leader] if leader.pod == holder => Ok(leader.clone()),
            _ => bail!("the Lease names `{holder}`, these say that they lead: {leaders:?}"),
        }
    }

    /// A number of /metrics, summed over its labels.
    pub(super) async fn metric(&self, name: &str) -> anyhow::Result<u64> {
        self.read(name).await?.iter().map(|(_, value)| value.parse::<u64>().map_err(Into::into)).sum()
    }

    /// The labels and values of /metrics under a name.
    pub(super) async fn read(&self, name: &str) -> anyhow::Result<Vec<(String, String)>> {
        let text = http::text(&Target::plain(self.target), "/metrics").await?;
        let prefix = format!("agentic_controller_{name}");
        let mut found = Vec::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some(rest) = line.strip_prefix(&prefix) else { continue };
            let rest = rest.strip_prefix("_total").unwrap_or(rest);
            if rest.starts_with(' ') || rest.starts_with('{') {
                let (labels, value) = rest.rsplit_once(' ').context("no value")?;
                found.push((labels.to_owned(), value.to_owned()));
            }
        }
        Ok(found)
    }
}

/// What all replicas sent to proxies so far. One that stood still is not ready for a moment, and has to be counted too.
pub(super) async fn pushes(world: &World) -> anyhow::Result<u64> {
    until(MINUTE, async || {
        let replicas = Replica::all(world).await?;
        ensure!(replicas.len() == REPLICAS, "{} replicas are ready, not {REPLICAS}", replicas.len());
        let mut sum = 0;
        for replica in replicas {
            sum += replica.metric("xds_responses").await?;
        }
        Ok(sum)
    })
    .await
}
