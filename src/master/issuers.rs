//! Rotating the issuers, as the leader: new ones are trusted by all before they sign, and those before are dropped when an
//! administrator says so, since users hold certificates of them that nobody else can replace.
//!
//! ```text
//! rotate:  make new ones ─▶ every master and node trusts them ─▶ they sign: peers', nodes' and users' certificates
//! finish:  every node's certificate is of the new ones ─▶ the issuers before are dropped, API servers' certificates are new
//! ```
//! In between API servers show certificates of the issuers before, since kubeconfigs may know no other.
//! Each step begins when all masters and nodes have completed the one before. Where it stands follows from what lies on disk, so
//! that it can be asked for again, and whoever leads goes on.
//!
//! **Invariant:** nothing signs before all trust it, and nothing is dropped while it signed what is in use by a master or node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rpc::pb;
use rpc::peer::Lane;
use rpc::pki::files::Other;
use rpc::pki::{Bundles, Error, Issuers, inspect};
use state::State;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use crate::records;
use crate::rotate::Told;
use crate::service::{Shared, status};
use crate::trust::Generations;

/// The longest a step waits for those that have not taken it.
const STEP_LIMIT: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often a leader looks whether a member lacks what counts.
const KEEP_EVERY: Duration = Duration::from_secs(30);
/// A member that does not answer within this does not answer.
const CALL_LIMIT: Duration = Duration::from_secs(5);

fn internal(error: &Error) -> Status {
    Status::internal(error.to_string())
}

/// What counts at one moment, and how it is told.
#[derive(Clone)]
struct Stand {
    generations: Generations,
    trust: String,
    signs_with: String,
    /// The fingerprint of the issuer of nodes.
    node_issuer: String,
}

impl Stand {
    fn new(generations: Generations) -> Result<Self, Error> {
        let issuers = Issuers::from_parts(&generations.bundles, &generations.keys)?;
        let node = inspect::certificates(&issuers.own().node, "the node issuer")?;
        Ok(Self {
            trust: issuers.bundles().pin()?,
            signs_with: issuers.own().pin()?,
            node_issuer: inspect::fingerprint_of(&node[0]),
            generations,
        })
    }

    /// As this master has it.
    fn own(shared: &Shared) -> Result<Self, Error> {
        let issuers = shared.trust.issuers();
        Self::new(Generations {
            bundles: issuers.bundles(),
            // Those that sign already are left by a crash.
            next: shared.trust.other_keys(Other::Next)?.filter(|next| *next != issuers.keys_pem()),
            keys: issuers.keys_pem(),
            previous: shared.trust.other_keys(Other::Previous)?,
        })
    }

    fn request(&self) -> Result<pb::InstallIssuersRequest, Status> {
        let json = |keys: &[String; 3]| serde_json::to_vec(keys).map_err(|error| Status::internal(error.to_string()));
        let Generations { bundles, keys, next, previous } = &self.generations;
        Ok(pb::InstallIssuersRequest {
            peer_issuer_pem: bundles.peer.clone(),
            node_issuer_pem: bundles.node.clone(),
            client_issuer_pem: bundles.client.clone(),
            master_secrets: json(keys)?.into(),
            next_secrets: next.as_ref().map(json).transpose()?.unwrap_or_default().into(),
            previous_secrets: previous.as_ref().map(json).transpose()?.unwrap_or_default().into(),
        })
    }

    fn is_taken_by(&self, status: &pb::MemberStatusResponse) -> bool {
        status.trust == self.trust && status.signs_with == self.signs_with
    }
}

