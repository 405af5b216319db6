//! A stream, its first byte choosing one of the ways to split it: the same events at any split, up to the same error, no
//! byte lost, and the data that a reader of nothing but the specification finds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_jsonrpc::{Event, EventReader, FilterError};

/// Streams up to this long are cut at every place.
const EVERY_SPLIT: usize = 96;

/// The events up to an error, and what is left, or the error.
type Read = (Vec<Event>, Result<Vec<u8>, FilterError>);

fn read<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Read {
    let (mut reader, mut events) = (EventReader::new(1 << 10), Vec::new());
    for chunk in chunks.map(Some).chain([None]) {
        match chunk {
            Some(chunk) => reader.push(chunk),
            None => reader.end(),
        }
        loop {
            match reader.next_event() {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(error) => return (events, Err(error)),
            }
        }
    }
    (events, Ok(reader.finish()))
}

/// The data of each event, by the WHATWG's "Interpreting an event stream"; an event without data has none.
fn by_the_specification(stream: &[u8]) -> Vec<Vec<u8>> {
    let stream = stream.strip_prefix(b"\xef\xbb\xbf").unwrap_or(stream);
    let (mut events, mut data, mut line) = (Vec::new(), Vec::new(), Vec::new());
    let mut bytes = stream.iter().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\r' | b'\n' => {
                if *byte == b'\r' {
                    bytes.next_if_eq(&&b'\n');
                }
                if line.is_empty() {
                    events.push(std::mem::take(&mut data).join(&b'\n'));
                }
                let line = std::mem::take(&mut line);
                let mut parts = line.splitn(2, |byte| *byte == b':');
                if parts.next() == Some(b"data") {
                    let value = parts.next().unwrap_or_default();
                    data.push(value.strip_prefix(b" ").unwrap_or(value).to_vec());
                }
            }
            byte => line.push(*byte),
        }
    }
    events
}

fuzz_target!(|bytes: &[u8]| {
    let Some((size, stream)) = bytes.split_first() else { return };
    let whole = read(std::iter::once(stream));
    assert_eq!(read(stream.chunks(usize::from(*size).max(1))), whole);
    assert_eq!(read(stream.chunks(1)), whole);
    if stream.len() <= EVERY_SPLIT {
        for at in 0..=stream.len() {
            let (head, tail) = stream.split_at(at);
            assert_eq!(read([head, tail].into_iter()), whole, "split at {at}");
        }
    }
    let (events, end) = whole;
    let mut all: Vec<u8> = events.iter().flat_map(|event| event.raw.iter().copied()).collect();
    let expected = by_the_specification(stream);
    let read: Vec<&[u8]> = events.iter().map(|event| event.data.as_slice()).collect();
    match end {
        Ok(left) => {
            all.extend(left);
            assert_eq!(all, stream);
            assert_eq!(read, expected);
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert!(stream.starts_with(&all));
            assert_eq!(read, expected[..read.len()]);
        }
    }
    for event in events {
        assert!(event.data.len() + event.other_fields.len() <= event.raw.len());
        assert!(event.raw.len() <= 1 << 10);
    }
});
