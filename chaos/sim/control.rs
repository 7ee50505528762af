//! What a simulated master runs beside consensus: the leader's loops with every controller and the scheduler, the sessions
//! of its nodes, and the API server. All are the real ones; only the ports before them are missing.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ::control::authz::{MASTERS, User};
use ::control::seal::Sealer;
use ::control::{Seeds, Settings};
use apiserver::{Check, Health, Link, LogOptions, LogStream, PodRef, Session, StreamError, Streams};
use axum::body::Body;
use consensus::Consensus;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use master::StoreBounds;
use master::leader::{Heard, Leader};
use master::sessions::{Parts, Sessions};
use master::versions::Raise;
use replica::Replica;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::world::World;

/// How often a master tells the leader which of its nodes live; `master::upkeep` does so over the peer port.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// How long another master's word on its version is waited for.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
pub const CLUSTER: &str = "simulated";

/// The control plane of one process.
pub struct Control {
    pub sessions: Sessions,
    pub heard: Heard,
    api: axum::Router,
}

/// Nothing is sealed here.
#[derive(Debug)]
struct Plain;

impl Sealer for Plain {
    fn seal(&self, _: &str, _: &[u8]) -> Result<Option<(String, Vec<u8>)>, String> {
        Ok(None)
    }

    fn open(&self, _: &str, _: &str, _: &[u8]) -> Result<Vec<u8>, String> {
        Err("nothing is sealed in a simulation".into())
    }
}

struct Nobody;

impl Health for Nobody {
    fn live(&self) -> Vec<Check> {
        Vec::new()
    }

    fn ready(&self) -> Vec<Check> {
        Vec::new()
    }
}

#[async_trait::async_trait]
impl Streams for Nobody {
    async fn logs(&self, _: &User, pod: PodRef, _: LogOptions) -> Result<LogStream, StreamError> {
        Err(StreamError::Unavailable(format!("{} has no logs in a simulation", pod.node)))
    }

    async fn open(&self, _: &User, pod: PodRef, _: Session) -> Result<Link, StreamError> {
        Err(StreamError::Unavailable(format!("{} has no streams in a simulation", pod.node)))
    }
}

/// The API address of a master, as nodes know it.
pub fn address(id: u64) -> String {
    format!("m{id}:6443")
}

/// Asks the other members for the newest version that they support.
fn asks(
    world: &Arc<World>,
    id: u64,
    consensus: &Arc<Consensus>,
) -> impl Fn() -> BoxFuture<'static, Vec<Option<u32>>> + Send + Sync + 'static {
    // Weak: what asks ends with the process, but may be asked after it.
    let (world, consensus) = (world.clone(), Arc::downgrade(consensus));
    move || {
        let members = consensus.upgrade().map(|consensus| consensus.members()).unwrap_or_default();
        let world = world.clone();
        let others = members.into_iter().map(|member| member.member.id).filter(move |other| *other != id);
        let asked = others.map(move |other| {
            let world = world.clone();
            async move {
                let limit = Instant::now() + ANSWER_LIMIT;
                tokio::time::timeout_at(limit, world.net.travel(id, other, "status", 0)).await.ok()?.ok()?;
                let version = world.process(other)?.version;
                tokio::time::timeout_at(limit, world.net.travel(other, id, "status", 0)).await.ok()?.ok()?;
                Some(version)
            }
        });
        futures::future::join_all(asked.collect::<Vec<_>>()).boxed()
    }
}

