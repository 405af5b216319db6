//! What Envoy gets by discovery, and what it says to it.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use authz_core::DefaultAction;
use command_line::ResolveTo;
use policy_model::NamespacedName;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use spiffe_id::TrustDomain;
use xds_server::{Report, Resource};
use xds_translate::{
    ObjectStatus, Snapshot,
    envoy::{Engine, Filters, Policy, Processor, Resolve, ResourceKind, Settings, Version, translate},
    native,
};

use crate::{
    envoy::encode,
    provision::{self, DataPlane, EnvoyPolicy, Proxy},
};

/// What an Envoy asks for whatever its configuration.
const ALWAYS: [ResourceKind; 2] = [ResourceKind::Cluster, ResourceKind::Listener];
/// What it asks for by the names that these hold.
const NAMED: [ResourceKind; 3] = [ResourceKind::Endpoints, ResourceKind::Routes, ResourceKind::Secret];
/// How long the engine may take besides asking authorizers.
const DECIDING: Duration = Duration::from_secs(6);

type Resources = BTreeMap<Arc<str>, Resource>;

/// How a Gateway is put to Envoy.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    /// Whether Envoy is the data plane. Where it was, those that still run get what changes to their end.
    pub(super) serves: bool,
    pub(super) settings: Arc<Settings>,
}

impl Plan {
    /// Whether the engine decides, and is to have the objects.
    pub(super) fn has_engine(&self) -> bool {
        matches!(self.settings.policy, Policy::Engine(_))
    }
}

/// The Envoys of a Gateway that are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Connected {
    /// Whether there is one that has no engine beside it.
    pub(super) alone: bool,
}

/// What is remembered of the Gateways that Envoy serves.
#[derive(Debug)]
pub(super) struct Envoys {
    default: Version,
    default_action: DefaultAction,
    trust_domain: TrustDomain,
    gateways: BTreeMap<NamespacedName, Made>,
}

/// Of one Gateway.
#[derive(Debug)]
struct Made {
    settings: Arc<Settings>,
    /// Whether Envoy is the data plane.
    serves: bool,
    /// By type and name: what it was made from, and what it is.
    resources: BTreeMap<(ResourceKind, String), (Value, Resource)>,
    /// Listeners that Envoy cannot serve, and why.
    unserved: BTreeMap<String, String>,
    /// What Envoy alone cannot be told.
    refused: Arc<[ObjectStatus]>,
}

impl Envoys {
    /// `default`: the version where a class names no image.
    pub(super) fn new(default: Version, default_action: DefaultAction, trust_domain: &TrustDomain) -> Self {
        Self { default, default_action, trust_domain: trust_domain.clone(), gateways: BTreeMap::new() }
    }

    /// How a Gateway is put to Envoy; `None` where no Envoy serves it. `proxy`: how its proxies are to run, if that is known;
    /// `connected`: the Envoys of this Gateway that are; `roots`: whose identities are accepted (PEM).
    ///
    /// Where the engine is to decide from now on, an Envoy that still runs without one would deny everything until its end:
    /// all are told of filters until it has gone. What it says of itself only prolongs what this Gateway had.
    pub(super) fn plan(
        &mut self,
        gateway: &NamespacedName,
        proxy: Option<&Proxy>,
        connected: Option<Connected>,
        roots: &str,
    ) -> Option<Plan> {
        let wanted = proxy.and_then(|proxy| Some((proxy, envoy_of(&proxy.data_plane)?)));
        let known = self.gateways.get(gateway).map(|made| Arc::clone(&made.settings));
        let settings = match (wanted, known) {
            (Some((proxy, envoy)), known) => {
                let version = envoy.image.as_ref().map_or(self.default, |image| image.version);
                let was_alone = known.is_some_and(|known| matches!(known.policy, Policy::Filters(_)));
                let policy = match envoy.policy {
                    EnvoyPolicy::Engine if was_alone && connected.is_some_and(|envoys| envoys.alone) => {
                        EnvoyPolicy::Filters
                    }
                    wanted => wanted,
                };
                self.settings(version, policy, &proxy.flags)
            }
            (None, Some(known)) if connected.is_some() => Settings::clone(&known),
            (None, None) if let Some(connected) = connected => {
                let policy = if connected.alone { EnvoyPolicy::Filters } else { EnvoyPolicy::Engine };
                self.settings(self.default, policy, &[])
            }
            (None, _) => {
                self.gateways.remove(gateway);
                return None;
            }
        };
        let bundles = BTreeMap::from([(self.trust_domain.as_str().to_owned(), roots.to_owned())]);
        let settings = Arc::new(Settings { bundles, ..settings });
        let serves = wanted.is_some();
        let made = self.gateways.entry(gateway.clone()).or_insert_with(|| Made {
            settings: Arc::clone(&settings),
            serves,
            resources: BTreeMap::new(),
            unserved: BTreeMap::new(),
            refused: Arc::default(),
        });
        (made.settings, made.serves) = (Arc::clone(&settings), serves);
        Some(Plan { serves, settings })
    }

