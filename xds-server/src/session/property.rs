//! Whatever happens: a client that does as the protocol says ends with what is published, and gets nothing needless.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use envoy_types::pb::{
    envoy::service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
    },
    google::rpc::Status,
};
use proptest::prelude::*;

use super::{Delta, Protocol, Session, Sotw};
use crate::{Resource, ResourceSet, cache::Published};

const CDS: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
const RDS: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
/// A resource with this content is refused, and with it all of the response.
const BAD: char = '3';

/// Content by name.
type Contents = BTreeMap<char, char>;

#[derive(Debug, Clone)]
enum Step {
    Publish(Contents),
    /// What is due is put on its way.
    Send,
    /// The client takes a response that is on its way, and answers.
    Answer,
    /// The connection breaks; what is on its way is lost.
    Reconnect,
    Subscribe(char),
    Unsubscribe(char),
}

fn contents() -> impl Strategy<Value = Contents> {
    let name = prop::sample::select(vec!['a', 'b', 'c', 'd']);
    let content = prop::sample::select(vec!['1', '2', BAD, '4']);
    prop::collection::btree_map(name, content, 0..4)
}

fn good_contents() -> impl Strategy<Value = Contents> {
    contents().prop_map(|contents| contents.into_iter().filter(|(_, content)| *content != BAD).collect())
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = || prop::sample::select(vec!['a', 'b', 'x']);
    let step = prop_oneof![
        4 => contents().prop_map(Step::Publish),
        4 => Just(Step::Send),
        4 => Just(Step::Answer),
        1 => Just(Step::Reconnect),
        1 => name().prop_map(Step::Subscribe),
        1 => name().prop_map(Step::Unsubscribe),
    ];
    prop::collection::vec(step, 0..40)
}

/// What a client starts with: all, by no name or by `*`; or names.
fn interest() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "*", "ab", "*a", "x"])
}

fn names(interest: &str) -> Vec<String> {
    interest.chars().map(String::from).collect()
}

fn publish(type_url: &str, contents: &Contents) -> Published {
    let resources = contents.iter().map(|(name, content)| {
        (Arc::from(name.to_string()), Resource::new(format!("{name}{content}").into_bytes()))
    });
    let mut set = ResourceSet::default();
    set.types.insert(type_url.into(), resources.collect());
    Published::new(Arc::new(set))
}

/// Name and content of a resource.
fn read(body: &[u8]) -> (char, char) {
    match *body {
        [name, content] => (name.into(), content.into()),
        _ => panic!("{body:?}"),
    }
}

fn refusal() -> Option<Status> {
    Some(Status::default())
}

/// A client of the incremental variant; applies a response as a whole or not at all.
struct DeltaClient {
    interest: BTreeSet<String>,
    /// Content and version.
    has: BTreeMap<String, (char, String)>,
    /// Told that it is not there.
    missing: BTreeSet<String>,
    session: Session,
    inbox: Option<DeltaDiscoveryResponse>,
    /// Names of which it has to hear in any case: subscribed to anew, or dropped beside all.
    expected: BTreeSet<String>,
    /// Names that were in a response that it refused.
    unknown: BTreeSet<String>,
    heard: bool,
}

impl DeltaClient {
    fn connect(&mut self, published: &Published, started: &str) {
        self.session = Session::default();
        self.inbox = None;
        self.expected.clear();
        self.unknown.clear();
        self.heard = !self.has.is_empty();
        self.missing.clear();
        let wanted =
            if self.is_legacy(started) { Vec::new() } else { self.interest.iter().cloned().collect() };
        self.send(
            DeltaDiscoveryRequest {
                resource_names_subscribe: wanted,
                initial_resource_versions: self
                    .has
                    .iter()
                    .map(|(name, (_, version))| (name.clone(), version.clone()))
                    .collect(),
                ..Default::default()
            },
            published,
        );
    }

    /// Whether it says all by saying nothing.
    fn is_legacy(&self, started: &str) -> bool {
        started.is_empty() && self.interest.len() == 1
    }

    fn send(&mut self, request: DeltaDiscoveryRequest, published: &Published) {
        let request = DeltaDiscoveryRequest { type_url: CDS.into(), ..request };
        Delta::take(&mut self.session, request, published).unwrap();
    }

    fn wants(&self, name: &str) -> bool {
        self.interest.contains("*") || self.interest.contains(name)
    }

