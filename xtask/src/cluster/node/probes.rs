//! Probes and hooks: what is asked of a container, and what the answers mean.
use std::{net::Ipv4Addr, process::Stdio, sync::OnceLock, time::Duration};

use k8s_openapi::{
    api::core::v1::{Container, ExecAction, HTTPGetAction, Probe, TCPSocketAction},
    apimachinery::pkg::util::intstr::IntOrString,
};
use tokio::{net::TcpStream, time::Instant};

use super::sandbox::Sandbox;

/// Until a probe succeeds for the first time it is also tried this often between its periods. Only a success of these counts,
/// so that nothing fails earlier than a kubelet would let it; tests need not wait ten seconds for a server that is up after one.
const EAGER: Duration = Duration::from_millis(200);

/// A running container, as probes see it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) container: &'a Container,
    pub(super) sandbox: &'a Sandbox,
    pub(super) pid: u32,
    pub(super) started: Instant,
}

/// What the probes of a container say so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Health {
    /// The startup probe has passed, or there is none.
    pub(super) started: bool,
    /// And the readiness probe passes, or there is none.
    pub(super) ready: bool,
}

/// Probes the container until it is to be killed; the reason. `report` hears each change.
pub(super) async fn watch(subject: Subject<'_>, mut report: impl FnMut(Health)) -> String {
    let Container { startup_probe, readiness_probe, liveness_probe, .. } = subject.container;
    let mut health = Health { started: startup_probe.is_none(), ready: false };
    report(health);
    if let Some(probe) = startup_probe {
        let mut failed = None;
        repeat(subject, probe, |verdict| {
            if let Verdict::Failed(why) = verdict {
                failed = Some(why);
            }
            true
        })
        .await;
        if let Some(why) = failed {
            return format!("Startup probe failed: {why}");
        }
        health.started = true;
        report(health);
    }
    let readiness = async {
        let Some(probe) = readiness_probe else {
            report(Health { ready: true, ..health });
            return std::future::pending().await;
        };
        repeat(subject, probe, |verdict| {
            report(Health { ready: verdict == Verdict::Passed, ..health });
            false
        })
        .await;
    };
    let liveness = async {
        let Some(probe) = liveness_probe else { return std::future::pending().await };
        let mut why = String::new();
        repeat(subject, probe, |verdict| {
            let Verdict::Failed(reason) = verdict else { return false };
            why = format!("Liveness probe failed: {reason}");
            true
        })
        .await;
        why
    };
    tokio::select! {
        why = liveness => why,
        () = readiness => "its readiness is not known any more".to_owned(),
    }
}

/// Probes again and again until `verdict` says that it is enough.
async fn repeat(subject: Subject<'_>, probe: &Probe, mut verdict: impl FnMut(Verdict) -> bool) {
    let seconds = |value: Option<i32>, default: u64| {
        Duration::from_secs(value.and_then(|value| u64::try_from(value).ok()).unwrap_or(default))
    };
    let period = seconds(probe.period_seconds, 10).max(Duration::from_secs(1));
    let timeout = seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1));
    let mut tally = Tally::new(probe);
    let mut due = subject.started + seconds(probe.initial_delay_seconds, 0);
    tokio::time::sleep_until(due).await;
    let mut passed_once = false;
    loop {
        let attempt = tokio::time::timeout(timeout, act(subject, Action::of(probe)));
        let result = match attempt.await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {} s", timeout.as_secs())),
        };
        let in_turn = Instant::now() >= due;
        if in_turn {
            due = Instant::now() + period;
        }
        if (in_turn || result.is_ok())
            && let Some(change) = tally.count(result)
        {
            passed_once |= change == Verdict::Passed;
            if verdict(change) {
                return;
            }
        }
        let next = if passed_once { due } else { due.min(Instant::now() + EAGER) };
        tokio::time::sleep_until(next).await;
    }
}

/// A change that results add up to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed(String),
}

/// Counts results in a row: as many successes as `successThreshold` pass, as many failures as `failureThreshold` fail.
#[derive(Debug)]
struct Tally {
    to_pass: u32,
    to_fail: u32,
    successes: u32,
    failures: u32,
    /// What was said last.
    passed: Option<bool>,
}

impl Tally {
    fn new(probe: &Probe) -> Self {
        let at_least_one = |value: Option<i32>, default| {
            value.and_then(|value| u32::try_from(value).ok()).unwrap_or(default).max(1)
        };
        Self {
            to_pass: at_least_one(probe.success_threshold, 1),
            to_fail: at_least_one(probe.failure_threshold, 3),
            successes: 0,
            failures: 0,
            passed: None,
        }
    }

    /// A verdict if it is another than before.
    fn count(&mut self, result: Result<(), String>) -> Option<Verdict> {
        match result {
            Ok(()) => {
                self.successes += 1;
                self.failures = 0;
                (self.successes >= self.to_pass && self.passed.replace(true) != Some(true))
                    .then_some(Verdict::Passed)
            }
            Err(why) => {
                self.failures += 1;
                self.successes = 0;
                (self.failures >= self.to_fail && self.passed.replace(false) != Some(false))
                    .then_some(Verdict::Failed(why))
            }
        }
    }
}

