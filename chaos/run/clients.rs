//! Clients of the Kubernetes API, one door per master, and what their answers mean for a history.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use http::{Method, Request};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::history::{Call, History, Outcome, Revision};
use super::targets::Machine;
use crate::Random;

/// Without an answer for so long the outcome of a call is unknown.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
const CONNECT_LIMIT: Duration = Duration::from_millis(500);
/// The pause after a call that no master served, so that a dead cluster is not hammered.
const PAUSE: Duration = Duration::from_millis(50);

/// The way to one master.
#[derive(Clone)]
pub struct Door {
    pub master: String,
    client: kube::Client,
}

/// Why there is no answer, and what that says about the call.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// The state did not permit it: 404, 409, 422.
    Refused(u16, String),
    /// It was not carried out.
    Failed(String),
    Unknown(String),
}

impl Trouble {
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Refused(code, words) => Outcome::Refused(format!("{code} {words}")),
            Self::Failed(words) => Outcome::Failed(words),
            Self::Unknown(words) => Outcome::Unknown(words),
        }
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(code, words) => write!(f, "refused with {code}: {words}"),
            Self::Failed(words) => write!(f, "failed: {words}"),
            Self::Unknown(words) => write!(f, "no certain answer: {words}"),
        }
    }
}

impl std::error::Error for Trouble {}

impl Door {
    async fn open(kubeconfig: &Kubeconfig, master: &Machine) -> Result<Self> {
        let mut config =
            kube::Config::from_custom_kubeconfig(kubeconfig.clone(), &KubeConfigOptions::default()).await?;
        config.cluster_url = master.api.parse().with_context(|| format!("{} is no URL", master.api))?;
        config.connect_timeout = Some(CONNECT_LIMIT);
        config.default_retry = false;
        Ok(Self { master: master.name.clone(), client: kube::Client::try_from(config)? })
    }

    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    pub async fn get(&self, path: &str) -> Result<Value, Trouble> {
        self.ask(Method::GET, path, None).await
    }

    pub async fn text(&self, path: &str, limit: Duration) -> Result<String, Trouble> {
        let request = Request::get(path).body(Vec::new()).map_err(|error| Trouble::Failed(error.to_string()))?;
        match tokio::time::timeout(limit, self.client.request_text(request)).await {
            Ok(answer) => answer.map_err(trouble),
            Err(_) => Err(Trouble::Unknown(format!("no answer within {limit:?}"))),
        }
    }

    /// One request. A body of a PATCH is a JSON patch.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Trouble> {
        let kind = if method == Method::PATCH { "application/json-patch+json" } else { "application/json" };
        let body = body.map(Value::to_string).unwrap_or_default().into_bytes();
        let request = Request::builder().method(method).uri(path).header("content-type", kind).body(body);
        let request = request.map_err(|error| Trouble::Failed(error.to_string()))?;
        match tokio::time::timeout(ANSWER_LIMIT, self.client.request::<Value>(request)).await {
            Ok(answer) => answer.map_err(trouble),
            Err(_) => Err(Trouble::Unknown(format!("no answer within {} s", ANSWER_LIMIT.as_secs()))),
        }
    }
}

/// What an error says about the call: the API's own words where it answered, else whether the request can have arrived.
fn trouble(error: kube::Error) -> Trouble {
    let kube::Error::Api(status) = &error else {
        return if never_left(&error) { Trouble::Failed(chain(&error)) } else { Trouble::Unknown(chain(&error)) };
    };
    let words = format!("{}: {}", status.reason, status.message);
    match status.code {
        404 | 409 | 410 | 422 => Trouble::Refused(status.code, words),
        // By the API's contract a 503 entered no log; the laws find out whether that is so.
        400..=499 | 503 | 507 => Trouble::Failed(format!("{} {words}", status.code)),
        _ => Trouble::Unknown(format!("{} {words}", status.code)),
    }
}

/// Whether there was no connection the request could have gone over.
fn never_left(error: &kube::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>()
            && error.kind() == std::io::ErrorKind::ConnectionRefused
        {
            return true;
        }
        cause = error.source();
    }
    false
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !words.contains(&next) {
            words = format!("{words}: {next}");
        }
        cause = error.source();
    }
    words
}

/// The doors of a cluster, in the order of its masters.
#[derive(Clone)]
pub struct Doors(pub Arc<Vec<Door>>);

impl Doors {
    /// # Errors
    /// When the kubeconfig cannot be used.
    pub async fn open(kubeconfig: &std::path::Path, masters: &[Machine]) -> Result<Self> {
        let read = Kubeconfig::read_from(kubeconfig)
            .with_context(|| format!("cannot use the kubeconfig {}", kubeconfig.display()))?;
        let mut doors = Vec::new();
        for master in masters {
            doors.push(Door::open(&read, master).await?);
        }
        Ok(Self(Arc::new(doors)))
    }

    pub fn to(&self, master: &str) -> Option<&Door> {
        self.0.iter().find(|door| door.master == master)
    }
}