/// New issuers, until they sign.
///
/// # Errors
/// When a master or node does not come along (asked again, it goes on), or this member no longer leads.
pub async fn rotate(shared: &Shared, told: &Told) -> Result<(), Status> {
    let present = shared.trust.issuers();
    let mut stand = Stand::own(shared).map_err(|error| internal(&error))?;
    // Without keys of another generation none is under way that this member could go on with, whatever is trusted.
    if stand.generations.next.is_none() && stand.generations.previous.is_none() {
        settled(shared, &stand).await?;
        let cluster_id = &shared.config.cluster_id;
        let made = Issuers::create(cluster_id, &shared.config.lifetimes, shared.unix()).map_err(|e| internal(&e))?;
        let bundles = present.bundles().and(&made.bundles()).map_err(|error| internal(&error))?;
        let next = Some(made.keys_pem());
        stand = Stand::new(Generations { bundles, keys: present.keys_pem(), next, previous: None })
            .map_err(|error| internal(&error))?;
        told.step("made new issuers".to_owned()).await;
    }
    if let Some(next) = stand.generations.next.clone() {
        everywhere(shared, told, &stand).await?;
        told.step("all masters and nodes trust the new issuers".to_owned()).await;
        let Generations { bundles, keys: previous, .. } = stand.generations;
        stand = Stand::new(Generations { bundles, keys: next, next: None, previous: Some(previous) })
            .map_err(|error| internal(&error))?;
    }
    everywhere(shared, told, &stand).await?;
    told.step("the new issuers sign; masters and nodes have certificates of them".to_owned()).await;
    Ok(())
}

/// Drops the issuers before the last rotation.
///
/// # Errors
/// As [`rotate`]; when there is none to finish.
pub async fn finish(shared: &Shared, told: &Told) -> Result<(), Status> {
    let present = shared.trust.issuers();
    let stand = Stand::own(shared).map_err(|error| internal(&error))?;
    if stand.generations.next.is_some() {
        return Err(Status::failed_precondition(
            "the new issuers do not sign yet; run `hactl cluster certs rotate-issuers` again, it goes on from there",
        ));
    }
    if !present.are_rotating() && behind(shared, &stand).await.is_empty() {
        return Err(Status::failed_precondition(
            "only one generation of issuers is there: begin with `hactl cluster certs rotate-issuers`",
        ));
    }
    if present.are_rotating() {
        everywhere(shared, told, &stand).await?;
    }
    let alone = Generations { bundles: present.own(), keys: present.keys_pem(), next: None, previous: None };
    let alone = Stand::new(alone).map_err(|error| internal(&error))?;
    everywhere(shared, told, &alone).await?;
    told.step("the issuers before are dropped".to_owned()).await;
    Ok(())
}

/// Nobody is behind before something begins.
async fn settled(shared: &Shared, stand: &Stand) -> Result<(), Status> {
    let behind = behind(shared, stand).await;
    if behind.is_empty() {
        return Ok(());
    }
    Err(Status::failed_precondition(format!(
        "nothing was changed, since all masters and nodes must come along: {}",
        reasons(&behind)
    )))
}

fn reasons(behind: &BTreeMap<String, &'static str>) -> String {
    behind.iter().map(|(who, why)| format!("{who} {why}")).collect::<Vec<_>>().join("; ")
}

