//! Which endpoint is asked, and which one next.
use std::{
    io,
    net::SocketAddr,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

/// For how long an endpoint that could not be reached is asked only after all others.
const AVOIDED_FOR: Duration = Duration::from_secs(1);

/// Endpoints in turn, each with what it takes to reach it.
#[derive(Debug)]
pub(super) struct Endpoints<T> {
    next: AtomicUsize,
    start: Instant,
    endpoints: Vec<Endpoint<T>>,
}

#[derive(Debug)]
pub(super) struct Endpoint<T> {
    pub(super) via: T,
    /// Milliseconds after `start` until which others come first.
    avoided_until: AtomicU64,
}

impl<T> Endpoints<T> {
    pub(super) fn new(endpoints: impl IntoIterator<Item = T>, now: Instant) -> Self {
        Self {
            next: AtomicUsize::new(0),
            start: now,
            endpoints: endpoints
                .into_iter()
                .map(|via| Endpoint { via, avoided_until: AtomicU64::new(0) })
                .collect(),
        }
    }

    /// Every endpoint once: in turn, those that failed within the last second at the end.
    pub(super) fn in_turn(&self, now: Instant) -> Vec<&Endpoint<T>> {
        let count = self.endpoints.len().max(1);
        let first = self.next.fetch_add(1, Ordering::Relaxed) % count;
        let now = self.millis(now);
        let mut order: Vec<_> =
            self.endpoints.iter().cycle().skip(first).take(self.endpoints.len()).collect();
        order.sort_by_key(|endpoint| endpoint.avoided_until.load(Ordering::Relaxed) > now);
        order
    }

    /// Says that an endpoint could not be reached.
    pub(super) fn avoid(&self, endpoint: &Endpoint<T>, now: Instant) {
        let until = self.millis(now + AVOIDED_FOR);
        endpoint.avoided_until.store(until, Ordering::Relaxed);
    }

    fn millis(&self, time: Instant) -> u64 {
        u64::try_from(time.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX)
    }
}

/// The end of an attempt that leaves each of the `left` attempts after it as much time.
pub(super) fn share(now: Instant, deadline: Instant, left: usize) -> Instant {
    let shares = u32::try_from(left).unwrap_or(u32::MAX).saturating_add(1);
    now + deadline.saturating_duration_since(now) / shares
}

/// A connection to an address.
pub(super) async fn connect(address: SocketAddr, until: Instant) -> io::Result<TcpStream> {
    let stream = timeout_at(until, TcpStream::connect(address))
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "connecting took too long")))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(endpoints: &Endpoints<char>, now: Instant) -> String {
        endpoints.in_turn(now).into_iter().map(|endpoint| endpoint.via).collect()
    }

    #[test]
    fn in_turn_and_avoiding() {
        let now = Instant::now();
        let endpoints = Endpoints::new(['a', 'b', 'c'], now);
        assert_eq!([(); 3].map(|()| turn(&endpoints, now)), ["abc", "bca", "cab"]);
        endpoints.avoid(&endpoints.endpoints[0], now);
        assert_eq!([(); 3].map(|()| turn(&endpoints, now)), ["bca", "bca", "cba"]);
        assert_eq!(turn(&endpoints, now + AVOIDED_FOR), "abc");
        assert_eq!(turn(&Endpoints::new([], now), now), "");
    }

    #[test]
    fn attempts_share_what_is_left() {
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(share(now, after(3), 2), after(1));
        assert_eq!(share(after(1), after(3), 1), after(2));
        assert_eq!(share(now, after(3), 0), after(3));
        assert_eq!(share(after(9), after(3), 0), after(9));
    }
}
