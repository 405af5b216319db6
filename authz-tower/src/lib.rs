#![doc = include_str!("../README.md")]
#![warn(missing_docs, clippy::missing_errors_doc, clippy::missing_panics_doc)]

mod admission;
mod body;
mod context;
mod layer;

pub use crate::admission::{Admission, Admitted, HeadTraffic, Rejection, admit_body, admit_head};
pub use crate::body::{RequestBody, ResponseBody};
pub use crate::context::{Ask, Context, Observer, Options, Outcome, Peer, Recheck};
pub use crate::layer::{AuthorizeFuture, AuthzLayer, AuthzService, authorize};