/// Gives it to all members, and waits until all members and nodes have it.
async fn everywhere(shared: &Shared, told: &Told, stand: &Stand) -> Result<(), Status> {
    let since = Instant::now();
    let mut said = String::new();
    records::set_issuers(&shared.replica, &stand.trust, &stand.signs_with, shared.now()).await?;
    loop {
        if shared.replica.leadership().borrow().leading.is_none() {
            return Err(Status::unavailable(
                "this master no longer leads; run the same command again, it goes on from there",
            ));
        }
        for member in shared.addresses.members() {
            install(shared, &member, stand).await.unwrap_or_else(|status| {
                tracing::warn!(
                    member = member.name,
                    message = status.message(),
                    "did not take the issuers; tried again"
                );
            });
        }
        let behind = behind(shared, stand).await;
        if behind.is_empty() {
            return Ok(());
        }
        let reasons = reasons(&behind);
        if since.elapsed() > STEP_LIMIT {
            return Err(Status::failed_precondition(format!(
                "it does not go on without them: {reasons}. Start or mend them, or take them out (`hactl cluster remove`, `kubectl delete \
                 node`); then run the same command again, it goes on from there"
            )));
        }
        if reasons != said {
            told.step(format!("waiting: {reasons}")).await;
            said = reasons;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Which masters and nodes do not have it, and why.
async fn behind(shared: &Shared, stand: &Stand) -> BTreeMap<String, &'static str> {
    let mut behind = BTreeMap::new();
    for member in shared.addresses.members() {
        let said = if member.id == shared.config.member_id {
            Some(status::own(shared).await)
        } else {
            status::ask(shared, &member).await
        };
        let name = format!("master {}", member.name);
        match said {
            None => drop(behind.insert(name, "does not answer")),
            Some(status) if !stand.is_taken_by(&status) => drop(behind.insert(name, "has other issuers")),
            Some(_) => {}
        }
    }
    behind.extend(nodes_behind(&shared.replica.root(), stand));
    behind
}

fn nodes_behind(root: &State, stand: &Stand) -> Vec<(String, &'static str)> {
    let nodes = status::nodes(root).into_iter().filter_map(|node| {
        let certificate = node.certificate.unwrap_or_default();
        let why = if certificate.trust.is_empty() {
            "has not said what it trusts"
        } else if certificate.trust != stand.trust {
            "trusts other issuers still (does it run?)"
        } else if certificate.issuer != stand.node_issuer {
            "has a certificate of another issuer still (does it run?)"
        } else {
            return None;
        };
        Some((format!("node {}", node.name), why))
    });
    nodes.collect()
}

async fn install(shared: &Shared, member: &pb::MemberInfo, stand: &Stand) -> Result<(), Status> {
    if member.id == shared.config.member_id {
        return install_here(shared, stand.request()?).await;
    }
    let mut request = Request::new(stand.request()?);
    request.set_timeout(CALL_LIMIT);
    let mut client = shared.peers.client(member.id, &member.peer_address, Lane::General);
    let answer = tokio::time::timeout(CALL_LIMIT, client.install_issuers(request)).await;
    answer.map_err(|_| Status::deadline_exceeded("it does not answer"))??;
    Ok(())
}

/// Takes over the issuers that the leader names; nothing to do if they are there.
///
/// # Errors
/// When they make no sense or the disk refuses.
pub async fn install_here(shared: &Shared, request: pb::InstallIssuersRequest) -> Result<(), Status> {
    let keys = |json: &[u8]| -> Result<[String; 3], Status> {
        serde_json::from_slice(json).map_err(|_| Status::invalid_argument("the issuers' keys make no sense"))
    };
    let bundles =
        Bundles { peer: request.peer_issuer_pem, node: request.node_issuer_pem, client: request.client_issuer_pem };
    let other = |json: &[u8]| if json.is_empty() { Ok(None) } else { keys(json).map(Some) };
    let generations = Generations {
        bundles,
        keys: keys(&request.master_secrets)?,
        next: other(&request.next_secrets)?,
        previous: other(&request.previous_secrets)?,
    };
    let own = Stand::own(shared).map_err(|error| internal(&error))?;
    let asked = Stand::new(generations).map_err(|error| internal(&error))?;
    let same = |a: &Generations, b: &Generations| a.next == b.next && a.previous == b.previous;
    if own.trust == asked.trust && own.signs_with == asked.signs_with && same(&own.generations, &asked.generations) {
        return Ok(());
    }
    let (trust, now, generations) = (shared.trust.clone(), shared.unix(), asked.generations);
    let installed = tokio::task::spawn_blocking(move || trust.install(&generations, now)).await;
    installed.map_err(|error| Status::internal(error.to_string()))?.map_err(|error| internal(&error))?;
    tracing::info!(trust = asked.trust, signs_with = asked.signs_with, "other issuers count from now on");
    Ok(())
}

/// Makes a master renew its certificates now; the names of the nodes that it told to.
///
/// # Errors
/// When it does not answer or cannot.
pub async fn renew(shared: &Shared, member: &pb::MemberInfo) -> Result<Vec<String>, Status> {
    if member.id == shared.config.member_id {
        return renew_here(shared).await;
    }
    let mut request = Request::new(pb::RenewOwnRequest {});
    request.set_timeout(CALL_LIMIT);
    let mut client = shared.peers.client(member.id, &member.peer_address, Lane::General);
    let answer = tokio::time::timeout(CALL_LIMIT, client.renew_own(request)).await;
    Ok(answer.map_err(|_| Status::deadline_exceeded("it does not answer"))??.into_inner().nodes)
}

/// # Errors
/// When the disk refuses.
pub async fn renew_here(shared: &Shared) -> Result<Vec<String>, Status> {
    let (trust, now) = (shared.trust.clone(), shared.unix());
    let renewed = tokio::task::spawn_blocking(move || trust.renew_all(now)).await;
    renewed.map_err(|error| Status::internal(error.to_string()))?.map_err(|error| internal(&error))?;
    Ok(shared.sessions.nodes())
}

/// While this member leads: gives the issuers to members that lack them, such as one that joined in the middle.
pub async fn keep(shared: Arc<Shared>, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(KEEP_EVERY) => {}
        }
        if shared.replica.leadership().borrow().leading.is_none() || shared.rotations.is_under_way() {
            continue;
        }
        if let Err(status) = tidy(&shared).await {
            tracing::warn!(message = status.message(), "not all masters have the same issuers yet");
        }
    }
}

