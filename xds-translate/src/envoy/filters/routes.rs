//! Routes: a virtual host for each host pattern, our matches in our order, and what each may reach.
use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};

use gateway_api::httproutes::{
    HttpRouteRulesMatches, HttpRouteRulesMatchesHeadersType as HeaderType,
    HttpRouteRulesMatchesQueryParamsType as QueryType,
};
use http::HeaderName;
use serde_json::{Value, json};

use super::{
    super::{
        json::{any, duration, set},
        processor::cluster_name,
    },
    chain::Chain,
    mcp::Kind,
    path::Paths,
    regex::checked,
};
use crate::{
    BackendKind, Destination, HeaderFilter, Listener, PathRewrite, Redirect, RouteRule, WeightedBackend,
    router::{Specificity, covers},
};

/// What a backend is on a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reached {
    As(Kind),
    /// No such backend: 500.
    Missing,
    /// It is not reachable there.
    Not,
}

impl Chain<'_> {
    /// The `RouteConfiguration`.
    pub(super) fn routes(&self) -> Value {
        let hosts: Vec<Value> = self.domains().into_iter().map(|domain| self.virtual_host(domain)).collect();
        json!({
            "name": self.name,
            "virtual_hosts": hosts,
            // A backend that does not resolve is a cluster that is not there.
            "validate_clusters": false,
            "ignore_port_in_host_matching": true,
            // Filters of a rule come before those of its backendRefs.
            "most_specific_header_mutations_wins": true,
            "request_headers_to_remove": ["x-http-method-override"],
        })
    }

    /// Every host pattern that makes a difference; `None`: any host.
    fn domains(&self) -> BTreeSet<Option<String>> {
        let mut domains = BTreeSet::from([None]);
        domains.extend(self.on_port().map(|(_, listener)| listener.hostname.clone()));
        for index in &self.listeners {
            domains.extend(self.plan.router.matches(*index).into_keys());
        }
        domains
    }

    fn on_port(&self) -> impl Iterator<Item = (usize, &Listener)> {
        let listeners = self.plan.snapshot.listeners.iter().enumerate();
        listeners.filter(|(_, listener)| listener.port == self.port)
    }

    fn virtual_host(&self, domain: Option<String>) -> Value {
        let pattern = domain.as_deref();
        let mut routes = refusals();
        let listener = self
            .on_port()
            .filter_map(|(index, listener)| {
                let specificity = covers(listener.hostname.as_deref(), pattern)?;
                Some((specificity, std::cmp::Reverse(index)))
            })
            .max()
            .map(|(_, std::cmp::Reverse(index))| index);
        let own = listener.filter(|index| self.listeners.contains(index));
        match own.and_then(|index| Some((index, self.plan.snapshot.listeners.get(index)?))) {
            Some((index, listener)) => {
                let mut tables: Vec<(Specificity, Vec<(usize, usize)>)> = self
                    .plan
                    .router
                    .matches(index)
                    .into_iter()
                    .filter_map(|(host, matches)| Some((covers(host.as_deref(), pattern)?, matches)))
                    .collect();
                tables.sort_by_key(|table| std::cmp::Reverse(table.0));
                for (rule, position) in tables.into_iter().flat_map(|(_, matches)| matches) {
                    let Some(rule) = self.plan.snapshot.rules.get(rule) else { continue };
                    let Some(one) = rule.matches.get(position) else { continue };
                    self.add_match(&mut routes, listener, rule, one);
                }
                routes.push(answer(json!({"prefix": "/"}), 404, "no route matches"));
            }
            // TLS was opened for another name.
            None if self.tls => routes.push(answer(
                json!({"prefix": "/"}),
                421,
                "this host is not served on this connection; connect with it as the TLS server name",
            )),
            None => routes.push(answer(json!({"prefix": "/"}), 404, "no listener takes this host")),
        }
        for route in &mut routes {
            self.turn_off(route);
        }
        let domain = pattern.unwrap_or("*");
        json!({"name": domain, "domains": [domain], "routes": routes})
    }

    /// What is answered by Envoy itself is no decision: nothing but CORS looks at it.
    fn turn_off(&self, route: &mut Value) {
        let Some(fields) = route.as_object_mut().filter(|fields| !fields.contains_key("route")) else {
            return;
        };
        let configs = fields.entry("typed_per_filter_config").or_insert_with(|| json!({}));
        for name in self.filter_names() {
            set(configs, &name, off());
        }
    }

    fn add_match(
        &self,
        routes: &mut Vec<Value>,
        listener: &Listener,
        rule: &RouteRule,
        one: &HttpRouteRulesMatches,
    ) {
        let paths = Paths::of(one);
        let (matched, conditions) = match (paths.envoy(), conditions(one)) {
            (Ok(matched), Ok(conditions)) => (matched, conditions),
            (matched, conditions) => {
                // What it would have taken must not fall to a less specific match.
                let matched = matched.unwrap_or_else(|_unsaid| json!({"prefix": "/"}));
                let mut all = matched;
                if let Ok(conditions) = conditions {
                    merge(&mut all, conditions);
                }
                routes.push(answer(all, 500, "the route cannot be given to Envoy"));
                return;
            }
        };
        if conditions.get("query_parameters").is_some() {
            // Envoy compares parameters as they are written, we what they mean: what could match is refused.
            let mut all = matched.clone();
            merge(&mut all, conditions.clone());
            if let Some(fields) = all.as_object_mut() {
                fields.remove("query_parameters");
            }
            let escaped =
                json!({"name": ":path", "string_match": {"safe_regex": {"regex": r"[^?]*\?.*[%+].*"}}});
            merge(&mut all, json!({"headers": [escaped]}));
            routes.push(answer(all, 400, "escapes in a query that decides on the route"));
        }
        let with = |mut path: Value| {
            merge(&mut path, conditions.clone());
            path
        };
        let cors = |mut route: Value| {
            if let Some(cors) = &rule.filters.cors {
                merge(
                    &mut route,
                    json!({"typed_per_filter_config": {super::cors::FILTER: super::cors::policy(cors)}}),
                );
            }
            route
        };
        if let Some(to) = &rule.filters.redirect {
            let (modified, action) = (with(matched), redirect(to, &paths, self.port));
            let route = match action {
                Ok(action) => json!({"match": modified, "redirect": action}),
                Err(_unsaid) => answer(modified, 500, "the redirect cannot be given to Envoy"),
            };
            routes.push(cors(route));
            return;
        }
        let backends: Vec<&WeightedBackend> =
            rule.backends.iter().filter(|weighted| weighted.weight > 0).collect();
        if backends.is_empty() {
            routes.push(cors(answer(with(matched), 500, "the route has no backend")));
            return;
        }
        for variant in self.variants(&paths, rule, &backends) {
            let Ok(path) = variant.envoy() else { continue };
            for (split, reads) in self.splits(listener, &backends) {
                let mut path = with(path.clone());
                merge(&mut path, split);
                let route = self.forward(path, &variant, &paths, listener, rule, &backends, reads);
                routes.push(cors(route));
            }
        }
    }

    /// The paths of a match, so divided that each backend is reachable on all of a part or on none of it.
    fn variants(&self, paths: &Paths, rule: &RouteRule, backends: &[&WeightedBackend]) -> Vec<Paths> {
        let mut variants: Vec<Paths> = Vec::new();
        let mut add = |variant: Paths| {
            if !variants.contains(&variant) {
                variants.push(variant);
            }
        };
        let servers = || {
            backends.iter().filter_map(|weighted| match self.kind(weighted)? {
                BackendKind::XBackend { path } => Some((path, rewrite_of(rule, weighted))),
                BackendKind::Service => None,
            })
        };
        for (target, rewrite) in servers() {
            for origin in paths.origins(rewrite, target).unwrap_or_default() {
                add(Paths::Exact(origin));
            }
        }
        for (_, rewrite) in servers() {
            if let Some(well_known) = paths.well_known(rewrite) {
                add(well_known);
            }
        }
        add(paths.clone());
        variants
    }

    /// Further conditions that divide requests to a Service whose messages are looked at from others.
    fn splits(&self, listener: &Listener, backends: &[&WeightedBackend]) -> Vec<(Value, bool)> {
        let reads = backends.iter().any(|weighted| {
            self.kind(weighted) == Some(&BackendKind::Service)
                && self.plan.snapshot.engine.needs_body(weighted.levels, &listener.name)
        });
        if !reads {
            return vec![(json!({}), false)];
        }
        let posted = json!({"headers": [
            {"name": ":method", "string_match": {"exact": "POST"}},
            {"name": "content-type", "string_match": {"safe_regex": {"regex": "(?i).*json.*"}}},
        ]});
        vec![(posted, true), (json!({}), false)]
    }

    fn kind(&self, weighted: &WeightedBackend) -> Option<&BackendKind> {
        Some(&self.plan.snapshot.backends.get(weighted.backend.as_ref()?)?.kind)
    }

    fn reached(
        &self,
        weighted: &WeightedBackend,
        variant: &Paths,
        paths: &Paths,
        rewrite: Option<&PathRewrite>,
        reads: bool,
        listener: &Listener,
    ) -> Reached {
        let Some(kind) = self.kind(weighted) else { return Reached::Missing };
        match kind {
            BackendKind::Service
                if reads && self.plan.snapshot.engine.needs_body(weighted.levels, &listener.name) =>
            {
                Reached::As(Kind::Message)
            }
            BackendKind::Service => Reached::As(Kind::Unread),
            BackendKind::XBackend { path } => match (paths.origins(rewrite, path), variant) {
                (None, _) => Reached::As(Kind::Mcp),
                (Some(origins), Paths::Exact(exact)) if origins.contains(exact) => Reached::As(Kind::Mcp),
                _ if paths.well_known(rewrite).as_ref() == Some(variant) => Reached::As(Kind::WellKnown),
                _ => Reached::Not,
            },
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one route has as many causes")]
    fn forward(
        &self,
        matched: Value,
        variant: &Paths,
        paths: &Paths,
        listener: &Listener,
        rule: &RouteRule,
        backends: &[&WeightedBackend],
        reads: bool,
    ) -> Value {
        let mut rewriting = None;
        let mut clusters = Vec::new();
        let mut kinds = Vec::new();
        for weighted in backends {
            let rewrite = rewrite_of(rule, weighted);
            let mut reached = self.reached(weighted, variant, paths, rewrite, reads, listener);
            if let Reached::As(kind) = reached {
                // All of a route is rewritten alike: what would be rewritten otherwise is not reachable.
                match (variant.rewriting(paths, rewrite), &rewriting) {
                    (Ok(own), None) => {
                        rewriting = Some(own);
                        kinds.push(kind);
                    }
                    (Ok(own), Some(first)) if own == *first => kinds.push(kind),
                    _ => reached = Reached::Not,
                }
            }
            clusters.push(self.cluster(weighted, rule, reached, listener));
        }
        if kinds.is_empty() && !backends.iter().any(|weighted| self.kind(weighted).is_none()) {
            return answer(matched, 404, "only the MCP path of this backend is reachable");
        }
        let timeout = [rule.timeouts.request, rule.timeouts.backend_request].into_iter().flatten().min();
        let mut action = json!({
            "weighted_clusters": {"clusters": clusters},
            "cluster_not_found_response_code": "INTERNAL_SERVER_ERROR",
            // Event streams live long and are silent for long.
            "timeout": duration(timeout.unwrap_or(Duration::ZERO)),
            "idle_timeout": "0s",
        });
        if let Some((field, value)) = rewriting.flatten() {
            set(&mut action, field, value);
        }
        let mut route = json!({"match": matched, "route": action});
        modify(&mut route, &rule.filters.request_headers, &rule.filters.response_headers);
        let forwarded = json!({
            "header": {"key": "x-forwarded-for", "value": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"},
            "append_action": "APPEND_IF_EXISTS_OR_ADD",
        });
        merge(&mut route, json!({"request_headers_to_add": [forwarded]}));
        // Only what is to be a message is held to be one.
        let is_read = kinds.iter().any(|kind| matches!(kind, Kind::Mcp | Kind::Message));
        if !is_read {
            merge(&mut route, json!({"typed_per_filter_config": {super::chain::MCP_FILTER: off()}}));
        }
        route
    }

    /// One of the clusters of a route, with the policies that apply to it.
    fn cluster(
        &self,
        weighted: &WeightedBackend,
        rule: &RouteRule,
        reached: Reached,
        listener: &Listener,
    ) -> Value {
        let backend = weighted.backend.as_ref().and_then(|id| self.plan.snapshot.backends.get(id));
        let name = backend.map_or_else(|| "none".to_owned(), |backend| cluster_name(&backend.id));
        let mut cluster = json!({"name": name, "weight": weighted.weight});
        let host = weighted.filters.hostname.as_ref().or(rule.filters.hostname.as_ref());
        let host = match (host, backend.map(|backend| &backend.destination)) {
            (Some(host), _) => Some(host.clone()),
            (None, Some(Destination::Hostname { host, port: 443 })) => Some(host.clone()),
            (None, Some(Destination::Hostname { host, port })) => Some(format!("{host}:{port}")),
            (None, _) => None,
        };
        if let Some(host) = host {
            set(&mut cluster, "host_rewrite_literal", json!(host));
        }
        modify(&mut cluster, &weighted.filters.request_headers, &weighted.filters.response_headers);
        let configs = match reached {
            Reached::As(kind) => {
                let origins = rule.filters.cors.as_ref().map(|cors| cors.allow_origins.as_slice());
                self.decide(weighted.levels, kind, listener, origins.unwrap_or_default())
            }
            // Nothing is forwarded; the router answers.
            Reached::Missing => self.decide_nothing(),
            Reached::Not => self.deny_everything(),
        };
        set(&mut cluster, "typed_per_filter_config", configs);
        cluster
    }
}

fn rewrite_of<'r>(rule: &'r RouteRule, weighted: &'r WeightedBackend) -> Option<&'r PathRewrite> {
    weighted.filters.path.as_ref().or(rule.filters.path.as_ref())
}

/// A filter that is turned off on a route.
fn off() -> Value {
    any("envoy.config.route.v3.FilterConfig", json!({"disabled": true}))
}

/// A route that Envoy answers itself.
fn answer(matched: Value, status: u16, text: &str) -> Value {
    json!({
        "match": matched,
        "direct_response": {"status": status, "body": {"inline_string": format!("{text}\n")}},
        "response_headers_to_add": [{
            "header": {"key": "content-type", "value": "text/plain"},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }],
    })
}

/// What is refused on every route (semantics, last row of section 5).
fn refusals() -> Vec<Value> {
    const PATHS: [(&str, &str); 5] = [
        (".*//.*", "the path holds `//`"),
        ("(?i).*%(?:2f|5c|00).*", "the path holds `%2f`, `%5c` or `%00`"),
        (r".*\\.*", "the path holds a backslash"),
        (r".*%(?:[^0-9A-Fa-f].*|[0-9A-Fa-f](?:[^0-9A-Fa-f].*)?)?", "the path holds a broken percent-escape"),
        (r"(?i).*/(?:\.|%2e){1,2}(?:(?:;|%3b)[^/]*)?(?:/.*)?", "the path holds a dot segment"),
    ];
    let mut routes: Vec<Value> = PATHS
        .iter()
        .map(|(pattern, text)| answer(json!({"safe_regex": {"regex": pattern}}), 400, text))
        .collect();
    let host = r"(?:[\w-]+(?:\.[\w-]+)*|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?";
    // Numbers of five digits that are no port.
    let no_port = r".*:(?:[07-9]\d{4}|6[6-9]\d{3}|65[6-9]\d\d|655[4-9]\d|6553[6-9])";
    for (regex, inverted) in [(host, true), (no_port, false)] {
        let headers = json!([{
            "name": ":authority",
            "string_match": {"safe_regex": {"regex": regex}},
            "invert_match": inverted,
        }]);
        let text = "the Host header is no host name with an optional port";
        routes.push(answer(json!({"prefix": "/", "headers": headers}), 400, text));
    }
    let headers = json!([{"name": ":method", "string_match": {"exact": "TRACE"}}]);
    routes.push(answer(json!({"prefix": "/", "headers": headers}), 405, "CONNECT and TRACE are not served"));
    routes
}

/// Method, headers and query parameters of a match.
///
/// # Errors
/// An expression that Envoy cannot be given.
fn conditions(one: &HttpRouteRulesMatches) -> Result<Value, String> {
    let exact = |value: &str| json!({"exact": value});
    let regex = |pattern: &str| checked(pattern).map(|pattern| json!({"safe_regex": {"regex": pattern}}));
    let mut headers = Vec::new();
    if let Some(method) = &one.method {
        let name = serde_json::to_value(method).map_err(|error| error.to_string())?;
        headers.push(json!({"name": ":method", "string_match": {"exact": name}}));
    }
    let mut names: HashSet<HeaderName> = HashSet::new();
    for header in one.headers.iter().flatten() {
        let Ok(name) = HeaderName::from_bytes(header.name.as_bytes()) else {
            return Err(format!("`{}` is no header name", header.name));
        };
        let text = match header.r#type {
            None | Some(HeaderType::Exact) => exact(&header.value),
            Some(HeaderType::RegularExpression) => regex(&header.value)?,
        };
        // Of entries with an equivalent name only the first counts.
        if !names.insert(name.clone()) {
            continue;
        }
        // Envoy has the host in a header of its own.
        let envoys = if name == http::header::HOST { ":authority" } else { name.as_str() };
        headers.push(json!({"name": envoys, "string_match": text}));
    }
    let mut params: Vec<Value> = Vec::new();
    let mut seen = BTreeSet::new();
    for param in one.query_params.iter().flatten() {
        let text = match param.r#type {
            None | Some(QueryType::Exact) => exact(&param.value),
            Some(QueryType::RegularExpression) => regex(&param.value)?,
        };
        if seen.insert(&param.name) {
            params.push(json!({"name": param.name, "string_match": text}));
        }
    }
    let mut conditions = json!({});
    if !headers.is_empty() {
        set(&mut conditions, "headers", json!(headers));
    }
    if !params.is_empty() {
        set(&mut conditions, "query_parameters", json!(params));
    }
    Ok(conditions)
}

