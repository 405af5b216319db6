//! Just enough of writing JSON for log lines.

/// Strings that clients choose are cut to this many characters.
const MAX_CHARS: usize = 128;

/// Appends `"key":"value"`, preceded by a comma unless an object was just opened. Values are cut to 128 characters.
pub(super) fn field(out: &mut String, key: &str, value: &str) {
    name(out, key);
    out.push('"');
    for (at, char) in value.chars().enumerate() {
        if at == MAX_CHARS {
            out.push('…');
            break;
        }
        escape(out, char);
    }
    out.push('"');
}

/// Appends `"key":number`.
pub(super) fn number(out: &mut String, key: &str, value: u64) {
    name(out, key);
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    let mut value = value;
    loop {
        at -= 1;
        if let Some(digit) = digits.get_mut(at) {
            *digit = b'0' + u8::try_from(value % 10).unwrap_or_default();
        }
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.push_str(digits.get(at..).and_then(|digits| std::str::from_utf8(digits).ok()).unwrap_or_default());
}

fn name(out: &mut String, key: &str) {
    if !out.is_empty() && !out.ends_with('{') {
        out.push(',');
    }
    out.push('"');
    out.push_str(key);
    out.push_str("\":");
}

fn escape(out: &mut String, char: char) {
    match char {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        // Control characters, and what moves text around on a terminal or ends a line elsewhere.
        char if char.is_control()
            || matches!(char, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
        {
            out.push_str(&format!("\\u{:04x}", u32::from(char)));
        }
        char => out.push(char),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &str, expected: &str) {
        let mut out = "{".to_owned();
        field(&mut out, "k", value);
        number(&mut out, "n", 0);
        out.push('}');
        let parsed: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(parsed, serde_json::json!({"k": expected, "n": 0}));
    }

    #[test]
    fn strings_come_back_and_are_cut() {
        check("", "");
        check("get-sum", "get-sum");
        check("a\"b\\c\nd\te\u{0}\u{7f}\u{202e}f", "a\"b\\c\nd\te\u{0}\u{7f}\u{202e}f");
        check(&"é".repeat(200), &format!("{}…", "é".repeat(128)));
        let mut raw = String::new();
        field(&mut raw, "k", "a\u{202e}\r\nb");
        assert!(raw.bytes().all(|byte| byte.is_ascii_graphic()), "{raw}");
    }

    #[test]
    fn numbers() {
        for value in [0, 7, 10, 1_234_567, u64::MAX] {
            let mut out = String::new();
            number(&mut out, "n", value);
            assert_eq!(out, format!("\"n\":{value}"));
        }
    }
}
