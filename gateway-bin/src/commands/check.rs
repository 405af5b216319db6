//! `check`
use std::{fmt::Write as _, io::Write as _, process::ExitCode};

use serde_json::json;
use xds_translate::{Condition, ConditionStatus, LoadError, ObjectStatus, resolve};

use crate::{
    cli::{CheckArgs, Output},
    config::{self, ManifestError},
};

pub(super) fn check(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let manifests = match config::load(&args.paths) {
        Ok(manifests) => manifests,
        Err(ManifestError::Read(error)) => return Err(error),
        Err(ManifestError::Invalid(error)) => {
            print(&match args.output {
                Output::Text => format!("{error}\n"),
                Output::Json => {
                    format!("{:#}\n", json!({"accepted": false, "violations": violations(&error)}))
                }
            })?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let resolution = resolve(&manifests.objects, &args.resolution.options());
    let accepted = resolution.statuses.iter().all(ObjectStatus::is_accepted);
    print(&match args.output {
        Output::Text => text(&resolution.statuses, &manifests.skipped),
        Output::Json => format!(
            "{:#}\n",
            json!({
                "accepted": accepted,
                "objects": resolution.statuses.iter().map(object).collect::<Vec<_>>(),
                "skipped": manifests.skipped,
            })
        ),
    })?;
    Ok(if accepted { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(super) fn print(text: &str) -> anyhow::Result<()> {
    Ok(std::io::stdout().lock().write_all(text.as_bytes())?)
}

fn violations(error: &LoadError) -> Vec<serde_json::Value> {
    error
        .violations
        .iter()
        .map(|violation| {
            json!({
                "file": violation.file,
                "document": violation.document,
                "object": violation.object,
                "field": violation.field,
                "message": violation.message,
            })
        })
        .collect()
}

fn status(status: ConditionStatus) -> &'static str {
    match status {
        ConditionStatus::True => "True",
        ConditionStatus::False => "False",
        ConditionStatus::Unknown => "Unknown",
    }
}

fn object(of: &ObjectStatus) -> serde_json::Value {
    let conditions: Vec<_> = of
        .conditions
        .iter()
        .map(|condition| {
            json!({
                "type": condition.r#type,
                "status": status(condition.status),
                "reason": condition.reason,
                "message": condition.message,
            })
        })
        .collect();
    json!({
        "group": of.object.group,
        "kind": of.object.kind,
        "namespace": of.object.namespace,
        "name": of.object.name,
        "scope": of.scope.to_string(),
        "accepted": of.is_accepted(),
        "conditions": conditions,
        "attachedRoutes": of.attached_routes,
    })
}

/// One line per object and scope; what is to be done stands below it.
fn text(statuses: &[ObjectStatus], skipped: &[String]) -> String {
    let mut out = String::new();
    for of in statuses {
        let mark = if of.is_accepted() { "ok  " } else { "FAIL" };
        let object = &of.object;
        let mut line = format!("{mark} {} ", object.kind);
        if !object.namespace.is_empty() {
            line.push_str(&object.namespace);
            line.push('/');
        }
        line.push_str(&object.name);
        if !of.scope.is_object() {
            line.push_str(&format!(" ({})", of.scope));
        }
        for condition in &of.conditions {
            line.push_str(&format!(
                "  {}={}/{}",
                condition.r#type,
                status(condition.status),
                condition.reason
            ));
        }
        out.push_str(&line);
        out.push('\n');
        for condition in of.conditions.iter().filter(|condition| has_news(condition)) {
            for part in condition.message.lines() {
                // Writing to a string does not fail.
                let _never = writeln!(out, "       {part}").is_err();
            }
        }
    }
    if !skipped.is_empty() {
        out.push_str(&format!("note: objects of other kinds were skipped: {}\n", skipped.join(", ")));
    }
    out
}

/// Whether a condition says something to do: it is not as it should be, or it is accepted with a warning.
fn has_news(condition: &Condition) -> bool {
    let healthy =
        if condition.r#type == "Conflicted" { ConditionStatus::False } else { ConditionStatus::True };
    !condition.message.is_empty() && (condition.status != healthy || condition.message.contains("warning"))
}
