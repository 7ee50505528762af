//! The start-up of one master, in order, and its planned stop.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use apiserver::Health;
use control::Settings;
use control::authz::Authorizer;
use replica::watch::Filter;
use rpc::Identity;
use rpc::pb;
use rpc::peer::PeerClients;
use rpc::pki::{Bundles, Dir, PeerName, files, inspect};
use rpc::transport::{Tcp, Transport};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use crate::addresses::Addresses;
use crate::bounds::PortLimits;
use crate::config::{Config, MasterFile};
use crate::health::MasterHealth;
use crate::keys::{self, Keyring};
use crate::leader::{Heard, Leader};
use crate::peers::Wire;
use crate::ports::{self, Admitted, Handlers, Port, Revoked};
use crate::rotate::Rotations;
use crate::service::{Shared, bench::BenchService, cluster::ClusterService, node::NodeService, peer::PeerService};
use crate::sessions::{NodeStreams, Parts, Sessions};
use crate::streams::PeerRelay;
use crate::trust::Trust;
use crate::usage::NodeUsages;
use crate::{Error, agreement, disk, fence, issuers, metrics, records, snapshot, upkeep, versions};

/// The largest message on either port: a batch of commands, or an assignment of many large Secrets.
const MESSAGE_MAX: usize = 64 << 20;
/// How long a planned stop waits for everything but consensus to end.
const STOP_LIMIT: Duration = Duration::from_secs(3);

/// Runs this master until `shutdown`, or until it cannot go on.
///
/// # Errors
/// When it cannot start: each says the cause and the cure.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    run_with(config, shutdown, |_| {}).await
}

/// Where the ports of a running master are.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    pub api: std::net::SocketAddr,
    pub peer: std::net::SocketAddr,
}

