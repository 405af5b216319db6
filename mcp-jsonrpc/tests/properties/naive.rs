//! The rules for messages a second time, slowly, from the specification and over what serde_json reads.
use std::collections::HashSet;
use std::fmt;

use mcp_jsonrpc::{Kind, Target};
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};

/// JSON in which no object has a key twice, as serde_json reads it.
#[derive(Debug, PartialEq)]
pub(crate) enum Node {
    Null,
    Bool,
    Number(f64),
    String(String),
    Array(Vec<Self>),
    Object(Vec<(String, Self)>),
}

/// What is read of one message.
#[derive(Debug, PartialEq)]
pub(crate) struct Message {
    pub(crate) kind: Kind,
    pub(crate) method: String,
    pub(crate) target: Target<'static>,
    pub(crate) has_arguments: bool,
    pub(crate) meta_version: Option<String>,
    pub(crate) params_depth: usize,
}

/// The messages of a body that is to be admitted (limits: the defaults), and whether it is a batch.
pub(crate) fn read(body: &[u8]) -> Option<(bool, Vec<Message>)> {
    let (is_batch, nodes) = match serde_json::from_slice(body).ok()? {
        Node::Array(nodes) if (1..=32).contains(&nodes.len()) => (true, nodes),
        Node::Array(_) => return None,
        node => (false, vec![node]),
    };
    let mut ids = HashSet::new();
    for node in &nodes {
        let id = match node.get("id") {
            // The sum is never -0.
            Some(Node::Number(id)) => format!("{}", id + 0.0),
            Some(Node::String(id)) => format!("{id:?}"),
            _ => continue,
        };
        if !ids.insert(id) {
            return None;
        }
    }
    Some((is_batch, nodes.iter().map(message).collect::<Option<_>>()?))
}

/// Whether a body that a Service receives is held to the rules for messages; `None` if it is no strict JSON.
pub(crate) fn is_mcp(body: &[u8]) -> Option<bool> {
    let nodes = match serde_json::from_slice(body).ok()? {
        Node::Array(nodes) => nodes,
        node => vec![node],
    };
    if nodes.iter().any(|node| node.depth() > 64) {
        return None;
    }
    let is_mcp = |key: &str| is_taken_for(&["jsonrpc", "method", "params"], key);
    Some(
        nodes
            .iter()
            .any(|node| matches!(node, Node::Object(members) if members.iter().any(|(key, _)| is_mcp(key)))),
    )
}

fn message(node: &Node) -> Option<Message> {
    if node.depth() > 64 {
        return None;
    }
    no_variants(node, &["jsonrpc", "id", "method", "params", "result", "error"])?;
    if node.get("jsonrpc")?.text()? != "2.0" {
        return None;
    }
    let has_id = match node.get("id") {
        None => false,
        Some(Node::Number(_) | Node::String(_)) => true,
        Some(_) => return None,
    };
    let params = node.get("params");
    let mut read = Message {
        kind: Kind::Response,
        method: String::new(),
        target: Target::None,
        has_arguments: params.is_some_and(|params| params.get("arguments").is_some()),
        meta_version: None,
        params_depth: 1 + params.map_or(0, Node::depth),
    };
    if let Some(params) = params {
        read.meta_version = rules_for_params(params)?;
    }
    let Some(method) = node.get("method") else {
        return match (has_id, params, node.get("result"), node.get("error")) {
            (true, None, Some(_), None) | (true, None, None, Some(Node::Object(_))) => Some(read),
            _ => None,
        };
    };
    if node.get("result").is_some() || node.get("error").is_some() {
        return None;
    }
    let method = without_controls(method)?;
    if method.is_empty() {
        return None;
    }
    read.method = method.to_owned();
    read.kind = if has_id { Kind::Request } else { Kind::Notification };
    let is_notification = method.len() > "notifications/".len() && method.starts_with("notifications/");
    match read.kind {
        _ if is_notification => return Some(read),
        Kind::Request => {}
        _ => return None,
    }
    let text = |key: &str| Some(without_controls(params?.get(key)?)?.to_owned().into());
    read.target = match method {
        "tools/call" | "prompts/get" => {
            if !matches!(params?.get("arguments"), None | Some(Node::Object(_))) {
                return None;
            }
            Target::Name(text("name")?)
        }
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => Target::Uri(text("uri")?),
        "tasks/get" | "tasks/result" | "tasks/update" | "tasks/cancel" => Target::TaskId(text("taskId")?),
        "completion/complete" => {
            let reference = params?.get("ref")?;
            let text = |key| Some(without_controls(reference.get(key)?)?.to_owned().into());
            match reference.get("type")?.text()? {
                "ref/prompt" => Target::RefPrompt(text("name")?),
                "ref/resource" => Target::RefResource(text("uri")?),
                _ => return None,
            }
        }
        "subscriptions/listen" => {
            let Some(notifications @ Node::Object(_)) = params?.get("notifications") else { return None };
            let list = |key| match notifications.get(key) {
                None => Some(Vec::new()),
                Some(Node::Array(list)) => {
                    list.iter().map(|node| Some(without_controls(node)?.to_owned().into())).collect()
                }
                Some(_) => None,
            };
            Target::Subscriptions { resources: list("resourceSubscriptions")?, tasks: list("taskIds")? }
        }
        _ => Target::None,
    };
    Some(read)
}

