//! A container engine in memory: keeps every rule that the kubelet relies on and runs nothing.
//!
//! For tests and for clusters of pretended nodes. Containers run until signalled; `end` lets a test make one exit. Of commands,
//! `cat` repeats its input and `false` fails; every port repeats what it is sent.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use jiff::Timestamp;
use tokio::sync::{broadcast, watch};

use super::{
    Attached, Bridge, Container, Credentials, Error, Event, Exec, Image, Info, LogQuery, Network, Pipe, Result,
    Runtime, Spec, State, Stdio, Terminal, Usage, Written, label,
};

/// What is on its way back.
const ECHO_BYTES_MAX: usize = 64 * 1024;

struct Held {
    container: Container,
    network: Network,
}

#[derive(Default)]
struct Inside {
    made: u64,
    containers: BTreeMap<String, Held>,
    images: BTreeMap<String, Image>,
    bridges: BTreeMap<String, Bridge>,
    /// Images that a registry would have.
    registry: Vec<String>,
    /// Commands that were not waited for yet, by id.
    execs: BTreeMap<String, Vec<String>>,
}

pub struct Hollow {
    cluster_id: String,
    node_uid: String,
    inside: Mutex<Inside>,
    events: broadcast::Sender<Event>,
    hangs: watch::Sender<bool>,
    begun: tokio::time::Instant,
}

impl Hollow {
    pub fn new(cluster_id: &str, node_uid: &str) -> Hollow {
        Hollow {
            cluster_id: cluster_id.to_owned(),
            node_uid: node_uid.to_owned(),
            inside: Mutex::new(Inside::default()),
            events: broadcast::channel(1024).0,
            hangs: watch::channel(false).0,
            begun: tokio::time::Instant::now(),
        }
    }

    /// Lets `pull` find this image.
    pub fn publish(&self, image: &str) {
        self.lock().registry.push(image.to_owned());
    }

    /// Lets no question be answered until told otherwise, as an engine does whose disk hangs.
    pub fn hang(&self, hangs: bool) {
        self.hangs.send_replace(hangs);
    }

    async fn answers(&self) {
        // The sender lives as long as this does.
        let _ = self.hangs.subscribe().wait_for(|hangs| !hangs).await;
    }

    /// Makes a container exit by itself.
    pub fn end(&self, id: &str, code: i32) {
        let event = {
            let mut inside = self.lock();
            let Some(held) = inside.containers.get_mut(id).filter(|held| held.container.state == State::Running) else {
                return;
            };
            held.container.state = State::Exited;
            held.container.exit_code = code;
            held.container.finished = Some(Timestamp::now());
            event(&held.container, "die")
        };
        // Nobody may be listening.
        let _ = self.events.send(event);
    }

    /// Commands that have not ended.
    pub fn execs(&self) -> usize {
        self.lock().execs.len()
    }

