//! Timestamps and durations: RFC 3339 text, Go's duration text, calendar fields.

const NANOS: i64 = 1_000_000_000;
const DAY: i64 = 86_400;

/// A field of a timestamp, as CEL's getters name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeField {
    FullYear,
    /// 0 is January.
    Month,
    /// 0 is the first.
    DayOfMonth,
    /// 1 is the first.
    Date,
    /// 0 is Sunday.
    DayOfWeek,
    /// 0 is the first of January.
    DayOfYear,
    Hours,
    Minutes,
    Seconds,
    Milliseconds,
}

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar, counted in eras of 400 years that
/// begin in March.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

impl TimeField {
    /// The field of a timestamp (nanoseconds since the Unix epoch), `offset` seconds east of UTC.
    pub(super) fn of(self, nanos: i64, offset: i32) -> i64 {
        let seconds = nanos.div_euclid(NANOS) + i64::from(offset);
        let days = seconds.div_euclid(DAY);
        let in_day = seconds.rem_euclid(DAY);
        let (year, month, day) = civil_from_days(days);
        match self {
            Self::FullYear => year,
            Self::Month => month - 1,
            Self::DayOfMonth => day - 1,
            Self::Date => day,
            Self::DayOfWeek => (days + 4).rem_euclid(7),
            Self::DayOfYear => days - days_from_civil(year, 1, 1),
            Self::Hours => in_day / 3_600,
            Self::Minutes => in_day / 60 % 60,
            Self::Seconds => in_day % 60,
            Self::Milliseconds => nanos.rem_euclid(NANOS) / 1_000_000,
        }
    }
}

/// `UTC`, `Z`, or `+hh:mm` / `-hh:mm`: seconds east of UTC. Names of zones are not known here.
pub(super) fn parse_offset(text: &str) -> Option<i32> {
    if matches!(text, "UTC" | "Z") {
        return Some(0);
    }
    let (sign, digits) = match text.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        // CEL takes `02:00` for `+02:00`.
        _ => (1, text),
    };
    let (hours, minutes) = digits.split_once(':')?;
    let (hours, minutes) = (number(hours, 2)?, number(minutes, 2)?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    i32::try_from(sign * (hours * 3_600 + minutes * 60)).ok()
}

