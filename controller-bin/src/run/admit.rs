//! Which Gateway a proxy belongs to: told from its SPIFFE ID, never from what it says about itself.
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, PoisonError, RwLock},
};

use policy_model::NamespacedName;
use spiffe_id::{SpiffeId, TrustDomain};

use super::group;
use crate::provision::proxy_name;

/// The identities of the proxies of all Gateways of ours; all clones are one.
#[derive(Debug, Clone)]
pub(super) struct Admitted {
    trust_domain: TrustDomain,
    groups: Arc<RwLock<HashMap<String, Arc<str>>>>,
}

impl Admitted {
    pub(super) fn new(trust_domain: TrustDomain) -> Self {
        Self { trust_domain, groups: Arc::default() }
    }

    /// Replaces the Gateways.
    pub(super) fn set(&self, gateways: &BTreeSet<NamespacedName>) {
        let groups = gateways
            .iter()
            .filter_map(|gateway| {
                let name = proxy_name(gateway);
                let id = SpiffeId::for_service_account(&self.trust_domain, &gateway.namespace, &name).ok()?;
                Some((id.as_str().to_owned(), group(gateway).into()))
            })
            .collect();
        *self.groups.write().unwrap_or_else(PoisonError::into_inner) = groups;
    }

    /// As the discovery service asks.
    pub(super) fn admit(&self) -> xds_server::Admit {
        let groups = Arc::clone(&self.groups);
        Arc::new(move |id| groups.read().unwrap_or_else(PoisonError::into_inner).get(id.as_str()).cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_identity_of_a_gateways_proxy_is_admitted() {
        let gateway = NamespacedName::new("quickstart-ns", "agentic-net-gateway");
        let admitted = Admitted::new(TrustDomain::default());
        let admit = admitted.admit();
        let id = |text: &str| text.parse::<SpiffeId>().unwrap();
        // sha256("quickstart-ns/agentic-net-gateway")
        let own = id("spiffe://cluster.local/ns/quickstart-ns/sa/envoy-proxy-3e11a0abd055");
        assert_eq!(admit(&own), None);
        admitted.set(&BTreeSet::from([gateway.clone()]));
        assert_eq!(admit(&own).as_deref(), Some("quickstart-ns/agentic-net-gateway"));
        let name = proxy_name(&gateway);
        for other in [
            format!("spiffe://example.org/ns/quickstart-ns/sa/{name}"),
            format!("spiffe://cluster.local/ns/other/sa/{name}"),
            "spiffe://cluster.local/ns/quickstart-ns/sa/adk-agent-sa".to_owned(),
            format!("spiffe://cluster.local/ns/quickstart-ns/sa/{name}/x"),
        ] {
            assert_eq!(admit(&id(&other)), None, "{other}");
        }
        admitted.set(&BTreeSet::new());
        assert_eq!(admit(&own), None);
    }
}
