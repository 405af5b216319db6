//! What the Gateway API's CRDs and an API server check beyond types, for objects that come from files.
//! The messages are those of the CRDs where they have one.
use std::{collections::BTreeSet, net::IpAddr};

use gateway_api::{
    backendtlspolicies::{BackendTlsPolicySpec, BackendTlsPolicyValidationSubjectAltNamesType as SanType},
    gatewayclasses::GatewayClassSpec,
    gateways::{GatewayListeners, GatewayListenersTlsMode, GatewaySpec},
    referencegrants::ReferenceGrantSpec,
};
use k8s_openapi::api::{core::v1::ServiceSpec, discovery::v1::EndpointSlice};
use policy_model::NamespacedName;

use crate::objects::{decode::FieldError, kind::Kind};

mod route;

pub(super) use self::route::route;

/// Collects what is wrong.
type Errors = Vec<FieldError>;

/// Fields of the experimental channel that are read past, with a note in a condition.
pub(super) fn is_experimental_field(path: &str) -> bool {
    let in_rule =
        path.strip_prefix("spec.rules[").and_then(|rest| rest.split_once("].")).map(|(_, field)| field);
    matches!(in_rule, Some("retry" | "sessionPersistence"))
        || matches!(path, "spec.useDefaultGateways" | "spec.defaultScope")
}

/// `^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
fn is_dns_label(text: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|byte| alphanumeric(byte) || *byte == b'-')
}

pub(crate) fn is_dns_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_label)
}

/// A host name, perhaps with a leading `*.`.
pub(crate) fn is_host_pattern(text: &str) -> bool {
    text.len() <= 253 && is_dns_name(text.strip_prefix("*.").unwrap_or(text))
}

pub(super) fn name(name: &NamespacedName, kind: Kind, errors: &mut Errors) {
    let valid = if kind == Kind::Namespace {
        is_dns_label(&name.name) && name.name.len() <= 63
    } else {
        is_dns_name(&name.name)
    };
    if !valid {
        let message = format!("`{}` is no name; use lower case letters, digits and `-`", name.name);
        errors.push(FieldError::new("metadata.name", message));
    }
    if kind.is_namespaced() && !(is_dns_label(&name.namespace) && name.namespace.len() <= 63) {
        let message = format!("`{}` is no namespace; use lower case letters, digits and `-`", name.namespace);
        errors.push(FieldError::new("metadata.namespace", message));
    }
}

fn port(field: String, port: i32, errors: &mut Errors) {
    if !(1..=65535).contains(&port) {
        errors.push(FieldError::new(field, format!("must be 1 to 65535, not `{port}`")));
    }
}

fn count(field: &str, len: usize, min: usize, max: usize, errors: &mut Errors) {
    if len < min {
        errors.push(FieldError::new(field, format!("must have at least {min} items")));
    } else if len > max {
        errors.push(FieldError::new(
            field,
            format!("must have at most {max} items, not {len}; split the object"),
        ));
    }
}

fn length(field: &str, text: &str, min: usize, max: usize, errors: &mut Errors) {
    let len = text.chars().count();
    if len < min {
        errors.push(FieldError::new(field, "must not be empty"));
    } else if len > max {
        errors.push(FieldError::new(field, format!("must have at most {max} characters, not {len}")));
    }
}

pub(super) fn gateway_class(spec: &GatewayClassSpec, errors: &mut Errors) {
    match spec.controller_name.split_once('/') {
        Some((domain, path)) if is_dns_name(domain) && !path.is_empty() => {}
        _ => errors.push(FieldError::new(
            "spec.controllerName",
            format!("`{}` is no domain-prefixed path such as `example.com/controller`", spec.controller_name),
        )),
    }
}

