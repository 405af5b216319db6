//! Random policies and requests through Envoy: with the engine beside it they come out as the engine decides without an
//! exception; Envoy alone never allows what the engine denies, and what it denies more stands in a row of
//! `docs/envoy-filters.md`.
//!
//! `DIFFERENTIAL_CASES` says how many requests, `DIFFERENTIAL_SEED` which ones, `DIFFERENTIAL_SET` which set of them alone.
mod rows;
mod sets;
mod twists;

use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr,
};

use authz_core::BackendKind;
use generators::Ask;
use policy_model::TargetKind;
use xds_translate::{Options, Scope, resolve};

use self::{
    sets::{CASES, Expected, Set},
    twists::{Twist, Written},
};
use crate::{
    live::{denial_fault, is_refusal},
    real_envoy::{Pair, Program, Source},
    wire::{Reply, exchange, replies},
    world::{CASE_ID, Seen, World},
};

/// Sets that one Envoy has at a time.
const BATCH: usize = 40;

/// One request to one set.
struct Case<'a> {
    set: &'a Set,
    ask: &'a Ask,
    twist: Option<&'static Twist>,
    expected: Expected,
    /// The targets that are closed because Envoy alone cannot be told their policies.
    unsupported: &'a BTreeSet<TargetKind>,
    /// What the authorizers say.
    allowing: bool,
}

/// What became of it.
struct Outcome {
    reply: Result<Reply, String>,
    seen: Vec<Seen>,
    asked: Vec<String>,
}

/// The two ways through Envoy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Engine,
    Filters,
}

/// What was counted, and what went wrong.
#[derive(Default)]
struct Tally {
    /// By what was expected.
    expected: BTreeMap<Expected, usize>,
    /// Requests that the upstreams saw, by way.
    forwarded: [usize; 2],
    /// By the row that explains why Envoy alone denied.
    rows: BTreeMap<&'static str, usize>,
    /// By the twist.
    twisted: BTreeMap<&'static str, usize>,
    faults: Vec<String>,
}

fn given<T: FromStr>(variable: &str) -> Option<T> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is no number: `{text}`")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_at_random() {
    let cases: usize = given("DIFFERENTIAL_CASES").unwrap_or(400);
    let seed: u64 = given("DIFFERENTIAL_SEED").unwrap_or(1);
    let numbers: Vec<usize> = match given("DIFFERENTIAL_SET") {
        Some(only) => vec![only],
        None => (0..cases.div_ceil(CASES)).collect(),
    };
    println!("DIFFERENTIAL_SEED={seed}, {} sets of policies with {CASES} requests each", numbers.len());
    let world = World::start().await;
    let mut tally = Tally::default();
    for numbers in numbers.chunks(BATCH) {
        let places = numbers.iter().zip(0..);
        let sets: Vec<Set> = places.map(|(number, place)| Set::at_random(seed, *number, place)).collect();
        batch(&world, &sets, &mut tally).await;
    }
    println!("{tally:#}");
    // More than a few are one.
    let shown: Vec<&str> = tally.faults.iter().take(12).map(String::as_str).collect();
    assert!(shown.is_empty(), "{} failed, of seed {seed}:\n{}", tally.faults.len(), shown.join("\n\n"));
    tally.assert_told();
    if numbers.len() > 1 {
        tally.assert_meaningful();
    }
}