/// A `RedirectAction`.
///
/// # Errors
/// A prefix that is too long for Envoy.
fn redirect(to: &Redirect, paths: &Paths, port: u16) -> Result<Value, String> {
    let code = match to.status {
        301 => "MOVED_PERMANENTLY",
        303 => "SEE_OTHER",
        307 => "TEMPORARY_REDIRECT",
        308 => "PERMANENT_REDIRECT",
        _ => "FOUND",
    };
    // Gateway API: without `port`, the well-known port of a scheme that is given, else the listener's.
    let port = match (to.port, to.scheme.as_deref()) {
        (Some(port), _) => port,
        (None, Some("http")) => 80,
        (None, Some(_)) => 443,
        (None, None) => port,
    };
    let mut action = json!({"response_code": code, "port_redirect": port});
    if let Some(scheme) = &to.scheme {
        set(&mut action, "scheme_redirect", json!(scheme));
    }
    if let Some(host) = &to.hostname {
        set(&mut action, "host_redirect", json!(host));
    }
    match &to.path {
        None => {}
        Some(PathRewrite::Full(path)) => {
            let path = if path.starts_with('/') { path.clone() } else { format!("/{path}") };
            set(&mut action, "path_redirect", json!(path));
        }
        Some(rewrite) => {
            if let Some((field, value)) = paths.rewriting(paths, Some(rewrite))? {
                set(&mut action, field, value);
            }
        }
    }
    Ok(action)
}

