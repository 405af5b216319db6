//! `podCertificate` sources of projected volumes: a key, a PodCertificateRequest, and what the signer answers (KEP-4317).
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
    jiff::{SignedDuration, Timestamp},
};
use kube::{Api, ResourceExt as _, api::PostParams, runtime::reflector::ObjectRef};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use super::{
    NODE_NAME,
    context::{Context, now},
};

/// A request that is not seen for so long is made again: it was removed (they live for 15 minutes).
const LOST: SignedDuration = SignedDuration::from_secs(5);

/// One source and how far it is.
#[derive(Debug, Default)]
pub(super) struct Credential {
    issued: Option<Issued>,
    asked: Option<Asked>,
    /// What the signer said in the end. As a kubelet takes it: the signer is not asked again for this Pod.
    refused: Option<String>,
}

/// What goes into the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    at: Timestamp,
}

/// What a signer answered.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Pending,
    Issued,
    Refused(String),
}

impl Credential {
    /// Goes on: asks if there is nothing to ask for or it is time to renew, takes an answer if there is one. The credentials
    /// to be used now; an error while there are none says what is waited for.
    pub(super) async fn advance(
        &mut self,
        context: &Context,
        pod: &Pod,
        source: &PodCertificateProjection,
    ) -> anyhow::Result<&Issued> {
        let namespace = pod.namespace().unwrap_or_default();
        let request = self
            .asked
            .as_ref()
            .and_then(|asked| context.requests.get(&ObjectRef::new(&asked.name).within(&namespace)));
        self.take(request.as_deref(), now())?;
        if self.is_to_ask(now()) {
            self.asked = Some(ask(context, pod, source).await?);
        }
        self.current(&source.signer_name, now())
    }

    /// Looks at the request that was made, if there is one.
    fn take(&mut self, request: Option<&PodCertificateRequest>, now: Timestamp) -> anyhow::Result<()> {
        let Some(asked) = &self.asked else { return Ok(()) };
        let Some(request) = request else {
            if now.duration_since(asked.at) > LOST {
                self.asked = None;
            }
            return Ok(());
        };
        let status = request.status.clone().unwrap_or_default();
        match answer(&status) {
            Answer::Pending => {}
            Answer::Refused(why) => {
                self.refused = Some(format!("PodCertificateRequest `{}`: {why}", asked.name));
                self.asked = None;
            }
            Answer::Issued => {
                let key = asked.key.clone();
                self.asked = None;
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

    fn is_to_ask(&self, now: Timestamp) -> bool {
        let due = self.issued.as_ref().is_none_or(|issued| issued.begin_refresh_at <= now);
        due && self.asked.is_none() && self.refused.is_none()
    }

    /// What there is stays in use until it expires, whatever became of its renewal.
    fn current(&self, signer: &str, now: Timestamp) -> anyhow::Result<&Issued> {
        match (&self.issued, &self.refused, &self.asked) {
            (Some(issued), _, _) if issued.not_after > now => Ok(issued),
            (_, Some(refused), _) => bail!("{refused}"),
            (_, _, Some(asked)) => {
                bail!("PodCertificateRequest `{}` waits for signer `{signer}`", asked.name)
            }
            _ => bail!("no certificate of signer `{signer}` yet"),
        }
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
    Ok(Asked { name: made.name_any(), key, at: now() })
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

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(minute * 60).unwrap()
    }

    fn asked(name: &str, minute: i64) -> Option<Asked> {
        Some(Asked { name: name.into(), key: format!("key of {name}"), at: at(minute) })
    }

    /// `+10-60`: issued, to be renewed from minute 10, good until minute 60.
    fn request(answer: &str) -> PodCertificateRequest {
        let condition = |kind: &str| {
            serde_json::json!([{
                "type": kind, "status": "True", "reason": "R", "message": "m",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }])
        };
        let status = match answer.strip_prefix('+').and_then(|times| times.split_once('-')) {
            Some((refresh, end)) => serde_json::json!({
                "conditions": condition("Issued"), "certificateChain": "chain",
                "beginRefreshAt": at(refresh.parse().unwrap()), "notAfter": at(end.parse().unwrap()),
            }),
            None if answer.is_empty() => serde_json::json!({}),
            None => serde_json::json!({"conditions": condition(answer)}),
        };
        let mut request: PodCertificateRequest = serde_json::from_value(serde_json::json!({
            "metadata": {},
            "spec": {
                "signerName": "s", "podName": "", "podUID": "", "serviceAccountName": "",
                "serviceAccountUID": "", "nodeName": "", "nodeUID": "", "stubPKCS10Request": "",
            },
        }))
        .unwrap();
        request.status = serde_json::from_value(status).unwrap();
        request
    }

    #[track_caller]
    fn check_step(credential: &mut Credential, answer: Option<&str>, minute: i64, expected: (bool, &str)) {
        credential.take(answer.map(request).as_ref(), at(minute)).unwrap();
        let current = match credential.current("s", at(minute)) {
            Ok(issued) => issued.key.clone(),
            Err(error) => error.to_string(),
        };
        assert_eq!((credential.is_to_ask(at(minute)), current.as_str()), expected);
    }

    #[test]
    fn renewal() {
        let mut credential = Credential::default();
        check_step(&mut credential, None, 0, (true, "no certificate of signer `s` yet"));
        credential.asked = asked("a", 0);
        let waits = "PodCertificateRequest `a` waits for signer `s`";
        check_step(&mut credential, None, 0, (false, waits));
        check_step(&mut credential, Some(""), 1, (false, waits));
        check_step(&mut credential, Some("+10-60"), 2, (false, "key of a"));
        check_step(&mut credential, None, 9, (false, "key of a"));
        check_step(&mut credential, None, 10, (true, "key of a"));
        credential.asked = asked("b", 10);
        check_step(&mut credential, Some(""), 11, (false, "key of a"));
        check_step(&mut credential, Some("+20-70"), 12, (false, "key of b"));
        credential.asked = asked("c", 20);
        check_step(&mut credential, Some("Failed"), 21, (false, "key of b"));
        check_step(&mut credential, None, 70, (false, "PodCertificateRequest `c`: Failed: R: m"));
    }

    #[test]
    fn refusals_are_final_and_what_is_lost_is_asked_for_again() {
        let mut credential = Credential { asked: asked("a", 0), ..Credential::default() };
        check_step(&mut credential, None, 1, (true, "no certificate of signer `s` yet"));
        credential.asked = asked("b", 1);
        check_step(&mut credential, Some("Denied"), 1, (false, "PodCertificateRequest `b`: Denied: R: m"));
        check_step(&mut credential, None, 99, (false, "PodCertificateRequest `b`: Denied: R: m"));
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
