//! An incremental reader of event streams (WHATWG HTML, section 9.2).

/// One event, as bytes of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The event's bytes as they came, the blank line included: pass them on to forward it unchanged.
    pub raw: Vec<u8>,
    /// The `data` lines joined with LF.
    pub data: Vec<u8>,
    /// The same event with other data (used where a list was filtered) keeps these: id, event, retry lines.
    pub other_fields: Vec<u8>,
}

/// Fed with chunks at any split, yields whole events.
#[derive(Debug, Default)]
pub struct EventReader {
    _private: (),
}

impl EventReader {
    /// A reader that refuses events over `max_event_bytes`.
    pub fn new(max_event_bytes: usize) -> Self {
        let _ = max_event_bytes;
        todo!()
    }
    /// Adds bytes of the stream.
    pub fn push(&mut self, chunk: &[u8]) {
        let _ = chunk;
        todo!()
    }
    /// The next whole event, `None` when more bytes are needed.
    ///
    /// # Errors
    /// An event over the limit.
    pub fn next_event(&mut self) -> Result<Option<Event>, crate::FilterError> {
        todo!()
    }
    /// What is left when the stream ends: bytes of an event that never ended (clients discard them).
    pub fn finish(self) -> Vec<u8> {
        todo!()
    }
}
