//! One strict pass over JSON text (RFC 8259), keeping spans.
//!
//! Stricter than the grammar where parsers are known to disagree: a key that stands twice in an object (compared
//! decoded), surrogate escapes without their partner, and numbers that overflow a double are refused.
mod keys;
mod text;

pub(crate) use self::text::Text;

use self::keys::{Keys, Open};
use crate::parse::{ParseError, Reason};

/// The deepest nesting that the scanner follows whatever its caller asks for; it recurses per level.
pub(crate) const DEEPEST: usize = 512;

/// What stands at one place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'a> {
    String(Text<'a>),
    Number,
    /// With the raw text.
    Object(&'a str),
    /// With the raw text.
    Array(&'a str),
    Bool,
    Null,
}

/// Sees the members of one object.
pub(crate) trait Visitor<'a> {
    /// Called with the scanner at the first byte of the member's value, which it must read. `depth` is the
    /// object's own.
    fn member(
        &mut self,
        scanner: &mut Scanner<'a>,
        key: Text<'a>,
        key_at: usize,
        depth: usize,
    ) -> Result<(), ParseError>;
}

/// Looks at no member.
struct Skip;

impl<'a> Visitor<'a> for Skip {
    #[inline]
    fn member(
        &mut self,
        scanner: &mut Scanner<'a>,
        _: Text<'a>,
        _: usize,
        depth: usize,
    ) -> Result<(), ParseError> {
        scanner.skip(depth)
    }
}

#[derive(Debug)]
pub(crate) struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    max_depth: usize,
    keys: Open<'a>,
    /// In the last string.
    escapes: usize,
    /// The deepest nesting met since last set.
    pub(crate) deepest: usize,
    /// Whether an integer beyond 2^53 was met since last set.
    pub(crate) big_integer: bool,
}

impl<'a> Scanner<'a> {
    /// Checks UTF-8 and that no byte-order mark comes first.
    pub(crate) fn new(bytes: &'a [u8], max_depth: usize) -> Result<Self, ParseError> {
        let Ok(text) = simdutf8::basic::from_utf8(bytes) else {
            let at = simdutf8::compat::from_utf8(bytes).err().map_or(0, |error| error.valid_up_to());
            return Err(ParseError::new(Reason::Utf8, at));
        };
        if bytes.starts_with(b"\xef\xbb\xbf") {
            return Err(ParseError::new(Reason::ByteOrderMark, 0));
        }
        Ok(Self {
            text,
            bytes,
            at: 0,
            max_depth: max_depth.min(DEEPEST),
            keys: Open::new(),
            escapes: 0,
            deepest: 0,
            big_integer: false,
        })
    }

    /// Offset of the next byte.
    #[inline]
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// The text from `start` to here. Both always lie beside ASCII, hence on boundaries.
    #[inline]
    pub(crate) fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    #[inline]
    pub(crate) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    #[inline]
    pub(crate) fn whitespace(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    /// Nothing but whitespace may be left.
    pub(crate) fn end(&mut self) -> Result<(), ParseError> {
        self.whitespace();
        if self.at == self.bytes.len() { Ok(()) } else { Err(ParseError::new(Reason::Trailing, self.at)) }
    }

    /// A fault here: `expected` what is not there.
    #[cold]
    fn unexpected(&self, expected: &'static str) -> ParseError {
        ParseError::new(Reason::Syntax(expected), self.at)
    }

    /// Reads one value and says what it is. `depth` is that of what encloses it.
    pub(crate) fn value(&mut self, depth: usize) -> Result<Value<'a>, ParseError> {
        let start = self.at;
        Ok(match self.peek() {
            Some(b'"') => Value::String(self.string()?),
            Some(b'{') => {
                self.object(depth, &mut Skip)?;
                Value::Object(self.since(start))
            }
            Some(b'[') => {
                self.skip(depth)?;
                Value::Array(self.since(start))
            }
            first => {
                self.skip(depth)?;
                match first {
                    Some(b't' | b'f') => Value::Bool,
                    Some(b'n') => Value::Null,
                    _ => Value::Number,
                }
            }
        })
    }

    /// Reads one value of any kind.
    pub(crate) fn skip(&mut self, depth: usize) -> Result<(), ParseError> {
        match self.peek() {
            Some(b'"') => self.skip_string(),
            Some(b'{') => self.object(depth, &mut Skip),
            Some(b'[') => {
                let depth = self.enter(depth)?;
                self.elements(|scanner| scanner.skip(depth))
            }
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal(b"true"),
            Some(b'f') => self.literal(b"false"),
            Some(b'n') => self.literal(b"null"),
            _ => Err(self.unexpected("a value")),
        }
    }

    #[inline]
    fn enter(&mut self, depth: usize) -> Result<usize, ParseError> {
        let depth = depth + 1;
        if depth > self.max_depth {
            return Err(ParseError::new(Reason::TooDeep(self.max_depth), self.at));
        }
        self.deepest = self.deepest.max(depth);
        Ok(depth)
    }

