//! Services, XBackends and the TLS to them: what a reference leads to.
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use k8s_openapi::api::{core::v1::ServicePort, discovery::v1::EndpointSlice};
use policy_model::{AgenticGroup, BackendAddress, NamespacedName, XBackend};

use super::{
    backend_tls::{Closed, TlsPolicies},
    tls::RefError,
};
use crate::{
    Backend, BackendId, BackendKind, Condition, Destination, Endpoint, ObjectRef, ObjectStatus, Objects,
    Scope, UpstreamTls,
};

pub(crate) const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// Why a backend cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unusable {
    /// The reference does not resolve: `ResolvedRefs=False` of what refers to it.
    Reference(RefError),
    /// It resolves, but a BackendTLSPolicy that cannot be enforced keeps requests from it; the policy's status says why.
    Tls,
}

/// All backends, resolved when asked for.
pub(super) struct Backends<'a> {
    objects: &'a Objects,
    slices: BTreeMap<NamespacedName, Vec<&'a EndpointSlice>>,
    x_backends: BTreeMap<&'a NamespacedName, Result<&'a XBackend, RefError>>,
    tls: TlsPolicies<'a>,
    resolved: RefCell<BTreeMap<BackendId, Result<Backend, Unusable>>>,
}

impl<'a> Backends<'a> {
    pub(super) fn new(objects: &'a Objects, tls: TlsPolicies<'a>) -> Self {
        let mut slices: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (name, entry) in &objects.slices {
            if let (Ok(slice), Some(service)) = (&entry.spec, entry.meta.labels.get(SERVICE_NAME_LABEL)) {
                slices.entry(NamespacedName::new(&name.namespace, service)).or_default().push(slice);
            }
        }
        let names: BTreeSet<_> = objects.backends.keys().map(|(name, _)| name).collect();
        let x_backends = names.into_iter().map(|name| (name, x_backend(objects, name))).collect();
        Self { objects, slices, x_backends, tls, resolved: RefCell::default() }
    }

