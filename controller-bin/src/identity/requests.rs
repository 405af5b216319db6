//! Answers PodCertificateRequests.
use std::{
    collections::BTreeSet,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet},
        certificates::v1beta1::{PodCertificateRequest, PodCertificateRequestStatus},
        core::v1::{Node, Pod, ServiceAccount},
    },
    apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time},
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DynamicObject, PostParams},
    core::{ApiResource, GroupVersionKind, NamespaceResourceScope},
    runtime::{WatchStreamExt as _, watcher},
};
use policy_model::NamespacedName;
use spiffe_id::SvidRequest;
use tokio::{sync::watch, task::JoinSet, time::Instant};

use super::{
    GATES, SIGNER, Settings,
    authority::Authority,
    decide::{Grant, Live, Owners, Refusal, Refused, Verdict, controller, decide, is_proxy_name, owners},
    queue::{Attempt, Queue},
};
use crate::lease::{self, Membership};

/// How many requests are answered at a time.
const AT_A_TIME: usize = 16;
/// How long an answer may take before it is tried again.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs until the membership ends.
pub(super) async fn answer(
    client: Client,
    settings: Arc<Settings>,
    replica: String,
    mut membership: watch::Receiver<Membership>,
    mut gateways: watch::Receiver<BTreeSet<NamespacedName>>,
    mut authority: watch::Receiver<Option<Arc<Authority>>>,
) -> anyhow::Result<()> {
    let requests: Api<PodCertificateRequest> = Api::all(client.clone());
    let config = watcher::Config::default().fields(&format!("spec.signerName={SIGNER}"));
    let mut events = pin!(watcher(requests, config).default_backoff());
    let signer = Arc::new(Signer { client, settings });
    let mut queue = Queue::default();
    let mut attempts: JoinSet<(Arc<PodCertificateRequest>, Attempt)> = JoinSet::new();
    // Whether the watch is up; what is wrong with it is said once, as the rest of the controller works on.
    let mut watched = true;
    let is_mine = |replicas: &BTreeSet<String>, request: &PodCertificateRequest| {
        lease::owner(replicas, request.metadata.uid.as_deref().unwrap_or_default()) == Some(replica.as_str())
    };
    loop {
        if let Some(authority) = authority.borrow_and_update().as_ref() {
            while attempts.len() < AT_A_TIME {
                let Some(request) = queue.take(Instant::now()) else { break };
                let (signer, authority) = (Arc::clone(&signer), Arc::clone(authority));
                let gateways = gateways.clone();
                attempts.spawn(async move {
                    let attempt =
                        tokio::time::timeout(PATIENCE, signer.attempt(&request, &gateways, &authority));
                    let attempt = attempt.await.unwrap_or(Attempt::Again);
                    (request, attempt)
                });
            }
        }
        let next = queue.next_due().filter(|_| authority.borrow().is_some() && attempts.len() < AT_A_TIME);
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(event)) => {
                    // `Init` comes before the list is tried.
                    watched |= !matches!(event, watcher::Event::Init);
                    let mine = |request: &_| is_mine(&membership.borrow().replicas, request);
                    note(&mut queue, event, mine);
                }
                Some(Err(error)) => {
                    match (watched, is_not_served(&error)) {
                        (true, true) => tracing::error!(
                            "the API server has no PodCertificateRequests (certificates.k8s.io/v1beta1); {GATES}"
                        ),
                        (true, false) => tracing::warn!(%error, "PodCertificateRequests cannot be watched"),
                        (false, _) => tracing::debug!(%error, "PodCertificateRequests still cannot be watched"),
                    }
                    watched = false;
                }
                None => anyhow::bail!("the watch of PodCertificateRequests ended"),
            },
            Some(ended) = attempts.join_next() => {
                let (request, attempt) = ended?;
                queue.ended(&request, attempt, Instant::now());
            }
            changed = membership.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let replicas = membership.borrow_and_update().replicas.clone();
                queue.hurry(Instant::now(), |request| is_mine(&replicas, request));
            }
            changed = authority.changed() => if changed.is_err() { return Ok(()) },
            changed = gateways.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let membership = membership.borrow();
                queue.hurry(Instant::now(), |request| is_mine(&membership.replicas, request));
            }
            () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
        }
    }
}

fn note(
    queue: &mut Queue,
    event: watcher::Event<PodCertificateRequest>,
    mine: impl Fn(&PodCertificateRequest) -> bool,
) {
    match event {
        watcher::Event::Init => queue.list_begins(),
        watcher::Event::InitDone => queue.list_ends(),
        watcher::Event::Apply(request) | watcher::Event::InitApply(request) => {
            let mine = mine(&request);
            queue.seen(request, mine, Instant::now());
        }
        watcher::Event::Delete(request) => queue.gone(&request),
    }
}

fn is_not_served(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 404,
        _ => false,
    }
}

struct Signer {
    client: Client,
    settings: Arc<Settings>,
}

