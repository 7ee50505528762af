//! The table of workloads: what clients of the Kubernetes API do while faults happen. One file and one row each.
//!
//! Clients ask one master until it fails them, then the next. They judge nothing; `laws` reads what they noted.

mod append;
mod counter;
mod deployments;
mod followers;
mod leases;
mod registers;
mod services;
mod set;

use std::pin::Pin;
use std::time::Duration;

use anyhow::{Result, bail};
use http::Method;
use serde_json::{Value, json};

use super::clients::Client;
use super::history::Outcome;

pub use deployments::TEMPLATE;
pub use followers::caught_up;

type Task = for<'a> fn(&'a mut Client) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Clients of one kind.
pub struct Workload {
    pub name: &'static str,
    pub about: &'static str,
    /// How many there are at a time.
    pub clients: usize,
    /// One client, until the run stops it.
    pub run: Task,
    /// Whether it goes on while the others' last reads are made.
    pub last: bool,
    /// What is read at the end, through each master.
    pub finish: Task,
}

pub const ALL: &[Workload] = &[
    Workload {
        name: "registers",
        about: "ConfigMaps read, replaced by resourceVersion and without, created and deleted",
        clients: 5,
        last: false,
        run: |client| Box::pin(registers::run(client)),
        finish: |client| Box::pin(registers::finish(client)),
    },
    Workload {
        name: "set",
        about: "one new ConfigMap after the other, and lists of all of them",
        clients: 3,
        last: false,
        run: |client| Box::pin(set::run(client)),
        finish: |client| Box::pin(set::finish(client)),
    },
    Workload {
        name: "append",
        about: "numbers appended to lists, each by a replace that names the resourceVersion it read",
        clients: 3,
        last: false,
        run: |client| Box::pin(append::run(client)),
        finish: |client| Box::pin(append::finish(client)),
    },
    Workload {
        name: "counter",
        about: "counters raised by JSON patches that test the value before",
        clients: 3,
        last: false,
        run: |client| Box::pin(counter::run(client)),
        finish: |client| Box::pin(counter::finish(client)),
    },
    Workload {
        name: "leases",
        about: "Lease objects taken and given back as locks",
        clients: 4,
        last: false,
        run: |client| Box::pin(leases::run(client)),
        finish: |_| Box::pin(async {}),
    },
    Workload {
        name: "followers",
        about: "a watch per master over all that the others write, resumed elsewhere when it breaks and now and then",
        clients: 3,
        last: true,
        run: |client| Box::pin(followers::run(client)),
        finish: |_| Box::pin(async {}),
    },
    Workload {
        name: "services",
        about: "Services that ask for the same few node ports, made and given back",
        clients: 3,
        last: false,
        run: |client| Box::pin(services::run(client)),
        finish: |_| Box::pin(async {}),
    },
    Workload {
        name: "deployments",
        about: "Deployments scaled and rolled",
        clients: 2,
        last: false,
        run: |client| Box::pin(deployments::run(client)),
        finish: |_| Box::pin(async {}),
    },
];

pub fn find(name: &str) -> Result<&'static Workload> {
    match ALL.iter().find(|workload| workload.name == name) {
        Some(found) => Ok(found),
        None => bail!("there is no workload `{name}`; `chaos list` shows them"),
    }
}

/// All that workloads write carries it, with the workload's name as value.
pub const LABEL: &str = "hactl.local/chaos";

/// How long an object is used before the next of its kind: short histories are judged quickly.
const GENERATION: Duration = Duration::from_secs(20);
/// A read at the end is tried for so long.
const FINISH_WITHIN: Duration = Duration::from_secs(30);

/// The number of the present generation of objects. A cluster that began anew gets new ones: those of before went back in time.
fn generation(client: &Client) -> u64 {
    let begun_anew = client.history.restores() as u64;
    begun_anew * 1_000_000 + client.history.now() / u64::try_from(GENERATION.as_micros()).unwrap_or(1)
}

fn config_map(client: &Client, name: &str, key: &str, value: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": name, "namespace": client.namespace, "labels": { LABEL: client.workload } },
        "data": { key: value },
    })
}

/// The request that creates an object of this resource.
fn create(client: &Client, resource: &str, object: Value) -> (Method, String, Option<Value>) {
    (Method::POST, client.path(resource, ""), Some(object))
}

/// The request that replaces an object, whatever it is or, with a revision, only that version.
fn replace(
    client: &Client,
    resource: &str,
    name: &str,
    mut object: Value,
    of: Option<&Value>,
) -> (Method, String, Option<Value>) {
    if let Some(of) = of {
        object["metadata"]["resourceVersion"] = of["metadata"]["resourceVersion"].clone();
    }
    (Method::PUT, client.path(resource, name), Some(object))
}

/// Objects that the workload called so far.
fn objects(client: &Client) -> Vec<String> {
    let record = client.history.record();
    let lost = record.restores.last().map_or(0, |restore| restore.lost);
    let read_anyway = |begun| client.workload == "set" || begun >= lost;
    let own = record.operations.iter().filter(|one| one.workload == client.workload && read_anyway(one.begun));
    let mut names: Vec<String> = own.map(|one| one.object.clone()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// A read of one object of the workload.
type Read = for<'a> fn(&'a mut Client, &'a str) -> Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;

/// Reads every object of the workload once more, each until it is answered; gives up at the first that never is.
async fn read_all(client: &mut Client, read: Read) {
    for name in objects(client) {
        let since = std::time::Instant::now();
        while matches!(read(client, &name).await, Outcome::Failed(_) | Outcome::Unknown(_)) {
            if since.elapsed() > FINISH_WITHIN {
                let within = FINISH_WITHIN.as_secs();
                client.history.found(format!("{} could not read {name} at the end for {within} s", client.name));
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_distinct() {
        let mut names: Vec<&str> = super::ALL.iter().map(|workload| workload.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), super::ALL.len());
        assert!(super::find("registers").is_ok() && super::find("nothing").is_err());
    }
}
