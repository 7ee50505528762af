//! What a node asks to be written: its own status, the status of its pods, their end, and Events about them.
//!
//! **Invariant:** a node writes nothing but its own Node's labels and status, and about pods that are bound to it under
//! the uid it names; a pod's phase only advances.

use control::record;
use objects::{Kind, Kinds, meta};
use rpc::pb;
use rpc::pb::write::Write as Ask;
use serde_json::{Value, json};
use state::{Command, Expect, Key, Op, Record, Refusal, State};

use super::Sessions;

/// How often a write that lost to another one is made again.
const TRIES: usize = 8;
/// Labels that a kubelet sets on its own Node; all others belong to users.
const NODE_LABELS: &[&str] = &["kubernetes.io/hostname", "kubernetes.io/os", "kubernetes.io/arch"];
/// What a kubelet says of its certificate and of what it trusts: JSON, see `kubelet::certificate`.
pub const CERTIFICATE: &str = "hactl.io/certificate";

/// A refusal as HTTP status code and message.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused(pub u32, pub String);

/// What to propose for a write, decided from one root. `Ok(None)`: nothing to do.
type Decision = Result<Option<Command>, Refused>;

impl Sessions {
    /// Carries a write out; what the node is answered.
    pub(super) async fn write(&self, node: &str, uid: &str, write: pb::Write) -> pb::WriteResult {
        let id = write.id;
        let answer = |code, message| pb::WriteResult { id, code, message };
        let Some(ask) = write.write else {
            return answer(400, "write: empty".into());
        };
        for _ in 0..TRIES {
            let decision = match &ask {
                Ask::NodeStatus(json) => node_status(&self.root(), node, uid, json),
                Ask::PodStatus(status) => pod_status(&self.root(), node, status),
                Ask::PodGone(gone) => pod_gone(&self.root(), node, gone),
                Ask::Event(json) => self.event(node, json),
            };
            let mut command = match decision {
                Ok(Some(command)) => command,
                Ok(None) => return answer(200, String::new()),
                Err(Refused(code, message)) => return answer(code, message),
            };
            command.time_ms = self.now().as_millisecond();
            // Events are the first that a full store does without.
            let system = !matches!(ask, Ask::Event(_));
            command.system = system;
            match self.replica().propose(command).await {
                Ok(outcome) => match outcome.refusal {
                    None => return answer(200, String::new()),
                    // Someone else wrote first: decide again from what is there now.
                    Some(Refusal::Conflict(_) | Refusal::NotFound(_) | Refusal::AlreadyExists(_)) => {}
                    // What a node reports it reports until there is room.
                    Some(Refusal::OverQuota(why)) if system => return answer(507, why),
                    Some(Refusal::NamespaceMissing(key)) => return answer(404, format!("{key} not found")),
                    Some(other) => return answer(403, format!("{other:?}")),
                },
                Err(replica::Error::TooLarge(message)) => return answer(413, message),
                Err(error) => return answer(503, error.to_string()),
            }
        }
        answer(409, "the object keeps changing".into())
    }

    fn event(&self, node: &str, json: &[u8]) -> Decision {
        let mut event = object(json)?;
        let kind = kind("events")?;
        let namespace = meta::text(&event, &["involvedObject", "namespace"]).to_owned();
        meta::set(
            &mut event,
            &["metadata", "namespace"],
            if namespace.is_empty() { "default".into() } else { namespace.into() },
        );
        meta::set(&mut event, &["source"], json!({"component": "kubelet", "host": node}));
        let key = record::key(kind, meta::namespace(&event), meta::name(&event));
        let root = self.root();
        let present = root.get(&key);
        let (uid, created) = match present {
            Some(present) => {
                let old = record::parse(present);
                if meta::text(&old, &["source", "host"]) != node {
                    return Err(Refused(403, format!("{key} is not an event of node {node}")));
                }
                (meta::uid(&old).to_owned(), meta::text(&old, &["metadata", "creationTimestamp"]).to_owned())
            }
            None => (self.uid(), meta::format_time(self.now())),
        };
        meta::set(&mut event, &["metadata", "uid"], uid.into());
        meta::set(&mut event, &["metadata", "creationTimestamp"], created.into());
        kind.decode(&mut event).map_err(invalid)?;
        kind.default(&mut event);
        if let Some(error) = kind.validate(&event, None).into_iter().next() {
            return Err(invalid(error));
        }
        let expect = match present {
            Some(present) => Expect::revision(key, present.revision),
            None => Expect::absent(key),
        };
        put(kind, &event, expect)
    }
}

