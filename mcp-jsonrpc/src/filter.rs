//! Filtering `tools/list` results, everything else kept byte for byte.
use std::ops::Range;

use crate::ParseError;
use crate::parse::variant_of;
use crate::scan::{Scanner, Text, Value, Visitor};

/// The deepest nesting of a list that is followed (tools carry JSON schemas).
const MAX_DEPTH: usize = 128;

/// A list that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterError {
    reason: Reason,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Reason {
    Json(ParseError),
    /// At this byte.
    NoToolList(usize),
    /// The key at this byte could be taken for the other.
    KeyVariant(usize, &'static str),
    EventTooLarge(usize),
    AmbiguousLine,
}

impl FilterError {
    pub(crate) fn event_too_large(limit: usize) -> Self {
        Self { reason: Reason::EventTooLarge(limit) }
    }

    pub(crate) fn ambiguous_line() -> Self {
        Self { reason: Reason::AmbiguousLine }
    }

    /// Whether an event of a stream was over its limit.
    pub fn is_too_large(&self) -> bool {
        matches!(self.reason, Reason::EventTooLarge(_))
    }
}

impl std::fmt::Display for FilterError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.reason {
            Reason::Json(error) => write!(f, "the server's list cannot be read: {error}"),
            Reason::NoToolList(at) => {
                write!(f, "the server's `result.tools` is no list of tools with a `name` each (at byte {at})")
            }
            Reason::KeyVariant(at, of) => {
                write!(f, "the server's list has a key that could be taken for `{of}` (at byte {at})")
            }
            Reason::EventTooLarge(limit) => {
                write!(f, "the server's event is over the limit of {limit} bytes")
            }
            Reason::AmbiguousLine => {
                write!(f, "the server's event stream has a line that could be taken for `data`")
            }
        }
    }
}
impl std::error::Error for FilterError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.reason {
            Reason::Json(error) => Some(error),
            _ => None,
        }
    }
}

impl From<ParseError> for FilterError {
    fn from(error: ParseError) -> Self {
        Self { reason: Reason::Json(error) }
    }
}

/// Filters one JSON-RPC message (a JSON response body, or one event's data). A response with a
/// `result.tools` array loses each tool whose `name` `keep` refuses; `cacheScope: "public"` becomes
/// `"private"`; `nextCursor`, `_meta`, unknown fields and number tokens stay byte for byte.
/// A message that is no `tools/list` result (a server request, a notification, an error reply) comes back
/// as it was. A batch array is filtered message by message. Nesting up to 128 is followed; time and memory are linear
/// in the length of the message.
///
/// # Errors
/// JSON on which parsers could disagree, or a `result.tools` that is no list of named tools: never pass it on.
pub fn filter_tools_list(message: &[u8], keep: &mut dyn FnMut(&str) -> bool) -> Result<Vec<u8>, FilterError> {
    let mut scanner = Scanner::new(message, MAX_DEPTH)?;
    scanner.whitespace();
    let mut filter = Filter { keep, edits: Vec::new(), fault: None };
    if scanner.peek() == Some(b'[') {
        scanner.elements(|scanner| filter.message(scanner))?;
    } else {
        filter.message(&mut scanner)?;
    }
    scanner.end()?;
    if let Some(reason) = filter.fault {
        return Err(FilterError { reason });
    }
    let mut edits = filter.edits;
    edits.sort_unstable_by_key(|(range, _)| range.start);
    let mut filtered = Vec::with_capacity(message.len() + edits.len());
    let mut copied = 0;
    for (range, replacement) in edits {
        filtered.extend_from_slice(message.get(copied..range.start).unwrap_or_default());
        filtered.extend_from_slice(replacement);
        copied = range.end;
    }
    filtered.extend_from_slice(message.get(copied..).unwrap_or_default());
    Ok(filtered)
}

/// What is to be replaced, with what.
type Edit = (Range<usize>, &'static [u8]);

struct Filter<'k> {
    keep: &'k mut dyn FnMut(&str) -> bool,
    edits: Vec<Edit>,
    fault: Option<Reason>,
}

