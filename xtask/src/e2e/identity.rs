//! Certificates in another's name, and what they would open: requests as someone makes them who may create
//! PodCertificateRequests and writes into them what he likes. The API server lets him; the signer compares.
use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use k8s_openapi::{
    ByteString,
    api::{
        certificates::v1beta1::{
            ClusterTrustBundle, PodCertificateRequest, PodCertificateRequestSpec, PodCertificateRequestStatus,
        },
        core::v1::{Node, Pod, ServiceAccount},
    },
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, ObjectMeta, PostParams},
};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::{Value, json};
use spiffe_id::identity_of;

use self::discovery::{Answer, Credential, LISTENER, OBJECT, SECRET};
use super::{
    DataPlane,
    probe::Replica,
    world::{SYSTEM, World, until},
};
use crate::interop::report::Report;

mod discovery;

const MINUTE: Duration = Duration::from_secs(60);
const NAMESPACE: &str = "identity-e2e";
const SIGNER: &str = "kube-agentic-networking.sigs.k8s.io/identity";
const BUNDLE: &str = "kube-agentic-networking.sigs.k8s.io:identity:primary-bundle";
/// Two Gateways, and the names of their proxies: `envoy-proxy-` and 12 hex digits of sha256("identity-e2e/GATEWAY").
const GATEWAYS: [(&str, &str); 2] =
    [("identity-a", "envoy-proxy-c1b6cef69d8f"), ("identity-b", "envoy-proxy-585e3e9b1708")];

pub(super) async fn run(world: &mut World, report: &mut Report) -> anyhow::Result<()> {
    report.suite("identities");
    if report.step("the controller runs", 2 * MINUTE, world.install()).await.is_none() {
        bail!("the controller does not run");
    }
    let world = &*world;
    let client = world.client().await?;
    let nodes: Api<Node> = Api::all(client.clone());
    let node = nodes.list(&ListParams::default()).await?.items.first().context("no node")?.name_any();
    let keys = [KeyPair::generate()?, KeyPair::generate()?];
    report
        .step("Pods and two Gateways", MINUTE, async {
            world.apply(&objects(&node, &keys)?.to_string()).await
        })
        .await
        .context("there is nobody to ask for")?;

    report
        .step("a thief takes a proxy's ServiceAccount, once there is one", MINUTE, async {
            let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
            until(MINUTE, async || Ok(accounts.get(GATEWAYS[0].1).await?)).await?;
            world.apply(&pod(&node, NAMESPACE, "thief", GATEWAYS[0].1, &certificate()).to_string()).await
        })
        .await;

    let agent = report
        .step("a true request is issued, and its chain leads to the published roots", MINUTE, async {
            let credential = issued(&client, &request(&client, NAMESPACE, "agent").await?).await?;
            let expected = format!("spiffe://cluster.local/ns/{NAMESPACE}/sa/agent");
            ensure!(identity(&credential)? == expected, "{}", identity(&credential)?);
            Ok(credential)
        })
        .await;
    for row in &ROWS {
        let name = format!("{}: {}", row.reason, row.what);
        let refused = async {
            let mut spec = request(&client, row.namespace, row.pod).await?;
            (row.change)(&mut spec);
            denied(&client, row.namespace, spec, row.reason).await
        };
        if let Some(message) = report.step(&name, MINUTE, refused).await {
            report.note(&message);
        }
    }
    report
        .step("proxies' identities go only to Pods of their Deployments", MINUTE, async {
            until(MINUTE / 2, async || only_proxies(&client).await).await
        })
        .await;
    Box::pin(discovery(world, report, &client, agent, &keys)).await?;
    report
        .step("everything is deleted", MINUTE, async {
            world.kubectl(&format!("delete pod impostor -n {SYSTEM} --grace-period=0 --force")).await?;
            world.kubectl(&format!("delete namespace {NAMESPACE}")).await
        })
        .await;
    Ok(())
}