/// The Node of a machine that joined: created with the uid of its certificate, before it ever connects.
///
/// # Errors
/// When the name cannot be a Node's.
pub fn new_node(name: &str, uid: &str, now: jiff::Timestamp) -> Result<Command, Refused> {
    let kind = kind("nodes")?;
    let mut node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "uid": uid, "creationTimestamp": meta::format_time(now),
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}},
        "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusNeverUpdated",
            "message": "Kubelet never posted node status.", "lastHeartbeatTime": meta::format_time(now),
            "lastTransitionTime": meta::format_time(now)}]},
    });
    kind.default(&mut node);
    if let Some(error) = kind.validate(&node, None).into_iter().next() {
        return Err(invalid(error));
    }
    let key = Key::node(name);
    put(kind, &node, Expect::absent(key))?.ok_or_else(|| Refused(500, "nothing to create".into()))
}

/// The Node's labels, certificate and status as its kubelet reports them; everything else stays.
fn node_status(root: &State, name: &str, uid: &str, json: &[u8]) -> Decision {
    let reported = object(json)?;
    let kind = kind("nodes")?;
    let key = Key::node(name);
    let present = root.get(&key).ok_or_else(|| Refused(404, format!("node {name} was deleted")))?;
    if present.header.uid != uid {
        return Err(Refused(
            403,
            format!("node {name} has another uid: this machine's certificate is of a deleted node"),
        ));
    }
    let mut node = record::parse(present);
    for label in NODE_LABELS {
        meta::copy(&mut node, &reported, &["metadata", "labels", label]);
    }
    meta::copy(&mut node, &reported, &["metadata", "annotations", CERTIFICATE]);
    let conditions = merge_conditions(&node, &reported);
    let mut status = meta::at(&reported, &["status"]).cloned().unwrap_or_else(|| json!({}));
    meta::set(&mut status, &["conditions"], conditions);
    meta::set(&mut node, &["status"], status);
    unless_equal(kind, key, present, &node)
}

/// A pod's status as its kubelet reports it. Conditions that the kubelet does not report stay.
fn pod_status(root: &State, node: &str, status: &pb::PodStatus) -> Decision {
    let kind = kind("pods")?;
    let (key, present) = own_pod(root, node, &status.namespace, &status.name, &status.uid)?;
    let reported = json!({"status": object(&status.status_json)?});
    let mut pod = record::parse(present);
    let phase = meta::text(&pod, &["status", "phase"]);
    if matches!(phase, "Succeeded" | "Failed") && meta::text(&reported, &["status", "phase"]) != phase {
        return Err(Refused(409, format!("pod {}/{} has ended as {phase}", status.namespace, status.name)));
    }
    let conditions = merge_conditions(&pod, &reported);
    let mut status = meta::at(&reported, &["status"]).cloned().unwrap_or_else(|| json!({}));
    meta::set(&mut status, &["conditions"], conditions);
    for field in ["nominatedNodeName", "qosClass"] {
        if let Some(value) = meta::at(&pod, &["status", field]) {
            meta::set(&mut status, &[field], value.clone());
        }
    }
    meta::set(&mut pod, &["status"], status);
    unless_equal(kind, key, present, &pod)
}

/// The containers of a pod that is being deleted have stopped: it goes, or waits for its finalizers alone.
fn pod_gone(root: &State, node: &str, gone: &pb::PodGone) -> Decision {
    let found = own_pod(root, node, &gone.namespace, &gone.name, &gone.uid);
    let (key, present) = match found {
        Ok(found) => found,
        // Gone already: what was asked for.
        Err(Refused(404, _)) => return Ok(None),
        Err(refused) => return Err(refused),
    };
    if present.header.deletion_ms == 0 {
        return Err(Refused(409, format!("{key} is not being deleted")));
    }
    if !present.header.finalizers.is_empty() {
        let mut pod = record::parse(present);
        meta::set(&mut pod, &["metadata", "deletionGracePeriodSeconds"], 0.into());
        return unless_equal(kind("pods")?, key, present, &pod);
    }
    let expects = vec![Expect::revision(key.clone(), present.revision)];
    Ok(Some(Command { expects, ops: vec![Op::delete(key)], ..Command::default() }))
}

