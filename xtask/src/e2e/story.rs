//! The quickstart in the cluster, as its user does it: `install`, manifests with kubectl, questions to the agent.
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::{Value, json};

use super::world::{QUICKSTART, SYSTEM, World, until};
use crate::interop::{adk, http::Target, report::Report};

const MINUTE: Duration = Duration::from_secs(60);
/// An edited AuthConfig shows within this.
const RELOAD: Duration = Duration::from_secs(2);
/// What of the first table reaches the remote server, and what of the second.
const FIRST_ARRIVE: [&str; 3] = [
    "read_wiki_structure kubernetes-sigs/kube-agentic-networking",
    SECOND_ARRIVES,
    "read_wiki_structure kubernetes-sigs/gateway-api",
];
const SECOND_ARRIVES: &str = "ask_question kubernetes-sigs/kube-agentic-networking";
const GATEWAY: &str = "agentic-net-gateway";
/// `envoy-proxy-` and the first 12 hex digits of sha256("quickstart-ns/agentic-net-gateway").
const PROXY: &str = "envoy-proxy-3e11a0abd055";

pub(super) async fn run(world: &mut World, report: &mut Report) -> anyhow::Result<()> {
    report.suite("the quickstart in a cluster");
    if report.step("agentic-controller install | kubectl apply", 2 * MINUTE, world.install()).await.is_none()
    {
        bail!("the controller does not run");
    }
    let world = &*world;
    report.step("Authorino is up, with the quickstart's AuthConfig", 2 * MINUTE, authorizer(world)).await;
    report.step("an MCP server stands in for DeepWiki", MINUTE, deepwiki(world)).await;
    report.step("the quickstart's manifests are applied", MINUTE, manifests(world)).await;
    let address = report
        .step("the Gateway is programmed", 2 * MINUTE, world.programmed(QUICKSTART, GATEWAY, MINUTE))
        .await;
    if let Some(address) = address {
        report.note(&format!("at {address}"));
    }
    let served = world.served_by(QUICKSTART, GATEWAY, None, MINUTE);
    report.step("its Pods are of the data plane that was asked for", MINUTE, served).await;
    report.step("every status says what the manifests mean", MINUTE, statuses(world)).await;
    report
        .step("the proxy's objects have upstream's names, labels and owner", MINUTE, proxy_objects(world))
        .await;
    let agent =
        report.step("the agent is up", 2 * MINUTE, agent(world)).await.context("there is no agent")?;

    adk::begin(&agent, "first").await?;
    for row in &adk::FIRST {
        if let Some(said) = report.step(&row.name(), adk::PROMPT, adk::ask(&agent, "first", row)).await {
            report.note(&said);
        }
    }
    report.step("what was refused reached no server", MINUTE, only_arrived(world, 0, &FIRST_ARRIVE)).await;

    let narrowed = report
        .step("the AuthConfig is narrowed, which shows within 2 s", MINUTE, async {
            world.apply(&auth_config(&["kubernetes-sigs/kube-agentic-networking"])).await?;
            adk::begin(&agent, "second").await?;
            let [.., removed] = &adk::SECOND;
            until(RELOAD, async || adk::ask(&agent, "second", removed).await).await?;
            Ok(arrived(world).await?.len())
        })
        .await;
    for row in &adk::SECOND {
        if let Some(said) = report.step(&row.name(), adk::PROMPT, adk::ask(&agent, "second", row)).await {
            report.note(&said);
        }
    }
    report.step("the same over Authorino's HTTP interface", 2 * MINUTE, over_http(world)).await;
    if let Some(before) = narrowed {
        report
            .step("and still, what was refused reached no server", MINUTE, async {
                only_arrived(world, before, &[SECOND_ARRIVES, SECOND_ARRIVES]).await
            })
            .await;
    }
    report.step("kubectl delete gateway leaves nothing behind", 4 * MINUTE, deleted(world)).await;
    Ok(())
}

