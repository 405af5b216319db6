//! Regular expressions in RE2's syntax, on the `regex` crate. Both match in linear time; where they read the
//! same text differently, the text is rewritten to mean what RE2 means, or refused.
use regex::{Regex, RegexBuilder};

use super::MAX_STEPS;

/// Bytes that one compiled expression may take.
const SIZE_LIMIT: usize = 1 << 20;

/// A compiled expression that knows what a search may cost. Linear in the text is not cheap by itself: in the worst
/// case each byte meets every state, some 80 ns for each KiB of the compiled expression.
#[derive(Debug)]
pub(crate) struct Pattern {
    regex: Regex,
    /// Its compiled size in KiB, rounded up to a power of two.
    weight: usize,
}

impl Pattern {
    /// Steps that a search of so many bytes may take: one per 8 bytes for each KiB.
    pub(super) fn steps(&self, bytes: usize) -> usize {
        (bytes / 8).saturating_mul(self.weight).saturating_add(1)
    }

    /// Whether a search of so many bytes takes no more steps than a whole evaluation may.
    pub(crate) fn is_bounded(&self, bytes: usize) -> bool {
        u32::try_from(self.steps(bytes)).is_ok_and(|steps| steps <= MAX_STEPS)
    }

    /// The pattern, every class spelled out.
    pub(super) fn text(&self) -> &str {
        self.regex.as_str()
    }

