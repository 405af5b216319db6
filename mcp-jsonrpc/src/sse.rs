//! An incremental reader of event streams (WHATWG HTML, section 9.2).

use crate::FilterError;

/// One event, as bytes of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The event's bytes as they came, the blank line included: pass them on to forward it unchanged.
    pub raw: Vec<u8>,
    /// The `data` lines joined with LF. Empty if there are none: clients dispatch no such event.
    pub data: Vec<u8>,
    /// The same event with other data (used where a list was filtered) keeps these: id, event, retry lines (every line
    /// but `data` and the blank one, with its own line end).
    pub other_fields: Vec<u8>,
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Fed with chunks at any split, yields whole events: the same events whatever the split. Lines end with LF, CRLF or
/// CR, a byte-order mark may come first.
///
/// Call [`next_event`](Self::next_event) after each [`push`](Self::push) until it yields `None`: then at most one
/// unfinished event is held.
#[derive(Debug, Default)]
pub struct EventReader {
    max_event_bytes: usize,
    buffer: Vec<u8>,
    /// Where the unfinished event begins in `buffer`.
    start: usize,
    /// Where its first line begins: after a byte-order mark, or the LF of the previous event's last CRLF.
    content: usize,
    /// Where its current line begins.
    line: usize,
    /// How far `buffer` has been searched for line ends.
    searched: usize,
    /// Something of the stream has been read, so no byte-order mark can follow.
    begun: bool,
    /// The last line of this event ended with a CR alone.
    lone_cr: bool,
    /// The previous event was handed out at a CR without waiting for an LF.
    after_cr: bool,
    ended: bool,
    failed: bool,
}

impl EventReader {
    /// A reader that refuses events over `max_event_bytes`.
    pub fn new(max_event_bytes: usize) -> Self {
        Self { max_event_bytes, ..Self::default() }
    }

    /// Adds bytes of the stream.
    pub fn push(&mut self, chunk: &[u8]) {
        if self.failed {
            return;
        }
        // What was handed out makes room before the buffer grows: at least half of it, so that the cost stays linear.
        if self.start > 0 && self.start >= self.buffer.len() / 2 {
            self.buffer.drain(..self.start);
            self.content -= self.start;
            self.line -= self.start;
            self.searched -= self.start;
            self.start = 0;
        }
        self.buffer.extend_from_slice(chunk);
    }

    /// Says that the stream has ended: a CR that was held back, since an LF could have followed it, now ends its line.
    /// Call [`next_event`](Self::next_event) once more afterwards.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// The next whole event, `None` when more bytes are needed.
    ///
    /// # Errors
    /// An event over the limit, and ever after it: nothing more of the stream can be read.
    pub fn next_event(&mut self) -> Result<Option<Event>, FilterError> {
        if self.failed {
            return Err(FilterError::event_too_large(self.max_event_bytes));
        }
        let event = self.find_event();
        let end = event.unwrap_or(self.buffer.len());
        if end - self.start > self.max_event_bytes {
            self.failed = true;
            self.buffer = Vec::new();
            return Err(FilterError::event_too_large(self.max_event_bytes));
        }
        Ok(event.map(|end| self.take(end)))
    }

    /// What is left when the stream ends: bytes of an event that never ended (clients discard them). Nothing if the
    /// last event ended with a CR alone and was not asked for after [`end`](Self::end), so that an event is never
    /// mistaken for a fragment.
    pub fn finish(mut self) -> Vec<u8> {
        self.ended = true;
        if self.failed || self.find_event().is_some() {
            return Vec::new();
        }
        self.buffer.split_off(self.start)
    }

