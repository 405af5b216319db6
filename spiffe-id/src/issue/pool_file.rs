//! The file form of a CA pool, and what makes a CA of it.
use std::time::{Duration, SystemTime};

use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{CertificateParams, Issuer, KeyPair, PublicKeyData};
use rustls_pki_types::CertificateDer;
use serde::Deserialize;
use serde_json::json;

use super::{
    Ca, IssueError,
    error::{CaFault, Kind},
};
use crate::x509::Certificate;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PoolFile {
    #[serde(alias = "CAs")]
    cas: Vec<CaFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaFile {
    #[serde(alias = "ID")]
    id: String,
    #[serde(rename = "signingKeyPKCS8", alias = "SigningKeyPKCS8")]
    signing_key: String,
    #[serde(rename = "rootCertificateDER", alias = "RootCertificateDER")]
    root: String,
    #[serde(rename = "intermediateCertificatesDER", alias = "IntermediateCertificatesDER", default)]
    intermediates: Option<Vec<String>>,
}

pub(super) fn read(json: &[u8]) -> Result<Vec<Ca>, IssueError> {
    let file: PoolFile = serde_json::from_slice(json).map_err(|error| Kind::Json(json_fault(&error)))?;
    file.cas
        .into_iter()
        .map(|ca| {
            let id = ca.id.clone();
            read_ca(ca).map_err(|fault| Kind::Ca(id, fault).into())
        })
        .collect()
}

/// Where the JSON is wrong. serde's own text may quote values, and the values here are keys.
fn json_fault(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Data => {
            "a field is missing, unknown, there twice or of the wrong type; a CA has `id`, `signingKeyPKCS8`, \
             `rootCertificateDER` and `intermediateCertificatesDER`"
        }
        _ => "it is not JSON",
    };
    format!("line {}, column {}: {what}", error.line(), error.column())
}

fn read_ca(file: CaFile) -> Result<Ca, CaFault> {
    let decode =
        |field: &'static str, text: &str| STANDARD.decode(text).map_err(|_error| CaFault::Base64(field));
    let key = decode("signingKeyPKCS8", &file.signing_key)?;
    let key = KeyPair::try_from(key).map_err(|_error| CaFault::Key)?;
    let root = decode("rootCertificateDER", &file.root)?;
    let intermediates: Result<Vec<_>, _> = file
        .intermediates
        .unwrap_or_default()
        .iter()
        .map(|text| decode("intermediateCertificatesDER", text).map(CertificateDer::from))
        .collect();
    Ca::new(file.id, key, root.into(), intermediates?)
}

pub(super) fn write<'a>(cas: impl Iterator<Item = &'a Ca>) -> String {
    let cas: Vec<_> = cas
        .map(|ca| {
            let intermediates: Vec<_> = ca.intermediates.iter().map(|der| STANDARD.encode(der)).collect();
            json!({
                "id": ca.id,
                "signingKeyPKCS8": STANDARD.encode(ca.issuer.key().serialized_der()),
                "rootCertificateDER": STANDARD.encode(&ca.root),
                "intermediateCertificatesDER": intermediates,
            })
        })
        .collect();
    json!({ "cas": cas }).to_string()
}

