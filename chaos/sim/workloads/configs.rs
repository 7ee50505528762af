//! ConfigMaps that clients create, read, list, replace and delete through any master's API server, judged by what that answered;
//! and a client that follows them over the API's watch, from one master to the next.
//!
//! As with registers every value is written once. What the API says tells what certainly happened, what certainly did not,
//! and what nobody knows (see [`answer`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use futures::StreamExt as _;
use futures::future::join_all;
use http::Method;
use serde_json::{Value, json};
use state::Revision;

use crate::Random;
use crate::sim::laws::{Answer, Call, Seen};
use crate::sim::world::{Process, World};

pub const RESOURCE: &str = "configmaps";
/// What stands before the names in the record, and the name of a list of them all.
pub const SCOPE: &str = "configmaps/";
const ALL: &str = "/api/v1/namespaces/default/configmaps";
const FOLLOWER: &str = "configmaps/api";
const CLIENTS: usize = 2;
const CONFIGS: u64 = 3;
/// The longest pause between two calls.
const THINK_MS: u64 = 500;
/// How long a watch is asked for; the last two seconds follow a bookmark.
const WATCH_S: (u64, u64) = (1, 8);
/// The longest pause of the follower.
const REST_MS: u64 = 500;

/// Whether a ConfigMap of this name is one of these.
pub fn is_one(name: &str) -> bool {
    name.strip_prefix('k').is_some_and(|number| number.parse::<u64>().is_ok())
}

/// What a ConfigMap holds.
pub fn value(object: &Value) -> String {
    text(object, "/data/v").to_owned()
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Of an object, or a list at its time; 0: it says none.
fn revision(object: &Value) -> Revision {
    text(object, "/metadata/resourceVersion").parse().unwrap_or_default()
}

/// Those of a list, by name.
fn items(list: &Value) -> Vec<(String, String)> {
    let all = list.get("items").and_then(Value::as_array).into_iter().flatten();
    let named = all.map(|item| (text(item, "/metadata/name"), item)).filter(|(name, _)| is_one(name));
    named.map(|(name, item)| (format!("{SCOPE}{name}"), value(item))).collect()
}

pub async fn run(world: Arc<World>, mut random: Random) {
    let follower = follow(world.clone(), random.fork());
    let clients = (1..=CLIENTS).map(|number| {
        let client = Client {
            world: world.clone(),
            name: format!("k{number}"),
            random: random.fork(),
            known: BTreeMap::new(),
            made: 0,
        };
        client.run()
    });
    tokio::join!(follower, join_all(clients.collect::<Vec<_>>()));
}

struct Client {
    world: Arc<World>,
    name: String,
    random: Random,
    /// Value and revision of each, as this client saw it last.
    known: BTreeMap<String, (String, Revision)>,
    made: u64,
}

impl Client {
    async fn run(mut self) {
        while !self.world.quiet.is_cancelled() {
            let config = format!("k{}", self.random.between(1, CONFIGS + 1));
            let processes = self.world.processes();
            if let Some((_, process)) = self.random.pick(&processes) {
                self.call(process, &config).await;
            }
            self.world.think(self.random.between(0, THINK_MS)).await;
        }
    }

    async fn call(&mut self, process: &Process, config: &str) {
        self.made += 1;
        let fresh = format!("{}-{}", self.name, self.made);
        let one = format!("{ALL}/{config}");
        let known = self.known.get(config).cloned();
        let (call, method, path, body) = match (self.random.between(0, 100), known) {
            (0..15, _) => (Call::List, Method::GET, ALL, None),
            (15..45, Some((before, revision))) => {
                let body = object(config, &fresh, Some(revision));
                (Call::Swap(before, fresh), Method::PUT, one.as_str(), Some(body))
            }
            (45..65, _) => (Call::Create(fresh.clone()), Method::POST, ALL, Some(object(config, &fresh, None))),
            (65..80, _) => (Call::Delete, Method::DELETE, one.as_str(), None),
            _ => (Call::Read, Method::GET, one.as_str(), None),
        };
        let name = if call == Call::List { SCOPE.to_owned() } else { format!("{SCOPE}{config}") };
        let number = self.world.laws.begin(&self.name, &name, call.clone());
        let (status, told) = tokio::select! {
            biased;
            // The connection is lost.
            () = process.gone.cancelled() => (0, Value::Null),
            answer = process.control.request(method, path, body.as_ref()) => answer,
        };
        if status == 507 {
            self.world.note_full();
        }
        let answer = answer(&call, status, &told);
        match &answer {
            Answer::Done(_) | Answer::Saw(Some(_)) => {
                self.known.insert(config.to_owned(), (value(&told), revision(&told)));
            }
            Answer::Saw(None) | Answer::Made => drop(self.known.remove(config)),
            _ => {}
        }
        self.world.laws.end(number, answer);
    }
}

fn object(name: &str, value: &str, revision: Option<Revision>) -> Value {
    let mut object = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": {"v": value},
    });
    if let Some(revision) = revision {
        object["metadata"]["resourceVersion"] = revision.to_string().into();
    }
    object
}