impl Filter<'_> {
    fn message<'a>(&mut self, scanner: &mut Scanner<'a>) -> Result<(), ParseError> {
        if scanner.peek() == Some(b'{') {
            scanner.object(0, &mut MessageVisitor(self))
        } else {
            scanner.skip(0)
        }
    }

    /// Refuses a key that a lenient client could take for one of `keys`.
    fn refuse_variant(&mut self, keys: &[&'static str], key: &str, at: usize) {
        if let Some(of) = variant_of(keys, key) {
            self.fault.get_or_insert(Reason::KeyVariant(at, of));
        }
    }

    /// Reads the value of `result.tools` and notes which of its bytes go.
    fn tools(&mut self, scanner: &mut Scanner<'_>, depth: usize) -> Result<(), ParseError> {
        let start = scanner.at();
        if scanner.peek() != Some(b'[') {
            self.fault.get_or_insert(Reason::NoToolList(start));
            return scanner.skip(depth);
        }
        // Where the last element ended, and whether an element was kept.
        let (mut end, mut any_kept) = (start + 1, false);
        // A run of refused elements that stands before all kept ones: it goes up to the start of the next element.
        let mut leading: Option<Range<usize>> = None;
        scanner.elements(|scanner| {
            let element = scanner.at();
            if let Some(leading) = &mut leading {
                leading.end = element;
            }
            let kept = self.tool(scanner, depth + 1)?;
            if kept {
                any_kept = true;
                self.edits.extend(leading.take().map(|range| (range, &b""[..])));
            } else if any_kept {
                self.edits.push((end..scanner.at(), b""));
            } else {
                leading.get_or_insert(element..element).end = scanner.at();
            }
            end = scanner.at();
            Ok(())
        })?;
        self.edits.extend(leading.map(|range| (range, &b""[..])));
        Ok(())
    }

    /// Reads one tool; whether it stays.
    fn tool(&mut self, scanner: &mut Scanner<'_>, depth: usize) -> Result<bool, ParseError> {
        let start = scanner.at();
        let mut tool = ToolVisitor { filter: self, name: None };
        if scanner.peek() == Some(b'{') {
            scanner.object(depth, &mut tool)?;
        } else {
            scanner.skip(depth)?;
        }
        match tool.name {
            Some(Value::String(name)) => Ok((self.keep)(&name.decode())),
            _ => {
                self.fault.get_or_insert(Reason::NoToolList(start));
                Ok(false)
            }
        }
    }
}

struct MessageVisitor<'f, 'k>(&'f mut Filter<'k>);

impl<'a> Visitor<'a> for MessageVisitor<'_, '_> {
    fn member(
        &mut self,
        scanner: &mut Scanner<'a>,
        key: Text<'a>,
        key_at: usize,
        depth: usize,
    ) -> Result<(), ParseError> {
        let key = key.decode();
        if key == "result" && scanner.peek() == Some(b'{') {
            let mut result = ResultVisitor { filter: self.0, has_tools: false, variant: None, scope: None };
            scanner.object(depth, &mut result)?;
            if let ResultVisitor { has_tools: true, variant, scope, .. } = result {
                self.0.edits.extend(scope);
                if let Some((at, of)) = variant {
                    self.0.fault.get_or_insert(Reason::KeyVariant(at, of));
                }
            }
            return Ok(());
        }
        self.0.refuse_variant(&["result"], &key, key_at);
        scanner.skip(depth)
    }
}

struct ResultVisitor<'f, 'k> {
    filter: &'f mut Filter<'k>,
    has_tools: bool,
    /// A key that matters only beside `tools`.
    variant: Option<(usize, &'static str)>,
    scope: Option<Edit>,
}

impl<'a> Visitor<'a> for ResultVisitor<'_, '_> {
    fn member(
        &mut self,
        scanner: &mut Scanner<'a>,
        key: Text<'a>,
        key_at: usize,
        depth: usize,
    ) -> Result<(), ParseError> {
        let start = scanner.at();
        match &*key.decode() {
            "tools" => {
                self.has_tools = true;
                self.filter.tools(scanner, depth)
            }
            "cacheScope" => {
                if let Value::String(scope) = scanner.value(depth)?
                    && scope.decode() == "public"
                {
                    self.scope = Some((start..scanner.at(), b"\"private\""));
                }
                Ok(())
            }
            other => {
                self.filter.refuse_variant(&["tools"], other, key_at);
                self.variant = self.variant.or(variant_of(&["cacheScope"], other).map(|of| (key_at, of)));
                scanner.skip(depth)
            }
        }
    }
}

struct ToolVisitor<'f, 'k, 'a> {
    filter: &'f mut Filter<'k>,
    name: Option<Value<'a>>,
}

impl<'a> Visitor<'a> for ToolVisitor<'_, '_, 'a> {
    fn member(
        &mut self,
        scanner: &mut Scanner<'a>,
        key: Text<'a>,
        key_at: usize,
        depth: usize,
    ) -> Result<(), ParseError> {
        let key = key.decode();
        if key == "name" {
            self.name = Some(scanner.value(depth)?);
            return Ok(());
        }
        self.filter.refuse_variant(&["name"], &key, key_at);
        scanner.skip(depth)
    }
}
