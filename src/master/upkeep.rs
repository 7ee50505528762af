//! What every master does beside answering: takes part in consensus, keeps the addresses and settings that follow from
//! the members, and tells the leader which nodes it hears.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use consensus::transport::Change;
use consensus::{Consensus, Member, MemberState, PeerTransport};
use control::Settings;
use rpc::pb::{self, MemberInfo};
use rpc::peer::Lane;
use rpc::pki::{files, inspect};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tonic::Request;

use crate::config::{Config, MasterFile};
use crate::peers::{Wire, info};
use crate::records::{self, MemberRecord};
use crate::service::{Shared, join::register_node, status};

/// How often the members are looked at, and living nodes reported.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A report that takes longer is dropped: the next one says more.
const REPORT_LIMIT: Duration = Duration::from_secs(1);
/// Nodes stay with a master that cannot tell the leader of them for less than the leader bears their silence.
const CUT_OFF_MAX: Duration = Duration::from_secs(3);
/// A newcomer asks at most so many masters, by all the addresses it hears of, which of them leads.
const CANDIDATES_MAX: usize = 32;
/// A node silent for longer is not reported as living.
const ALIVE_MAX_MS: u64 = 10_000;

/// The members as consensus has them.
pub fn members(consensus: &Consensus) -> Vec<MemberInfo> {
    consensus.members().iter().map(|state| info(&state.member)).collect()
}

/// Follows the members once a second; the leader's settings follow from them.
pub async fn follow(shared: Arc<Shared>, settings: watch::Sender<Arc<Settings>>, shutdown: CancellationToken) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known = Vec::new();
    let mut before: Vec<MemberInfo> = Vec::new();
    let mut cut_off = None;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = look.tick() => {}
        }
        let members = shared.members();
        for left in before.iter().filter(|member| members.iter().all(|other| other.id != member.id)) {
            tracing::info!(member = left.id, name = left.name, "left the cluster: its connections are closed");
            shared.peers.forget(left.id);
        }
        before = members;
        let root_ca_pem = shared.trust.bundles().client;
        settings.send_if_modified(|settings| {
            let differs = settings.root_ca_pem != root_ca_pem;
            if differs {
                *settings = Arc::new(Settings { root_ca_pem, ..Settings::clone(settings) });
            }
            differs
        });
        let present = shared.addresses.api();
        if present != known {
            let masters = resolve(&present).await;
            settings.send_if_modified(|settings| {
                let differs = settings.masters != masters;
                if differs {
                    *settings = Arc::new(Settings { masters, ..Settings::clone(settings) });
                }
                differs
            });
            known = present;
        }
        if report(&shared).await {
            cut_off = None;
        } else if cut_off.get_or_insert_with(Instant::now).elapsed() >= CUT_OFF_MAX {
            tracing::warn!("no leader hears of this master's nodes: they are sent to another master");
            shared.sessions.end_all();
            cut_off = None;
        }
    }
}

/// Addresses with names resolved; one that does not resolve is left out and said.
pub async fn resolve(addresses: &[String]) -> Vec<SocketAddr> {
    let mut resolved = Vec::new();
    for address in addresses {
        match tokio::net::lookup_host(address.as_str()).await.map(|mut found| found.next()) {
            Ok(Some(found)) => resolved.push(found),
            Ok(None) => tracing::warn!(address, "the address of a master resolves to nothing"),
            Err(error) => tracing::warn!(address, %error, "the address of a master does not resolve"),
        }
    }
    resolved
}

/// Tells the leader which nodes are connected here and how long each has been silent. Whether it knows.
async fn report(shared: &Shared) -> bool {
    let connected = shared.sessions.nodes();
    let leadership = shared.replica.leadership().borrow().clone();
    if connected.is_empty() || leadership.leading.is_some() {
        return true;
    }
    let leader = shared.addresses.member(leadership.leader).filter(|leader| leader.id != shared.config.member_id);
    let Some(leader) = leader else { return false };
    let silences = shared.heard.silences();
    let nodes = connected
        .into_iter()
        .filter_map(|name| Some((silences.get(&name).copied()?, name)))
        .filter(|(silent_ms, _)| *silent_ms < ALIVE_MAX_MS)
        .map(|(silent_ms, name)| pb::NodeAlive { name, uid: String::new(), silent_ms })
        .collect();
    let mut request = Request::new(pb::NodesAliveRequest { nodes });
    request.set_timeout(REPORT_LIMIT);
    let mut client = shared.peers.client(leader.id, &leader.peer_address, Lane::General);
    let told = tokio::time::timeout(REPORT_LIMIT, client.nodes_alive(request)).await;
    let told = matches!(told, Ok(Ok(_)));
    if !told {
        tracing::debug!(leader = leader.name, "the leader was not told of the living nodes");
    }
    told
}

