//! TLS of listeners and of connections to backends, and the secrets that they name.
use std::net::IpAddr;

use serde_json::{Value, json};

use super::{
    Policy, Resource, ResourceKind, Settings,
    json::{extension, inline, set},
};
use crate::{ClientCertificates, Listener, ListenerTls, UpstreamTls};

/// Name of the secret with the proxy's own certificate. Other secrets have a `/` in their names.
const OWN: &str = "own";

/// A listener's `DownstreamTlsContext` as a transport socket, with the secrets that it names.
///
/// # Errors
/// Why it cannot be served as it is meant, and what to do.
pub(super) fn downstream(
    listener: &Listener,
    tls: &ListenerTls,
    settings: &Settings,
) -> Result<(Value, Vec<Resource>), String> {
    let secrets = if tls.certificates.is_empty() {
        vec![own_secret(settings).ok_or(
            "it has no certificateRefs and so serves with the proxy's own SPIFFE certificate, of which nothing is \
             known; say where it is (`--identity-dir`)",
        )?]
    } else {
        let numbered = tls.certificates.iter().enumerate();
        numbered
            .map(|(index, pair)| {
                let name = format!("certificate/{}/{index}", listener.name);
                let certificate = json!({
                    "certificate_chain": inline([pair.certificate_pem.as_slice()]),
                    "private_key": inline([pair.key_pem.as_slice()]),
                });
                secret(name, certificate)
            })
            .collect()
    };
    let names: Vec<_> = secrets.iter().map(|secret| by_name(&secret.name)).collect();
    let (required, validation) = match &tls.clients {
        ClientCertificates::SpiffeRequired => (true, spiffe(settings)?),
        ClientCertificates::SpiffeOptional => (false, asked_for(settings)?),
        ClientCertificates::Frontend { ca_pem, insecure_fallback } => {
            let mut validation = json!({"trusted_ca": inline(ca_pem.iter().map(Vec::as_slice))});
            if *insecure_fallback {
                set(&mut validation, "trust_chain_verification", json!("ACCEPT_UNTRUSTED"));
            }
            (!insecure_fallback, validation)
        }
    };
    let context = json!({
        "require_client_certificate": required,
        // A resumed session would carry an identity that was verified under older bundles.
        "disable_stateless_session_resumption": true,
        "disable_stateful_session_resumption": true,
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_certificate_sds_secret_configs": names,
            "validation_context": validation,
        },
    });
    let message = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
    Ok((extension("envoy.transport_sockets.tls", message, context), secrets))
}

/// Where a client may do without a certificate. Envoy's SPIFFE validator wants one of everybody, so that Envoy takes any, and
/// none, and the processor verifies what was shown. Whose key it is the handshake proves in either case.
fn asked_for(settings: &Settings) -> Result<Value, String> {
    match settings.policy {
        Policy::Engine(_) => Ok(json!({"trust_chain_verification": "ACCEPT_UNTRUSTED"})),
        Policy::Filters(_) => spiffe(settings),
    }
}

/// What verifies SPIFFE IDs, each by the roots of its own trust domain.
fn spiffe(settings: &Settings) -> Result<Value, String> {
    if settings.bundles.is_empty() {
        return Err("there is no trust bundle to verify clients with; add one (`--trust-bundle`)".to_owned());
    }
    Ok(json!({"custom_validator_config": spiffe_validator(settings)}))
}

fn spiffe_validator(settings: &Settings) -> Value {
    let domains: Vec<_> = settings
        .bundles
        .iter()
        .map(|(domain, pem)| json!({"name": domain, "trust_bundle": inline([pem.as_bytes()])}))
        .collect();
    extension(
        "envoy.tls.cert_validator.spiffe",
        "envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig",
        json!({"trust_domains": domains}),
    )
}

/// TLS to a backend as a transport socket: the chain and a name are always verified.
pub(super) fn upstream(tls: &UpstreamTls, settings: &Settings) -> Value {
    let trusted_ca = if !tls.ca_pem.is_empty() {
        inline(tls.ca_pem.iter().map(Vec::as_slice))
    } else if settings.extra_roots.is_empty() {
        json!({"filename": settings.system_roots})
    } else {
        inline([settings.extra_roots.as_bytes()])
    };
    let mut names: Vec<_> = tls.san_names.iter().map(|name| subject(name)).collect();
    names.extend(tls.san_uris.iter().map(|uri| uri_subject(uri)));
    if names.is_empty() {
        names.push(subject(&tls.server_name));
    }
    let mut context = json!({
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
            "validation_context": {"trusted_ca": trusted_ca, "match_typed_subject_alt_names": names},
        },
    });
    // There is no SNI for an address (RFC 6066, section 3).
    if tls.server_name.parse::<IpAddr>().is_err() {
        set(&mut context, "sni", json!(tls.server_name));
    }
    upstream_socket(context)
}

/// Mutual TLS to the processor, which must have this SPIFFE ID; with the secret that is named.
///
/// # Errors
/// What is missing.
pub(super) fn processor(id: &str, settings: &Settings) -> Result<(Value, Resource), String> {
    let own = own_secret(settings).ok_or(
        "the processor is reached over mTLS, and nothing is known of the proxy's own certificate; say where it is \
         (`--identity-dir`)",
    )?;
    let mut validation = spiffe(settings)?;
    set(&mut validation, "match_typed_subject_alt_names", json!([uri_subject(id)]));
    let context = json!({
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
            "alpn_protocols": ["h2"],
            "tls_certificate_sds_secret_configs": [by_name(&own.name)],
            "validation_context": validation,
        },
    });
    Ok((upstream_socket(context), own))
}

fn upstream_socket(context: Value) -> Value {
    let message = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
    extension("envoy.transport_sockets.tls", message, context)
}

/// A name that the certificate must hold. An exact DNS matcher takes a certificate's wildcard as TLS clients do.
fn subject(name: &str) -> Value {
    let kind = if name.parse::<IpAddr>().is_ok() { "IP_ADDRESS" } else { "DNS" };
    json!({"san_type": kind, "matcher": {"exact": name}})
}

fn uri_subject(uri: &str) -> Value {
    json!({"san_type": "URI", "matcher": {"exact": uri}})
}

fn own_secret(settings: &Settings) -> Option<Resource> {
    let own = settings.own.as_ref()?;
    let mut certificate = json!({
        "certificate_chain": {"filename": own.chain},
        "private_key": {"filename": own.key},
    });
    if let Some(watched) = &own.watched {
        set(&mut certificate, "watched_directory", json!({"path": watched}));
    }
    Some(secret(OWN.to_owned(), certificate))
}

fn secret(name: String, certificate: Value) -> Resource {
    let json = json!({"name": name, "tls_certificate": certificate});
    Resource::new(ResourceKind::Secret, name, json)
}

/// A secret as a listener or cluster names it.
fn by_name(name: &str) -> Value {
    json!({"name": name, "sds_config": super::cluster::from_ads()})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_verified_as_such() {
        assert_eq!(subject("10.0.0.1")["san_type"], "IP_ADDRESS");
        assert_eq!(subject("::1")["san_type"], "IP_ADDRESS");
        assert_eq!(subject("mcp.example.com")["san_type"], "DNS");
    }
}