    /// As the Pods are provisioned.
    fn settings(&self, version: Version, policy: EnvoyPolicy, flags: &[String]) -> Settings {
        let flag = |name: &str| flags.iter().find_map(|flag| flag.strip_prefix(name)?.strip_prefix('='));
        let list = |name: &str| flag(name).into_iter().flat_map(|values| values.split(','));
        let defaults = Settings::default();
        let authorizer_timeout = flag("--authorizer-timeout")
            .and_then(|time| command_line::parse_duration(time).ok())
            .unwrap_or(defaults.authorizer_timeout);
        let policy = match policy {
            EnvoyPolicy::Engine => Policy::Engine(Engine {
                processor: Processor::Socket(provision::decide_socket().to_owned()),
                // Of the Gateway and of the backend.
                message_timeout: DECIDING + 2 * authorizer_timeout,
            }),
            EnvoyPolicy::Filters => Policy::Filters(Filters {
                default_action: self.default_action,
                allowed_origins: list("--allowed-origins").map(str::to_owned).collect(),
                max_connection: Some(provision::ALONE_CONNECTION),
            }),
        };
        Settings {
            version,
            // The engine resolves names itself.
            resolve: match policy {
                Policy::Engine(_) => Vec::new(),
                Policy::Filters(_) => list("--resolve").filter_map(resolution).collect(),
            },
            policy,
            own: Some(provision::own_certificate()),
            max_body_bytes: flag("--max-body-bytes")
                .and_then(|bytes| bytes.parse().ok())
                .unwrap_or(defaults.max_body_bytes),
            authorizer_timeout,
            ..defaults
        }
    }

    /// Everything that Envoy is to have, by type; types without resources are among them. What did not change is not
    /// encoded again.
    pub(super) fn resources(
        &mut self,
        gateway: &NamespacedName,
        snapshot: &Snapshot,
        settings: &Settings,
    ) -> BTreeMap<Arc<str>, Resources> {
        let mut types: BTreeMap<Arc<str>, Resources> =
            ALWAYS.into_iter().chain(NAMED).map(|kind| (kind.type_url().into(), Resources::new())).collect();
        let Some(made) = self.gateways.get_mut(gateway) else { return types };
        let mut before = std::mem::take(&mut made.resources);
        let translation = translate(snapshot, settings);
        made.unserved =
            translation.unserved.into_iter().map(|unserved| (unserved.listener, unserved.reason)).collect();
        made.refused = translation.refused.into();
        for resource in translation.resources {
            let key = (resource.kind, resource.name.clone());
            let encoded = match before.remove(&key) {
                Some((json, encoded)) if json == resource.json => encoded,
                _ => match encode::resource(&resource) {
                    Ok(encoded) => encoded,
                    Err(error) => {
                        // Envoy goes without it: what refers to it answers nothing or 503.
                        tracing::error!(%gateway, resource = resource.name, %error, "a resource of Envoy's cannot be encoded, which is a bug");
                        continue;
                    }
                },
            };
            if let Some(of_type) = types.get_mut(resource.kind.type_url()) {
                of_type.insert(resource.name.as_str().into(), encoded.clone());
            }
            made.resources.insert(key, (resource.json, encoded));
        }
        types
    }

