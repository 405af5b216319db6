//! From members to messages: what each method needs.
use std::borrow::Cow;
use std::collections::HashSet;

use super::protocol_keys::{self, variant_of};
use super::{ParseError, Reason};
use crate::scan::{Scanner, Text, Value, Visitor};
use crate::{Id, Kind, Message, Method, Target};

/// The members of one message object, before the rules for messages are applied: only when all of it has been read
/// is it known whether it must be a message at all.
#[derive(Debug, Default)]
pub(super) struct Draft<'a> {
    at: usize,
    jsonrpc: Option<Value<'a>>,
    /// With the raw token.
    id: Option<(Value<'a>, &'a str)>,
    method: Option<Value<'a>>,
    params: Option<Params<'a>>,
    result: bool,
    error: Option<Value<'a>>,
    looks_like_mcp: bool,
    /// The first rule that was broken while reading.
    fault: Option<ParseError>,
}

#[derive(Debug, Default)]
struct Params<'a> {
    raw: &'a str,
    deepest: usize,
    big_integer: bool,
    name: Option<Value<'a>>,
    uri: Option<Value<'a>>,
    task_id: Option<Value<'a>>,
    /// With the raw text.
    arguments: Option<(Value<'a>, &'a str)>,
    // Boxed since rare: what is always there stays small.
    reference: Option<Box<Reference<'a>>>,
    notifications: Option<Box<Notifications<'a>>>,
    meta_version: Option<Text<'a>>,
    fault: Option<ParseError>,
}

#[derive(Debug, Default)]
struct Reference<'a> {
    kind: Option<Value<'a>>,
    name: Option<Value<'a>>,
    uri: Option<Value<'a>>,
    fault: Option<ParseError>,
}

#[derive(Debug, Default)]
struct Notifications<'a> {
    resources: Option<Value<'a>>,
    tasks: Option<Value<'a>>,
    fault: Option<ParseError>,
}

#[derive(Debug, Default)]
struct Meta<'a> {
    version: Option<Text<'a>>,
    fault: Option<ParseError>,
}

/// Notes a key that could be taken for one of `keys`; says for which.
fn note_variant(
    fault: &mut Option<ParseError>,
    keys: &[&'static str],
    key: &str,
    at: usize,
) -> Option<&'static str> {
    let known = variant_of(keys, key)?;
    note(fault, || ParseError::new(Reason::KeyVariant(key.into(), known), at));
    Some(known)
}

fn note(fault: &mut Option<ParseError>, new: impl FnOnce() -> ParseError) {
    if fault.is_none() {
        *fault = Some(new());
    }
}

fn rule(rule: &'static str, at: usize) -> ParseError {
    ParseError::new(Reason::Message(rule), at)
}

impl<'a> Visitor<'a> for Draft<'a> {
    #[inline]
    fn member(
        &mut self,
        scanner: &mut Scanner<'a>,
        key: Text<'a>,
        key_at: usize,
        depth: usize,
    ) -> Result<(), ParseError> {
        let start = scanner.at();
        match &*key.decode() {
            "jsonrpc" => {
                self.looks_like_mcp = true;
                self.jsonrpc = Some(scanner.value(depth)?);
            }
            "id" => {
                let value = scanner.value(depth)?;
                self.id = Some((value, scanner.since(start)));
            }
            "method" => {
                self.looks_like_mcp = true;
                self.method = Some(scanner.value(depth)?);
            }
            "params" => {
                self.looks_like_mcp = true;
                if scanner.peek() == Some(b'{') {
                    let params = self.params.insert(Params::default());
                    (scanner.deepest, scanner.big_integer) = (depth, false);
                    scanner.object(depth, params)?;
                    params.raw = scanner.since(start);
                    (params.deepest, params.big_integer) = (scanner.deepest, scanner.big_integer);
                    if let Some(fault) = params.fault.take() {
                        note(&mut self.fault, || fault);
                    }
                } else {
                    note(&mut self.fault, || rule("`params` must be an object", start));
                    scanner.skip(depth)?;
                }
            }
            "result" => {
                self.result = true;
                scanner.skip(depth)?;
            }
            "error" => self.error = Some(scanner.value(depth)?),
            other => {
                let known = note_variant(&mut self.fault, protocol_keys::MESSAGE, other, key_at);
                self.looks_like_mcp |= matches!(known, Some("jsonrpc" | "method" | "params"));
                scanner.skip(depth)?;
            }
        }
        Ok(())
    }
}

