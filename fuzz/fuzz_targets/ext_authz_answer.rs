//! The answer of a gRPC authorizer, any bytes: only a status OK without a denial allows, what it changes is bounded and is none of
//! what it may not touch, a denial is one; and what our own server half writes of it says the same.
#![no_main]

#[path = "../../ext-authz/src"]
#[allow(dead_code, unused_imports, reason = "what is made of an answer, without the client that asked")]
mod private {
    pub(crate) mod headers;
    pub(crate) mod json;
    pub(crate) mod verdict;
}
#[path = "../support/verdict.rs"]
mod expected;

use envoy_types::pb::envoy::service::auth::v3::{CheckResponse, check_response::HttpResponse};
use libfuzzer_sys::fuzz_target;
use private::{
    headers, json,
    verdict::{
        Allowed, Denied, HeaderChange, Unreachable, Verdict,
        answer::{from_decision, to_verdict},
    },
};
use prost::Message as _;

/// Entries in a list of an answer.
const MAX_ENTRIES: usize = 256;

fuzz_target!(|bytes: &[u8]| {
    let Ok(response) = CheckResponse::decode(bytes) else { return };
    match to_verdict(response.clone()) {
        Verdict::Allowed(allowed) => {
            assert_eq!(response.status.map(|status| status.code), Some(0));
            assert!(matches!(response.http_response, None | Some(HttpResponse::OkResponse(_))));
            // Set, and removed.
            assert!(allowed.request_headers.len() <= 2 * MAX_ENTRIES);
            assert!(allowed.response_headers.len() <= MAX_ENTRIES);
            assert!(allowed.query_set.len() <= MAX_ENTRIES && allowed.query_remove.len() <= MAX_ENTRIES);
            let mut request = expected::protected();
            for change in allowed.request_headers.iter().chain(&allowed.response_headers) {
                assert!(expected::may_change(change.name().as_str()), "{}", change.name());
                change.clone().apply(&mut request);
            }
            assert!(expected::is_untouched(&request), "{request:?}");
            assert_eq!(again(Ok(allowed.clone())), Verdict::Allowed(allowed));
        }
        Verdict::Denied(denied) => {
            assert!((300..=599).contains(&denied.status.as_u16()));
            expected::is_clean(&denied.headers);
            assert_eq!(again(Err(denied.clone())), Verdict::Denied(denied));
        }
        Verdict::Unreachable(why) => assert!(!matches!(why, Unreachable::TimedOut)),
    }
});

/// What our own server half would send, read.
fn again(decision: Result<Allowed, Denied>) -> Verdict {
    let sent = from_decision(decision).encode_to_vec();
    to_verdict(CheckResponse::decode(sent.as_slice()).expect("what was encoded"))
}
