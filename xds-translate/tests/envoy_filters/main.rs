//! Policies as Envoy's own filters: rules by hand as conditions, and what holds whatever the objects are.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on should fail there"
)]
#[path = "../support/mutate.rs"]
mod mutate;
mod routes;
mod rules;

use std::collections::BTreeSet;

use authz_core::DefaultAction;
use proptest::{prelude::*, sample::Index};
use serde_json::{Value, json};
use xds_translate::{
    Objects, Options, Resolution,
    envoy::{Filters, Policy, ResourceKind, Settings, Translation, translate},
    resolve,
};

use self::mutate::{junk, mutate};

const SEED: &str = include_str!("../manifests/seed.yaml");

/// A Gateway with one plain listener and one with identities, one XBackend, one Service, an authorizer.
const WORLD: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: c}
spec: {controllerName: sigs.k8s.io/kube-agentic-networking-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: g, namespace: n}
spec:
  gatewayClassName: c
  listeners:
  - {name: tls, protocol: HTTPS, port: 8443}
  - {name: plain, protocol: HTTP, port: 8080}
---
apiVersion: v1
kind: Service
metadata: {name: s, namespace: n}
spec: {ports: [{name: p, port: 80}]}
---
apiVersion: agentic.networking.x-k8s.io/v0alpha0
kind: XBackend
metadata: {name: b, namespace: n}
spec: {mcp: {serviceName: s, port: 80}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: n}
spec:
  parentRefs: [{name: g}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /b}}]
    filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /mcp}}}]
    backendRefs: [{group: agentic.networking.x-k8s.io, kind: XBackend, name: b}]
  - matches: [{path: {type: PathPrefix, value: /s}}]
    backendRefs: [{name: s, port: 80}]
---
"#;

/// A v1alpha1 policy on the XBackend with one rule.
fn rule(action: &str, rule: &str) -> String {
    format!(
        "apiVersion: agentic.networking.x-k8s.io/v1alpha1\nkind: XAccessPolicy\nmetadata: {{name: p, namespace: n}}\nspec:\n  \
         targetRefs: [{{group: agentic.networking.x-k8s.io, kind: XBackend, name: b}}]\n  action: {action}\n  rules:\n  - {{name: r, {rule}}}\n"
    )
}

fn settings(default_action: DefaultAction) -> Settings {
    Settings {
        policy: Policy::Filters(Filters { default_action, ..Filters::default() }),
        own: Some(xds_translate::envoy::OwnCertificate {
            chain: "/id.pem".to_owned(),
            key: "/id.pem".to_owned(),
            watched: None,
        }),
        bundles: [("cluster.local".to_owned(), String::new())].into(),
        ..Settings::default()
    }
}

fn resolved(text: &str) -> Resolution {
    let mut objects = Objects::default();
    objects.add_yaml("test.yaml", text).unwrap();
    resolve(&objects, &Options::default())
}

fn translated(text: &str, settings: &Settings) -> Translation {
    let resolution = resolved(text);
    translate(resolution.gateways.values().next().unwrap(), settings)
}

fn routes<'t>(translation: &'t Translation, name: &str) -> &'t Value {
    let named = |resource: &&xds_translate::envoy::Resource| {
        resource.kind == ResourceKind::Routes && resource.name == name
    };
    &translation.resources.iter().find(named).unwrap().json
}

/// The routes of a table that go to a cluster, with the path that each is for.
fn forwarding(table: &Value) -> Vec<(String, &Value)> {
    let hosts = table["virtual_hosts"].as_array().unwrap();
    let routes = hosts.iter().flat_map(|host| host["routes"].as_array().unwrap());
    routes
        .filter(|route| route.get("route").is_some())
        .map(|route| {
            let path = ["path", "path_separated_prefix", "prefix"]
                .into_iter()
                .find_map(|kind| Some(format!("{kind} {}", route["match"].get(kind)?.as_str().unwrap())));
            (path.unwrap_or_default(), route)
        })
        .collect()
}

fn cluster<'r>(table: &'r Value, path: &str) -> &'r Value {
    let found = forwarding(table);
    let (_, route) = found.iter().find(|(for_path, _)| for_path == path).unwrap();
    &route["route"]["weighted_clusters"]["clusters"][0]
}