impl<'a> Visitor<'a> for Params<'a> {
    #[inline]
    fn member(
        &mut self,
        scanner: &mut Scanner<'a>,
        key: Text<'a>,
        key_at: usize,
        depth: usize,
    ) -> Result<(), ParseError> {
        let start = scanner.at();
        let is_object = scanner.peek() == Some(b'{');
        let fault = match &*key.decode() {
            "name" => {
                self.name = Some(scanner.value(depth)?);
                None
            }
            "uri" => {
                self.uri = Some(scanner.value(depth)?);
                None
            }
            "taskId" => {
                self.task_id = Some(scanner.value(depth)?);
                None
            }
            "arguments" => {
                let value = scanner.value(depth)?;
                self.arguments = Some((value, scanner.since(start)));
                None
            }
            "ref" if is_object => {
                let reference = self.reference.insert(Box::default());
                scanner.object(depth, &mut **reference)?;
                reference.fault.take()
            }
            "notifications" if is_object => {
                let notifications = self.notifications.insert(Box::default());
                scanner.object(depth, &mut **notifications)?;
                notifications.fault.take()
            }
            "_meta" if is_object => {
                let mut meta = Meta::default();
                scanner.object(depth, &mut meta)?;
                self.meta_version = meta.version;
                meta.fault
            }
            "_meta" => {
                scanner.skip(depth)?;
                Some(rule("`_meta` must be an object", start))
            }
            // A `ref` or `notifications` of another type is missing as far as its method is concerned.
            other => {
                note_variant(&mut self.fault, protocol_keys::PARAMS, other, key_at);
                scanner.skip(depth)?;
                None
            }
        };
        if let Some(fault) = fault {
            note(&mut self.fault, || fault);
        }
        Ok(())
    }
}

impl<'a> Visitor<'a> for Reference<'a> {
    fn member(
        &mut self,
        scanner: &mut Scanner<'a>,
        key: Text<'a>,
        key_at: usize,
        depth: usize,
    ) -> Result<(), ParseError> {
        match &*key.decode() {
            "type" => self.kind = Some(scanner.value(depth)?),
            "name" => self.name = Some(scanner.value(depth)?),
            "uri" => self.uri = Some(scanner.value(depth)?),
            other => {
                note_variant(&mut self.fault, protocol_keys::REFERENCE, other, key_at);
                scanner.skip(depth)?;
            }
        }
        Ok(())
    }
}

impl<'a> Visitor<'a> for Notifications<'a> {
    fn member(
        &mut self,
        scanner: &mut Scanner<'a>,
        key: Text<'a>,
        key_at: usize,
        depth: usize,
    ) -> Result<(), ParseError> {
        match &*key.decode() {
            "resourceSubscriptions" => self.resources = Some(scanner.value(depth)?),
            "taskIds" => self.tasks = Some(scanner.value(depth)?),
            other => {
                note_variant(&mut self.fault, protocol_keys::NOTIFICATIONS, other, key_at);
                scanner.skip(depth)?;
            }
        }
        Ok(())
    }
}

impl<'a> Visitor<'a> for Meta<'a> {
    fn member(
        &mut self,
        scanner: &mut Scanner<'a>,
        key: Text<'a>,
        key_at: usize,
        depth: usize,
    ) -> Result<(), ParseError> {
        match &*key.decode() {
            protocol_keys::META_VERSION => match scanner.value(depth)? {
                Value::String(version) => self.version = Some(version),
                _ => {
                    note(&mut self.fault, || rule("the protocol version in `_meta` must be a string", key_at))
                }
            },
            other => {
                note_variant(&mut self.fault, protocol_keys::META, other, key_at);
                scanner.skip(depth)?;
            }
        }
        Ok(())
    }
}

