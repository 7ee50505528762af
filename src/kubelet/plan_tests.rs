//! Tables for `plan`: what is there and what follows.

use super::*;
use serde_json::json;

const NOW: i64 = 1_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn pod(policy: &str) -> core::Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "default", "uid": "u"},
        "spec": {"restartPolicy": policy, "terminationGracePeriodSeconds": 30,
                 "containers": [{"name": "web", "image": "i:1"}]}
    }))
    .expect("a pod")
}

/// `S` is the sandbox, others are named by themselves; the id is name and attempt.
fn container(name: &str, attempt: u32, state: State) -> Container {
    let label_name = if name == "S" { label::SANDBOX } else { name };
    let hash = spec_hash(&pod("Always").spec.expect("spec").containers[0]);
    let labels = [
        (label::CONTAINER, label_name.to_owned()),
        (label::ATTEMPT, attempt.to_string()),
        (label::STEP, attempt.to_string()),
        (label::SPEC_HASH, hash),
    ];
    Container {
        id: format!("{name}{attempt}"),
        name: String::new(),
        labels: labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        state,
        exit_code: 1,
        oom_killed: false,
        error: String::new(),
        created: at(NOW - 100),
        started: Some(at(NOW - 50)),
        finished: (state == State::Exited).then(|| at(NOW - 5)),
        image: "i:1".to_owned(),
        image_id: String::new(),
        stop_signal: String::new(),
    }
}

struct Case {
    policy: &'static str,
    order: Order,
    containers: Vec<Container>,
    memory: Memory,
}

impl Case {
    fn new(containers: Vec<Container>) -> Case {
        Case { policy: "Always", order: Order::Run, containers, memory: Memory::default() }
    }
    fn policy(mut self, policy: &'static str) -> Case {
        self.policy = policy;
        self
    }
    fn stopping(mut self, grace_seconds: i64, since: i64) -> Case {
        let since = at(since);
        self.order = Order::Stop { grace_seconds, since };
        self
    }
    fn image(mut self, state: ImageState) -> Case {
        self.memory.images.insert("web".to_owned(), state);
        self
    }
    fn check(self, expect: &str) {
        let pod = pod(self.policy);
        let plan = plan(&Given {
            pod: Some(&pod),
            order: self.order,
            containers: &self.containers,
            memory: &self.memory,
            now: at(NOW),
        });
        let mut words: Vec<String> = plan
            .actions
            .iter()
            .map(|action| match action {
                Action::Sandbox { attempt } => format!("sandbox{attempt}"),
                Action::Pull { container } => format!("pull {container}"),
                Action::Run { container, attempt, step } => format!("run {container}{attempt}/{step}"),
                Action::Signal { id, why } => format!("signal {id} {why:?}"),
                Action::Kill { id } => format!("kill {id}"),
                Action::Remove { id } => format!("remove {id}"),
                Action::Release => "release".to_owned(),
            })
            .collect();
        if let Some(again) = plan.again {
            words.push(format!("+{}s", seconds(at(NOW), again)));
        }
        if plan.finished {
            words.push("finished".to_owned());
        }
        assert_eq!(words.join(", "), expect);
    }
}

use State::{Created, Exited, Running};

#[test]
fn a_pod_comes_up() {
    Case::new(vec![]).check("sandbox0");
    Case::new(vec![container("S", 0, Running)]).check("pull web");
    Case::new(vec![container("S", 0, Running)]).image(ImageState::Pulling).check("");
    Case::new(vec![container("S", 0, Running)]).image(ImageState::Ready).check("run web0/0");
    Case::new(vec![container("S", 0, Running), container("web", 0, Created)]).check("remove web0");
    Case::new(vec![container("S", 0, Running), container("web", 0, Running)]).check("");
}

#[test]
fn failures_back_off() {
    let failed = |ago: i64, tries| ImageState::Failed {
        reason: "ErrImagePull",
        message: String::new(),
        at: at(NOW - ago),
        tries,
    };
    Case::new(vec![container("S", 0, Running)]).image(failed(1, 1)).check("+1s");
    Case::new(vec![container("S", 0, Running)]).image(failed(5, 1)).check("+5s");
    Case::new(vec![container("S", 0, Running)]).image(failed(10, 1)).check("pull web");
    Case::new(vec![container("S", 0, Running)]).image(failed(10, 2)).check("+10s");
    Case::new(vec![container("S", 0, Running)]).image(failed(299, 60)).check("+1s");
    let mut broken = Case::new(vec![]);
    let failure = |tries| Failure { reason: "FailedMount", message: String::new(), at: at(NOW - 1), tries };
    broken.memory.failures.insert(label::SANDBOX.to_owned(), failure(3));
    broken.check("+3s");
    let mut due = Case::new(vec![]);
    due.memory.failures.insert(label::SANDBOX.to_owned(), failure(1));
    due.check("sandbox0");
}

