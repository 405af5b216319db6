//! Which objects the snapshot of one Gateway depends on: the references that the resolution follows, followed.
use std::collections::{BTreeMap, BTreeSet};

use policy_model::{
    AgenticGroup, BackendAddress, ExternalAuth, NamespacedName, PolicyKey, TargetKind as PolicyTarget,
};

use super::{
    Options,
    backend::SERVICE_NAME_LABEL,
    backend_tls::{self, TargetKind as TlsTarget},
    gateway::{self, GatewayState},
    grant::{AGENTIC_GROUPS, From, Grants, To},
    policy, route, tls,
};
use crate::{
    ObjectRef, Objects,
    objects::{GATEWAY_GROUP, kind::DISCOVERY_GROUP},
};

const GROUPS: [AgenticGroup; 2] = [AgenticGroup::Networking, AgenticGroup::Prototype];

/// Objects, indexed by what refers to them: made once for all Gateways, in time linear in the objects.
#[derive(Debug)]
pub struct Selector<'a> {
    objects: &'a Objects,
    classes: BTreeSet<&'a str>,
    grants: Grants<'a>,
    /// Routes by the Gateway that a parentRef names.
    routes: BTreeMap<NamespacedName, Vec<&'a NamespacedName>>,
    policies: Claims<'a, PolicyTarget, PolicyKey>,
    tls_policies: Claims<'a, TlsTarget, NamespacedName>,
    /// EndpointSlices by Service.
    slices: BTreeMap<NamespacedName, Vec<&'a NamespacedName>>,
}

/// Policies by what they target.
#[derive(Debug)]
struct Claims<'a, T, K> {
    on: BTreeMap<(T, NamespacedName), Vec<&'a K>>,
    /// Those without a target that can be read: each is about all of its namespace.
    on_namespace: BTreeMap<&'a str, Vec<&'a K>>,
}

impl<'a, T: Ord, K> Claims<'a, T, K> {
    fn new() -> Self {
        Self { on: BTreeMap::new(), on_namespace: BTreeMap::new() }
    }

    fn add(&mut self, kind: T, target: NamespacedName, policy: &'a K) {
        self.on.entry((kind, target)).or_default().push(policy);
    }

    fn of(&self, kind: T, target: &NamespacedName) -> impl Iterator<Item = &'a K> {
        let on_namespace = self.on_namespace.get(target.namespace.as_str());
        let on = self.on.get(&(kind, target.clone()));
        on.into_iter().chain(on_namespace).flatten().copied()
    }
}

impl<'a> Selector<'a> {
    /// Indexes objects.
    pub fn new(objects: &'a Objects, options: &Options) -> Self {
        let mut routes: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (name, entry) in &objects.routes {
            // One that cannot be read serves nothing.
            let Ok(route) = &entry.spec else { continue };
            let parents: BTreeSet<_> = route
                .spec
                .parent_refs
                .iter()
                .flatten()
                .filter(|parent| route::is_gateway(parent))
                .map(|parent| {
                    let namespace = parent.namespace.as_deref().unwrap_or(&name.namespace);
                    NamespacedName::new(namespace, &parent.name)
                })
                .collect();
            for gateway in parents {
                routes.entry(gateway).or_default().push(name);
            }
        }
        let mut slices: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (name, entry) in &objects.slices {
            if let Some(service) = entry.meta.labels.get(SERVICE_NAME_LABEL) {
                slices.entry(NamespacedName::new(&name.namespace, service)).or_default().push(name);
            }
        }
        Self {
            objects,
            classes: gateway::classes(objects, options, &mut Vec::new()),
            grants: Grants::new(objects),
            routes,
            policies: policies(objects),
            tls_policies: tls_policies(objects),
            slices,
        }
    }

    /// The objects that can matter to a Gateway of ours, itself and its class included: resolving these alone gives the
    /// same [`Snapshot`](crate::Snapshot) of it as resolving all. A reference that no ReferenceGrant permits is not
    /// followed, and nothing is in it that only other Gateways need. Empty if the Gateway is not there or not ours.
    ///
    /// (A snapshot of all objects also lists the authorizers of other Gateways' policies, which this Gateway never asks.)
    pub fn select(&self, gateway: &NamespacedName) -> BTreeSet<ObjectRef> {
        let mut selection = Selection { of: self, found: BTreeSet::new() };
        selection.gateway(gateway);
        selection.found
    }
}

