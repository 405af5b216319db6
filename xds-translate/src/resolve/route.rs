//! HTTPRoutes: to which listeners they attach, and what their rules become.
use std::collections::{BTreeMap, BTreeSet};

use authz_core::Engine;
use gateway_api::httproutes::{
    HttpRouteParentRefs, HttpRouteRules, HttpRouteRulesBackendRefs, HttpRouteRulesMatches,
    HttpRouteRulesMatchesPath, HttpRouteRulesMatchesPathType,
};
use policy_model::NamespacedName;
use serde_json::Value;

use super::{
    Note,
    backend::{Backends, Unusable},
    filters,
    gateway::GatewayState,
    grant::{AGENTIC_GROUPS, From, Grants, To},
    host,
    tls::RefError,
};
use crate::{
    BackendId, Condition, Filters, ObjectRef, ObjectStatus, Objects, ParentRef, RouteRule, Scope, Timeouts,
    WeightedBackend,
    objects::{Entry, GATEWAY_GROUP, route::Route},
};

/// Where a route attaches at one Gateway.
#[derive(Default)]
pub(super) struct Attached {
    /// By listener (index in the object): the host names under which the route is reachable there; empty is any.
    pub(super) listeners: BTreeMap<usize, BTreeSet<String>>,
}

/// A route with all that does not depend on the Gateway, and where it attaches.
pub(super) struct ResolvedRoute<'a> {
    pub(super) name: &'a NamespacedName,
    entry: &'a Entry<Route>,
    rules: Vec<ResolvedRule>,
    pub(super) attached: BTreeMap<&'a NamespacedName, Attached>,
}

struct ResolvedRule {
    name: Option<String>,
    matches: Vec<HttpRouteRulesMatches>,
    filters: Filters,
    timeouts: Timeouts,
    backends: Vec<ResolvedBackend>,
    /// Why it cannot be served as written: it answers 500.
    unsupported: Option<String>,
}

struct ResolvedBackend {
    /// `None`: requests that choose it get 500.
    id: Option<BackendId>,
    /// What is named, where it exists, even if a BackendTLSPolicy keeps requests from it.
    named: Option<BackendId>,
    /// The XBackend that is named and may be, usable or not.
    x_backend: Option<NamespacedName>,
    weight: u32,
    filters: Filters,
    refs: Option<RefError>,
    unsupported: Option<String>,
}

/// What routes refer to.
pub(super) struct Surroundings<'a, 'b> {
    pub(super) objects: &'a Objects,
    pub(super) grants: &'b Grants<'a>,
    pub(super) backends: &'b Backends<'a>,
    pub(super) gateways: &'b BTreeMap<&'a NamespacedName, GatewayState<'a>>,
}