/// Exactly `width` ASCII digits.
fn number(text: &str, width: usize) -> Option<i64> {
    (text.len() == width && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// RFC 3339: nanoseconds since the Unix epoch. Years that do not fit i64 nanoseconds (before 1677, after
/// 2262) are refused.
pub(super) fn parse_timestamp(text: &str) -> Option<i64> {
    let (date, time) = text.split_once(['T', 't'])?;
    let mut date = date.split('-');
    let (year, month, day) = (number(date.next()?, 4)?, number(date.next()?, 2)?, number(date.next()?, 2)?);
    if date.next().is_some() || !(1..=12).contains(&month) || day < 1 {
        return None;
    }
    let days = days_from_civil(year, month, day);
    // A day that the month does not have comes back as another date.
    if civil_from_days(days) != (year, month, day) {
        return None;
    }
    let (clock, offset) = if let Some(clock) = time.strip_suffix(['Z', 'z']) {
        (clock, 0)
    } else {
        let at = time.rfind(['+', '-'])?;
        let (clock, offset) = time.split_at_checked(at)?;
        (clock, parse_offset(offset)?)
    };
    let (clock, fraction) = match clock.split_once('.') {
        Some((clock, fraction)) => (clock, Some(fraction)),
        None => (clock, None),
    };
    let mut clock = clock.split(':');
    let (hours, minutes, seconds) =
        (number(clock.next()?, 2)?, number(clock.next()?, 2)?, number(clock.next()?, 2)?);
    if clock.next().is_some() || hours > 23 || minutes > 59 || seconds > 59 {
        return None;
    }
    let nanos = match fraction {
        None => 0,
        Some(digits) if (1..=9).contains(&digits.len()) => {
            let scale = 10_i64.pow(u32::try_from(9 - digits.len()).ok()?);
            number(digits, digits.len())? * scale
        }
        Some(_) => return None,
    };
    let seconds = days * DAY + hours * 3_600 + minutes * 60 + seconds - i64::from(offset);
    seconds.checked_mul(NANOS)?.checked_add(nanos)
}

/// `1h30m`, `-2.5s`, `100ms`: nanoseconds.
pub(super) fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total: i64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (amount, after) = rest.split_at_checked(digits)?;
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at_checked(end)?;
        let unit: i64 = match unit {
            "h" => 3_600 * NANOS,
            "m" => 60 * NANOS,
            "s" => NANOS,
            "ms" => 1_000_000,
            "us" | "\u{b5}s" => 1_000,
            "ns" => 1,
            _ => return None,
        };
        let (whole, fraction) = amount.split_once('.').unwrap_or((amount, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let whole = if whole.is_empty() { 0 } else { number(whole, whole.len())? };
        total = total.checked_add(whole.checked_mul(unit)?)?;
        if !fraction.is_empty() {
            if fraction.len() > 9 {
                return None;
            }
            let scale = 10_i64.pow(u32::try_from(fraction.len()).ok()?);
            let part = i128::from(number(fraction, fraction.len())?) * i128::from(unit) / i128::from(scale);
            total = total.checked_add(i64::try_from(part).ok()?)?;
        }
        rest = next;
    }
    if negative { total.checked_neg() } else { Some(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps() {
        // Values from `date -u -d ... +%s`.
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1970-01-01t00:00:00z", Some(0)),
            ("2026-11-23T12:13:14Z", Some(1_795_435_994 * NANOS)),
            ("2024-02-29T23:59:59.5Z", Some(1_709_251_199 * NANOS + 500_000_000)),
            ("2024-02-29T23:59:59.000000001Z", Some(1_709_251_199 * NANOS + 1)),
            ("2024-02-29T23:59:59.123456789Z", Some(1_709_251_199 * NANOS + 123_456_789)),
            ("2024-02-29T23:59:59+02:00", Some((1_709_251_199 - 7_200) * NANOS)),
            ("1969-12-31T23:59:59-00:30", Some(1_799 * NANOS)),
            ("1970-01-01T23:59:59+23:59", Some(59 * NANOS)),
            ("2262-04-11T23:47:16.854775807Z", Some(i64::MAX)),
            ("2262-04-11T23:47:16.854775808Z", None),
            ("1677-09-21T00:12:44Z", Some(-9_223_372_036 * NANOS)),
            ("1677-09-21T00:12:42Z", None),
            ("9999-01-01T00:00:00Z", None),
        ] {
            assert_eq!(parse_timestamp(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_timestamp() {
        for text in [
            "",
            "2026-11-23",
            "2026-11-23 12:13:14Z",
            "2026-11-23T12:13:14",
            "2026-11-23T12:13:14.Z",
            "2026-11-23T12:13:14.1234567890Z",
            "2026-11-23T12:13:14.1x3Z",
            "2026-11-23T12:13:14,5Z",
            // Dates that are none.
            "2023-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2026-04-31T00:00:00Z",
            "2026-11-00T00:00:00Z",
            "2026-00-23T00:00:00Z",
            "2026-13-01T00:00:00Z",
            // Times that are none.
            "2026-11-23T24:00:00Z",
            "2026-11-23T12:60:00Z",
            "2026-11-23T12:13:60Z",
            // Too many digits, too few, or other characters.
            "26-11-23T12:13:14Z",
            "2026-1-23T12:13:14Z",
            "2026-11-3T12:13:14Z",
            "2026-11-23-01T12:13:14Z",
            "2026-11T12:13:14Z",
            "2026-+1-23T12:13:14Z",
            "-026-11-23T12:13:14Z",
            "2026-11-23T12:13Z",
            "2026-11-23T1:13:14Z",
            "2026-11-23T12:13:014Z",
            "2026-11-23T12:13:14:15Z",
            // Offsets that are none.
            "2026-11-23T12:13:14+24:00",
            "2026-11-23T12:13:14+00:60",
            "2026-11-23T12:13:14+1:00",
            "2026-11-23T12:13:14+0100",
            "2026-11-23T12:13:14+",
            "2026-11-23T12:13:14ZZ",
        ] {
            assert_eq!(parse_timestamp(text), None, "{text}");
        }
    }

    #[test]
    fn offsets() {
        for (text, expected) in [
            ("UTC", Some(0)),
            ("Z", Some(0)),
            ("+00:00", Some(0)),
            ("+02:00", Some(7_200)),
            ("02:00", Some(7_200)),
            ("-03:30", Some(-12_600)),
            ("+23:59", Some(86_340)),
            ("-23:59", Some(-86_340)),
            ("+24:00", None),
            ("+00:60", None),
            ("+2:00", None),
            ("+02:0", None),
            ("+0200", None),
            ("++2:00", None),
            ("", None),
            ("Europe/Berlin", None),
        ] {
            assert_eq!(parse_offset(text), expected, "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, expected) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("1h", Some(3_600 * NANOS)),
            ("2m", Some(120 * NANOS)),
            ("3s", Some(3 * NANOS)),
            ("+3s", Some(3 * NANOS)),
            ("100ms", Some(100_000_000)),
            ("7us", Some(7_000)),
            ("7\u{b5}s", Some(7_000)),
            ("9ns", Some(9)),
            ("1h30m", Some(5_400 * NANOS)),
            ("1h2m3s4ms5us6ns", Some(3_723_004_005_006)),
            ("-1h30m", Some(-5_400 * NANOS)),
            ("-1.5s", Some(-1_500_000_000)),
            (".5s", Some(500_000_000)),
            ("2.s", Some(2 * NANOS)),
            ("1.25h", Some(4_500 * NANOS)),
            ("1.5h0.5m", Some(5_430 * NANOS)),
            ("0.123456789s", Some(123_456_789)),
            ("0.25ns", Some(0)),
            ("9223372036854775807ns", Some(i64::MAX)),
            ("9223372036s854775808ns", None),
            ("9223372036854775808ns", None),
            ("9999999h", None),
            ("0.1234567891s", None),
            ("1", None),
            ("s", None),
            (".s", None),
            ("", None),
            ("-", None),
            ("--1s", None),
            ("-+1s", None),
            ("1d", None),
            ("1h1", None),
            ("1.2.3s", None),
            ("1e3s", None),
            ("1 s", None),
        ] {
            assert_eq!(parse_duration(text), expected, "{text}");
        }
    }

    #[test]
    fn fields() {
        // 2024-02-29 was a Thursday.
        let at = parse_timestamp("2024-02-29T23:59:58.25Z").unwrap();
        for (field, expected) in [
            (TimeField::FullYear, 2024),
            (TimeField::Month, 1),
            (TimeField::DayOfMonth, 28),
            (TimeField::Date, 29),
            (TimeField::DayOfWeek, 4),
            (TimeField::DayOfYear, 59),
            (TimeField::Hours, 23),
            (TimeField::Minutes, 59),
            (TimeField::Seconds, 58),
            (TimeField::Milliseconds, 250),
        ] {
            assert_eq!(field.of(at, 0), expected, "{field:?}");
        }
        assert_eq!(TimeField::Date.of(at, 7_200), 1);
        assert_eq!(TimeField::Month.of(at, 7_200), 2);
        assert_eq!(TimeField::Hours.of(at, -3_600), 22);
        assert_eq!(TimeField::Minutes.of(at, 1_800), 29);
        assert_eq!(TimeField::Seconds.of(at, 1_800), 58);
        // Before 1970, time runs forward too.
        let just_before = -1_000_000;
        for (field, expected) in [
            (TimeField::FullYear, 1969),
            (TimeField::Hours, 23),
            (TimeField::Minutes, 59),
            (TimeField::Seconds, 59),
            (TimeField::Milliseconds, 999),
        ] {
            assert_eq!(field.of(just_before, 0), expected, "{field:?}");
        }
    }

    #[test]
    fn calendar() {
        // Seconds, year, month from 0, day, day of the week from Sunday, day of the year from 0: Python's `datetime`.
        for (seconds, year, month, day, of_week, of_year) in [
            (-9_223_372_036, 1677, 8, 21, 2, 263),
            (-8_520_336_001, 1699, 11, 31, 4, 364),
            (-8_515_238_400, 1700, 2, 1, 1, 59),
            (-2_209_075_200, 1899, 11, 31, 0, 364),
            (-2_203_934_400, 1900, 1, 28, 3, 58),
            (-2_203_891_200, 1900, 2, 1, 4, 59),
            (-1, 1969, 11, 31, 3, 364),
            (0, 1970, 0, 1, 4, 0),
            (946_684_799, 1999, 11, 31, 5, 364),
            (946_684_800, 2000, 0, 1, 6, 0),
            (951_782_400, 2000, 1, 29, 2, 59),
            (951_868_800, 2000, 2, 1, 3, 60),
            (978_220_800, 2000, 11, 31, 0, 365),
            (978_307_200, 2001, 0, 1, 1, 0),
            (1_704_002_828, 2023, 11, 31, 0, 364),
            (1_709_164_800, 2024, 1, 29, 4, 59),
            (1_735_603_200, 2024, 11, 31, 2, 365),
            (4_107_456_000, 2100, 1, 28, 0, 58),
            (4_107_542_400, 2100, 2, 1, 1, 59),
            (9_223_372_036, 2262, 3, 11, 5, 100),
        ] {
            let of = |field: TimeField| field.of(seconds * NANOS, 0);
            let got = [
                TimeField::FullYear,
                TimeField::Month,
                TimeField::Date,
                TimeField::DayOfWeek,
                TimeField::DayOfYear,
            ];
            assert_eq!(got.map(of), [year, month, day, of_week, of_year], "{seconds}");
        }
    }

    #[test]
    fn dates_round_trip() {
        for days in (-1_000_000..1_000_000).step_by(997) {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), days);
            assert!((1..=12).contains(&month) && (1..=31).contains(&day));
        }
    }
}
