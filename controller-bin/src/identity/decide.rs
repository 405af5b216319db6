//! Whether a PodCertificateRequest is signed: pure, from the request and what is alive.
use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{certificates::v1beta1::PodCertificateRequest, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use policy_model::NamespacedName;
use spiffe_id::{HeldKey, IssueError, SpiffeId};

use super::{SIGNER, Settings};
use crate::provision::proxy_name;

/// How far a certificate's begin lies in the past, for clocks that are behind. The API server allows 5 minutes.
const BACKDATE: SignedDuration = SignedDuration::from_mins(2);
/// The API server refuses certificates for less (KEP-4317).
const SHORTEST: SignedDuration = SignedDuration::from_hours(1);
/// What the API server fills in where a request names no limit.
const DEFAULT_MAX_SECONDS: i32 = 86_400;

/// What is alive, read from the API server after the request was seen. What was not there is `None`.
#[derive(Debug, Default)]
pub(super) struct Live {
    /// The Pod that has the name in the request.
    pub(super) pod: Option<Pod>,
    /// Of the ServiceAccount that has the name in the request.
    pub(super) service_account: Option<ObjectMeta>,
    /// Of the Node that has the name in the request.
    pub(super) node: Option<ObjectMeta>,
    /// Who made the Pod; read only for a proxy's identity.
    pub(super) owners: Owners,
}

/// The chain from a proxy's Pod to its Gateway, each found by the owner reference of the one before.
#[derive(Debug, Default)]
pub(super) struct Owners {
    pub(super) replica_set: Option<ObjectMeta>,
    pub(super) deployment: Option<ObjectMeta>,
    pub(super) gateway: Option<ObjectMeta>,
}

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Another signer's, or answered.
    NotOurs,
    /// Cannot be said yet; why, for the log.
    Wait(String),
    /// Final: a kubelet asks no more for this Pod.
    Refuse(Refusal),
    Sign(Box<Grant>),
}

/// A condition that ends a request without a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) outcome: Refused,
    /// `CamelCase`, as conditions have it.
    pub(super) reason: &'static str,
    pub(super) message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// The asker may not have it.
    Denied,
    /// It could not be made.
    Failed,
}
impl Refused {
    /// The condition's type (KEP-4317).
    pub(super) fn condition(self) -> &'static str {
        match self {
            Self::Denied => "Denied",
            Self::Failed => "Failed",
        }
    }
}

/// What is to be signed. Times are whole seconds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) id: SpiffeId,
    pub(super) key: HeldKey,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    pub(super) begin_refresh_at: Timestamp,
}

/// Times of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    /// Half of the time: 12 hours before the end of one for 24 hours. At least 30 minutes from both ends, where the
    /// API server asks for 10.
    pub(super) half_life: Timestamp,
}

impl Validity {
    /// From two minutes ago, for `lifetime`, and not beyond the CA. `None` where that leaves less than `shortest`, or
    /// nothing after now.
    pub(super) fn new(
        now: Timestamp,
        lifetime: SignedDuration,
        ca_end: Timestamp,
        shortest: SignedDuration,
    ) -> Option<Self> {
        let whole = |moment: Timestamp| Timestamp::from_second(moment.as_second()).ok();
        let not_before = whole(now.checked_sub(BACKDATE).ok()?)?;
        let not_after = whole(not_before.checked_add(lifetime).ok()?.min(ca_end))?;
        let length = not_after.duration_since(not_before);
        (length >= shortest && not_after > now).then_some(())?;
        let half_life = whole(not_before.checked_add(length / 2).ok()?)?;
        Some(Self { not_before, not_after, half_life })
    }
}

/// Whether a request waits for this signer: it names it, and nobody answered yet.
pub(super) fn is_pending(request: &PodCertificateRequest) -> bool {
    let answered = request.status.as_ref().is_some_and(|status| {
        status.certificate_chain.is_some()
            || status
                .conditions
                .iter()
                .flatten()
                .any(|condition| ["Issued", "Denied", "Failed"].contains(&condition.type_.as_str()))
    });
    request.spec.signer_name == SIGNER && !answered
}

/// Whether a ServiceAccount has a name that [`proxy_name`] gives: only a proxy of that Gateway has its identity.
pub(super) fn is_proxy_name(service_account: &str) -> bool {
    service_account.strip_prefix("envoy-proxy-").is_some_and(|hash| {
        hash.len() == 12 && hash.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

/// The controller among an object's owners, if it is of this kind in this API group.
pub(super) fn controller<'m>(object: &'m ObjectMeta, group: &str, kind: &str) -> Option<&'m OwnerReference> {
    owners(object, group, kind).find(|owner| owner.controller == Some(true))
}

/// An object's owners of this kind in this API group.
pub(super) fn owners<'m>(
    object: &'m ObjectMeta,
    group: &str,
    kind: &str,
) -> impl Iterator<Item = &'m OwnerReference> {
    object.owner_references.iter().flatten().filter(move |owner| {
        owner.kind == kind && owner.api_version.split_once('/').is_some_and(|(of, _version)| of == group)
    })
}

