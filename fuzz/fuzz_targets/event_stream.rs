//! A stream, its first byte choosing how it is split: the same events at any split, and no byte lost.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_jsonrpc::{Event, EventReader};

fn read<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Result<(Vec<Event>, Vec<u8>), ()> {
    let (mut reader, mut events) = (EventReader::new(1 << 10), Vec::new());
    for chunk in chunks {
        reader.push(chunk);
        while let Some(event) = reader.next_event().map_err(drop)? {
            events.push(event);
        }
    }
    reader.end();
    while let Some(event) = reader.next_event().map_err(drop)? {
        events.push(event);
    }
    Ok((events, reader.finish()))
}

fuzz_target!(|bytes: &[u8]| {
    let Some((size, stream)) = bytes.split_first() else { return };
    let whole = read(std::iter::once(stream));
    assert_eq!(read(stream.chunks(usize::from(*size).max(1))), whole);
    assert_eq!(read(stream.chunks(1)), whole);
    if let Ok((events, left)) = whole {
        let mut all: Vec<u8> = events.iter().flat_map(|event| event.raw.iter().copied()).collect();
        all.extend(left);
        assert_eq!(all, stream);
        for event in events {
            assert!(event.data.len() + event.other_fields.len() <= event.raw.len());
        }
    }
});