    /// Where the unfinished event ends, if that has come.
    fn find_event(&mut self) -> Option<usize> {
        self.begin()?;
        loop {
            let rest = self.buffer.get(self.searched..).unwrap_or_default();
            let Some(found) = memchr::memchr2(b'\n', b'\r', rest) else {
                self.searched = self.buffer.len();
                return None;
            };
            let at = self.searched + found;
            let is_blank = at == self.line;
            let mut end = at + 1;
            if self.buffer.get(at) == Some(&b'\r') {
                if is_blank && self.lone_cr {
                    // A stream whose lines end with CR alone is not kept waiting for an LF that will not come.
                    self.after_cr = true;
                } else {
                    match self.buffer.get(end) {
                        Some(b'\n') => end += 1,
                        None if !self.ended => {
                            self.searched = at;
                            return None;
                        }
                        Some(_) | None => {}
                    }
                }
                self.lone_cr = end == at + 1;
            } else {
                self.lone_cr = false;
            }
            (self.line, self.searched) = (end, end);
            if is_blank {
                return Some(end);
            }
        }
    }

    /// Skips what may come before the first line of an event; `None` if it takes more bytes to know.
    fn begin(&mut self) -> Option<()> {
        let rest = self.buffer.get(self.start..).unwrap_or_default();
        let skipped = if !self.begun {
            if rest.len() < BYTE_ORDER_MARK.len() && BYTE_ORDER_MARK.starts_with(rest) && !self.ended {
                return None;
            }
            self.begun = true;
            if rest.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 }
        } else if self.after_cr {
            let next = rest.first()?;
            self.after_cr = false;
            usize::from(*next == b'\n')
        } else {
            return Some(());
        };
        self.content = self.start + skipped;
        (self.line, self.searched) = (self.content, self.content);
        Some(())
    }

    /// Hands out the event that ends there.
    fn take(&mut self, end: usize) -> Event {
        let raw = self.buffer.get(self.start..end).unwrap_or_default().to_vec();
        let mut rest = self.buffer.get(self.content..end).unwrap_or_default();
        let mut data = Vec::new();
        let mut has_data = false;
        let mut other_fields = Vec::new();
        while let Some(length) = memchr::memchr2(b'\n', b'\r', rest) {
            let (line, tail) = rest.split_at(length);
            let terminator = if tail.starts_with(b"\r\n") { 2 } else { 1 };
            let (whole, tail) = rest.split_at(length + terminator);
            rest = tail;
            match line.strip_prefix(b"data") {
                Some(value) if matches!(value.first(), None | Some(b':')) => {
                    if has_data {
                        data.push(b'\n');
                    }
                    has_data = true;
                    let value = value.strip_prefix(b":").unwrap_or_default();
                    data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
                }
                _ if line.is_empty() => {}
                _ => other_fields.extend_from_slice(whole),
            }
        }
        (self.start, self.content, self.lone_cr) = (end, end, false);
        Event { raw, data, other_fields }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(chunks: &[&[u8]]) -> (Vec<Event>, Vec<u8>) {
        let mut reader = EventReader::new(1 << 20);
        let mut events = Vec::new();
        for chunk in chunks {
            reader.push(chunk);
            while let Some(event) = reader.next_event().unwrap() {
                events.push(event);
            }
        }
        reader.end();
        while let Some(event) = reader.next_event().unwrap() {
            events.push(event);
        }
        (events, reader.finish())
    }

    /// `expected`: raw, data, other fields of each event, then what is left.
    #[track_caller]
    fn check(stream: &str, expected: &[(&str, &str, &str)], left: &str) {
        let events: Vec<Event> = expected
            .iter()
            .map(|(raw, data, other)| Event {
                raw: raw.as_bytes().to_vec(),
                data: data.as_bytes().to_vec(),
                other_fields: other.as_bytes().to_vec(),
            })
            .collect();
        let expected = (events, left.as_bytes().to_vec());
        let bytes = stream.as_bytes();
        assert_eq!(read(&[bytes]), expected, "whole");
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(read(&single), expected, "byte by byte");
        for first in 0..=bytes.len() {
            let (head, tail) = bytes.split_at(first);
            assert_eq!(read(&[head, tail]), expected, "split at {first}");
            for second in 0..=tail.len() {
                let (middle, tail) = tail.split_at(second);
                assert_eq!(read(&[head, middle, tail]), expected, "split at {first} and {second} more");
            }
        }
    }

    #[test]
    fn streams_read_the_same_at_every_split() {
        check("", &[], "");
        check("data: a\n\n", &[("data: a\n\n", "a", "")], "");
        check("data:a\r\n\r\n", &[("data:a\r\n\r\n", "a", "")], "");
        check("data:  a\r\r", &[("data:  a\r\r", " a", "")], "");
        check(
            "id: 1\nevent: message\ndata: {\ndata\ndata: }\nretry: 5\n: hello\n\ndata: b\n\n",
            &[
                (
                    "id: 1\nevent: message\ndata: {\ndata\ndata: }\nretry: 5\n: hello\n\n",
                    "{\n\n}",
                    "id: 1\nevent: message\nretry: 5\n: hello\n",
                ),
                ("data: b\n\n", "b", ""),
            ],
            "",
        );
        check("\u{feff}data: a\n\n", &[("\u{feff}data: a\n\n", "a", "")], "");
        check("\u{feff}\u{feff}data: a\n\n", &[("\u{feff}\u{feff}data: a\n\n", "", "\u{feff}data: a\n")], "");
        check("\u{feff}\n", &[("\u{feff}\n", "", "")], "");
        check(": ping\n\n", &[(": ping\n\n", "", ": ping\n")], "");
        check("\n\r\n\r", &[("\n", "", ""), ("\r\n", "", ""), ("\r", "", "")], "");
        check(
            "datax: a\ndata : b\nDATA: c\n\n",
            &[("datax: a\ndata : b\nDATA: c\n\n", "", "datax: a\ndata : b\nDATA: c\n")],
            "",
        );
        check("data: a\r\rdata: b\r\r", &[("data: a\r\r", "a", ""), ("data: b\r\r", "b", "")], "");
        check("data: a\r\r\ndata: b\n\n", &[("data: a\r\r", "a", ""), ("\ndata: b\n\n", "b", "")], "");
        check("data: a\n\rdata: b\n\n", &[("data: a\n\r", "a", ""), ("data: b\n\n", "b", "")], "");
        check("data: a\n\r", &[("data: a\n\r", "a", "")], "");
        check("data: a\rid: 7\r\r\r", &[("data: a\rid: 7\r\r", "a", "id: 7\r"), ("\r", "", "")], "");
        check("data: a\n\ndata: b\n", &[("data: a\n\n", "a", "")], "data: b\n");
        check("data: a", &[], "data: a");
        check("data: a\r", &[], "data: a\r");
    }

    #[test]
    fn an_event_that_ended_is_no_fragment() {
        let mut reader = EventReader::new(100);
        reader.push(b"data: a\n\r");
        assert_eq!(reader.next_event(), Ok(None));
        assert_eq!(reader.finish(), b"");
    }

    #[test]
    fn events_over_the_limit_are_refused_for_good() {
        let mut reader = EventReader::new(10);
        reader.push(b"data: 23\n\n");
        assert!(reader.next_event().unwrap().is_some());
        reader.push(b"data: 23456");
        let error = reader.next_event().unwrap_err();
        assert!(error.is_too_large());
        assert_eq!(error.to_string(), "the server's event is over the limit of 10 bytes");
        reader.push(b"\n\ndata: a\n\n");
        assert!(reader.next_event().is_err());
        assert_eq!(reader.finish(), b"");

        let mut reader = EventReader::new(10);
        reader.push(b"data: 234\n\n");
        assert!(reader.next_event().is_err());
    }

    #[test]
    fn what_was_handed_out_is_not_kept() {
        let mut reader = EventReader::new(100);
        for _ in 0..100_000 {
            reader.push(b"data: 0123456789\n\ndata: unf");
            while let Some(event) = reader.next_event().unwrap() {
                assert!(event.data.starts_with(b"0123456789") || event.data.starts_with(b"unf"));
            }
            reader.push(b"inished\n\n");
            assert!(reader.next_event().unwrap().is_some());
        }
        assert!(reader.buffer.capacity() < 1000);
    }
}