fn policies(objects: &Objects) -> Claims<'_, PolicyTarget, PolicyKey> {
    let mut claims = Claims::new();
    for (key, entry) in &objects.policies {
        let mut targets = match &entry.spec {
            Ok(policy) => policy.targets.clone(),
            Err(unreadable) => policy::readable_targets(&unreadable.value),
        };
        if targets.is_empty() && entry.spec.is_err() {
            claims.on_namespace.entry(key.namespace.as_str()).or_default().push(key);
        }
        // Several sections of one object are one target.
        targets.iter_mut().for_each(|target| target.section_name = None);
        targets.sort_unstable();
        targets.dedup();
        for target in targets {
            claims.add(target.kind, target.object, key);
        }
    }
    claims
}

fn tls_policies(objects: &Objects) -> Claims<'_, TlsTarget, NamespacedName> {
    let mut claims = Claims::new();
    for (name, entry) in &objects.tls_policies {
        let targets = backend_tls::targets(entry);
        if targets.is_empty() {
            claims.on_namespace.entry(name.namespace.as_str()).or_default().push(name);
        }
        for target in targets {
            if let Some(kind) = backend_tls::target_kind(&target) {
                claims.add(kind, NamespacedName::new(&name.namespace, target.name), name);
            }
        }
    }
    claims
}

/// What has been found for one Gateway. Each method adds an object and what it refers to.
struct Selection<'s, 'a> {
    of: &'s Selector<'a>,
    found: BTreeSet<ObjectRef>,
}

impl Selection<'_, '_> {
    /// Whether it is new.
    fn add(&mut self, group: &str, kind: &str, name: &NamespacedName) -> bool {
        self.found.insert(ObjectRef::new(group, kind, name))
    }

    fn gateway(&mut self, name: &NamespacedName) {
        let objects = self.of.objects;
        let Some(entry) = objects.gateways.get(name) else { return };
        let class = match &entry.spec {
            Ok(spec) => Some(spec.gateway_class_name.as_str()),
            Err(unreadable) => gateway::unread_class(unreadable),
        };
        let Some(class) = class.filter(|class| self.of.classes.contains(class)) else { return };
        self.add(GATEWAY_GROUP, "GatewayClass", &NamespacedName::new("", class));
        self.add(GATEWAY_GROUP, "Gateway", name);
        let Ok(spec) = &entry.spec else { return };
        for listener in spec.listeners.iter().filter(|listener| listener.protocol == "HTTPS") {
            let certificates = listener.tls.iter().flat_map(|tls| tls.certificate_refs.iter().flatten());
            for reference in certificates {
                let is_secret = reference.group.as_deref().unwrap_or_default().is_empty()
                    && reference.kind.as_deref().unwrap_or("Secret") == "Secret";
                let namespace = reference.namespace.as_deref().unwrap_or(&name.namespace);
                let secret = NamespacedName::new(namespace, &reference.name);
                if is_secret && self.permitted(From::GATEWAY, &name.namespace, To::SECRET, &secret) {
                    self.secret(&secret);
                }
            }
            for reference in
                tls::frontend(spec, listener.port).into_iter().flat_map(|frontend| frontend.references)
            {
                let is_map = reference.group.is_empty() && reference.kind == "ConfigMap";
                let map = NamespacedName::new(reference.namespace.unwrap_or(&name.namespace), reference.name);
                if is_map && self.permitted(From::GATEWAY, &name.namespace, To::CONFIG_MAP, &map) {
                    self.config_map(&map);
                }
            }
        }
        self.policies(PolicyTarget::Gateway, name);
        let state = GatewayState::new(objects, &self.of.grants, name, None, spec);
        for route in self.of.routes.get(name).into_iter().flatten() {
            self.route(route, name, &state);
        }
    }

    /// Whether a reference may be followed; with the grants that say so.
    fn permitted(&mut self, from: From, namespace: &str, to: To, object: &NamespacedName) -> bool {
        if self.of.grants.permits(from, namespace, to, object).is_err() {
            return false;
        }
        if namespace != object.namespace {
            for grant in self.of.grants.permitting(from, namespace, to, object) {
                self.add(GATEWAY_GROUP, "ReferenceGrant", grant);
            }
        }
        true
    }

    fn secret(&mut self, name: &NamespacedName) {
        if self.of.objects.secrets.contains_key(name) {
            self.add("", "Secret", name);
        }
    }

    fn config_map(&mut self, name: &NamespacedName) {
        if self.of.objects.config_maps.contains_key(name) {
            self.add("", "ConfigMap", name);
        }
    }