/// Decides a request. `gateways` are those of ours that exist, `ca_end` when the CA that would sign ends.
pub(super) fn decide(
    request: &PodCertificateRequest,
    live: &Live,
    gateways: &BTreeSet<NamespacedName>,
    ca_end: Timestamp,
    settings: &Settings,
    now: Timestamp,
) -> Verdict {
    if !is_pending(request) {
        return Verdict::NotOurs;
    }
    match judge(request, live, gateways, ca_end, settings, now) {
        Ok(grant) => Verdict::Sign(Box::new(grant)),
        Err(verdict) => verdict,
    }
}

fn deny(reason: &'static str, message: impl Into<String>) -> Verdict {
    Verdict::Refuse(Refusal { outcome: Refused::Denied, reason, message: message.into() })
}

fn judge(
    request: &PodCertificateRequest,
    live: &Live,
    gateways: &BTreeSet<NamespacedName>,
    ca_end: Timestamp,
    settings: &Settings,
    now: Timestamp,
) -> Result<Grant, Verdict> {
    let spec = &request.spec;
    let namespace = request.metadata.namespace.as_deref().unwrap_or_default();
    // The signer defines no annotations; KEP-4317 has it deny those that it does not know.
    if let Some(key) = spec.unverified_user_annotations.iter().flatten().map(|(key, _value)| key).next() {
        return Err(deny(
            "InvalidUnverifiedUserAnnotations",
            format!(
                "this signer knows no annotation `{key}`; remove `userAnnotations` from the Pod's podCertificate source"
            ),
        ));
    }
    let pod = is_of_pod(request, live)?;
    if namespace == settings.namespace && spec.service_account_name == settings.service_account {
        return Err(deny(
            "ReservedIdentity",
            "the controller makes its own certificate and signs its identity for nobody; use another ServiceAccount",
        ));
    }
    if is_proxy_name(&spec.service_account_name) {
        is_of_proxy(pod, namespace, &spec.service_account_name, &live.owners, gateways)?;
    }
    let key = held_key(request).map_err(|error| {
        let reason = if error.is_unsupported_key() { "UnsupportedKeyType" } else { "InvalidRequest" };
        deny(reason, error.to_string())
    })?;
    let id = SpiffeId::for_service_account(&settings.trust_domain, namespace, &spec.service_account_name)
        .map_err(|error| deny("InvalidRequest", error.to_string()))?;

    let limit = SignedDuration::from_secs(spec.max_expiration_seconds.unwrap_or(DEFAULT_MAX_SECONDS).into());
    if limit < SHORTEST {
        return Err(Verdict::Refuse(Refusal {
            outcome: Refused::Failed,
            reason: "InvalidRequest",
            message: "a certificate is valid for an hour at least; ask for 3600 seconds or more".to_owned(),
        }));
    }
    let own = SignedDuration::try_from(settings.lifetime).unwrap_or(SignedDuration::MAX).max(SHORTEST);
    let Some(validity) = Validity::new(now, own.min(limit), ca_end, SHORTEST) else {
        return Err(Verdict::Wait(format!(
            "the CA ends at {ca_end}, in less than the hour that a certificate lasts at least; rotate the CA pool"
        )));
    };
    let Validity { not_before, not_after, half_life: begin_refresh_at } = validity;
    Ok(Grant { id, key, not_before, not_after, begin_refresh_at })
}