impl<'a> Surroundings<'a, '_> {
    /// All routes that attach somewhere; with a status for each parent of ours.
    pub(super) fn routes(
        &self,
        statuses: &mut Vec<ObjectStatus>,
        notes: &mut Vec<Note>,
    ) -> Vec<ResolvedRoute<'a>> {
        let mut routes = Vec::new();
        for (name, entry) in &self.objects.routes {
            match &entry.spec {
                Ok(route) => routes.push(self.route(name, entry, route, statuses, notes)),
                Err(unreadable) => {
                    self.unreadable(name, entry, &unreadable.value, &unreadable.message, statuses)
                }
            }
        }
        routes
    }

    fn route(
        &self,
        name: &'a NamespacedName,
        entry: &'a Entry<Route>,
        route: &'a Route,
        statuses: &mut Vec<ObjectStatus>,
        notes: &mut Vec<Note>,
    ) -> ResolvedRoute<'a> {
        let default_rule = [HttpRouteRules::default()];
        let rules = route.spec.rules.as_deref().unwrap_or(&default_rule);
        let rules: Vec<_> = rules
            .iter()
            .enumerate()
            .map(|(index, rule)| self.rule(name, entry, route, index, rule))
            .collect();
        let mut attached: BTreeMap<&NamespacedName, Attached> = BTreeMap::new();
        for parent in route.spec.parent_refs.iter().flatten().filter(|parent| is_gateway(parent)) {
            let gateway_name =
                NamespacedName::new(parent.namespace.as_deref().unwrap_or(&name.namespace), &parent.name);
            let Some((&gateway_name, gateway)) = self.gateways.get_key_value(&gateway_name) else {
                let message = if self.objects.gateways.contains_key(&gateway_name) {
                    format!(
                        "parent Gateway `{gateway_name}` is not of this controller's GatewayClass; nothing is served there"
                    )
                } else {
                    format!("parent Gateway `{gateway_name}` does not exist; create it or change parentRefs")
                };
                notes.push(Note { object: ObjectRef::new(GATEWAY_GROUP, "HTTPRoute", name), message });
                continue;
            };
            let accepted = match attach(self.objects, name, route, parent, gateway_name, gateway) {
                Ok(found) => {
                    let attached = attached.entry(gateway_name).or_default();
                    for (listener, hosts) in found {
                        attached.listeners.entry(listener).or_default().extend(hosts);
                    }
                    None
                }
                Err(error) => Some(error),
            };
            let conditions = conditions(entry, &rules, accepted);
            let object = ObjectRef::new(GATEWAY_GROUP, "HTTPRoute", name);
            statuses.push(ObjectStatus::new(
                object,
                scope(gateway_name, parent),
                entry.meta.generation,
                conditions,
            ));
        }
        ResolvedRoute { name, entry, rules, attached }
    }

    /// A route that cannot be read serves nothing; where its parents can be read, it says so.
    fn unreadable(
        &self,
        name: &NamespacedName,
        entry: &Entry<Route>,
        value: &Value,
        message: &str,
        statuses: &mut Vec<ObjectStatus>,
    ) {
        let parents = value.pointer("/spec/parentRefs").and_then(Value::as_array).into_iter().flatten();
        for parent in
            parents.filter_map(|parent| serde_json::from_value::<HttpRouteParentRefs>(parent.clone()).ok())
        {
            let gateway =
                NamespacedName::new(parent.namespace.as_deref().unwrap_or(&name.namespace), &parent.name);
            if is_gateway(&parent) && self.gateways.contains_key(&gateway) {
                let message = format!("cannot be read, and serves nothing: {message}");
                let conditions = vec![Condition::no("Accepted", "UnsupportedValue", message)];
                let object = ObjectRef::new(GATEWAY_GROUP, "HTTPRoute", name);
                statuses.push(ObjectStatus::new(
                    object,
                    scope(&gateway, &parent),
                    entry.meta.generation,
                    conditions,
                ));
            }
        }
    }

    fn rule(
        &self,
        name: &NamespacedName,
        entry: &Entry<Route>,
        route: &Route,
        index: usize,
        rule: &HttpRouteRules,
    ) -> ResolvedRule {
        let mut unsupported = unsupported_match(rule);
        // A field that is not known could narrow what the rule does.
        let at = format!("spec.rules[{index}].");
        let unknown = entry.unknown.iter().filter(|path| path.starts_with(&at) && !is_harmless(path));
        unsupported =
            unsupported.or(unknown.map(|path| format!("field `{path}` is not supported; remove it")).next());
        let unknown_filter = route.rule_filters.get(&index).and_then(|filters| filters.first());
        unsupported = unsupported
            .or(unknown_filter.map(|filter| format!("filter {filter} is not supported; remove it")));
        let filters = filters::rule(rule.filters.as_deref().unwrap_or_default()).unwrap_or_else(|message| {
            unsupported.get_or_insert(message);
            Filters::default()
        });
        let timeouts = filters::timeouts(rule.timeouts.as_ref()).unwrap_or_else(|message| {
            unsupported.get_or_insert(message);
            Timeouts::default()
        });
        let backends = rule.backend_refs.iter().flatten().enumerate();
        let backends: Vec<_> = backends
            .map(|(position, backend)| {
                let unknown =
                    route.backend_filters.get(&(index, position)).and_then(|filters| filters.first());
                self.backend(name, backend, unknown)
            })
            .collect();
        let matches = match rule.matches.as_deref() {
            None | Some([]) => vec![HttpRouteRulesMatches {
                path: Some(HttpRouteRulesMatchesPath {
                    r#type: Some(HttpRouteRulesMatchesPathType::PathPrefix),
                    value: Some("/".to_owned()),
                }),
                ..HttpRouteRulesMatches::default()
            }],
            Some(matches) => matches.to_vec(),
        };
        ResolvedRule { name: rule.name.clone(), matches, filters, timeouts, backends, unsupported }
    }

    fn backend(
        &self,
        route: &NamespacedName,
        backend: &HttpRouteRulesBackendRefs,
        unknown_filter: Option<&String>,
    ) -> ResolvedBackend {
        let name =
            NamespacedName::new(backend.namespace.as_deref().unwrap_or(&route.namespace), &backend.name);
        let (reference, x_backend) = self.reference(route, backend, &name);
        let mut unsupported =
            unknown_filter.map(|filter| format!("filter {filter} is not supported; remove it"));
        let filters = filters::backend(backend).unwrap_or_else(|message| {
            unsupported.get_or_insert(message);
            Filters::default()
        });
        let (named, usable, refs) = match reference.and_then(|id| match self.backends.backend(&id) {
            Ok(_) => Ok((id, true)),
            Err(Unusable::Tls) => Ok((id, false)),
            Err(Unusable::Reference(error)) => Err(error),
        }) {
            Ok((id, usable)) => (Some(id), usable, None),
            Err(error) => (None, false, Some(error)),
        };
        ResolvedBackend {
            id: named.clone().filter(|_| usable && unsupported.is_none()),
            named,
            x_backend,
            weight: u32::try_from(backend.weight.unwrap_or(1)).unwrap_or(0),
            filters,
            refs,
            unsupported,
        }
    }

    /// What a backendRef names, if it may; and the XBackend among it.
    fn reference(
        &self,
        route: &NamespacedName,
        backend: &HttpRouteRulesBackendRefs,
        name: &NamespacedName,
    ) -> (Result<BackendId, RefError>, Option<NamespacedName>) {
        let group = backend.group.as_deref().unwrap_or_default();
        let kind = backend.kind.as_deref().unwrap_or("Service");
        let permitted = |to| {
            let permitted = self.grants.permits(From::ROUTE, &route.namespace, to, name);
            permitted.map_err(|message| RefError::new("RefNotPermitted", message))
        };
        match (group, kind) {
            ("", "Service") => {
                let port = backend
                    .port
                    .and_then(|port| u16::try_from(port).ok())
                    .filter(|port| *port > 0)
                    .ok_or_else(|| {
                        RefError::new(
                            "BackendNotFound",
                            format!("backendRef to Service `{name}` has no port; add one"),
                        )
                    });
                let id = permitted(To::SERVICE).and(port).map(|port| BackendId::Service(name.clone(), port));
                (id, None)
            }
            (group, "XBackend") if AGENTIC_GROUPS.contains(&group) => {
                let id = permitted(To::X_BACKEND).map(|()| BackendId::XBackend(name.clone()));
                // What may not be referred to has no say here: its policies are its owner's matter, and requests get 500.
                let x_backend = id.is_ok().then(|| name.clone());
                (id, x_backend)
            }
            _ => {
                let message = format!(
                    "backends of kind `{kind}` in group `{group}` are not supported; use a Service or an XBackend"
                );
                (Err(RefError::new("InvalidKind", message)), None)
            }
        }
    }
}

