//! A Pod's status from what its containers do, as kubelets write it.
use std::net::Ipv4Addr;

use k8s_openapi::{
    api::core::v1::{
        Container, ContainerState, ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodCondition, PodIP,
        PodStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

use super::NODE_ADDRESS;

/// How far a Pod is.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) init: Vec<ContainerStatus>,
    pub(super) main: Vec<ContainerStatus>,
    /// Its network is there.
    pub(super) address: Option<Ipv4Addr>,
    /// All of it has been stopped, for good.
    pub(super) stopped: bool,
}

impl State {
    /// Nothing has started.
    pub(super) fn new(pod: &Pod) -> Self {
        let spec = pod.spec.as_ref();
        let fresh = |container: &Container, reason: &str| ContainerStatus {
            name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            state: Some(waiting(reason, None)),
            started: Some(false),
            ..ContainerStatus::default()
        };
        let init: Vec<_> = spec.iter().flat_map(|spec| spec.init_containers.iter().flatten()).collect();
        let reason = if init.is_empty() { "ContainerCreating" } else { "PodInitializing" };
        Self {
            init: init.into_iter().map(|container| fresh(container, "PodInitializing")).collect(),
            main: spec
                .iter()
                .flat_map(|spec| spec.containers.iter())
                .map(|container| fresh(container, reason))
                .collect(),
            address: None,
            stopped: false,
        }
    }

    pub(super) fn container(&mut self, name: &str) -> Option<&mut ContainerStatus> {
        self.init.iter_mut().chain(&mut self.main).find(|status| status.name == name)
    }
}

/// A container that waits, and why.
pub(super) fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    let waiting = ContainerStateWaiting { reason: Some(reason.to_owned()), message };
    ContainerState { waiting: Some(waiting), ..ContainerState::default() }
}

fn is_sidecar(pod: &Pod, name: &str) -> bool {
    let mut init = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    init.any(|container| container.name == name && container.restart_policy.as_deref() == Some("Always"))
}

fn exit_code(status: &ContainerStatus) -> Option<i32> {
    Some(status.state.as_ref()?.terminated.as_ref()?.exit_code)
}

/// An init container has done what the next one waits for: it ended well, or, as a sidecar, has started.
fn has_initialized(pod: &Pod, status: &ContainerStatus) -> bool {
    if is_sidecar(pod, &status.name) { status.started == Some(true) } else { exit_code(status) == Some(0) }
}

