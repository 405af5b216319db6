//! Event streams as they come: what is handed out when, and what counts towards the limit. (Splits: `src/sse.rs`.)
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use mcp_jsonrpc::{Event, EventReader};

fn raw(event: Option<Event>) -> Option<String> {
    event.map(|event| String::from_utf8(event.raw).unwrap())
}

/// Each chunk with the events that it completes, under a limit of 12 bytes.
#[track_caller]
fn check(chunks: &[(&str, &[&str])]) {
    let mut reader = EventReader::new(12);
    for (chunk, events) in chunks {
        reader.push(chunk.as_bytes());
        for event in *events {
            assert_eq!(raw(reader.next_event().unwrap()).as_deref(), Some(*event), "after {chunk:?}");
        }
        assert_eq!(raw(reader.next_event().unwrap()), None, "after {chunk:?}");
    }
}

#[test]
fn events_are_handed_out_as_soon_as_they_are_there() {
    check(&[("\n", &["\n"])]);
    check(&[("\n\n", &["\n", "\n"])]);
    check(&[("\r", &[]), ("\n", &["\r\n"])]);
    check(&[("\u{feff}\n", &["\u{feff}\n"]), ("d\n\n", &["d\n\n"])]);
    check(&[("data: a\n", &[]), ("\n", &["data: a\n\n"]), ("data: b\n\n", &["data: b\n\n"])]);
}

#[test]
fn the_limit_is_for_each_event() {
    let event = "data: 345\n\n";
    check(&[(&event.repeat(5), &[event; 5]), (event, &[event])]);
    check(&[("data: 3456\n\n", &["data: 3456\n\n"])]);
    check(&[(&[event, "data: 3"].concat(), &[event]), ("456\n\n", &["data: 3456\n\n"])]);
    for over in ["data: 34567\n\n", "data: 34567\n"] {
        let mut reader = EventReader::new(12);
        reader.push([event, over].concat().as_bytes());
        assert!(reader.next_event().unwrap().is_some());
        assert_eq!(reader.next_event().is_err(), over.len() > 12);
    }
}