/// What holds for `params` whatever the method; the protocol version in its `_meta`.
fn rules_for_params(params: &Node) -> Option<Option<String>> {
    const VERSION: &str = "io.modelcontextprotocol/protocolVersion";
    no_variants(
        params,
        &[
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
        ],
    )?;
    if let Some(reference @ Node::Object(_)) = params.get("ref") {
        no_variants(reference, &["type", "name", "uri", "title"])?;
    }
    if let Some(notifications @ Node::Object(_)) = params.get("notifications") {
        no_variants(
            notifications,
            &[
                "resourceSubscriptions",
                "taskIds",
                "toolsListChanged",
                "promptsListChanged",
                "resourcesListChanged",
            ],
        )?;
    }
    let Some(meta) = params.get("_meta") else { return Some(None) };
    let keys = ["clientCapabilities", "clientInfo", "logLevel", "related-task", "subscriptionId"];
    let keys = keys.map(|key| format!("io.modelcontextprotocol/{key}"));
    let keys: Vec<&str> = keys.iter().map(String::as_str).chain(["progressToken", VERSION]).collect();
    no_variants(meta, &keys)?;
    match meta.get(VERSION) {
        None => Some(None),
        Some(version) => Some(Some(version.text()?.to_owned())),
    }
}

/// `None` if this is no object, or has a key that is none of these and that some parser takes for one.
fn no_variants(object: &Node, keys: &[&str]) -> Option<()> {
    let Node::Object(members) = object else { return None };
    members.iter().all(|(key, _)| keys.contains(&key.as_str()) || !is_taken_for(keys, key)).then_some(())
}

/// Whether some parser takes the key for one of these.
fn is_taken_for(keys: &[&str], key: &str) -> bool {
    let folded = |text: &str| -> String {
        let shows = |c: &char| !c.is_control() && !matches!(c, '\u{200b}' | '\u{feff}');
        text.chars().filter(shows).flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
    };
    let cut = key.split(char::is_control).next().unwrap_or_default();
    keys.iter().any(|known| [folded(key), folded(cut)].contains(&known.to_lowercase()))
}

fn without_controls(node: &Node) -> Option<&str> {
    node.text().filter(|text| !text.contains(char::is_control))
}

impl Node {
    /// Nesting: that of a message without objects and arrays in it is 1.
    pub(crate) fn depth(&self) -> usize {
        let inside = match self {
            Self::Array(nodes) => nodes.iter().map(Self::depth).max(),
            Self::Object(members) => members.iter().map(|(_, node)| node.depth()).max(),
            _ => return 0,
        };
        1 + inside.unwrap_or_default()
    }

    fn get(&self, key: &str) -> Option<&Self> {
        let Self::Object(members) = self else { return None };
        members.iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    fn text(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NodeVisitor;
        impl<'de> Visitor<'de> for NodeVisitor {
            type Value = Node;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("strict JSON")
            }
            fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
                Ok(Node::Bool)
            }
            fn visit_i64<E>(self, number: i64) -> Result<Node, E> {
                Ok(Node::Number(number as f64))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Node, E> {
                Ok(Node::Number(number as f64))
            }
            fn visit_f64<E>(self, number: f64) -> Result<Node, E> {
                Ok(Node::Number(number))
            }
            fn visit_str<E>(self, text: &str) -> Result<Node, E> {
                Ok(Node::String(text.to_owned()))
            }
            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Null)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
                let mut nodes = Vec::new();
                while let Some(node) = seq.next_element()? {
                    nodes.push(node);
                }
                Ok(Node::Array(nodes))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let (mut keys, mut members) = (HashSet::new(), Vec::new());
                while let Some((key, node)) = map.next_entry::<String, Node>()? {
                    if !keys.insert(key.clone()) {
                        return Err(de::Error::custom("duplicate"));
                    }
                    members.push((key, node));
                }
                Ok(Node::Object(members))
            }
        }
        deserializer.deserialize_any(NodeVisitor)
    }
}
