//! `hactl bench put` and `get`: the small key-value service of the masters.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rpc::pb;
use rpc::pb::bench_client::BenchClient;
use rpc::pb::bench_request::Ask;
use rpc::pb::bench_response::Answer;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::super::cluster;
use super::super::credentials::Access;
use super::load::{self, Client, micros};
use super::options::{Keys, Load};
use super::report::{Disk, Report, ms};
use super::session::Session;

/// Keys that one call writes before the measurement, and their bytes together.
const FILL_KEYS: u64 = 500;
const FILL_BYTES: u64 = 512 << 10;
/// Calls that fill at a time.
const FILLERS: u64 = 4;
const CALL_LIMIT: Duration = Duration::from_secs(30);
const SYNCS: u32 = 200;
/// About what one write of a few clients appends to the log.
const SYNC_BYTES: u32 = 2048;
const ROUND_TRIPS: usize = 50;

/// Write small values through the whole write path
#[derive(Debug, clap::Args)]
pub struct Put {
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    keys: Keys,
    /// A call of its own for each request, as etcd's API has it, instead of one stream per connection
    #[arg(long)]
    unary: bool,
    #[command(flatten)]
    access: Access,
}

/// Read small values, each read linearizable
#[derive(Debug, clap::Args)]
pub struct Get {
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    keys: Keys,
    /// A call of its own for each request, as etcd's API has it, instead of one stream per connection
    #[arg(long)]
    unary: bool,
    #[command(flatten)]
    access: Access,
}

/// The objects of one run; the name begins with the time, as their expiry needs it.
pub fn run_name() -> String {
    let seconds = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    format!("{seconds:010}-{:08x}", rand::random::<u32>())
}

/// Something to write that does not compress to nothing.
pub fn some_value(bytes: u32) -> Vec<u8> {
    (0..bytes).map(|_| rand::random::<u8>()).collect()
}

/// Connections to the masters of one run.
struct Store {
    run: String,
    endpoints: Vec<String>,
    channels: Vec<Channel>,
}

impl Store {
    async fn open(load: &Load, access: &Access) -> Result<Self> {
        let mut endpoints = load.addresses();
        let masters = cluster::masters(access).await?;
        let status = cluster::status_of(access).await?;
        let info = || status.members.iter().filter_map(|member| member.member.as_ref());
        if endpoints.is_empty() {
            endpoints = info().map(|member| member.api_address.clone()).collect();
        }
        let leader = info().find(|member| member.id == status.leader).map(|member| &member.api_address);
        endpoints.sort_by_key(|endpoint| Some(endpoint) != leader);
        let mut channels = Vec::new();
        for number in 0..load.connections(endpoints.len()) {
            let address = &endpoints[number % endpoints.len()];
            channels.push(masters.connect_to(address).await.with_context(|| format!("cannot reach {address}"))?);
        }
        Ok(Self { run: run_name(), endpoints, channels })
    }

    fn client(&self, number: usize) -> BenchClient<Channel> {
        BenchClient::new(self.channels[number % self.channels.len()].clone())
    }

    async fn clients(&self, load: &Load, keys: &Keys, unary: bool, value: Option<&[u8]>) -> Result<Vec<One>> {
        let mut ways = Vec::new();
        for channel in &self.channels {
            ways.push(match unary {
                true => Way::Calls(BenchClient::new(channel.clone())),
                false => Way::Session(Session::open(channel.clone()).await?),
            });
        }
        let one = |number: usize| One {
            way: ways[number % ways.len()].clone(),
            run: self.run.clone(),
            value: value.map(<[u8]>::to_vec),
            keys: keys.keys,
        };
        Ok((0..load.clients as usize).map(one).collect())
    }