impl ResolvedRoute<'_> {
    /// The rules as one Gateway serves them.
    pub(super) fn rules(&self, engine: &Engine, gateway: &NamespacedName) -> impl Iterator<Item = RouteRule> {
        let gateway = gateway.clone();
        self.rules.iter().enumerate().map(move |(index, rule)| {
            let mut served = RouteRule {
                route: self.name.clone(),
                created: self.entry.meta.created,
                index,
                name: rule.name.clone(),
                matches: rule.matches.clone(),
                filters: rule.filters.clone(),
                backends: Vec::new(),
                timeouts: rule.timeouts,
            };
            if rule.unsupported.is_some() {
                // Never as if what is not supported were absent: 500.
                served.filters = Filters::default();
                let levels = engine.levels(&gateway, None);
                served.backends =
                    vec![WeightedBackend { backend: None, weight: 1, filters: Filters::default(), levels }];
                return served;
            }
            served.backends = rule
                .backends
                .iter()
                .map(|backend| WeightedBackend {
                    backend: backend.id.clone(),
                    weight: backend.weight,
                    filters: backend.filters.clone(),
                    levels: engine.levels(&gateway, backend.x_backend.as_ref()),
                })
                .collect();
            served
        })
    }

    /// The backends that its rules use.
    pub(super) fn backends(&self) -> impl Iterator<Item = &BackendId> {
        let rules = self.rules.iter().filter(|rule| rule.unsupported.is_none());
        rules.flat_map(|rule| &rule.backends).filter_map(|backend| backend.id.as_ref())
    }

    /// Everything that its rules name, usable or not.
    pub(super) fn named_backends(&self) -> impl Iterator<Item = &BackendId> {
        self.rules.iter().flat_map(|rule| &rule.backends).filter_map(|backend| backend.named.as_ref())
    }
}