/// What the discovery service answers to whom.
async fn discovery(
    world: &World,
    report: &mut Report,
    client: &Client,
    agent: Option<Credential>,
    keys: &[KeyPair; 2],
) -> anyhow::Result<()> {
    let bundles: Api<ClusterTrustBundle> = Api::all(client.clone());
    let roots = bundles.get(BUNDLE).await?.spec.trust_bundle;
    let address = discovery_service(world).await?;
    report
        .step("without a certificate the discovery service says nothing", MINUTE, async {
            match discovery::ask(address, &roots, None, OBJECT, &["*"]).await {
                Err(_) | Ok(Answer::Closed) => Ok(()),
                Ok(answer) => bail!("it answered: {answer:?}"),
            }
        })
        .await;
    if let Some(agent) = agent {
        report
            .step("an agent's identity gets nothing", MINUTE, async {
                let before = refused(world).await?;
                match discovery::ask(address, &roots, Some(&agent), OBJECT, &["*"]).await? {
                    Answer::Closed => {}
                    other => bail!("{other:?}"),
                }
                let refused = refused(world).await? - before;
                ensure!(refused == 1, "{refused} connections were refused");
                Ok(())
            })
            .await;
    }
    let [a, b] = GATEWAYS;
    let [key_a, key_b] = keys;
    for ((gateway, proxy), key, (other, _), other_key) in [(a, key_a, b, key_b), (b, key_b, a, key_a)] {
        let own = Box::pin(of_its_own(world, client, &roots, (gateway, proxy), other));
        let credential =
            report.step(&format!("a proxy of {gateway} gets nothing of {other}"), 2 * MINUTE, own).await;
        let name = format!("Envoy of {gateway} asks for the certificates of both, and gets its own");
        match (world.data_plane(), credential) {
            (DataPlane::Native, _) => {}
            (DataPlane::Envoy | DataPlane::Filters, None) => report.not_run(&name, "it has no identity"),
            (DataPlane::Envoy | DataPlane::Filters, Some(credential)) => {
                report
                    .step(&name, MINUTE, async {
                        let names = [certificate_of(gateway), certificate_of(other)];
                        let names = names.each_ref().map(String::as_str);
                        let bytes = resources(address, &roots, &credential, SECRET, &names).await?;
                        ensure!(holds(&bytes, &key.serialize_pem()), "its own key is not there");
                        ensure!(!holds(&bytes, &other_key.serialize_pem()), "it got the key of `{other}`");
                        Ok(())
                    })
                    .await;
            }
        }
    }
    Ok(())
}

/// What the proxies of a Gateway subscribe to holds nothing of another's; such a proxy's credential.
async fn of_its_own(
    world: &World,
    client: &Client,
    roots: &str,
    (gateway, proxy): (&str, &str),
    other: &str,
) -> anyhow::Result<Credential> {
    let types: &[&str] = match world.data_plane() {
        DataPlane::Native => &[OBJECT],
        DataPlane::Envoy | DataPlane::Filters => &[OBJECT, LISTENER],
    };
    let address = discovery_service(world).await?;
    world.programmed(NAMESPACE, gateway, MINUTE).await?;
    world.programmed(NAMESPACE, other, MINUTE).await?;
    world.served_by(NAMESPACE, gateway, None, MINUTE).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let pod = of_account(&pods, proxy).await?;
    let credential = issued(client, &request(client, NAMESPACE, &pod).await?).await?;
    for r#type in types {
        let bytes = resources(address, roots, &credential, r#type, &["*"]).await?;
        ensure!(holds(&bytes, gateway), "{type}: its own Gateway is not among {} bytes", bytes.len());
        ensure!(!holds(&bytes, other), "{type}: it got something of `{other}`");
    }
    Ok(credential)
}

/// A replica of the controller, where it answers proxies.
async fn discovery_service(world: &World) -> anyhow::Result<SocketAddr> {
    world.pod_address(SYSTEM, "app.kubernetes.io/name=agentic-controller", 15010).await
}

/// What a subscription brings, which must be something.
async fn resources(
    address: SocketAddr,
    roots: &str,
    credential: &Credential,
    r#type: &str,
    names: &[&str],
) -> anyhow::Result<Bytes> {
    match discovery::ask(address, roots, Some(credential), r#type, names).await? {
        Answer::Resources(bytes) => Ok(bytes),
        other => bail!("{type}: {other:?}"),
    }
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|part| part == text.as_bytes())
}

/// What Envoy asks for, for the HTTPS listener of one of these Gateways.
fn certificate_of(gateway: &str) -> String {
    format!("certificate/{gateway}/0")
}

/// Connections that the discovery services refused.
async fn refused(world: &World) -> anyhow::Result<u64> {
    let mut sum = 0;
    for replica in Replica::all(world).await? {
        sum += replica.metric("xds_connections_refused").await?;
    }
    Ok(sum)
}

/// A request that is denied: the true one for a Pod with one change.
struct Row {
    what: &'static str,
    namespace: &'static str,
    pod: &'static str,
    change: fn(&mut PodCertificateRequestSpec),
    reason: &'static str,
}

