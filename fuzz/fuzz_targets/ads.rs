//! A client of the discovery service that sends anything: requests of both variants of the protocol, while sets are published.
//! Nothing panics, each response holds what is published and was asked for, and once the client answers it comes to rest.
//!
//! The input is a sequence of steps: a byte that says what is done, and a request with its length before it where one is
//! sent.
#![no_main]

#[path = "../../xds-server/src"]
#[allow(dead_code, unused_imports, reason = "the protocol without its sockets")]
mod private {
    pub(crate) mod cache;
    pub(crate) mod report;
    pub(crate) mod session;
}

use std::{collections::BTreeMap, sync::Arc};

use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use libfuzzer_sys::fuzz_target;
use private::{
    cache::{self, Published, Resource, ResourceSet},
    report::{self, Nack},
    session::{Delta, Protocol, Session, Sotw},
};
use prost::Message;

const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
const ENDPOINTS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
const OBJECT: &str = "type.googleapis.com/agentic.gateway.v1.Object";
/// Types that a stream may ask for: as many responses are on their way at most.
const MAX_TYPES: usize = 64;

/// Four sets: of each type names that are there in some of them, with contents that differ.
fn sets() -> [ResourceSet; 4] {
    let set = |of: &[(&str, &[(&str, &str)])]| ResourceSet {
        types: of
            .iter()
            .map(|(type_url, resources)| {
                let resources = resources
                    .iter()
                    .map(|(name, body)| (Arc::from(*name), Resource::new((*body).to_owned())))
                    .collect();
                (Arc::from(*type_url), resources)
            })
            .collect(),
    };
    [
        set(&[(CLUSTER, &[("a", "1"), ("b", "1")]), (ENDPOINTS, &[("a", "1")]), (OBJECT, &[("a", "1")])]),
        set(&[
            (CLUSTER, &[("a", "2"), ("c", "1")]),
            (LISTENER, &[("a", "1")]),
            (OBJECT, &[("a", "1"), ("b", "2")]),
        ]),
        set(&[(CLUSTER, &[]), (ENDPOINTS, &[("b", "2"), ("a", "1")]), (LISTENER, &[])]),
        set(&[]),
    ]
}

/// What of a response is the same in both variants.
trait Response {
    fn type_url(&self) -> &str;
    fn nonce(&self) -> &str;
    /// Checks it against what is published.
    fn check(&self, published: &Published);
}

impl Response for DeltaDiscoveryResponse {
    fn type_url(&self) -> &str {
        &self.type_url
    }
    fn nonce(&self) -> &str {
        &self.nonce
    }
    fn check(&self, published: &Published) {
        let mut names: Vec<&str> = self.removed_resources.iter().map(String::as_str).collect();
        let there = published.resources(&self.type_url);
        assert!(names.iter().all(|name| !there.contains_key(*name)));
        for resource in &self.resources {
            let is = &there[resource.name.as_str()];
            assert_eq!(*resource.version, *is.version);
            assert_eq!(resource.resource.as_ref().map(|any| any.value.as_slice()), Some(&*is.body));
            names.push(&resource.name);
        }
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "a name twice");
        assert_eq!(*self.system_version_info, **published.version_of(&self.type_url));
    }
}

impl Response for DiscoveryResponse {
    fn type_url(&self) -> &str {
        &self.type_url
    }
    fn nonce(&self) -> &str {
        &self.nonce
    }
    fn check(&self, published: &Published) {
        let there = published.resources(&self.type_url);
        assert!(self.resources.len() <= there.len());
        for any in &self.resources {
            assert!(there.values().any(|resource| resource.body == any.value));
        }
        assert_eq!(*self.version_info, **published.version_of(&self.type_url));
    }
}

/// One stream, and what is on its way to the client.
struct Stream<P: Protocol> {
    session: Session,
    on_the_way: BTreeMap<String, P::Response>,
    /// By type: the names that the last request had. Each request of one variant has them all.
    names: BTreeMap<String, Vec<String>>,
}

impl<P: Protocol<Response: Response>> Stream<P> {
    fn new() -> Self {
        Self { session: Session::default(), on_the_way: BTreeMap::new(), names: BTreeMap::new() }
    }

    fn request(&mut self, request: P::Request, published: &Published) {
        let _cluster = P::cluster(&request).map(str::len);
        match P::take(&mut self.session, request, published) {
            Ok(_) => self.send(published),
            Err(violation) => {
                // The stream ends; the client opens another.
                assert!(!violation.to_string().is_empty());
                *self = Self::new();
            }
        }
    }

    /// All that is due.
    fn send(&mut self, published: &Published) {
        let mut sent = 0;
        while let Some((response, _)) = P::next(&mut self.session, published) {
            sent += 1;
            assert!(
                sent <= MAX_TYPES,
                "a client that does not answer is sent no more than a response per type"
            );
            assert!(published.has_type(response.type_url()));
            response.check(published);
            self.on_the_way.insert(response.type_url().to_owned(), response);
        }
        assert!(self.session.asked().len() <= MAX_TYPES);
    }

    /// The client accepts all that it gets until nothing comes any more; then it has what is published.
    fn settle(&mut self, published: &Published, accept: impl Fn(&P::Response, Vec<String>) -> P::Request) {
        // What was sent before the last change comes once more.
        for _ in 0..3 {
            for (_, response) in std::mem::take(&mut self.on_the_way) {
                let names = self.names.get(response.type_url()).cloned().unwrap_or_default();
                assert!(P::take(&mut self.session, accept(&response, names), published).is_ok());
            }
            self.send(published);
        }
        assert!(self.on_the_way.is_empty(), "a client that has everything is sent nothing");
        for type_url in self.session.asked().iter().filter(|type_url| published.has_type(type_url)) {
            let acknowledged = self.session.acknowledged();
            let refused = self.session.refused();
            assert!(
                acknowledged.get(type_url) == Some(published.version_of(type_url))
                    || refused.contains_key(type_url),
                "{type_url}"
            );
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let sets = sets().map(|set| Published::new(Arc::new(set)));
    let mut published = &sets[0];
    let (mut delta, mut sotw) = (Stream::<Delta>::new(), Stream::<Sotw>::new());
    let mut rest = bytes;
    while let Some((step, tail)) = rest.split_first() {
        rest = tail;
        match step % 8 {
            0..=2 => match DeltaDiscoveryRequest::decode_length_delimited(&mut rest) {
                Ok(request) => delta.request(request, published),
                Err(_) => break,
            },
            3..=5 => match DiscoveryRequest::decode_length_delimited(&mut rest) {
                Ok(request) => {
                    sotw.names.insert(request.type_url.clone(), request.resource_names.clone());
                    sotw.request(request, published);
                }
                Err(_) => break,
            },
            _ => {
                published = &sets[usize::from(step / 8) % sets.len()];
                delta.send(published);
                sotw.send(published);
            }
        }
    }
    delta.settle(published, |response, _| DeltaDiscoveryRequest {
        type_url: response.type_url().to_owned(),
        response_nonce: response.nonce().to_owned(),
        ..Default::default()
    });
    sotw.settle(published, |response, resource_names| DiscoveryRequest {
        type_url: response.type_url().to_owned(),
        response_nonce: response.nonce().to_owned(),
        version_info: response.version_info.clone(),
        resource_names,
        ..Default::default()
    });
});
