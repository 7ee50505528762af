//! The printed row of a pod, cell by cell as `kubectl get pods` of Kubernetes shows it.

use jiff::Timestamp;
use serde_json::Value;

use super::condition;
use crate::kinds::{Column, printed};
use crate::meta;

pub(super) static COLUMNS: &[Column] = &[
    printed::NAME,
    printed::column("Ready", "string", 0, "The aggregate readiness state of this pod for accepting traffic."),
    printed::column("Status", "string", 0, "The aggregate status of the containers in this pod."),
    printed::column(
        "Restarts",
        "string",
        0,
        "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
    ),
    printed::AGE,
    printed::column(
        "IP",
        "string",
        1,
        "podIP address allocated to the pod. Routable at least within the cluster. Empty if not yet allocated.",
    ),
    printed::column("Node", "string", 1, "NodeName is a request to schedule this pod onto a specific node."),
    printed::column(
        "Nominated Node",
        "string",
        1,
        "nominatedNodeName is set only when this pod preempts other pods on the node, but it cannot be scheduled right away as preemption victims receive their graceful termination periods.",
    ),
    printed::column(
        "Readiness Gates",
        "string",
        1,
        "If specified, all readiness gates will be evaluated for pod readiness.",
    ),
];

/// What the statuses of a pod's containers add up to.
#[derive(Default)]
struct Sum {
    reason: String,
    restarts: i64,
    last_restart: Option<Timestamp>,
    ready: usize,
    running: bool,
}

pub(super) fn row(pod: &Value, now: Timestamp) -> Vec<Value> {
    let sum = sum(pod);
    let restarts = match sum.last_restart {
        Some(last) if sum.restarts > 0 => {
            format!("{} ({} ago)", sum.restarts, printed::human_duration(now.duration_since(last).as_secs()))
        }
        _ => sum.restarts.to_string(),
    };
    let text = |path: &[&str]| printed::or_none(meta::text(pod, path).to_owned());
    let gates = meta::list(pod, &["spec", "readinessGates"]);
    let passed = gates.iter().filter(|gate| is_true(pod, meta::text(gate, &["conditionType"]))).count();
    let ip = match meta::list(pod, &["status", "podIPs"]).first() {
        Some(ip) => printed::or_none(meta::text(ip, &["ip"]).to_owned()),
        None => text(&["status", "podIP"]),
    };
    vec![
        printed::name(pod),
        format!("{}/{}", sum.ready, meta::list(pod, &["spec", "containers"]).len()).into(),
        sum.reason.into(),
        restarts.into(),
        printed::age(pod, now),
        ip,
        text(&["spec", "nodeName"]),
        text(&["status", "nominatedNodeName"]),
        if gates.is_empty() { "<none>".into() } else { format!("{passed}/{}", gates.len()).into() },
    ]
}

fn is_true(pod: &Value, kind: &str) -> bool {
    condition(pod, kind).is_some_and(|condition| meta::text(condition, &["status"]) == "True")
}

fn sum(pod: &Value) -> Sum {
    let phase = meta::text(pod, &["status", "phase"]);
    let status_reason = meta::text(pod, &["status", "reason"]);
    let mut sum =
        Sum { reason: if status_reason.is_empty() { phase } else { status_reason }.to_owned(), ..Sum::default() };
    let gated = |scheduled: &Value| meta::text(scheduled, &["reason"]) == "SchedulingGated";
    if condition(pod, "PodScheduled").is_some_and(gated) {
        sum.reason = "SchedulingGated".to_owned();
    }
    let initializing = sum.add_init(pod);
    if !initializing || is_true(pod, "Initialized") {
        if !initializing {
            sum.restarts = 0;
            sum.last_restart = None;
        }
        for status in meta::list(pod, &["status", "containerStatuses"]).iter().rev() {
            sum.add(status);
        }
        if sum.reason == "Completed" && sum.running {
            sum.reason = if is_true(pod, "Ready") { "Running" } else { "NotReady" }.to_owned();
        }
    }
    if meta::is_deleting(pod) {
        if status_reason == "NodeLost" {
            sum.reason = "Unknown".to_owned();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            sum.reason = "Terminating".to_owned();
        }
    }
    sum
}

