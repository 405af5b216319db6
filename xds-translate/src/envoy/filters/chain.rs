//! The HTTP filters of one filter chain, and what each route tells them.
use std::collections::{BTreeMap, BTreeSet};

use authz_core::{DefaultAction, Levels};
use policy_model::{AuthorizerProtocol, ExternalAuth};
use serde_json::{Map, Value, json};

use super::super::{
    http::Http,
    json::{any, extension, set},
    processor::NAMESPACE,
};
use super::{
    Plan, Side,
    authorizer::{self, Asked, COMPATIBLE},
    cors,
    level::Level,
    mcp::{self, Kind},
    rules::{self, Place},
    test::{MCP, PEER, Test, own_flag},
};
use crate::{ClientCertificates, Listener, Protocol};

/// Names of filters.
pub(super) const MCP_FILTER: &str = "agentic.mcp";
const PEER_FILTER: &str = "agentic.peer";
const LUA_FILTER: &str = "agentic.lua";
const ADMISSION: &str = "agentic.admission";

/// One filter chain: an HTTPS listener's, or that of all HTTP listeners of a port.
#[derive(Debug)]
pub(super) struct Chain<'a> {
    pub(super) plan: &'a Plan<'a>,
    pub(super) name: String,
    pub(super) port: u16,
    pub(super) tls: bool,
    /// Indices in the snapshot.
    pub(super) listeners: BTreeSet<usize>,
    /// Whether a client's certificate gives an identity.
    identities: bool,
    /// Whom its levels ask.
    asked: Vec<Asked<'a>>,
}

impl<'a> Chain<'a> {
    pub(super) fn new(plan: &'a Plan<'a>, listeners: &[&Listener]) -> Self {
        let first = listeners.first();
        let port = first.map_or(0, |listener| listener.port);
        let tls = first.is_some_and(|listener| listener.protocol == Protocol::Https);
        let name = match first {
            Some(listener) if tls => format!("routes/{}", listener.name),
            _ => format!("routes/http-{port}"),
        };
        // Certificates that somebody else's roots verified give none.
        let identities = tls
            && listeners.iter().all(|listener| {
                listener.tls.as_ref().is_some_and(|tls| {
                    matches!(
                        tls.clients,
                        ClientCertificates::SpiffeRequired | ClientCertificates::SpiffeOptional
                    )
                })
            });
        let names: BTreeSet<&str> = listeners.iter().map(|listener| listener.name.as_str()).collect();
        let all = plan.snapshot.listeners.iter().enumerate();
        let listeners = all
            .filter(|(_, listener)| names.contains(listener.name.as_str()))
            .map(|(index, _)| index)
            .collect();
        let mut chain = Self { plan, name, port, tls, listeners, identities, asked: Vec::new() };
        chain.asked = chain.authorizers();
        chain
    }

    /// The levels of every backend that is reachable here, by listener.
    fn levels(&self) -> impl Iterator<Item = (&'a Listener, Levels)> {
        let snapshot = self.plan.snapshot;
        let listeners = self.listeners.iter().filter_map(|index| snapshot.listeners.get(*index));
        listeners.flat_map(move |listener| {
            let rules =
                listener.routes.iter().filter_map(|(id, _)| snapshot.rules.get(usize::try_from(id.0).ok()?));
            rules.flat_map(|rule| &rule.backends).map(move |weighted| (listener, weighted.levels))
        })
    }