    /// Listeners that Envoy cannot serve, and why, by Gateway.
    pub(super) fn unserved(&self) -> BTreeMap<NamespacedName, BTreeMap<String, String>> {
        let with_some = self.gateways.iter().filter(|(_, made)| made.serves && !made.unserved.is_empty());
        with_some.map(|(gateway, made)| (gateway.clone(), made.unserved.clone())).collect()
    }

    /// Policies that Envoy alone cannot be told, by Gateway.
    pub(super) fn refused(&self) -> BTreeMap<NamespacedName, Arc<[ObjectStatus]>> {
        let with_some = self.gateways.iter().filter(|(_, made)| made.serves && !made.refused.is_empty());
        with_some.map(|(gateway, made)| (gateway.clone(), Arc::clone(&made.refused))).collect()
    }

    /// Forgets the Gateways that are not among these.
    pub(super) fn retain(&mut self, gateways: &BTreeSet<NamespacedName>) {
        self.gateways.retain(|gateway, _| gateways.contains(gateway));
    }
}

fn envoy_of(data_plane: &DataPlane) -> Option<&provision::Envoy> {
    match data_plane {
        DataPlane::Envoy(envoy) => Some(envoy),
        DataPlane::Native => None,
    }
}

/// `HOST:PORT:IP` or `HOST:PORT:IP:PORT`, as the parameters have it.
fn resolution(text: &str) -> Option<Resolve> {
    let ResolveTo { host, port, address } = text.parse().ok()?;
    Some(Resolve { host, port, address })
}

/// Whether the streams of a Pod are of an Envoy that has no engine beside it.
pub(super) fn is_alone(reports: &[Report]) -> bool {
    reports.iter().any(|report| *report.cluster == *provision::ALONE)
}

/// The version of all that Envoy is to have, from the versions of the types.
pub(super) fn version(version_of: impl Fn(&str) -> Arc<str>) -> String {
    let mut hash = Sha256::new();
    let types = ALWAYS.into_iter().chain(NAMED).map(ResourceKind::type_url);
    for type_url in types {
        // All of one length.
        hash.update(version_of(type_url).as_bytes());
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// What a Pod with an Envoy in it says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Said {
    /// The version of everything, if all of it was acknowledged.
    pub(super) acknowledged: Option<String>,
    /// Refusals of what is current.
    pub(super) refused: Vec<(String, String)>,
}

/// What the streams of one Pod say together; `None` if there is no Envoy in it. `version_of`: of a type, now.
pub(super) fn said(reports: &[Report], version_of: impl Fn(&str) -> Arc<str>) -> Option<Said> {
    let asked = |type_url: &str| reports.iter().any(|report| report.asked.contains(type_url));
    if !ALWAYS.into_iter().any(|kind| asked(kind.type_url())) {
        return None;
    }
    let has = |type_url: &str| {
        let current = version_of(type_url);
        reports.iter().any(|report| report.acknowledged.get(type_url) == Some(&current))
    };
    let everything = version(&version_of);
    // The engine's stream may be another replica's: what it acknowledged is told by itself.
    let complete = ALWAYS.into_iter().all(|kind| has(kind.type_url()))
        && NAMED.into_iter().all(|kind| has(kind.type_url()) || !asked(kind.type_url()));
    let kinds = ALWAYS.into_iter().chain(NAMED).map(|kind| (kind.type_url(), what(kind)));
    let refused = kinds.chain([(native::OBJECT, "the engine beside Envoy")]).flat_map(|(type_url, who)| {
        let current = version_of(type_url);
        let nacks = reports.iter().filter_map(move |report| report.refused.get(type_url));
        let everything = everything.clone();
        nacks
            .filter(move |nack| nack.version == current)
            .map(move |nack| (everything.clone(), format!("{who}: {}", nack.message)))
    });
    let refused = refused.collect();
    Some(Said { acknowledged: complete.then_some(everything), refused })
}

fn what(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Cluster => "Envoy, of clusters",
        ResourceKind::Endpoints => "Envoy, of endpoints",
        ResourceKind::Listener => "Envoy, of listeners",
        ResourceKind::Routes => "Envoy, of routes",
        ResourceKind::Secret => "Envoy, of certificates",
    }
}