impl Control {
    /// Starts everything; it ends with `gone`.
    pub fn start(
        world: &Arc<World>,
        id: u64,
        consensus: &Arc<Consensus>,
        version: u32,
        gone: &CancellationToken,
    ) -> Arc<Self> {
        let mut random = world.random();
        let replica = &consensus.replica();
        let addresses = world.ids();
        let socket = |id: &u64| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, *id as u8)), 6443);
        let settings = Arc::new(Settings { masters: addresses.iter().map(socket).collect(), ..Settings::default() });
        let clock = world.clone();
        let now: Arc<dyn Fn() -> jiff::Timestamp + Send + Sync> = Arc::new(move || clock.wall(id));
        let heard = Heard::default();
        let seeds = Arc::new(Seeds::new(random.draw()));
        let masters = watch::Sender::new(addresses.into_iter().map(address).collect::<Vec<_>>());
        let trust = watch::Sender::new(rpc::pb::Trust::default());
        let sessions = Sessions::new(Parts {
            replica: replica.clone(),
            heard: heard.clone(),
            cluster_id: CLUSTER.into(),
            epoch: 1,
            masters: masters.subscribe(),
            trust: trust.subscribe(),
            now: now.clone(),
            seeds: seeds.clone(),
            sealer: Arc::new(Plain),
            epochs: None,
            shutdown: gone.clone(),
        });
        let api = apiserver::service(apiserver::Config {
            replica: replica.clone(),
            settings: settings.clone(),
            streams: Arc::new(Nobody),
            usages: Arc::new(()),
            tokens: None,
            audit: None,
            health: Arc::new(Nobody),
            metrics: None,
            limits: apiserver::Limits::default(),
            now: now.clone(),
            seed: random.draw(),
            version: "0".into(),
            commit: String::new(),
            shutdown: gone.clone(),
        });
        let settings = watch::Sender::new(settings);
        let leader = Leader {
            replica: replica.clone(),
            settings: settings.subscribe(),
            heard: heard.clone(),
            now: now.clone(),
            seeds,
            bounds: match world.quota() {
                0 => StoreBounds::default(),
                quota => StoreBounds { quota, ..StoreBounds::default() },
            },
        };
        let raise = Raise { replica: replica.clone(), newest: version, ask: Box::new(asks(world, id, consensus)), now };
        let control = Arc::new(Self { sessions, heard, api });
        let (world, reporting, replica, gone) = (world.clone(), control.clone(), replica.clone(), gone.clone());
        tokio::spawn(async move {
            // What they are subscribed to lives as long as they do.
            let _kept = (settings, trust);
            tokio::join!(
                leader.run(gone.clone()),
                raise.run(gone.clone()),
                reporting.report(&world, id, &replica, &masters, &gone)
            );
        });
        control
    }

    /// Tells the leader which nodes live, and nodes which masters there are.
    async fn report(
        &self,
        world: &World,
        id: u64,
        replica: &Replica,
        masters: &watch::Sender<Vec<String>>,
        gone: &CancellationToken,
    ) {
        loop {
            tokio::select! {
                () = gone.cancelled() => return,
                () = tokio::time::sleep(REPORT_EVERY) => {}
            }
            let now: Vec<String> = world.ids().into_iter().map(address).collect();
            masters.send_if_modified(|known| std::mem::replace(known, now.clone()) != now);
            let leader = replica.leadership().borrow().leader.filter(|leader| *leader != id);
            let Some(process) = leader.and_then(|leader| world.process(leader)) else { continue };
            if leader.is_some_and(|leader| world.net.is_blocked(id, leader)) {
                continue;
            }
            let connected = self.sessions.nodes();
            for (node, silent_ms) in self.heard.silences().into_iter().filter(|(node, _)| connected.contains(node)) {
                process.control.heard.heard(&node, Duration::from_millis(silent_ms));
            }
        }
    }

    /// One request of an administrator; status and body.
    pub async fn request(&self, method: Method, path: &str, body: Option<&Value>) -> (u16, Value) {
        let (status, body) = self.open(method, path, body).await;
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    /// The same; the body as it comes.
    pub async fn open(&self, method: Method, path: &str, body: Option<&Value>) -> (u16, Body) {
        let media = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let user = User::authenticated("someone", vec![MASTERS.into()]);
        let request = Request::builder().method(method).uri(path).header("content-type", media).extension(user);
        let Ok(request) = request.body(body) else { return (400, Body::empty()) };
        let Ok(response) = self.api.clone().oneshot(request).await;
        (response.status().as_u16(), response.into_body())
    }
}