/// The listeners to which a parentRef attaches the route, with the host names.
pub(super) fn attach(
    objects: &Objects,
    name: &NamespacedName,
    route: &Route,
    parent: &HttpRouteParentRefs,
    gateway_name: &NamespacedName,
    gateway: &GatewayState<'_>,
) -> Result<Vec<(usize, Vec<String>)>, RefError> {
    let section = parent.section_name.as_deref().filter(|section| !section.is_empty());
    let meant: Vec<_> = gateway
        .listeners
        .iter()
        .enumerate()
        .filter(|(_, listener)| section.is_none_or(|section| listener.spec.name == section))
        .filter(|(_, listener)| parent.port.is_none_or(|port| listener.spec.port == port))
        .collect();
    if meant.is_empty() {
        let message = format!(
            "Gateway `{gateway_name}` has no such listener; change sectionName or port of the parentRef"
        );
        return Err(RefError::new("NoMatchingParent", message));
    }
    let allowed: Vec<_> = meant
        .into_iter()
        .filter(|(_, listener)| listener.allows(objects, gateway_name, &name.namespace))
        .collect();
    if allowed.is_empty() {
        let message = format!(
            "no listener of Gateway `{gateway_name}` admits HTTPRoutes of namespace `{}`; change its allowedRoutes",
            name.namespace
        );
        return Err(RefError::new("NotAllowedByListeners", message));
    }
    let hostnames = route.spec.hostnames.as_deref().unwrap_or_default();
    let hostnames: Vec<_> = hostnames.iter().map(|hostname| hostname.to_ascii_lowercase()).collect();
    let attached: Vec<_> = allowed
        .into_iter()
        .filter_map(|(index, listener)| {
            Some((index, host::intersection(listener.hostname.as_deref(), &hostnames)?))
        })
        .collect();
    if attached.is_empty() {
        let message = format!(
            "no listener of Gateway `{gateway_name}` has a host name in common with the route; change hostnames"
        );
        return Err(RefError::new("NoMatchingListenerHostname", message));
    }
    Ok(attached)
}

pub(super) fn is_gateway(parent: &HttpRouteParentRefs) -> bool {
    parent.group.as_deref().unwrap_or(GATEWAY_GROUP) == GATEWAY_GROUP
        && parent.kind.as_deref().unwrap_or("Gateway") == "Gateway"
}

fn scope(gateway: &NamespacedName, parent: &HttpRouteParentRefs) -> Scope {
    Scope::Parent {
        gateway: gateway.clone(),
        reference: ParentRef {
            group: parent.group.clone(),
            kind: parent.kind.clone(),
            namespace: parent.namespace.clone(),
            name: parent.name.clone(),
            section_name: parent.section_name.clone(),
            port: parent.port,
        },
    }
}

/// Fields that change only how well a request is served.
fn is_harmless(path: &str) -> bool {
    path.ends_with("].retry") || path.ends_with("].sessionPersistence")
}

/// A regular expression of a match that does not compile.
fn unsupported_match(rule: &HttpRouteRules) -> Option<String> {
    crate::router::match_errors(rule.matches.iter().flatten()).next()
}

fn conditions(entry: &Entry<Route>, rules: &[ResolvedRule], accepted: Option<RefError>) -> Vec<Condition> {
    let broken: Vec<_> = rules
        .iter()
        .enumerate()
        .filter_map(|(index, rule)| {
            let of_backends = || rule.backends.iter().find_map(|backend| backend.unsupported.as_ref());
            let message = rule.unsupported.as_ref().or_else(of_backends)?;
            Some(format!("rule {index}: {message} (until then it answers 500)"))
        })
        .collect();
    let ignored: Vec<_> =
        entry.unknown.iter().filter(|path| is_harmless(path)).map(|path| format!("`{path}`")).collect();
    let mut message = "the route is accepted".to_owned();
    if !ignored.is_empty() {
        message = format!("{message}; not supported and without effect: {}", ignored.join(", "));
    }
    let all_broken = !broken.is_empty() && broken.len() == rules.len();
    let mut conditions = vec![match accepted {
        Some(error) => Condition::no("Accepted", error.reason, error.message),
        None if all_broken => Condition::no("Accepted", "UnsupportedValue", broken.join("; ")),
        None => Condition::yes("Accepted", "Accepted", message),
    }];
    let refs = rules.iter().flat_map(|rule| &rule.backends).find_map(|backend| backend.refs.as_ref());
    conditions.push(match refs {
        Some(error) => Condition::no("ResolvedRefs", error.reason, &error.message),
        None => Condition::yes("ResolvedRefs", "ResolvedRefs", "all references resolve"),
    });
    if !broken.is_empty() && !all_broken {
        conditions.push(Condition::yes("PartiallyInvalid", "UnsupportedValue", broken.join("; ")));
    }
    conditions
}
