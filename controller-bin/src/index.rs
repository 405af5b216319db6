//! The cluster as it was last seen, and what follows from it: synchronous, without a client, a clock or a runtime.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use policy_model::NamespacedName;
use prost::Message as _;
use serde_json::Value;
use xds_server::{Resource, ResourceSet};
use xds_translate::{Inserted, ObjectRef, ObjectStatus, Objects, Snapshot, native};

use crate::provision::{Proxy, proxy_name};

mod classes;
mod gateways;
mod retain;

use self::classes::Classes;

/// A kind that is watched. Kinds are kept apart: a relist of one never drops another's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind {
    /// API group; empty for core.
    pub group: String,
    /// Kind, as `XAccessPolicy`.
    pub kind: String,
}

/// Everything that was seen.
#[derive(Debug)]
pub struct Index {
    settings: Settings,
    /// What resolution works on: each object reduced.
    objects: Objects,
    entries: BTreeMap<ObjectRef, Entry>,
    /// Counts the changes that an outcome depends on.
    revision: u64,
    cached: Mutex<Option<Cached>>,
}

/// An object.
#[derive(Debug)]
struct Entry {
    /// Name of its resource.
    name: Arc<str>,
    /// The reduced object.
    resource: Resource,
    /// What statuses need of it as it was given.
    given: Option<Value>,
    /// Whether it is being deleted.
    deleting: bool,
}

/// The last outcome, and what it was computed from.
#[derive(Debug)]
struct Cached {
    revision: u64,
    outcome: Outcome,
    /// They hold the compiled expressions too, which need not be compiled again as long as they are held.
    snapshots: Arc<BTreeMap<NamespacedName, Snapshot>>,
    _engine: Arc<authz_core::Engine>,
}

/// Settings of an index.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Of the resolution.
    pub options: xds_translate::Options,
}

/// What follows from the objects: a pure function of them, whatever their order.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// What each Gateway of ours gets. While one is being deleted, its proxies still get what changes.
    pub gateways: BTreeMap<NamespacedName, GatewayOutcome>,
    /// Gateways that are not ours, or no longer, and for which something of the name of our proxies runs.
    pub abandoned: BTreeSet<NamespacedName>,
    /// As resolve gives them (`Programmed` as "there is something to program"), with what is wrong with parameters and addresses.
    pub statuses: Arc<[ObjectStatus]>,
    /// Secrets that Gateways of ours may name (their own namespace, or with a ReferenceGrant): nobody may watch Secrets, so these are fetched one by one.
    pub secrets: BTreeSet<NamespacedName>,
}

/// Of one Gateway.
#[derive(Debug, Clone, PartialEq)]
pub struct GatewayOutcome {
    /// What its proxies get. The same allocation as before as long as it is equal.
    pub resources: Arc<ResourceSet>,
    /// How its proxies are to run; an error where they cannot be provisioned (the message is for the Gateway's status):
    /// what runs already keeps running as it is.
    pub proxy: Result<Proxy, String>,
}