async fn batch(world: &World, sets: &[Set], tally: &mut Tally) {
    let objects = sets.iter().flat_map(Set::objects);
    let manifests: String = objects.map(|object| format!("---\n{object}\n")).collect();
    let name = sets[0].gateway().namespace;
    let resolution = resolve(&world.objects(&manifests), &Options::default());
    let gateways: Vec<_> = sets.iter().map(|set| &resolution.gateways[&set.gateway()]).collect();
    let program = Program::of("1.40");
    let start = async |way: &str, source| {
        Pair::of_several(world, &program, &source, &format!("{name}-{way}"), &manifests, &gateways).await
    };
    let (engine, refused) = start("engine", Source::Translated).await;
    assert_eq!(refused, []);
    let (filters, refused) = start("filters", Source::Filters).await;
    for set in sets {
        let mut unsupported = BTreeSet::new();
        for status in refused.iter().filter(|status| status.object.namespace == set.gateway().namespace) {
            let Scope::Ancestor { kind, .. } = &status.scope else { panic!("{status:?}") };
            unsupported.insert(if kind == "Gateway" { TargetKind::Gateway } else { TargetKind::XBackend });
        }
        for (ask, twist, expected) in set.cases(&resolution.engine) {
            *tally.expected.entry(expected).or_default() += 1;
            if let Some(twist) = twist {
                *tally.twisted.entry(twist.name).or_default() += 1;
            }
            let session = world.session(&set.backend(), ask.identity.as_deref());
            let written = Written::of(ask, twist, &session);
            // Where nobody is to be asked, an authorizer says the contrary.
            let said: &[bool] = match expected {
                Expected::Delegated => &[true, false],
                Expected::Allowed => &[false],
                Expected::Refused | Expected::Denied | Expected::Unanswerable => &[true],
            };
            for &allowing in said {
                let case = Case { set, ask, twist, expected, unsupported: &unsupported, allowing };
                for (way, pair) in [(Way::Engine, &engine), (Way::Filters, &filters)] {
                    let id = format!("{name}-{way:?}-{}", tally.expected.values().sum::<usize>());
                    let outcome = send(world, pair, &case, &written, &id).await;
                    tally.judge(&case, &written, way, &id, &outcome);
                }
            }
        }
    }
    engine.stop().await;
    filters.stop().await;
    // Nothing came late.
    let late = world.memory.take_seen();
    if !late.is_empty() {
        tally.faults.push(format!("seen after the batch {name}: {late:?}"));
    }
}

async fn send(world: &World, pair: &Pair, case: &Case<'_>, written: &Written, id: &str) -> Outcome {
    world.memory.authorizers_allow(case.allowing);
    let bytes = written.bytes((CASE_ID, id));
    let reply = async {
        let address = pair.address(case.ask.port);
        let wire = world.wire(address, case.ask.identity.as_deref(), "localhost").await;
        let mut wire = wire.map_err(|error| format!("no connection: {error}"))?;
        let received = exchange(&mut *wire, &bytes).await.map_err(|error| error.to_string())?;
        match replies(&received, false)?.as_slice() {
            [reply] => Ok(reply.clone()),
            replies => Err(format!("one response is to come, not {replies:?}")),
        }
    };
    Outcome { reply: reply.await, seen: world.memory.take_seen(), asked: world.memory.take_asked() }
}

impl Tally {
    fn judge(&mut self, case: &Case<'_>, written: &Written, way: Way, id: &str, outcome: &Outcome) {
        let mut faults = Vec::new();
        if !outcome.seen.is_empty() {
            self.forwarded[way as usize] += 1;
        }
        match (way, case.expected.is_forwarded(case.allowing), !outcome.seen.is_empty()) {
            (_, false, true) => faults.push("LET THROUGH".to_owned()),
            (_, true, true) => faults.extend(forwarded_fault(case, written, id, outcome)),
            (Way::Engine, true, false) => faults.push("denied".to_owned()),
            (Way::Engine, false, false) => faults.extend(denied_fault(case, written, outcome)),
            (Way::Filters, is_expected, false) => {
                if !outcome.reply.as_ref().is_ok_and(is_refusal) {
                    faults.push("no refusal".to_owned());
                }
                match rows::explaining(case) {
                    _ if !is_expected => {}
                    Some(row) => *self.rows.entry(row).or_default() += 1,
                    None => faults.push("denied, and no row says why".to_owned()),
                }
            }
        }
        // Envoy alone may ask where it cannot tell; it never sends on what is delegated without asking.
        let is_asked = !outcome.asked.is_empty();
        let is_delegated = case.expected == Expected::Delegated;
        if outcome.asked.iter().any(|asked| asked != id)
            // Of two, one may be able to judge.
            || (way == Way::Engine && is_asked != is_delegated && case.expected != Expected::Unanswerable)
            || (is_delegated && !outcome.seen.is_empty() && !is_asked)
        {
            faults.push(format!("the authorizers were asked about {:?}", outcome.asked));
        }
        if !faults.is_empty() {
            let what = faults.join("; ");
            self.faults.push(format!("{way:?}: {what}\n{outcome}\n{case}\n{}", case.set.yaml()));
        }
    }