    /// Whether it matches. What it costs is to be asked before.
    pub(crate) fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

fn build(pattern: &str) -> Result<Pattern, String> {
    // The crate tells no sizes, only whether a limit is kept.
    let mut limit = 1 << 10;
    loop {
        let built =
            RegexBuilder::new(pattern).size_limit(limit).dfa_size_limit(SIZE_LIMIT).nest_limit(50).build();
        return match built {
            Ok(regex) => Ok(Pattern { regex, weight: limit >> 10 }),
            Err(regex::Error::CompiledTooBig(_)) if limit < SIZE_LIMIT => {
                limit *= 2;
                continue;
            }
            Err(regex::Error::CompiledTooBig(_)) => {
                Err("it is too large; shorten it or its repetitions".to_owned())
            }
            // The parser draws the pattern over several lines; its last line says what is wrong.
            Err(other) => {
                let text = other.to_string();
                let last = text.lines().last().unwrap_or_default();
                Err(last.strip_prefix("error: ").unwrap_or(last).to_owned())
            }
        };
    }
}

/// An expression that may match anywhere (CEL's `matches`).
pub(super) fn unanchored(pattern: &str) -> Result<Pattern, String> {
    build(&from_re2(pattern)?)
}

/// An expression that must match the whole text.
pub(crate) fn anchored(pattern: &str) -> Result<Pattern, String> {
    let pattern = from_re2(pattern)?;
    // On its own first, so that no parenthesis of it can close the group around it.
    build(&pattern)?;
    build(&format!(r"\A(?:{pattern})\z"))
}

/// Rewrites what the `regex` crate reads otherwise: `\d`, `\s`, `\w`, `\b` are ASCII in RE2, and in a class
/// `[`, `&&`, `--`, `~~` are plain characters.
fn from_re2(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut chars = pattern.chars().peekable();
    let mut class = Class::Outside;
    while let Some(c) = chars.next() {
        let inside = class != Class::Outside;
        match c {
            '\\' => {
                let Some(escaped) = chars.next() else {
                    return Err("it ends in a backslash".to_owned());
                };
                match (escaped, inside) {
                    ('d', _) => out.push_str("[0-9]"),
                    ('D', _) => out.push_str("[^0-9]"),
                    ('s', _) => out.push_str(r"[\t\n\x0C\r ]"),
                    ('S', _) => out.push_str(r"[^\t\n\x0C\r ]"),
                    ('w', _) => out.push_str("[0-9A-Za-z_]"),
                    ('W', _) => out.push_str("[^0-9A-Za-z_]"),
                    ('b', false) => out.push_str(r"(?-u:\b)"),
                    ('B', false) => return Err(r"`\B` is not supported".to_owned()),
                    ('Q' | 'E' | 'C', _) => return Err(format!(r"`\{escaped}` is not supported")),
                    ('<' | '>' | 'u' | 'U' | 'Z', _) => {
                        return Err(format!(r"`\{escaped}` is not RE2 syntax"));
                    }
                    _ => {
                        out.push('\\');
                        out.push(escaped);
                    }
                }
                class = class.after();
            }
            '[' if !inside => {
                out.push('[');
                if chars.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
                class = Class::First;
            }
            '[' if chars.peek() == Some(&':') => {
                // `[:alpha:]`, which the regex crate reads alike.
                out.push('[');
                for c in chars.by_ref() {
                    out.push(c);
                    if c == ']' {
                        break;
                    }
                }
                class = class.after();
            }
            ']' if class == Class::First => {
                out.push_str(r"\]");
                class = Class::Rest;
            }
            ']' if inside => {
                out.push(']');
                class = Class::Outside;
            }
            '[' | '&' | '~' if inside => {
                out.push('\\');
                out.push(c);
                class = class.after();
            }
            '-' if inside && chars.peek() == Some(&'-') => {
                return Err("`--` in a class is not supported; write `\\-`".to_owned());
            }
            '(' if !inside && chars.peek() == Some(&'?') => {
                out.push('(');
                flags(&mut chars, &mut out)?;
            }
            '{' if !inside && chars.peek() == Some(&',') => {
                return Err("`{,` is not supported; write `{0,`".to_owned());
            }
            other => {
                out.push(other);
                class = class.after();
            }
        }
    }
    Ok(out)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Outside,
    /// Right after `[` or `[^`, where `]` is a plain character.
    First,
    Rest,
}

impl Class {
    fn after(self) -> Self {
        if self == Self::First { Self::Rest } else { self }
    }
}

/// Copies `?flags`; RE2 knows i, m, s, U, names, and `:`.
fn flags(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, out: &mut String) -> Result<(), String> {
    while let Some(&c) = chars.peek() {
        match c {
            '?' | 'i' | 'm' | 's' | 'U' | '-' => {
                out.push(c);
                chars.next();
            }
            // The end of the flags, or a name (`P<name>`, `<name>`), which is read on as it stands.
            ':' | ')' | 'P' | '<' => return Ok(()),
            other => return Err(format!("the flag `{other}` is not RE2 syntax")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, text: &str, expected: bool) {
        assert_eq!(anchored(pattern).unwrap().is_match(text), expected, "`{pattern}` on `{text}`");
    }

    #[test]
    fn anchored_at_both_ends() {
        check("(dev|test)", "dev", true);
        check("dev|test", "devx", false);
        check("dev|test", "xtest", false);
        check("a", "a\n", false);
        check("(?m)a$", "a\nb", false);
        check("", "", true);
        check("", "a", false);
    }

    #[test]
    fn a_search_costs_by_text_and_size() {
        let small = anchored("(dev|test)").unwrap();
        assert_eq!((small.steps(0), small.steps(8_000)), (1, 1_001));
        // The classic one whose automaton has 2^1000 states, so that each byte meets a thousand.
        let large = anchored("[ab]*a[ab]{1000}c").unwrap();
        assert!(large.steps(8_000) > 50_000, "{}", large.steps(8_000));
        assert!(large.is_bounded(100) && !large.is_bounded(8_000));
    }

    #[test]
    fn size_is_bounded() {
        // Some 30 bytes for each `a`: at most 1 MiB.
        assert!(anchored("(?:a{1000}){25}").is_ok());
        let message = anchored("(?:a{1000}){45}").unwrap_err();
        assert!(message.contains("too large"), "{message}");
    }

    #[test]
    fn perl_classes_are_ascii() {
        check(r"\d+", "42", true);
        check(r"\d+", "\u{664}\u{662}", false);
        check(r"\w+", "a_9", true);
        check(r"\w+", "\u{e9}", false);
        check(r"\W", "\u{e9}", true);
        check(r"\D", "\u{664}", true);
        check(r"\D", "7", false);
        check(r"\s", "\u{a0}", false);
        check(r"\S", "\u{a0}", true);
        check(r"[\w-]+", "a-b", true);
        check(r"[\w-]+", "\u{e9}", false);
        check(r"[^\d]", "x", true);
        check(r"[^\d]", "7", false);
        check(r"a\b.*", "a\u{e9}", true);
    }

    #[test]
    fn classes_are_read_as_in_re2() {
        check("[a[b]+", "a[b", true);
        check("[]a]+", "]a", true);
        check("[^]a]", "]", false);
        check("[a&&b]+", "a&b", true);
        check("[a~~b]+", "a~b", true);
        check("[]a&&b]+", "]&b", true);
        check("[^]a&&b]+", "x", true);
        check("[^]a&&b]+", "&", false);
        check(r"[]\d]+", "]7", true);
        check("[(?{,]+", "(?{,", true);
        check("[a-c-]+", "b-", true);
        check("a--b&&~~]", "a--b&&~~]", true);
        check("[a][[b]", "a[", true);
        check("[[:digit:]&&a]+", "7&a", true);
        check("[[:alpha:]_]+", "ab_", true);
        check("[[:alpha:]_]+", "a1", false);
        check(r"[\]]", "]", true);
    }

    #[test]
    fn flags_are_those_of_re2() {
        check("(?i)abc", "aBc", true);
        check("(?i:a)b", "Ab", true);
        check("(?i:a)b", "AB", false);
        check("(?s).", "\n", true);
        check(".", "\n", false);
        check("(?s-i:.)A", "\nA", true);
        check("(?P<name>a)(?<other>b)(?:c)", "abc", true);
        check(r"\(?a", "a", true);
    }

    #[test]
    fn refused() {
        // What is read otherwise than in RE2, and what is no expression of either.
        for (pattern, why) in [
            (r"a\", "it ends in a backslash"),
            (r"\B", r"`\B` is not supported"),
            (r"\Qa\E", r"`\Q` is not supported"),
            (r"a\E", r"`\E` is not supported"),
            (r"\C", r"`\C` is not supported"),
            (r"\<a", r"`\<` is not RE2 syntax"),
            (r"a\>", r"`\>` is not RE2 syntax"),
            (r"\u{e9}", r"`\u` is not RE2 syntax"),
            (r"\U000000e9", r"`\U` is not RE2 syntax"),
            (r"a\Z", r"`\Z` is not RE2 syntax"),
            ("[a--b]", "`--` in a class is not supported"),
            ("a{,3}", "`{,` is not supported"),
            ("(?x)a # b", "the flag `x` is not RE2 syntax"),
            ("(?u)a", "the flag `u` is not RE2 syntax"),
            ("(?R)a", "the flag `R` is not RE2 syntax"),
            ("(?i-x:a)", "the flag `x` is not RE2 syntax"),
            ("a(?=b)", "the flag `=` is not RE2 syntax"),
            ("(", ""),
            ("a)|(?:b", ""),
            ("[", ""),
            (r"(a)\1", ""),
            ("(a{1000}){1000}", "too large"),
            ("*a", ""),
            (r"[\b]", ""),
        ] {
            let message = anchored(pattern).unwrap_err();
            assert!(
                !message.is_empty() && !message.contains('\n') && message.contains(why),
                "`{pattern}`: {message}"
            );
        }
    }
}