impl Index {
    /// An empty index.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            objects: Objects::default(),
            entries: BTreeMap::new(),
            revision: 0,
            cached: Mutex::new(None),
        }
    }

    /// Adds or replaces an object, as the API server gives it. Whether anything that matters changed: `managedFields`
    /// never do, the resourceVersion does where a status is written (a write is conditional on it). What changes only a
    /// status does not change the outcome.
    pub fn apply(&mut self, object: &Value) -> bool {
        let Some(reference) = native::object_ref(object) else {
            tracing::warn!("the API server gave an object without a kind or a name; it is not looked at");
            return false;
        };
        let reduced = native::reduce(object);
        let resource =
            Resource::new(native::Object { json: reduced.to_string().into_bytes() }.encode_to_vec());
        let given = retain::given(&reference, object);
        let deleting = object.pointer("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null());
        if let Some(known) = self.entries.get_mut(&reference)
            && known.resource.version == resource.version
            && known.deleting == deleting
        {
            if known.given == given {
                return false;
            }
            known.given = given;
            self.revision += u64::from(classes::are_parameters(self, &reference));
            return true;
        }
        match self.objects.insert(&reduced) {
            Inserted::OtherKind => return false,
            Inserted::Refused { message } => {
                tracing::warn!(?reference, message, "an object cannot be looked at");
                return false;
            }
            _ => {}
        }
        let name = Arc::from(native::resource_name(&reference));
        self.entries.insert(reference, Entry { name, resource, given, deleting });
        self.revision += 1;
        true
    }

    /// Removes an object. Whether it was there.
    pub fn delete(&mut self, object: &ObjectRef) -> bool {
        if self.entries.remove(object).is_none() {
            return false;
        }
        self.objects.remove(object);
        self.revision += 1;
        true
    }

    /// Replaces all objects of a kind. Whether anything that matters changed.
    pub fn reset(&mut self, kind: &Kind, objects: &[Value]) -> bool {
        let is_of_kind = |object: &ObjectRef| object.group == kind.group && object.kind == kind.kind;
        let listed: BTreeSet<_> = objects.iter().filter_map(native::object_ref).filter(is_of_kind).collect();
        let gone: Vec<_> = self
            .of_kind(kind)
            .map(|(object, _)| object)
            .filter(|object| !listed.contains(object))
            .cloned()
            .collect();
        let mut changed = false;
        for object in &gone {
            changed |= self.delete(object);
        }
        for object in objects
            .iter()
            .filter(|object| native::object_ref(object).is_some_and(|object| is_of_kind(&object)))
        {
            changed |= self.apply(object);
        }
        changed
    }

    /// The object as the API server gave it last, as far as statuses need it: of kinds whose status is written, apiVersion,
    /// kind, metadata and `status` (Gateways and GatewayClasses whole); of Services with an address, the address; of the
    /// EndpointSlices of proxies, the endpoints; of ConfigMaps, small data.
    pub fn object(&self, object: &ObjectRef) -> Option<&Value> {
        self.entries.get(object)?.given.as_ref()
    }

    /// The names of all objects of a kind.
    pub(crate) fn names(&self, kind: &Kind) -> impl Iterator<Item = &ObjectRef> {
        self.of_kind(kind).map(|(object, _)| object)
    }

    /// The controllerName of the GatewayClasses that are ours.
    pub(crate) fn controller_name(&self) -> &str {
        &self.settings.options.controller_name
    }

    /// Whether a proxy of a Gateway is ready, by the EndpointSlices of its Service.
    pub(crate) fn has_ready_proxy(&self, gateway: &NamespacedName) -> bool {
        let service = proxy_name(gateway);
        let slices = self.of_kind_in(retain::SLICE_GROUP, retain::SLICE, &gateway.namespace);
        slices
            .filter_map(|(_, entry)| entry.given.as_ref())
            .any(|slice| retain::has_ready_endpoint(slice, &service))
    }

    /// What follows.
    pub fn outcome(&self) -> Outcome {
        self.current(|cached| cached.outcome.clone())
    }

    /// The Gateways of [`outcome`](Self::outcome), resolved, for data planes that cannot do that themselves. While a
    /// Gateway's resources stay the same, so does its snapshot.
    pub fn snapshots(&self) -> Arc<BTreeMap<NamespacedName, Snapshot>> {
        self.current(|cached| Arc::clone(&cached.snapshots))
    }

    fn current<T>(&self, read: impl FnOnce(&Cached) -> T) -> T {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(current) = cached.as_ref().filter(|cached| cached.revision == self.revision) {
            return read(current);
        }
        let before = cached.as_ref().map(|cached| &cached.outcome.gateways);
        let computed = self.compute(before.unwrap_or(&BTreeMap::new()));
        read(cached.insert(computed))
    }

    fn compute(&self, before: &BTreeMap<NamespacedName, GatewayOutcome>) -> Cached {
        let options = &self.settings.options;
        let resolution = xds_translate::resolve(&self.objects, options);
        let classes = Classes::read(self);
        let selector = native::Selector::new(&self.objects, options);
        let mut gateways = BTreeMap::new();
        let mut faults = BTreeMap::new();
        for name in resolution.gateways.keys() {
            let Some(gateway) = self.entries.get(&gateways::reference(name)) else { continue };
            let Some(given) = &gateway.given else { continue };
            let fault = gateways::fault(given);
            let proxy = match &fault {
                _ if gateway.deleting => Err("is being deleted".to_owned()),
                Some(fault) => Err(fault.message.clone()),
                None => gateways::proxy(name, given, &classes),
            };
            let resources =
                self.resources(&selector.select(name), before.get(name).map(|before| &before.resources));
            gateways.insert(name.clone(), GatewayOutcome { resources, proxy });
            if let Some(fault) = fault {
                faults.insert(gateways::reference(name), fault);
            }
        }
        faults.extend(classes.faults());
        let mut statuses = resolution.statuses;
        for status in statuses.iter_mut().filter(|status| status.scope.is_object()) {
            if let Some(fault) = faults.get(&status.object) {
                fault.refuse(status);
            }
        }
        let abandoned = self.abandoned(&gateways);
        let outcome = Outcome {
            gateways,
            abandoned,
            statuses: statuses.into(),
            secrets: xds_translate::named_secrets(&self.objects, options),
        };
        Cached {
            revision: self.revision,
            outcome,
            snapshots: Arc::new(resolution.gateways),
            _engine: resolution.engine,
        }
    }

    fn abandoned(&self, ours: &BTreeMap<NamespacedName, GatewayOutcome>) -> BTreeSet<NamespacedName> {
        let has_service = |gateway: &NamespacedName| {
            self.entries.contains_key(&ObjectRef {
                group: String::new(),
                kind: "Service".to_owned(),
                namespace: gateway.namespace.clone(),
                name: proxy_name(gateway),
            })
        };
        self.from("gateway.networking.k8s.io", "Gateway", "")
            .map(|(object, _)| NamespacedName::new(object.namespace.as_str(), object.name.as_str()))
            .filter(|gateway| !ours.contains_key(gateway) && has_service(gateway))
            .collect()
    }

    fn resources(
        &self,
        selected: &BTreeSet<ObjectRef>,
        before: Option<&Arc<ResourceSet>>,
    ) -> Arc<ResourceSet> {
        let selected = selected.iter().filter_map(|object| self.entries.get(object));
        let resources = selected.map(|entry| (Arc::clone(&entry.name), entry.resource.clone())).collect();
        let set = ResourceSet { types: BTreeMap::from([(Arc::from(native::OBJECT), resources)]) };
        match before {
            Some(before) if **before == set => Arc::clone(before),
            _ => Arc::new(set),
        }
    }

    fn of_kind(&self, kind: &Kind) -> impl Iterator<Item = (&ObjectRef, &Entry)> {
        self.from(&kind.group, &kind.kind, "")
    }

    fn of_kind_in(
        &self,
        group: &str,
        kind: &str,
        namespace: &str,
    ) -> impl Iterator<Item = (&ObjectRef, &Entry)> {
        self.from(group, kind, namespace).take_while(move |(object, _)| object.namespace == namespace)
    }

    /// The objects of a kind, from a namespace on.
    fn from(&self, group: &str, kind: &str, namespace: &str) -> impl Iterator<Item = (&ObjectRef, &Entry)> {
        let first = ObjectRef {
            group: group.to_owned(),
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            name: String::new(),
        };
        let after = first.clone();
        self.entries
            .range(first..)
            .take_while(move |(object, _)| object.group == after.group && object.kind == after.kind)
    }
}

#[cfg(test)]
mod tests;
