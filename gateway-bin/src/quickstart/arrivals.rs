//! What reaches the servers: every tool call, noted before a server reads it.
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::Value;

use super::story::{Call, Expected, Server};

/// A tool call that reached a server.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Arrival {
    server: Server,
    tool: String,
    arguments: Value,
}

impl Arrival {
    /// What a call of the story is once it arrives; nothing, if it calls no tool.
    fn of(call: &Call) -> Option<Self> {
        let (tool, arguments) = call.tool.clone()?;
        Some(Self { server: call.server, tool: tool.to_owned(), arguments })
    }
}

impl fmt::Display for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}", self.server.name(), self.tool, self.arguments)
    }
}

#[derive(Debug, Default)]
struct Noted {
    arrivals: Vec<Arrival>,
    is_told: bool,
}

/// What has arrived so far; clones note into the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Arrivals(Arc<Mutex<Noted>>);

impl Arrivals {
    /// Notes the tool calls of a body. What cannot be told counts as a call of `?`: nothing like it should arrive.
    pub(crate) fn note(&self, server: Server, body: &[u8]) {
        let messages = match serde_json::from_slice(body) {
            Ok(Value::Array(messages)) => messages,
            Ok(message) => vec![message],
            Err(_) => vec![Value::Null],
        };
        let mut noted = self.lock();
        for message in messages {
            let text = |pointer| message.pointer(pointer).and_then(Value::as_str);
            let tool = match text("/method") {
                Some("tools/call") => text("/params/name").unwrap_or("?"),
                Some(_) => continue,
                None if ["result", "error"].iter().any(|key| message.get(key).is_some()) => continue,
                None => "?",
            };
            let arguments = message.pointer("/params/arguments").cloned().unwrap_or_default();
            let arrival = Arrival { server, tool: tool.to_owned(), arguments };
            if noted.is_told {
                println!("reached {arrival}");
            }
            noted.arrivals.push(arrival);
        }
    }

    /// From now on, says so on standard output when a call arrives.
    pub(crate) fn tell(&self) {
        self.lock().is_told = true;
    }

    /// Whether the calls that were to succeed arrived, in their order, and nothing else; else what did.
    ///
    /// # Errors
    /// What arrived, a line each.
    pub(crate) fn check<'c>(&self, calls: impl Iterator<Item = &'c Call>) -> Result<usize, String> {
        let allowed = calls.filter(|call| call.expected == Expected::Success);
        let expected: Vec<Arrival> = allowed.filter_map(Arrival::of).collect();
        let noted = self.lock();
        if noted.arrivals == expected {
            return Ok(expected.len());
        }
        Err(noted.arrivals.iter().map(|arrival| format!("  {arrival}\n")).collect())
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::quickstart::story::{first_table, second_table};

    const SUM: &[u8] =
        br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get-sum","arguments":{"a":2,"b":3}}}"#;
    const ECHO: &[u8] =
        br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"message":"hello"}}}"#;

    fn shown(bodies: &[&[u8]]) -> Vec<String> {
        let arrivals = Arrivals::default();
        for body in bodies {
            arrivals.note(Server::Local, body);
        }
        arrivals.lock().arrivals.iter().map(Arrival::to_string).collect()
    }

    #[test]
    fn tool_calls_are_noted() {
        let batch = [b"[".as_slice(), SUM, b",", ECHO, b"]"].concat();
        for (body, expected) in [
            (SUM, vec![r#"local: get-sum {"a":2,"b":3}"#]),
            (&batch, vec![r#"local: get-sum {"a":2,"b":3}"#, r#"local: echo {"message":"hello"}"#]),
            (br#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#, vec![]),
            (br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}"#, vec!["local: ? null"]),
            (br#"{"jsonrpc":"2.0","id":1,"result":{}}"#, vec![]),
            (br#"{"jsonrpc":"2.0","id":1}"#, vec!["local: ? null"]),
            (b"text", vec!["local: ? null"]),
        ] {
            assert_eq!(shown(&[body]), expected, "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn nothing_else_than_what_was_allowed_is_to_arrive() {
        let (first, second) = (first_table(), second_table());
        let calls = || first.iter().chain(&second);
        let arrivals = Arrivals::default();
        assert_eq!(arrivals.check(calls()), Err(String::new()));
        for call in calls().filter(|call| call.expected == Expected::Success) {
            if let Some((tool, arguments)) = &call.tool {
                let message =
                    json!({"method": "tools/call", "params": {"name": tool, "arguments": arguments}});
                arrivals.note(call.server, message.to_string().as_bytes());
            }
        }
        assert_eq!(arrivals.check(calls()), Ok(6));
        arrivals.note(Server::Local, ECHO);
        let told = arrivals.check(calls()).unwrap_err();
        assert!(
            told.ends_with("  local: echo {\"message\":\"hello\"}\n") && told.lines().count() == 7,
            "{told}"
        );
    }
}
