//! Buffering to a limit: one frame is not copied, several are copied once.
use std::{
    pin::Pin,
    task::{Context as TaskContext, Poll, ready},
};

use bytes::Bytes;
use http_body::Body;

/// Holds what has come of a body.
#[derive(Debug)]
pub(crate) struct Collector {
    limit: usize,
    held: Held,
}

#[derive(Debug)]
enum Held {
    One(Bytes),
    Many(Vec<u8>),
}

/// Why a body could not be collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CollectError {
    TooLarge,
    Broken,
}

impl Collector {
    /// A collector of at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, held: Held::One(Bytes::new()) }
    }

    fn len(&self) -> usize {
        match &self.held {
            Held::One(bytes) => bytes.len(),
            Held::Many(bytes) => bytes.len(),
        }
    }

    /// Adds a frame's bytes; `more` is how many are known to follow.
    pub(crate) fn push(&mut self, data: Bytes, more: u64) -> Result<(), CollectError> {
        let total = self.len().saturating_add(data.len());
        if total > self.limit {
            return Err(CollectError::TooLarge);
        }
        match &mut self.held {
            Held::One(first) if first.is_empty() => self.held = Held::One(data),
            Held::One(first) => {
                let expected =
                    total.saturating_add(usize::try_from(more).unwrap_or(usize::MAX)).min(self.limit);
                let mut bytes = Vec::with_capacity(expected);
                bytes.extend_from_slice(first);
                bytes.extend_from_slice(&data);
                self.held = Held::Many(bytes);
            }
            Held::Many(bytes) => bytes.extend_from_slice(&data),
        }
        Ok(())
    }

    /// All of it.
    pub(crate) fn finish(&mut self) -> Bytes {
        match &mut self.held {
            Held::One(bytes) => std::mem::take(bytes),
            Held::Many(bytes) => std::mem::take(bytes).into(),
        }
    }

    /// Reads a body to its end, or until it is over the limit. Trailers are left out: nobody decided on them.
    pub(crate) fn poll_collect<B>(
        &mut self,
        body: &mut B,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Result<Bytes, CollectError>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        loop {
            match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                None => return Poll::Ready(Ok(self.finish())),
                Some(Err(_)) => return Poll::Ready(Err(CollectError::Broken)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data()
                        && let Err(error) = self.push(data, body.size_hint().lower())
                    {
                        return Poll::Ready(Err(error));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_frame_is_not_copied() {
        let frame = Bytes::from(vec![b'x'; 100]);
        for others in [&[][..], &[Bytes::new(), Bytes::new()]] {
            let mut collector = Collector::new(100);
            for empty in others {
                collector.push(empty.clone(), 0).unwrap();
            }
            collector.push(frame.clone(), 0).unwrap();
            assert_eq!(collector.finish().as_ptr(), frame.as_ptr());
        }
    }

    #[test]
    fn several_frames_are_copied_once_where_the_length_is_known() {
        let mut collector = Collector::new(1000);
        collector.push(Bytes::from_static(b"ab"), 298).unwrap();
        collector.push(Bytes::from_static(b"cd"), 296).unwrap();
        let Held::Many(bytes) = &collector.held else { panic!("two frames are many") };
        assert_eq!(bytes.capacity(), 300);
        collector.push(Bytes::from(vec![b'x'; 296]), 0).unwrap();
        let all = collector.finish();
        assert_eq!((all.len(), all.get(..5)), (300, Some(&b"abcdx"[..])));
    }

    #[test]
    fn what_is_announced_beyond_the_limit_is_not_reserved() {
        let mut collector = Collector::new(10);
        collector.push(Bytes::from_static(b"a"), u64::MAX).unwrap();
        collector.push(Bytes::from_static(b"b"), u64::MAX).unwrap();
        let Held::Many(bytes) = &collector.held else { panic!("two frames are many") };
        assert!(bytes.capacity() <= 10);
    }

    #[test]
    fn the_limit_is_exact() {
        let mut collector = Collector::new(3);
        collector.push(Bytes::from_static(b"abc"), 0).unwrap();
        collector.push(Bytes::new(), 0).unwrap();
        assert_eq!(collector.push(Bytes::from_static(b"d"), 0), Err(CollectError::TooLarge));
        assert_eq!(Collector::new(3).push(Bytes::from_static(b"abcd"), 0), Err(CollectError::TooLarge));
    }
}
