//! Leaving tools out of `tools/list` results.
use bytes::Bytes;
use mcp_jsonrpc::{Event, EventReader, filter_tools_list};
use memchr::memmem;

use super::{CollectError, Collector};
use crate::Context;

/// What is held of a list, at most: a JSON body, or one event of a stream.
const MAX_LIST_BYTES: usize = 16 << 20;

/// Filters one response.
#[derive(Debug)]
pub(crate) struct ListFilter {
    form: Form,
    /// Takes the list's place where it cannot be read: JSON-RPC errors with the ids of its requests; empty where they
    /// are not known.
    failure: Bytes,
}

#[derive(Debug)]
enum Form {
    /// Filtered as a whole.
    Json(Collector),
    /// Filtered event by event, as they come.
    Events(Option<EventReader>),
}

/// What came of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Filtered {
    /// To be passed on; there may be more.
    Some(Bytes),
    /// To be passed on (unless empty), and nothing after it.
    Last(Bytes),
}

impl ListFilter {
    pub(crate) fn json(failure: Bytes) -> Self {
        Self { form: Form::Json(Collector::new(MAX_LIST_BYTES)), failure }
    }

    pub(crate) fn events(failure: Bytes) -> Self {
        Self { form: Form::Events(Some(EventReader::new(MAX_LIST_BYTES))), failure }
    }

    /// Takes bytes of the response.
    pub(crate) fn push(&mut self, data: Bytes, more: u64, context: &Context) -> Filtered {
        match &mut self.form {
            Form::Json(collector) => match collector.push(data, more) {
                Ok(()) => Filtered::Some(Bytes::new()),
                Err(CollectError::TooLarge | CollectError::Broken) => {
                    tracing::warn!(limit = MAX_LIST_BYTES, "the server's list is too large to be filtered");
                    Filtered::Last(std::mem::take(&mut self.failure))
                }
            },
            Form::Events(Some(reader)) => {
                reader.push(&data);
                pass_events(reader, &self.failure, context)
            }
            Form::Events(None) => Filtered::Last(Bytes::new()),
        }
    }

    /// The response has ended.
    pub(crate) fn finish(&mut self, context: &Context) -> Bytes {
        match &mut self.form {
            Form::Json(collector) => {
                let body = collector.finish();
                if body.is_empty() {
                    return body;
                }
                match filter_tools_list(&body, &mut |tool| keeps(context, tool)) {
                    Ok(filtered) => filtered.into(),
                    Err(error) => {
                        tracing::warn!(%error, "a list of tools is not passed on");
                        std::mem::take(&mut self.failure)
                    }
                }
            }
            // An event that did not end is none: clients discard it, and so is it here.
            Form::Events(reader) => reader.take().map_or_else(Bytes::new, |mut reader| {
                reader.end();
                let (Filtered::Some(last) | Filtered::Last(last)) =
                    pass_events(&mut reader, &self.failure, context);
                last
            }),
        }
    }
}

fn pass_events(reader: &mut EventReader, failure: &Bytes, context: &Context) -> Filtered {
    let mut out = Vec::new();
    loop {
        let passed = match reader.next_event() {
            Ok(Some(event)) => pass_event(event, &mut out, context),
            Ok(None) => return Filtered::Some(out.into()),
            Err(error) => Err(error),
        };
        if let Err(error) = passed {
            tracing::warn!(%error, "an event stream ends at what could be a list of tools");
            // Whatever the ends of lines before it, this one is an event of its own.
            if !failure.is_empty() {
                out.extend_from_slice(b"event: message\ndata: ");
                out.extend_from_slice(failure);
                out.extend_from_slice(b"\n\n");
            }
            return Filtered::Last(out.into());
        }
    }
}

fn pass_event(event: Event, out: &mut Vec<u8>, context: &Context) -> Result<(), mcp_jsonrpc::FilterError> {
    if !could_be_list(&event.data) {
        out.extend_from_slice(&event.raw);
        return Ok(());
    }
    let filtered = filter_tools_list(&event.data, &mut |tool| keeps(context, tool))?;
    if filtered == event.data {
        out.extend_from_slice(&event.raw);
        return Ok(());
    }
    out.extend_from_slice(&event.other_fields);
    for line in filtered.split(|byte| matches!(byte, b'\n' | b'\r')) {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.push(b'\n');
    Ok(())
}

/// A key `tools` is written out, or with an escape; most events have neither, and are not read.
fn could_be_list(data: &[u8]) -> bool {
    memmem::find(data, b"tools").is_some() || memmem::find(data, b"\\u").is_some()
}

fn keeps(context: &Context, tool: &str) -> bool {
    context.engine.could_call(context.levels, context.identity.as_deref(), &context.listener, tool)
}
