//! `hactl bench api`: what the clients of a Kubernetes API feel, on hactl or on any other server of it, beside what is
//! aimed at.
//!
//! ```text
//! pods that nothing runs ─▶ informers over them ─▶ memory ─▶ watch ─▶ creates ─▶ GETs ─▶ the store's own writes ─▶ aims
//! ```
//!
//! Pods come first, so that the memory is that of a server which holds them and nothing else of ours.
//!
//! **Invariant:** everything lies in one namespace of its own, which is deleted at the end, measured or not.

mod aims;
mod informer;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use http::Method;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::super::credentials::Access;
use super::super::progress::Progress;
use super::http::{Connection, Masters};
use super::kv::{self, run_name};
use super::load::{self, Client, Measured};
use super::options::{Load, duration};
use super::report::{figures, ms};
use super::{etcd, list, watch};
use aims::Found;

/// Different objects that are read.
const READ: usize = 1000;
/// Different keys that the store's own writes go to.
const STORE_KEYS: u64 = 10_000;
const WARM_UP: Duration = Duration::from_secs(1);

/// Measure any Kubernetes API: creates, reads, informers, watches, memory
#[derive(Debug, clap::Args)]
pub struct Api {
    /// The API servers, https URLs [default: the kubeconfig's]. Connections go round them
    #[arg(long = "server", value_name = "URL")]
    servers: Vec<String>,
    /// Connections over TLS that create and read, one request on each at a time
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1000))]
    connections: u32,
    /// How many objects an informer follows
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    objects: u32,
    /// Which objects an informer follows. Pods fit no node and are never run
    #[arg(long, value_name = "RESOURCE", default_value = "pods", value_parser = ["configmaps", "pods"])]
    resource: String,
    /// Events per second whose latency is measured
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Bytes of what each object holds
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    value_size: u32,
    /// How long each load is measured, in seconds or as 10s, 1m
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// The etcd below the server (host:port, without TLS), whose own writes the creates are compared with; hactl's are found
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',')]
    etcd: Vec<String>,
    /// A server's process on this machine, whose resident memory is read
    #[arg(long, value_name = "PID")]
    pid: Vec<u32>,
    /// Write all figures to this file too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    access: Access,
}

/// Creates one ConfigMap after the other, or reads some again and again.
struct One {
    connection: Connection,
    path: String,
    /// What is created; none: reads.
    filling: Option<String>,
}

impl Client for One {
    async fn once(&mut self, number: u64) -> Result<u64> {
        match &self.filling {
            Some(filling) => {
                let mut object = list::object("configmaps", number as usize, filling);
                // Names of their own: other measurements fill the namespace too.
                object["metadata"]["name"] = json!(format!("made-{number:07}"));
                self.connection.json(Method::POST, &self.path, Some(&object)).await?;
            }
            None => {
                let number = kv::scattered(number, READ as u64);
                let path = format!("{}/{}", self.path, read_name(number as usize));
                self.connection.json(Method::GET, &path, None).await?;
            }
        }
        Ok(0)
    }
}

fn read_name(number: usize) -> String {
    format!("read-{number:07}")
}

/// One run: where it works and what came of it so far.
struct Bench<'a> {
    options: &'a Api,
    masters: Masters,
    first: Connection,
    namespace: String,
    hactl: bool,
    stop: CancellationToken,
    found: Found,
    /// Everything, by its name in JSON.
    all: Map<String, Value>,
}

impl Api {
    pub async fn run(self) -> Result<()> {
        let (masters, stop) = (Masters::of_kubernetes(&self.access, &self.servers).await?, load::interrupted()?);
        let first = masters.connect(0).await?;
        let version = first.json(Method::GET, "/version", None).await?;
        let version = version["gitVersion"].as_str().unwrap_or("unknown").to_owned();
        let mut bench = Bench {
            options: &self,
            first,
            namespace: format!("bench-{}", run_name()),
            hactl: version.contains("hactl"),
            stop: stop.clone(),
            found: Found::default(),
            all: Map::new(),
            masters,
        };
        let head = format!("{} ({version})", bench.masters.endpoints.join(", "));
        bench.all.insert("servers".into(), json!(bench.masters.endpoints));
        bench.all.insert("version".into(), json!(version));
        bench.first.create_namespace(&bench.namespace).await?;
        let measured = tokio::select! {
            measured = bench.measure() => measured,
            () = stop.cancelled() => Err(anyhow::anyhow!("interrupted")),
        };
        let cleared = bench.first.delete_namespace(&bench.namespace).await;
        measured?;
        let rows = bench.found.rows();
        println!("{head}, {} connections over TLS, values of {} bytes", self.connections, self.value_size);
        print!("{}", aims::print(&rows));
        if let Some(path) = &self.json {
            bench.all.insert("aims".into(), json!(rows));
            let text = serde_json::to_string_pretty(&Value::Object(bench.all))?;
            std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
        }
        cleared
    }

    fn load(&self) -> Load {
        Load {
            clients: self.connections,
            value_size: self.value_size,
            duration: self.duration,
            warm_up: WARM_UP,
            endpoints: Vec::new(),
            connections: Some(self.connections),
            output: None,
        }
    }
}