/// A `StringMatcher`.
fn text(matcher: &Value) -> String {
    let (kind, value) = matcher.as_object().unwrap().iter().next().unwrap();
    match kind.as_str() {
        "safe_regex" => format!("~{}", value["regex"].as_str().unwrap()),
        "exact" => format!("={}", value.as_str().unwrap()),
        other => format!(" {other} {}", value.as_str().unwrap()),
    }
}

/// A `Principal` for people.
fn told(principal: &Value) -> String {
    let (kind, value) = principal.as_object().unwrap().iter().next().unwrap();
    let ids = |of: &Value| -> String {
        of["ids"].as_array().unwrap().iter().map(told).collect::<Vec<_>>().join(", ")
    };
    match kind.as_str() {
        "any" => "true".to_owned(),
        "not_id" => format!("not({})", told(value)),
        "and_ids" => format!("all({})", ids(value)),
        "or_ids" => format!("any({})", ids(value)),
        "url_path" => format!("path{}", text(&value["path"])),
        "filter_state" => format!("{}{}", value["key"].as_str().unwrap(), text(&value["string_match"])),
        "header" => {
            let name = value["name"].as_str().unwrap();
            value.get("string_match").map_or_else(|| format!("has {name}"), |m| format!("{name}{}", text(m)))
        }
        "sourced_metadata" => {
            let matcher = &value["metadata_matcher"];
            let keys: Vec<_> =
                matcher["path"].as_array().unwrap().iter().map(|key| key["key"].as_str().unwrap()).collect();
            let keys = keys.join(".");
            match &matcher["value"] {
                value if value.get("string_match").is_some() => {
                    format!("{keys}{}", text(&value["string_match"]))
                }
                value if value.get("present_match").is_some() => format!("has {keys}"),
                _ => format!("is {keys}"),
            }
        }
        other => panic!("{other}"),
    }
}

/// What an RBAC filter of a cluster allows (or, of shadow rules, delegates), policy by policy.
fn rules(cluster: &Value, filter: &str, which: &str) -> Vec<(String, String)> {
    let rules = &cluster["typed_per_filter_config"][filter]["rbac"][which];
    assert_eq!(rules["action"], "ALLOW");
    let policies = rules["policies"].as_object().unwrap();
    policies
        .iter()
        .map(|(name, policy)| {
            assert_eq!(policy["permissions"], json!([{"any": true}]));
            (name.clone(), told(&policy["principals"][0]))
        })
        .collect()
}

#[test]
fn origins_that_are_allowed_besides_the_hosts_own() {
    let mut settings = settings(DefaultAction::Allow);
    let filters = Filters { allowed_origins: vec!["https://App.example".to_owned()], ..Filters::default() };
    settings.policy = Policy::Filters(filters);
    let translation = translated(WORLD, &settings);
    let admitted = |path: &str| {
        let cluster = cluster(routes(&translation, "routes/tls"), path);
        let [(_, admitted)] = rules(cluster, "agentic.admission", "rules").try_into().unwrap();
        admitted
    };
    let found = admitted("path /b");
    assert!(found.contains(r"origin~(?i)https://App\.example(?::443)?"), "{found}");
    // A Service is not asked for origins.
    assert_eq!(admitted("path_separated_prefix /s"), "true");
}

/// Clients of an Envoy that nobody drains go by themselves.
#[test]
fn a_connection_has_its_longest_time() {
    let manager = |max_connection| {
        let policy = Policy::Filters(Filters { max_connection, ..Filters::default() });
        let translation = translated(WORLD, &Settings { policy, ..settings(DefaultAction::Allow) });
        let listener = |resource: &&xds_translate::envoy::Resource| resource.kind == ResourceKind::Listener;
        let listener = &translation.resources.iter().find(listener).unwrap().json;
        listener["filter_chains"][0]["filters"][0]["typed_config"].clone()
    };
    let limited = manager(Some(std::time::Duration::from_secs(60)));
    assert_eq!(limited["common_http_protocol_options"]["max_connection_duration"], "60s");
    assert_eq!(limited["http1_safe_max_connection_duration"], true);
    let open = manager(None);
    assert!(open["common_http_protocol_options"].get("max_connection_duration").is_none());
}

