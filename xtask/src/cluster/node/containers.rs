//! One container: started, probed, started again, stopped.
use std::{
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use k8s_openapi::{
    api::core::v1::{
        Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use tokio::{
    process::{Child, Command},
    sync::watch,
    time::Instant,
};

use super::{
    context::{RETRY, changed_or, now},
    environment::{self, Sources},
    pods::Unit,
    probes::{self, Action, Subject},
    sandbox::{self, Identity, Mount, Sandbox},
    status::waiting,
};

/// Kubelets wait 10 s and up to 5 min; tests wait for this.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// What ran for so long has not crashed at once.
const LONG_ENOUGH: Duration = Duration::from_secs(10);
/// Kubelets never give less between a signal and the kill.
const LEAST_GRACE: Duration = Duration::from_secs(2);

/// What a container is in its Pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Runs to its end before the next starts.
    Init,
    /// An init container with `restartPolicy: Always`.
    Sidecar,
    Main,
}

/// Told to stop, with this time for it.
pub(super) type Stop = watch::Receiver<Option<Duration>>;

/// Runs a container until it has ended for good or is told to stop. Whether it ended well.
pub(super) async fn supervise(unit: Arc<Unit>, container: Container, role: Role, mut stop: Stop) -> bool {
    let policy = match role {
        Role::Sidecar => "Always".to_owned(),
        Role::Init | Role::Main => unit.restart_policy(),
    };
    let mut restarts = 0;
    let mut delay = BACKOFF.0;
    loop {
        let Some((sandbox, log)) = prepared(&unit, &container, restarts, &mut stop).await else {
            return false;
        };
        let started = Instant::now();
        let ended = match run(&unit, &container, &sandbox, &log, &mut stop).await {
            Ok(ended) => ended,
            Err(error) => {
                unit.warn("Failed", format!("container `{}`: {error:#}", container.name)).await;
                Ended {
                    code: 128,
                    signal: None,
                    reason: "StartError".into(),
                    message: Some(format!("{error:#}")),
                }
            }
        };
        unit.forget(&container.name);
        let code = ended.code;
        let well = code == 0;
        let again = stop.borrow().is_none()
            && match policy.as_str() {
                "Never" => false,
                "OnFailure" => !well,
                // Kubelets run an init container to its success, whatever else is to run always.
                _ => role != Role::Init || !well,
            };
        let terminated = ended.state(unit.started_at(&container.name));
        unit.update(&container.name, |status| {
            status.ready = role == Role::Init && well;
            status.started = Some(false);
            status.state = Some(terminated.clone());
        });
        if !again {
            return well;
        }
        restarts += 1;
        delay = if started.elapsed() >= LONG_ENOUGH { BACKOFF.0 } else { delay };
        unit.update(&container.name, |status| {
            let name = &container.name;
            let message = format!("back-off {delay:?} restarting failed container={name}");
            status.last_state = Some(terminated);
            status.state = Some(waiting("CrashLoopBackOff", Some(message)));
        });
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = stopped(&mut stop) => return false,
        }
        delay = (delay * 2).min(BACKOFF.1);
        unit.update(&container.name, |status| status.restart_count = restarts);
    }
}

/// Waits until it is told to stop.
async fn stopped(stop: &mut Stop) {
    // An error: who could tell has gone. That means the same.
    drop(stop.wait_for(Option::is_some).await);
}

/// All that the container needs, and its log; waits, with the reason in the status, until everything is there. None: stopped.
async fn prepared(
    unit: &Unit,
    container: &Container,
    restarts: i32,
    stop: &mut Stop,
) -> Option<(Sandbox, std::fs::File)> {
    let mut changed = unit.context.sources_changed.subscribe();
    let mut said = String::new();
    loop {
        let (reason, message) = match prepare(unit, container, restarts) {
            Ok(prepared) => return Some(prepared),
            Err(Unprepared::Image(message)) => ("ErrImagePull", message),
            Err(Unprepared::Config(error)) => ("CreateContainerConfigError", format!("{error:#}")),
        };
        if message != said {
            unit.warn("Failed", format!("container `{}`: {message}", container.name)).await;
            unit.update(&container.name, |status| {
                status.state = Some(waiting(reason, Some(message.clone())));
            });
            said = message;
        }
        tokio::select! {
            () = changed_or(&mut changed, RETRY) => {}
            () = stopped(stop) => return None,
        }
    }
}

enum Unprepared {
    Image(String),
    Config(anyhow::Error),
}

impl From<anyhow::Error> for Unprepared {
    fn from(error: anyhow::Error) -> Self {
        Self::Config(error)
    }
}

fn prepare(
    unit: &Unit,
    container: &Container,
    restarts: i32,
) -> Result<(Sandbox, std::fs::File), Unprepared> {
    let pod = unit.pod();
    let name = container.image.as_deref().unwrap_or_default();
    let image = unit.context.options.images.get(environment::image_name(name));
    let image = image.ok_or_else(|| {
        Unprepared::Image(format!("image `{name}` is not known to this node: add it to its table of images"))
    })?;
    let spec = pod.spec.as_ref().context("a Pod without a spec")?;
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let (config_map, secret) = (
        |name: &str| unit.context.config_map(&namespace, name),
        |name: &str| unit.context.secret(&namespace, name),
    );
    let sources = Sources {
        pod: &pod,
        pod_address: unit.network.address.to_string(),
        config_map: &config_map,
        secret: &secret,
    };
    let command = environment::command(container, image, &sources)?;
    let environment = environment::environment(container, image, &sources)?;
    let folder = unit.folder.join("containers").join(&container.name);
    let (scratch, logs) = (folder.join("root"), unit.logs().join(&container.name));
    let file = |error: std::io::Error| Unprepared::Config(error.into());
    std::fs::create_dir_all(&scratch).map_err(file)?;
    std::fs::create_dir_all(&logs).map_err(file)?;
    let log = std::fs::File::create(logs.join(format!("{restarts}.log"))).map_err(file)?;
    let working_dir = container.working_dir.as_ref().map(Into::into).or_else(|| image.working_dir.clone());
    let security = container.security_context.as_ref();
    let words = [image.entrypoint.as_slice(), &image.arguments].concat();
    let passable = sandbox::passable(&words, image.working_dir.as_deref());
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").map_err(file)?;
    let sandbox = Sandbox {
        layers: sandbox::layers(&mountinfo, &passable),
        passable,
        network: unit.network.clone(),
        hostname: pod.metadata.name.clone().unwrap_or_default(),
        scratch,
        mounts: mounts(unit, container, &sources)?,
        read_only_root: security.and_then(|security| security.read_only_root_filesystem).unwrap_or(false),
        identity: Identity::of(container, spec)?,
        working_dir: working_dir.unwrap_or_else(|| "/".into()),
        command,
        environment: environment.into_iter().map(|(name, value)| format!("{name}={value}")).collect(),
    };
    Ok((sandbox, log))
}

fn mounts(unit: &Unit, container: &Container, sources: &Sources<'_>) -> anyhow::Result<Vec<Mount>> {
    let volumes = sources.pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    let mut mounts = Vec::new();
    for wanted in container.volume_mounts.iter().flatten() {
        let volume = volumes.iter().find(|volume| volume.name == wanted.name);
        let volume = volume.with_context(|| format!("no volume `{}`", wanted.name))?;
        let mut source = unit.volume(&wanted.name);
        let sub_path = match &wanted.sub_path_expr {
            Some(expression) => Some(environment::expanded(expression, container, sources)?),
            None => wanted.sub_path.clone(),
        };
        if let Some(sub_path) = sub_path.filter(|path| !path.is_empty()) {
            let relative = Path::new(&sub_path);
            if relative.is_absolute() || relative.components().any(|part| part.as_os_str() == "..") {
                bail!("the subPath `{sub_path}` leads out of its volume");
            }
            source = source.join(relative);
            if !source.exists() && volume.empty_dir.is_some() {
                std::fs::create_dir_all(&source)?;
            }
            // A link into the files of today: what is mounted stays as it is, as in Kubernetes.
            source = source.canonicalize().with_context(|| format!("subPath `{sub_path}`"))?;
        }
        let read_only = wanted.read_only == Some(true) || volume.empty_dir.is_none();
        mounts.push(Mount { source, target: wanted.mount_path.clone().into(), read_only });
    }
    Ok(mounts)
}

/// How a container's program ended.
struct Ended {
    code: i32,
    signal: Option<i32>,
    reason: String,
    message: Option<String>,
}

impl Ended {
    fn of(status: ExitStatus, message: Option<String>) -> Self {
        let signal = status.signal();
        let code = status.code().or_else(|| signal.map(|signal| 128 + signal)).unwrap_or(128);
        let reason = if code == 0 { "Completed" } else { "Error" };
        Self { code, signal, reason: reason.to_owned(), message }
    }

    fn state(&self, started_at: Option<Time>) -> ContainerState {
        let terminated = ContainerStateTerminated {
            exit_code: self.code,
            signal: self.signal,
            reason: Some(self.reason.clone()),
            message: self.message.clone(),
            started_at,
            finished_at: Some(Time(now())),
            ..ContainerStateTerminated::default()
        };
        ContainerState { terminated: Some(terminated), ..ContainerState::default() }
    }
}

/// Starts it and stays until it has ended: by itself, because a probe says so, or because it is told to stop.
async fn run(
    unit: &Unit,
    container: &Container,
    sandbox: &Sandbox,
    log: &std::fs::File,
    stop: &mut Stop,
) -> anyhow::Result<Ended> {
    let mut child = sandbox
        .command()
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?)
        .kill_on_drop(true)
        .spawn()
        .context("cannot be started")?;
    let started = Instant::now();
    let Some(pid) = program(&mut child).await? else {
        return Ok(Ended::of(child.wait().await?, None));
    };
    unit.running(&container.name, pid);
    unit.update(&container.name, |status: &mut ContainerStatus| {
        let running = ContainerStateRunning { started_at: Some(Time(now())) };
        status.state = Some(ContainerState { running: Some(running), ..ContainerState::default() });
        status.container_id = Some(format!("process://{pid}"));
        status.image_id = environment::image_name(&status.image).to_owned();
    });
    let subject = Subject { container, sandbox, pid, started };
    let watched = probes::watch(subject, |health| {
        unit.update(&container.name, |status| {
            status.started = Some(health.started);
            status.ready = health.ready;
        });
    });
    let why = tokio::select! {
        status = child.wait() => return Ok(Ended::of(status?, None)),
        why = watched => Some(why),
        () = stopped(stop) => None,
    };
    if let Some(why) = &why {
        let message = format!("container `{}`: {why}", container.name);
        unit.event("Normal", "Killing", message).await;
    }
    let grace = unit.grace();
    let status = end(&mut child, subject, grace, stop).await?;
    Ok(Ended::of(status, why))
}