pub(super) fn gateway(spec: &GatewaySpec, errors: &mut Errors) {
    length("spec.gatewayClassName", &spec.gateway_class_name, 1, 253, errors);
    count("spec.listeners", spec.listeners.len(), 1, 64, errors);
    let mut names = BTreeSet::new();
    let mut places = BTreeSet::new();
    for (index, listener) in spec.listeners.iter().enumerate() {
        let at = format!("spec.listeners[{index}]");
        if !names.insert(&listener.name) {
            errors.push(FieldError::new(
                format!("{at}.name"),
                "Listener name must be unique within the Gateway",
            ));
        }
        if !places.insert((listener.port, &listener.protocol, &listener.hostname)) {
            let message = "Combination of port, protocol and hostname must be unique for each listener";
            errors.push(FieldError::new(&at, message));
        }
        gateway_listener(&at, listener, errors);
    }
    let frontend = spec.tls.as_ref().and_then(|tls| tls.frontend.as_ref());
    let mut ports = BTreeSet::new();
    for (index, per_port) in
        frontend.into_iter().flat_map(|frontend| frontend.per_port.iter().flatten()).enumerate()
    {
        let at = format!("spec.tls.frontend.perPort[{index}]");
        port(format!("{at}.port"), per_port.port, errors);
        if !ports.insert(per_port.port) {
            errors.push(FieldError::new(&at, "Port for TLS configuration must be unique within the Gateway"));
        }
        if let Some(validation) = &per_port.tls.validation {
            let at = format!("{at}.tls.validation.caCertificateRefs");
            count(&at, validation.ca_certificate_refs.len(), 1, 8, errors);
        }
    }
    if let Some(validation) = frontend.and_then(|frontend| frontend.default.validation.as_ref()) {
        let at = "spec.tls.frontend.default.validation.caCertificateRefs";
        count(at, validation.ca_certificate_refs.len(), 1, 8, errors);
    }
}

fn gateway_listener(at: &str, listener: &GatewayListeners, errors: &mut Errors) {
    if !is_dns_name(&listener.name) {
        errors.push(FieldError::new(format!("{at}.name"), format!("`{}` is no name", listener.name)));
    }
    port(format!("{at}.port"), listener.port, errors);
    if let Some(hostname) = listener.hostname.as_deref().filter(|hostname| !hostname.is_empty()) {
        if !is_host_pattern(hostname) {
            let message =
                format!("`{hostname}` is no host name; use lower case, perhaps with a leading `*.`");
            errors.push(FieldError::new(format!("{at}.hostname"), message));
        }
        if matches!(listener.protocol.as_str(), "TCP" | "UDP") {
            let message = "hostname must not be specified for protocols ['TCP', 'UDP']";
            errors.push(FieldError::new(format!("{at}.hostname"), message));
        }
    }
    let tls = listener.tls.as_ref();
    match (listener.protocol.as_str(), tls) {
        ("HTTP" | "TCP" | "UDP", Some(_)) => {
            let message = "tls must not be specified for protocols ['HTTP', 'TCP', 'UDP']";
            errors.push(FieldError::new(format!("{at}.tls"), message));
        }
        ("HTTPS", Some(tls)) if tls.mode == Some(GatewayListenersTlsMode::Passthrough) => {
            errors.push(FieldError::new(
                format!("{at}.tls.mode"),
                "tls mode must be Terminate for protocol HTTPS",
            ));
        }
        ("TLS", tls) if tls.is_none_or(|tls| tls.mode.is_none()) => {
            errors.push(FieldError::new(format!("{at}.tls.mode"), "tls mode must be set for protocol TLS"));
        }
        _ => {}
    }
    if let Some(tls) = tls {
        let certificates = tls.certificate_refs.as_ref().map_or(0, Vec::len);
        let options = tls.options.as_ref().map_or(0, std::collections::BTreeMap::len);
        count(&format!("{at}.tls.certificateRefs"), certificates, 0, 64, errors);
        if tls.mode != Some(GatewayListenersTlsMode::Passthrough) && certificates == 0 && options == 0 {
            let message = "certificateRefs or options must be specified when mode is Terminate; \
                leave `tls` out to serve with the gateway's SPIFFE certificate";
            errors.push(FieldError::new(format!("{at}.tls"), message));
        }
    }
    let kinds =
        listener.allowed_routes.as_ref().and_then(|allowed| allowed.kinds.as_ref()).map_or(0, Vec::len);
    count(&format!("{at}.allowedRoutes.kinds"), kinds, 0, 8, errors);
}

pub(super) fn reference_grant(spec: &ReferenceGrantSpec, errors: &mut Errors) {
    count("spec.from", spec.from.len(), 1, 16, errors);
    count("spec.to", spec.to.len(), 1, 16, errors);
}

