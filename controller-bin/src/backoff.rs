//! How long to wait before something is tried again.
use std::time::Duration;

/// The shortest wait.
const FIRST: Duration = Duration::from_millis(100);
/// The longest.
const LONGEST: Duration = Duration::from_secs(5);

/// Waits that double from 100 ms to 5 s, each spread over its second half so that not everyone comes back at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { next: FIRST }
    }

    /// After a success.
    pub(crate) fn reset(&mut self) {
        self.next = FIRST;
    }

    /// The next wait.
    pub(crate) fn next(&mut self) -> Duration {
        let mut byte = [0];
        // Without randomness everyone waits for the whole time.
        let share = getrandom::fill(&mut byte).map_or(1.0, |()| f64::from(u8::from_ne_bytes(byte)) / 255.0);
        let wait = self.next.mul_f64(share.mul_add(0.5, 0.5));
        self.next = self.next.saturating_mul(2).min(LONGEST);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_start_again() {
        let mut backoff = Backoff::new();
        for most in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            let (wait, most) = (backoff.next(), Duration::from_millis(most));
            assert!(wait <= most && wait >= most / 2, "{wait:?} of {most:?}");
        }
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(100));
    }
}
