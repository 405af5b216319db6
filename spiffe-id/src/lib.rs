#![doc = include_str!("../README.md")]
#![warn(missing_docs, clippy::missing_errors_doc, clippy::missing_panics_doc)]

mod bundle;
mod id;
#[cfg(feature = "issue")]
mod issue;
mod x509;

pub use crate::bundle::{BundleError, TrustBundle};
pub use crate::id::{IdError, ServiceAccount, SpiffeId, TrustDomain};
#[cfg(feature = "issue")]
pub use crate::issue::{Ca, CaPool, HeldKey, IssueError, IssuedSvid, KeyKind, SvidRequest};
pub use crate::x509::{IdentityError, identity_of};
