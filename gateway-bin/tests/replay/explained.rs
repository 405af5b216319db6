//! Every decision case through the command `agentic-gateway explain`.
use std::{fs, path::Path, process::Command, sync::Mutex, thread};

use serde_json::Value;

use crate::case::{self, Case, CaseFile, Expect, Failures};

fn explain(folder: &Path, file: &CaseFile, case: &Case) -> Result<Value, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_agentic-gateway"));
    command
        .env_clear()
        .arg("explain")
        .arg(case::folder().join("base.yaml"))
        .arg(folder.join("manifests.yaml"));
    command.args(["--gateway", "quickstart-ns/agentic-net-gateway", "-o", "json"]).args(&file.flags);
    command.args(["--method", case.method(), "--path", case.path()]);
    if let Some(listener) = &case.listener {
        command.args(["--listener", listener]);
    }
    if let Some(identity) = case.identity() {
        command.args(["--identity", &identity]);
    }
    if let Some(host) = &case.host {
        command.args(["--host", host]);
    }
    for (name, value) in case.headers() {
        command.args(["--header", &format!("{name}: {value}")]);
    }
    if let Some(body) = &case.body {
        let path = folder.join("body");
        fs::write(&path, body).unwrap();
        command.arg("--body").arg(format!("@{}", path.display()));
    }
    let output = command.output().unwrap();
    if !output.status.success() {
        return Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
}

fn fault(case: &Case, explained: &Value) -> Option<String> {
    let expected = match case.expect {
        Expect::Allow => "allow",
        Expect::Deny => "deny",
        Expect::Delegate => "delegate",
        Expect::Reject => "reject",
    };
    if explained["decision"] != expected {
        return Some(format!("expected {expected}, got {explained:#}"));
    }
    if case.expect != Expect::Reject {
        return None;
    }
    let status = &explained["status"];
    let client_error = status.as_u64().is_some_and(|status| (400..500).contains(&status));
    if case.status.map_or(!client_error, |expected| *status != u64::from(expected)) {
        return Some(format!("expected {:?}, got {status}", case.status));
    }
    let body: Value =
        serde_json::from_str(explained["body"].as_str().unwrap_or_default()).unwrap_or_default();
    let code = &body["error"]["code"];
    case.code.filter(|expected| code != expected).map(|expected| format!("expected {expected}, got {code}"))
}

fn explain_all(files: &[&CaseFile], failures: &Mutex<Failures>) {
    let folder = tempfile::tempdir().unwrap();
    for file in files {
        fs::write(folder.path().join("manifests.yaml"), &file.manifests).unwrap();
        for case in &file.cases {
            let fault = match explain(folder.path(), file, case) {
                Ok(explained) => fault(case, &explained),
                Err(error) => Some(error),
            };
            if let Some(fault) = fault {
                failures.lock().unwrap().add(file, case, fault);
            }
        }
    }
}

#[test]
fn every_case_is_explained_as_expected() {
    let files = case::load();
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let files = &files;
    let share = move |worker: usize| files.iter().skip(worker).step_by(workers).collect::<Vec<_>>();
    let failures = Mutex::new(Failures::default());
    thread::scope(|scope| {
        for worker in 0..workers {
            let failures = &failures;
            scope.spawn(move || explain_all(&share(worker), failures));
        }
    });
    failures.into_inner().unwrap().assert_none();
}