#[test]
fn a_plain_listener_knows_nobody() {
    let text =
        format!("{WORLD}{}", rule("Allow", "source: {type: ServiceAccount, serviceAccount: {name: a}}"));
    let translation = translated(&text, &settings(DefaultAction::Allow));
    let plain = cluster(routes(&translation, "routes/http-8080"), "path /b");
    assert_eq!(
        rules(plain, "agentic.backend", "rules"),
        [("n/p: rule r".to_owned(), "not(true)".to_owned())]
    );
    assert_eq!(rules(plain, "agentic.gateway", "rules"), [("no Allow rules".to_owned(), "true".to_owned())]);
}

#[test]
fn without_allow_rules_the_default_holds() {
    let allowing = translated(WORLD, &settings(DefaultAction::Allow));
    let open = cluster(routes(&allowing, "routes/tls"), "path /b");
    assert_eq!(rules(open, "agentic.gateway", "rules"), [("no Allow rules".to_owned(), "true".to_owned())]);
    let denying = translated(WORLD, &settings(DefaultAction::Deny));
    let closed = cluster(routes(&denying, "routes/tls"), "path /b");
    assert_eq!(rules(closed, "agentic.gateway", "rules"), [("delegated".to_owned(), "not(true)".to_owned())]);
}

const AUTHORIZER: &str = "\n---\napiVersion: agentic.networking.x-k8s.io/v1alpha1\nkind: XAccessPolicy\nmetadata: {name: e, namespace: n}\n\
    spec:\n  targetRefs: [{group: agentic.networking.x-k8s.io, kind: XBackend, name: b}]\n  action: ExternalAuth\n  \
    externalAuth: {protocol: GRPC, grpc: {}, backendRef: {name: s, port: 80}}\n  \
    rules: [{name: r, source: {type: SPIFFE, spiffe: 'spiffe://td/x'}, authorization: {type: Inline, headers: [{name: x-a, value: b}]}}]\n";

#[test]
fn what_cannot_be_told_is_asked_about() {
    let translation = translated(&format!("{WORLD}{AUTHORIZER}"), &settings(DefaultAction::Allow));
    let asked = cluster(routes(&translation, "routes/tls"), "path /b");
    assert_eq!(
        rules(asked, "agentic.backend", "shadow_rules"),
        [(
            "delegated".to_owned(),
            "all(agentic.peer=spiffe://td/x, is current, has x-a, any(x-a=b, not(all(is matched_single, not(x-a contains ,)))))"
                .to_owned()
        )]
    );
    let configs = asked["typed_per_filter_config"].as_object().unwrap();
    assert!(!configs.contains_key("agentic.ext_authz.backend.0"), "it is asked unless RBAC says no");
    let service = cluster(routes(&translation, "routes/tls"), "path_separated_prefix /s");
    let off = &service["typed_per_filter_config"]["agentic.ext_authz.backend.0"];
    assert_eq!(off["disabled"], true);
    let clusters: Vec<_> = translation.resources.iter().map(|resource| resource.name.as_str()).collect();
    assert!(clusters.contains(&"authorizer/grpc/n/s:80"), "{clusters:?}");
}

#[test]
fn an_authorizer_is_asked_about_texts_only_where_it_is_shown_them_as_they_are() {
    let http = AUTHORIZER.replace("protocol: GRPC, grpc: {}", "protocol: HTTP, http: {}");
    for (authorizer, expected) in [(AUTHORIZER, true), (&http, false)] {
        let translation = translated(&format!("{WORLD}{authorizer}"), &settings(DefaultAction::Allow));
        let asked = cluster(routes(&translation, "routes/tls"), "path /b");
        let admitted = rules(asked, "agentic.admission", "rules");
        assert_eq!(admitted[0].1.contains("not(is ascii)"), expected, "{admitted:?}");
    }
}

/// Path, and what becomes of it: the cluster and the path that it gets, or the status that Envoy answers.
#[test]
fn only_the_mcp_path_of_a_server_is_reachable() {
    let translation = translated(WORLD, &settings(DefaultAction::Allow));
    let table = routes(&translation, "routes/tls");
    let host = table["virtual_hosts"].as_array().unwrap();
    let [host] = host.as_slice() else { panic!("{host:?}") };
    let found: Vec<String> = host["routes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|route| {
            let matched = &route["match"];
            let path = ["path", "path_separated_prefix", "prefix", "safe_regex"]
                .into_iter()
                .find_map(|kind| matched.get(kind))
                .map(|path| path.get("regex").unwrap_or(path).as_str().unwrap().to_owned());
            let rewritten = &route["route"]["regex_rewrite"]["substitution"];
            let to = match route.get("direct_response") {
                Some(direct) => direct["status"].to_string(),
                None => {
                    route["route"]["weighted_clusters"]["clusters"][0]["name"].as_str().unwrap().to_owned()
                }
            };
            format!("{} -> {to} {}", path.unwrap(), rewritten.as_str().unwrap_or_default())
        })
        .skip_while(|route| route.contains("-> 40"))
        .collect();
    assert_eq!(found, ["/b -> xbackend/n/b /mcp", "/b -> 404 ", "/s -> service/n/s:80 ", "/ -> 404 "]);
}