/// What an answer of the API says of the call. A refusal says that nothing was done, and some also say why: what the call
/// asks for did not hold. A server that did nothing for want of a leader, a seat or room says so: 503 and 429 with the time
/// to come again after, 507. Whatever else comes, or does not come, leaves all open.
fn answer(call: &Call, status: u16, body: &Value) -> Answer {
    let again = body.pointer("/details/retryAfterSeconds").is_some();
    match (call, status) {
        (Call::Read, 200) => Answer::Saw(Some(value(body))),
        (Call::Read, 404) => Answer::Saw(None),
        (Call::List, 200) => Answer::All(items(body), revision(body)),
        (Call::Create(_), 201) | (Call::Swap(..), 200) => Answer::Done(revision(body)),
        (Call::Delete, 200) => Answer::Made,
        (Call::Create(_), 409) | (Call::Swap(..), 404 | 409) | (Call::Delete, 404) => Answer::Declined,
        // Of a namespace that is not there, or being deleted; of an object that others kept changing.
        (_, 403 | 404 | 409 | 507) => Answer::Failed,
        (_, 429 | 503) if again => Answer::Failed,
        _ => Answer::Unknown,
    }
}

/// Follows all of them, each watch at another master, going on where the last one ended.
async fn follow(world: Arc<World>, mut random: Random) {
    while !world.quiet.is_cancelled() {
        let processes = world.processes();
        if let Some((_, process)) = random.pick(&processes) {
            let seconds = random.between(WATCH_S.0, WATCH_S.1);
            tokio::select! {
                biased;
                () = world.quiet.cancelled() => {}
                () = process.gone.cancelled() => {}
                () = watch(&world, process, seconds) => {}
            }
        }
        world.think(random.between(1, REST_MS)).await;
    }
}

async fn watch(world: &World, process: &Process, seconds: u64) {
    let position = world.laws.position(FOLLOWER);
    // 0 would ask for what is at hand.
    if position == 0 {
        return list(world, process).await;
    }
    let path = format!("{ALL}?watch=true&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={position}");
    let (status, body) = process.control.open(Method::GET, &path, None).await;
    match status {
        200 => frames(world, process, body).await,
        410 => list(world, process).await,
        _ => {}
    }
}

/// What lies before a list was missed.
async fn list(world: &World, process: &Process) {
    let (status, list) = process.control.request(Method::GET, ALL, None).await;
    if status == 200 {
        world.laws.skipped(FOLLOWER, revision(&list));
    }
}

