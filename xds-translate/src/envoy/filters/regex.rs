//! Which regular expressions Envoy reads as we do, and accepts: one that it refuses keeps a whole listener from changing.
use std::{iter::Peekable, str::Chars};

/// Instructions of RE2's program; Envoy refuses over 100 by default, some of which it adds itself.
const LIMIT: usize = 90;
/// Deepest nesting of groups.
const DEPTH: usize = 20;

/// An expression that Envoy accepts, and reads as we do.
///
/// # Errors
/// What of it is outside, and what to do.
pub(super) fn checked(pattern: &str) -> Result<&str, String> {
    let refuse =
        |why: &str| Err(format!("the regular expression `{pattern}` cannot be given to Envoy: {why}"));
    let mut reader = Reader { chars: pattern.chars().peekable() };
    match reader.alternatives(0) {
        Err(why) => refuse(&why),
        Ok(_) if reader.chars.next().is_some() => refuse("a group is closed that was not opened"),
        Ok(size) if size > LIMIT => refuse("it is too large; shorten it or its repetitions"),
        Ok(_) => Ok(pattern),
    }
}

/// Text as an expression that matches only it.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_punctuation() {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// Reads an expression and counts what it compiles to; on bytes, as Envoy has RE2 do.
struct Reader<'a> {
    chars: Peekable<Chars<'a>>,
}