async fn authorizer(world: &World) -> anyhow::Result<()> {
    world.apply_file(&world.authorino_crd).await?;
    until(MINUTE, async || world.kubectl("get authconfigs -A").await).await?;
    world.apply_examples(&["kubernetes/authorino.yaml"]).await?;
    world.rolled_out("authorino-operator", "authorino", MINUTE).await?;
    world
        .apply(&auth_config(&["kubernetes-sigs/kube-agentic-networking", "kubernetes-sigs/gateway-api"]))
        .await?;
    until(MINUTE, async || {
        let config = world
            .object("authconfig external-auth-config -n authorino-operator")
            .await?
            .context("no AuthConfig")?;
        match World::condition(config.pointer("/status/conditions"), "Ready") {
            Some(("True", ..)) => Ok(()),
            other => bail!("the AuthConfig is not ready: {other:?}"),
        }
    })
    .await
}

/// The quickstart's, with a list of repositories. It reads the call where each of the two protocols has it.
fn auth_config(repositories: &[&str]) -> String {
    let rego = format!(
        "allowed_repos := {}\n\
         grpc := input.metadata.filter_metadata.mcp_proxy.params.arguments.repoName\n\
         allow {{ grpc == allowed_repos[_] }}\n\
         allow {{ json.unmarshal(input.context.request.http.body).params.arguments.repoName == allowed_repos[_] }}\n",
        json!(repositories)
    );
    json!({
        "apiVersion": "authorino.kuadrant.io/v1beta3",
        "kind": "AuthConfig",
        "metadata": {"name": "external-auth-config", "namespace": "authorino-operator"},
        "spec": {"hosts": ["*"], "authorization": {"allowed-repos-only": {"opa": {"rego": rego}}}},
    })
    .to_string()
}

/// A TLS server under DeepWiki's name, with a certificate of a CA that a BackendTLSPolicy names.
async fn deepwiki(world: &World) -> anyhow::Result<()> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // A certificate with its issuer's name counts as self-signed with Envoy: the two must differ.
    params.distinguished_name.push(DnType::CommonName, "deepwiki CA");
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec!["mcp.deepwiki.com".to_owned()])?.signed_by(&key, &ca)?;
    let labels = json!({"app": "deepwiki"});
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "deepwiki"}},
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": QUICKSTART}},
        {
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": "deepwiki", "namespace": "deepwiki"},
            "stringData": {"tls.crt": certificate.pem(), "tls.key": key.serialize_pem()},
        },
        {
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "deepwiki", "namespace": "deepwiki"},
            "spec": {"selector": {"matchLabels": labels}, "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "containers": [{
                        "name": "deepwiki",
                        "image": "ghcr.io/agentic-access/deepwiki-stand-in:0.1.0",
                        "readinessProbe": {"tcpSocket": {"port": 443}, "periodSeconds": 1},
                        "volumeMounts": [{"name": "tls", "mountPath": "/tls", "readOnly": true}],
                    }],
                    "volumes": [{"name": "tls", "secret": {"secretName": "deepwiki"}}],
                },
            }},
        },
        {
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "deepwiki", "namespace": "deepwiki"},
            "spec": {"selector": labels, "ports": [{"port": 443}]},
        },
        {
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "deepwiki-ca", "namespace": QUICKSTART},
            "data": {"ca.crt": ca.pem()},
        },
        {
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "BackendTLSPolicy",
            "metadata": {"name": "deepwiki", "namespace": QUICKSTART},
            "spec": {
                "targetRefs": [{"group": "agentic.prototype.x-k8s.io", "kind": "XBackend", "name": "remote-mcp-backend"}],
                "validation": {
                    "hostname": "mcp.deepwiki.com",
                    "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "deepwiki-ca"}],
                },
            },
        },
    ]});
    world.apply(&objects.to_string()).await?;
    world.rolled_out("deepwiki", "deepwiki", MINUTE).await
}

/// The quickstart's own files, as they are.
async fn manifests(world: &World) -> anyhow::Result<()> {
    world.apply_examples(&["kubernetes/mcp-everything.yaml"]).await?;
    for name in ["gateway", "backends", "routes", "policies", "reference-grant"] {
        world.apply_examples(&[&format!("quickstart/{name}.yaml")]).await?;
    }
    world.rolled_out(QUICKSTART, "mcp-everything", MINUTE).await
}