#[test]
fn ended_containers_restart_by_policy_and_back_off() {
    let ended = |attempt, code| {
        let mut ended = container("web", attempt, Exited);
        ended.exit_code = code;
        vec![container("S", 0, Running), ended]
    };
    Case::new(ended(0, 0)).image(ImageState::Ready).check("run web1/1");
    Case::new(ended(0, 1)).check("pull web");
    Case::new(ended(1, 1)).image(ImageState::Ready).check("+5s");
    Case::new(ended(3, 1)).image(ImageState::Ready).check("+35s");
    Case::new(ended(30, 1)).image(ImageState::Ready).check("+295s");
    Case::new(ended(0, 1)).policy("OnFailure").image(ImageState::Ready).check("run web1/1");
    Case::new(ended(0, 0)).policy("OnFailure").check("kill S0, finished");
    Case::new(ended(0, 1)).policy("Never").check("kill S0, finished");
    let mut long = container("web", 5, Exited);
    long.started = Some(at(NOW - 700));
    Case::new(vec![container("S", 0, Running), long]).image(ImageState::Ready).check("run web6/1");
}

#[test]
fn older_containers_are_removed_but_the_last() {
    let all = vec![
        container("S", 0, Running),
        container("web", 1, Exited),
        container("web", 2, Exited),
        container("web", 3, Running),
    ];
    Case::new(all).check("remove web1");
}

#[test]
fn a_lost_sandbox_takes_its_containers_along() {
    Case::new(vec![container("S", 0, Exited), container("web", 0, Running)]).check("kill web0");
    Case::new(vec![container("S", 0, Exited), container("web", 0, Exited)]).check("remove S0, sandbox1");
    Case::new(vec![container("web", 0, Running)]).check("kill web0");
    Case::new(vec![container("S", 0, Created)]).check("remove S0, sandbox1");
}

#[test]
fn after_a_reboot_ordinary_pods_start_and_finished_ones_do_not() {
    let mut killed = container("web", 0, Exited);
    killed.exit_code = 255;
    Case::new(vec![container("S", 0, Exited), killed.clone()]).check("remove S0, sandbox1");
    Case::new(vec![container("S", 0, Exited), killed.clone()]).policy("Never").check("finished");
    let mut done = Case::new(vec![]).policy("Never");
    done.memory.finished = true;
    done.check("finished");
}

#[test]
fn unhealthy_and_changed_containers_end_with_grace() {
    let up = || vec![container("S", 0, Running), container("web", 0, Running)];
    let mut sick = Case::new(up());
    sick.memory.unhealthy.insert("web0".to_owned(), 7);
    sick.check("signal web0 Unhealthy, +7s");
    let mut asked = Case::new(up());
    asked.memory.unhealthy.insert("web0".to_owned(), 7);
    asked.memory.signalled.insert("web0".to_owned(), at(NOW - 7));
    asked.check("kill web0");
    let mut other = container("web", 0, Running);
    other.labels.insert(label::SPEC_HASH.to_owned(), "old".to_owned());
    Case::new(vec![container("S", 0, Running), other.clone()]).check("signal web0 Changed, +30s");
    other.state = Exited;
    Case::new(vec![container("S", 0, Running), other]).image(ImageState::Ready).check("run web1/0");
}

#[test]
fn a_pod_goes_down() {
    let up = || vec![container("S", 0, Running), container("web", 0, Running)];
    Case::new(up()).stopping(30, NOW).check("signal web0 Stop, +30s");
    Case::new(up()).stopping(0, NOW).check("kill web0");
    let mut asked = Case::new(up()).stopping(30, NOW - 10);
    asked.memory.signalled.insert("web0".to_owned(), at(NOW - 10));
    asked.check("+20s");
    Case::new(up()).stopping(30, NOW - 30).check("kill web0");
    Case::new(vec![container("web", 0, Exited), container("S", 0, Running)])
        .stopping(30, NOW)
        .check("remove web0, remove S0, release");
    Case::new(vec![]).stopping(30, NOW).check("release");
}

#[test]
fn containers_without_an_order_are_left_alone() {
    let containers = [container("S", 0, Running), container("web", 0, Running)];
    let given =
        Given { pod: None, order: Order::Run, containers: &containers, memory: &Memory::default(), now: at(NOW) };
    assert_eq!(plan(&given), Plan::default());
}