/// One client of a workload: asks a master until that one fails it, then the next; notes every call.
pub struct Client {
    pub name: String,
    pub workload: &'static str,
    pub namespace: String,
    pub random: Random,
    /// No two clients of a workload have the same.
    pub number: usize,
    pub history: Arc<History>,
    pub stop: CancellationToken,
    doors: Doors,
    at: usize,
    /// Stay with this master whatever happens.
    fixed: bool,
    made: u64,
}

/// Where it is found in the API and what its JSON says.
pub fn revision(object: &Value) -> Revision {
    object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}

impl Client {
    pub fn new(
        workload: &'static str,
        number: usize,
        namespace: String,
        doors: Doors,
        history: Arc<History>,
        random: Random,
        stop: CancellationToken,
    ) -> Self {
        let name = format!("{workload}-{number}");
        Self { name, workload, namespace, random, number, history, stop, doors, at: number, fixed: false, made: 0 }
    }

    /// One that asks this master only.
    pub fn of(&self, master: usize) -> Self {
        Self {
            name: format!("{}-at-{}", self.workload, self.doors.0[master % self.doors.0.len()].master),
            workload: self.workload,
            namespace: self.namespace.clone(),
            random: Random::new(master as u64),
            number: self.number,
            history: self.history.clone(),
            stop: self.stop.clone(),
            doors: self.doors.clone(),
            at: master,
            fixed: true,
            made: 0,
        }
    }

    pub fn door(&self) -> &Door {
        &self.doors.0[self.at % self.doors.0.len()]
    }

    pub fn masters(&self) -> usize {
        self.doors.0.len()
    }

    pub fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// A number that no other call of the workload gets.
    pub fn unique(&mut self) -> u64 {
        self.made += 1;
        self.made * 1000 + self.number as u64
    }

    pub fn path(&self, resource: &str, name: &str) -> String {
        let prefix = match resource {
            "leases" => "/apis/coordination.k8s.io/v1",
            "deployments" => "/apis/apps/v1",
            _ => "/api/v1",
        };
        let path = format!("{prefix}/namespaces/{}/{resource}", self.namespace);
        if name.is_empty() { path } else { format!("{path}/{name}") }
    }

    /// Waits between two calls, at most until the run stops.
    pub async fn pause(&mut self, low_ms: u64, high_ms: u64) {
        let time = Duration::from_millis(self.random.between(low_ms, high_ms));
        tokio::select! { () = tokio::time::sleep(time) => {}, () = self.stop.cancelled() => {} }
    }

    /// From now on this master is asked only, whatever happens.
    pub fn stay(&mut self) {
        self.fixed = true;
    }

    /// From now on the next master is asked.
    pub fn next(&mut self) {
        if !self.fixed {
            self.at += 1;
        }
    }

    /// The next master, after one that failed, and not at once.
    pub async fn move_on(&mut self) {
        self.next();
        tokio::time::sleep(PAUSE).await;
    }

    /// Makes a call and notes it; `understand` says what a good answer means.
    pub async fn call(
        &mut self,
        object: &str,
        call: Call,
        request: (Method, String, Option<Value>),
        understand: impl FnOnce(&Value) -> Outcome,
    ) -> (Outcome, Value) {
        let door = self.door().clone();
        let number = self.history.begin(self.workload, &self.name, &door.master, object, call.clone());
        let (method, path, body) = request;
        let answer = door.ask(method, &path, body.as_ref()).await;
        let (outcome, value) = match answer {
            Ok(value) => (understand(&value), value),
            // Reading something that is not there is an answer.
            Err(Trouble::Refused(404, _)) if call == Call::Read => (Outcome::Value(None, 0), Value::Null),
            Err(trouble) => (trouble.outcome(), Value::Null),
        };
        self.history.end(number, outcome.clone());
        if matches!(outcome, Outcome::Failed(_) | Outcome::Unknown(_)) {
            self.move_on().await;
        }
        (outcome, value)
    }

    pub async fn write(&mut self, object: &str, call: Call, request: (Method, String, Option<Value>)) -> Outcome {
        self.call(object, call, request, |answer| Outcome::Done(revision(answer))).await.0
    }

    /// Reads one object; `value` picks its value. The object comes back too, for the write that builds on it.
    pub async fn read(
        &mut self,
        object: &str,
        path: String,
        value: impl FnOnce(&Value) -> Option<String>,
    ) -> (Outcome, Value) {
        self.call(object, Call::Read, (Method::GET, path, None), |answer| {
            Outcome::Value(value(answer), revision(answer))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(code: u16) -> Trouble {
        let status = kube::core::Status { code, reason: "R".into(), message: "m".into(), ..Default::default() };
        trouble(kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn only_what_certainly_did_nothing_counts_so() {
        assert!(matches!(api(409), Trouble::Refused(409, _)));
        assert!(matches!(api(422), Trouble::Refused(422, _)));
        assert!(matches!(api(503), Trouble::Failed(_)));
        assert!(matches!(api(429), Trouble::Failed(_)));
        assert!(matches!(api(504), Trouble::Unknown(_)));
        assert!(matches!(api(500), Trouble::Unknown(_)));
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert!(matches!(trouble(kube::Error::Service(refused.into())), Trouble::Failed(_)));
        let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert!(matches!(trouble(kube::Error::Service(reset.into())), Trouble::Unknown(_)));
    }
}