/// The process id of the container's program, when it runs: the only child of the process that we started, once it is no
/// longer what makes the container. None: that ended first.
async fn program(child: &mut Child) -> anyhow::Result<Option<u32>> {
    let Some(parent) = child.id() else { return Ok(None) };
    let children = format!("/proc/{parent}/task/{parent}/children");
    while child.try_wait()?.is_none() {
        let pids = std::fs::read_to_string(&children).unwrap_or_default();
        if let Some(pid) = pids.split_whitespace().next() {
            let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if !words.is_empty() && !sandbox::is_preparing(&words) {
                return Ok(Some(pid.parse()?));
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(None)
}

/// The `preStop` hook, SIGTERM, and SIGKILL when the time is over. `stop` may shorten the time meanwhile.
async fn end(
    child: &mut Child,
    subject: Subject<'_>,
    grace: Duration,
    stop: &mut Stop,
) -> anyhow::Result<ExitStatus> {
    let begun = Instant::now();
    let mut deadline = begun + stop.borrow_and_update().unwrap_or(grace);
    let hook = subject.container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    let mut polite = std::pin::pin!(async {
        if let Some(hook) = hook {
            let action = hook
                .exec
                .as_ref()
                .map(Action::Exec)
                .or(hook.http_get.as_ref().map(Action::Http))
                .or(hook.tcp_socket.as_ref().map(Action::Tcp));
            if let Some(sleep) = &hook.sleep {
                tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
            } else if let Some(action) = action
                && let Err(error) = probes::act(subject, action).await
            {
                eprintln!("node: container `{}`: preStop: {error}", subject.container.name);
            }
        }
        if handles_term(&std::fs::read_to_string(format!("/proc/{}/status", subject.pid)).unwrap_or_default())
        {
            signal(subject.pid, "TERM").await
        } else {
            signal(subject.pid, "KILL").await
        }
    });
    let mut asked = false;
    loop {
        tokio::select! {
            status = child.wait() => return Ok(status?),
            sent = &mut polite, if !asked => {
                sent?;
                asked = true;
                // A hook that took all the time leaves this much.
                if stop.borrow().is_none_or(|grace| !grace.is_zero()) {
                    deadline = deadline.max(Instant::now() + LEAST_GRACE);
                }
            }
            () = tokio::time::sleep_until(deadline) => {
                signal(subject.pid, "KILL").await?;
                return Ok(child.wait().await?);
            }
            Ok(()) = stop.changed() => {
                if let Some(grace) = *stop.borrow_and_update() {
                    deadline = deadline.min(Instant::now() + grace);
                }
            }
        }
    }
}

/// Whether a process does anything about SIGTERM, by `/proc/PID/status` (proc(5)): it has a handler, or waits for it blocked.
/// The first process of its namespace that does not is never ended by it: it would only take its whole time.
fn handles_term(status: &str) -> bool {
    const SIGTERM: u32 = 15;
    let set = |name: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask >> (SIGTERM - 1) & 1 == 1)
    };
    set("SigCgt:") || set("SigBlk:")
}

/// That the process is gone already is what was wanted.
async fn signal(pid: u32, name: &str) -> anyhow::Result<()> {
    let script = format!("kill -{name} {pid} 2>/dev/null || true");
    let status = Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).status().await?;
    anyhow::ensure!(status.success(), "no signal can be sent");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_term(blocked: &str, caught: &str, expected: bool) {
        let status = format!(
            "Name:\tx\nSigBlk:\t{blocked}\nSigIgn:\t0000000000005000\nSigCgt:\t{caught}\nCapInh:\t0\n"
        );
        assert_eq!(handles_term(&status), expected);
    }

    #[test]
    fn programs_that_handle_sigterm() {
        check_term("0000000000000000", "0000000000000000", false);
        check_term("0000000000000000", "0000000000004002", true);
        check_term("0000000000004000", "0000000000000000", true);
        check_term("0000000000000000", "00000001800bbfff", false);
        assert!(!handles_term(""));
    }

    #[track_caller]
    fn check_end(script: &str, expected: (i32, Option<i32>, &str)) {
        let status = std::process::Command::new("sh").args(["-c", script]).status().unwrap();
        let ended = Ended::of(status, None);
        assert_eq!((ended.code, ended.signal, ended.reason.as_str()), expected, "{script}");
    }

    #[test]
    fn exit_codes() {
        check_end("exit 0", (0, None, "Completed"));
        check_end("exit 3", (3, None, "Error"));
        check_end("kill -9 $$", (137, Some(9), "Error"));
    }
}