    fn may_repeat(&self, name: &str) -> bool {
        self.expected.contains(name) || self.unknown.contains(name)
    }

    fn receive(&mut self, published: &Published) {
        while let Some((response, _)) = Delta::next(&mut self.session, published) {
            assert!(self.inbox.is_none(), "a second response before the first was answered");
            let is_first = !std::mem::replace(&mut self.heard, true);
            let is_empty = response.resources.is_empty() && response.removed_resources.is_empty();
            assert!(!is_empty || is_first || self.expected.contains("*"), "an empty response");
            for resource in &response.resources {
                let has = self.has.get(&resource.name).map(|(_, version)| version);
                let is_news = has != Some(&resource.version) || self.may_repeat(&resource.name);
                assert!(is_news && self.wants(&resource.name), "needless: {resource:?}");
            }
            for name in &response.removed_resources {
                let is_news = self.has.contains_key(name)
                    || (self.interest.contains(name) && !self.missing.contains(name))
                    || self.may_repeat(name);
                assert!(is_news && self.wants(name), "needless removal: {name}");
            }
            // All that was owed is in it.
            self.expected.clear();
            self.inbox = Some(response);
        }
    }

    fn answer(&mut self, published: &Published) {
        let Some(response) = self.inbox.take() else { return };
        let read = |any: &envoy_types::pb::envoy::service::discovery::v3::Resource| {
            read(&any.resource.as_ref().unwrap().value).1
        };
        let is_bad = response.resources.iter().any(|resource| read(resource) == BAD);
        if is_bad {
            let names = response.resources.iter().map(|resource| &resource.name);
            self.unknown.extend(names.chain(&response.removed_resources).cloned());
        } else {
            self.unknown.clear();
            for resource in &response.resources {
                if self.wants(&resource.name) {
                    self.missing.remove(&resource.name);
                    self.has.insert(resource.name.clone(), (read(resource), resource.version.clone()));
                }
            }
            for name in &response.removed_resources {
                self.has.remove(name);
                self.missing.insert(name.clone());
            }
        }
        let error_detail = is_bad.then(refusal).flatten();
        let request =
            DeltaDiscoveryRequest { response_nonce: response.nonce, error_detail, ..Default::default() };
        self.send(request, published);
    }

    fn subscribe(&mut self, name: char, published: &Published) {
        self.interest.insert(name.into());
        self.expected.insert(name.into());
        let resource_names_subscribe = vec![name.into()];
        self.send(DeltaDiscoveryRequest { resource_names_subscribe, ..Default::default() }, published);
    }

    fn unsubscribe(&mut self, name: char, published: &Published) {
        if self.interest.remove(&String::from(name)) {
            self.missing.remove(&String::from(name));
            self.expected.remove(&String::from(name));
            if self.interest.contains("*") {
                self.expected.insert(name.into());
            } else {
                self.has.remove(&String::from(name));
            }
            let resource_names_unsubscribe = vec![name.into()];
            self.send(DeltaDiscoveryRequest { resource_names_unsubscribe, ..Default::default() }, published);
        }
    }
}

/// A client of the state-of-the-world variant.
struct WorldClient {
    type_url: &'static str,
    interest: &'static str,
    has: Contents,
    version: String,
    session: Session,
    inbox: Option<DiscoveryResponse>,
    heard: bool,
    refused: bool,
}

impl WorldClient {
    fn send(&mut self, nonce: String, error_detail: Option<Status>, published: &Published) {
        let request = DiscoveryRequest {
            type_url: self.type_url.into(),
            resource_names: names(self.interest),
            version_info: self.version.clone(),
            response_nonce: nonce,
            error_detail,
            ..Default::default()
        };
        Sotw::take(&mut self.session, request, published).unwrap();
    }

    fn connect(&mut self, published: &Published) {
        self.session = Session::default();
        self.inbox = None;
        self.heard = false;
        self.send(String::new(), None, published);
    }

    fn is_whole(&self) -> bool {
        self.type_url == CDS || self.interest.is_empty() || self.interest.contains('*')
    }

    fn after(&self, response: &DiscoveryResponse) -> Contents {
        let mut has = if self.is_whole() { Contents::new() } else { self.has.clone() };
        has.extend(response.resources.iter().map(|any| read(&any.value)));
        has
    }