impl Signer {
    async fn attempt(
        &self,
        request: &PodCertificateRequest,
        gateways: &watch::Receiver<BTreeSet<NamespacedName>>,
        authority: &Authority,
    ) -> Attempt {
        let name = format!("{}/{}", request.namespace().unwrap_or_default(), request.name_any());
        let live = match self.live(request).await {
            Ok(live) => live,
            Err(error) => {
                tracing::warn!(request = name, %error, "a certificate waits: what it is for cannot be read");
                return Attempt::Again;
            }
        };
        let now = Timestamp::now();
        let verdict = {
            let gateways = gateways.borrow();
            decide(request, &live, &gateways, authority.ca_end, &self.settings, now)
        };
        let (status, refusal) = match verdict {
            Verdict::NotOurs => return Attempt::Done,
            Verdict::Wait(why) => {
                tracing::info!(request = name, why, "a certificate waits");
                return Attempt::Again;
            }
            Verdict::Refuse(refusal) => (refused(&refusal, now), Some(refusal)),
            Verdict::Sign(grant) => match issued(&grant, authority, now) {
                Ok(status) => (status, None),
                Err(error) => {
                    tracing::error!(request = name, %error, "signing failed");
                    return Attempt::Again;
                }
            },
        };
        let answered = PodCertificateRequest { status: Some(status), ..request.clone() };
        let api: Api<PodCertificateRequest> =
            Api::namespaced(self.client.clone(), &request.namespace().unwrap_or_default());
        match api.replace_status(&request.name_any(), &PostParams::default(), &answered).await {
            Ok(_) => {
                self.count(request, refusal.as_ref());
                Attempt::Done
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Attempt::Done,
            // Another replica was faster, or the object changed: the watch tells.
            Err(kube::Error::Api(status)) if status.is_conflict() => Attempt::Again,
            Err(error) => {
                tracing::warn!(request = name, %error, "the answer to a PodCertificateRequest could not be written");
                Attempt::Again
            }
        }
    }

    fn count(&self, request: &PodCertificateRequest, refusal: Option<&Refusal>) {
        let namespace = request.namespace().unwrap_or_default();
        let (request, spec) = (request.name_any(), &request.spec);
        let (pod, account) = (spec.pod_name.as_str(), spec.service_account_name.as_str());
        let counts = &self.settings.counts;
        match refusal {
            None => {
                counts.issued.fetch_add(1, Ordering::Relaxed);
                tracing::info!(namespace, request, pod, account, "certificate issued");
            }
            Some(Refusal { outcome, reason, message }) => {
                match outcome {
                    Refused::Denied => counts.denied.fetch_add(1, Ordering::Relaxed),
                    Refused::Failed => counts.failed.fetch_add(1, Ordering::Relaxed),
                };
                let outcome = outcome.condition();
                tracing::warn!(
                    namespace,
                    request,
                    pod,
                    account,
                    outcome,
                    reason,
                    why = message,
                    "no certificate"
                );
            }
        }
    }

    /// Reads what the request speaks of: by `get`, which is never behind, as a watch may be.
    async fn live(&self, request: &PodCertificateRequest) -> kube::Result<Live> {
        let namespace = request.namespace().unwrap_or_default();
        let spec = &request.spec;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        let nodes: Api<Node> = Api::all(self.client.clone());
        let (pod, service_account, node) = tokio::try_join!(
            pods.get_opt(&spec.pod_name),
            self.metadata::<ServiceAccount>(&namespace, &spec.service_account_name),
            nodes.get_metadata_opt(&spec.node_name),
        )?;
        let owners = match &pod {
            Some(pod) if is_proxy_name(&spec.service_account_name) => self.owners(&namespace, pod).await?,
            _ => Owners::default(),
        };
        Ok(Live { pod, service_account, node: node.map(|node| node.metadata), owners })
    }

    async fn owners(&self, namespace: &str, pod: &Pod) -> kube::Result<Owners> {
        let mut found = Owners::default();
        let Some(owner) = controller(&pod.metadata, "apps", "ReplicaSet") else { return Ok(found) };
        found.replica_set = self.metadata::<ReplicaSet>(namespace, &owner.name).await?;
        let owner = found.replica_set.as_ref().and_then(|owned| controller(owned, "apps", "Deployment"));
        let Some(owner) = owner else { return Ok(found) };
        found.deployment = self.metadata::<Deployment>(namespace, &owner.name).await?;
        let owner = found
            .deployment
            .as_ref()
            .and_then(|owned| owners(owned, "gateway.networking.k8s.io", "Gateway").next());
        let Some(owner) = owner else { return Ok(found) };
        let kind =
            ApiResource::from_gvk(&GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "Gateway"));
        let gateways: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &kind);
        found.gateway = gateways.get_metadata_opt(&owner.name).await?.map(|gateway| gateway.metadata);
        Ok(found)
    }

    async fn metadata<K>(&self, namespace: &str, name: &str) -> kube::Result<Option<ObjectMeta>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + serde::de::DeserializeOwned
            + std::fmt::Debug,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        Ok(api.get_metadata_opt(name).await?.map(|object| object.metadata))
    }
}

fn condition(type_: &str, reason: &str, message: String, now: Timestamp) -> Condition {
    Condition {
        type_: type_.to_owned(),
        status: "True".to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: Time(now),
        observed_generation: None,
    }
}

fn refused(refusal: &Refusal, now: Timestamp) -> PodCertificateRequestStatus {
    let Refusal { outcome, reason, message } = refusal;
    PodCertificateRequestStatus {
        conditions: Some(vec![condition(outcome.condition(), reason, message.clone(), now)]),
        ..PodCertificateRequestStatus::default()
    }
}

/// Signs.
fn issued(
    grant: &Grant,
    authority: &Authority,
    now: Timestamp,
) -> Result<PodCertificateRequestStatus, spiffe_id::IssueError> {
    let request = SvidRequest::new(&grant.id, grant.not_before.into(), grant.not_after.into());
    let svid = authority.pool.issue_for_public_key(grant.key.spki_der(), &request)?;
    let message = format!("issued to `{}`", grant.id);
    Ok(PodCertificateRequestStatus {
        certificate_chain: Some(svid.chain_pem()),
        not_before: Some(Time(grant.not_before)),
        not_after: Some(Time(grant.not_after)),
        begin_refresh_at: Some(Time(grant.begin_refresh_at)),
        conditions: Some(vec![condition("Issued", "Issued", message, now)]),
    })
}