/// As [`run`]; `bound` learns the ports before anything is served.
pub(crate) async fn run_with(
    mut config: Config,
    shutdown: CancellationToken,
    bound: impl FnOnce(Bound) + Send,
) -> Result<(), Error> {
    let now: Arc<dyn Fn() -> jiff::Timestamp + Send + Sync> = Arc::new(jiff::Timestamp::now);
    let file = MasterFile::load(&config.data_dir)?;
    let dir = Dir::of(&config.data_dir);
    check_owner(&config, &file, &dir, &dir.bundles()?)?;
    fence::remembered(&config)?;
    let keys = Keyring::load(dir.clone())?;
    config.settings.sealer = Some(keys.clone());
    let trust = Trust::load(dir, config.clone(), now().as_second())?;
    config.settings.root_ca_pem = trust.bundles().client;

    let prometheus = metrics::install();
    let transport: Arc<dyn Transport> = Arc::new(Tcp);
    let me = PeerName { cluster_id: config.cluster_id.clone(), epoch: config.epoch, member: config.member_id };
    let peers = PeerClients::new(transport.clone(), trust.peer_client.clone(), me);
    fence::alone(&peers, &config).await.map_err(Error::Invalid)?;
    // Both ports are taken before anything on disk changes.
    let (api_tls, peer_tls, identifier) =
        (trust.api_server.clone(), trust.peer_server.clone(), trust.identifier.clone());
    let api_port =
        Port::bind(&transport, ports::API, &config.listen_api, api_tls, identifier.clone(), config.port_limits).await?;
    let peer_port =
        Port::bind(&transport, ports::PEER, &config.listen_peer, peer_tls, identifier, PortLimits::peers()).await?;
    let unknown = |source| Error::File { path: "the port's own address".into(), source };
    let addresses = Bound { api: api_port.address().map_err(unknown)?, peer: peer_port.address().map_err(unknown)? };
    take_free_ports(&mut config, addresses);
    bound(addresses);

    make_private(&config.data_dir)?;
    // A state that must come from another member is waited for, with certificates that hold.
    let consensus = tokio::select! {
        started = consensus::start(consensus_config(&config), Arc::new(Wire::new(peers.clone()))) => started?,
        why = fence::overtaken_by(&peers, &config) => return Err(Error::Invalid(why)),
        () = trust.clone().keep(now.clone(), shutdown.clone()) => return Ok(()),
    };
    if file.started && consensus.members().is_empty() {
        consensus.shutdown().await;
        return Err(Error::Invalid(format!(
            "{0} holds no log, though this master took part in the cluster before: its data was lost, and its id must not come back with \
             an empty log. A new member takes its place: `hactl cluster replace --data-dir {0}`",
            config.data_dir.display()
        )));
    }
    if let Err(why) = fence::welcome(&consensus, &peers, &config).await {
        consensus.shutdown().await;
        return Err(Error::Invalid(why));
    }

    let replica = consensus.replica();
    keys.follow(replica.clone());
    let heard = Heard::default();
    let seeds = Arc::new(control::Seeds::new(rand::random()));
    let known = Addresses::new(upkeep::members(&consensus));
    if known.api().is_empty() {
        known.set(vec![config.member()]);
    }
    let stop = CancellationToken::new();
    let serving = stop.child_token();
    let sessions = Sessions::new(Parts {
        replica: replica.clone(),
        heard: heard.clone(),
        cluster_id: config.cluster_id.clone(),
        epoch: config.epoch,
        masters: known.watch_api(),
        trust: trust.told(),
        now: now.clone(),
        seeds: seeds.clone(),
        sealer: keys.clone(),
        epochs: Some(fence::Epochs {
            trust: trust.clone(),
            cluster_id: config.cluster_id.clone(),
            peers: peers.clone(),
        }),
        shutdown: stop.clone(),
    });
    config.settings.masters = upkeep::resolve(&known.api()).await;
    let (settings, watched_settings) = watch::channel(Arc::new(config.settings.clone()));
    let shared = Arc::new(Shared {
        config: config.clone(),
        replica: replica.clone(),
        peers: peers.clone(),
        sessions: sessions.clone(),
        heard: heard.clone(),
        addresses: known.clone(),
        trust: trust.clone(),
        keys,
        rotations: Rotations::default(),
        authorizer: Authorizer::default(),
        now: now.clone(),
        consensus,
        agreement: Default::default(),
        incarnation: rand::random(),
        trouble: Default::default(),
        runtime: tokio::runtime::Handle::current(),
    });

    let usages = NodeUsages {
        me: config.member_id,
        sessions: sessions.clone(),
        peers: peers.clone(),
        addresses: known.clone(),
        now: now.clone(),
    };
    let relay = Arc::new(PeerRelay { me: config.member_id, peers, addresses: known });
    let health: Arc<dyn Health> = Arc::new(MasterHealth { shared: shared.clone() });
    let http = apiserver::service(apiserver::Config {
        replica: replica.clone(),
        settings: Arc::new(Settings::clone(&config.settings)),
        streams: Arc::new(NodeStreams { sessions, relay }),
        usages: Arc::new(usages),
        tokens: None,
        audit: None,
        health,
        metrics: prometheus.clone(),
        limits: config.api_limits,
        now: now.clone(),
        seed: rand::random(),
        version: config.version.clone(),
        commit: config.commit.clone(),
        shutdown: serving.clone(),
    });

    let tasks = TaskTracker::new();
    let admitted = admitted(&shared);
    let revoked = revoked(&shared, admitted.clone());
    let api = Handlers { grpc: api_grpc(&shared), http: Some(http), admitted, revoked: revoked.clone(), bulk: None };
    let bulk = Some(tokio::runtime::Handle::current());
    let peer = Handlers { grpc: peer_grpc(&shared), http: None, admitted: Arc::new(|_| Ok(())), revoked, bulk };
    tasks.spawn(api_port.serve(api, stop.clone()));
    // On consensus' own runtime, so that no other work delays a heartbeat; but not what it relays. It ends last.
    let peer_stop = CancellationToken::new();
    let peer_port = shared.consensus.runtime().spawn(peer_port.serve(peer, peer_stop.clone()));
    let leader = Leader { replica, settings: watched_settings, heard, now: now.clone(), seeds, bounds: config.bounds };
    tasks.spawn(leader.run(stop.clone()));
    config.bounds.publish();
    config.port_limits.publish();
    ::metrics::gauge!("hactl_bound", "setting" => "event-ttl").set(config.settings.event_ttl.as_secs_f64());
    tasks.spawn(agreement::watch(shared.clone(), serving, stop.clone()));
    tasks.spawn(disk::step_aside(shared.clone(), stop.clone()));
    tasks.spawn(upkeep::follow(shared.clone(), settings, stop.clone()));
    tasks.spawn(upkeep::take_part(shared.clone(), file, stop.clone()));
    tasks.spawn(keys::keep(shared.clone(), stop.clone()));
    tasks.spawn(versions::keep(shared.clone(), stop.clone()));
    tasks.spawn(trust.keep(now, stop.clone()));
    tasks.spawn(issuers::keep(shared.clone(), stop.clone()));
    if let Some(plan) = config.automatic_snapshots.clone() {
        tasks.spawn(snapshot::auto::run(shared.clone(), plan, stop.clone()));
    }
    if let Some(handle) = prometheus {
        tasks.spawn(metrics::upkeep(handle, stop.clone()));
    }
    tasks.close();
    tracing::info!(
        api = %addresses.api, peer = %addresses.peer, member = config.member_id, cluster = config.cluster_id, "master runs"
    );

    // Of all that goes wrong with a disk only this ends the process: what is on it cannot be trusted any more.
    let failed = tokio::select! {
        () = shutdown.cancelled() => None,
        why = shared.consensus.failed() => Some(Error::Consensus(consensus::Error::Corrupt(why))),
        why = fence::watch(shared.clone()) => Some(Error::Invalid(why)),
    };
    // Leadership goes first, while everything still answers; a single master has nobody to give it to.
    let leads = shared.replica.leadership().borrow().leading.is_some();
    let others = shared.consensus.members().into_iter().any(|m| m.voter && m.member.id != shared.config.member_id);
    if leads
        && others
        && let Err(error) = shared.consensus.transfer_leader(0).await
    {
        tracing::warn!(%error, "stopping as leader: nobody took over in time");
    }
    stop.cancel();
    if tokio::time::timeout(STOP_LIMIT, tasks.wait()).await.is_err() {
        tracing::warn!("some tasks did not end in time");
    }
    peer_stop.cancel();
    let _ = tokio::time::timeout(STOP_LIMIT, peer_port).await;
    shared.consensus.shutdown().await;
    tracing::info!("master stopped");
    match failed {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// The data dir, its certificates and the configuration speak of one member of one cluster.
fn check_owner(config: &Config, file: &MasterFile, dir: &Dir, bundles: &Bundles) -> Result<(), Error> {
    let theirs = |what: &str, cluster: &str, member: u64| {
        Error::Invalid(format!(
            "{what} in {} is of member {member} of cluster {cluster}, this machine is configured as member {} of {}: the data dir \
             belongs to another cluster or member; give its own --data-dir",
            config.data_dir.display(),
            config.member_id,
            config.cluster_id
        ))
    };
    if file.cluster_id != config.cluster_id || file.member_id != config.member_id {
        return Err(theirs("master.json", &file.cluster_id, file.member_id));
    }
    let pem = dir.credential(files::PEER)?.certificate_pem;
    match inspect::identity_of_pem(&pem, bundles)? {
        Some(Identity::Peer { cluster_id, member, .. })
            if cluster_id == config.cluster_id && member == config.member_id =>
        {
            Ok(())
        }
        Some(Identity::Peer { cluster_id, member, .. }) => Err(theirs("pki/peer.pem", &cluster_id, member)),
        _ => Err(Error::Invalid(format!(
            "{}/peer.pem was not issued by peer-issuer.pem beside it: restore both from one backup, or remove this master and join \
             again",
            dir.path().display()
        ))),
    }
}

/// Log, state and snapshots hold Secrets, and the storage makes its files readable for all: their directories are not.
fn make_private(data_dir: &std::path::Path) -> Result<(), Error> {
    for name in ["log", "state", "snapshots"] {
        let dir = data_dir.join(name);
        let made = std::fs::create_dir_all(&dir)
            .and_then(|()| std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)));
        made.map_err(|source| Error::File { path: dir, source })?;
    }
    Ok(())
}

