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
    failed: Option<FilterError>,
}

impl EventReader {
    /// A reader that refuses events over `max_event_bytes`.
    pub fn new(max_event_bytes: usize) -> Self {
        Self { max_event_bytes, ..Self::default() }
    }

    /// Adds bytes of the stream.
    pub fn push(&mut self, chunk: &[u8]) {
        if self.failed.is_some() {
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
    /// An event over the limit, or one with a line that is no `data` line and that lenient clients take for one, and
    /// ever after it: nothing more of the stream can be read.
    pub fn next_event(&mut self) -> Result<Option<Event>, FilterError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let event = self.find_event();
        let end = event.unwrap_or(self.buffer.len());
        if end - self.start > self.max_event_bytes {
            return Err(self.fail(FilterError::event_too_large(self.max_event_bytes)));
        }
        match event.map(|end| self.take(end)) {
            Some(None) => Err(self.fail(FilterError::ambiguous_line())),
            Some(event) => Ok(event),
            None => Ok(None),
        }
    }

    fn fail(&mut self, error: FilterError) -> FilterError {
        self.buffer = Vec::new();
        self.failed = Some(error.clone());
        error
    }

    /// What is left when the stream ends: bytes of an event that never ended (clients discard them). Nothing if the
    /// last event ended with a CR alone and was not asked for after [`end`](Self::end), so that an event is never
    /// mistaken for a fragment.
    pub fn finish(mut self) -> Vec<u8> {
        self.ended = true;
        if self.failed.is_some() || self.find_event().is_some() {
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

    /// Hands out the event that ends there; `None` if one of its lines could be taken for `data`.
    fn take(&mut self, end: usize) -> Option<Event> {
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
                _ if could_be_data(line) => return None,
                _ => other_fields.extend_from_slice(whole),
            }
        }
        (self.start, self.content, self.lone_cr) = (end, end, false);
        Some(Event { raw, data, other_fields })
    }
}

/// Whether some client takes this line, which is no `data` line, for one: because it drops what stands around the
/// field's name, or a byte-order mark read as Latin-1, or folds case; or because it ends lines where Python's
/// `str.splitlines` does.
fn could_be_data(line: &[u8]) -> bool {
    let mut rest = Some(line);
    while let Some(text) = rest {
        let (part, after) = split_leniently(text);
        let name = part.split(|byte| *byte == b':').next().unwrap_or_default();
        let start = name.iter().position(u8::is_ascii_alphanumeric).unwrap_or(name.len());
        let end = name.iter().rposition(u8::is_ascii_alphanumeric).map_or(start, |last| last + 1);
        if name.get(start..end).is_some_and(|name| name.eq_ignore_ascii_case(b"data")) {
            return true;
        }
        rest = after;
    }
    false
}

/// What comes before and after the first character that ends a line for `str.splitlines` and not in an event stream.
fn split_leniently(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    let ends = |tail: &[u8]| match tail {
        [0x0b | 0x0c | 0x1c..=0x1e, ..] => Some(1),
        [0xc2, 0x85, ..] => Some(2),
        [0xe2, 0x80, 0xa8 | 0xa9, ..] => Some(3),
        _ => None,
    };
    let found = (0..text.len()).find_map(|at| Some((at, ends(text.get(at..)?)?)));
    match found {
        Some((at, length)) => (text.get(..at).unwrap_or_default(), text.get(at + length..)),
        None => (text, None),
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
        check("\u{feff}\n", &[("\u{feff}\n", "", "")], "");
        check(": ping\n\n", &[(": ping\n\n", "", ": ping\n")], "");
        check("\n\r\n\r", &[("\n", "", ""), ("\r\n", "", ""), ("\r", "", "")], "");
        check(
            "datax: a\nmeta data: b\n: data: c\nevent: data: d\nid\n\n",
            &[(
                "datax: a\nmeta data: b\n: data: c\nevent: data: d\nid\n\n",
                "",
                "datax: a\nmeta data: b\n: data: c\nevent: data: d\nid\n",
            )],
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
    fn lines_that_some_clients_take_for_data_are_refused() {
        for line in [
            // eventsource-parser drops these three characters, which are a byte-order mark in Latin-1.
            "\u{ef}\u{bb}\u{bf}data: a",
            "\u{feff}data: a",
            "\u{feff}data",
            " data: a",
            "\tdata:a",
            "\0data: a",
            "data : a",
            "data ",
            "DATA: a",
            "Data\u{a0}: a",
            // Python's `str.splitlines` ends lines here.
            ": x\u{2028}data: a",
            ": x\u{2029}\u{2029}data: a",
            "id: 1\u{85}data: a",
            "event: x\u{b}data: a",
            "retry: 1\u{c}data: a",
            "x\u{1c}data: a",
            "x\u{1d}data: a",
            "x\u{1e} data: a\u{1e}x",
        ] {
            for before in ["", "\u{feff}", ": ping\n", "data: {}\n", "data: {}\n\n"] {
                if before.is_empty() && line.starts_with('\u{feff}') {
                    // The byte-order mark of the stream: it belongs there.
                    continue;
                }
                let stream = format!("{before}{line}\n\n");
                for size in [1, 2, 3, stream.len()] {
                    let mut reader = EventReader::new(1 << 10);
                    let mut refused = None;
                    for chunk in stream.as_bytes().chunks(size) {
                        reader.push(chunk);
                        while let Some(event) = reader.next_event().unwrap_or_else(|error| {
                            refused = Some(error);
                            None
                        }) {
                            assert_eq!(event.raw, b"data: {}\n\n", "{stream:?}");
                        }
                    }
                    let error = refused.unwrap_or_else(|| panic!("accepted {stream:?}"));
                    assert!(!error.is_too_large());
                    assert_eq!(
                        error.to_string(),
                        "the server's event stream has a line that could be taken for `data`"
                    );
                    reader.push(b"\n\ndata: a\n\n");
                    assert_eq!(reader.next_event(), Err(error));
                    assert_eq!(reader.finish(), b"");
                }
            }
        }
    }

    #[test]
    fn long_lines_of_line_ends_take_linear_time() {
        let line = ["x".repeat(1 << 20), "\u{b}".repeat(4 << 20), "\n\n".to_owned()].concat();
        let mut reader = EventReader::new(16 << 20);
        reader.push(line.as_bytes());
        let event = reader.next_event().unwrap().unwrap();
        assert_eq!(event.other_fields.len(), line.len() - 1);
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