    fn authorizers(&self) -> Vec<Asked<'a>> {
        let mut asked = BTreeSet::new();
        for (listener, levels) in self.levels() {
            for (side, level) in self.both(levels, Kind::Mcp, listener) {
                asked.extend(self.index_of(&level).map(|index| (side, index)));
            }
        }
        let known = [Side::Gateway, Side::Backend].into_iter();
        let known = known.flat_map(|side| authorizer::all(self.plan.snapshot, side));
        known.filter(|one| asked.contains(&(one.side, one.index))).collect()
    }

    /// Headers that rules look at. RBAC matches each line for itself, so that rules match only where each has one line.
    fn matched_headers(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for (_, levels) in self.levels() {
            for policy in self.plan.snapshot.engine.written(levels).into_iter().flatten() {
                names.extend(rules::headers(policy));
            }
        }
        names
    }

    fn index_of(&self, level: &Level) -> Option<usize> {
        let authorizer = level.authorizer.as_ref()?;
        self.plan.snapshot.engine.authorizers().iter().position(|known| known == authorizer)
    }

    /// Both levels as they apply to a request of that kind.
    fn both(&self, levels: Levels, kind: Kind, listener: &Listener) -> [(Side, Level); 2] {
        let place = Place { kind, port: listener.port, identities: self.identities };
        let [gateway, backend] = self.plan.snapshot.engine.written(levels).map(|policies| {
            let applicable = policies.into_iter().filter(|policy| policy.applies_to(&listener.name));
            // What Envoy cannot be told is closed.
            Level::of(applicable, place).unwrap_or_else(|_refused| Level::closed())
        });
        let (mut gateway, mut backend) = (gateway, backend);
        if self.plan.filters.default_action == DefaultAction::Deny {
            Level::deny_by_default(&mut gateway, &mut backend);
        }
        [(Side::Gateway, gateway), (Side::Backend, backend)]
    }

    /// Everything of the connection manager.
    pub(super) fn http(&self) -> Http {
        Http {
            filters: self.filters(),
            routes: self.routes(),
            client_chain: false,
            local_replies: Some(denials()),
        }
    }

    fn filters(&self) -> Vec<Value> {
        let max = self.plan.settings.max_body_bytes.min(MAX_PARSED);
        let mut filters = vec![
            extension(cors::FILTER, "envoy.extensions.filters.http.cors.v3.Cors", json!({})),
            extension(
                MCP_FILTER,
                "envoy.extensions.filters.http.mcp.v3.Mcp",
                json!({
                    "traffic_mode": "REJECT_NO_MCP",
                    "reject_duplicate_keys": true,
                    "max_request_body_size": max,
                    "parser_config": mcp::parser_config(!self.asked.is_empty()),
                }),
            ),
        ];
        if self.identities {
            filters.push(extension(
                PEER_FILTER,
                "envoy.extensions.filters.http.set_filter_state.v3.Config",
                json!({"on_request_headers": [{
                    "object_key": PEER,
                    "factory_key": "envoy.string",
                    "format_string": {"text_format_source": {"inline_string": "%DOWNSTREAM_PEER_URI_SAN%"}},
                    "read_only": true,
                }]}),
            ));
        }
        filters.push(extension(
            LUA_FILTER,
            "envoy.extensions.filters.http.lua.v3.Lua",
            json!({"default_source_code": {"inline_string": lua(self.tls, max, &self.matched_headers())}}),
        ));
        // What no route says is denied.
        let nothing = json!({"rules": allow(BTreeMap::new())});
        let rbac = "envoy.extensions.filters.http.rbac.v3.RBAC";
        for name in [ADMISSION, Side::Gateway.filter(), Side::Backend.filter()] {
            filters.push(extension(name, rbac, nothing.clone()));
        }
        filters.extend(self.asked.iter().map(|asked| asked.filter(self.plan.settings)));
        filters.push(extension(
            "envoy.filters.http.router",
            "envoy.extensions.filters.http.router.v3.Router",
            json!({"suppress_envoy_headers": true}),
        ));
        filters
    }

    /// The filters that decide.
    pub(super) fn filter_names(&self) -> Vec<String> {
        let mut names = vec![MCP_FILTER.to_owned(), LUA_FILTER.to_owned(), ADMISSION.to_owned()];
        if self.identities {
            names.push(PEER_FILTER.to_owned());
        }
        names.extend([Side::Gateway, Side::Backend].map(|side| side.filter().to_owned()));
        names.extend(self.asked.iter().map(Asked::name));
        names
    }

    /// What the filters are to do for a backend.
    pub(super) fn decide(
        &self,
        levels: Levels,
        kind: Kind,
        listener: &Listener,
        origins: &[String],
    ) -> Value {
        let both = self.both(levels, kind, listener);
        let delegated = Test::any(both.iter().map(|(_, level)| level.delegated.clone()));
        let denied = Test::any(both.iter().map(|(_, level)| level.denied.clone()));
        // What an authorizer would not see as it is.
        let unseen = both.iter().map(|(_, level)| match &level.authorizer {
            Some(ExternalAuth { protocol: AuthorizerProtocol::Grpc { .. }, .. }) => {
                level.delegated.clone().and(own_flag("ascii").negated())
            }
            _ => Test::Never,
        });
        // A server's MCP path, and what describes it, are what pages of other sites are kept from.
        let origin = match kind {
            Kind::Mcp | Kind::WellKnown => {
                cors::is_admitted(self.plan.filters.allowed_origins.iter().chain(origins))
            }
            Kind::Message | Kind::Unread => Test::Always,
        };
        let admitted = Test::all([
            mcp::admitted(kind),
            origin,
            denied.negated(),
            delegated.negated().or(mcp::is_whole(kind)),
            Test::any(unseen).negated(),
        ]);
        let mut configs = Map::new();
        let admission = BTreeMap::from([("admitted".to_owned(), admitted)]);
        configs.insert(ADMISSION.to_owned(), per_route(json!({"rules": allow(admission)})));
        for (side, level) in &both {
            let rules = level.allow.clone();
            let rules =
                rules.unwrap_or_else(|| BTreeMap::from([("no Allow rules".to_owned(), Test::Always)]));
            let shadow = BTreeMap::from([("delegated".to_owned(), level.delegated.clone())]);
            let config = json!({
                "rules": allow(rules),
                "shadow_rules": allow(shadow),
                "shadow_rules_stat_prefix": side.prefix(),
            });
            configs.insert(side.filter().to_owned(), per_route(config));
            let own = self.index_of(level);
            for asked in self.asked.iter().filter(|asked| asked.side == *side && Some(asked.index) != own) {
                configs.insert(asked.name(), Asked::off());
            }
        }
        Value::Object(configs)
    }

    /// Nothing is asked, everything is let through: only for a cluster that is not there.
    pub(super) fn decide_nothing(&self) -> Value {
        self.everywhere(&BTreeMap::from([("no backend".to_owned(), Test::Always)]))
    }

    pub(super) fn deny_everything(&self) -> Value {
        self.everywhere(&BTreeMap::new())
    }

    fn everywhere(&self, policies: &BTreeMap<String, Test>) -> Value {
        let mut configs = json!({});
        for name in [ADMISSION, Side::Gateway.filter(), Side::Backend.filter()] {
            set(&mut configs, name, per_route(json!({"rules": allow(policies.clone())})));
        }
        for asked in &self.asked {
            set(&mut configs, &asked.name(), Asked::off());
        }
        configs
    }
}

