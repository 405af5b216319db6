#![doc = include_str!("../README.md")]
#![warn(missing_docs, clippy::missing_errors_doc, clippy::missing_panics_doc)]

mod cache;
mod report;
mod serve;
mod session;

pub use crate::cache::{Cache, Resource, ResourceSet};
pub use crate::report::{Counts, Nack, Report};
pub use crate::serve::{Admit, ServeError, serve};
