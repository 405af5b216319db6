//! How an explanation is printed.
use authz_core::{Effect, Explanation, LevelExplanation, Reason, RuleOutcome, Traffic};
use serde_json::{Value, json};

use super::together;
use crate::pipeline::Planned;

/// What became of a request.
pub(super) struct Explained {
    decision: &'static str,
    /// For a rejection: the status, why, and what the client reads.
    refused: Option<(u16, String, String)>,
    route: Option<Value>,
    subject: String,
    messages: Vec<Message>,
}

/// One message of it.
pub(super) struct Message {
    name: String,
    explanation: Explanation,
    authorizers: Vec<String>,
    /// Why no authorizer could judge it.
    unjudgeable: Option<&'static str>,
}

impl Message {
    pub(super) fn new(
        traffic: &Traffic<'_>,
        explanation: Explanation,
        authorizers: Vec<String>,
        unjudgeable: Option<&'static str>,
    ) -> Self {
        let name = match traffic {
            Traffic::Message(message) if message.method().is_empty() => "a response of the client".to_owned(),
            Traffic::Message(message) => message.method().to_owned(),
            Traffic::EventStream => "GET for the event stream".to_owned(),
            Traffic::EndSession => "DELETE of a session".to_owned(),
            Traffic::OtherJson => "JSON that is no MCP message".to_owned(),
            Traffic::NoBody => "no body".to_owned(),
            Traffic::Unparsed => "a body that was not parsed".to_owned(),
        };
        let unjudgeable = unjudgeable.filter(|_| explanation.effect == Effect::Delegate);
        Self { name, explanation, authorizers, unjudgeable }
    }

    /// The engine's decision; what cannot be put to an authorizer is denied.
    fn effect(&self) -> Effect {
        if self.unjudgeable.is_some() { Effect::Deny } else { self.explanation.effect }
    }
}

impl Explained {
    pub(super) fn rejected(status: u16, why: String, body: String) -> Self {
        Self {
            decision: "reject",
            refused: Some((status, why, body)),
            route: None,
            subject: String::new(),
            messages: Vec::new(),
        }
    }

    pub(super) fn answered(status: u16) -> Self {
        let why = "the route answers it: a redirect, or a CORS preflight; it is never forwarded".to_owned();
        Self::rejected(status, why, String::new())
    }

    pub(super) fn decided(messages: Vec<Message>, subject: &str) -> Self {
        let effect = together(messages.iter().map(Message::effect));
        Self {
            decision: effect_name(effect),
            refused: None,
            route: None,
            subject: subject.to_owned(),
            messages,
        }
    }

    /// Adds where the request would go.
    pub(super) fn on(mut self, planned: &Planned) -> Self {
        self.route = Some(json!({
            "route": planned.rule.route.to_string(),
            "rule": planned.rule.index,
            "backend": planned.upstream.name(),
            "path": planned.path,
        }));
        self
    }

    pub(super) fn json(&self) -> Value {
        let mut out = json!({"decision": self.decision});
        let Some(object) = out.as_object_mut() else { return out };
        if let Some(route) = &self.route {
            object.insert("route".to_owned(), route.clone());
        }
        if let Some((status, why, body)) = &self.refused {
            object.insert("status".to_owned(), json!(status));
            object.insert("reason".to_owned(), json!(why));
            if !body.is_empty() {
                object.insert("body".to_owned(), json!(body));
            }
        }
        let policies: Vec<Value> = self.messages.first().map(policies).unwrap_or_default();
        object.insert("policies".to_owned(), Value::Array(policies));
        object.insert("messages".to_owned(), self.messages.iter().map(message_json).collect());
        out
    }

