//! The incremental variant: `DeltaAggregatedResources`.
use envoy_types::pb::{
    envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource},
    google::protobuf::Any,
};

use super::{Answered, Protocol, Session, Violation, subscription::Subscription};
use crate::cache::Published;

/// The incremental variant.
#[derive(Debug)]
pub(crate) enum Delta {}

impl Protocol for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    fn cluster(request: &Self::Request) -> Option<&str> {
        request.node.as_ref().map(|node| node.cluster.as_str())
    }

    fn take(
        session: &mut Session,
        request: Self::Request,
        _published: &Published,
    ) -> Result<Answered, Violation> {
        let (subscription, is_new) = session.subscription(&request.type_url)?;
        let answered = answer(subscription, &request);
        // A stale nonce says nothing about what the client wants: subscriptions count in any case.
        if is_new {
            if request.resource_names_subscribe.is_empty() {
                subscription.add_all();
            }
            for name in request.resource_names_subscribe {
                subscription.add(name);
            }
            let versions = request.initial_resource_versions.into_iter();
            subscription.has(versions.map(|(name, version)| (name.into(), version.into())));
        } else {
            for name in request.resource_names_subscribe {
                subscription.add_anew(name);
            }
        }
        for name in request.resource_names_unsubscribe {
            subscription.drop_name(&name);
        }
        session.check_names()?;
        Ok(answered)
    }

    fn next(session: &mut Session, published: &Published) -> Option<(Self::Response, usize)> {
        let (type_url, subscription, nonce, changes) = session.due(published, |_, _| true)?;
        let (resources, version) = (published.resources(&type_url), published.version_of(&type_url));
        let mut response = DeltaDiscoveryResponse {
            system_version_info: version.as_ref().into(),
            type_url: type_url.as_ref().into(),
            nonce: nonce.clone(),
            ..DeltaDiscoveryResponse::default()
        };
        for change in &changes {
            match resources.get(&change.name) {
                Some(resource) => response.resources.push(Resource {
                    name: change.name.as_ref().into(),
                    version: resource.version.as_ref().into(),
                    resource: Some(Any { type_url: type_url.as_ref().into(), value: resource.body.to_vec() }),
                    ..Resource::default()
                }),
                None => response.removed_resources.push(change.name.as_ref().into()),
            }
        }
        let count = changes.len();
        subscription.sent(nonce, version.clone(), changes);
        Some((response, count))
    }
}

fn answer(subscription: &mut Subscription, request: &DeltaDiscoveryRequest) -> Answered {
    if subscription.answers(&request.response_nonce).is_none() {
        return Answered::Nothing;
    }
    match &request.error_detail {
        Some(error) => {
            subscription.refuse(error.message.clone());
            Answered::Refused
        }
        None => {
            subscription.acknowledge();
            Answered::Acknowledged
        }
    }
}