impl Bench<'_> {
    fn path(&self, resource: &str) -> String {
        format!("/api/v1/namespaces/{}/{resource}", self.namespace)
    }

    async fn measure(&mut self) -> Result<()> {
        self.informers().await?;
        self.memory()?;
        self.watch().await?;
        self.creates().await?;
        self.reads().await?;
        self.store().await
    }

    async fn informers(&mut self) -> Result<()> {
        let (resource, count) = (&self.options.resource, self.options.objects as usize);
        let progress = Progress::start(format!("making {count} {resource} for informers"));
        if resource == "pods" {
            // A server without controllers makes none, and takes no pod without.
            let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
            let made = self.first.json(Method::POST, &self.path("serviceaccounts"), Some(&account)).await;
            made.map(drop).or_else(|error| match error.to_string().starts_with("409") {
                true => Ok(()),
                false => Err(error.context("cannot make the service account of the pods")),
            })?;
        }
        let (path, filling) = (self.path(resource), "x".repeat(self.options.value_size as usize));
        self.first.create_all(&path, count, |number| list::object(resource, number, &filling)).await?;
        progress.done("made");
        let progress = Progress::start("following them");
        let followed = match resource.as_str() {
            "pods" => informer::measure::<Pod>(&self.masters, &path, count).await,
            _ => informer::measure::<ConfigMap>(&self.masters, &path, count).await,
        };
        let followed = followed.context("cannot follow what was made")?;
        progress.done("followed");
        self.all.insert("informer".into(), json!(followed));
        self.found.informer = Some((followed, resource.clone(), count));
        Ok(())
    }

    fn memory(&mut self) -> Result<()> {
        let mut resident = Vec::new();
        for pid in &self.options.pid {
            resident.push(resident_bytes(*pid)?);
        }
        self.all.insert("resident_bytes".into(), json!(resident));
        let pods = if self.options.resource == "pods" { self.options.objects } else { 0 };
        self.found.resident = resident.into_iter().max().map(|bytes| (bytes, pods));
        Ok(())
    }

    async fn watch(&mut self) -> Result<()> {
        let progress = Progress::start(format!("watching {} events per second", self.options.rate));
        let watch = watch::Watch {
            watchers: 1,
            per_event: 1,
            whole: true,
            rate: self.options.rate,
            load: Load { connections: Some(1), ..self.options.load() },
            access: Access::default(),
        };
        let (measured, more) = watch.measure(&self.masters, &self.first, &self.namespace, &self.stop).await?;
        progress.done("watched");
        anyhow::ensure!(measured.errors == 0, "a write failed: {}", measured.first_error.unwrap_or_default());
        anyhow::ensure!(more["events_arrived"] == more["events_expected"], "not every event arrived: {more:?}");
        let number = |name: &str| more[name].as_f64().unwrap_or(f64::NAN);
        self.found.watch = Some(aims::Watched {
            asked_per_s: self.options.rate,
            per_s: number("writes_per_s"),
            p50_ms: number("after_ack_p50_ms"),
            p99_ms: number("after_ack_p99_ms"),
            from_send_p99_ms: ms(measured.latencies.value_at_quantile(0.99)),
        });
        let mut all = figures(&measured);
        all.extend(more);
        self.all.insert("watch".into(), all.into());
        Ok(())
    }

    async fn creates(&mut self) -> Result<()> {
        let filling = Some("x".repeat(self.options.value_size as usize));
        let measured = self.many("creating", filling).await?;
        self.found.creates = Some(aims::Rate::of(&measured));
        self.found.connections = self.options.connections;
        self.all.insert("creates".into(), figures(&measured).into());
        Ok(())
    }

    async fn reads(&mut self) -> Result<()> {
        let filling = "x".repeat(self.options.value_size as usize);
        let object = |number| {
            let mut object = list::object("configmaps", number, &filling);
            object["metadata"]["name"] = json!(read_name(number));
            object
        };
        self.first.create_all(&self.path("configmaps"), READ, object).await?;
        let measured = self.many("reading", None).await?;
        self.found.reads = Some(aims::Rate::of(&measured));
        self.all.insert("reads".into(), figures(&measured).into());
        Ok(())
    }

    /// A request at a time on each of the connections.
    async fn many(&self, what: &str, filling: Option<String>) -> Result<Measured> {
        let progress = Progress::start(format!("{what} on {} connections", self.options.connections));
        let mut clients = Vec::new();
        for number in 0..self.options.connections as usize {
            let connection = self.masters.connect(number).await?;
            clients.push(One { connection, path: self.path("configmaps"), filling: filling.clone() });
        }
        let measured = load::run(&self.options.load(), clients, &self.stop).await?;
        anyhow::ensure!(measured.errors == 0, "a request failed: {}", measured.first_error.unwrap_or_default());
        progress.done("measured");
        Ok(measured)
    }

    async fn store(&mut self) -> Result<()> {
        let mut load = self.options.load();
        let progress = || Progress::start("the store's own writes, under the same load");
        let (measured, progress) = if !self.options.etcd.is_empty() {
            load.endpoints = self.options.etcd.clone();
            let progress = progress();
            (etcd::writes(&load, STORE_KEYS, &self.stop).await, progress)
        } else if self.hactl {
            load.endpoints = self.masters.endpoints.clone();
            let progress = progress();
            (kv::writes(&load, STORE_KEYS, &self.options.access, &self.stop).await, progress)
        } else {
            return Ok(());
        };
        let measured = measured.context("cannot measure the store's own writes")?;
        progress.done("measured");
        self.found.store = Some(aims::Rate::of(&measured));
        self.all.insert("store_writes".into(), figures(&measured).into());
        Ok(())
    }
}

/// Of a process on this machine.
fn resident_bytes(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read the memory of process {pid}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    Ok(kilobytes.with_context(|| format!("{path} tells no VmRSS"))? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_process_is_found() {
        assert!(resident_bytes(std::process::id()).expect("our own") > 1 << 20);
        assert!(resident_bytes(u32::MAX).is_err());
    }
}