    /// A route, if it attaches.
    fn route(&mut self, name: &NamespacedName, gateway: &NamespacedName, state: &GatewayState<'_>) {
        let objects = self.of.objects;
        let Some(route) = objects.routes.get(name).and_then(|entry| entry.spec.as_ref().ok()) else { return };
        let mut parents = route.spec.parent_refs.iter().flatten().filter(|parent| {
            route::is_gateway(parent)
                && parent.name == gateway.name
                && parent.namespace.as_deref().unwrap_or(&name.namespace) == gateway.namespace
        });
        if !parents.any(|parent| route::attach(objects, name, route, parent, gateway, state).is_ok()) {
            return;
        }
        self.add(GATEWAY_GROUP, "HTTPRoute", name);
        let namespace = NamespacedName::new("", &name.namespace);
        if state.listeners.iter().any(|listener| listener.selects_namespaces())
            && objects.namespaces.contains_key(&namespace)
        {
            self.add("", "Namespace", &namespace);
        }
        let backends = route.spec.rules.iter().flatten().flat_map(|rule| rule.backend_refs.iter().flatten());
        for backend in backends {
            let namespace = backend.namespace.as_deref().unwrap_or(&name.namespace);
            let to = NamespacedName::new(namespace, &backend.name);
            match (backend.group.as_deref().unwrap_or_default(), backend.kind.as_deref().unwrap_or("Service"))
            {
                ("", "Service") if self.permitted(From::ROUTE, &name.namespace, To::SERVICE, &to) => {
                    self.service(&to);
                }
                (group, "XBackend")
                    if AGENTIC_GROUPS.contains(&group)
                        && self.permitted(From::ROUTE, &name.namespace, To::X_BACKEND, &to) =>
                {
                    self.x_backend(&to);
                }
                _ => {}
            }
        }
    }

    /// An XBackend of either group or both, and the policies on it, which may be there before it.
    fn x_backend(&mut self, name: &NamespacedName) {
        self.policies(PolicyTarget::XBackend, name);
        for group in GROUPS {
            let Some(entry) = self.of.objects.backends.get(&(name.clone(), group)) else { continue };
            if self.add(group.name(), "XBackend", name)
                && let Ok(backend) = &entry.spec
                && let BackendAddress::Service(service) = &backend.address
            {
                self.service(&NamespacedName::new(&name.namespace, service));
            }
        }
        self.tls_policies(TlsTarget::XBackend, name);
    }

    fn service(&mut self, name: &NamespacedName) {
        if !self.of.objects.services.contains_key(name) || !self.add("", "Service", name) {
            return;
        }
        for slice in self.of.slices.get(name).into_iter().flatten() {
            self.add(DISCOVERY_GROUP, "EndpointSlice", slice);
        }
        self.tls_policies(TlsTarget::Service, name);
    }

    /// All policies that have a say about what a target receives, over a limit or not.
    fn policies(&mut self, kind: PolicyTarget, target: &NamespacedName) {
        for key in self.of.policies.of(kind, target) {
            if self.found.insert(policy::policy_ref(key))
                && let Some(Ok(policy)) = self.of.objects.policies.get(key).map(|entry| &entry.spec)
            {
                for authorizer in policy::authorizers(policy) {
                    self.authorizer(key, authorizer);
                }
            }
        }
    }

    fn authorizer(&mut self, policy: &PolicyKey, authorizer: &ExternalAuth) {
        let reference = &authorizer.backend;
        if reference.group.is_empty()
            && reference.kind == "Service"
            && self.permitted(From::POLICY, &policy.namespace, To::SERVICE, &reference.object)
        {
            self.service(&reference.object);
        }
    }

    /// All BackendTLSPolicies of a target: of several the oldest has it.
    fn tls_policies(&mut self, kind: TlsTarget, target: &NamespacedName) {
        for name in self.of.tls_policies.of(kind, target) {
            if self.add(GATEWAY_GROUP, "BackendTLSPolicy", name)
                && let Some(Ok(spec)) = self.of.objects.tls_policies.get(name).map(|entry| &entry.spec)
            {
                for reference in spec.validation.ca_certificate_refs.iter().flatten() {
                    if reference.group.is_empty() && reference.kind == "ConfigMap" {
                        self.config_map(&NamespacedName::new(&name.namespace, &reference.name));
                    }
                }
            }
        }
    }
}
