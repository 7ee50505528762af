//! Laws of all changes in their order, judged once as they are first seen: who holds a claim, how many pods a ReplicaSet was
//! given, how much the store holds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use control::record;
use state::{Event, Key, Record, Revision, State};

/// A plan may be carried out so long after it was made: what a ReplicaSet wanted within this may still be made for it.
const PLANNED: Duration = Duration::from_secs(15);
/// A store over its quota still takes this part of it more, for what a running cluster needs; and bytes that a deletion's
/// time adds to what is being deleted.
const HEADROOM: u64 = 16;
const MARKS_BYTES: u64 = 64 << 10;

#[derive(Default)]
pub struct Changes {
    /// All up to this were followed.
    position: Revision,
    claims: BTreeMap<String, Key>,
    sets: BTreeMap<String, Set>,
    /// Quota and bytes of the state that was seen last.
    quota: u64,
    bytes: u64,
}

/// A ReplicaSet, by its uid.
#[derive(Default)]
struct Set {
    /// What it wanted of late, and when.
    wanted: VecDeque<(Duration, usize)>,
    pods: BTreeSet<Key>,
}

fn is_active(pod: &Record) -> bool {
    let finished = matches!(pod.header.fields.get("status.phase"), Some("Succeeded" | "Failed"));
    pod.header.deletion_ms == 0 && !finished
}

