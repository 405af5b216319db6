//! `check`
use std::{io::Write as _, process::ExitCode};

use command_line::{ManifestError, status_text, status_word};
use serde_json::json;
use xds_translate::{LoadError, ObjectStatus, resolve};

use crate::cli::{CheckArgs, Output};

pub(super) fn check(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let manifests = match command_line::load(&args.paths) {
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

fn object(of: &ObjectStatus) -> serde_json::Value {
    let conditions: Vec<_> = of
        .conditions
        .iter()
        .map(|condition| {
            json!({
                "type": condition.r#type,
                "status": status_word(condition.status),
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

fn text(statuses: &[ObjectStatus], skipped: &[String]) -> String {
    let mut out: String = statuses.iter().map(status_text).collect();
    if !skipped.is_empty() {
        out.push_str(&format!("note: objects of other kinds were skipped: {}\n", skipped.join(", ")));
    }
    out
}