    /// # Errors
    /// When it is not there, or does not run.
    fn running(&self, id: &str) -> Result<()> {
        match self.lock().containers.get(id) {
            Some(held) if held.container.state == State::Running => Ok(()),
            Some(_) => Err(Error::Conflict(format!("container {id} is not running"))),
            None => Err(Error::NotFound(format!("No such container: {id}"))),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn event(container: &Container, action: &str) -> Event {
    Event { pod_uid: container.label(label::POD_UID).to_owned(), action: action.to_owned() }
}

/// Every program ends well but this one.
fn code(command: &[String]) -> i32 {
    i32::from(command.first().is_some_and(|program| program == "false"))
}

/// The one program that writes: what it reads.
fn repeats(command: &[String]) -> bool {
    command.first().is_some_and(|program| program == "cat")
}

fn echo() -> Attached {
    let (near, far) = tokio::io::duplex(ECHO_BYTES_MAX);
    let output = tokio_util::io::ReaderStream::new(far)
        .map(|read| read.map(Written::Stdout).map_err(|error| Error::Refused(error.to_string())));
    Attached { input: Box::pin(near), output: output.boxed() }
}

#[async_trait]
impl Runtime for Hollow {
    async fn info(&self) -> Result<Info> {
        self.answers().await;
        Ok(Info {
            version: "0".to_owned(),
            api_version: "0".to_owned(),
            os_image: "hollow".to_owned(),
            kernel: "hollow".to_owned(),
            root_dir: "/".to_owned(),
        })
    }

    async fn ping(&self) -> Result<()> {
        self.answers().await;
        Ok(())
    }

    async fn list(&self, pod_uid: Option<&str>) -> Result<Vec<Container>> {
        self.answers().await;
        let inside = self.lock();
        let all = inside.containers.values().map(|held| &held.container);
        Ok(all.filter(|c| pod_uid.is_none_or(|uid| c.label(label::POD_UID) == uid)).cloned().collect())
    }

    async fn create(&self, spec: &Spec) -> Result<String> {
        self.answers().await;
        let mut inside = self.lock();
        if inside.containers.values().any(|held| held.container.name == spec.name) {
            return Err(Error::Conflict(format!("the name {} is taken", spec.name)));
        }
        let Some(image) = inside.images.get(&spec.image).cloned() else {
            return Err(Error::NotFound(format!("No such image: {}", spec.image)));
        };
        match &spec.network {
            Network::Bridge { name, .. } if !inside.bridges.contains_key(name) => {
                return Err(Error::NotFound(format!("network {name} not found")));
            }
            Network::Of(id) if !inside.containers.contains_key(id) => {
                return Err(Error::NotFound(format!("No such container: {id}")));
            }
            _ => {}
        }
        inside.made += 1;
        let id = format!("hollow{:010}", inside.made);
        let mut labels = spec.labels.clone();
        labels.insert(label::CLUSTER.to_owned(), self.cluster_id.clone());
        labels.insert(label::NODE.to_owned(), self.node_uid.clone());
        let container = Container {
            id: id.clone(),
            name: spec.name.clone(),
            labels,
            state: State::Created,
            exit_code: 0,
            oom_killed: false,
            error: String::new(),
            created: Timestamp::now(),
            started: None,
            finished: None,
            image: spec.image.clone(),
            image_id: image.id,
            stop_signal: String::new(),
        };
        inside.containers.insert(id.clone(), Held { container, network: spec.network.clone() });
        Ok(id)
    }

    async fn start(&self, id: &str) -> Result<()> {
        self.answers().await;
        let started = {
            let mut inside = self.lock();
            let network = match inside.containers.get(id) {
                None => return Err(Error::NotFound(format!("No such container: {id}"))),
                Some(held) if held.container.state == State::Running => return Ok(()),
                Some(held) => held.network.clone(),
            };
            let running = |held: &Held| held.container.state == State::Running;
            if let Network::Bridge { name, .. } = &network
                && !inside.bridges.contains_key(name)
            {
                return Err(Error::NotFound(format!("network {name} not found")));
            }
            if let Network::Bridge { .. } = &network
                && inside.containers.values().any(|held| running(held) && held.network == network)
            {
                return Err(Error::Refused("Address already in use".to_owned()));
            }
            if let Network::Of(sandbox) = &network
                && !inside.containers.get(sandbox).is_some_and(running)
            {
                return Err(Error::Conflict(format!("cannot join network of a non running container: {sandbox}")));
            }
            let Some(held) = inside.containers.get_mut(id) else {
                return Err(Error::NotFound(format!("No such container: {id}")));
            };
            held.container.state = State::Running;
            held.container.started = Some(Timestamp::now());
            event(&held.container, "start")
        };
        let _ = self.events.send(started);
        Ok(())
    }

    /// Every container pretends to keep a tenth of a processor busy, and a mebibyte in use.
    async fn usage(&self, ids: &[String]) -> Result<BTreeMap<String, Usage>> {
        self.answers().await;
        let used = Usage { cpu: self.begun.elapsed() / 10, memory_bytes: 1 << 20 };
        let inside = self.lock();
        let runs = |id: &&String| inside.containers.get(*id).is_some_and(|held| held.container.state == State::Running);
        Ok(ids.iter().filter(runs).map(|id| (id.clone(), used)).collect())
    }

    async fn signal(&self, id: &str, signal: &str) -> Result<()> {
        self.end(id, if signal == "SIGKILL" { 137 } else { 0 });
        Ok(())
    }

    async fn remove(&self, id: &str) -> Result<()> {
        let removed = self.lock().containers.remove(id);
        if let Some(held) = removed {
            let _ = self.events.send(event(&held.container, "destroy"));
        }
        Ok(())
    }

    async fn image(&self, name: &str) -> Result<Option<Image>> {
        Ok(self.lock().images.get(name).cloned())
    }

    async fn pull(&self, name: &str, _credentials: Option<Credentials>) -> Result<()> {
        let mut inside = self.lock();
        if !inside.registry.iter().any(|known| known == name) {
            return Err(Error::NotFound(format!("pull access denied for {name}, repository does not exist")));
        }
        let image = Image {
            id: format!("sha256:{name}"),
            digest: Some(format!("{name}@sha256:0")),
            size: 1,
            user: String::new(),
        };
        inside.images.insert(name.to_owned(), image);
        Ok(())
    }

    async fn load(&self, tar: Bytes) -> Result<()> {
        let bad = |e: std::io::Error| Error::Refused(format!("reading the archive: {e}"));
        let mut archive = tar::Archive::new(tar.as_ref());
        for entry in archive.entries().map_err(bad)? {
            let entry = entry.map_err(bad)?;
            if entry.path().map_err(bad)?.as_os_str() != "manifest.json" {
                continue;
            }
            let manifest: serde_json::Value =
                serde_json::from_reader(entry).map_err(|e| Error::Refused(e.to_string()))?;
            let name = manifest[0]["RepoTags"][0].as_str().unwrap_or_default().to_owned();
            let config = manifest[0]["Config"].as_str().unwrap_or_default();
            let image = Image {
                id: format!("sha256:{}", config.trim_end_matches(".json")),
                digest: None,
                size: tar.len() as u64,
                user: String::new(),
            };
            self.lock().images.insert(name, image);
            return Ok(());
        }
        Err(Error::Refused("the archive has no manifest.json".to_owned()))
    }

    async fn exec(&self, id: &str, command: &[String], _timeout: Duration) -> Result<Exec> {
        self.running(id)?;
        Ok(Exec { code: i64::from(code(command)), output: String::new() })
    }

    async fn create_exec(&self, id: &str, command: &[String], _stdio: Stdio) -> Result<String> {
        self.running(id)?;
        let mut inside = self.lock();
        inside.made += 1;
        let exec = format!("exec{:010}", inside.made);
        inside.execs.insert(exec.clone(), command.to_vec());
        Ok(exec)
    }

    async fn start_exec(&self, exec: &str, _stdio: Stdio) -> Result<Attached> {
        let command = self.lock().execs.get(exec).cloned();
        let command = command.ok_or_else(|| Error::NotFound(format!("No such exec instance: {exec}")))?;
        let mut echo = echo();
        if !repeats(&command) {
            echo.output = futures::stream::empty().boxed();
        }
        Ok(echo)
    }

    async fn wait_exec(&self, exec: &str) -> Result<i32> {
        let command = self.lock().execs.remove(exec);
        command.map(|command| code(&command)).ok_or_else(|| Error::NotFound(format!("No such exec instance: {exec}")))
    }

    async fn end_exec(&self, _id: &str, exec: &str) -> Result<()> {
        self.lock().execs.remove(exec);
        Ok(())
    }

    async fn attach(&self, id: &str, _stdio: Stdio) -> Result<Attached> {
        self.running(id)?;
        Ok(echo())
    }

    async fn resize(&self, _terminal: Terminal<'_>, _width: u16, _height: u16) -> Result<()> {
        Ok(())
    }

    async fn connect(&self, sandbox: &Container, _port: u16) -> Result<Box<dyn Pipe>> {
        self.running(&sandbox.id)?;
        let (near, far) = tokio::io::duplex(ECHO_BYTES_MAX);
        let (mut from, mut to) = tokio::io::split(far);
        tokio::spawn(async move { tokio::io::copy(&mut from, &mut to).await });
        Ok(Box::new(near))
    }

    async fn logs(&self, id: &str, _query: &LogQuery) -> Result<BoxStream<'static, Result<Bytes>>> {
        if self.lock().containers.contains_key(id) {
            Ok(futures::stream::empty().boxed())
        } else {
            Err(Error::NotFound(format!("No such container: {id}")))
        }
    }

    async fn events(&self) -> Result<BoxStream<'static, Event>> {
        self.answers().await;
        let events = tokio_stream::wrappers::BroadcastStream::new(self.events.subscribe());
        // A listener that fell behind has lost events: it must look at everything again, as after a broken connection.
        Ok(events
            .take_while(|e| futures::future::ready(e.is_ok()))
            .filter_map(|e| futures::future::ready(e.ok()))
            .boxed())
    }

    async fn ensure_bridge(&self, bridge: &Bridge) -> Result<()> {
        self.lock().bridges.insert(bridge.name.clone(), bridge.clone());
        Ok(())
    }

    async fn free_address(&self, _bridge: &str, _address: std::net::Ipv4Addr) -> Result<bool> {
        // Only running containers hold addresses here.
        Ok(false)
    }

    async fn remove_networks(&self) -> Result<()> {
        self.lock().bridges.clear();
        Ok(())
    }
}
