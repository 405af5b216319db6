#![doc = include_str!("../README.md")]
#![warn(missing_docs, clippy::missing_errors_doc, clippy::missing_panics_doc)]

mod filter;
mod headers;
mod message;
mod method;
mod parse;
mod reply;
mod scan;
mod sse;

pub use crate::filter::{FilterError, filter_tools_list};
pub use crate::headers::{HeaderError, MirroredHeaders, Revision};
pub use crate::message::{Body, Id, Json, Kind, Message, Target};
pub use crate::method::Method;
pub use crate::parse::{Limits, ParseError, parse, parse_json};
pub use crate::reply::{ReplyId, error_code, error_reply};
pub use crate::sse::{Event, EventReader};
