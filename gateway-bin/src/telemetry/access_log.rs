//! One JSON line per request, written by a thread of its own so that a slow reader never holds up a request.
use std::{
    io::Write as _,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::sync::mpsc::UnboundedSender;

use super::json::{field, number};

/// Lines wait in memory up to this many bytes; more are dropped and counted.
const MAX_WAITING: usize = 1 << 20;
/// How long a line may wait for others.
const LINGER: Duration = Duration::from_millis(50);

/// Where lines go.
#[derive(Debug, Clone)]
pub enum AccessLog {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout(Arc<Stdout>),
    /// To whoever embeds the gateway, without the line feed.
    Channel(UnboundedSender<String>),
}

/// Lines on their way to standard output.
#[derive(Debug, Default)]
pub struct Stdout {
    waiting: Mutex<Vec<u8>>,
    filled: Condvar,
    dropped: AtomicU64,
}

impl AccessLog {
    /// Writes to standard output.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn stdout() -> std::io::Result<Self> {
        let lines = Arc::new(Stdout::default());
        let writer = Arc::clone(&lines);
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || writer.write_all())?;
        Ok(Self::Stdout(lines))
    }

    /// Whether anybody reads lines.
    pub(crate) fn is_on(&self) -> bool {
        !matches!(self, Self::Off)
    }

    pub(crate) fn write(&self, line: Line) {
        match self {
            Self::Off => {}
            Self::Stdout(lines) => lines.push(&line.finish()),
            Self::Channel(sender) => {
                // A reader that went away wants no more lines.
                let _gone = sender.send(line.finish()).is_err();
            }
        }
    }

    /// Writes out what is waiting (before the process ends).
    pub(crate) fn flush(&self) {
        if let Self::Stdout(lines) = self {
            lines.write_waiting();
        }
    }

    /// How many lines were dropped because nobody read fast enough.
    pub(crate) fn dropped(&self) -> u64 {
        match self {
            Self::Stdout(lines) => lines.dropped.load(Ordering::Relaxed),
            Self::Off | Self::Channel(_) => 0,
        }
    }
}

impl Stdout {
    fn push(&self, line: &str) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() + line.len() >= MAX_WAITING {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let was_empty = waiting.is_empty();
        waiting.extend_from_slice(line.as_bytes());
        waiting.push(b'\n');
        if was_empty {
            self.filled.notify_one();
        }
    }

    fn write_all(&self) {
        loop {
            let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            drop(self.filled.wait_while(waiting, |waiting| waiting.is_empty()));
            std::thread::sleep(LINGER);
            self.write_waiting();
        }
    }

    fn write_waiting(&self) {
        let lines = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let mut out = std::io::stdout().lock();
        // There is nobody to tell where standard output is gone.
        let _gone = out.write_all(&lines).and_then(|()| out.flush()).is_err();
    }
}

/// A line while it is made.
#[derive(Debug)]
pub(crate) struct Line(String);

impl Line {
    pub(crate) fn new(now: SystemTime) -> Self {
        let mut line = String::with_capacity(768);
        line.push('{');
        field(&mut line, "time", &rfc3339(now));
        Self(line)
    }

    pub(crate) fn field(&mut self, key: &str, value: &str) -> &mut Self {
        field(&mut self.0, key, value);
        self
    }

    pub(crate) fn number(&mut self, key: &str, value: u64) -> &mut Self {
        number(&mut self.0, key, value);
        self
    }

    /// Adds members that are JSON already.
    pub(super) fn members(&mut self, members: &str) -> &mut Self {
        if !members.is_empty() {
            self.0.push(',');
            self.0.push_str(members);
        }
        self
    }

    fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// `2026-11-23T12:00:00.123Z`
fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let mut out = String::with_capacity(24);
    for (value, width, after) in [
        (year, 4, '-'),
        (month, 2, '-'),
        (day, 2, 'T'),
        (second / 3_600, 2, ':'),
        (second / 60 % 60, 2, ':'),
        (second % 60, 2, '.'),
        (u64::from(since.subsec_millis()), 3, 'Z'),
    ] {
        for place in (0..width).rev() {
            let digit = value / 10_u64.pow(place) % 10;
            out.push(char::from(b'0' + u8::try_from(digit).unwrap_or_default()));
        }
        out.push(after);
    }
    out
}

/// The date of a day since 1970-01-01 in the Gregorian calendar, counted in years that begin in March, so that the day
/// that leap years add comes last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (millis, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_868_799_000, "2000-02-29T23:59:59.000Z"),
            (1_763_899_200_042, "2025-11-23T12:00:00.042Z"),
            (1_709_251_200_000, "2024-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_millis(millis)), expected);
        }
    }

    #[test]
    fn lines_beyond_what_may_wait_are_counted() {
        let lines = Stdout::default();
        let line = "x".repeat(MAX_WAITING / 4);
        for _ in 0..5 {
            lines.push(&line);
        }
        assert_eq!(lines.dropped.load(Ordering::Relaxed), 2);
    }
}
