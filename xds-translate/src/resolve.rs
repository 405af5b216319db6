//! From objects to snapshots and statuses.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use authz_core::{DefaultAction, Engine};
use policy_model::NamespacedName;
use spiffe_id::TrustDomain;

use crate::{
    Listener, ObjectRef, ObjectStatus, Objects, RouteRule, RuleId, Snapshot,
    objects::GATEWAY_GROUP,
    resolve::{
        backend::Backends,
        backend_tls::TlsPolicies,
        gateway::GatewayState,
        grant::Grants,
        route::{Attached, ResolvedRoute},
    },
};

mod backend;
mod backend_tls;
mod filters;
mod gateway;
mod grant;
mod host;
mod policy;
mod route;
mod secrets;
mod select;
mod tls;

pub(crate) use self::backend::SERVICE_NAME_LABEL;
pub(crate) use self::filters::rule_filters_of_backend;
pub use self::secrets::named_secrets;
pub use self::select::Selector;

/// Settings of the resolution.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// GatewayClasses with this controllerName are ours. Default `sigs.k8s.io/kube-agentic-networking-controller`.
    pub controller_name: String,
    /// Default `cluster.local`.
    pub trust_domain: TrustDomain,
    /// `--default-action`
    pub default_action: DefaultAction,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            controller_name: "sigs.k8s.io/kube-agentic-networking-controller".to_owned(),
            trust_domain: TrustDomain::default(),
            default_action: DefaultAction::Allow,
        }
    }
}

/// What came of the objects. A pure function of them: the order in which they were given never matters.
#[derive(Debug)]
pub struct Resolution {
    /// One snapshot per Gateway of ours.
    pub gateways: BTreeMap<NamespacedName, Snapshot>,
    /// Shared by all snapshots.
    pub engine: Arc<Engine>,
    /// Of every object that has conditions, in a fixed order.
    pub statuses: Vec<ObjectStatus>,
    /// What a user should know about objects that get no status because they are not ours to write to.
    pub notes: Vec<Note>,
}

/// Something to tell a user about an object that gets no status for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// The object.
    pub object: ObjectRef,
    /// For people: what to do.
    pub message: String,
}

/// Resolves objects. Never fails: what does not resolve shows in a status, and fails closed.
pub fn resolve(objects: &Objects, options: &Options) -> Resolution {
    let mut statuses = Vec::new();
    let mut notes = Vec::new();
    let grants = Grants::new(objects);
    let classes = gateway::classes(objects, options, &mut statuses);
    let gateways = gateway::gateways(objects, &grants, &classes, &mut statuses);
    note_foreign_gateways(objects, &classes, options, &mut notes);
    let backends = Backends::new(objects, TlsPolicies::new(objects));

    let policies =
        policy::Surroundings { objects, grants: &grants, backends: &backends, gateways: &gateways };
    let compiled = policies.compile(options, &mut statuses, &mut notes);
    let engine = Arc::new(compiled.engine);
    let authorizers = policies.authorizers(engine.authorizers());

    let surroundings =
        route::Surroundings { objects, grants: &grants, backends: &backends, gateways: &gateways };
    let routes = surroundings.routes(&mut statuses, &mut notes);

    let mut snapshots = BTreeMap::new();
    for (&name, gateway) in &gateways {
        let attached: Vec<_> =
            routes.iter().filter_map(|route| Some((route, route.attached.get(name)?))).collect();
        statuses.push(gateway.status(name));
        for (index, listener) in gateway.listeners.iter().enumerate() {
            let count =
                attached.iter().filter(|(_, attached)| attached.listeners.contains_key(&index)).count();
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            statuses.push(listener.status(name, gateway.generation, count));
        }
        for backend in attached.iter().flat_map(|(route, _)| route.named_backends()) {
            backends.used(backend, name);
        }
        let mut used: BTreeSet<_> = attached.iter().flat_map(|(route, _)| route.backends()).collect();
        used.extend(authorizers.iter().filter_map(|(_, id)| id.as_ref()));
        let (rules, listeners) = serve(name, gateway, &attached, &engine);
        snapshots.insert(
            name.clone(),
            Snapshot {
                gateway: name.clone(),
                listeners,
                rules,
                backends: used
                    .into_iter()
                    .filter_map(|id| Some((id.clone(), backends.backend(id).ok()?)))
                    .collect(),
                engine: Arc::clone(&engine),
                authorizers: authorizers.iter().map(|(authorizer, _)| authorizer.clone()).collect(),
            },
        );
    }
    backends.statuses(&mut statuses);
    backends.tls().statuses(objects, &mut statuses);
    // Listeners stay in the order of their Gateway: the sort is stable.
    statuses.sort_by(|one, other| one.object.cmp(&other.object));
    notes.sort();
    notes.dedup();
    Resolution { gateways: snapshots, engine, statuses, notes }
}

/// The rules that are reachable at a Gateway, and its listeners with them.
fn serve(
    name: &NamespacedName,
    gateway: &GatewayState<'_>,
    attached: &[(&ResolvedRoute<'_>, &Attached)],
    engine: &Engine,
) -> (Vec<Arc<RouteRule>>, Vec<Listener>) {
    let mut rules: Vec<Arc<RouteRule>> = Vec::new();
    let mut routes: BTreeMap<usize, Vec<(RuleId, Vec<String>)>> = BTreeMap::new();
    for (route, attached) in attached {
        let at: Vec<_> = attached
            .listeners
            .iter()
            .filter(|(index, _)| {
                gateway.listeners.get(**index).is_some_and(|listener| listener.is_programmed())
            })
            .collect();
        if at.is_empty() {
            continue;
        }
        for rule in route.rules(engine, name) {
            let Ok(id) = u32::try_from(rules.len()).map(RuleId) else { break };
            rules.push(Arc::new(rule));
            for (index, hosts) in &at {
                routes.entry(**index).or_default().push((id, hosts.iter().cloned().collect()));
            }
        }
    }
    let listeners = gateway.listeners.iter().enumerate().filter_map(|(index, listener)| {
        let (protocol, tls) = listener.serves.clone()?;
        Some(Listener {
            name: listener.spec.name.clone(),
            port: listener.port?,
            protocol,
            hostname: listener.hostname.clone(),
            tls,
            routes: routes.remove(&index).unwrap_or_default(),
        })
    });
    (rules, listeners.collect())
}

/// Gateways that nobody here serves: easily a GatewayClass that was forgotten.
fn note_foreign_gateways(
    objects: &Objects,
    classes: &BTreeSet<&str>,
    options: &Options,
    notes: &mut Vec<Note>,
) {
    for (name, entry) in &objects.gateways {
        let Ok(spec) = &entry.spec else { continue };
        let class = spec.gateway_class_name.as_str();
        if classes.contains(class) {
            continue;
        }
        let message = match objects.classes.get(&NamespacedName::new("", class)) {
            None => format!(
                "is not served: GatewayClass `{class}` does not exist; create it with controllerName `{}`",
                options.controller_name
            ),
            Some(_) => format!(
                "is not served: GatewayClass `{class}` has another controllerName than `{}`",
                options.controller_name
            ),
        };
        notes.push(Note { object: ObjectRef::new(GATEWAY_GROUP, "Gateway", name), message });
    }
}