const ROWS: [Row; 11] = [
    Row {
        what: "another Pod's name",
        namespace: NAMESPACE,
        pod: "agent",
        change: |spec| spec.pod_name = "other".to_owned(),
        reason: "PodMismatch",
    },
    Row {
        what: "another Pod's UID",
        namespace: NAMESPACE,
        pod: "agent",
        change: |spec| spec.pod_uid = "8f1c0d4e-0000-4000-8000-000000000000".to_owned(),
        reason: "PodMismatch",
    },
    Row {
        what: "another ServiceAccount",
        namespace: NAMESPACE,
        pod: "agent",
        change: |spec| spec.service_account_name = "other".to_owned(),
        reason: "PodMismatch",
    },
    Row {
        what: "the UID of a ServiceAccount that was there before",
        namespace: NAMESPACE,
        pod: "agent",
        change: |spec| spec.service_account_uid = "8f1c0d4e-0000-4000-8000-000000000000".to_owned(),
        reason: "PodMismatch",
    },
    Row {
        what: "another node",
        namespace: NAMESPACE,
        pod: "agent",
        change: |spec| spec.node_name = "another-node".to_owned(),
        reason: "PodMismatch",
    },
    Row {
        what: "another node's UID",
        namespace: NAMESPACE,
        pod: "agent",
        change: |spec| spec.node_uid = "8f1c0d4e-0000-4000-8000-000000000000".to_owned(),
        reason: "PodMismatch",
    },
    Row {
        what: "a Pod that does not exist",
        namespace: NAMESPACE,
        pod: "agent",
        change: |spec| spec.pod_name = "nobody".to_owned(),
        reason: "PodNotFound",
    },
    Row {
        what: "a Pod that mounts no certificate",
        namespace: NAMESPACE,
        pod: "bare",
        change: |_| {},
        reason: "NotMounted",
    },
    Row {
        what: "annotations that nobody knows",
        namespace: NAMESPACE,
        pod: "agent",
        change: |spec| {
            spec.unverified_user_annotations =
                Some([("example.org/role".to_owned(), "admin".to_owned())].into());
        },
        reason: "InvalidUnverifiedUserAnnotations",
    },
    Row {
        what: "a proxy's ServiceAccount in somebody's Pod",
        namespace: NAMESPACE,
        pod: "thief",
        change: |_| {},
        reason: "ReservedIdentity",
    },
    Row {
        what: "the controller's ServiceAccount in a Pod",
        namespace: SYSTEM,
        pod: "impostor",
        change: |_| {},
        reason: "ReservedIdentity",
    },
];

/// A true request for a Pod, but for the key.
async fn request(client: &Client, namespace: &str, pod: &str) -> anyhow::Result<PodCertificateRequestSpec> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let nodes: Api<Node> = Api::all(client.clone());
    let pod = pods.get(pod).await?;
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone());
    let account = accounts.get(&account.context("a Pod without ServiceAccount")?).await?;
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let node = nodes.get(&node.context("a Pod without a node")?).await?;
    Ok(PodCertificateRequestSpec {
        signer_name: SIGNER.to_owned(),
        pod_name: pod.name_any(),
        pod_uid: pod.uid().unwrap_or_default(),
        service_account_name: account.name_any(),
        service_account_uid: account.uid().unwrap_or_default(),
        node_name: node.name_any(),
        node_uid: node.uid().unwrap_or_default(),
        ..PodCertificateRequestSpec::default()
    })
}

/// Sends a request with a new key, and waits for the signer.
async fn answer(
    client: &Client,
    namespace: &str,
    spec: PodCertificateRequestSpec,
) -> anyhow::Result<(KeyPair, PodCertificateRequestStatus)> {
    let key = KeyPair::generate()?;
    let csr = CertificateParams::default().serialize_request(&key)?;
    let requests: Api<PodCertificateRequest> = Api::namespaced(client.clone(), namespace);
    let request = PodCertificateRequest {
        metadata: ObjectMeta { generate_name: Some("e2e-".to_owned()), ..ObjectMeta::default() },
        spec: PodCertificateRequestSpec { stub_pkc_s10_request: ByteString(csr.der().to_vec()), ..spec },
        status: None,
    };
    let name = requests.create(&PostParams::default(), &request).await?.name_any();
    until(MINUTE, async || {
        let status = requests.get(&name).await?.status.unwrap_or_default();
        ensure!(status.conditions.iter().flatten().count() == 1, "nobody answered `{name}`");
        Ok(status)
    })
    .await
    .map(|status| (key, status))
}

