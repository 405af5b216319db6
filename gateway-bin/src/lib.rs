#![doc = include_str!("../README.md")]
#![warn(missing_docs, clippy::missing_errors_doc, clippy::missing_panics_doc)]

mod admin;
mod authorizers;
pub mod cli;
mod commands;
mod config;
mod connection;
mod decide;
mod forward;
mod gateway;
mod listen;
mod pipeline;
#[cfg(feature = "quickstart")]
mod quickstart;
mod runtime;
pub mod session;
mod sidecar;
mod telemetry;
pub mod tls;
mod upstream;
mod xds;

pub use crate::commands::execute;
pub use crate::decide::Processor;
pub use crate::gateway::{Gateway, StartError};
pub use crate::sidecar::Sidecar;
pub use crate::telemetry::AccessLog;
