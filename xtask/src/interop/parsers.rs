//! What `mcp-jsonrpc` admits reads the same in `JSON.parse`, `json.loads` and `encoding/json` as it does for us: a server
//! cannot be told something that the gateway did not decide on.
use std::{
    collections::BTreeSet,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use mcp_jsonrpc::{Body, Limits, Message, Target, parse};
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::{Config, RngAlgorithm, TestRunner},
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use super::{Run, process::succeed, report::Report};
use crate::{
    cluster::binaries::{go, go_version},
    command::root,
};

/// The bodies of the property tests of `mcp-jsonrpc`.
#[path = "../../../mcp-jsonrpc/tests/properties/near_misses.rs"]
mod near_misses;

const BUILD: Duration = Duration::from_secs(180);
const READ: Duration = Duration::from_secs(18 * 60);

/// Bodies that are sent before answers are waited for.
const BATCH: usize = 500;

/// The fields of a message, in the order of the readers in `xtask/peers/parsers` (`read.py` has the form).
const FIELDS: [&str; 13] = [
    "method",
    "id",
    "name",
    "uri",
    "taskId",
    "ref.type",
    "ref.name",
    "ref.uri",
    "resourceSubscriptions",
    "taskIds",
    "arguments",
    "protocolVersion",
    "params",
];

pub(super) async fn run(run: &Run, report: &mut Report) -> anyhow::Result<()> {
    report.suite("bodies, as parsers in Node.js, Python and Go read them");
    let folder = run.folder("parsers")?;
    let Some(mut readers) = report.step("the readers start", BUILD, Readers::start(&folder)).await else {
        return Ok(());
    };
    let count = if run.long { 1_000_000 } else { 10_000 };
    let name = format!("of {count} bodies, what is admitted reads the same in all");
    let Some(seen) = report.step(&name, READ, compare(&mut readers, count)).await else { return Ok(()) };
    report.note(&format!(
        "{} admitted; of {} refused, {} are read differently by these parsers",
        seen.admitted,
        count - seen.admitted,
        seen.ambiguous
    ));
    Ok(())
}

/// How the bodies fared.
#[derive(Debug, Default)]
struct Seen {
    admitted: usize,
    /// Refused, and with reason: the readers differ.
    ambiguous: usize,
}

async fn compare(readers: &mut Readers, count: usize) -> anyhow::Result<Seen> {
    // Fast enough for a million in a build for development.
    let config = Config { rng_algorithm: RngAlgorithm::XorShift, ..Config::default() };
    let (bodies, mut runner) = (near_misses::body(), TestRunner::new(config));
    let mut seen = Seen::default();
    let mut left = count;
    while left > 0 {
        let trees = (0..BATCH.min(left))
            .map(|_| bodies.new_tree(&mut runner).map_err(anyhow::Error::msg))
            .collect::<anyhow::Result<Vec<_>>>()?;
        left -= trees.len();
        let batch: Vec<Vec<u8>> = trees.iter().map(ValueTree::current).collect();
        let readings = readers.read(&batch).await?;
        for ((body, reading), tree) in batch.iter().zip(&readings).zip(trees) {
            match verdict(body, reading) {
                Ok(Some(())) => seen.admitted += 1,
                Ok(None) => seen.ambiguous += usize::from(differ(reading)),
                Err(_) => bail!("{}", shrunk(readers, tree).await?),
            }
        }
    }
    ensure!(seen.admitted * 10 > count * 3, "only {} of {count} were admitted", seen.admitted);
    // Readers that agree on everything would show nothing.
    ensure!(seen.ambiguous * 100 > count, "only {} that are read differently", seen.ambiguous);
    Ok(seen)
}

/// What one reader prints for a body.
type Reading = (&'static str, String);

fn differ(readings: &[Reading]) -> bool {
    readings.iter().map(|(_, reading)| reading).collect::<BTreeSet<_>>().len() > 1
}

/// `None` if we refuse the body.
///
/// # Errors
/// If we admit it, and a reader reads something else than we or another one.
fn verdict(body: &[u8], readings: &[Reading]) -> anyhow::Result<Option<()>> {
    let Ok(ours) = parse(body, &Limits::default()) else { return Ok(None) };
    let expected = ours.messages().iter().map(expected).collect::<anyhow::Result<Vec<_>>>()?;
    for (reader, reading) in readings {
        let messages: Vec<&str> = match (&ours, reading.strip_prefix("[ ")) {
            (Body::One(_), None) => vec![reading],
            (Body::Batch(_), Some(messages)) => messages.split(' ').collect(),
            _ => bail!("{reader} takes one for many, or many for one"),
        };
        ensure!(messages.len() == expected.len(), "{reader} reads {} messages", messages.len());
        for (message, expected) in messages.iter().zip(&expected) {
            let fields: Vec<&str> = message.split(';').collect();
            ensure!(fields.len() == FIELDS.len(), "{reader} cannot read it");
            for (field, ours) in expected {
                let theirs =
                    FIELDS.iter().zip(&fields).find(|(name, _)| *name == field).map(|(_, theirs)| *theirs);
                ensure!(theirs == Some(ours), "{reader} reads `{field}` as {theirs:?}, we as {ours}");
            }
        }
    }
    ensure!(!differ(readings), "the readers differ");
    Ok(Some(()))
}

/// The fields that we say something about.
fn expected(message: &Message<'_>) -> anyhow::Result<Vec<(&'static str, String)>> {
    let text = |text: &str| canonical(&Value::from(text));
    let token = |token: Option<&str>| -> anyhow::Result<String> {
        Ok(token.map(serde_json::from_str::<Value>).transpose()?.as_ref().map_or_else(absent, canonical))
    };
    let list = |texts: &[std::borrow::Cow<'_, str>]| canonical(&texts.iter().map(|text| &**text).collect());
    let is_response = message.method().is_empty();
    let mut fields = vec![
        ("method", if is_response { absent() } else { text(message.method()) }),
        ("id", token(message.id().map(mcp_jsonrpc::Id::token))?),
        ("params", token(message.params())?),
        ("arguments", token(message.arguments())?),
        ("protocolVersion", message.meta_protocol_version().map_or_else(absent, text)),
    ];
    match message.target() {
        Target::Name(name) => fields.push(("name", text(name))),
        Target::Uri(uri) => fields.push(("uri", text(uri))),
        Target::TaskId(id) => fields.push(("taskId", text(id))),
        Target::RefPrompt(name) => {
            fields.extend([("ref.type", text("ref/prompt")), ("ref.name", text(name))])
        }
        Target::RefResource(uri) => {
            fields.extend([("ref.type", text("ref/resource")), ("ref.uri", text(uri))])
        }
        Target::Subscriptions { resources, tasks } => {
            // An empty list may be an absent one; `params` as a whole tells.
            let lists = [("resourceSubscriptions", resources), ("taskIds", tasks)];
            fields.extend(
                lists.into_iter().filter(|(_, all)| !all.is_empty()).map(|(name, all)| (name, list(all))),
            );
        }
        _ => {}
    }
    Ok(fields)
}

fn absent() -> String {
    "-".to_owned()
}

/// The form in which readers print values: numbers as doubles, members in order.
fn canonical(value: &Value) -> String {
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    match value {
        Value::Null => "n".to_owned(),
        Value::Bool(true) => "t".to_owned(),
        Value::Bool(false) => "f".to_owned(),
        // The sum is never -0.
        Value::Number(number) => format!("#{:016x}", (number.as_f64().unwrap_or(f64::NAN) + 0.0).to_bits()),
        Value::String(text) => format!("\"{}", hex(text)),
        Value::Array(values) => format!("[{}]", values.iter().map(canonical).collect::<Vec<_>>().join(",")),
        Value::Object(members) => {
            let mut members: Vec<String> =
                members.iter().map(|(key, value)| format!("{}:{}", hex(key), canonical(value))).collect();
            members.sort();
            format!("{{{}}}", members.join(","))
        }
    }
}

/// The smallest body that is still read differently, and how.
async fn shrunk(readers: &mut Readers, mut tree: impl ValueTree<Value = Vec<u8>>) -> anyhow::Result<String> {
    let mut smallest = String::new();
    let until = Instant::now() + Duration::from_secs(60);
    let mut body = tree.current();
    loop {
        let readings = readers.read(std::slice::from_ref(&body)).await?.pop().context("no reading")?;
        let more = if let Err(error) = verdict(&body, &readings) {
            let readings: String =
                readings.iter().map(|(reader, reading)| format!("\n    {reader:<12} {reading}")).collect();
            smallest = format!("{error}: b\"{}\"{readings}", body.escape_ascii());
            tree.simplify()
        } else {
            tree.complicate()
        };
        if !more || Instant::now() > until {
            return Ok(smallest);
        }
        body = tree.current();
    }
}

/// One process for each language.
#[derive(Debug)]
struct Readers(Vec<Reader>);

impl Readers {
    async fn start(folder: &Path) -> anyhow::Result<Self> {
        let sources = root().join("xtask/peers/parsers");
        go_version(&sources)?;
        let program = folder.join("read");
        let mut build = Command::from(go(&sources));
        build.args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-o"]).arg(&program).arg(".");
        succeed("go build", &mut build, BUILD).await?;
        let script = |interpreter: &str, file: &str| {
            let mut command = Command::new(interpreter);
            command.arg(sources.join(file));
            command
        };
        Ok(Self(vec![
            Reader::start(&["Node.js"], &mut script("node", "read.mjs"))?,
            Reader::start(&["Python"], &mut script("python3", "read.py"))?,
            Reader::start(&["Go (structs)", "Go (maps)"], &mut Command::new(program))?,
        ]))
    }

    /// What each reads in each body.
    async fn read(&mut self, bodies: &[Vec<u8>]) -> anyhow::Result<Vec<Vec<Reading>>> {
        let lines: String = bodies.iter().map(|body| BASE64_STANDARD.encode(body) + "\n").collect();
        let answers = self.0.iter_mut().map(|reader| reader.read(&lines, bodies.len()));
        let mut readings = vec![Vec::new(); bodies.len()];
        for answers in futures_util::future::try_join_all(answers).await? {
            for (readings, answer) in readings.iter_mut().zip(answers) {
                readings.extend(answer);
            }
        }
        Ok(readings)
    }
}

#[derive(Debug)]
struct Reader {
    /// How it reads, one name for each reading of a line.
    names: &'static [&'static str],
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    /// Killed when this is dropped.
    _process: Child,
}

impl Reader {
    fn start(names: &'static [&'static str], command: &mut Command) -> anyhow::Result<Self> {
        let name = names.first().copied().unwrap_or_default();
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("the reader in {name} cannot be started"))?;
        let input = process.stdin.take().context("no pipe")?;
        let output = BufReader::new(process.stdout.take().context("no pipe")?).lines();
        Ok(Self { names, input, output, _process: process })
    }

    async fn read(&mut self, lines: &str, count: usize) -> anyhow::Result<Vec<Vec<Reading>>> {
        let Self { names, input, output, .. } = self;
        let write = async { anyhow::Ok(input.write_all(lines.as_bytes()).await?) };
        let read = async {
            let mut readings = Vec::with_capacity(count);
            for _ in 0..count {
                let line =
                    output.next_line().await?.with_context(|| format!("{} ended", names.join(", ")))?;
                let line: Vec<Reading> =
                    names.iter().copied().zip(line.split('\t').map(str::to_owned)).collect();
                ensure!(line.len() == names.len(), "{} readings of {}", line.len(), names.join(", "));
                readings.push(line);
            }
            Ok(readings)
        };
        let ((), readings) = tokio::try_join!(write, read)?;
        Ok(readings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: &[u8] = br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    const READ: &str = "\"70696e67;#3ff0000000000000;-;-;-;-;-;-;-;-;-;-;-";

    #[track_caller]
    fn check(body: &[u8], readings: [&str; 2], expected: Result<Option<()>, &str>) {
        let readings = readings.map(|reading| ("a reader", reading.to_owned()));
        assert_eq!(
            verdict(body, &readings).map_err(|error| error.to_string()),
            expected.map_err(str::to_owned)
        );
    }

    #[test]
    fn differences_are_seen() {
        check(CALL, [READ, READ], Ok(Some(())));
        check(b"{}", [READ, "!"], Ok(None));
        check(CALL, [READ, "!"], Err("a reader cannot read it"));
        check(CALL, [READ, &format!("[ {READ}")], Err("a reader takes one for many, or many for one"));
        let other = READ.replace("70696e67", "70696e66");
        check(
            CALL,
            [READ, &other],
            Err("a reader reads `method` as Some(\"\\\"70696e66\"), we as \"70696e67"),
        );
        let more = READ.replace(";-;-;-", ";-;n;-");
        check(CALL, [READ, &more], Err("the readers differ"));
        let batch = [b"[", CALL, b"]"].concat();
        check(&batch, [&format!("[ {READ}"), &format!("[ {READ} {READ}")], Err("a reader reads 2 messages"));
    }

    #[test]
    fn values_have_one_form() {
        let value: Value =
            serde_json::from_str(r#"{"b":[-0,-0.0,1e2,true,null],"":{"é":"\u0041"}}"#).unwrap();
        assert_eq!(
            canonical(&value),
            r#"{62:[#0000000000000000,#0000000000000000,#4059000000000000,t,n],:{c3a9:"41}}"#
        );
    }
}
