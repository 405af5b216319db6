//! The external authorizers of one snapshot.
use std::{collections::HashMap, future::Future, pin::Pin, time::Duration};

use authz_core::AuthorizerId;
use authz_tower::Ask;
use ext_authz::{Check, Client, Protocol, Settings, Unreachable, Verdict};
use policy_model::AuthorizerProtocol;
use xds_translate::Snapshot;

/// Clients by [`AuthorizerId`].
#[derive(Debug, Default)]
pub(crate) struct Authorizers {
    clients: Vec<Client>,
}

impl Authorizers {
    /// A client for each authorizer; those of `previous` with equal settings are kept, connections and all.
    pub(crate) fn new(snapshot: &Snapshot, timeout: Duration, previous: Option<&Self>) -> Self {
        let kept: HashMap<&Settings, &Client> = previous
            .map(|previous| previous.clients.iter().map(|client| (client.settings(), client)).collect())
            .unwrap_or_default();
        let clients = snapshot
            .engine
            .authorizers()
            .iter()
            .enumerate()
            .map(|(at, authorizer)| {
                let place = snapshot.authorizers.get(at);
                let settings = Settings {
                    protocol: protocol(&authorizer.protocol),
                    authority: place.map(|place| place.authority.clone()).unwrap_or_default(),
                    endpoints: place
                        .map(|place| place.endpoints.iter().map(|endpoint| endpoint.socket_addr()).collect())
                        .unwrap_or_default(),
                    forward_body: authorizer.forward_body,
                    timeout,
                };
                match kept.get(&settings) {
                    Some(client) => (*client).clone(),
                    None => Client::new(settings),
                }
            })
            .collect();
        Self { clients }
    }
}

fn protocol(of: &AuthorizerProtocol) -> Protocol {
    match of {
        AuthorizerProtocol::Grpc { allowed_headers } => {
            Protocol::Grpc { allowed_headers: allowed_headers.clone() }
        }
        AuthorizerProtocol::Http { path, allowed_headers, allowed_response_headers } => Protocol::Http {
            path: path.clone(),
            allowed_headers: allowed_headers.clone(),
            allowed_response_headers: allowed_response_headers.clone(),
        },
    }
}

impl Ask for Authorizers {
    fn ask<'a>(
        &'a self,
        authorizer: AuthorizerId,
        check: Check<'a>,
    ) -> Pin<Box<dyn Future<Output = Verdict> + Send + 'a>> {
        Box::pin(async move {
            match usize::try_from(authorizer.0).ok().and_then(|at| self.clients.get(at)) {
                Some(client) => client.check(&check).await,
                None => Verdict::Unreachable(Unreachable::Failed("the authorizer is not known".to_owned())),
            }
        })
    }
}