    #[inline]
    fn literal(&mut self, literal: &'static [u8]) -> Result<(), ParseError> {
        if self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(literal)) {
            self.at += literal.len();
            Ok(())
        } else {
            Err(self.unexpected("a value"))
        }
    }

    /// Reads an object, the scanner at its `{`.
    #[inline]
    pub(crate) fn object<V: Visitor<'a>>(&mut self, depth: usize, visitor: &mut V) -> Result<(), ParseError> {
        let depth = self.enter(depth)?;
        self.at += 1;
        self.whitespace();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        let mut keys = Keys::new(&self.keys);
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.unexpected("a key in double quotes"));
            }
            let key_at = self.at;
            let key = self.string()?;
            if !keys.insert(&mut self.keys, key) {
                return Err(ParseError::new(Reason::DuplicateKey(key.decode().into()), key_at));
            }
            self.whitespace();
            if self.peek() != Some(b':') {
                return Err(self.unexpected("`:`"));
            }
            self.at += 1;
            self.whitespace();
            visitor.member(self, key, key_at, depth)?;
            self.whitespace();
            match self.peek() {
                Some(b',') => {
                    self.at += 1;
                    self.whitespace();
                }
                Some(b'}') => {
                    self.at += 1;
                    keys.close(&mut self.keys);
                    return Ok(());
                }
                _ => return Err(self.unexpected("`,` or `}`")),
            }
        }
    }

    /// Reads an array, the scanner at its `[`; `each` reads one element. No depth is counted here.
    #[inline]
    pub(crate) fn elements(
        &mut self,
        mut each: impl FnMut(&mut Self) -> Result<(), ParseError>,
    ) -> Result<(), ParseError> {
        self.at += 1;
        self.whitespace();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            each(self)?;
            self.whitespace();
            match self.peek() {
                Some(b',') => {
                    self.at += 1;
                    self.whitespace();
                }
                Some(b']') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.unexpected("`,` or `]`")),
            }
        }
    }

    /// Reads a string, the scanner at its opening quote.
    #[inline]
    pub(crate) fn string(&mut self) -> Result<Text<'a>, ParseError> {
        let start = self.at + 1;
        self.skip_string()?;
        Ok(Text { raw: self.text.get(start..self.at - 1).unwrap_or_default(), escapes: self.escapes })
    }

    /// Reads a string; `escapes` says how many escapes it holds.
    #[inline]
    fn skip_string(&mut self) -> Result<(), ParseError> {
        self.at += 1;
        self.escapes = 0;
        loop {
            self.at += text::plain_prefix(self.bytes.get(self.at..).unwrap_or_default());
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.escapes += 1;
                    self.escape()?;
                }
                Some(_) => return Err(ParseError::new(Reason::ControlCharacter, self.at)),
                None => return Err(self.unexpected("the end of a string")),
            }
        }
    }

    /// Reads one escape, or two that make a surrogate pair, the scanner at the backslash.
    fn escape(&mut self) -> Result<(), ParseError> {
        let rest = self.bytes.get(self.at + 1..).unwrap_or_default();
        match rest.first() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => match text::hex4(rest.get(1..).unwrap_or_default()) {
                Some(0xd800..=0xdbff) => {
                    let second =
                        rest.get(5..).and_then(|rest| rest.strip_prefix(b"\\u")).and_then(text::hex4);
                    if !matches!(second, Some(0xdc00..=0xdfff)) {
                        return Err(ParseError::new(Reason::Surrogate, self.at));
                    }
                    self.at += 12;
                }
                Some(0xdc00..=0xdfff) => return Err(ParseError::new(Reason::Surrogate, self.at)),
                Some(_) => self.at += 6,
                None => return Err(self.unexpected("four hexadecimal digits after `\\u`")),
            },
            _ => return Err(self.unexpected("a JSON escape")),
        }
        Ok(())
    }

    /// Skips digits, says how many.
    #[inline]
    fn digits(&mut self) -> usize {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.bytes.get(self.at) {
            self.at += 1;
        }
        self.at - start
    }

    #[inline]
    fn number(&mut self) -> Result<(), ParseError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let integer_digits = if self.peek() == Some(b'0') {
            self.at += 1;
            1
        } else {
            self.digits()
        };
        if integer_digits == 0 {
            return Err(self.unexpected("a digit"));
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            if self.digits() == 0 {
                return Err(self.unexpected("a digit"));
            }
        }
        let has_exponent = matches!(self.peek(), Some(b'e' | b'E'));
        if has_exponent {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            if self.digits() == 0 {
                return Err(self.unexpected("a digit"));
            }
        }
        // Fifteen digits stay under 2^53, whatever their fraction.
        if has_exponent || integer_digits > 15 { self.magnitude(start) } else { Ok(()) }
    }

    #[cold]
    fn magnitude(&mut self, start: usize) -> Result<(), ParseError> {
        const TWO_TO_53: f64 = 9_007_199_254_740_992.0;
        let token = self.since(start);
        let magnitude = token.parse::<f64>().map_or(f64::INFINITY, f64::abs);
        if magnitude.is_infinite() {
            return Err(ParseError::new(Reason::NumberOverflow, start));
        }
        if magnitude > TWO_TO_53
            || (magnitude >= TWO_TO_53 && token.trim_start_matches('-') != "9007199254740992")
        {
            self.big_integer = true;
        }
        Ok(())
    }
}