/// The most that Envoy's MCP filter reads.
const MAX_PARSED: u32 = 10 << 20;

/// An `RBAC` that allows what some policy says.
fn allow(policies: BTreeMap<String, Test>) -> Value {
    let policies: Map<String, Value> = policies
        .into_iter()
        .map(|(name, test)| (name, json!({"permissions": [{"any": true}], "principals": [test.principal()]})))
        .collect();
    json!({"action": "ALLOW", "policies": policies})
}

fn per_route(rbac: Value) -> Value {
    any("envoy.extensions.filters.http.rbac.v3.RBACPerRoute", json!({"rbac": rbac}))
}

/// What RBAC cannot see, and the message where authorizers of earlier versions read it.
fn lua(tls: bool, max_body_bytes: u32, matched: &BTreeSet<String>) -> String {
    // Names of headers hold no quotes.
    fn list<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
        names.into_iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
    }
    include_str!("guard.lua")
        .replace("@NAMESPACE@", NAMESPACE)
        .replace("@SCHEME@", if tls { "https" } else { "http" })
        .replace("@MAX@", &max_body_bytes.to_string())
        .replace("@PROTOCOL@", &list(mcp::SINGLE))
        .replace("@MATCHED@", &list(matched.iter().map(String::as_str)))
        .replace("@MCP@", MCP)
        .replace("@COMPATIBLE@", COMPATIBLE)
}

/// A denied request is answered as a JSON-RPC error with status 200, anything else with 403 (semantics, section 5).
fn denials() -> Value {
    let has = |key: &str| {
        let matcher = json!({"filter": MCP, "path": [{"key": key}], "value": {"present_match": true}});
        json!({"metadata_filter": {"matcher": matcher, "match_if_key_not_found": false}})
    };
    let forbidden = json!({"status_code_filter": {"comparison": {
        "op": "EQ",
        "value": {"default_value": 403, "runtime_key": "agentic.forbidden"},
    }}});
    let error = json!({"code": 403, "message": "Access to this tool is forbidden."});
    let id = format!("%DYNAMIC_METADATA({MCP}:id)%");
    json!({"mappers": [
        {
            "filter": {"and_filter": {"filters": [forbidden, has("method"), has("id")]}},
            "status_code": 200,
            "body_format_override": {
                "json_format": {"jsonrpc": "2.0", "id": id, "error": error},
                "content_type": "application/json",
            },
        },
        {
            "filter": {"and_filter": {"filters": [forbidden, has("method")]}},
            "body_format_override": {
                "json_format": {"jsonrpc": "2.0", "error": error},
                "content_type": "application/json",
            },
        },
        {
            "filter": forbidden,
            "body_format_override": {"text_format_source": {"inline_string": "Forbidden\n"}},
        },
    ]})
}
