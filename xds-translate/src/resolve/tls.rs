//! Certificates and CA certificates: of listeners, of clients, of backends.
use gateway_api::gateways::{GatewayListeners, GatewaySpec};
use policy_model::NamespacedName;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::grant::{From, Grants, To};
use crate::{CertificateAndKey, ClientCertificates, ListenerTls, Objects, objects::Data};

/// A reference that does not resolve: a condition's reason, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RefError {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl RefError {
    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// How a listener does TLS, or why it cannot; and what is wrong even where it can.
pub(super) struct TlsOutcome {
    /// `None`: not at all.
    pub(super) tls: Option<ListenerTls>,
    /// `ResolvedRefs=False`.
    pub(super) refs: Option<RefError>,
    /// `Accepted=False`.
    pub(super) accepted: Option<RefError>,
}

/// The TLS of an HTTPS listener.
pub(super) fn listener_tls(
    objects: &Objects,
    grants: &Grants<'_>,
    namespace: &str,
    gateway: &GatewaySpec,
    listener: &GatewayListeners,
) -> TlsOutcome {
    let references = listener.tls.iter().flat_map(|tls| tls.certificate_refs.iter().flatten());
    let mut certificates = Vec::new();
    let mut refs = None;
    let mut wanted = false;
    for reference in references {
        wanted = true;
        let group = reference.group.as_deref().unwrap_or_default();
        let kind = reference.kind.as_deref().unwrap_or("Secret");
        let name = NamespacedName::new(reference.namespace.as_deref().unwrap_or(namespace), &reference.name);
        match certificate(objects, grants, namespace, group, kind, &name) {
            Ok(certificate) => certificates.push(certificate),
            Err(error) => refs = refs.or(Some(error)),
        }
    }
    let mut accepted = None;
    let clients = match frontend(gateway, listener.port) {
        None if wanted => Some(ClientCertificates::SpiffeOptional),
        None => Some(ClientCertificates::SpiffeRequired),
        Some(Frontend { references, insecure_fallback }) => {
            let (ca_pem, error) = frontend_cas(objects, grants, namespace, &references);
            refs = refs.or(error);
            if ca_pem.is_empty() {
                accepted = Some(RefError::new(
                    "NoValidCACertificate",
                    "no caCertificateRef of spec.tls.frontend resolves; clients cannot be verified",
                ));
                None
            } else {
                Some(ClientCertificates::Frontend { ca_pem, insecure_fallback })
            }
        }
    };
    let tls = match clients {
        // Never another certificate than those that were asked for.
        Some(clients) if !wanted || !certificates.is_empty() => Some(ListenerTls { certificates, clients }),
        _ => None,
    };
    TlsOutcome { tls, refs, accepted }
}

fn certificate(
    objects: &Objects,
    grants: &Grants<'_>,
    namespace: &str,
    group: &str,
    kind: &str,
    name: &NamespacedName,
) -> Result<CertificateAndKey, RefError> {
    let invalid = |message: String| RefError::new("InvalidCertificateRef", message);
    if !group.is_empty() || kind != "Secret" {
        return Err(invalid(format!("certificateRefs must name a Secret, not `{kind}`")));
    }
    grants
        .permits(From::GATEWAY, namespace, To::SECRET, name)
        .map_err(|message| RefError::new("RefNotPermitted", message))?;
    let Some(Data(data)) = objects.secrets.get(name).and_then(|entry| entry.spec.as_ref().ok()) else {
        return Err(invalid(format!("Secret `{name}` does not exist; create it with tls.crt and tls.key")));
    };
    let (Some(certificate_pem), Some(key_pem)) = (data.get("tls.crt"), data.get("tls.key")) else {
        return Err(invalid(format!("Secret `{name}` has no tls.crt and tls.key; add them")));
    };
    if !holds_certificates(certificate_pem) {
        return Err(invalid(format!("tls.crt of Secret `{name}` holds no PEM certificate; mend it")));
    }
    if PrivateKeyDer::from_pem_slice(key_pem).is_err() {
        return Err(invalid(format!("tls.key of Secret `{name}` holds no PEM private key; mend it")));
    }
    Ok(CertificateAndKey { certificate_pem: certificate_pem.clone(), key_pem: key_pem.clone() })
}

