//! A cluster for tests: a state, every controller and the scheduler, a clock that only moves when told, and kubelets that
//! do at once what a good kubelet does in the end. Every change is checked against the invariants.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use objects::{Kinds, Part};
use serde_json::{Value, json};
use state::{Command, EntryId, Key, Op, Outcome, Record, State};

use crate::controllers::ALL;
use crate::scheduler::Scheduler;
use crate::{Context, Settings, emit, invariants, json as read, nodelife, record};

/// Plans after which a run that does not come to rest fails.
const PLANS_MAX: usize = 20_000;

pub struct World {
    pub root: State,
    pub now: Timestamp,
    pub settings: Settings,
    index: u64,
    seed: u64,
    scheduler: Scheduler,
    queue: BTreeSet<(usize, Key)>,
    timers: BTreeMap<(usize, Key), Timestamp>,
    /// Nodes whose kubelet is dead.
    pub dead: BTreeSet<String>,
    /// Pods of these images never get ready.
    pub broken_images: BTreeSet<String>,
    next_ip: u32,
}

impl World {
    /// An empty cluster after bootstrap.
    pub fn new() -> Self {
        let mut world = Self {
            root: State::default(),
            now: "2026-01-02T03:04:05Z".parse().expect("a time"),
            settings: Settings { masters: vec![([192, 0, 2, 1], 6443).into()], ..Settings::default() },
            index: 0,
            seed: 1,
            scheduler: Scheduler::default(),
            queue: BTreeSet::new(),
            timers: BTreeMap::new(),
            dead: BTreeSet::new(),
            broken_images: BTreeSet::new(),
            next_ip: 1,
        };
        let version = state::RaiseVersion { version: state::VERSION };
        world.apply(&Command {
            ops: vec![Op { kind: Some(state::op::Kind::RaiseVersion(version)) }],
            ..Command::default()
        });
        world.take_office();
        world.settle();
        world
    }

    /// The same with this many Ready nodes of 4 CPUs, 8 GiB and 110 pods.
    pub fn with_nodes(count: usize) -> Self {
        let mut world = Self::new();
        for i in 1..=count {
            world.create("", "nodes", node(&format!("node-{i}")));
        }
        world.settle();
        world
    }

    /// Looks at everything, as a new leader does.
    pub fn take_office(&mut self) {
        self.scheduler = Scheduler::default();
        for (row, controller) in ALL.iter().enumerate() {
            self.queue.extend((controller.resync)(&self.root).into_iter().map(|key| (row, key)));
        }
    }

    pub fn cx(&mut self) -> Context {
        self.seed += 1;
        Context::new(self.now, self.seed << 20, Arc::new(self.settings.clone()))
    }

    /// Applies one command, checks the laws of change, and wakes the controllers.
    pub fn apply(&mut self, command: &Command) -> Outcome {
        self.index += 1;
        let before = self.root.revision();
        let applied = self.root.apply(EntryId { term: 1, index: self.index }, command);
        assert_eq!(invariants::check_history(&self.root, before), []);
        for event in &applied.events {
            assert_eq!(invariants::check_event(event), []);
            for (row, controller) in ALL.iter().enumerate() {
                if controller.watches(&event.key.group, &event.key.resource) {
                    self.queue.extend((controller.keys)(&self.root, event).into_iter().map(|key| (row, key)));
                }
            }
        }
        applied.outcome
    }

    /// Creates an object as a client would.
    pub fn create(&mut self, group: &str, resource: &str, object: Value) -> Key {
        let mut cx = self.cx();
        let command = emit::create(&self.root, group, resource, object, &mut cx).expect("admitted");
        let key = command.expects[0].key.clone();
        let outcome = self.apply(&command);
        assert_eq!(outcome.refusal, None, "{key}");
        key
    }

    /// Changes an object as a client's PUT would.
    pub fn edit(&mut self, key: &Key, change: impl FnOnce(&mut Value)) {
        let kind = Kinds::builtin().by_resource(&key.group, &key.resource).expect("a kind");
        let old = self.object(key);
        let mut new = old.clone();
        change(&mut new);
        kind.default(&mut new);
        kind.prepare_update(&mut new, &old, Part::Main);
        self.put(&new, key);
    }