/// The status to be written. Conditions of `previous` that are as they were keep their time; those that others wrote stay.
pub(super) fn status(pod: &Pod, state: &State, previous: &PodStatus, now: Timestamp) -> PodStatus {
    let unready = |statuses: &[ContainerStatus]| {
        let unready = statuses.iter().filter(|status| !status.ready);
        unready.map(|status| status.name.clone()).collect::<Vec<_>>()
    };
    let uninitialized: Vec<_> = state
        .init
        .iter()
        .filter(|status| !has_initialized(pod, status))
        .map(|status| status.name.clone())
        .collect();
    let phase = phase(pod, state, uninitialized.is_empty());
    let ended = matches!(phase, "Succeeded" | "Failed");
    let sidecars: Vec<_> =
        state.init.iter().filter(|status| is_sidecar(pod, &status.name)).cloned().collect();
    let unready = [unready(&sidecars), unready(&state.main)].concat();
    let gates = pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    let closed: Vec<_> = gates
        .map(|gate| &gate.condition_type)
        .filter(|kind| !conditions(pod).any(|c| c.type_ == **kind && c.status == "True"))
        .cloned()
        .collect();
    let containers_ready = match (ended, unready.is_empty()) {
        (true, _) => Err(("PodCompleted", String::new())),
        (_, false) => {
            Err(("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" "))))
        }
        _ => Ok(()),
    };
    let ready = match (&containers_ready, closed.is_empty()) {
        (Ok(()), false) => {
            Err(("ReadinessGatesNotReady", format!("readiness gates not true: [{}]", closed.join(" "))))
        }
        (other, _) => other.clone(),
    };
    let initialized = if uninitialized.is_empty() || ended {
        Ok(())
    } else {
        let message = format!("containers with incomplete status: [{}]", uninitialized.join(" "));
        Err(("ContainersNotInitialized", message))
    };
    let network = if state.address.is_some() && !state.stopped { Ok(()) } else { Err(("", String::new())) };
    let own = [
        ("PodReadyToStartContainers", network),
        ("Initialized", initialized),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", Ok(())),
    ];
    let mut all: Vec<_> =
        own.into_iter().map(|(kind, result)| condition(kind, result, pod, previous, now)).collect();
    let foreign = conditions(pod).filter(|theirs| !all.iter().any(|ours| ours.type_ == theirs.type_));
    let foreign: Vec<_> = foreign.cloned().collect();
    all.extend(foreign);
    PodStatus {
        phase: Some(phase.to_owned()),
        conditions: Some(all),
        observed_generation: pod.metadata.generation,
        host_ip: Some(NODE_ADDRESS.to_string()),
        host_ips: Some(vec![HostIP { ip: NODE_ADDRESS.to_string() }]),
        pod_ip: state.address.map(|address| address.to_string()),
        pod_ips: state.address.map(|address| vec![PodIP { ip: address.to_string() }]),
        start_time: previous.start_time.clone().or(Some(Time(now))),
        init_container_statuses: (!state.init.is_empty()).then(|| state.init.clone()),
        container_statuses: Some(state.main.clone()),
        qos_class: pod.status.as_ref().and_then(|status| status.qos_class.clone()),
        ..PodStatus::default()
    }
}

fn conditions(pod: &Pod) -> impl Iterator<Item = &PodCondition> {
    pod.status.iter().flat_map(|status| status.conditions.iter().flatten())
}

fn condition(
    kind: &str,
    result: Result<(), (&str, String)>,
    pod: &Pod,
    previous: &PodStatus,
    now: Timestamp,
) -> PodCondition {
    let status = if result.is_ok() { "True" } else { "False" };
    let (reason, message) = result.err().unwrap_or_default();
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let before = previous.conditions.iter().flatten().find(|before| before.type_ == kind);
    let unchanged = before.filter(|before| before.status == status);
    let last_transition_time =
        unchanged.and_then(|before| before.last_transition_time.clone()).or(Some(Time(now)));
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: some(reason),
        message: some(&message),
        last_transition_time,
        last_probe_time: None,
        observed_generation: pod.metadata.generation,
    }
}

fn phase(pod: &Pod, state: &State, initialized: bool) -> &'static str {
    let policy = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always");
    let codes: Vec<_> = state.main.iter().filter_map(exit_code).collect();
    if state.stopped {
        let well = codes.len() == state.main.len() && codes.iter().all(|code| *code == 0);
        return if well { "Succeeded" } else { "Failed" };
    }
    if !initialized {
        let failed = state.init.iter().any(|status| exit_code(status).is_some_and(|code| code != 0));
        return if failed && policy == "Never" { "Failed" } else { "Pending" };
    }
    // One that waits to be started again has run.
    let waits = |status: &ContainerStatus| {
        let now = status.state.as_ref().is_none_or(|state| state.waiting.is_some());
        now && status.last_state.as_ref().is_none_or(|last| last.terminated.is_none())
    };
    if state.main.iter().any(waits) {
        return "Pending";
    }
    if codes.len() < state.main.len() || policy == "Always" {
        return "Running";
    }
    match (codes.iter().all(|code| *code == 0), policy) {
        (true, _) => "Succeeded",
        (false, "Never") => "Failed",
        (false, _) => "Running",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(policy: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "generation": 3},
            "spec": {
                "restartPolicy": policy,
                "initContainers": [{"name": "first"}, {"name": "side", "restartPolicy": "Always"}],
                "containers": [{"name": "a"}, {"name": "b"}],
            },
            "status": {"conditions": [{"type": "DisruptionTarget", "status": "False"}]},
        }))
        .unwrap()
    }

    /// One letter for each container: waiting, running (Ready), exited well, failed, crashed and waiting.
    fn container(name: &str, letter: char) -> ContainerStatus {
        let ended = |code: i32| json!({"terminated": {"exitCode": code}});
        let (state, last, up) = match letter {
            'w' => (json!({"waiting": {}}), json!({}), false),
            'r' => (json!({"running": {}}), json!({}), false),
            'R' => (json!({"running": {}}), json!({}), true),
            'e' => (ended(0), json!({}), false),
            'f' => (ended(1), json!({}), false),
            'c' => (json!({"waiting": {}}), ended(1), false),
            _ => panic!("no such letter"),
        };
        let status = json!({
            "name": name, "image": "", "imageID": "", "restartCount": 0, "ready": up, "started": up,
            "state": state, "lastState": last,
        });
        serde_json::from_value(status).unwrap()
    }

    fn state(letters: &str, stopped: bool) -> State {
        let mut all = ["first", "side", "a", "b"].iter().zip(letters.chars()).map(|(n, l)| container(n, l));
        let init = all.by_ref().take(2).collect();
        State { init, main: all.collect(), address: Some(Ipv4Addr::new(10, 244, 1, 1)), stopped }
    }

    #[track_caller]
    fn check(policy: &str, letters: &str, stopped: bool, expected: &str) {
        let now = Timestamp::UNIX_EPOCH;
        let got = status(&pod(policy), &state(letters, stopped), &PodStatus::default(), now);
        let is = |kind: &'static str| {
            let found = got.conditions.iter().flatten().find(|condition| condition.type_ == kind);
            if found.unwrap().status == "True" { kind } else { "-" }
        };
        let shown =
            [got.phase.clone().unwrap().as_str(), is("Initialized"), is("ContainersReady"), is("Ready")]
                .join(" ");
        assert_eq!(shown, expected, "{policy} {letters} {stopped}");
        assert!(got.conditions.iter().flatten().any(|condition| condition.type_ == "DisruptionTarget"));
    }

    #[test]
    fn phases_and_conditions() {
        check("Always", "wwww", false, "Pending - - -");
        check("Always", "fwww", false, "Pending - - -");
        check("Never", "fwww", false, "Failed Initialized - -");
        check("Always", "ewww", false, "Pending - - -");
        check("Always", "eRww", false, "Pending Initialized - -");
        check("Always", "eRRr", false, "Running Initialized - -");
        check("Always", "eRRR", false, "Running Initialized ContainersReady Ready");
        check("Always", "eRRc", false, "Running Initialized - -");
        check("Always", "eRee", false, "Running Initialized - -");
        check("Never", "eRee", false, "Succeeded Initialized - -");
        check("Never", "eRfe", false, "Failed Initialized - -");
        check("OnFailure", "eRfe", false, "Running Initialized - -");
        check("Always", "eRee", true, "Succeeded Initialized - -");
        check("Always", "eRef", true, "Failed Initialized - -");
    }

    #[test]
    fn gates_and_times() {
        let mut gated = pod("Always");
        let gate = json!([{"conditionType": "example.com/up"}]);
        gated.spec.as_mut().unwrap().readiness_gates = serde_json::from_value(gate).unwrap();
        let (early, late) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(60).unwrap());
        let first = status(&gated, &state("eRRR", false), &PodStatus::default(), early);
        let ready = |status: &PodStatus| {
            let found = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
            found.cloned().unwrap()
        };
        assert_eq!(
            (ready(&first).status.as_str(), ready(&first).last_transition_time),
            ("False", Some(Time(early)))
        );
        let up = json!({"conditions": [{"type": "example.com/up", "status": "True"}]});
        gated.status = serde_json::from_value(up).unwrap();
        let second = status(&gated, &state("eRRR", false), &first, late);
        assert_eq!(
            (ready(&second).status.as_str(), ready(&second).last_transition_time),
            ("True", Some(Time(late)))
        );
        assert_eq!(second.start_time, Some(Time(early)));
        let third = status(&gated, &state("eRRR", false), &second, Timestamp::from_second(90).unwrap());
        assert_eq!(ready(&third), ready(&second));
    }
}
