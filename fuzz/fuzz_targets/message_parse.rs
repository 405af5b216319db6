//! Any bytes: nothing panics, and what is admitted reads the same in serde_json.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_jsonrpc::{Id, Json, Limits, ReplyId, Target, error_reply, filter_tools_list, parse, parse_json};
use serde_json::Value;
use serde_json::value::RawValue;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::default();
    let strict = parse(bytes, &limits);
    match parse_json(bytes, &limits) {
        Ok(Json::Mcp(body)) => assert_eq!(strict.as_ref(), Ok(&body)),
        Ok(Json::Other) => assert!(serde_json::from_slice::<Value>(bytes).is_ok()),
        Err(error) => assert_eq!(strict.as_ref(), Err(&error)),
    }
    if let Ok(body) = &strict {
        let raw: Vec<&RawValue> = if body.is_batch() {
            serde_json::from_slice(bytes).expect("a JSON array")
        } else {
            vec![serde_json::from_slice(bytes).expect("a JSON object")]
        };
        assert_eq!(raw.len(), body.messages().len());
        for (message, raw) in body.messages().iter().zip(raw) {
            let read: Value = serde_json::from_str(raw.get()).expect("JSON");
            assert_eq!(message.method(), read["method"].as_str().unwrap_or_default());
            let named = match message.target() {
                Target::Name(name) => Some((name, &read["params"]["name"])),
                Target::Uri(uri) => Some((uri, &read["params"]["uri"])),
                Target::TaskId(id) => Some((id, &read["params"]["taskId"])),
                Target::RefPrompt(name) => Some((name, &read["params"]["ref"]["name"])),
                Target::RefResource(uri) => Some((uri, &read["params"]["ref"]["uri"])),
                _ => None,
            };
            if let Some((ours, theirs)) = named {
                assert_eq!(Some(&**ours), theirs.as_str());
            }
            if let Some(params) = message.params() {
                assert_eq!(serde_json::from_str::<Value>(params).expect("JSON"), read["params"]);
            }
            let id = message.id().map_or(ReplyId::Absent, ReplyId::Token);
            let reply: Value = serde_json::from_slice(&error_reply(id, 403, message.method())).expect("JSON");
            assert_eq!(reply.get("id"), read.get("id").filter(|_| message.id().is_some()));
            if let Some(token) = message.id().map(Id::token) {
                assert!(raw.get().contains(token));
            }
        }
    }
    let keep = |name: &str| name.len() % 2 == 0;
    if let Ok(filtered) = filter_tools_list(bytes, &mut { keep }) {
        assert_eq!(filter_tools_list(&filtered, &mut { keep }).as_deref(), Ok(&*filtered));
        assert!(serde_json::from_slice::<Value>(&filtered).is_ok());
    }
});
