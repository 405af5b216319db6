//! What is written of a message that was read is read back as the same: replies to it, a batch of replies as one that was
//! refused gets them, and the message from its parts.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_jsonrpc::{
    Body, Id, Kind, Limits, Message, ReplyId, error_code, error_reply, filter_tools_list, parse,
};
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let Ok(body) = parse(bytes, &Limits::default()) else { return };
    let mut replies = Vec::new();
    for message in body.messages() {
        match message.id() {
            Some(id) => {
                let reply = error_reply(ReplyId::Token(id), error_code::FORBIDDEN, message.method());
                is_reply(&reply, id, message.method());
                replies.push(reply);
            }
            None => {
                // Nobody waits for it: it is no message, and says so in JSON all the same.
                let reply = error_reply(ReplyId::Absent, error_code::FORBIDDEN, message.method());
                assert!(parse(&reply, &Limits::default()).is_err());
                let read: Value = serde_json::from_slice(&reply).expect("JSON");
                assert_eq!(read["error"]["message"], message.method());
            }
        }
        if message.kind() != Kind::Response {
            reprint(message);
        }
    }
    if body.is_batch() && !replies.is_empty() {
        let batch = [b"[", &*replies.join(&b","[..]), b"]"].concat();
        let Ok(Body::Batch(read)) = parse(&batch, &Limits::default()) else { panic!("replies are a batch") };
        let asked = body.messages().iter().filter_map(Message::id);
        assert!(read.iter().map(|reply| reply.id().expect("an id")).eq(asked));
    }
});

fn is_reply(reply: &[u8], id: Id<'_>, text: &str) {
    let Ok(Body::One(read)) = parse(reply, &Limits::default()) else { panic!("a reply is a message") };
    assert_eq!((read.kind(), read.id(), read.method()), (Kind::Response, Some(id), ""));
    let theirs: Value = serde_json::from_slice(reply).expect("JSON");
    assert_eq!(theirs["error"]["message"], text);
    assert_eq!(theirs["error"]["code"], error_code::FORBIDDEN);
    assert_eq!(filter_tools_list(reply, &mut |_| false).as_deref(), Ok(reply), "a reply is no list");
}

/// The message once more, from the parts that decisions are made on: nothing else of it counts.
fn reprint(message: &Message<'_>) {
    let mut text = r#"{"jsonrpc":"2.0","#.to_owned();
    if let Some(id) = message.id() {
        text.push_str(&format!(r#""id":{},"#, id.token()));
    }
    text.push_str(&format!(r#""method":{}"#, Value::from(message.method())));
    if let Some(params) = message.params() {
        text.push_str(&format!(r#","params":{params}"#));
    }
    text.push('}');
    let read = parse(text.as_bytes(), &Limits::default());
    assert_eq!(read.as_ref().map(Body::messages), Ok(std::slice::from_ref(message)), "{text}");
}