impl<'a> Draft<'a> {
    /// Reads an object, the scanner at its `{`. In place: a draft is large to be moved about.
    #[inline]
    pub(super) fn read(&mut self, scanner: &mut Scanner<'a>) -> Result<(), ParseError> {
        self.at = scanner.at();
        scanner.object(0, self)
    }

    /// Whether a key is, or could be taken for, `jsonrpc`, `method` or `params`.
    pub(super) fn is_mcp(&self) -> bool {
        self.looks_like_mcp
    }

    /// Applies the rules for messages.
    pub(super) fn finish(&mut self) -> Result<Message<'a>, ParseError> {
        let at = self.at;
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        match self.jsonrpc {
            Some(Value::String(version)) if version.decode() == "2.0" => {}
            _ => return Err(rule("`jsonrpc` must be \"2.0\"", at)),
        }
        let id = match self.id {
            None => None,
            Some((Value::String(_) | Value::Number, token)) => Some(Id(token)),
            Some(_) => return Err(rule("`id` must be a string or a number", at)),
        };
        let Some(method) = self.method else {
            return match (id, &self.params, self.result, self.error) {
                (None, ..) => Err(rule("a message without `method` is a response and needs an `id`", at)),
                (_, Some(_), ..) => Err(rule("a response has no `params`", at)),
                (_, _, true, Some(_)) => Err(rule("a response has `result` or `error`, not both", at)),
                (_, _, false, None) => Err(rule("a message needs `method`, `result` or `error`", at)),
                (_, _, true, None) | (_, _, false, Some(Value::Object(_))) => Ok(Message {
                    kind: Kind::Response,
                    id,
                    method: Cow::Borrowed(""),
                    known: None,
                    params: None,
                    arguments: None,
                    target: Target::None,
                    meta_version: None,
                    max_depth: 1,
                    has_big_integer: false,
                }),
                (_, _, false, Some(_)) => Err(rule("`error` must be an object", at)),
            };
        };
        if self.result || self.error.is_some() {
            return Err(rule("a message with `method` has no `result` and no `error`", at));
        }
        let method = match method {
            Value::String(method) => method.decode(),
            _ => return Err(rule("`method` must be a string", at)),
        };
        if method.is_empty() || has_control(&method) {
            return Err(rule("`method` must not be empty or hold control characters", at));
        }
        let is_notification = method.strip_prefix("notifications/").is_some_and(|event| !event.is_empty());
        let (kind, known) = match id {
            Some(_) if is_notification => (Kind::Request, None),
            Some(_) => (Kind::Request, Method::from_name(&method)),
            None if is_notification => (Kind::Notification, Method::from_name(&method)),
            None => return Err(rule("a request needs an `id`", at)),
        };
        let target = target(known, self.params.as_ref(), at)?;
        let mut message = Message {
            kind,
            id,
            method,
            known,
            params: None,
            arguments: None,
            target,
            meta_version: None,
            max_depth: 1,
            has_big_integer: false,
        };
        if let Some(params) = &self.params {
            if let (Some(Method::ToolsCall | Method::PromptsGet), Some((value, _))) =
                (known, params.arguments)
                && !matches!(value, Value::Object(_))
            {
                return Err(rule("`params.arguments` must be an object", at));
            }
            message.params = Some(params.raw);
            message.arguments = params.arguments.map(|(_, raw)| raw);
            message.meta_version = params.meta_version.map(Text::decode);
            message.max_depth = params.deepest;
            message.has_big_integer = params.big_integer;
        }
        Ok(message)
    }
}

