//! The state-of-the-world variant: `StreamAggregatedResources`.
use std::{collections::BTreeSet, sync::Arc};

use envoy_types::pb::{
    envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse},
    google::protobuf::Any,
};

use super::{
    Answered, Protocol, Session, Violation,
    subscription::{ALL, Subscription},
};
use crate::cache::Published;

/// Types of which every response has all resources that are subscribed to, so that one that is missing is gone. Of
/// others a response may have what changed alone, and a resource goes with what refers to it (the protocol's "grouping
/// resources into responses" and "deleting resources").
const WHOLE: [&str; 2] = [
    "type.googleapis.com/envoy.config.listener.v3.Listener",
    "type.googleapis.com/envoy.config.cluster.v3.Cluster",
];

/// The state-of-the-world variant.
#[derive(Debug)]
pub(crate) enum Sotw {}

impl Protocol for Sotw {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    fn cluster(request: &Self::Request) -> Option<&str> {
        request.node.as_ref().map(|node| node.cluster.as_str())
    }

    fn take(
        session: &mut Session,
        request: Self::Request,
        published: &Published,
    ) -> Result<Answered, Violation> {
        let (subscription, is_new) = session.subscription(&request.type_url)?;
        let nonce = request.response_nonce.as_str();
        let is_current =
            if nonce.is_empty() { !subscription.is_pending() } else { subscription.is_last(nonce) };
        if !is_new && !is_current {
            // Sent before the client saw the last response: it asks again with the answer to that.
            return Ok(Answered::Nothing);
        }
        let answered = answer(subscription, &request);
        let is_all = request.resource_names.iter().any(|name| name == ALL)
            || (request.resource_names.is_empty() && !subscription.is_explicit());
        if !request.resource_names.is_empty() {
            subscription.set_explicit();
        }
        let names: BTreeSet<Arc<str>> =
            request.resource_names.into_iter().filter(|name| name != ALL).map(Into::into).collect();
        let is_first = is_new || (is_all && !subscription.wants_all());
        subscription.want(is_all, names);
        if is_new && is_all && request.version_info == **published.version_of(&request.type_url) {
            // It comes back with all that there is. With names there is no telling which of them it has.
            let resources = published.resources(&request.type_url).iter();
            subscription.has(resources.map(|(name, resource)| (name.clone(), resource.version.clone())));
        } else if is_first && is_whole(subscription, &request.type_url) {
            subscription.owe_response();
        }
        session.check_names()?;
        Ok(answered)
    }

    fn next(session: &mut Session, published: &Published) -> Option<(Self::Response, usize)> {
        let (type_url, subscription, nonce, changes) = session.due(published, is_whole)?;
        let (resources, version) = (published.resources(&type_url), published.version_of(&type_url));
        let any = |resource: &crate::Resource| Any {
            type_url: type_url.as_ref().into(),
            value: resource.body.to_vec(),
        };
        let resources: Vec<Any> = if is_whole(subscription, &type_url) {
            subscription.wanted(resources).map(|(_, resource)| any(resource)).collect()
        } else {
            changes.iter().filter_map(|change| resources.get(&change.name)).map(any).collect()
        };
        subscription.sent(nonce.clone(), version.clone(), changes);
        let count = resources.len();
        let response = DiscoveryResponse {
            version_info: version.as_ref().into(),
            resources,
            type_url: type_url.as_ref().into(),
            nonce,
            ..DiscoveryResponse::default()
        };
        Some((response, count))
    }
}

fn is_whole(subscription: &Subscription, type_url: &str) -> bool {
    subscription.wants_all() || WHOLE.contains(&type_url)
}

fn answer(subscription: &mut Subscription, request: &DiscoveryRequest) -> Answered {
    let Some(version) = subscription.answers(&request.response_nonce) else { return Answered::Nothing };
    let is_version = **version == request.version_info;
    match &request.error_detail {
        Some(error) => subscription.refuse(error.message.clone()),
        None if is_version => {
            subscription.acknowledge();
            return Answered::Acknowledged;
        }
        None => {
            let kept = request.version_info.escape_debug();
            subscription.refuse(format!("the client keeps version `{kept}` and does not say why"));
        }
    }
    Answered::Refused
}