/// What a probe or a hook does.
#[derive(Debug, Clone, Copy)]
pub(super) enum Action<'a> {
    Http(&'a HTTPGetAction),
    Tcp(&'a TCPSocketAction),
    Exec(&'a ExecAction),
    Unknown,
}

impl<'a> Action<'a> {
    fn of(probe: &'a Probe) -> Self {
        if let Some(http) = &probe.http_get {
            Self::Http(http)
        } else if let Some(tcp) = &probe.tcp_socket {
            Self::Tcp(tcp)
        } else if let Some(exec) = &probe.exec {
            Self::Exec(exec)
        } else {
            Self::Unknown
        }
    }
}

/// Does it once; an error says what was wrong. From the node, as a kubelet does, but for `exec`.
pub(super) async fn act(subject: Subject<'_>, action: Action<'_>) -> Result<(), String> {
    let address = subject.sandbox.network.address;
    match action {
        Action::Http(get) => {
            let port = port(&get.port, subject.container)?;
            http_get(get, address, port).await
        }
        Action::Tcp(socket) => {
            let port = port(&socket.port, subject.container)?;
            let host = socket.host.clone().unwrap_or_else(|| address.to_string());
            let stream = TcpStream::connect((host, port)).await;
            stream.map(drop).map_err(|error| format!("port {port}: {error}"))
        }
        Action::Exec(exec) => {
            let words = exec.command.clone().unwrap_or_default();
            let mut command = subject.sandbox.exec(subject.pid, &words);
            let output = command
                .stdin(Stdio::null())
                .kill_on_drop(true)
                .output()
                .await
                .map_err(|error| format!("cannot be run: {error}"))?;
            if output.status.success() {
                return Ok(());
            }
            let said = [output.stdout, output.stderr].concat();
            Err(format!("{}: {}", output.status, String::from_utf8_lossy(&said).trim()))
        }
        Action::Unknown => Err("this node knows `httpGet`, `tcpSocket` and `exec` probes only".to_owned()),
    }
}

/// A number, or the name of one of the container's ports.
fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            let named = ports.find(|port| port.name.as_ref() == Some(name));
            named.map(|port| port.container_port).or_else(|| name.parse().ok())
        }
    };
    number.and_then(|number| u16::try_from(number).ok()).ok_or_else(|| format!("no port `{port:?}`"))
}

/// One for all probes; every probe is a connection of its own.
fn client() -> reqwest::Result<&'static reqwest::Client> {
    static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
    if let Some(client) = CLIENT.get() {
        return Ok(client);
    }
    let client = reqwest::Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(0)
        .tls_danger_accept_invalid_certs(true)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent("kube-probe/1.36")
        .build()?;
    Ok(CLIENT.get_or_init(|| client))
}

/// 200 to 399 is success; certificates are not verified.
async fn http_get(get: &HTTPGetAction, address: Ipv4Addr, port: u16) -> Result<(), String> {
    let scheme = get.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
    let host = get.host.clone().unwrap_or_else(|| address.to_string());
    let path = get.path.as_deref().unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    let mut request =
        client().map_err(|error| error.to_string())?.get(format!("{scheme}://{host}:{port}{slash}{path}"));
    for header in get.http_headers.iter().flatten() {
        request = request.header(&header.name, &header.value);
    }
    let response = request.send().await.map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        format!("{}: {cause}", error.without_url())
    })?;
    let status = response.status().as_u16();
    if (200..400).contains(&status) { Ok(()) } else { Err(format!("status {status}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_tally(thresholds: (i32, i32), results: &str, expected: &str) {
        let probe = Probe {
            success_threshold: Some(thresholds.0),
            failure_threshold: Some(thresholds.1),
            ..Probe::default()
        };
        let mut tally = Tally::new(&probe);
        let verdicts: String = results
            .chars()
            .map(|result| match tally.count(if result == '+' { Ok(()) } else { Err("no".into()) }) {
                None => '.',
                Some(Verdict::Passed) => 'P',
                Some(Verdict::Failed(_)) => 'F',
            })
            .collect();
        assert_eq!(verdicts, expected, "{results}");
    }

    #[test]
    fn tallies() {
        check_tally((1, 3), "+++", "P..");
        check_tally((1, 3), "--+---+", "..P..FP");
        check_tally((1, 3), "+--+--+---", "P........F");
        check_tally((2, 1), "+-++-", ".F.PF");
        check_tally((1, 1), "----", "F...");
        // Kubernetes' defaults are 1 and 3.
        let mut tally = Tally::new(&Probe::default());
        let fail = || Err("no".to_owned());
        assert_eq!([tally.count(fail()), tally.count(fail())], [None, None]);
        assert_eq!(tally.count(fail()), Some(Verdict::Failed("no".into())));
        assert_eq!(tally.count(Ok(())), Some(Verdict::Passed));
    }

    #[track_caller]
    fn check_port(wanted: IntOrString, expected: Option<u16>) {
        let container = serde_json::json!({"name": "c", "ports": [{"name": "http", "containerPort": 8080}]});
        assert_eq!(port(&wanted, &serde_json::from_value(container).unwrap()).ok(), expected);
    }

    #[test]
    fn ports() {
        check_port(IntOrString::Int(80), Some(80));
        check_port(IntOrString::Int(65536), None);
        check_port(IntOrString::String("http".into()), Some(8080));
        check_port(IntOrString::String("15020".into()), Some(15020));
        check_port(IntOrString::String("https".into()), None);
    }
}
