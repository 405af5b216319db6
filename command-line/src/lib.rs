#![doc = include_str!("../README.md")]
#![warn(missing_docs, clippy::missing_errors_doc, clippy::missing_panics_doc)]

mod manifests;
mod report;
mod values;

pub use crate::manifests::{Contents, ManifestError, Manifests, contents, load, parse};
pub use crate::report::{status_text, status_word};
pub use crate::values::{
    BundleFile, ListenAt, ResolveTo, default_action, header, namespaced_name, parse_duration,
};