async fn statuses(world: &World) -> anyhow::Result<()> {
    until(MINUTE, async || {
        let group = "gateway.networking.k8s.io";
        let class = world.object(&format!("gatewayclasses.{group} kube-agentic-networking")).await?;
        let class = class.context("no GatewayClass")?;
        is_true(class.pointer("/status/conditions"), "Accepted")?;
        let gateway = world.object(&format!("gateways.{group} {GATEWAY} -n {QUICKSTART}")).await?;
        let gateway = gateway.context("no Gateway")?;
        let listener = gateway.pointer("/status/listeners/0").context("no status of the listener")?;
        for r#type in ["Accepted", "Programmed", "ResolvedRefs"] {
            is_true(listener.get("conditions"), r#type)?;
        }
        let routes = listener.get("attachedRoutes").and_then(Value::as_u64);
        ensure!(routes == Some(2), "attachedRoutes: {routes:?}");
        for route in ["httproute-local-mcp", "httproute-remote-mcp"] {
            let route = world.object(&format!("httproutes.{group} {route} -n {QUICKSTART}")).await?;
            let route = route.context("no HTTPRoute")?;
            for r#type in ["Accepted", "ResolvedRefs"] {
                is_true(route.pointer("/status/parents/0/conditions"), r#type)?;
            }
        }
        for policy in ["auth-policy-local-mcp", "auth-policy-remote-mcp"] {
            let kind = "xaccesspolicies.agentic.prototype.x-k8s.io";
            let policy =
                world.object(&format!("{kind} {policy} -n {QUICKSTART}")).await?.context("no policy")?;
            let ancestor = policy.pointer("/status/ancestors/0").context("no ancestor")?;
            let kind = ancestor.pointer("/ancestorRef/kind").and_then(Value::as_str);
            ensure!(kind == Some("XBackend"), "the ancestor is the target: {ancestor}");
            for r#type in ["Accepted", "ResolvedRefs", "Enforced"] {
                is_true(ancestor.get("conditions"), r#type)?;
            }
        }
        Ok(())
    })
    .await
}

fn is_true(conditions: Option<&Value>, r#type: &str) -> anyhow::Result<()> {
    match World::condition(conditions, r#type) {
        Some(("True", ..)) => Ok(()),
        other => bail!("{type} is {other:?}"),
    }
}

async fn proxy_objects(world: &World) -> anyhow::Result<()> {
    for kind in ["serviceaccount", "configmap", "deployment", "service", "poddisruptionbudget"] {
        let object = world
            .object(&format!("{kind} {PROXY} -n {QUICKSTART}"))
            .await?
            .with_context(|| format!("no {kind} {PROXY}"))?;
        let label = object.pointer("/metadata/labels/gateway.networking.k8s.io~1gateway-name");
        ensure!(label == Some(&json!(GATEWAY)), "{kind}: {label:?}");
        let owner = object.pointer("/metadata/ownerReferences/0/name");
        ensure!(owner == Some(&json!(GATEWAY)), "{kind}: {owner:?}");
        ensure!(object.pointer("/metadata/finalizers").is_none(), "{kind} has a finalizer");
    }
    let service = world.object(&format!("service {PROXY} -n {QUICKSTART}")).await?.unwrap_or_default();
    ensure!(service.pointer("/spec/type") == Some(&json!("LoadBalancer")), "{service}");
    Ok(())
}

async fn agent(world: &World) -> anyhow::Result<Target> {
    world.apply_examples(&["kubernetes/agent.yaml"]).await?;
    world.rolled_out(QUICKSTART, "adk-agent", 2 * MINUTE).await?;
    Ok(Target::plain(world.pod_address(QUICKSTART, "app=adk-agent", 8081).await?))
}

/// What the stand-in for DeepWiki says that it was asked.
async fn arrived(world: &World) -> anyhow::Result<Vec<String>> {
    let (pod, _) = world
        .ready_pods("deepwiki", "app=deepwiki")
        .await?
        .into_iter()
        .next()
        .context("no Pod of deepwiki")?;
    let calls = world.logs("deepwiki", &pod, "deepwiki").await?;
    Ok(calls.lines().filter_map(|line| line.strip_prefix("call ")).map(str::to_owned).collect())
}