/// An advertised port 0 means the one that was taken.
fn take_free_ports(config: &mut Config, bound: Bound) {
    let fill = |address: &mut String, port: u16| {
        if let Some(host) = address.strip_suffix(":0") {
            *address = format!("{host}:{port}");
        }
    };
    fill(&mut config.advertise_api, bound.api.port());
    fill(&mut config.advertise_peer, bound.peer.port());
}

fn consensus_config(config: &Config) -> consensus::Config {
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let member = upkeep::member(config);
    consensus::Config {
        heartbeat_ms: milliseconds(config.timing.heartbeat),
        election_ms_min: milliseconds(config.timing.election_min),
        election_ms_max: milliseconds(config.timing.election_max),
        snapshot_entries: config.bounds.log_entries,
        snapshot_bytes: config.bounds.log_bytes,
        batch_bytes: usize::try_from(config.bounds.batch_bytes).unwrap_or(usize::MAX),
        disk_reserve: config.bounds.disk_reserve,
        keep_entries: (config.bounds.log_entries / 10).max(1),
        ..consensus::Config::new(&config.data_dir, &config.cluster_id, member, rand::random())
    }
}

fn api_grpc(shared: &Arc<Shared>) -> axum::Router {
    let cluster = pb::cluster_server::ClusterServer::new(ClusterService(shared.clone()));
    let node = pb::node_session_server::NodeSessionServer::new(NodeService(shared.clone()))
        .max_decoding_message_size(MESSAGE_MAX)
        .max_encoding_message_size(MESSAGE_MAX);
    let bench = pb::bench_server::BenchServer::new(BenchService(shared.clone()));
    Routes::new(cluster).add_service(node).add_service(bench).prepare().into_axum_router()
}