/// What policies look at, by method.
fn target<'a>(
    method: Option<Method>,
    params: Option<&Params<'a>>,
    at: usize,
) -> Result<Target<'a>, ParseError> {
    match method {
        Some(Method::ToolsCall | Method::PromptsGet) => named(
            params.and_then(|p| p.name),
            at,
            "`params.name` must be a string without control characters",
        )
        .map(Target::Name),
        Some(Method::ResourcesRead | Method::ResourcesSubscribe | Method::ResourcesUnsubscribe) => {
            named(params.and_then(|p| p.uri), at, "`params.uri` must be a string without control characters")
                .map(Target::Uri)
        }
        Some(Method::TasksGet | Method::TasksResult | Method::TasksUpdate | Method::TasksCancel) => named(
            params.and_then(|p| p.task_id),
            at,
            "`params.taskId` must be a string without control characters",
        )
        .map(Target::TaskId),
        Some(Method::CompletionComplete) => {
            let Some(reference) = params.and_then(|p| p.reference.as_deref()) else {
                return Err(rule("`params.ref` must be an object", at));
            };
            let kind = match reference.kind {
                Some(Value::String(kind)) => kind.decode(),
                _ => Cow::Borrowed(""),
            };
            match &*kind {
                "ref/prompt" => {
                    named(reference.name, at, "`params.ref.name` must be a string without control characters")
                        .map(Target::RefPrompt)
                }
                "ref/resource" => {
                    named(reference.uri, at, "`params.ref.uri` must be a string without control characters")
                        .map(Target::RefResource)
                }
                _ => Err(rule("`params.ref.type` must be `ref/prompt` or `ref/resource`", at)),
            }
        }
        Some(Method::SubscriptionsListen) => {
            let Some(notifications) = params.and_then(|p| p.notifications.as_deref()) else {
                return Err(rule("`params.notifications` must be an object", at));
            };
            Ok(Target::Subscriptions {
                resources: list(
                    notifications.resources,
                    at,
                    "`resourceSubscriptions` must be a list of strings",
                )?,
                tasks: list(notifications.tasks, at, "`taskIds` must be a list of strings")?,
            })
        }
        _ => Ok(Target::None),
    }
}

fn named<'a>(
    value: Option<Value<'a>>,
    at: usize,
    otherwise: &'static str,
) -> Result<Cow<'a, str>, ParseError> {
    if let Some(Value::String(text)) = value {
        let text = text.decode();
        if !has_control(&text) {
            return Ok(text);
        }
    }
    Err(rule(otherwise, at))
}

/// The strings of an array that was read before; absent: none.
fn list<'a>(
    value: Option<Value<'a>>,
    at: usize,
    otherwise: &'static str,
) -> Result<Vec<Cow<'a, str>>, ParseError> {
    let raw = match value {
        None => return Ok(Vec::new()),
        Some(Value::Array(raw)) => raw,
        Some(_) => return Err(rule(otherwise, at)),
    };
    let mut strings = Vec::new();
    Scanner::new(raw.as_bytes(), crate::scan::DEEPEST)?.elements(|scanner| {
        let value = scanner.value(0)?;
        strings.push(named(Some(value), at, otherwise)?);
        Ok(())
    })?;
    Ok(strings)
}

/// C0, DEL and C1.
#[inline]
fn has_control(text: &str) -> bool {
    if text.is_ascii() {
        text.bytes().any(|byte| byte.is_ascii_control())
    } else {
        text.chars().any(char::is_control)
    }
}

/// Refuses a batch in which two ids are equal for some reader: numbers as doubles, strings decoded.
pub(super) fn ids_differ(drafts: &[Draft<'_>]) -> Result<(), ParseError> {
    #[derive(PartialEq, Eq, Hash)]
    enum Key<'a> {
        Number(u64),
        String(Cow<'a, str>),
    }
    let mut seen = HashSet::new();
    for draft in drafts {
        let key = match draft.id {
            Some((Value::String(text), _)) => Key::String(text.decode()),
            // Adding zero turns -0 into 0.
            Some((Value::Number, token)) => {
                Key::Number((token.parse::<f64>().unwrap_or_default() + 0.0).to_bits())
            }
            _ => continue,
        };
        if !seen.insert(key) {
            return Err(rule("two messages of a batch have equal ids", draft.at));
        }
    }
    Ok(())
}
