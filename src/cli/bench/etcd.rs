//! `hactl bench etcd-put` and `etcd-get`: the same load on etcd, so that both are compared on one disk in one run.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use rpc::etcd::kv_client::KvClient;
use rpc::etcd::maintenance_client::MaintenanceClient;
use rpc::etcd::{DeleteRangeRequest, PutRequest, RangeRequest, StatusRequest};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use super::kv::{disk, run_name, scattered, some_value, stamped};
use super::load::{self, Client, Measured};
use super::options::{Keys, Load};
use super::report::Report;

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const SYNCS: u32 = 200;
const SYNC_BYTES: u32 = 2048;
/// Requests that fill at a time.
const FILLERS: u32 = 64;

/// Put the load of `put` on etcd (without TLS)
#[derive(Debug, clap::Args)]
pub struct Put {
    #[command(flatten)]
    etcd: Etcd,
}

/// Put the load of `get` on etcd (without TLS)
#[derive(Debug, clap::Args)]
pub struct Get {
    #[command(flatten)]
    etcd: Etcd,
}

#[derive(Debug, clap::Args)]
struct Etcd {
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    keys: Keys,
    /// A directory on etcd's disk, whose sync time is shown beside the figures
    #[arg(long, value_name = "DIR")]
    disk: Option<PathBuf>,
}

struct Store {
    run: String,
    endpoints: Vec<String>,
    channels: Vec<Channel>,
}

fn failed(status: tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("etcd: {}", status.message())
}

async fn connect(address: &str) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_LIMIT)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20);
    endpoint.connect().await.with_context(|| format!("no etcd answers at {address}"))
}

impl Store {
    async fn open(load: &Load) -> Result<Self> {
        let mut found = Vec::new();
        for address in load.addresses() {
            let mut client = MaintenanceClient::new(connect(&address).await?);
            let status = client.status(StatusRequest {}).await.map_err(failed)?.into_inner();
            let leads = status.header.is_some_and(|header| header.member_id == status.leader);
            found.push((!leads, address));
        }
        anyhow::ensure!(!found.is_empty(), "--endpoints must name etcd's members, host:port each");
        found.sort_by_key(|(follows, _)| *follows);
        let endpoints: Vec<String> = found.into_iter().map(|(_, address)| address).collect();
        let mut channels = Vec::new();
        for number in 0..load.connections(endpoints.len()) {
            channels.push(connect(&endpoints[number % endpoints.len()]).await?);
        }
        Ok(Self { run: run_name(), endpoints, channels })
    }

    fn client(&self, number: usize) -> KvClient<Channel> {
        KvClient::new(self.channels[number % self.channels.len()].clone())
    }

    fn clients(&self, keys: u64, value: Option<&[u8]>, count: u32) -> Vec<One> {
        (0..count as usize)
            .map(|number| One {
                client: self.client(number),
                run: self.run.clone(),
                value: value.map(<[u8]>::to_vec),
                keys,
            })
            .collect()
    }

    async fn fill(&self, keys: u64, value: &[u8], stop: &CancellationToken) -> Result<()> {
        let mut tasks = tokio::task::JoinSet::new();
        for (first, mut client) in self.clients(keys, Some(value), FILLERS).into_iter().enumerate() {
            let stop = stop.clone();
            tasks.spawn(async move {
                let mut key = first as u64;
                while key < keys && !stop.is_cancelled() {
                    client.once(key).await?;
                    key += u64::from(FILLERS);
                }
                anyhow::Ok(())
            });
        }
        while let Some(filled) = tasks.join_next().await {
            filled?.context("cannot write what is to be measured")?;
        }
        Ok(())
    }

    async fn clear(&self) -> Result<()> {
        // Every key begins with the run and a dot; the byte after the dot ends the range.
        let (key, range_end) = (format!("{}.", self.run).into(), format!("{}/", self.run).into());
        self.client(0).delete_range(DeleteRangeRequest { key, range_end }).await.map_err(failed)?;
        Ok(())
    }
}

/// Writes if it has a value, else reads.
struct One {
    client: KvClient<Channel>,
    run: String,
    value: Option<Vec<u8>>,
    keys: u64,
}

impl Client for One {
    async fn once(&mut self, number: u64) -> Result<u64> {
        let key = |number: u64| format!("{}.{number:07}", self.run).into();
        match &self.value {
            Some(value) => {
                let value = stamped(value, number);
                let request = PutRequest { key: key(number % self.keys), value: value.into(), lease: 0 };
                self.client.put(request).await.map_err(failed)?;
            }
            None => {
                let request = RangeRequest { key: key(scattered(number, self.keys)), ..RangeRequest::default() };
                let answer = self.client.range(request).await.map_err(failed)?.into_inner();
                anyhow::ensure!(!answer.kvs.is_empty(), "a key is not there");
            }
        }
        Ok(0)
    }
}

/// etcd's own writes under this load: what the writes of an API above it are compared with.
pub async fn writes(load: &Load, keys: u64, stop: &CancellationToken) -> Result<Measured> {
    let store = Store::open(load).await?;
    let value = some_value(load.value_size);
    let measured = load::run(load, store.clients(keys, Some(&value), load.clients), stop).await;
    store.clear().await?;
    measured
}

impl Put {
    pub async fn run(self) -> Result<()> {
        let Self { etcd } = self;
        let (store, stop) = (Store::open(&etcd.load).await?, load::interrupted()?);
        let value = some_value(etcd.load.value_size);
        let measured = async {
            if etcd.keys.fill {
                store.fill(etcd.keys.keys, &value, &stop).await?;
            }
            let clients = store.clients(etcd.keys.keys, Some(&value), etcd.load.clients);
            load::run(&etcd.load, clients, &stop).await
        };
        let measured = measured.await;
        etcd.finish("etcd-put", measured, store).await
    }
}

impl Get {
    pub async fn run(self) -> Result<()> {
        let Self { etcd } = self;
        let (store, stop) = (Store::open(&etcd.load).await?, load::interrupted()?);
        let measured = async {
            store.fill(etcd.keys.keys, &some_value(etcd.load.value_size), &stop).await?;
            load::run(&etcd.load, store.clients(etcd.keys.keys, None, etcd.load.clients), &stop).await
        };
        let measured = measured.await;
        etcd.finish("etcd-get", measured, store).await
    }
}

impl Etcd {
    async fn finish(self, name: &'static str, measured: Result<Measured>, store: Store) -> Result<()> {
        let cleared = if self.keys.keep { Ok(()) } else { store.clear().await };
        let mut report = Report::new(name, measured?, store.endpoints);
        report.more.insert("keys".into(), self.keys.keys.into());
        if let Some(dir) = self.disk {
            let measured = tokio::task::spawn_blocking(move || {
                master::sync_times(&dir, SYNCS, SYNC_BYTES).with_context(|| format!("cannot sync in {}", dir.display()))
            });
            report.disks.push(disk("etcd's", &measured.await??, 0.0));
        }
        report.print(&self.load)?;
        cleared
    }
}