#[test]
fn an_older_envoy_denies_everything() {
    let old = Settings { version: "1.38".parse().unwrap(), ..settings(DefaultAction::Allow) };
    let translation = translated(SEED, &old);
    let [status] = translation.refused.as_slice() else { panic!("{:?}", translation.refused) };
    assert_eq!(status.object.kind, "Gateway");
    assert!(status.conditions[0].message.contains("1.39"), "{:?}", status.conditions);
    for resource in translation.resources.iter().filter(|resource| resource.kind == ResourceKind::Routes) {
        assert_eq!(forwarding(&resource.json), []);
    }
}

/// Every `safe_regex` below a value.
fn regexes(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if name == "safe_regex" {
                    found.push(value["regex"].as_str().unwrap().to_owned());
                }
                regexes(value, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| regexes(item, found)),
        _ => {}
    }
}

/// What must hold of every translation: nothing goes to a server past the three filters, every filter that a route
/// configures is there, and no expression is one that Envoy would refuse.
fn is_sound(translation: &Translation) {
    let listeners = translation.resources.iter().filter(|resource| resource.kind == ResourceKind::Listener);
    for chain in listeners.flat_map(|listener| listener.json["filter_chains"].as_array().unwrap()) {
        let manager = &chain["filters"][0]["typed_config"];
        let filters: BTreeSet<&str> = manager["http_filters"]
            .as_array()
            .unwrap()
            .iter()
            .map(|filter| filter["name"].as_str().unwrap())
            .collect();
        let table = routes(translation, manager["rds"]["route_config_name"].as_str().unwrap());
        for (path, route) in forwarding(table) {
            for cluster in route["route"]["weighted_clusters"]["clusters"].as_array().unwrap() {
                let configs = cluster["typed_per_filter_config"].as_object().unwrap();
                for name in ["agentic.admission", "agentic.gateway", "agentic.backend"] {
                    assert!(configs[name]["rbac"]["rules"]["policies"].is_object(), "{path}: {name}");
                }
                assert!(configs.keys().all(|name| filters.contains(name.as_str())), "{path}: {configs:?}");
            }
        }
        let mut found = Vec::new();
        regexes(table, &mut found);
        for pattern in found {
            assert!(pattern.is_ascii() && pattern.len() < 200, "`{pattern}`");
            assert!(regex::Regex::new(&pattern).is_ok(), "`{pattern}`");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever arrives: no panic, the same twice, and sound.
    #[test]
    fn mutated_objects(
        mutations in prop::collection::vec((any::<Index>(), prop::collection::vec(any::<Index>(), 1..8), junk()), 0..6),
        shuffled in any::<prop::sample::Selector>(),
        deny in any::<bool>(),
    ) {
        let text = format!("{SEED}\n---\n{WORLD}{}{AUTHORIZER}", rule("Allow", "source: {type: SPIFFE, spiffe: 'spiffe://td/x'}"));
        let documents = serde_yaml_ng::Deserializer::from_str(&text);
        let mut objects: Vec<Value> =
            documents.map(|document| serde::Deserialize::deserialize(document).unwrap()).collect();
        for (object, path, to) in &mutations {
            let index = object.index(objects.len());
            mutate(&mut objects[index], path, to);
        }
        let settings = settings(if deny { DefaultAction::Deny } else { DefaultAction::Allow });
        let all = |objects: &[Value]| -> Vec<Translation> {
            let mut set = Objects::default();
            for object in objects {
                set.insert(object);
            }
            let resolution = resolve(&set, &Options::default());
            resolution.gateways.values().map(|snapshot| translate(snapshot, &settings)).collect()
        };
        let first = all(&objects);
        let offset = shuffled.select(0..objects.len());
        objects.rotate_left(offset);
        prop_assert_eq!(&first, &all(&objects));
        for translation in &first {
            is_sound(translation);
        }
    }
}
