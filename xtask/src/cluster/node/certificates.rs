//! `podCertificate` sources of projected volumes: a key, a PodCertificateRequest, and what the signer answers (KEP-4317).
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use k8s_openapi::{
    ByteString,
    api::{
        certificates::v1beta1::{
            PodCertificateRequest, PodCertificateRequestSpec, PodCertificateRequestStatus,
        },
        core::v1::{Pod, PodCertificateProjection, ServiceAccount},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
    jiff::Timestamp,
};
use kube::{Api, ResourceExt as _, api::PostParams, runtime::reflector::ObjectRef};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use super::{
    NODE_NAME,
    context::{Context, now},
};

/// A request that is not seen for so long is made again: it was removed (they live for 15 minutes).
const LOST: Duration = Duration::from_secs(5);

/// One source and how far it is.
#[derive(Debug, Default)]
pub(super) struct Credential {
    issued: Option<Issued>,
    asked: Option<Asked>,
    /// What the signer said in the end, as a kubelet sees it: it is not asked again for this Pod.
    refused: Option<String>,
}

/// What goes into the volume.
#[derive(Debug, Clone)]
pub(super) struct Issued {
    /// PKCS #8, PEM.
    pub(super) key: String,
    /// PEM, leaf first.
    pub(super) chain: String,
    begin_refresh_at: Timestamp,
    not_after: Timestamp,
}

#[derive(Debug)]
struct Asked {
    name: String,
    key: String,
    at: Instant,
}

/// What a signer answered.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Pending,
    Issued,
    Refused(String),
}

impl Credential {
    /// Goes one step on: asks if there is nothing to ask for or it is time to renew, takes an answer if there is one.
    /// The credentials to be used now; an error while there are none says what is waited for.
    pub(super) async fn advance(
        &mut self,
        context: &Context,
        pod: &Pod,
        source: &PodCertificateProjection,
    ) -> anyhow::Result<&Issued> {
        let due = self.issued.as_ref().is_none_or(|issued| issued.begin_refresh_at <= now());
        if due && self.refused.is_none() {
            match &self.asked {
                None => self.asked = Some(ask(context, pod, source).await?),
                Some(asked) => {
                    let namespace = pod.namespace().unwrap_or_default();
                    let request = context.requests.get(&ObjectRef::new(&asked.name).within(&namespace));
                    match request {
                        None if asked.at.elapsed() > LOST => self.asked = None,
                        None => {}
                        Some(request) => self.take(&request, &namespace)?,
                    }
                }
            }
        }
        match (&self.issued, &self.refused, &self.asked) {
            // A kubelet keeps what it has until it expires.
            (Some(issued), _, _) if issued.not_after > now() => Ok(issued),
            (_, Some(refused), _) => bail!("{refused}"),
            (_, _, Some(asked)) => {
                bail!("PodCertificateRequest `{}` waits for signer `{}`", asked.name, source.signer_name)
            }
            _ => bail!("no certificate of signer `{}` yet", source.signer_name),
        }
    }

    fn take(&mut self, request: &PodCertificateRequest, namespace: &str) -> anyhow::Result<()> {
        let status = request.status.clone().unwrap_or_default();
        match answer(&status) {
            Answer::Pending => {}
            Answer::Refused(why) => {
                self.asked = None;
                self.refused =
                    Some(format!("PodCertificateRequest `{namespace}/{}`: {why}", request.name_any()));
            }
            Answer::Issued => {
                let key = self.asked.take().context("nothing was asked for")?.key;
                self.issued = Some(Issued {
                    key,
                    chain: status.certificate_chain.context("issued without a certificate")?,
                    begin_refresh_at: status.begin_refresh_at.context("issued without beginRefreshAt")?.0,
                    not_after: status.not_after.context("issued without notAfter")?.0,
                });
            }
        }
        Ok(())
    }
}

impl Issued {
    /// Key first, then the chain: what `credentialBundlePath` holds.
    pub(super) fn bundle(&self) -> String {
        let newline = if self.key.ends_with('\n') { "" } else { "\n" };
        format!("{}{newline}{}", self.key, self.chain)
    }
}

/// Conditions of a request are final: one of `Issued`, `Denied`, `Failed` (KEP-4317).
fn answer(status: &PodCertificateRequestStatus) -> Answer {
    for condition in status.conditions.iter().flatten().filter(|condition| condition.status == "True") {
        match condition.type_.as_str() {
            "Issued" => return Answer::Issued,
            "Denied" | "Failed" => {
                let (kind, reason) = (&condition.type_, &condition.reason);
                return Answer::Refused(format!("{kind}: {reason}: {}", condition.message));
            }
            _ => {}
        }
    }
    Answer::Pending
}

