//! Statuses for people.
use std::fmt::Write as _;

use xds_translate::{Condition, ConditionStatus, ObjectStatus};

/// As Kubernetes writes it.
pub fn status_word(status: ConditionStatus) -> &'static str {
    match status {
        ConditionStatus::True => "True",
        ConditionStatus::False => "False",
        ConditionStatus::Unknown => "Unknown",
    }
}

/// One line for an object and scope; what is to be done stands below it. Ends with a line break.
pub fn status_text(of: &ObjectStatus) -> String {
    let mark = if of.is_accepted() { "ok  " } else { "FAIL" };
    let object = &of.object;
    let mut text = format!("{mark} {} ", object.kind);
    if !object.namespace.is_empty() {
        text.push_str(&object.namespace);
        text.push('/');
    }
    text.push_str(&object.name);
    if !of.scope.is_object() {
        text.push_str(&format!(" ({})", of.scope));
    }
    for condition in &of.conditions {
        text.push_str(&format!(
            "  {}={}/{}",
            condition.r#type,
            status_word(condition.status),
            condition.reason
        ));
    }
    text.push('\n');
    for condition in of.conditions.iter().filter(|condition| has_news(condition)) {
        for part in condition.message.lines() {
            // Writing to a string does not fail.
            let _never = writeln!(text, "       {part}").is_err();
        }
    }
    text
}

/// Whether a condition says something to do: it is not as it should be, or it is accepted with a warning.
fn has_news(condition: &Condition) -> bool {
    let healthy =
        if condition.r#type == "Conflicted" { ConditionStatus::False } else { ConditionStatus::True };
    !condition.message.is_empty() && (condition.status != healthy || condition.message.contains("warning"))
}
