//! SPIFFE IDs: parse, print, parse again. Certificates and bundles: decided without panic, and what comes out is
//! an ID that parses. The input is all three: a text, a certificate, a bundle.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spiffe_id::{SpiffeId, TrustBundle, TrustDomain, identity_of};

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        id(text);
        trust_domain(text);
    }
    if let Ok(found) = identity_of(data) {
        id(found.as_str());
        assert_eq!(found.as_str().parse(), Ok(found));
    }
    if let Ok(bundle) = TrustBundle::from_pem(TrustDomain::default(), data) {
        assert!(!bundle.roots().is_empty());
        let again = TrustBundle::from_der(bundle.trust_domain().clone(), bundle.roots().to_vec());
        assert_eq!(again.as_ref(), Ok(&bundle));
    }
});

fn id(text: &str) {
    let id: SpiffeId = match text.parse() {
        Ok(id) => id,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert_eq!(id.to_string(), text);
    assert_eq!(format!("spiffe://{}{}", id.trust_domain(), id.path()), text);
    assert!(text.len() <= 2048 && text.is_ascii());
    let Ok(domain) = id.trust_domain().parse::<TrustDomain>() else {
        panic!("`{text}` has the trust domain `{}`", id.trust_domain());
    };
    assert!(id.is_member_of(&domain));
    if let Some(account) = id.service_account() {
        let again = SpiffeId::for_service_account(&domain, account.namespace, account.name);
        assert_eq!(again.as_ref(), Ok(&id));
    }
}

fn trust_domain(text: &str) {
    if let Ok(domain) = text.parse::<TrustDomain>() {
        assert_eq!(domain.as_str(), text);
        assert!(format!("{}/x", domain.uri()).parse::<SpiffeId>().is_ok_and(|id| id.is_member_of(&domain)));
    }
}