/// Makes this master a voter: the first one begins the cluster, a later one asks the leader, first to learn, then to vote.
/// Then writes down that it has taken part. Tries until it succeeds.
pub async fn take_part(shared: Arc<Shared>, file: MasterFile, shutdown: CancellationToken) {
    let mut said = None;
    loop {
        match step(&shared, &file).await {
            Ok(()) => break,
            Err(why) => {
                if said.as_ref() != Some(&why) {
                    tracing::warn!(%why, "not a voting member yet; trying on");
                    said = Some(why);
                }
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
    shared.addresses.set(members(&shared.consensus));
    if !file.started {
        let file = MasterFile { started: true, ..file };
        if let Err(error) = file.save(&shared.config.data_dir) {
            tracing::error!(%error, "cannot write down that this master has taken part");
        }
    }
}

/// One try; why it is not a voter yet.
async fn step(shared: &Shared, file: &MasterFile) -> Result<(), String> {
    let own = member(&shared.config);
    let begins = file.members.is_empty();
    if begins && !file.started {
        shared.consensus.initialize().await.map_err(|error| error.to_string())?;
        register_first(shared).await?;
    }
    let present: Option<MemberState> = shared.consensus.members().into_iter().find(|known| known.member.id == own.id);
    match present {
        Some(known) if known.member != own => {
            shared.consensus.add_learner(own).await.map_err(|error| error.to_string())
        }
        Some(known) if known.voter => Ok(()),
        Some(_) => shared.consensus.promote(own.id).await.map_err(|error| error.to_string()),
        None => {
            ask_to_learn(shared, file, own).await?;
            Err("admitted as a learner; waiting for the log".to_owned())
        }
    }
}

pub fn member(config: &Config) -> Member {
    crate::peers::member(config.member())
}

/// Asks each known member in turn: one of them leads. Those known are the ones told of at the join and all that these tell
/// of now: since the join others may have come, and those of then have gone.
async fn ask_to_learn(shared: &Shared, file: &MasterFile, own: Member) -> Result<(), String> {
    let wire = Wire::new(shared.peers.clone());
    let mut known: Vec<Member> = file.members.iter().cloned().map(Member::from).collect();
    let mut reasons = Vec::new();
    let mut asked = 0;
    while let Some(member) = known.get(asked).cloned() {
        asked += 1;
        match wire.change_membership(&member, Change::AddLearner(own.clone())).await {
            Ok(()) => return Ok(()),
            Err(status) => reasons.push(format!("{}: {}", member.name, status.message())),
        }
        let told = status::ask(shared, &info(&member)).await.map(|answer| answer.members).unwrap_or_default();
        for other in told.into_iter().map(crate::peers::member).filter(|other| other.id != own.id) {
            let same = |one: &Member| one.id == other.id && one.peer_address == other.peer_address;
            if known.len() < CANDIDATES_MAX && !known.iter().any(same) {
                known.push(other);
            }
        }
    }
    Err(format!("no master admits this one: {}", reasons.join("; ")))
}

/// The register of member ids begins with the first member; its machine's node is registered with it.
async fn register_first(shared: &Shared) -> Result<(), String> {
    let say = |status: tonic::Status| status.message().to_owned();
    let root = shared.replica.read().await.map_err(|error| error.to_string())?;
    let own = shared.config.member();
    if records::member(&root, own.id).is_none() {
        let record = MemberRecord {
            name: own.name,
            peer_address: own.peer_address,
            api_address: own.api_address,
            removed: false,
            joiner: String::new(),
        };
        records::register_member(&shared.replica, &record, shared.now()).await.map_err(say)?;
    }
    let Some((name, uid)) = local_node(shared) else { return Ok(()) };
    if root.get(&state::Key::node(&name)).is_none() {
        register_node(shared, &name, &uid).await.map_err(say)?;
    }
    Ok(())
}

/// The node that `create` made on this machine, by its certificate.
fn local_node(shared: &Shared) -> Option<(String, String)> {
    let pem = shared.trust.dir().credential(files::NODE).ok()?.certificate_pem;
    match inspect::identity_of_pem(&pem, &shared.trust.bundles()).ok()?? {
        rpc::Identity::Node { name, uid, .. } => Some((name, uid)),
        _ => None,
    }
}