    fn receive(&mut self, published: &Published) {
        while let Some((response, _)) = Sotw::next(&mut self.session, published) {
            assert!(self.inbox.is_none(), "a second response before the first was answered");
            let is_first = !std::mem::replace(&mut self.heard, true);
            let is_news = self.after(&response) != self.has || !self.is_whole();
            assert!(
                is_first || self.refused || is_news || self.interest.contains('x'),
                "needless: {response:?}"
            );
            self.inbox = Some(response);
        }
    }

    fn answer(&mut self, published: &Published) {
        let Some(response) = self.inbox.take() else { return };
        self.refused = response.resources.iter().any(|any| read(&any.value).1 == BAD);
        if self.refused {
            self.send(response.nonce, refusal(), published);
        } else {
            self.has = self.after(&response);
            self.version.clone_from(&response.version_info);
            self.send(response.nonce, None, published);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_delta_client_ends_with_what_is_published(
        interest in interest(),
        first in contents(),
        steps in steps(),
        last in good_contents(),
    ) {
        let mut published = publish(CDS, &first);
        let mut client = DeltaClient {
            interest: if interest.is_empty() { ["*".to_owned()].into() } else { names(interest).into_iter().collect() },
            has: BTreeMap::new(),
            missing: BTreeSet::new(),
            session: Session::default(),
            inbox: None,
            expected: BTreeSet::new(),
            unknown: BTreeSet::new(),
            heard: false,
        };
        client.connect(&published, interest);
        for step in steps {
            match step {
                Step::Publish(contents) => published = publish(CDS, &contents),
                Step::Send => client.receive(&published),
                Step::Answer => client.answer(&published),
                Step::Reconnect => client.connect(&published, interest),
                Step::Subscribe(name) => client.subscribe(name, &published),
                Step::Unsubscribe(name) if client.interest.len() > 1 => client.unsubscribe(name, &published),
                Step::Unsubscribe(_) => {}
            }
        }
        published = publish(CDS, &last);
        // One response may be on its way, one may be owed after it.
        for _ in 0..3 {
            client.receive(&published);
            client.answer(&published);
        }
        client.receive(&published);
        prop_assert!(client.inbox.is_none(), "the server does not come to rest");
        let has: Contents =
            client.has.iter().map(|(name, (content, _))| (name.chars().next().unwrap(), *content)).collect();
        let expected: Contents =
            last.into_iter().filter(|(name, _)| client.wants(&name.to_string())).collect();
        prop_assert_eq!(has, expected);
        prop_assert_eq!(client.session.acknowledged().remove(CDS), Some(published.version_of(CDS).clone()));
        prop_assert!(client.session.refused().is_empty());
    }

    #[test]
    fn a_client_of_the_world_ends_with_what_is_published(
        interest in interest(),
        type_url in prop::sample::select(vec![CDS, RDS]),
        first in contents(),
        steps in steps(),
        last in good_contents(),
    ) {
        let mut published = publish(type_url, &first);
        let mut client = WorldClient {
            type_url,
            interest,
            has: Contents::new(),
            version: String::new(),
            session: Session::default(),
            inbox: None,
            heard: false,
            refused: false,
        };
        client.connect(&published);
        for step in steps {
            match step {
                Step::Publish(contents) => published = publish(type_url, &contents),
                Step::Send => client.receive(&published),
                Step::Answer => client.answer(&published),
                Step::Reconnect => client.connect(&published),
                Step::Subscribe(_) | Step::Unsubscribe(_) => {}
            }
        }
        published = publish(type_url, &last);
        for _ in 0..3 {
            client.receive(&published);
            client.answer(&published);
        }
        client.receive(&published);
        prop_assert!(client.inbox.is_none(), "the server does not come to rest");
        let is_all = interest.is_empty() || interest.contains('*');
        let expected: Contents =
            last.into_iter().filter(|(name, _)| is_all || interest.contains(*name)).collect();
        if !client.is_whole() {
            // A route that is gone goes with its listener: nothing says so here.
            client.has.retain(|name, _| expected.contains_key(name));
        }
        prop_assert_eq!(client.has, expected);
        prop_assert_eq!(client.session.acknowledged().remove(type_url), Some(published.version_of(type_url).clone()));
        prop_assert!(client.session.refused().is_empty());
    }
}
