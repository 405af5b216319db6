#![doc = include_str!("../README.md")]
#![warn(missing_docs, clippy::missing_errors_doc, clippy::missing_panics_doc)]

mod admission;
mod ask;
mod body;
mod context;
mod decide;
mod layer;
mod upstream;

pub use crate::admission::{
    Admission, Admitted, HeadTraffic, Rejection, Subject, admit, admit_body, admit_head, check_target,
    is_event_stream, origin_matches, request_host,
};
pub use crate::ask::unjudgeable;
pub use crate::body::{GuardedBody, RequestBody, ResponseBody};
pub use crate::context::{Ask, Context, Observer, Options, Outcome, Peer, Recheck};
pub use crate::layer::{AuthorizeFuture, AuthzLayer, AuthzService, ResponseMatters, authorize};
pub use crate::upstream::NOT_FORWARDED;