    /// Writes an object as it is given, status and all.
    pub fn put(&mut self, object: &Value, key: &Key) {
        let kind = Kinds::builtin().by_resource(&key.group, &key.resource).expect("a kind");
        let put = record::put(kind, object).expect("complete");
        let outcome = self.apply(&Command { ops: vec![Op::put(put)], ..Command::default() });
        assert_eq!(outcome.refusal, None, "{key}");
    }

    /// Deletes as a client's DELETE with policy Background would.
    pub fn delete(&mut self, key: &Key) {
        let cx = self.cx();
        let present = self.root.get(key).expect("exists").clone();
        let command = match key.resource.as_str() {
            "namespaces" => {
                let mut object = record::parse(&present);
                let kind = Kinds::builtin().by_resource("", "namespaces").expect("a kind");
                kind.mark_deleted(&mut object, cx.now, None);
                emit::update(key, &present, &object)
            }
            _ => emit::delete(key, &present, &cx),
        };
        self.apply(&command.expect("not marked yet"));
    }

    pub fn remove(&mut self, key: &Key) {
        self.apply(&Command { ops: vec![Op::delete(key.clone())], ..Command::default() });
    }

    pub fn object(&self, key: &Key) -> Value {
        record::parse(self.root.get(key).unwrap_or_else(|| panic!("{key} is missing")))
    }

    pub fn list(&self, group: &str, resource: &str, namespace: &str) -> Vec<(Key, Value)> {
        self.root
            .list(group, resource, Some(namespace))
            .map(|(key, object)| (key.clone(), record::parse(object)))
            .collect()
    }

    /// The pods of `default` that are neither finished nor being deleted.
    pub fn pods(&self) -> Vec<(Key, Arc<Record>)> {
        self.root
            .list("", "pods", Some("default"))
            .filter(|(_, pod)| pod.header.deletion_ms == 0 && !emit::is_finished(pod))
            .map(|(key, pod)| (key.clone(), pod.clone()))
            .collect()
    }

    /// The reasons and messages of the Events about an object.
    pub fn said(&self, name: &str) -> Vec<(String, String)> {
        self.root
            .list("", "events", None)
            .map(|(_, event)| record::parse(event))
            .filter(|event| read::text(event, "involvedObject.name") == name)
            .map(|event| (read::text(&event, "reason").to_owned(), read::text(&event, "message").to_owned()))
            .collect()
    }

    /// What waits to be planned.
    pub fn waiting(&self) -> Vec<(usize, Key)> {
        self.queue.iter().cloned().collect()
    }

    /// Plans one key and applies the plan; how many commands it had.
    pub fn plan(&mut self, item: &(usize, Key)) -> usize {
        self.queue.remove(item);
        let mut cx = self.cx();
        let plan = (ALL[item.0].plan)(&self.root, &item.1, &mut cx);
        if let Some(again) = plan.again {
            let at = self.now.checked_add(again).expect("a time");
            self.timers.entry(item.clone()).and_modify(|timer| *timer = at.min(*timer)).or_insert(at);
        }
        for command in &plan.commands {
            let outcome = self.apply(command);
            if outcome.refusal.is_some() {
                self.queue.insert(item.clone());
            }
        }
        plan.commands.len()
    }

    pub fn schedule(&mut self) -> usize {
        let mut cx = self.cx();
        let mut scheduler = std::mem::take(&mut self.scheduler);
        let placements = scheduler.plan(&self.root, &mut cx);
        self.scheduler = scheduler;
        let commands: Vec<Command> = placements.into_iter().flat_map(|placement| placement.commands).collect();
        for command in &commands {
            self.apply(command);
        }
        commands.len()
    }

    /// What the kubelets would do next: pods to start, pods to take away.
    pub fn kubelet_work(&self) -> Vec<Key> {
        let works = |pod: &Record| {
            let node = &pod.header.node;
            let known = !node.is_empty() && !self.dead.contains(node) && self.root.get(&Key::node(node)).is_some();
            let image = read::text(&record::parse(pod)["spec"]["containers"][0], "image").to_owned();
            let starts = emit::field(pod, "status.podIP").is_empty() && !self.broken_images.contains(&image);
            known && (pod.header.deletion_ms != 0 || (starts && !emit::is_finished(pod)))
        };
        self.root.list("", "pods", None).filter(|(_, pod)| works(pod)).map(|(key, _)| key.clone()).collect()
    }