/// Header changes of a route or one of its clusters.
fn modify(holder: &mut Value, request: &HeaderFilter, response: &HeaderFilter) {
    for (filter, direction) in [(request, "request"), (response, "response")] {
        let entry = |name: &HeaderName, value: &http::HeaderValue, action: &str| {
            // Envoy reads formatters in values.
            let value = String::from_utf8_lossy(value.as_bytes()).replace('%', "%%");
            json!({
                "header": {"key": name.as_str(), "value": value},
                "append_action": action,
                "keep_empty_value": true,
            })
        };
        let kept = |name: &HeaderName| !filter.remove.contains(name);
        let set = filter.set.iter().filter(|(name, _)| kept(name));
        let set = set.map(|(name, value)| entry(name, value, "OVERWRITE_IF_EXISTS_OR_ADD"));
        let add = filter.add.iter().filter(|(name, _)| kept(name));
        let add = add.map(|(name, value)| entry(name, value, "APPEND_IF_EXISTS_OR_ADD"));
        let headers: Vec<Value> = set.chain(add).collect();
        let removed: Vec<&str> = filter.remove.iter().map(HeaderName::as_str).collect();
        let mut changes = json!({});
        if !headers.is_empty() {
            self::set(&mut changes, &format!("{direction}_headers_to_add"), json!(headers));
        }
        if !removed.is_empty() {
            self::set(&mut changes, &format!("{direction}_headers_to_remove"), json!(removed));
        }
        merge(holder, changes);
    }
}

/// Adds the fields of one message to another; lists are joined, messages merged.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                match into.get_mut(&name) {
                    Some(present) => merge(present, value),
                    None => {
                        into.insert(name, value);
                    }
                }
            }
        }
        (Value::Array(into), Value::Array(from)) => into.extend(from),
        (into, from) => *into = from,
    }
}