#[cfg(test)]
mod tests {
    use xds_server::Nack;

    use super::*;

    const CDS: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    const LDS: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
    const RDS: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";

    /// One stream: what it asked for, what it acknowledged, what it refused, as `CDS=version` each.
    fn report(asked: &[&str], acknowledged: &[(&str, &str)], refused: &[(&str, &str)]) -> Report {
        let nack = |version: &str| Nack { version: version.into(), message: "`a` is no good".to_owned() };
        Report {
            group: "ns/g".into(),
            address: [10, 0, 0, 1].into(),
            cluster: "".into(),
            asked: asked.iter().map(|&asked| asked.into()).collect(),
            acknowledged: acknowledged.iter().map(|&(url, version)| (url.into(), version.into())).collect(),
            refused: refused.iter().map(|&(url, version)| (url.into(), nack(version))).collect(),
        }
    }

    /// Version 2 of every type is current.
    #[track_caller]
    fn check(reports: &[Report], complete: bool, refused: &[&str]) {
        let said = said(reports, |_| "2".into()).unwrap();
        let everything = version(|_| "2".into());
        assert_eq!(said.acknowledged, complete.then(|| everything.clone()));
        let expected: Vec<_> = refused.iter().map(|&text| (everything.clone(), text.to_owned())).collect();
        assert_eq!(said.refused, expected);
    }

    #[test]
    fn an_envoy_has_everything_when_it_has_all_types_that_it_asks_for() {
        let object = |version| report(&[native::OBJECT], &[(native::OBJECT, version)], &[]);
        let envoy = |rds| report(&[CDS, LDS, RDS], &[(CDS, "2"), (LDS, "2"), (RDS, rds)], &[]);
        check(&[envoy("2"), object("2")], true, &[]);
        check(&[envoy("1"), object("2")], false, &[]);
        check(&[envoy("2"), object("1")], true, &[]);
        check(&[envoy("2")], true, &[]);
        // Asked for and not there yet; not asked for (any more).
        check(&[report(&[CDS, LDS, RDS], &[(CDS, "2"), (LDS, "2")], &[]), object("2")], false, &[]);
        check(&[report(&[CDS, LDS], &[(CDS, "2"), (LDS, "2"), (RDS, "1")], &[]), object("2")], true, &[]);
        // Our own gateway.
        assert_eq!(said(&[object("2")], |_| "2".into()), None);
    }

    #[test]
    fn refusals_count_while_what_was_refused_is_current() {
        let refusing = |version| report(&[CDS, LDS], &[(CDS, "2")], &[(LDS, version)]);
        check(&[refusing("2")], false, &["Envoy, of listeners: `a` is no good"]);
        check(&[refusing("1")], false, &[]);
        let engine = report(&[native::OBJECT], &[], &[(native::OBJECT, "2")]);
        check(&[refusing("1"), engine], false, &["the engine beside Envoy: `a` is no good"]);
    }