    /// Writes every key once, many with one command.
    async fn fill(&self, keys: u64, value: &[u8], stop: &CancellationToken) -> Result<()> {
        let step = (FILL_BYTES / (value.len() as u64 + 1)).clamp(1, FILL_KEYS);
        let mut tasks = tokio::task::JoinSet::new();
        for filler in 0..FILLERS {
            let (mut client, run, value, stop) =
                (self.client(filler as usize), self.run.clone(), value.to_vec(), stop.clone());
            tasks.spawn(async move {
                let mut first = filler * step;
                while first < keys && !stop.is_cancelled() {
                    let count = (keys - first).min(step) as u32;
                    let value = value.clone().into();
                    let request = pb::BenchFillRequest { run: run.clone(), first, count, value };
                    client.fill(timed(request)).await.map_err(cluster::refused)?;
                    first += FILLERS * step;
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
        let mut client = self.client(0);
        loop {
            let request = pb::BenchClearRequest { run: self.run.clone() };
            let cleared = client.clear(timed(request)).await.map_err(cluster::refused);
            if cleared.context("cannot remove what was written; it expires in an hour")?.into_inner().deleted == 0 {
                return Ok(());
            }
        }
    }

    /// Every master's disk, and the way to it.
    async fn disks(&self) -> Result<Vec<Disk>> {
        let mut disks = Vec::new();
        for (number, endpoint) in self.endpoints.iter().enumerate().take(self.channels.len()) {
            let mut client = self.client(number);
            let mut trips = load::histogram();
            for _ in 0..ROUND_TRIPS {
                let sent = Instant::now();
                let nothing = pb::BenchDiskRequest { syncs: 0, bytes: 0 };
                client.disk(timed(nothing)).await.map_err(cluster::refused)?;
                load::record(&mut trips, micros(sent.elapsed()));
            }
            let request = pb::BenchDiskRequest { syncs: SYNCS, bytes: SYNC_BYTES };
            let answer = client.disk(timed(request)).await.map_err(cluster::refused)?.into_inner();
            disks.push(disk(endpoint, &answer.microseconds, ms(trips.value_at_quantile(0.5))));
        }
        Ok(disks)
    }
}

pub fn disk(endpoint: &str, micros: &[u64], round_trip_p50_ms: f64) -> Disk {
    let mut syncs = load::histogram();
    micros.iter().for_each(|micros| load::record(&mut syncs, *micros));
    Disk {
        endpoint: endpoint.to_owned(),
        fsync_p50_ms: ms(syncs.value_at_quantile(0.5)),
        fsync_p99_ms: ms(syncs.value_at_quantile(0.99)),
        round_trip_p50_ms,
    }
}

fn timed<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(CALL_LIMIT);
    request
}

/// How one client asks.
#[derive(Clone)]
enum Way {
    Session(Session),
    Calls(BenchClient<Channel>),
}

/// Writes if it has a value, else reads.
struct One {
    way: Way,
    run: String,
    value: Option<Vec<u8>>,
    keys: u64,
}

impl One {
    async fn put(&mut self, put: pb::BenchPutRequest) -> Result<()> {
        match &mut self.way {
            Way::Session(session) => session.ask(Ask::Put(put)).await.map(drop),
            Way::Calls(client) => client.put(put).await.map(drop).map_err(cluster::refused),
        }
    }

    async fn get(&mut self, get: pb::BenchGetRequest) -> Result<bool> {
        match &mut self.way {
            Way::Session(session) => Ok(matches!(session.ask(Ask::Get(get)).await?, Answer::Get(got) if got.found)),
            Way::Calls(client) => Ok(client.get(get).await.map_err(cluster::refused)?.into_inner().found),
        }
    }
}

impl Client for One {
    async fn once(&mut self, number: u64) -> Result<u64> {
        let run = self.run.clone();
        if let Some(value) = &self.value {
            let value = stamped(value, number).into();
            self.put(pb::BenchPutRequest { run, key: number % self.keys, value }).await?;
        } else {
            let key = scattered(number, self.keys);
            anyhow::ensure!(self.get(pb::BenchGetRequest { run, key }).await?, "key {key} is not there");
        }
        Ok(0)
    }
}

/// A value of its own for each request: writing what is there already would change nothing.
pub fn stamped(value: &[u8], number: u64) -> Vec<u8> {
    let mut value = value.to_vec();
    let stamp = number.to_le_bytes();
    let len = value.len().min(stamp.len());
    value[..len].copy_from_slice(&stamp[..len]);
    value
}

/// A key that is not near the one before.
pub fn scattered(number: u64, keys: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % keys
}

impl Put {
    pub async fn run(self) -> Result<()> {
        let (store, stop) = (Store::open(&self.load, &self.access).await?, load::interrupted()?);
        let value = some_value(self.load.value_size);
        let measured = async {
            if self.keys.fill {
                store.fill(self.keys.keys, &value, &stop).await?;
            }
            let clients = store.clients(&self.load, &self.keys, self.unary, Some(&value)).await?;
            load::run(&self.load, clients, &stop).await
        };
        finish("put", measured.await, store, &self.load, &self.keys).await
    }
}

impl Get {
    pub async fn run(self) -> Result<()> {
        let (store, stop) = (Store::open(&self.load, &self.access).await?, load::interrupted()?);
        let measured = async {
            store.fill(self.keys.keys, &some_value(self.load.value_size), &stop).await?;
            let clients = store.clients(&self.load, &self.keys, self.unary, None).await?;
            load::run(&self.load, clients, &stop).await
        };
        finish("get", measured.await, store, &self.load, &self.keys).await
    }
}

/// The store's own writes under this load, as `put` makes them: what the writes of an API are compared with.
pub async fn writes(load: &Load, keys: u64, access: &Access, stop: &CancellationToken) -> Result<load::Measured> {
    let store = Store::open(load, access).await?;
    let keys = Keys { keys, fill: false, keep: false };
    let value = some_value(load.value_size);
    let measured = async {
        let clients = store.clients(load, &keys, false, Some(&value)).await?;
        load::run(load, clients, stop).await
    };
    let measured = measured.await;
    store.clear().await?;
    measured
}

/// Clears up, measured or not, and prints.
async fn finish(
    name: &'static str,
    measured: Result<load::Measured>,
    store: Store,
    load: &Load,
    keys: &Keys,
) -> Result<()> {
    let disks = store.disks().await;
    let cleared = if keys.keep { Ok(()) } else { store.clear().await };
    let mut report = Report::new(name, measured?, store.endpoints);
    report.disks = disks?;
    report.more.insert("keys".into(), keys.keys.into());
    report.print(load)?;
    cleared
}