/// After so many calls, these arrived and no other.
async fn only_arrived(world: &World, before: usize, expected: &[&str]) -> anyhow::Result<()> {
    let calls = arrived(world).await?;
    ensure!(calls.get(before..).is_some_and(|calls| calls == expected), "calls that arrived: {calls:?}");
    Ok(())
}

/// The remote backend's policy asks over HTTP. Authorino answers on exactly `/check` there, and an authorizer is asked with
/// the path of the request: so the agent asks for that path.
async fn over_http(world: &World) -> anyhow::Result<()> {
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "check", "namespace": QUICKSTART},
        "spec": {"parentRefs": [{"name": GATEWAY}], "rules": [{
            "matches": [{"path": {"type": "Exact", "value": "/check"}}],
            "filters": [{"type": "URLRewrite", "urlRewrite": {
                "path": {"type": "ReplaceFullPath", "replaceFullPath": "/mcp"},
            }}],
            "backendRefs": [{"group": "agentic.prototype.x-k8s.io", "kind": "XBackend", "name": "remote-mcp-backend"}],
        }]},
    });
    world.apply(&route.to_string()).await?;
    let rules = json!({"spec": {"rules": [{
        "name": "ext-authorizer-for-adk-agent-sa",
        "source": {"type": "ServiceAccount", "serviceAccount": {"name": "adk-agent-sa", "namespace": QUICKSTART}},
        "authorization": {"type": "ExternalAuth", "externalAuth": {
            "protocol": "HTTP",
            "http": {"allowedHeaders": ["content-type"]},
            "forwardBody": {"maxSize": 8192},
            "backendRef": {
                "kind": "Service", "name": "authorino-authorino-authorization", "namespace": "authorino-operator",
                "port": 5001,
            },
        }},
    }]}})
    .to_string();
    let policy = "xaccesspolicies.agentic.prototype.x-k8s.io";
    let words = ["patch", policy, "auth-policy-remote-mcp", "-n", QUICKSTART, "--type=merge", "-p", &rules];
    world.access.kubectl(&words, "").await?;
    let url = "REMOTE_MCP_URL=http://127.0.0.1:15001/check";
    world.kubectl(&format!("set env deployment/adk-agent -n {QUICKSTART} -c agent {url}")).await?;
    world.rolled_out(QUICKSTART, "adk-agent", 2 * MINUTE).await?;
    let agent = Target::plain(world.pod_address(QUICKSTART, "app=adk-agent", 8081).await?);
    adk::begin(&agent, "http").await?;
    for row in &adk::SECOND {
        adk::ask(&agent, "http", row).await.with_context(|| row.name())?;
    }
    Ok(())
}

async fn deleted(world: &World) -> anyhow::Result<()> {
    world
        .kubectl(&format!(
            "delete gateways.gateway.networking.k8s.io {GATEWAY} -n {QUICKSTART} --timeout=30s"
        ))
        .await?;
    let kinds = "serviceaccounts,configmaps,deployments,replicasets,services,poddisruptionbudgets,pods,endpointslices";
    // The proxy lets open event streams end first: 30 s.
    until(2 * MINUTE, async || {
        let left = world
            .kubectl(&format!(
                "get {kinds} -n {QUICKSTART} -l gateway.networking.k8s.io/gateway-name={GATEWAY} -o name"
            ))
            .await?;
        ensure!(left.trim().is_empty(), "left: {left}");
        Ok(())
    })
    .await?;
    until(MINUTE, async || {
        let route = world
            .object(&format!("httproutes.gateway.networking.k8s.io httproute-local-mcp -n {QUICKSTART}"))
            .await?
            .context("no HTTPRoute")?;
        let parents = route.pointer("/status/parents").and_then(Value::as_array).map_or(0, Vec::len);
        ensure!(parents == 0, "the route still has a parent of ours: {route}");
        Ok(())
    })
    .await?;
    world.rolled_out(SYSTEM, "agentic-controller", MINUTE).await
}