    /// The kubelet starts the pod, or takes it away if it is being deleted.
    pub fn kubelet(&mut self, key: &Key) {
        let Some(present) = self.root.get(key).cloned() else { return };
        if present.header.deletion_ms != 0 {
            self.remove(key);
            return;
        }
        let mut pod = record::parse(&present);
        read::set(&mut pod, "status.phase", "Running".into());
        let ip = self.next_ip;
        self.next_ip += 1;
        read::set(&mut pod, "status.podIP", format!("10.244.{}.{}", ip / 250, ip % 250 + 1).into());
        let now = self.cx().time();
        for kind in ["ContainersReady", "Ready"] {
            read::set_condition(&mut pod, &read::Condition { kind, status: "True", reason: "", message: "" }, "", &now);
        }
        self.put(&pod, key);
    }

    /// Silence as the sessions of all masters would report it.
    pub fn hear(&mut self, silent: &[(&str, u64)]) -> usize {
        let heard = silent.iter().map(|(node, ms)| ((*node).to_owned(), *ms)).collect();
        let mut cx = self.cx();
        let commands = nodelife::plan(&self.root, &heard, &mut cx);
        for command in &commands {
            let outcome = self.apply(command);
            assert_eq!(outcome.refusal, None);
        }
        commands.len()
    }

    /// Runs everything until nothing is left to do at this time.
    pub fn settle(&mut self) {
        for _ in 0..PLANS_MAX {
            if let Some(item) = self.queue.first().cloned() {
                self.plan(&item);
            } else if self.schedule() == 0 {
                let work = self.kubelet_work();
                if work.is_empty() {
                    assert_eq!(invariants::check(&self.root), []);
                    return;
                }
                work.iter().for_each(|key| self.kubelet(key));
            }
        }
        panic!("not at rest after {PLANS_MAX} plans; waiting: {:?}", self.queue);
    }

    /// Settled, and every law of a quiet cluster holds; a new leader finds nothing to do.
    pub fn settle_quietly(&mut self) {
        self.settle();
        assert_eq!(invariants::check_quiescent(&self.root), []);
        self.assert_nothing_to_plan();
    }

    /// Planning again yields nothing.
    pub fn assert_nothing_to_plan(&mut self) {
        for row in ALL {
            for key in (row.resync)(&self.root) {
                let mut cx = self.cx();
                let plan = (row.plan)(&self.root, &key, &mut cx);
                assert_eq!(plan.commands, [], "{} of {key}", row.name);
            }
        }
        let mut cx = self.cx();
        let placements = Scheduler::default().plan(&self.root, &mut cx);
        assert!(placements.iter().all(|placement| placement.commands.is_empty()), "{placements:?}");
    }

    /// Moves the clock, stopping wherever a plan asked to look again.
    pub fn advance(&mut self, by: Duration) {
        let end = self.now.checked_add(by).expect("a time");
        while let Some((item, at)) = self
            .timers
            .iter()
            .min_by_key(|(_, at)| **at)
            .map(|(item, at)| (item.clone(), *at))
            .filter(|(_, at)| *at <= end)
        {
            self.now = at.max(self.now);
            self.timers.remove(&item);
            self.queue.insert(item);
            self.settle();
        }
        self.now = end;
        self.settle();
    }
}

/// A Ready node.
pub fn node(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
        "spec": {},
        "status": {
            "allocatable": { "cpu": "4", "memory": "8Gi", "pods": "110" },
            "capacity": { "cpu": "4", "memory": "8Gi", "pods": "110" },
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "KubeletReady",
                "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
        },
    })
}

/// A Deployment of one container in `default`.
pub fn deployment(name: &str, replicas: i64) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name } },
                "spec": { "containers": [{ "name": "c", "image": "image:1" }] },
            },
        },
    })
}

/// A pod of one container in `default`.
pub fn pod(name: &str, spec: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "namespace": "default", "labels": { "app": name } },
        "spec": { "containers": [{ "name": "c", "image": "image:1" }] },
    });
    for (key, value) in spec.as_object().into_iter().flatten() {
        read::set(&mut pod, &format!("spec.{key}"), value.clone());
    }
    pod
}