/// Compares the request with the live Pod, its ServiceAccount and its Node. The API server checks that a kubelet asks
/// for Pods of its own node only; anyone else who may create requests can write into them what he likes.
fn is_of_pod<'l>(request: &PodCertificateRequest, live: &'l Live) -> Result<&'l Pod, Verdict> {
    let spec = &request.spec;
    let Some(pod) = &live.pod else {
        return Err(deny("PodNotFound", format!("there is no Pod `{}` in this namespace", spec.pod_name)));
    };
    let differs = |what: &str, asked: &str, is: &str| {
        deny(
            "PodMismatch",
            format!("{what} of the Pod `{}` is `{is}`, not `{asked}` as the request says", spec.pod_name),
        )
    };
    let compare = |what: &str, asked: &str, is: Option<&str>| match is {
        Some(is) if is == asked => Ok(()),
        is => Err(differs(what, asked, is.unwrap_or_default())),
    };
    let pod_spec = pod.spec.as_ref();
    compare("the UID", &spec.pod_uid, pod.metadata.uid.as_deref())?;
    compare(
        "the ServiceAccount",
        &spec.service_account_name,
        pod_spec.and_then(|pod| pod.service_account_name.as_deref()),
    )?;
    compare("the node", &spec.node_name, pod_spec.and_then(|pod| pod.node_name.as_deref()))?;
    let uid = |object: &'l Option<ObjectMeta>| object.as_ref().and_then(|object| object.uid.as_deref());
    compare("the UID of the ServiceAccount", &spec.service_account_uid, uid(&live.service_account))?;
    compare("the UID of the node", &spec.node_uid, uid(&live.node))?;

    if pod.metadata.deletion_timestamp.is_some() {
        return Err(deny("PodFinished", format!("the Pod `{}` is being deleted", spec.pod_name)));
    }
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    if ["Succeeded", "Failed"].contains(&phase) {
        return Err(deny("PodFinished", format!("the Pod `{}` is over: {phase}", spec.pod_name)));
    }
    if !mounts_certificate(pod) {
        return Err(deny(
            "NotMounted",
            format!(
                "the Pod `{}` has no projected volume with a podCertificate of the signer `{SIGNER}`; add one, so that \
                 the kubelet asks",
                spec.pod_name
            ),
        ));
    }
    Ok(pod)
}

/// Whether the Pod has a projected volume for which a kubelet would make such a request.
fn mounts_certificate(pod: &Pod) -> bool {
    pod.spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten())
        .filter_map(|volume| volume.projected.as_ref())
        .flat_map(|projected| projected.sources.iter().flatten())
        .filter_map(|source| source.pod_certificate.as_ref())
        .any(|certificate| certificate.signer_name == SIGNER)
}

/// A proxy gets the configuration of its Gateway, TLS keys included, on the strength of its identity. So that identity
/// goes only to Pods that the Gateway's own Deployment made.
fn is_of_proxy(
    pod: &Pod,
    namespace: &str,
    service_account: &str,
    owners_of_pod: &Owners,
    gateways: &BTreeSet<NamespacedName>,
) -> Result<(), Verdict> {
    let reserved = |message: String| {
        deny(
            "ReservedIdentity",
            format!(
                "`{service_account}` is the identity of a Gateway's proxies, and {message}; use another ServiceAccount"
            ),
        )
    };
    let Owners { replica_set, deployment, gateway } = owners_of_pod;
    let replica_set = controller(&pod.metadata, "apps", "ReplicaSet")
        .zip(replica_set.as_ref())
        .and_then(|(owner, replica_set)| is_it(owner, replica_set))
        .ok_or_else(|| reserved("no ReplicaSet made this Pod".to_owned()))?;
    let deployment = controller(replica_set, "apps", "Deployment")
        .zip(deployment.as_ref())
        .and_then(|(owner, deployment)| is_it(owner, deployment))
        .filter(|deployment| deployment.name.as_deref() == Some(service_account))
        .ok_or_else(|| reserved("this Pod is not of the Deployment of that name".to_owned()))?;
    let gateway = gateway.as_ref().and_then(|gateway| {
        owners(deployment, "gateway.networking.k8s.io", "Gateway").find_map(|owner| is_it(owner, gateway))
    });
    let gateway = gateway
        .and_then(|gateway| gateway.name.as_deref())
        .map(|name| NamespacedName::new(namespace, name))
        .filter(|gateway| proxy_name(gateway) == service_account)
        .ok_or_else(|| reserved("the Deployment of that name is of no Gateway that has it".to_owned()))?;
    if gateways.contains(&gateway) {
        Ok(())
    } else {
        // Not seen yet, or of a class of ours that is not there yet: a denial would be final.
        Err(Verdict::Wait(format!("the Gateway `{gateway}` is not known as one of this controller's")))
    }
}

/// The object, if the reference means it and no other that had its name.
fn is_it<'o>(owner: &OwnerReference, object: &'o ObjectMeta) -> Option<&'o ObjectMeta> {
    (object.uid.as_deref() == Some(owner.uid.as_str()) && object.name.as_deref() == Some(owner.name.as_str()))
        .then_some(object)
}

/// The key, in either form: a PKCS#10 request, or a public key and a signature over the Pod's UID. The API server has
/// verified it; a signer that relies on that would sign what a wrong one lets through.
fn held_key(request: &PodCertificateRequest) -> Result<HeldKey, IssueError> {
    let spec = &request.spec;
    match (&spec.pkix_public_key, &spec.proof_of_possession) {
        (Some(key), Some(proof)) if spec.stub_pkc_s10_request.0.is_empty() => {
            HeldKey::of_signature(&key.0, spec.pod_uid.as_bytes(), &proof.0)
        }
        _ => HeldKey::of_csr(&spec.stub_pkc_s10_request.0),
    }
}

#[cfg(test)]
mod tests;