/// Makes a key and asks the signer for its certificate, as the node.
async fn ask(context: &Context, pod: &Pod, source: &PodCertificateProjection) -> anyhow::Result<Asked> {
    let (key, request) = key_and_request(&source.key_type)?;
    let namespace = pod.namespace().unwrap_or_default();
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone());
    let account = account.unwrap_or_else(|| "default".to_owned());
    let accounts: Api<ServiceAccount> = Api::namespaced(context.admin.clone(), &namespace);
    let account_uid =
        accounts.get(&account).await.with_context(|| format!("ServiceAccount `{account}`"))?.uid();
    let (name, uid) = (pod.name_any(), pod.uid().unwrap_or_default());
    let request = PodCertificateRequest {
        metadata: ObjectMeta {
            generate_name: Some(format!("req-{name}-")),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".into(),
                kind: "Pod".into(),
                name: name.clone(),
                uid: uid.clone(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        spec: PodCertificateRequestSpec {
            signer_name: source.signer_name.clone(),
            pod_name: name,
            pod_uid: uid,
            service_account_name: account,
            service_account_uid: account_uid.unwrap_or_default(),
            node_name: NODE_NAME.to_owned(),
            node_uid: context.node_uid.clone(),
            max_expiration_seconds: source.max_expiration_seconds,
            stub_pkc_s10_request: ByteString(request),
            unverified_user_annotations: source.user_annotations.clone(),
            ..PodCertificateRequestSpec::default()
        },
        status: None,
    };
    let requests: Api<PodCertificateRequest> = Api::namespaced(context.node.clone(), &namespace);
    let made =
        requests.create(&PostParams::default(), &request).await.context("PodCertificateRequest refused")?;
    Ok(Asked { name: made.name_any(), key, at: Instant::now() })
}

/// A new key (PKCS #8, PEM) and a certificate request with nothing but its public half (DER), as kubelets of 1.36 send it.
fn key_and_request(key_type: &str) -> anyhow::Result<(String, Vec<u8>)> {
    let algorithm = match key_type {
        "ECDSAP256" => &rcgen::PKCS_ECDSA_P256_SHA256,
        "ECDSAP384" => &rcgen::PKCS_ECDSA_P384_SHA384,
        "ED25519" => &rcgen::PKCS_ED25519,
        _ => bail!("this node makes no `{key_type}` keys: use `ECDSAP256`, `ECDSAP384` or `ED25519`"),
    };
    let key = KeyPair::generate_for(algorithm)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key)?;
    Ok((key.serialize_pem(), request.der().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_answer(conditions: &[(&str, &str)], expected: &Answer) {
        let conditions: Vec<_> = conditions
            .iter()
            .map(|(kind, status)| {
                serde_json::json!({
                    "type": kind, "status": status, "reason": "Why", "message": "because",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                })
            })
            .collect();
        let status = serde_json::from_value(serde_json::json!({"conditions": conditions})).unwrap();
        assert_eq!(&answer(&status), expected);
    }

    #[test]
    fn answers() {
        check_answer(&[], &Answer::Pending);
        check_answer(&[("Other", "True"), ("Issued", "False")], &Answer::Pending);
        check_answer(&[("Issued", "True")], &Answer::Issued);
        check_answer(&[("Denied", "True")], &Answer::Refused("Denied: Why: because".into()));
        check_answer(&[("Failed", "True")], &Answer::Refused("Failed: Why: because".into()));
    }

    #[test]
    fn keys() {
        for (key_type, label) in [("ECDSAP256", "EC"), ("ECDSAP384", "EC"), ("ED25519", "ED25519")] {
            let (key, request) = key_and_request(key_type).unwrap();
            assert!(key.starts_with("-----BEGIN PRIVATE KEY-----"), "{label}");
            let again = rcgen::CertificateSigningRequestParams::from_der(&request.into()).unwrap();
            assert_eq!(
                rcgen::PublicKeyData::der_bytes(&again.public_key),
                rcgen::PublicKeyData::der_bytes(&KeyPair::from_pem(&key).unwrap())
            );
            assert!(again.params.subject_alt_names.is_empty());
            assert_eq!(again.params.distinguished_name.iter().count(), 0);
        }
        assert!(key_and_request("RSA4096").is_err());
    }

    #[test]
    fn a_bundle_is_key_then_chain() {
        let time = Timestamp::UNIX_EPOCH;
        let issued = |key: &str| Issued {
            key: key.into(),
            chain: "CHAIN\n".into(),
            begin_refresh_at: time,
            not_after: time,
        };
        assert_eq!(issued("KEY\n").bundle(), "KEY\nCHAIN\n");
        assert_eq!(issued("KEY").bundle(), "KEY\nCHAIN\n");
    }
}
