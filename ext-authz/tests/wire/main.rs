//! Both clients against real sockets.
#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "tests")]

mod grpc;
mod http;
mod peers;
