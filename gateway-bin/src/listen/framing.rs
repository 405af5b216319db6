//! Refuses HTTP/1 requests whose length is said in two ways: Content-Length beside Transfer-Encoding, or twice.
//!
//! hyper follows RFC 9112, section 6.3, and drops the Content-Length that does not count before anybody can see it. That
//! is safe here, but a client that sends both means harm to somebody on the way, so it gets a 400 (semantics, section 3).
use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A header line that no parser takes, and the end of the head: hyper answers it with 400 and closes the connection.
const POISON: &[u8] = b"\0\r\n\r\n";
/// Of a line that is longer, the rest is not looked at: no line that counts is.
const LONGEST_LINE: usize = 64;

/// A connection whose request heads are watched as they come in.
#[derive(Debug)]
pub(super) struct FramingGuard<IO> {
    io: IO,
    scan: Scan,
    /// What is still to be read in place of what the client sent.
    poison: Option<&'static [u8]>,
}

impl<IO> FramingGuard<IO> {
    pub(super) fn new(io: IO) -> Self {
        Self { io, scan: Scan::default(), poison: None }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for FramingGuard<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(poison) = self.poison {
            let (now, later) = poison.split_at(poison.len().min(buffer.remaining()));
            buffer.put_slice(now);
            self.poison = Some(later);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        let come = buffer.filled().get(before..).unwrap_or_default();
        if let Some(until) = self.scan.refused_at(come) {
            buffer.set_filled(before + until);
            self.poison = Some(POISON);
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for FramingGuard<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }
    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Where in the stream of requests the next byte stands. It follows what hyper accepts; where hyper would refuse, it may
/// lose its place, since nothing comes after that.
#[derive(Debug, Default)]
struct Scan {
    place: Place,
    /// Bytes of a body, or of a chunk, that are passed over.
    skip: u64,
    /// The line so far, up to `LONGEST_LINE`.
    line: Vec<u8>,
    lengths: u32,
    length: u64,
    coded: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    #[default]
    RequestLine,
    Header,
    ChunkSize,
    /// The line break after a chunk's data.
    ChunkEnd,
    Trailer,
    /// HTTP/2, or nothing that could be followed.
    Elsewhere,
}

impl Scan {
    /// Follows these bytes; says after how many of them a head turned out to be refused.
    fn refused_at(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut rest = bytes;
        while !rest.is_empty() && self.place != Place::Elsewhere {
            if self.skip > 0 {
                let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(rest.len());
                self.skip -= u64::try_from(skipped).unwrap_or(u64::MAX);
                rest = rest.get(skipped..).unwrap_or_default();
                continue;
            }
            let end = rest.iter().position(|byte| *byte == b'\n');
            let (line, after) = match end {
                None => (rest, &[][..]),
                Some(end) => {
                    let (line, after) = rest.split_at(end);
                    (line, after.get(1..).unwrap_or_default())
                }
            };
            let room = LONGEST_LINE.saturating_sub(self.line.len());
            self.line.extend_from_slice(line.get(..room).unwrap_or(line));
            rest = after;
            if end.is_some() && self.line_ends() {
                return Some(bytes.len() - rest.len());
            }
        }
        None
    }

    /// Takes a whole line; says whether it makes the head one that is refused.
    fn line_ends(&mut self) -> bool {
        let mut taken = std::mem::take(&mut self.line);
        let line = taken.strip_suffix(b"\r").unwrap_or(&taken);
        match self.place {
            Place::RequestLine if line.is_empty() => {}
            Place::RequestLine if line.starts_with(b"PRI * HTTP/2") => self.place = Place::Elsewhere,
            Place::RequestLine => {
                (self.lengths, self.length, self.coded) = (0, 0, false);
                self.place = Place::Header;
            }
            Place::Header if line.is_empty() && self.coded => self.place = Place::ChunkSize,
            Place::Header if line.is_empty() => {
                self.skip = self.length;
                self.place = Place::RequestLine;
            }
            Place::Header => self.header(line),
            Place::ChunkSize => match chunk_size(line) {
                None => self.place = Place::Elsewhere,
                Some(0) => self.place = Place::Trailer,
                Some(size) => {
                    self.skip = size;
                    self.place = Place::ChunkEnd;
                }
            },
            Place::ChunkEnd => self.place = Place::ChunkSize,
            Place::Trailer if line.is_empty() => self.place = Place::RequestLine,
            Place::Trailer | Place::Elsewhere => {}
        }
        taken.clear();
        self.line = taken;
        self.place == Place::Header && (self.lengths > 1 || self.coded && self.lengths > 0)
    }

    fn header(&mut self, line: &[u8]) {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        if name.eq_ignore_ascii_case(b"content-length") {
            self.lengths += 1;
            let digits = std::str::from_utf8(value.get(1..).unwrap_or_default()).unwrap_or_default();
            self.length = digits.trim().parse().unwrap_or_default();
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.coded = true;
        }
    }
}

/// The size of a chunk, without its extensions.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let digits = std::str::from_utf8(line.get(..digits)?).ok()?;
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At any split: how much of the stream is let through before it is refused.
    #[track_caller]
    fn check(stream: &str, let_through: Option<&str>) {
        for size in [1, 2, 3, 7, 64, stream.len()] {
            let mut scan = Scan::default();
            let mut before = 0;
            let mut refused = None;
            for chunk in stream.as_bytes().chunks(size) {
                if let Some(at) = scan.refused_at(chunk) {
                    refused = Some(before + at);
                    break;
                }
                before += chunk.len();
            }
            assert_eq!(
                refused.and_then(|at| stream.get(..at)),
                let_through,
                "in pieces of {size}: {stream:?}"
            );
        }
    }

    const HEAD: &str = "POST /mcp HTTP/1.1\r\nHost: a\r\n";

    #[test]
    fn said_in_two_ways() {
        for (first, second) in [
            ("Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"),
            ("transfer-encoding: chunked\r\n", "CONTENT-LENGTH:5\r\n"),
            ("Content-Length: 5\r\n", "content-length: 5\r\n"),
            ("Content-Length: 5\n", "content-length: 6\n"),
            ("Transfer-Encoding: gzip\r\nx: y\r\n", "Content-Length: 0\r\n"),
        ] {
            let head = format!("{HEAD}{first}{second}");
            check(&format!("{head}x: y\r\n\r\nhello"), Some(&head));
        }
    }

    #[test]
    fn said_in_one_way() {
        check(&format!("{HEAD}Content-Length: 5\r\n\r\nhello"), None);
        check(&format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), None);
        check(&format!("{HEAD}x-content-length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), None);
        check("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nContent-Length: 1\r\nContent-Length: 1\r\n", None);
        check(&format!("{HEAD}{}: 1\r\n\r\n", "x".repeat(5_000)), None);
    }

    /// What a body holds is no head; what follows it is.
    #[test]
    fn bodies_are_passed_over() {
        let two = "Content-Length: 1\r\nContent-Length: 1\r\n";
        check(&format!("{HEAD}Content-Length: {}\r\n\r\n{two}", two.len()), None);
        let coded = format!(
            "{HEAD}Transfer-Encoding: chunked\r\n\r\n{:x};ext=1\r\n{two}\r\n0\r\nx: y\r\n\r\n",
            two.len()
        );
        check(&coded, None);
        let second = format!("GET / HTTP/1.1\r\n{two}");
        for first in [
            format!("{HEAD}\r\n"),
            format!("{HEAD}Content-Length: {}\r\n\r\n{two}", two.len()),
            format!("\r\n{coded}"),
        ] {
            check(&format!("{first}{second}\r\n"), Some(&format!("{first}{second}")));
        }
    }
}
