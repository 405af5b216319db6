//! The layer over a mock of the inner service: what it refuses, denies, asks, forwards, and makes of responses.
mod delegation;
mod denials;
mod forwarding;
mod lists;
mod never;
mod rejections;
mod streams;
mod support;