    #[test]
    fn the_version_of_everything_depends_on_each_type() {
        let but = |type_url: &'static str| {
            version(move |other| if other == type_url { "1".into() } else { "2".into() })
        };
        let versions: BTreeSet<_> = [CDS, LDS, RDS, "none"].map(but).into();
        assert_eq!(versions.len(), 4);
    }

    fn envoys() -> Envoys {
        Envoys::new(Version::NEWEST, DefaultAction::Deny, &"cluster.local".parse().unwrap())
    }

    #[test]
    fn settings_of_parameters() {
        let version = "1.39".parse().unwrap();
        let flags = [
            "--max-body-bytes=2048",
            "--authorizer-timeout=500ms",
            "--resolve=a.example:443:10.1.2.3,b.example:443:[fd00::1]:8443",
            "--allowed-origins=https://a.example,http://b.example:8080",
        ];
        let flags = flags.map(str::to_owned);
        let with_engine = envoys().settings(version, EnvoyPolicy::Engine, &flags);
        assert_eq!((with_engine.version, with_engine.max_body_bytes), (version, 2048));
        assert_eq!(with_engine.authorizer_timeout, Duration::from_millis(500));
        assert_eq!(with_engine.resolve, []);
        let Policy::Engine(engine) = with_engine.policy else { panic!("{:?}", with_engine.policy) };
        assert_eq!(engine.message_timeout, Duration::from_secs(7));
        assert_eq!(engine.processor, Processor::Socket("/run/agentic-decide/decide.sock".to_owned()));
        let alone = envoys().settings(version, EnvoyPolicy::Filters, &flags);
        assert_eq!((alone.version, alone.max_body_bytes), (version, 2048));
        let to = |host: &str, address: &str| Resolve {
            host: host.to_owned(),
            port: 443,
            address: address.parse().unwrap(),
        };
        assert_eq!(alone.resolve, [to("a.example", "10.1.2.3:443"), to("b.example", "[fd00::1]:8443")]);
        let filters = Filters {
            default_action: DefaultAction::Deny,
            allowed_origins: vec!["https://a.example".to_owned(), "http://b.example:8080".to_owned()],
            max_connection: Some(Duration::from_secs(60)),
        };
        assert_eq!(alone.policy, Policy::Filters(filters));
    }

    /// What the class says of Envoy, whether one is connected (and alone), and what Envoys get: whether they serve, and by what.
    type Step = (Option<EnvoyPolicy>, Option<bool>, Option<(bool, EnvoyPolicy)>);

    /// In this order, for one Gateway.
    #[track_caller]
    fn check_plans(steps: &[Step]) {
        let mut envoys = envoys();
        let gateway = NamespacedName::new("ns", "g");
        for (number, (policy, connected, expected)) in steps.iter().enumerate() {
            let data_plane = match policy {
                Some(policy) => DataPlane::Envoy(provision::Envoy { image: None, policy: *policy }),
                None => DataPlane::Native,
            };
            let proxy = Proxy {
                gateway: gateway.clone(),
                uid: String::new(),
                labels: BTreeMap::new(),
                annotations: BTreeMap::new(),
                ports: vec![443],
                data_plane,
                image: None,
                replicas: 1,
                flags: Vec::new(),
            };
            let connected = connected.map(|alone| Connected { alone });
            let plan = envoys.plan(&gateway, Some(&proxy), connected, "");
            let planned = plan.map(|plan| {
                let policy = if plan.has_engine() { EnvoyPolicy::Engine } else { EnvoyPolicy::Filters };
                (plan.serves, policy)
            });
            assert_eq!(planned, *expected, "step {number}");
        }
    }

    #[test]
    fn data_planes_follow_each_other() {
        use EnvoyPolicy::{Engine, Filters};
        let to = |policy| Some((true, policy));
        check_plans(&[
            (None, None, None),
            (Some(Engine), None, to(Engine)),
            // An engine beside it is no trouble for filters.
            (Some(Filters), Some(false), to(Filters)),
            (Some(Filters), Some(true), to(Filters)),
            // The other way round it would be missed.
            (Some(Engine), Some(true), to(Filters)),
            (Some(Engine), Some(false), to(Engine)),
            // Nobody makes filters of an engine by saying so.
            (Some(Engine), Some(true), to(Engine)),
            (Some(Filters), Some(true), to(Filters)),
            // What still runs gets what it had.
            (None, Some(true), Some((false, Filters))),
            (None, None, None),
            (None, Some(false), Some((false, Engine))),
        ]);
    }

    #[test]
    fn an_envoy_alone_says_so() {
        let report = |cluster: &str| Report { cluster: cluster.into(), ..report(&[CDS], &[], &[]) };
        assert!(is_alone(&[report("envoy-alone")]));
        assert!(!is_alone(&[report(""), report("envoy-proxy-3e11a0abd055")]));
    }
}
