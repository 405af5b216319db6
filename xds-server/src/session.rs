//! The protocol without sockets: what a stream's requests and the sets that are published lead to.
//!
//! Source of the rules: Envoy's "xDS REST and gRPC protocol" (`docs/root/api-docs/xds_protocol.rst`) and the comments
//! of `envoy/service/discovery/v3/discovery.proto`.
mod delta;
mod sotw;
mod subscription;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use self::subscription::{Change, Subscription};
use crate::{Nack, cache::Published};

pub(crate) use self::{delta::Delta, sotw::Sotw};

/// Types that one stream may ask for.
const MAX_TYPES: usize = 64;
/// Names that one stream may subscribe to and claim to have, all types together.
const MAX_NAMES: usize = 262_144;
/// Bytes of these names.
const MAX_NAME_BYTES: usize = 32 << 20;

/// The order in which types that changed together are sent: the protocol's ("eventual consistency considerations") for
/// making before breaking; other types come last, by URL.
const ORDER: [&str; 8] = [
    "type.googleapis.com/envoy.config.cluster.v3.Cluster",
    "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
    "type.googleapis.com/envoy.config.listener.v3.Listener",
    "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration",
    "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
    "type.googleapis.com/envoy.config.route.v3.VirtualHost",
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
    "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
];

/// One of the two variants of the protocol.
pub(crate) trait Protocol: Send + 'static {
    type Request: Send + 'static;
    type Response: Send + 'static;

    /// What the client calls its cluster, where a request says so: not each has to.
    fn cluster(request: &Self::Request) -> Option<&str>;

    /// Takes in a request.
    fn take(
        session: &mut Session,
        request: Self::Request,
        published: &Published,
    ) -> Result<Answered, Violation>;

    /// The next response that is due, with the number of resources in it, removals included. One per type is on its
    /// way at a time: what changes before it is answered comes with the next one, so a slow client gets the latest set
    /// and nothing in between.
    fn next(session: &mut Session, published: &Published) -> Option<(Self::Response, usize)>;
}

/// What a request said about an earlier response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answered {
    Nothing,
    Acknowledged,
    Refused,
}

/// A request that cannot be served; its stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error("the request has no `type_url`; every request on an aggregated stream needs one")]
    NoType,
    #[error("more than {MAX_TYPES} types on a stream")]
    Types,
    #[error("more than {MAX_NAMES} resource names, or more than {MAX_NAME_BYTES} bytes of them, on a stream")]
    Names,
}

/// One stream's state.
#[derive(Debug, Default)]
pub(crate) struct Session {
    /// By place in the order and type URL.
    types: BTreeMap<(usize, Arc<str>), Subscription>,
    nonce: u64,
}

impl Session {
    /// The types of which something is subscribed to.
    pub(crate) fn asked(&self) -> BTreeSet<Arc<str>> {
        let asked = self.types.iter().filter(|(_, subscription)| !subscription.wants_nothing());
        asked.map(|((_, type_url), _)| Arc::clone(type_url)).collect()
    }

    /// By type: the set that was acknowledged as a whole.
    pub(crate) fn acknowledged(&self) -> BTreeMap<Arc<str>, Arc<str>> {
        let of = |((_, type_url), subscription): (&(usize, Arc<str>), &Subscription)| {
            Some((Arc::clone(type_url), Arc::clone(subscription.acknowledged()?)))
        };
        self.types.iter().filter_map(of).collect()
    }

    /// By type: the refusal that stands.
    pub(crate) fn refused(&self) -> BTreeMap<Arc<str>, Nack> {
        let of = |((_, type_url), subscription): (&(usize, Arc<str>), &Subscription)| {
            Some((Arc::clone(type_url), subscription.nack()?.clone()))
        };
        self.types.iter().filter_map(of).collect()
    }

    /// The subscription to a type, and whether the stream had none before.
    fn subscription(&mut self, type_url: &str) -> Result<(&mut Subscription, bool), Violation> {
        if type_url.is_empty() {
            return Err(Violation::NoType);
        }
        let place = ORDER.iter().position(|known| *known == type_url).unwrap_or(ORDER.len());
        let key = (place, type_url.into());
        let is_new = !self.types.contains_key(&key);
        if is_new && self.types.len() >= MAX_TYPES {
            return Err(Violation::Types);
        }
        Ok((self.types.entry(key).or_default(), is_new))
    }

    fn check_names(&self) -> Result<(), Violation> {
        let (count, bytes) = self.types.values().fold((0_usize, 0_usize), |(count, bytes), subscription| {
            let (names, length) = subscription.claimed();
            (count.saturating_add(names), bytes.saturating_add(length))
        });
        if count > MAX_NAMES || bytes > MAX_NAME_BYTES { Err(Violation::Names) } else { Ok(()) }
    }

    /// The first type in order for which something is due, with the nonce of the response.
    fn due(
        &mut self,
        published: &Published,
        can_remove: impl Fn(&Subscription, &str) -> bool,
    ) -> Option<(Arc<str>, &mut Subscription, String, Vec<Change>)> {
        let (type_url, subscription, changes) =
            self.types.iter_mut().find_map(|((_, type_url), subscription)| {
                let can_remove = can_remove(subscription, type_url);
                let changes = subscription.due(published, type_url, can_remove)?;
                Some((Arc::clone(type_url), subscription, changes))
            })?;
        self.nonce = self.nonce.wrapping_add(1);
        Some((type_url, subscription, self.nonce.to_string(), changes))
    }
}

#[cfg(test)]
mod property;
#[cfg(test)]
mod tests;