/// Whether a PEM text holds at least one certificate, and nothing that only looks like one.
fn holds_certificates(pem: &[u8]) -> bool {
    let mut found = false;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let valid = certificate
            .is_ok_and(|der| X509Certificate::from_der(&der).is_ok_and(|(rest, _)| rest.is_empty()));
        if !valid {
            return false;
        }
        found = true;
    }
    found
}

/// `ca.crt` of a ConfigMap.
pub(super) fn ca_of_config_map(objects: &Objects, name: &NamespacedName) -> Result<Vec<u8>, RefError> {
    let invalid = |message: String| RefError::new("InvalidCACertificateRef", message);
    let Some(Data(data)) = objects.config_maps.get(name).and_then(|entry| entry.spec.as_ref().ok()) else {
        return Err(invalid(format!("ConfigMap `{name}` does not exist; create it with the key ca.crt")));
    };
    let Some(pem) = data.get("ca.crt") else {
        return Err(invalid(format!("ConfigMap `{name}` has no key ca.crt; add it")));
    };
    if !holds_certificates(pem) {
        return Err(invalid(format!("ca.crt of ConfigMap `{name}` holds no PEM certificate; mend it")));
    }
    Ok(pem.clone())
}

/// Frontend validation as it holds for one port.
pub(super) struct Frontend<'a> {
    pub(super) references: Vec<CaReference<'a>>,
    insecure_fallback: bool,
}

pub(super) struct CaReference<'a> {
    pub(super) group: &'a str,
    pub(super) kind: &'a str,
    pub(super) namespace: Option<&'a str>,
    pub(super) name: &'a str,
}

/// The frontend validation of a port: that of `perPort` replaces the default, even where it has none.
pub(super) fn frontend(gateway: &GatewaySpec, port: i32) -> Option<Frontend<'_>> {
    use gateway_api::gateways::{
        GatewayTlsFrontendDefaultValidationMode as DefaultMode,
        GatewayTlsFrontendPerPortTlsValidationMode as PortMode,
    };
    let frontend = gateway.tls.as_ref()?.frontend.as_ref()?;
    if let Some(per_port) = frontend.per_port.iter().flatten().find(|per_port| per_port.port == port) {
        let validation = per_port.tls.validation.as_ref()?;
        let references = validation.ca_certificate_refs.iter().map(|reference| CaReference {
            group: &reference.group,
            kind: &reference.kind,
            namespace: reference.namespace.as_deref(),
            name: &reference.name,
        });
        let insecure_fallback = validation.mode == Some(PortMode::AllowInsecureFallback);
        return Some(Frontend { references: references.collect(), insecure_fallback });
    }
    let validation = frontend.default.validation.as_ref()?;
    let references = validation.ca_certificate_refs.iter().map(|reference| CaReference {
        group: &reference.group,
        kind: &reference.kind,
        namespace: reference.namespace.as_deref(),
        name: &reference.name,
    });
    let insecure_fallback = validation.mode == Some(DefaultMode::AllowInsecureFallback);
    Some(Frontend { references: references.collect(), insecure_fallback })
}

fn frontend_cas(
    objects: &Objects,
    grants: &Grants<'_>,
    namespace: &str,
    references: &[CaReference<'_>],
) -> (Vec<Vec<u8>>, Option<RefError>) {
    let mut found = Vec::new();
    let mut error = None;
    for reference in references {
        let name = NamespacedName::new(reference.namespace.unwrap_or(namespace), reference.name);
        let ca = if !reference.group.is_empty() || reference.kind != "ConfigMap" {
            let message = format!("caCertificateRefs must name a ConfigMap, not `{}`", reference.kind);
            Err(RefError::new("InvalidCACertificateKind", message))
        } else {
            grants
                .permits(From::GATEWAY, namespace, To::CONFIG_MAP, &name)
                .map_err(|message| RefError::new("RefNotPermitted", message))
                .and_then(|()| ca_of_config_map(objects, &name))
        };
        match ca {
            Ok(ca) => found.push(ca),
            Err(first) => error = error.or(Some(first)),
        }
    }
    (found, error)
}