    /// Every row that was needed stands in the documentation.
    fn assert_told(&self) {
        let path = format!("{}/../docs/envoy-filters.md", env!("CARGO_MANIFEST_DIR"));
        let page = std::fs::read_to_string(path).unwrap();
        let (_, table) = page.split_once("## What is denied although").unwrap();
        for row in &rows::ROWS {
            let is_there =
                table.lines().any(|line| line.replace('`', "").starts_with(&format!("| {} |", row.name)));
            assert!(is_there, "docs/envoy-filters.md has no row `{}`", row.name);
        }
    }

    /// Enough of everything occurred.
    fn assert_meaningful(&self) {
        let all: usize = self.expected.values().sum();
        for (expected, percent) in [
            (Expected::Refused, 5),
            (Expected::Denied, 15),
            (Expected::Delegated, 3),
            (Expected::Allowed, 15),
        ] {
            let count = self.expected.get(&expected).copied().unwrap_or_default();
            assert!(count * 100 >= percent * all, "{count} of {all} were {expected:?}: {self:#}");
        }
        let [by_engine, by_filters] = self.forwarded;
        assert!(by_filters * 2 > by_engine, "Envoy alone denies nearly everything: {self:#}");
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "expected: {:?}", self.expected)?;
        writeln!(f, "arrived with the engine, and with Envoy alone: {:?}", self.forwarded)?;
        writeln!(f, "Envoy alone denied more: {:#?}", self.rows)?;
        write!(f, "written oddly: {:?}", self.twisted)
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.reply {
            Ok(reply) => writeln!(f, "reply {}: {}", reply.status, reply.text().trim_end())?,
            Err(error) => writeln!(f, "no reply: {error}")?,
        }
        write!(f, "asked {:?}, seen {:?}", self.asked, self.seen)
    }
}

impl std::fmt::Display for Case<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let twist = self.twist.map(|twist| twist.name);
        writeln!(f, "expected {:?}, twist {twist:?}, authorizers allow: {}", self.expected, self.allowing)?;
        write!(f, "{:?}", self.ask)
    }
}

/// The server that it was for saw it once, as it was sent, and its answer came back.
fn forwarded_fault(case: &Case<'_>, written: &Written, id: &str, outcome: &Outcome) -> Option<String> {
    let (server, path) = match case.ask.backend {
        BackendKind::Service => ("mcp-two-svc", None),
        BackendKind::XBackendMcp => ("mcp-everything-svc", Some("/mcp")),
        BackendKind::XBackendWellKnown => {
            ("mcp-everything-svc", Some("/.well-known/oauth-protected-resource"))
        }
    };
    let query = written.target.find('?').map_or("", |at| &written.target[at..]);
    let path = path.map_or_else(|| written.target.clone(), |path| format!("{path}{query}"));
    let [seen] = outcome.seen.as_slice() else { return Some("sent more than once".to_owned()) };
    let is_whole = seen.upstream == server
        && seen.id() == id
        && seen.method == written.method
        && seen.path == path
        && seen.body == written.body.as_deref().unwrap_or_default()
        && seen.header("x-forwarded-client-cert").is_none()
        && seen.header("x-http-method-override").is_none();
    let is_answered = outcome
        .reply
        .as_ref()
        .is_ok_and(|reply| reply.status == 200 && reply.header("x-upstream") == Some(server));
    (!is_whole || !is_answered).then(|| format!("not as it was sent to {server} at {path}"))
}

/// What the client is told where the engine decides.
fn denied_fault(case: &Case<'_>, written: &Written, outcome: &Outcome) -> Option<String> {
    let reply = match &outcome.reply {
        Ok(reply) => reply,
        Err(error) => return Some(error.clone()),
    };
    if case.expected == Expected::Refused {
        return (!(400..500).contains(&reply.status)).then(|| "not refused with 4xx".to_owned());
    }
    let content_type = written.lines.iter().find(|(name, _)| name == "content-type");
    let is_json =
        content_type.is_some_and(|(_, value)| value.to_ascii_lowercase().starts_with(b"application/json"));
    let body = written.body.as_deref().and_then(|body| std::str::from_utf8(body).ok());
    // What no policy of a Service looks at is no message to it.
    let may_be_unread = case.ask.backend == BackendKind::Service;
    denial_fault(&written.method, body, is_json, reply)
        .filter(|_| !may_be_unread || denial_fault(&written.method, body, false, reply).is_some())
}
