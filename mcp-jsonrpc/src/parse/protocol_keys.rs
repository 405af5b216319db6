//! The protocol's keys, and the keys that a lenient parser could take for one of them.

pub(super) const MESSAGE: &[&str] = &["jsonrpc", "id", "method", "params", "result", "error"];

/// Members of `params` over all methods and revisions.
pub(super) const PARAMS: &[&str] = &[
    "_meta",
    "name",
    "arguments",
    "uri",
    "taskId",
    "ref",
    "notifications",
    "argument",
    "context",
    "cursor",
    "level",
    "requestId",
    "reason",
    "progressToken",
    "progress",
    "total",
    "message",
    "protocolVersion",
    "capabilities",
    "clientInfo",
    "inputResponses",
    "requestState",
    "task",
];

pub(super) const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";

pub(super) const META: &[&str] = &[
    META_VERSION,
    "progressToken",
    "io.modelcontextprotocol/clientCapabilities",
    "io.modelcontextprotocol/clientInfo",
    "io.modelcontextprotocol/logLevel",
    "io.modelcontextprotocol/related-task",
    "io.modelcontextprotocol/subscriptionId",
];

pub(super) const REFERENCE: &[&str] = &["type", "name", "uri", "title"];

pub(super) const NOTIFICATIONS: &[&str] =
    &["resourceSubscriptions", "taskIds", "toolsListChanged", "promptsListChanged", "resourcesListChanged"];

/// The protocol key among `keys` that `key`, which is none of them itself, equals after Unicode case folding, after
/// dropping characters that do not show (controls, format characters), or when cut off at its first control
/// character.
pub(crate) fn variant_of(keys: &[&'static str], key: &str) -> Option<&'static str> {
    let among = |folded: &str| keys.iter().copied().find(|known| known.eq_ignore_ascii_case(folded));
    if key.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return among(key).filter(|known| *known != key);
    }
    let cut = key.split(char::is_control).next().unwrap_or_default();
    fold(cut).and_then(|cut| among(&cut)).or_else(|| fold(key).and_then(|key| among(&key)))
}

/// `key` with what does not show dropped and every other character folded to ASCII letters (their case left as it
/// is); `None` if one does not fold to ASCII, or the key is longer than any protocol key can be.
fn fold(key: &str) -> Option<String> {
    const LONGEST: usize = 64;
    let mut folded = String::new();
    for c in key.chars() {
        match c {
            _ if is_invisible(c) => {}
            ' '..='~' => folded.push(c),
            // Unicode's CaseFolding.txt, statuses C, F, S and T: all that ends in nothing but ASCII.
            '\u{17f}' => folded.push('s'),
            '\u{212a}' => folded.push('k'),
            '\u{130}' | '\u{131}' => folded.push('i'),
            '\u{df}' | '\u{1e9e}' => folded.push_str("ss"),
            '\u{fb00}' => folded.push_str("ff"),
            '\u{fb01}' => folded.push_str("fi"),
            '\u{fb02}' => folded.push_str("fl"),
            '\u{fb03}' => folded.push_str("ffi"),
            '\u{fb04}' => folded.push_str("ffl"),
            '\u{fb05}' | '\u{fb06}' => folded.push_str("st"),
            _ => return None,
        }
        if folded.len() > LONGEST {
            return None;
        }
    }
    Some(folded)
}

/// Control characters (Cc), format characters (Cf), and what Unicode calls default-ignorable. The combining dot is
/// here because a capital I with a dot folds to `i` followed by it.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{307}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
            | '\u{890}'..='\u{891}' | '\u{8e2}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(keys: &[&'static str], key: &str, expected: Option<&str>) {
        assert_eq!(variant_of(keys, key), expected, "{key:?}");
    }

    #[test]
    fn variants() {
        check(MESSAGE, "Method", Some("method"));
        check(MESSAGE, "param\u{17f}", Some("params"));
        check(MESSAGE, "JSONRPC", Some("jsonrpc"));
        check(MESSAGE, "\u{131}d", Some("id"));
        check(MESSAGE, "\u{130}D", Some("id"));
        check(MESSAGE, "i\u{307}d", Some("id"));
        check(PARAMS, "name\u{0}", Some("name"));
        check(PARAMS, "na\u{7f}me", Some("name"));
        check(PARAMS, "\u{85}name", Some("name"));
        check(PARAMS, "\u{feff}name", Some("name"));
        check(PARAMS, "na\u{200b}me", Some("name"));
        check(PARAMS, "name\u{0}ignored", Some("name"));
        check(PARAMS, "name\u{0}é", Some("name"));
        check(PARAMS, "taskid", Some("taskId"));
        check(PARAMS, "TA\u{17f}\u{212a}ID", Some("taskId"));
        check(PARAMS, "me\u{df}age", Some("message"));
        check(PARAMS, "me\u{1e9e}age", Some("message"));
        check(PARAMS, "re\u{fb00}", None);
        check(PARAMS, "noti\u{fb01}cations", Some("notifications"));
        check(PARAMS, "reque\u{fb06}Id", Some("requestId"));
        check(PARAMS, "re\u{17f}\u{fb05}", None);
        check(META, "IO.modelcontextprotocol/protocolVersion", Some(META_VERSION));
        check(META, "io.modelcontextprotocol/ProtocolVersion", Some(META_VERSION));
        check(META, "progresstoken", Some("progressToken"));
        check(REFERENCE, "URI", Some("uri"));
        check(NOTIFICATIONS, "TaskIds", Some("taskIds"));
    }

    #[test]
    fn no_variants() {
        for key in ["method", "x", "", "methods", "metho", "meth od", "naïve", "ｎame"] {
            check(MESSAGE, key, None);
        }
        check(PARAMS, "names", None);
        check(PARAMS, "name ", None);
        check(PARAMS, &"n".repeat(10_000), None);
        check(PARAMS, &"\u{17f}".repeat(10_000), None);
        check(META, "com.example/progressToken", None);
    }

    /// Every character whose Unicode lower case or upper-then-lower case is made of ASCII letters must fold here.
    #[test]
    fn folding_covers_all_that_the_standard_library_maps_to_ascii() {
        for c in ('\u{80}'..=char::MAX).filter(|c| !is_invisible(*c)) {
            let lower: String = c.to_lowercase().collect();
            let through_upper: String = c.to_uppercase().flat_map(char::to_lowercase).collect();
            for mapped in [lower, through_upper] {
                if mapped.is_ascii() {
                    assert_eq!(fold(&c.to_string()).as_deref(), Some(mapped.as_str()), "{c:?}");
                }
            }
        }
    }
}