impl Sum {
    fn add_restarts(&mut self, status: &Value) {
        self.restarts += meta::int(status, &["restartCount"]).unwrap_or(0);
        let ended = meta::time(status, &["lastState", "terminated", "finishedAt"]);
        self.last_restart = self.last_restart.max(ended);
    }

    fn add(&mut self, status: &Value) {
        self.add_restarts(status);
        let waiting = meta::text(status, &["state", "waiting", "reason"]);
        if !waiting.is_empty() {
            self.reason = waiting.to_owned();
        } else if let Some(terminated) = meta::at(status, &["state", "terminated"]) {
            self.reason = end_of(terminated);
        } else if meta::flag(status, &["ready"]) && meta::at(status, &["state", "running"]).is_some() {
            self.running = true;
            self.ready += 1;
        }
    }

    /// Adds the init containers; whether they are still at it.
    fn add_init(&mut self, pod: &Value) -> bool {
        let total = meta::list(pod, &["spec", "initContainers"]).len();
        for (i, status) in meta::list(pod, &["status", "initContainerStatuses"]).iter().enumerate() {
            self.add_restarts(status);
            let waiting = meta::text(status, &["state", "waiting", "reason"]);
            match meta::at(status, &["state", "terminated"]) {
                Some(terminated) if meta::int(terminated, &["exitCode"]).unwrap_or(0) == 0 => continue,
                Some(terminated) => self.reason = format!("Init:{}", end_of(terminated)),
                None if !waiting.is_empty() && waiting != "PodInitializing" => self.reason = format!("Init:{waiting}"),
                None => self.reason = format!("Init:{i}/{total}"),
            }
            return true;
        }
        false
    }
}

/// How a container ended, in a word.
fn end_of(terminated: &Value) -> String {
    let reason = meta::text(terminated, &["reason"]);
    match meta::int(terminated, &["signal"]).unwrap_or(0) {
        _ if !reason.is_empty() => reason.to_owned(),
        0 => format!("ExitCode:{}", meta::int(terminated, &["exitCode"]).unwrap_or(0)),
        signal => format!("Signal:{signal}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn statuses_and_restarts() {
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().expect("time");
        let status = |state: Value, ready: bool, restarts: u32, last: Value| json!({"state": state, "ready": ready, "restartCount": restarts, "lastState": last});
        let running = || status(json!({"running": {}}), true, 0, json!({}));
        let ended = json!({"terminated": {"finishedAt": "2026-01-01T00:05:00Z"}});
        let cases = [
            (json!({"status": {"phase": "Pending"}}), "0/1", "Pending", "0"),
            (json!({"status": {"phase": "Running", "containerStatuses": [running()]}}), "1/1", "Running", "0"),
            (
                json!({"status": {"phase": "Pending", "containerStatuses": [status(json!({"waiting": {"reason": "ContainerCreating"}}), false, 0, json!({}))]}}),
                "0/1",
                "ContainerCreating",
                "0",
            ),
            (
                json!({"status": {"phase": "Running", "containerStatuses": [status(json!({"waiting": {"reason": "CrashLoopBackOff"}}), false, 3, ended.clone())]}}),
                "0/1",
                "CrashLoopBackOff",
                "3 (5m ago)",
            ),
            (
                json!({"status": {"phase": "Failed", "containerStatuses": [status(json!({"terminated": {"exitCode": 3}}), false, 0, json!({}))]}}),
                "0/1",
                "ExitCode:3",
                "0",
            ),
            (
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"phase": "Running", "containerStatuses": [running()]}}),
                "1/1",
                "Terminating",
                "0",
            ),
            (
                json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
                    "containerStatuses": [status(json!({"terminated": {"reason": "Completed"}}), false, 0, json!({})), running()]}}),
                "1/1",
                "Running",
                "0",
            ),
            (
                json!({"status": {"phase": "Pending", "initContainerStatuses": [{"state": {"running": {}}}]}}),
                "0/1",
                "Init:0/0",
                "0",
            ),
        ];
        for (mut pod, ready, reason, restarts) in cases {
            meta::set(&mut pod, &["metadata", "name"], "p".into());
            meta::set(&mut pod, &["spec", "containers"], json!([{"name": "c"}]));
            let cells = row(&pod, now);
            assert_eq!(cells[1..4], [json!(ready), json!(reason), json!(restarts)], "{pod}");
            assert_eq!(cells.len(), COLUMNS.len());
        }
    }
}