async fn tidy(shared: &Shared) -> Result<(), Status> {
    // Before the first rotation there is nothing that a member could lack.
    let Some((trust, signs_with)) = records::issuers(&shared.replica.root()) else { return Ok(()) };
    let stand = Stand::own(shared).map_err(|error| internal(&error))?;
    if stand.trust != trust || stand.signs_with != signs_with {
        return Err(Status::failed_precondition(
            "this master leads and lacks the issuers that count: let another lead (`hactl cluster transfer-leadership`)",
        ));
    }
    for member in shared.addresses.members() {
        let said = if member.id == shared.config.member_id { None } else { status::ask(shared, &member).await };
        if said.is_some_and(|status| !stand.is_taken_by(&status)) {
            install(shared, &member, &stand).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stand_is_told_by_what_is_trusted_and_what_signs() {
        let lifetimes = rpc::pki::Lifetimes::default();
        let now = rpc::pki::unix_now();
        let old = Issuers::create("c", &lifetimes, now).expect("issuers");
        let new = Issuers::create("c", &lifetimes, now).expect("issuers");
        let both = old.bundles().and(&new.bundles()).expect("merged");
        let stand = |bundles: &Bundles, signs: &Issuers, next: Option<&Issuers>, previous: Option<&Issuers>| {
            Stand::new(Generations {
                bundles: bundles.clone(),
                keys: signs.keys_pem(),
                next: next.map(Issuers::keys_pem),
                previous: previous.map(Issuers::keys_pem),
            })
        };
        let stands = [
            stand(&old.bundles(), &old, None, None),
            stand(&both, &old, Some(&new), None),
            stand(&both, &new, None, Some(&old)),
            stand(&new.bundles(), &new, None, None),
        ]
        .map(|stand| stand.expect("fits"));
        for (at, stand) in stands.iter().enumerate() {
            for (other, status) in stands.iter().enumerate() {
                let status = pb::MemberStatusResponse {
                    trust: status.trust.clone(),
                    signs_with: status.signs_with.clone(),
                    ..Default::default()
                };
                assert_eq!(stand.is_taken_by(&status), at == other, "{at} {other}");
            }
        }
        assert!(stand(&old.bundles(), &new, None, None).is_err(), "a key without its certificate");
    }
}