async fn denied(
    client: &Client,
    namespace: &str,
    spec: PodCertificateRequestSpec,
    reason: &str,
) -> anyhow::Result<String> {
    let (_, status) = answer(client, namespace, spec).await?;
    let condition = status.conditions.iter().flatten().next().context("no condition")?;
    ensure!(
        condition.type_ == "Denied" && condition.reason == reason && status.certificate_chain.is_none(),
        "{status:?}"
    );
    Ok(condition.message.clone())
}

async fn issued(client: &Client, spec: &PodCertificateRequestSpec) -> anyhow::Result<Credential> {
    let (key, status) = answer(client, NAMESPACE, spec.clone()).await?;
    let chain = status.certificate_chain.clone().with_context(|| format!("{status:?}"))?;
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let bundles: Api<ClusterTrustBundle> = Api::all(client.clone());
    let roots = bundles.get(BUNDLE).await?.spec.trust_bundle;
    discovery::verify(&roots, &chain)?;
    Ok(Credential { chain, key: key.serialize_der() })
}

fn identity(credential: &Credential) -> anyhow::Result<String> {
    Ok(identity_of(credential.chain.first().context("no certificate")?)?.to_string())
}

/// The Pod that a Deployment made under this ServiceAccount.
async fn of_account(pods: &Api<Pod>, account: &str) -> anyhow::Result<String> {
    let all = pods.list(&ListParams::default()).await?;
    let made = all.items.iter().find(|pod| {
        pod.owner_references().iter().any(|owner| owner.kind == "ReplicaSet")
            && pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()) == Some(account)
    });
    Ok(made.with_context(|| format!("no proxy `{account}`"))?.name_any())
}

/// Of all requests with a proxy's ServiceAccount, those that were issued are for Pods that a ReplicaSet controls, and
/// each Gateway's is among them.
async fn only_proxies(client: &Client) -> anyhow::Result<()> {
    let requests: Api<PodCertificateRequest> = Api::namespaced(client.clone(), NAMESPACE);
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let all = requests.list(&ListParams::default()).await?.items;
    for (gateway, proxy) in GATEWAYS {
        let mut found = 0;
        for request in all.iter().filter(|request| request.spec.service_account_name == proxy) {
            let issued = request.status.as_ref().is_some_and(|status| status.certificate_chain.is_some());
            if !issued {
                continue;
            }
            let pod = pods.get(&request.spec.pod_name).await?;
            ensure!(
                pod.owner_references().iter().any(|owner| owner.kind == "ReplicaSet"),
                "`{}` has the identity of {gateway}'s proxies",
                pod.name_any()
            );
            found += 1;
        }
        ensure!(found > 0, "no proxy of {gateway} has an identity");
    }
    Ok(())
}

/// A projected volume's sources.
fn certificate() -> Value {
    json!([{"podCertificate": {
        "signerName": SIGNER, "keyType": "ECDSAP256", "credentialBundlePath": "credential-bundle.pem",
    }}])
}

/// It need not run: a certificate is asked for before.
fn pod(node: &str, namespace: &str, name: &str, account: &str, sources: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "nodeName": node, "serviceAccountName": account,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{
                "name": "none", "image": "example.org/none:1",
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
            "volumes": [{"name": "identity", "projected": {"sources": sources}}],
        },
    })
}

fn objects(node: &str, keys: &[KeyPair; 2]) -> anyhow::Result<Value> {
    let metadata = |name: &str| json!({"name": name, "namespace": NAMESPACE});
    let account =
        |name: &str| json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(name)});
    let mut items = vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        account("agent"),
        account("other"),
        pod(node, NAMESPACE, "agent", "agent", &certificate()),
        pod(node, NAMESPACE, "other", "other", &certificate()),
        pod(node, NAMESPACE, "bare", "agent", &json!([])),
        pod(node, SYSTEM, "impostor", "agentic-controller", &certificate()),
    ];
    for ((gateway, _), key) in GATEWAYS.into_iter().zip(keys) {
        let certificate = CertificateParams::new(vec![format!("{gateway}.example")])?.self_signed(key)?;
        items.push(json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": metadata(gateway),
            "stringData": {"tls.crt": certificate.pem(), "tls.key": key.serialize_pem()},
        }));
        items.push(json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": metadata(gateway),
            "spec": {
                "gatewayClassName": "kube-agentic-networking",
                "listeners": [
                    {"name": "http", "protocol": "HTTP", "port": 8080},
                    {
                        "name": gateway, "protocol": "HTTPS", "port": 8443,
                        "tls": {"certificateRefs": [{"name": gateway}]},
                    },
                ],
            },
        }));
    }
    Ok(json!({"apiVersion": "v1", "kind": "List", "items": items}))
}