/// The pod, if it is bound to the node under this uid.
fn own_pod<'a>(
    root: &'a State,
    node: &str,
    namespace: &str,
    name: &str,
    uid: &str,
) -> Result<(Key, &'a Record), Refused> {
    let key = Key::new("", "pods", namespace, name);
    let present = root.get(&key).ok_or_else(|| Refused(404, format!("{key} not found")))?;
    if present.header.uid != uid {
        return Err(Refused(404, format!("{key} is another pod now: it has uid {}", present.header.uid)));
    }
    if present.header.node != node {
        return Err(Refused(403, format!("{key} is not bound to node {node}")));
    }
    Ok((key, present))
}

/// The reported conditions, and those of `present` that were not reported.
fn merge_conditions(present: &Value, reported: &Value) -> Value {
    let mut conditions = meta::list(reported, &["status", "conditions"]).to_vec();
    for old in meta::list(present, &["status", "conditions"]) {
        let kind = meta::text(old, &["type"]);
        if !conditions.iter().any(|new| meta::text(new, &["type"]) == kind) {
            conditions.push(old.clone());
        }
    }
    Value::Array(conditions)
}

fn unless_equal(kind: &Kind, key: Key, present: &Record, object: &Value) -> Decision {
    let expect = Expect::revision(key, present.revision);
    let command = put(kind, object, expect)?;
    let same = command.as_ref().is_some_and(|command| {
        command.ops.iter().all(|op| match &op.kind {
            Some(state::op::Kind::Put(put)) => put.body == present.body && put.header == present.header,
            _ => false,
        })
    });
    Ok(command.filter(|_| !same))
}

fn put(kind: &Kind, object: &Value, expect: Expect) -> Decision {
    let put = record::put(kind, object).map_err(invalid)?;
    record::check_size(&put).map_err(|why| Refused(413, why))?;
    Ok(Some(Command { expects: vec![expect], ops: vec![Op::put(put)], ..Command::default() }))
}

fn kind(plural: &str) -> Result<&'static Kind, Refused> {
    Kinds::builtin().by_resource("", plural).ok_or_else(|| Refused(500, format!("{plural} is no kind")))
}

fn object(json: &[u8]) -> Result<Value, Refused> {
    let value: Value = serde_json::from_slice(json).map_err(|error| Refused(400, format!("not JSON: {error}")))?;
    if value.is_object() { Ok(value) } else { Err(Refused(400, "not a JSON object".into())) }
}