    pub(super) fn tls(&self) -> &TlsPolicies<'a> {
        &self.tls
    }

    /// Whether there is an XBackend of that name, usable or not.
    pub(super) fn has_x_backend(&self, name: &NamespacedName) -> bool {
        self.x_backends.contains_key(name)
    }

    /// What a reference leads to.
    pub(super) fn backend(&self, id: &BackendId) -> Result<Backend, Unusable> {
        if let Some(known) = self.resolved.borrow().get(id) {
            return known.clone();
        }
        let backend = match id {
            BackendId::Service(name, port) => self.service_backend(name, *port),
            BackendId::XBackend(name) => self.x_backend(name),
        };
        self.resolved.borrow_mut().insert(id.clone(), backend.clone());
        backend
    }

    /// The Service's port, if it has it.
    pub(super) fn service_port(&self, name: &NamespacedName, port: u16) -> Result<&'a ServicePort, RefError> {
        let not_found = |message: String| RefError::new("BackendNotFound", message);
        let Some(service) = self.objects.services.get(name).and_then(|entry| entry.spec.as_ref().ok()) else {
            return Err(not_found(format!(
                "Service `{name}` does not exist; create it or change the reference"
            )));
        };
        if service.type_.as_deref() == Some("ExternalName") {
            return Err(not_found(format!(
                "Service `{name}` is an ExternalName; use an XBackend with a hostname"
            )));
        }
        let is_tcp = |entry: &ServicePort| entry.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
        let mut ports = service.ports.iter().flatten();
        ports.find(|entry| entry.port == i32::from(port) && is_tcp(entry)).ok_or_else(|| {
            not_found(format!("Service `{name}` has no TCP port {port}; add it or change the reference"))
        })
    }

    /// The ready endpoints of a Service's port: sorted, each once.
    pub(super) fn endpoints(&self, name: &NamespacedName, port: &ServicePort) -> Vec<Endpoint> {
        let port_name = port.name.as_deref().unwrap_or_default();
        let mut endpoints = BTreeSet::new();
        for slice in self.slices.get(name).into_iter().flatten() {
            if !matches!(slice.address_type.as_str(), "IPv4" | "IPv6") {
                continue;
            }
            let numbers: Vec<u16> = slice
                .ports
                .iter()
                .flatten()
                .filter(|entry| entry.name.as_deref().unwrap_or_default() == port_name)
                .filter(|entry| entry.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"))
                .filter_map(|entry| u16::try_from(entry.port?).ok().filter(|port| *port > 0))
                .collect();
            let ready = slice.endpoints.iter().flatten().filter(|endpoint| {
                endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
            });
            for address in ready.flat_map(|endpoint| &endpoint.addresses) {
                let Ok(address) = address.parse::<IpAddr>() else { continue };
                endpoints.extend(numbers.iter().map(|&port| Endpoint { address, port }));
            }
        }
        endpoints.into_iter().collect()
    }

    fn service_backend(&self, name: &NamespacedName, port: u16) -> Result<Backend, Unusable> {
        let entry = self.service_port(name, port).map_err(Unusable::Reference)?;
        let tls = self.tls.for_service(name, entry).map_err(|Closed| Unusable::Tls)?;
        let (endpoints, h2c) = self.reachable(name, entry, tls.as_ref()).map_err(Unusable::Reference)?;
        Ok(Backend {
            id: BackendId::Service(name.clone(), port),
            kind: BackendKind::Service,
            destination: Destination::Endpoints(endpoints),
            tls,
            h2c,
        })
    }

    /// Endpoints, and whether they are spoken to by HTTP/2 with prior knowledge.
    fn reachable(
        &self,
        name: &NamespacedName,
        port: &ServicePort,
        tls: Option<&UpstreamTls>,
    ) -> Result<(Vec<Endpoint>, bool), RefError> {
        let app_protocol = port.app_protocol.as_deref().unwrap_or_default();
        if tls.is_none() && matches!(app_protocol, "https" | "kubernetes.io/wss") {
            let message = format!(
                "Service `{name}` port {} has appProtocol `{app_protocol}` and no BackendTLSPolicy; add one that targets it",
                port.port
            );
            return Err(RefError::new("UnsupportedProtocol", message));
        }
        Ok((self.endpoints(name, port), app_protocol == "kubernetes.io/h2c" && tls.is_none()))
    }

    fn x_backend(&self, name: &NamespacedName) -> Result<Backend, Unusable> {
        let backend = match self.x_backends.get(name) {
            None => {
                let message = format!("XBackend `{name}` does not exist; create it or change the reference");
                return Err(Unusable::Reference(RefError::new("BackendNotFound", message)));
            }
            Some(Err(error)) => return Err(Unusable::Reference(error.clone())),
            Some(Ok(backend)) => *backend,
        };
        let own_tls = self.tls.for_x_backend(name).map_err(|Closed| Unusable::Tls)?;
        let (destination, tls, h2c) = match &backend.address {
            BackendAddress::Hostname(host) => {
                // Always TLS, always verified.
                let tls = own_tls.unwrap_or_else(|| UpstreamTls {
                    server_name: host.clone(),
                    ca_pem: Vec::new(),
                    san_names: Vec::new(),
                    san_uris: Vec::new(),
                });
                (Destination::Hostname { host: host.clone(), port: backend.port }, Some(tls), false)
            }
            BackendAddress::Service(service) => {
                let service = NamespacedName::new(&name.namespace, service);
                let port = self.service_port(&service, backend.port).map_err(Unusable::Reference)?;
                let tls = match own_tls {
                    Some(tls) => Some(tls),
                    None => self.tls.for_service(&service, port).map_err(|Closed| Unusable::Tls)?,
                };
                let (endpoints, h2c) =
                    self.reachable(&service, port, tls.as_ref()).map_err(Unusable::Reference)?;
                (Destination::Endpoints(endpoints), tls, h2c)
            }
        };
        Ok(Backend {
            id: BackendId::XBackend(name.clone()),
            kind: BackendKind::XBackend { path: backend.path.clone() },
            destination,
            tls,
            h2c,
        })
    }

    /// Notes that a Gateway reaches a backend: its TLS policies have that Gateway as an ancestor.
    pub(super) fn used(&self, id: &BackendId, gateway: &NamespacedName) {
        let service = match id {
            BackendId::Service(name, port) => Some((name.clone(), *port)),
            BackendId::XBackend(name) => {
                self.tls.use_x_backend(name, gateway);
                match self.x_backends.get(name) {
                    Some(Ok(XBackend { address: BackendAddress::Service(service), port, .. })) => {
                        Some((NamespacedName::new(&name.namespace, service), *port))
                    }
                    _ => None,
                }
            }
        };
        if let Some((name, port)) = service
            && let Ok(port) = self.service_port(&name, port)
        {
            self.tls.use_service(&name, port, gateway);
        }
    }

    /// The statuses of all XBackends.
    pub(super) fn statuses(&self, statuses: &mut Vec<ObjectStatus>) {
        for ((name, group), entry) in &self.objects.backends {
            let conditions = match (&entry.spec, self.x_backends.get(name)) {
                (Err(unreadable), _) => {
                    vec![Condition::no(
                        "Accepted",
                        "Invalid",
                        format!("cannot be read: {}", unreadable.message),
                    )]
                }
                (Ok(_), Some(Err(error))) => vec![Condition::no("Accepted", error.reason, &error.message)],
                (Ok(_), _) => {
                    let resolved = match self.backend(&BackendId::XBackend(name.clone())) {
                        Err(Unusable::Reference(error)) => {
                            Condition::no("ResolvedRefs", error.reason, error.message)
                        }
                        Ok(_) | Err(Unusable::Tls) => {
                            Condition::yes("ResolvedRefs", "ResolvedRefs", "all references resolve")
                        }
                    };
                    vec![Condition::yes("Accepted", "Accepted", "the backend is accepted"), resolved]
                }
            };
            let object = ObjectRef::new(group.name(), "XBackend", name);
            statuses.push(ObjectStatus::new(object, Scope::Object, entry.meta.generation, conditions));
        }
    }
}

/// The XBackend of that name: of the groups that have one, if they agree.
fn x_backend<'a>(objects: &'a Objects, name: &NamespacedName) -> Result<&'a XBackend, RefError> {
    let mut found: Option<&XBackend> = None;
    for group in [AgenticGroup::Networking, AgenticGroup::Prototype] {
        let Some(entry) = objects.backends.get(&(name.clone(), group)) else { continue };
        match (&entry.spec, found) {
            (Err(unreadable), _) => {
                let message = format!("XBackend `{name}` cannot be read: {}", unreadable.message);
                return Err(RefError::new("BackendNotFound", message));
            }
            (Ok(backend), Some(other))
                if (&backend.address, backend.port, &backend.path)
                    != (&other.address, other.port, &other.path) =>
            {
                let message = format!(
                    "XBackend `{name}` exists in both `{}` and `{}` and they differ; make them equal or delete one",
                    AgenticGroup::Networking.name(),
                    AgenticGroup::Prototype.name(),
                );
                return Err(RefError::new("Conflicted", message));
            }
            (Ok(backend), _) => found = Some(backend),
        }
    }
    found.ok_or_else(|| {
        RefError::new("BackendNotFound", format!("XBackend `{name}` does not exist; create it"))
    })
}