impl Changes {
    /// Follows what a state shows beyond what was followed before; the laws that are broken.
    pub fn follow(&mut self, root: &State, now: Duration) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        if root.revision() <= self.position {
            return found;
        }
        match root.events_after(self.position) {
            Ok(events) => events.for_each(|event| self.change(event, now, &mut found)),
            // Compacted before it was seen: begun anew.
            Err(_) => *self = Self::of(root),
        }
        self.position = root.revision();
        found.extend(self.fill(root.quota(), root.bytes()));
        found
    }

    fn of(root: &State) -> Self {
        let claims =
            root.iter().flat_map(|(key, record)| record.header.claims.iter().map(|one| (one.clone(), key.clone())));
        Self { claims: claims.collect(), ..Self::default() }
    }

    /// A store that was fuller when it got its quota may only get emptier.
    fn fill(&mut self, quota: u64, bytes: u64) -> Option<(&'static str, String)> {
        let most = quota + quota / HEADROOM + MARKS_BYTES;
        let grew = bytes > self.bytes && quota == self.quota;
        let before = std::mem::replace(&mut self.bytes, bytes);
        self.quota = quota;
        let broken = quota > 0 && grew && bytes > most;
        broken.then(|| ("the store keeps its quota", format!("from {before} to {bytes} bytes, of {quota}")))
    }

    fn change(&mut self, event: &Event, now: Duration, found: &mut Vec<(&'static str, String)>) {
        for claim in event.old.iter().flat_map(|old| &old.header.claims) {
            self.claims.remove(claim);
        }
        for claim in event.new.iter().flat_map(|new| &new.header.claims) {
            if let Some(other) = self.claims.insert(claim.clone(), event.key.clone()) {
                found.push(("a claim has one holder", format!("{claim} is held by {other} and {}", event.key)));
            }
        }
        match event.key.resource.as_str() {
            "replicasets" => self.set_changed(event, now),
            "pods" => self.pod_changed(event, now, found),
            _ => {}
        }
    }

    fn set_changed(&mut self, event: &Event, now: Duration) {
        let Some(new) = &event.new else {
            self.sets.remove(&event.old.as_ref().map_or_else(String::new, |old| old.header.uid.clone()));
            return;
        };
        let wants = record::parse(new).pointer("/spec/replicas").and_then(serde_json::Value::as_u64).unwrap_or(1);
        let set = self.sets.entry(new.header.uid.clone()).or_default();
        if set.wanted.back().is_none_or(|(_, last)| *last as u64 != wants) {
            set.wanted.push_back((now, wants as usize));
        }
    }

    fn pod_changed(&mut self, event: &Event, now: Duration, found: &mut Vec<(&'static str, String)>) {
        let versions = event.new.iter().chain(&event.old);
        let Some(uid) = versions.flat_map(|pod| &pod.header.owners).find(|owner| owner.controller) else { return };
        let Some(set) = self.sets.get_mut(&uid.uid) else { return };
        if !event.new.as_ref().is_some_and(|pod| is_active(pod)) {
            set.pods.remove(&event.key);
            return;
        }
        // The last thing it wanted counts however old, and whatever it wanted within the time that a plan may take.
        while set.wanted.len() > 1 && set.wanted[1].0 + PLANNED < now {
            set.wanted.pop_front();
        }
        let most = set.wanted.iter().map(|(_, wanted)| *wanted).max().unwrap_or(0);
        if set.pods.insert(event.key.clone()) && set.pods.len() > most {
            let what = format!("{} is pod {} of a ReplicaSet that wanted {most}", event.key, set.pods.len());
            found.push(("no pod is made twice", what));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;
    use state::{Header, Owner};

    use super::*;

    fn record(header: Header, spec: &serde_json::Value) -> Option<Arc<Record>> {
        const BEFORE: &str = "{\"metadata\":{\"resourceVersion\":";
        let body = format!("{BEFORE}}},\"spec\":{spec}}}").into();
        let split = BEFORE.len() as u32;
        Some(Arc::new(Record { header, body, split, managed_fields: bytes::Bytes::new(), created: 1, revision: 1 }))
    }

    fn set(replicas: u64) -> Option<Arc<Record>> {
        record(Header { uid: "set".into(), ..Header::default() }, &json!({ "replicas": replicas }))
    }

    fn pod(name: &str) -> Option<Arc<Record>> {
        let owners = vec![Owner { uid: "set".into(), controller: true, block_deletion: false }];
        record(Header { uid: name.into(), owners, ..Header::default() }, &json!({}))
    }

    fn service(claim: &str) -> Option<Arc<Record>> {
        record(Header { claims: vec![claim.into()], ..Header::default() }, &json!({}))
    }

    type Change<'a> = (&'a str, &'a str, Option<Arc<Record>>, Option<Arc<Record>>);

    /// Changes, one each second; the laws they break.
    fn check(changes: &[Change<'_>], broken: &[&str]) {
        let mut all = Changes::default();
        let mut found = Vec::new();
        for (at, (resource, name, old, new)) in changes.iter().enumerate() {
            let key = Key::new("", *resource, "default", *name);
            let event = Event { revision: at as u64 + 1, key, old: old.clone(), new: new.clone() };
            all.change(&event, Duration::from_secs(at as u64), &mut found);
        }
        let found: Vec<&str> = found.iter().map(|(law, _)| *law).collect();
        assert_eq!(found, broken);
    }

    #[test]
    fn a_claim_has_one_holder_at_a_time() {
        let ip = || service("clusterip/10.96.0.7");
        check(&[("services", "a", None, ip()), ("services", "b", None, ip())], &["a claim has one holder"]);
        check(&[("services", "a", None, ip()), ("services", "a", ip(), ip())], &[]);
        check(&[("services", "a", None, ip()), ("services", "a", ip(), None), ("services", "b", None, ip())], &[]);
    }

    #[test]
    fn a_store_over_its_quota_does_not_grow() {
        let mut all = Changes::default();
        for (quota, bytes, is_broken) in [
            (0, 9 << 20, false),
            (1 << 20, 9 << 20, false),
            (1 << 20, 8 << 20, false),
            (1 << 20, 8 << 20, false),
            (1 << 20, 9 << 20, true),
            (1 << 20, 1 << 20, false),
            (1 << 20, (1 << 20) + (1 << 16), false),
        ] {
            assert_eq!(all.fill(quota, bytes).is_some(), is_broken, "{bytes} of {quota}");
        }
    }

    #[test]
    fn a_set_gets_no_more_pods_than_it_wanted() {
        let of = ("replicasets", "s", None, set(1));
        check(&[of.clone(), ("pods", "a", None, pod("a"))], &[]);
        check(&[of.clone(), ("pods", "a", None, pod("a")), ("pods", "b", None, pod("b"))], &["no pod is made twice"]);
        check(
            &[of.clone(), ("pods", "a", None, pod("a")), ("pods", "a", pod("a"), None), ("pods", "b", None, pod("b"))],
            &[],
        );
        // Scaled down while its pods were on their way.
        check(
            &[("replicasets", "s", None, set(2)), ("replicasets", "s", set(2), set(0)), ("pods", "a", None, pod("a"))],
            &[],
        );
    }
}