fn invalid(error: objects::FieldError) -> Refused {
    Refused(422, format!("{}: {}", error.field, error.message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use state::EntryId;

    fn root() -> State {
        let mut root = State::default();
        let objects = [
            ("namespaces", json!({"metadata": {"name": "default", "uid": "ns"}})),
            (
                "nodes",
                json!({"metadata": {"name": "n1", "uid": "u1", "labels": {"disk": "ssd"}}, "spec": {"unschedulable": true}}),
            ),
            ("nodes", json!({"metadata": {"name": "n2", "uid": "u2"}})),
            (
                "pods",
                json!({"metadata": {"name": "mine", "namespace": "default", "uid": "p1"}, "spec": {"nodeName": "n1"},
                "status": {"phase": "Running", "conditions": [{"type": "PodScheduled", "status": "True"}]}}),
            ),
            (
                "pods",
                json!({"metadata": {"name": "ended", "namespace": "default", "uid": "p2"}, "spec": {"nodeName": "n1"},
                "status": {"phase": "Failed"}}),
            ),
            (
                "pods",
                json!({"metadata": {"name": "going", "namespace": "default", "uid": "p3",
                "deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"nodeName": "n1"}}),
            ),
        ];
        for (resource, object) in objects {
            let put = record::put(kind(resource).unwrap(), &object).unwrap();
            let applied = root.apply(
                EntryId { term: 1, index: root.revision() + 1 },
                &Command { ops: vec![Op::put(put)], ..Command::default() },
            );
            assert_eq!(applied.outcome.refusal, None, "{resource}");
        }
        root
    }

    fn status(name: &str, uid: &str, status: Value) -> pb::PodStatus {
        pb::PodStatus {
            namespace: "default".into(),
            name: name.into(),
            uid: uid.into(),
            status_json: status.to_string().into_bytes().into(),
        }
    }

    fn code(decision: Decision) -> u32 {
        decision.err().map_or(200, |refused| refused.0)
    }

    #[test]
    fn what_nodes_write_is_bounded_as_every_object() {
        let root = root();
        let of = |bytes: usize| json!({"phase": "Running", "message": "x".repeat(bytes)});
        assert_eq!(code(pod_status(&root, "n1", &status("mine", "p1", of(1000)))), 200);
        let large = pod_status(&root, "n1", &status("mine", "p1", of(record::OBJECT_BYTES_MAX)));
        let Err(Refused(code, message)) = large else { panic!("{large:?}") };
        assert_eq!((code, message.as_str()), (413, "Request entity too large: limit is 1572864"));
        let node = json!({"status": {"images": [{"names": ["x".repeat(record::OBJECT_BYTES_MAX)]}]}}).to_string();
        assert_eq!(node_status(&root, "n1", "u1", node.as_bytes()).map_err(|refused| refused.0), Err(413));
    }

    #[test]
    fn a_node_writes_only_about_its_own_pods_and_never_backwards() {
        let root = root();
        let running = json!({"phase": "Running"});
        let cases = [
            ("its own pod", code(pod_status(&root, "n1", &status("mine", "p1", json!({"phase": "Failed"})))), 200),
            ("another node's", code(pod_status(&root, "n2", &status("mine", "p1", running.clone()))), 403),
            ("another uid", code(pod_status(&root, "n1", &status("mine", "old", running.clone()))), 404),
            ("no such pod", code(pod_status(&root, "n1", &status("none", "p1", running.clone()))), 404),
            ("an ended pod", code(pod_status(&root, "n1", &status("ended", "p2", running))), 409),
            (
                "not JSON",
                code(pod_status(
                    &root,
                    "n1",
                    &pb::PodStatus { status_json: bytes::Bytes::from_static(b"{"), ..status("mine", "p1", json!({})) },
                )),
                400,
            ),
            (
                "gone, not being deleted",
                code(pod_gone(
                    &root,
                    "n1",
                    &pb::PodGone { namespace: "default".into(), name: "mine".into(), uid: "p1".into() },
                )),
                409,
            ),
            (
                "gone",
                code(pod_gone(
                    &root,
                    "n1",
                    &pb::PodGone { namespace: "default".into(), name: "going".into(), uid: "p3".into() },
                )),
                200,
            ),
            (
                "gone before",
                code(pod_gone(
                    &root,
                    "n1",
                    &pb::PodGone { namespace: "default".into(), name: "going".into(), uid: "p0".into() },
                )),
                200,
            ),
            ("node of another uid", code(node_status(&root, "n1", "u9", b"{}")), 403),
            ("deleted node", code(node_status(&root, "n9", "u9", b"{}")), 404),
        ];
        for (case, got, want) in cases {
            assert_eq!(got, want, "{case}");
        }
    }

    #[test]
    fn conditions_of_others_and_users_labels_stay() {
        let root = root();
        let object = |command: Command| match command.ops.into_iter().next().unwrap().kind {
            Some(state::op::Kind::Put(put)) => serde_json::from_slice::<Value>(
                &Record {
                    header: put.header,
                    body: put.body,
                    split: put.split,
                    managed_fields: put.managed_fields,
                    created: 1,
                    revision: 1,
                }
                .json(),
            )
            .unwrap(),
            other => panic!("{other:?}"),
        };
        let reported = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
        let pod = object(pod_status(&root, "n1", &status("mine", "p1", reported)).unwrap().unwrap());
        let types: Vec<_> =
            meta::list(&pod, &["status", "conditions"]).iter().map(|c| meta::text(c, &["type"])).collect();
        assert_eq!(types, ["Ready", "PodScheduled"]);

        let report = json!({"metadata": {"labels": {"kubernetes.io/os": "linux", "disk": "tape"}}, "spec": {"taints": []}, "status": {"capacity": {"cpu": "2"}}});
        let node = object(node_status(&root, "n1", "u1", report.to_string().as_bytes()).unwrap().unwrap());
        assert_eq!(meta::labels(&node).get("disk").map(String::as_str), Some("ssd"));
        assert_eq!(meta::labels(&node).get("kubernetes.io/os").map(String::as_str), Some("linux"));
        assert!(meta::flag(&node, &["spec", "unschedulable"]));
    }
}
