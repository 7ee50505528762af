//! Tables for `status`.

use super::*;
use serde_json::json;

const NOW: i64 = 1_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn container(name: &str, attempt: u32, state: State, code: i32) -> Container {
    Container {
        id: format!("{name}{attempt}"),
        name: String::new(),
        labels: [
            (label::CONTAINER, name.to_owned()),
            (label::ATTEMPT, attempt.to_string()),
            (label::STEP, attempt.to_string()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect(),
        state,
        exit_code: code,
        oom_killed: code == 137,
        error: String::new(),
        created: at(NOW - 60),
        started: Some(at(NOW - 50)),
        finished: (state == State::Exited).then(|| at(NOW - 5)),
        image: "i:1".to_owned(),
        image_id: "sha256:1".to_owned(),
        stop_signal: String::new(),
    }
}

fn sandbox() -> Container {
    container(label::SANDBOX, 0, State::Running, 0)
}

/// Phase, readiness and the container's state in one line.
fn check(policy: &str, order: Order, containers: &[Container], memory: &Memory, ready: &[&str], expect: &str) {
    let pod: core::Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "default", "uid": "u", "generation": 4},
        "spec": {"restartPolicy": policy, "containers": [{"name": "web", "image": "i:1"}]},
        "status": {"conditions": [{"type": "DisruptionTarget", "status": "True"}]}
    }))
    .expect("a pod");
    let verdicts = Verdicts {
        ready: ready.iter().map(|id| (*id).to_owned()).collect(),
        started: ready.iter().map(|id| (*id).to_owned()).collect(),
    };
    let status = status(&Seen {
        pod: &pod,
        order,
        containers,
        memory,
        verdicts: &verdicts,
        messages: &BTreeMap::new(),
        digests: &BTreeMap::new(),
        previous: None,
        pod_ip: Some("10.1.0.2".to_owned()),
        host_ip: "192.0.2.1".to_owned(),
        now: at(NOW),
    });
    let conditions = status.conditions.unwrap_or_default();
    assert!(conditions.iter().any(|c| c.type_ == "DisruptionTarget"), "foreign conditions stay");
    let ready = conditions.iter().find(|c| c.type_ == "Ready").expect("a Ready condition");
    let web = &status.container_statuses.as_ref().expect("statuses")[0];
    let state = web.state.clone().unwrap_or_default();
    let text = match (state.waiting, state.running, state.terminated) {
        (Some(waiting), ..) => waiting.reason.unwrap_or_default(),
        (_, Some(_), _) => "running".to_owned(),
        (.., Some(end)) => format!("{} {}", end.reason.unwrap_or_default(), end.exit_code),
        _ => "nothing".to_owned(),
    };
    let last = web
        .last_state
        .as_ref()
        .and_then(|s| s.terminated.as_ref())
        .map_or(String::new(), |end| format!(" after {}", end.exit_code));
    let line = format!(
        "{} ready={} {text}{last} restarts={}",
        status.phase.unwrap_or_default(),
        ready.status,
        web.restart_count
    );
    assert_eq!(line, expect);
}

#[test]
fn a_life() {
    let nothing = Memory::default();
    let run = Order::Run;
    check("Always", run, &[], &nothing, &[], "Pending ready=False ContainerCreating restarts=0");
    check("Always", run, &[sandbox()], &nothing, &[], "Pending ready=False ContainerCreating restarts=0");
    let up = [sandbox(), container("web", 0, State::Running, 0)];
    check("Always", run, &up, &nothing, &[], "Running ready=False running restarts=0");
    check("Always", run, &up, &nothing, &["web0"], "Running ready=True running restarts=0");
    let again = [sandbox(), container("web", 0, State::Exited, 2), container("web", 1, State::Running, 0)];
    check("Always", run, &again, &nothing, &["web1"], "Running ready=True running after 2 restarts=1");
    let ended = [sandbox(), container("web", 0, State::Exited, 0)];
    check("Never", run, &ended, &nothing, &[], "Succeeded ready=False Completed 0 restarts=0");
    let failed = [sandbox(), container("web", 0, State::Exited, 3)];
    check("Never", run, &failed, &nothing, &[], "Failed ready=False Error 3 restarts=0");
    let oom = [sandbox(), container("web", 0, State::Exited, 137)];
    check("Never", run, &oom, &nothing, &[], "Failed ready=False OOMKilled 137 restarts=0");
}

#[test]
fn waiting_has_a_reason() {
    let crashing = [sandbox(), container("web", 2, State::Exited, 1)];
    check(
        "Always",
        Order::Run,
        &crashing,
        &Memory::default(),
        &[],
        "Running ready=False CrashLoopBackOff after 1 restarts=2",
    );
    let failed = |ago| {
        let mut memory = Memory::default();
        let failed =
            ImageState::Failed { reason: "ErrImagePull", message: "denied".to_owned(), at: at(NOW - ago), tries: 1 };
        memory.images.insert("web".to_owned(), failed);
        memory
    };
    check("Always", Order::Run, &[sandbox()], &failed(0), &[], "Pending ready=False ErrImagePull restarts=0");
    check("Always", Order::Run, &[sandbox()], &failed(5), &[], "Pending ready=False ImagePullBackOff restarts=0");
}

#[test]
fn durations_read_like_gos() {
    for (seconds, text) in [(10, "10s"), (160, "2m40s"), (300, "5m0s")] {
        assert_eq!(duration(seconds), text);
    }
}