fn peer_grpc(shared: &Arc<Shared>) -> axum::Router {
    let peer = pb::peer_server::PeerServer::new(PeerService(shared.clone()))
        .max_decoding_message_size(MESSAGE_MAX)
        .max_encoding_message_size(MESSAGE_MAX);
    Routes::new(peer).prepare().into_axum_router()
}

/// A node's certificate counts for as long as its Node has that uid: deleting the Node revokes it.
fn admitted(shared: &Arc<Shared>) -> Admitted {
    let (replica, cluster) = (shared.replica.clone(), shared.config.cluster_id.clone());
    Arc::new(move |identity| {
        let (Identity::Node { cluster_id, name, uid } | Identity::LateNode { cluster_id, name, uid }) = identity else {
            return Ok(());
        };
        if *cluster_id != cluster {
            return Err(format!("node {name} belongs to cluster {cluster_id}, this is {cluster}"));
        }
        // Before this master has caught up it cannot tell; what it then serves is refused elsewhere.
        if !replica.leadership().borrow().serving {
            return Ok(());
        }
        let root = replica.root();
        match root.get(&state::Key::node(name)) {
            Some(node) if node.header.uid == *uid => Ok(()),
            Some(_) => Err(format!("node {name} is another machine now; join again under another --node-name")),
            // A cluster without any object is being made; what it then serves is refused elsewhere, too.
            None if root.revision() == 0 => Ok(()),
            None => Err(format!("node {name} was deleted; `hactl cluster leave` there, then join again")),
        }
    })
}

/// Ends when a node's Node is deleted or another's, or a member is taken out: its connections are closed then.
fn revoked(shared: &Arc<Shared>, admitted: Admitted) -> Revoked {
    let replica = shared.replica.clone();
    Arc::new(move |identity| {
        let filter = match identity {
            Identity::Node { name, .. } | Identity::LateNode { name, .. } => {
                Filter::resource("", "nodes").named(name.clone())
            }
            Identity::Peer { member, .. } => records::member_filter(*member),
            Identity::User { .. } | Identity::Anonymous => return Some(Box::pin(std::future::pending())),
        };
        still_in(identity, &replica, &admitted).ok()?;
        let (replica, admitted, identity) = (replica.clone(), admitted.clone(), identity.clone());
        Some(Box::pin(async move {
            let mut leadership = replica.leadership();
            loop {
                let mut watcher = replica.watch(filter.clone(), replica.root().revision());
                // Looked at after the watch began, so that nothing falls between.
                loop {
                    if let Err(why) = still_in(&identity, &replica, &admitted) {
                        return why;
                    }
                    tokio::select! {
                        // Overtaken by compaction: begun anew.
                        next = watcher.next() => if next.is_err() { break },
                        // A master that has just caught up knows more.
                        Ok(()) = leadership.changed() => {}
                    }
                }
            }
        }))
    })
}

fn still_in(identity: &Identity, replica: &replica::Replica, admitted: &Admitted) -> Result<(), String> {
    match identity {
        Identity::Peer { member, .. } if records::is_removed(&replica.root(), *member) => {
            Err(format!("member {member} was removed from this cluster"))
        }
        identity => admitted(identity),
    }
}