async fn frames(world: &World, process: &Process, body: Body) {
    let mut chunks = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(Ok(chunk)) = chunks.next().await {
        bytes.extend_from_slice(&chunk);
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = bytes.drain(..=end).collect();
            let frame: Value = serde_json::from_slice(&line).unwrap_or_default();
            let object = frame.get("object").unwrap_or(&Value::Null);
            match seen(text(&frame, "/type"), object) {
                Some(rows) => world.laws.followed(FOLLOWER, rows, revision(object)),
                None if object.get("code") == Some(&json!(410)) => return list(world, process).await,
                None => return,
            }
        }
    }
}

/// The change that a frame tells of, if it is of one of these; none: it ends the watch.
fn seen(kind: &str, object: &Value) -> Option<Vec<Seen>> {
    let value = match kind {
        "ADDED" | "MODIFIED" => Some(value(object)),
        "DELETED" => None,
        "BOOKMARK" => return Some(Vec::new()),
        _ => return None,
    };
    let (name, revision) = (text(object, "/metadata/name"), revision(object));
    let row = || Seen { revision, name: format!("{SCOPE}{name}"), value, broken: Vec::new() };
    Some(is_one(name).then(row).into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_what_happened_what_did_not_and_what_nobody_knows() {
        let (create, swap) = (Call::Create("b".into()), Call::Swap("a".into(), "b".into()));
        let object = json!({"metadata": {"name": "k1", "resourceVersion": "7"}, "data": {"v": "b"}});
        let list = json!({"metadata": {"resourceVersion": "9"}, "items": [object, {"metadata": {"name": "kube"}}]});
        let again = json!({"details": {"retryAfterSeconds": 1}});
        let all = vec![("configmaps/k1".to_owned(), "b".to_owned())];
        for (call, status, body, says) in [
            (&create, 201, &object, Answer::Done(7)),
            (&swap, 200, &object, Answer::Done(7)),
            (&Call::Delete, 200, &Value::Null, Answer::Made),
            (&Call::Read, 200, &object, Answer::Saw(Some("b".into()))),
            (&Call::Read, 404, &Value::Null, Answer::Saw(None)),
            (&Call::List, 200, &list, Answer::All(all, 9)),
            (&create, 409, &Value::Null, Answer::Declined),
            (&swap, 409, &Value::Null, Answer::Declined),
            (&swap, 404, &Value::Null, Answer::Declined),
            (&Call::Delete, 404, &Value::Null, Answer::Declined),
            (&Call::Delete, 409, &Value::Null, Answer::Failed),
            (&create, 404, &Value::Null, Answer::Failed),
            (&create, 403, &Value::Null, Answer::Failed),
            (&create, 507, &Value::Null, Answer::Failed),
            (&create, 429, &again, Answer::Failed),
            (&swap, 503, &again, Answer::Failed),
            (&swap, 503, &Value::Null, Answer::Unknown),
            (&swap, 504, &again, Answer::Unknown),
            (&swap, 500, &Value::Null, Answer::Unknown),
            (&create, 0, &Value::Null, Answer::Unknown),
        ] {
            assert_eq!(answer(call, status, body), says, "{call:?} {status}");
        }
    }

    #[test]
    fn a_frame_is_a_change_a_bookmark_or_the_end() {
        let object = json!({"metadata": {"name": "k1", "resourceVersion": "7"}, "data": {"v": "b"}});
        let row = |value: Option<&str>| {
            let value = value.map(str::to_owned);
            Some(vec![Seen { revision: 7, name: "configmaps/k1".into(), value, broken: Vec::new() }])
        };
        assert_eq!(seen("ADDED", &object), row(Some("b")));
        assert_eq!(seen("MODIFIED", &object), row(Some("b")));
        assert_eq!(seen("DELETED", &object), row(None));
        assert_eq!(seen("ADDED", &json!({"metadata": {"name": "kube-root-ca.crt"}})), Some(Vec::new()));
        assert_eq!(seen("BOOKMARK", &object), Some(Vec::new()));
        assert_eq!(seen("ERROR", &json!({"code": 410})), None);
    }
}
