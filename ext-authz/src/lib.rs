#![doc = include_str!("../README.md")]
#![warn(missing_docs, clippy::missing_errors_doc, clippy::missing_panics_doc)]

mod check;
mod client;
mod headers;
mod json;
mod server;
mod verdict;

pub use crate::check::{Check, Peer};
pub use crate::client::{Client, Protocol, Settings};
pub use crate::server::{Authorizer, AuthorizerServer, CheckedRequest, authorizer_service};
pub use crate::verdict::{Allowed, Denied, HeaderChange, Unreachable, Verdict};