    pub(super) fn text(&self) -> String {
        let mut out = format!("{}\n", self.decision);
        if let Some((status, why, _)) = &self.refused {
            out.push_str(&format!("  refused before policy with {status}: {why}\n"));
        }
        if let Some(route) = &self.route {
            let text = |key: &str| route.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            out.push_str(&format!("  route {} to {}\n", text("route"), text("backend")));
        }
        for message in &self.messages {
            out.push_str(&format!(
                "  {} ({}): {}\n",
                message.name,
                self.subject,
                effect_name(message.effect())
            ));
            for (name, level) in levels(&message.explanation) {
                out.push_str(&format!(
                    "    {name}: {} ({})",
                    effect_name(level.effect),
                    reason(level.reason)
                ));
                if let Some((policy, rule)) = &level.determining {
                    out.push_str(&format!(", by {policy}"));
                    if let Some(rule) = rule {
                        out.push_str(&format!(" rule {rule}"));
                    }
                }
                out.push('\n');
                for policy in &level.policies {
                    out.push_str(&format!("      {} ({})\n", policy.policy, policy.state));
                    for rule in &policy.rules {
                        out.push_str(&format!("        {}: {}\n", rule.rule, outcome(&rule.outcome)));
                    }
                }
            }
            if let Some(why) = message.unjudgeable {
                out.push_str(&format!("    denied without asking the authorizer: {why}\n"));
                continue;
            }
            for authorizer in &message.authorizers {
                out.push_str(&format!("    allowed if the authorizer agrees: {authorizer}\n"));
            }
        }
        out
    }
}

fn levels(explanation: &Explanation) -> [(&'static str, &LevelExplanation); 2] {
    [("gateway", &explanation.gateway), ("backend", &explanation.backend)]
}

fn message_json(message: &Message) -> Value {
    let levels: serde_json::Map<String, Value> = levels(&message.explanation)
        .into_iter()
        .map(|(name, level)| {
            let determining = level.determining.as_ref();
            let value = json!({
                "decision": effect_name(level.effect),
                "reason": reason(level.reason),
                "policy": determining.map(|(policy, _)| policy.to_string()),
                "rule": determining.and_then(|(_, rule)| rule.clone()),
            });
            (name.to_owned(), value)
        })
        .collect();
    json!({
        "message": message.name,
        "decision": effect_name(message.effect()),
        "levels": levels,
        "policies": policies(message),
        "authorizers": message.authorizers,
        "unjudgeable": message.unjudgeable,
    })
}

fn policies(message: &Message) -> Vec<Value> {
    levels(&message.explanation)
        .into_iter()
        .flat_map(|(name, level)| {
            level.policies.iter().map(move |policy| {
                let rules: Vec<Value> = policy
                    .rules
                    .iter()
                    .map(|rule| json!({"rule": rule.rule, "outcome": outcome(&rule.outcome)}))
                    .collect();
                json!({
                    "level": name,
                    "policy": policy.policy.to_string(),
                    "group": policy.policy.group.name(),
                    "state": policy.state,
                    "rules": rules,
                })
            })
        })
        .collect()
}

fn outcome(of: &RuleOutcome) -> String {
    match of {
        RuleOutcome::Matches => "matches".to_owned(),
        RuleOutcome::Differs(how) => format!("does not match: {how}"),
        RuleOutcome::Error { error, counts_as_matching } => {
            let counts = if *counts_as_matching { "counts as matching" } else { "does not match" };
            format!("{counts}: it cannot be evaluated: {error}")
        }
        RuleOutcome::NotEvaluated => "not looked at".to_owned(),
        _ => "unknown".to_owned(),
    }
}

fn effect_name(effect: Effect) -> &'static str {
    match effect {
        Effect::Allow => "allow",
        Effect::Deny => "deny",
        Effect::Delegate => "delegate",
    }
}

fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::NoPolicy => "no policy",
        Reason::Allowed => "a rule allows it",
        Reason::BaseProtocol => "base protocol",
        Reason::Delegated => "delegated",
        Reason::NoRuleMatches => "no rule matches",
        Reason::FailsClosed => "a policy that cannot be enforced closes it",
        Reason::OverLimit => "delegated by a policy over the limit",
        Reason::DefaultDeny => "--default-action deny",
        _ => "other",
    }
}