impl Reader<'_> {
    fn alternatives(&mut self, depth: usize) -> Result<usize, String> {
        if depth > DEPTH {
            return Err("it nests too deep".to_owned());
        }
        let mut size = self.sequence(depth)?;
        while self.chars.next_if_eq(&'|').is_some() {
            size = size.saturating_add(1).saturating_add(self.sequence(depth)?);
        }
        Ok(size)
    }

    fn sequence(&mut self, depth: usize) -> Result<usize, String> {
        let mut size: usize = 0;
        while let Some(&c) = self.chars.peek() {
            if matches!(c, '|' | ')') {
                break;
            }
            self.chars.next();
            let one = self.atom(c, depth)?;
            size = size.saturating_add(self.repeated(one)?);
        }
        Ok(size)
    }

    fn atom(&mut self, c: char, depth: usize) -> Result<usize, String> {
        match c {
            '(' => {
                let captures = !self.flags()?;
                // The flags of `(?i)` hold for what follows, up to the end of the group around it.
                if self.chars.peek() == Some(&')') && !captures {
                    self.chars.next();
                    return Ok(0);
                }
                let size = self.alternatives(depth + 1)?;
                self.chars.next_if_eq(&')').ok_or("a group is not closed")?;
                Ok(size.saturating_add(if captures { 2 } else { 0 }))
            }
            '[' => self.class(),
            '\\' => self.escape(),
            '.' => Ok(2),
            '*' | '+' | '?' | '{' | '}' | ']' => Err(format!("`{c}` repeats nothing; write `\\{c}`")),
            ' '..='~' => Ok(1),
            _ => Err("only ASCII is read alike".to_owned()),
        }
    }

    /// After `(`; whether there were flags.
    fn flags(&mut self) -> Result<bool, String> {
        if self.chars.next_if_eq(&'?').is_none() {
            return Ok(false);
        }
        loop {
            match self.chars.peek() {
                Some('i' | 's') => self.chars.next(),
                Some(':') => {
                    self.chars.next();
                    return Ok(true);
                }
                Some(')') => return Ok(true),
                _ => return Err("of `(?` only `(?:`, `(?i)` and `(?s)` are read alike".to_owned()),
            };
        }
    }

    fn escape(&mut self) -> Result<usize, String> {
        match self.chars.next() {
            Some('d' | 'A' | 'z' | 't' | 'n' | 'r' | 'f' | 'v') => Ok(1),
            Some('D') => Ok(2),
            Some('w') => Ok(4),
            Some('W') => Ok(5),
            Some('s') => Ok(3),
            Some('S') => Ok(4),
            Some(c) if c.is_ascii_punctuation() => Ok(1),
            _ => Err("an escape in it is not read alike".to_owned()),
        }
    }

    fn class(&mut self) -> Result<usize, String> {
        let mut size = usize::from(self.chars.next_if_eq(&'^').is_some());
        let mut first = true;
        loop {
            let c = self.chars.next().ok_or("a class is not closed")?;
            match c {
                ']' if !first => return Ok(size.max(1)),
                ']' | '[' | '&' | '~' => return Err(format!("write `\\{c}` in a class")),
                '-' if self.chars.peek() == Some(&'-') => return Err("write `\\-` in a class".to_owned()),
                '\\' => size = size.saturating_add(self.escape()?),
                ' '..='~' => size = size.saturating_add(1),
                _ => return Err("only ASCII is read alike".to_owned()),
            }
            first = false;
        }
    }

    fn repeated(&mut self, one: usize) -> Result<usize, String> {
        let size = match self.chars.peek() {
            Some('*' | '+' | '?') => {
                self.chars.next();
                one.saturating_add(1)
            }
            Some('{') => {
                self.chars.next();
                let least = self.number().ok_or("a repetition begins with a number")?;
                let most = match self.chars.next() {
                    Some('}') => least,
                    Some(',') => {
                        let most = self.number().unwrap_or(least.saturating_add(1));
                        self.chars.next_if_eq(&'}').ok_or("a repetition is not closed")?;
                        most
                    }
                    _ => return Err("a repetition is not closed".to_owned()),
                };
                most.max(1).saturating_mul(one.saturating_add(1))
            }
            _ => return Ok(one),
        };
        self.chars.next_if_eq(&'?');
        // RE2 refuses `a**`.
        match self.chars.peek() {
            Some('*' | '+' | '?' | '{') => Err("a repetition is repeated".to_owned()),
            _ => Ok(size),
        }
    }

    fn number(&mut self) -> Option<usize> {
        let mut number: Option<usize> = None;
        while let Some(digit) = self.chars.peek().and_then(|c| c.to_digit(10)) {
            self.chars.next();
            let digit = usize::try_from(digit).ok()?;
            number = Some(number.unwrap_or(0).saturating_mul(10).saturating_add(digit));
        }
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_alike() {
        for pattern in [
            "",
            "/api/v[0-9]+/.*",
            r"/a\.b/(x|y)?",
            "(?i)abc",
            r"[\w.-]+",
            r"\Aget-[a-z]{1,8}\z",
            "^get-[a-z]+$",
            "(?:a|b)*?",
        ] {
            assert_eq!(checked(pattern), Ok(pattern));
        }
    }

    #[test]
    fn refused() {
        let flags = "of `(?` only `(?:`, `(?i)` and `(?s)` are read alike";
        let large = "it is too large; shorten it or its repetitions";
        for (pattern, why) in [
            ("(", "a group is not closed"),
            ("(?:a", "a group is not closed"),
            ("a)", "a group is closed that was not opened"),
            ("[a", "a class is not closed"),
            ("[]", "write `\\]` in a class"),
            ("[[:alpha:]]", "write `\\[` in a class"),
            ("[a&&b]", "write `\\&` in a class"),
            ("[a~~b]", "write `\\~` in a class"),
            ("[a--b]", "write `\\-` in a class"),
            ("[\u{e9}]", "only ASCII is read alike"),
            ("\u{e9}", "only ASCII is read alike"),
            ("a**", "a repetition is repeated"),
            ("a{2}{60}", "a repetition is repeated"),
            ("*a", "`*` repeats nothing; write `\\*`"),
            ("a|+", "`+` repeats nothing; write `\\+`"),
            ("(?:?)", "`?` repeats nothing; write `\\?`"),
            ("}", "`}` repeats nothing; write `\\}`"),
            ("a]", "`]` repeats nothing; write `\\]`"),
            ("a{", "a repetition begins with a number"),
            ("a{,2}", "a repetition begins with a number"),
            ("a{2", "a repetition is not closed"),
            ("a{2,3", "a repetition is not closed"),
            ("a{2,3;}", "a repetition is not closed"),
            (r"\pL", "an escape in it is not read alike"),
            (r"\x41", "an escape in it is not read alike"),
            (r"a\b", "an escape in it is not read alike"),
            (r"[\b]", "an escape in it is not read alike"),
            (r"a\", "an escape in it is not read alike"),
            ("(?P<n>a)", flags),
            ("(?x)a", flags),
            ("(?u:a)", flags),
            ("(?i", flags),
            ("a{1000}", large),
            ("a{46}", large),
            ("a{1,46}", large),
            ("(?:a{9}){9}", large),
            ("a{99999999999999999999}", large),
            (&"a".repeat(91), large),
            (&format!("{}{}", "(".repeat(21), ")".repeat(21)), "it nests too deep"),
        ] {
            let expected = format!("the regular expression `{pattern}` cannot be given to Envoy: {why}");
            assert_eq!(checked(pattern), Err(expected));
        }
    }

    /// As large, and as deep, as is given to Envoy.
    #[test]
    fn at_the_limits() {
        let nested = format!("{}a{}", "(".repeat(20), ")".repeat(20));
        for pattern in
            ["a".repeat(90), "a{45}".to_owned(), "a{44,45}".to_owned(), "a{44,}".to_owned(), nested]
        {
            assert_eq!(checked(&pattern), Ok(pattern.as_str()));
        }
    }

    #[test]
    fn escapes_are_read_back() {
        for text in ["/a.b", "a+b", r"a\b", "-_~!(x)[y]{z}"] {
            assert!(regex::Regex::new(&format!("^{}$", escaped(text))).unwrap().is_match(text), "{text}");
        }
    }
}
