//! JSON strings: as they stand, and decoded.
use std::borrow::Cow;

/// A string's text between its quotes, already checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Text<'a> {
    pub(super) raw: &'a str,
    /// How many escapes it holds.
    pub(super) escapes: usize,
}

impl<'a> Text<'a> {
    /// The text if it holds no escape (then it is its own decoding).
    #[inline]
    pub(crate) fn unescaped(self) -> Option<&'a str> {
        if self.escapes == 0 { Some(self.raw) } else { None }
    }

    /// The decoded text; allocates only if there are escapes.
    #[inline]
    pub(crate) fn decode(self) -> Cow<'a, str> {
        if self.escapes == 0 { Cow::Borrowed(self.raw) } else { Cow::Owned(decode(self.raw)) }
    }
}

/// Decodes checked text.
#[cold]
fn decode(raw: &str) -> String {
    let mut decoded = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((plain, escape)) = rest.split_once('\\') {
        decoded.push_str(plain);
        let mut chars = escape.chars();
        match chars.next() {
            Some('b') => decoded.push('\u{8}'),
            Some('f') => decoded.push('\u{c}'),
            Some('n') => decoded.push('\n'),
            Some('r') => decoded.push('\r'),
            Some('t') => decoded.push('\t'),
            Some('u') => {
                let unit = hex4(chars.as_str().as_bytes()).unwrap_or(0xfffd);
                chars = skipped(chars.as_str(), 4).chars();
                let code = if (0xd800..=0xdbff).contains(&unit) {
                    let low = hex4(skipped(chars.as_str(), 2).as_bytes()).unwrap_or(0xdc00);
                    chars = skipped(chars.as_str(), 6).chars();
                    0x1_0000 + ((unit & 0x3ff) << 10) + (low & 0x3ff)
                } else {
                    unit
                };
                decoded.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            // `"`, `\` and `/`: the scanner admitted nothing else.
            Some(c) => decoded.push(c),
            None => {}
        }
        rest = chars.as_str();
    }
    decoded.push_str(rest);
    decoded
}

fn skipped(text: &str, bytes: usize) -> &str {
    text.get(bytes..).unwrap_or_default()
}

/// The value of the first four bytes, if they are hexadecimal digits.
pub(super) fn hex4(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk::<4>()?.iter().try_fold(0, |value, &byte| {
        let digit = char::from(byte).to_digit(16)?;
        Some(value << 4 | digit)
    })
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// How many bytes come before the first `"`, `\` or control character (all of them if there is none).
#[inline]
pub(super) fn plain_prefix(bytes: &[u8]) -> usize {
    // Most strings are short: words first, larger blocks once a string turns out to be long.
    let (mut count, mut rest) = (0, bytes);
    while let Some((word, tail)) = rest.split_first_chunk::<8>() {
        let found = specials(u64::from_le_bytes(*word));
        if found != 0 {
            return count + (found.trailing_zeros() / 8) as usize;
        }
        count += 8;
        rest = tail;
        if count == 32 {
            return count + plain_prefix_of_long(rest);
        }
    }
    count + plain_bytes(rest)
}

/// The same for the rest of a long string: blocks of 32 bytes at a time, which compiles to vector instructions.
#[inline(never)]
fn plain_prefix_of_long(bytes: &[u8]) -> usize {
    let (blocks, _) = bytes.as_chunks::<32>();
    let plain = |block: &&[u8; 32]| {
        !block.iter().fold(false, |any, &byte| any | (byte < 0x20) | (byte == b'"') | (byte == b'\\'))
    };
    let count = 32 * blocks.iter().take_while(plain).count();
    let mut rest = bytes.get(count..).unwrap_or_default();
    while let Some((word, tail)) = rest.split_first_chunk::<8>() {
        let found = specials(u64::from_le_bytes(*word));
        if found != 0 {
            let before = bytes.len() - rest.len();
            return before + (found.trailing_zeros() / 8) as usize;
        }
        rest = tail;
    }
    bytes.len() - rest.len() + plain_bytes(rest)
}

#[inline]
fn plain_bytes(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|&&byte| byte >= 0x20 && byte != b'"' && byte != b'\\').count()
}

/// The high bit of each byte that is `"`, `\` or below 0x20; the lowest set bit is exact (bits above it may be
/// carried into by the subtraction).
#[inline]
fn specials(word: u64) -> u64 {
    let quote = word ^ (ONES * 0x22);
    let backslash = word ^ (ONES * 0x5c);
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    let quote = quote.wrapping_sub(ONES) & !quote;
    let backslash = backslash.wrapping_sub(ONES) & !backslash;
    (control | quote | backslash) & HIGHS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_prefixes_end_at_every_special_byte_wherever_it_stands() {
        for length in 0..150 {
            for at in 0..length {
                for (special, ends) in [
                    (b'"', true),
                    (b'\\', true),
                    (0, true),
                    (0x1f, true),
                    (b' ', false),
                    (0x7f, false),
                    (0xff, false),
                ] {
                    for filler in [b'!', b'#', b'[', b']', 0x20, 0x80, 0xff] {
                        let mut bytes = vec![filler; length];
                        bytes[at] = special;
                        let expected = if ends { at } else { length };
                        assert_eq!(plain_prefix(&bytes), expected, "{special} at {at} of {length}");
                    }
                }
            }
        }
    }

    #[test]
    fn texts_decode() {
        let text = Text { raw: r#"a\"\\\/\b\f\n\r\t\u0041\ud83d\ude00é\u00e9"#, escapes: 13 };
        assert_eq!(text.decode(), "a\"\\/\u{8}\u{c}\n\r\tA😀éé");
    }
}