impl Ca {
    pub(super) fn new(
        id: String,
        key: KeyPair,
        root: CertificateDer<'static>,
        intermediates: Vec<CertificateDer<'static>>,
    ) -> Result<Self, CaFault> {
        let parsed_root = read_certificate(None, &root)?;
        let trust_domain = parsed_root.ca_trust_domain().map_err(CaFault::Uri)?;
        let parsed: Vec<Certificate<'_>> = intermediates
            .iter()
            .zip(1..)
            .map(|(der, number)| read_certificate(Some(number), der))
            .collect::<Result<_, _>>()?;
        let path = path_to_root(&key.subject_public_key_info(), &parsed, &parsed_root)?;

        let signing = path.first().and_then(|at| parsed.get(*at)).unwrap_or(&parsed_root);
        let subject = signing.x509.subject().as_raw();
        let end = path
            .iter()
            .filter_map(|at| parsed.get(*at))
            .chain([&parsed_root])
            .map(|certificate| certificate.x509.validity().not_after.timestamp())
            .min()
            .and_then(|end| u64::try_from(end).ok())
            .and_then(|end| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(end)))
            .ok_or(CaFault::Time)?;
        let chain: Vec<CertificateDer<'static>> =
            path.iter().filter_map(|at| intermediates.get(*at)).cloned().collect();
        if !has_writable_name(signing) {
            return Err(CaFault::Name);
        }
        let signing_der = chain.first().unwrap_or(&root);
        let issuer = Issuer::from_ca_cert_der(signing_der, key).map_err(|_error| CaFault::Name)?;
        if !names_itself(&issuer, subject) {
            return Err(CaFault::Name);
        }
        Ok(Self { id, issuer, chain, trust_domain, not_after: end, root, intermediates })
    }
}

fn read_certificate(number: Option<usize>, der: &[u8]) -> Result<Certificate<'_>, CaFault> {
    let certificate =
        Certificate::parse(der).map_err(|error| CaFault::Certificate(number, error.to_string()))?;
    if certificate.may_sign() { Ok(certificate) } else { Err(CaFault::NoCa(number)) }
}

/// Orders the intermediates: first the one whose key signs, last the one that the root signed. Every one of them
/// has its place, and every signature on the way is verified.
fn path_to_root(
    signing_key: &[u8],
    intermediates: &[Certificate<'_>],
    root: &Certificate<'_>,
) -> Result<Vec<usize>, CaFault> {
    let has_key = |certificate: &Certificate<'_>| certificate.x509.public_key().raw == signing_key;
    if intermediates.is_empty() {
        return if has_key(root) { Ok(Vec::new()) } else { Err(CaFault::KeyMismatch) };
    }
    let first = intermediates.iter().position(has_key).ok_or(CaFault::KeyMismatch)?;
    let mut path = vec![first];
    let mut current = intermediates.get(first);
    while let Some(child) = current {
        let next = intermediates
            .iter()
            .enumerate()
            .find(|(at, parent)| !path.contains(at) && has_signed(parent, child));
        current = match next {
            Some((at, parent)) => {
                path.push(at);
                Some(parent)
            }
            None if path.len() == intermediates.len() && has_signed(root, child) => None,
            None => return Err(CaFault::Chain),
        };
    }
    // RFC 5280, section 4.2.1.9: so many intermediates may stand below a certificate.
    let ordered = path.iter().filter_map(|at| intermediates.get(*at)).chain([root]);
    for (certificate, below) in ordered.zip(0_u32..) {
        if certificate.path_len.is_some_and(|limit| below > limit) {
            return Err(CaFault::PathLength);
        }
    }
    Ok(path)
}

fn has_signed(parent: &Certificate<'_>, child: &Certificate<'_>) -> bool {
    parent.x509.subject().as_raw() == child.x509.issuer().as_raw()
        && child.x509.verify_signature(Some(parent.x509.public_key())).is_ok()
}

/// Whether rcgen can write the types of the subject's attributes; it panics where the first two arcs do not come to
/// less than 120 (those of X.500 names do).
fn has_writable_name(certificate: &Certificate<'_>) -> bool {
    let mut attributes = certificate.x509.subject().iter_attributes();
    attributes.all(|attribute| attribute.attr_type().as_bytes().first().is_some_and(|first| *first < 120))
}

/// Whether what this issuer signs will name it as its own certificate does, byte for byte, as verifiers want it:
/// rcgen keeps one attribute of each type and encodes names anew. No attribute at all is fine: roots made by the Go
/// implementation have no subject.
fn names_itself(issuer: &Issuer<'static, KeyPair>, subject: &[u8]) -> bool {
    CertificateParams::default().signed_by(issuer.key(), issuer).is_ok_and(|trial| {
        Certificate::parse(trial.der()).is_ok_and(|trial| trial.x509.issuer().as_raw() == subject)
    })
}