pub(super) fn backend_tls_policy(spec: &BackendTlsPolicySpec, errors: &mut Errors) {
    count("spec.targetRefs", spec.target_refs.len(), 1, 16, errors);
    let mut seen = BTreeSet::new();
    for (index, target) in spec.target_refs.iter().enumerate() {
        let key =
            (&target.group, &target.kind, &target.name, target.section_name.as_deref().unwrap_or_default());
        if !seen.insert(key) {
            let message =
                "sectionName must be unique when targetRefs includes 2 or more references to the same target";
            errors.push(FieldError::new(format!("spec.targetRefs[{index}]"), message));
        }
    }
    let validation = &spec.validation;
    if !is_dns_name(&validation.hostname) {
        let message = format!(
            "`{}` is no host name; give the name that the server's certificate is for",
            validation.hostname
        );
        errors.push(FieldError::new("spec.validation.hostname", message));
    }
    let references = validation.ca_certificate_refs.as_ref().map_or(0, Vec::len);
    count("spec.validation.caCertificateRefs", references, 0, 8, errors);
    let well_known = validation.well_known_ca_certificates.as_deref().is_some_and(|name| !name.is_empty());
    match (references > 0, well_known) {
        (true, true) => {
            let message = "must not contain both CACertificateRefs and WellKnownCACertificates";
            errors.push(FieldError::new("spec.validation", message));
        }
        (false, false) => {
            let message = "must specify either CACertificateRefs or WellKnownCACertificates";
            errors.push(FieldError::new("spec.validation", message));
        }
        _ => {}
    }
    let names = validation.subject_alt_names.as_deref().unwrap_or_default();
    count("spec.validation.subjectAltNames", names.len(), 0, 5, errors);
    for (index, san) in names.iter().enumerate() {
        let hostname = san.hostname.as_deref().is_some_and(|name| !name.is_empty());
        let uri = san.uri.as_deref().is_some_and(|uri| !uri.is_empty());
        let message = match (&san.r#type, hostname, uri) {
            (SanType::Hostname, false, _) => {
                "SubjectAltName element must contain Hostname, if Type is set to Hostname"
            }
            (SanType::Hostname, true, true) => {
                "SubjectAltName element must not contain URI, if Type is not set to URI"
            }
            (SanType::Uri, _, false) => "SubjectAltName element must contain URI, if Type is set to URI",
            (SanType::Uri, true, true) => {
                "SubjectAltName element must not contain Hostname, if Type is not set to Hostname"
            }
            _ => continue,
        };
        errors.push(FieldError::new(format!("spec.validation.subjectAltNames[{index}]"), message));
    }
}

pub(super) fn service(spec: &ServiceSpec, errors: &mut Errors) {
    let ports = spec.ports.as_deref().unwrap_or_default();
    let mut names = BTreeSet::new();
    let mut numbers = BTreeSet::new();
    for (index, entry) in ports.iter().enumerate() {
        let at = format!("spec.ports[{index}]");
        port(format!("{at}.port"), entry.port, errors);
        let name = entry.name.as_deref().unwrap_or_default();
        if ports.len() > 1 && name.is_empty() {
            errors.push(FieldError::new(
                format!("{at}.name"),
                "is missing; a Service with several ports names each",
            ));
        } else if !names.insert(name) {
            errors.push(FieldError::new(
                format!("{at}.name"),
                format!("`{name}` is given twice; use another name"),
            ));
        }
        if !numbers.insert((entry.port, entry.protocol.as_deref().unwrap_or("TCP"))) {
            errors.push(FieldError::new(
                format!("{at}.port"),
                format!("`{}` is given twice; remove one", entry.port),
            ));
        }
    }
}

pub(super) fn endpoint_slice(slice: &EndpointSlice, errors: &mut Errors) {
    if !matches!(slice.address_type.as_str(), "IPv4" | "IPv6" | "FQDN") {
        let message = format!("unsupported value `{}`; use `IPv4` or `IPv6`", slice.address_type);
        errors.push(FieldError::new("addressType", message));
    }
    for (index, entry) in slice.ports.iter().flatten().enumerate() {
        if let Some(number) = entry.port {
            port(format!("ports[{index}].port"), number, errors);
        }
    }
    for (index, endpoint) in slice.endpoints.iter().flatten().enumerate() {
        if endpoint.addresses.is_empty() {
            errors
                .push(FieldError::new(format!("endpoints[{index}].addresses"), "must have at least 1 items"));
        }
        for (position, address) in endpoint.addresses.iter().enumerate() {
            let valid = match (slice.address_type.as_str(), address.parse()) {
                ("IPv4", Ok(IpAddr::V4(_))) | ("IPv6", Ok(IpAddr::V6(_))) => true,
                ("IPv4" | "IPv6", _) => false,
                _ => is_dns_name(address),
            };
            if !valid {
                errors.push(FieldError::new(
                    format!("endpoints[{index}].addresses[{position}]"),
                    format!("`{address}` is no {} address", slice.address_type),
                ));
            }
        }
    }
}
