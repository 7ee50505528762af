//! What `hactl cluster status` shows: of this member, and of the cluster as this member can find out.

use std::time::Duration;

use rpc::pb;
use rpc::peer::Lane;
use state::State;
use tonic::Request;

use super::Shared;
use crate::sessions;

/// A member that does not answer within this is shown as unreachable.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// The role of a leader that no majority has acknowledged lately, or whose state has not applied its term's beginning yet.
const CUT_OFF: &str = "leader, cut off";
/// Less free disk than this is a problem.
const DISK_WARN: u64 = 1 << 30;

/// Of this member.
pub async fn own(shared: &Shared) -> pb::MemberStatusResponse {
    let now = shared.unix();
    // Read and verified where that keeps nobody waiting: this may be asked on consensus' own thread.
    let trust = shared.trust.clone();
    let own = tokio::task::spawn_blocking(move || (trust.expires(now), trust.certificates(), trust.issuers_age(now)));
    let ((certificate_expires, missed), certificates, issuers_age) = own.await.unwrap_or_default();
    let issuers = shared.trust.issuers();
    let mut problems = Vec::new();
    if !shared.replica.leadership().borrow().serving {
        problems.push("does not serve: no leader was confirmed lately, or it is still catching up".to_owned());
    }
    if let Some(key) = shared.keys.active().filter(|key| !shared.keys.ids().contains(key)) {
        problems.push(format!("lacks the key {key} for Secrets, and cannot serve them until the leader has sent it"));
    }
    if missed {
        problems.push("has a certificate that was not renewed in time: its log says why".to_owned());
    }
    problems.extend(issuers_age.map(str::to_owned));
    problems.extend(shared.trouble.now());
    let data_dir = shared.config.data_dir.clone();
    let disk_free_bytes = tokio::task::spawn_blocking(move || free(&data_dir)).await.ok().flatten();
    let warn = DISK_WARN.max(shared.config.bounds.disk_reserve * 2);
    if let Some(free) = disk_free_bytes.filter(|free| *free < warn && !shared.consensus.is_disk_full()) {
        problems.push(format!(
            "has only {} MiB of disk free; below {} it takes no writes (setting disk-reserve)",
            free >> 20,
            shared.config.bounds.disk_reserve >> 20
        ));
    }
    let mut answer = pb::MemberStatusResponse {
        id: shared.config.member_id,
        name: shared.config.name.clone(),
        role: "stopped".to_owned(),
        disk_free_bytes: disk_free_bytes.unwrap_or_default(),
        version: shared.config.version.clone(),
        certificate_expires,
        nodes: shared.sessions.nodes(),
        incarnation: shared.incarnation,
        state_version: shared.replica.root().version(),
        supported_version: state::VERSION,
        wire_version: rpc::version::WIRE,
        data_keys: shared.keys.ids(),
        sealing_key: shared.keys.active().unwrap_or_default(),
        trust: issuers.bundles().pin().unwrap_or_default(),
        signs_with: issuers.own().pin().unwrap_or_default(),
        certificates,
        ..Default::default()
    };
    match shared.consensus.status().await {
        Ok(status) => {
            answer.role = status.role.to_string();
            // openraft keeps the role of a leader that was cut off.
            if status.role == consensus::Role::Leader && shared.replica.leadership().borrow().leading.is_none() {
                answer.role = CUT_OFF.to_owned();
            }
            answer.term = status.term;
            answer.applied_index = status.applied_index;
            answer.revision = status.revision;
            answer.last_log_index = status.last_log_index;
            problems.extend(shared.agreement.problem());
            problems.extend(status.disk_full.clone());
            problems.extend(slow(&status, shared.config.bounds.disk_slow));
            let disk = disk(&status, &shared.replica.root());
            answer.disk_bytes = disk.log_bytes + disk.state_bytes + disk.snapshot_bytes;
            answer.disk = Some(disk);
            answer.state_hash = status.state_hash.to_string();
            problems.extend(status.problem);
        }
        Err(error) => problems.push(error.to_string()),
    }
    answer.problems = problems;
    answer
}

fn disk(status: &consensus::Status, root: &State) -> pb::DiskStatus {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let syncs = status.syncs.unwrap_or_default();
    pb::DiskStatus {
        log_bytes: status.log_bytes,
        state_bytes: status.state_bytes,
        snapshot_bytes: status.snapshot_bytes,
        full: status.disk_full.is_some(),
        syncs: syncs.count,
        sync_p50_us: micros(syncs.p50),
        sync_p99_us: micros(syncs.p99),
        sync_max_us: micros(syncs.max),
        store_bytes: root.bytes(),
        store_quota_bytes: root.quota(),
        history_bytes: root.history_bytes(),
    }
}

/// Every write waits for a sync of a majority; the median of a minute is no accident.
fn slow(status: &consensus::Status, limit: Duration) -> Option<String> {
    let syncs = status.syncs.filter(|syncs| syncs.p50 > limit)?;
    Some(format!(
        "has a slow disk: of {} syncs in the last minute half took more than {:.0?}, the longest {:.0?}; above {limit:?} (setting \
         disk-slow) every write that waits for it is slow, though nothing is lost. Give its data dir a disk of its own, or a faster one",
        syncs.count, syncs.p50, syncs.max
    ))
}

/// Of the cluster: every member is asked at once.
pub async fn cluster(shared: &Shared) -> pb::ClusterStatusResponse {
    let known = shared.consensus.members();
    let asked = shared.members().into_iter().map(|member| async {
        let status = match member.id == shared.config.member_id {
            true => Ok(own(shared).await),
            false => asked_at(shared, &member, 0).await,
        };
        let voter = known.iter().any(|known| known.member.id == member.id && known.voter);
        let (status, refused) = match status {
            Ok(status) => (Some(status), None),
            Err(refused) => (None, refused.map(|why| format!("master {} refuses this one: {why}", member.name))),
        };
        (pb::MemberStatus { voter, reachable: status.is_some(), status, member: Some(member), lag: 0 }, refused)
    });
    let (mut members, refused): (Vec<pb::MemberStatus>, Vec<Option<String>>) =
        futures::future::join_all(asked).await.into_iter().unzip();
    let refused: Vec<String> = refused.into_iter().flatten().collect();
    if !majority_answers(&members) {
        // Within its lease a leader that was cut off just now still believes that it leads.
        tokio::time::sleep(shared.config.timing.election_max).await;
        let me = shared.config.member_id;
        if let Some(status) = members.iter_mut().filter_map(|member| member.status.as_mut()).find(|own| own.id == me) {
            *status = own(shared).await;
        }
    }
    let newest = members.iter().filter_map(|m| m.status.as_ref()).map(|s| s.last_log_index).max().unwrap_or_default();
    for member in &mut members {
        member.lag = member.status.as_ref().map_or(0, |status| newest.saturating_sub(status.applied_index));
    }
    // Who was heard to lead may have died since: who leads says so itself.
    let leads = |member: &&pb::MemberStatus| member.status.as_ref().is_some_and(|status| status.role == "leader");
    let leader = members.iter().find(leads).and_then(|member| member.member.as_ref()).map(|info| info.id);
    let root = shared.replica.root();
    let nodes = nodes(&root);
    let mut problems = problems(&members, &nodes, leader, &refused, shared.unix());
    let each = root.list("", "nodes", None);
    problems.extend(each.filter_map(|(key, record)| pressed(&key.name, &control::record::parse(record))));
    pb::ClusterStatusResponse {
        cluster_id: shared.config.cluster_id.clone(),
        epoch: shared.config.epoch,
        leader: leader.unwrap_or_default(),
        members,
        nodes,
        problems,
    }
}

fn majority_answers(members: &[pb::MemberStatus]) -> bool {
    let voters = members.iter().filter(|member| member.voter).count();
    members.iter().filter(|member| member.voter && member.reachable).count() > voters / 2
}

/// What a member says of itself; `None` when it does not answer.
pub async fn ask(shared: &Shared, member: &pb::MemberInfo) -> Option<pb::MemberStatusResponse> {
    ask_at(shared, member, 0).await
}

/// As [`ask`], with the hash of its state at a revision.
pub async fn ask_at(
    shared: &Shared,
    member: &pb::MemberInfo,
    hash_at_revision: u64,
) -> Option<pb::MemberStatusResponse> {
    asked_at(shared, member, hash_at_revision).await.ok()
}

/// As [`ask_at`]; where it answers and refuses us, why.
async fn asked_at(
    shared: &Shared,
    member: &pb::MemberInfo,
    hash_at_revision: u64,
) -> Result<pb::MemberStatusResponse, Option<String>> {
    let mut request = Request::new(pb::MemberStatusRequest { hash_at_revision });
    request.set_timeout(ANSWER_LIMIT);
    let mut client = shared.peers.client(member.id, &member.peer_address, Lane::General);
    let answer = tokio::time::timeout(ANSWER_LIMIT, client.member_status(request)).await;
    match answer {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) if status.code() == tonic::Code::PermissionDenied => Err(Some(status.message().to_owned())),
        Ok(Err(_)) | Err(_) => Err(None),
    }
}

/// All nodes as they last reported.
pub fn nodes(root: &State) -> Vec<pb::NodeSummary> {
    root.list("", "nodes", None)
        .map(|(key, record)| {
            let node = control::record::parse(record);
            let certificate = certificate(&key.name, &node);
            pb::NodeSummary {
                name: key.name.clone(),
                ready: record.header.fields.get("ready").unwrap_or("Unknown").to_owned(),
                version: objects::meta::text(&node, &["status", "nodeInfo", "kubeletVersion"]).to_owned(),
                pods: u32::try_from(root.on_node(&key.name).count()).unwrap_or(u32::MAX),
                certificate_expires: certificate.as_ref().map_or(0, |certificate| certificate.not_after),
                certificate,
            }
        })
        .collect()
}

/// A node that is Ready and yet takes no new pods, because something of it runs out.
fn pressed(name: &str, node: &serde_json::Value) -> Option<String> {
    let conditions = objects::meta::list(node, &["status", "conditions"]);
    let short: Vec<&str> = [("DiskPressure", "disk"), ("MemoryPressure", "memory"), ("PIDPressure", "process ids")]
        .into_iter()
        .filter(|(kind, _)| conditions.iter().any(|one| one["type"] == *kind && one["status"] == "True"))
        .map(|(_, what)| what)
        .collect();
    (!short.is_empty())
        .then(|| format!("node {name} is short of {}: it takes no new pods until there is more", short.join(", ")))
}

/// What a node's kubelet says of its certificate; nothing before it first reported, or when it is older than that.
fn certificate(name: &str, node: &serde_json::Value) -> Option<pb::CertificateInfo> {
    let text = objects::meta::text(node, &["metadata", "annotations", sessions::CERTIFICATE]);
    let said: rpc::pki::Said = serde_json::from_str(text).ok()?;
    Some(pb::CertificateInfo {
        holder: name.to_owned(),
        name: "node".to_owned(),
        not_before: said.not_before,
        not_after: said.not_after,
        issuer: said.issuer,
        serial: said.serial,
        file: said.file,
        trust: said.trust,
    })
}

/// What is wrong, in words.
fn problems(
    members: &[pb::MemberStatus],
    nodes: &[pb::NodeSummary],
    leader: Option<u64>,
    refused: &[String],
    now: i64,
) -> Vec<String> {
    // Whoever is refused learns nothing more from the others, and must not be told to recover from itself.
    let mut problems = refused.to_vec();
    let voters = members.iter().filter(|member| member.voter).count();
    if leader.is_none() && refused.is_empty() {
        problems.push(leaderless(members, voters));
    }
    if voters > 1 && voters % 2 == 0 {
        problems.push(format!(
            "{voters} voting masters bear no more failures than {}: add one, or take out one that is lost for good (`hactl cluster \
             remove NAME`)",
            voters - 1
        ));
    }
    for member in members {
        let info = member.member.as_ref();
        let name = info.map_or("", |info| info.name.as_str());
        let peer = info.map_or("", |info| info.peer_address.as_str());
        match &member.status {
            None if leader.is_none() && !refused.is_empty() => {}
            None => problems
                .push(format!("master {name} does not answer at {peer}: is its machine up, and that port open?")),
            Some(status) => problems.extend(status.problems.iter().map(|problem| format!("master {name} {problem}"))),
        }
    }
    let store = members.iter().filter_map(|member| member.status.as_ref()?.disk.as_ref()).max_by_key(|d| d.store_bytes);
    if let Some(disk) = store.filter(|disk| disk.store_quota_bytes > 0 && disk.store_bytes > disk.store_quota_bytes) {
        problems.push(format!(
            "the store is full: its objects take {} MiB of {} (setting store-quota); nothing is created until some are deleted",
            disk.store_bytes >> 20,
            disk.store_quota_bytes >> 20
        ));
    }
    for node in nodes.iter().filter(|node| !node.ready.eq_ignore_ascii_case("true")) {
        problems.push(format!("node {} is not ready: `kubectl describe node {}` says more", node.name, node.name));
    }
    for node in nodes {
        let Some(certificate) = &node.certificate else { continue };
        let end = rpc::pki::Expiry { not_before: certificate.not_before, not_after: certificate.not_after };
        if end.is_over(now) {
            problems.push(format!(
                "node {} has a certificate that has ended: it gets a new one by itself when it runs, for as long as the setting \
                 certificate-grace of the masters says",
                node.name
            ));
        } else if end.is_late(now) {
            problems
                .push(format!("node {} has a certificate that was not renewed in time: its log says why", node.name));
        }
    }
    let hashes: std::collections::BTreeMap<u64, std::collections::BTreeSet<&str>> =
        members.iter().filter_map(|m| m.status.as_ref()).fold(Default::default(), |mut map, status| {
            map.entry(status.revision).or_default().insert(&status.state_hash);
            map
        });
    for (revision, _) in hashes.iter().filter(|(_, hashes)| hashes.len() > 1) {
        problems.push(format!(
            "masters differ at revision {revision}: this must never happen; keep all data dirs and report it"
        ));
    }
    problems
}

/// Why nobody leads, and what to type.
fn leaderless(members: &[pb::MemberStatus], voters: usize) -> String {
    let answering = members.iter().filter(|member| member.voter && member.reachable).count();
    let missing = (voters / 2 + 1).saturating_sub(answering);
    let verb = if answering == 1 { "answers" } else { "answer" };
    if missing == 0 {
        return format!(
            "{answering} of {voters} masters {verb} and none leads: an election takes a second as a rule; look again, and then at \
             whether they reach each other"
        );
    }
    format!(
        "{answering} of {voters} masters {verb}: no majority, nothing can be changed, and containers run on. Start {missing} more \
         (`systemctl start hactl` there, `hactl local start NAME`); if those are lost for good, `hactl cluster recover --from-this-member` on \
         one that answers, stopped before: see docs/disasters.md"
    )
}

/// Bytes free on the data dir's file system.
fn free(path: &std::path::Path) -> Option<u64> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    Some(stat.blocks_available() * stat.fragment_size())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_ready_but_takes_no_pods_is_said() {
        let node = |disk| {
            serde_json::json!({ "status": { "conditions": [
            { "type": "Ready", "status": "True" }, { "type": "DiskPressure", "status": disk },
        ] } })
        };
        let said = pressed("n1", &node("True")).expect("a problem");
        assert_eq!(said, "node n1 is short of disk: it takes no new pods until there is more");
        assert_eq!(pressed("n1", &node("False")), None);
    }

    #[test]
    fn without_a_majority_it_says_what_answers_and_what_to_type() {
        let member = |id, name: &str, reachable| pb::MemberStatus {
            member: Some(pb::MemberInfo {
                id,
                name: name.into(),
                peer_address: format!("10.0.0.{id}:16444"),
                ..Default::default()
            }),
            voter: true,
            reachable,
            status: reachable.then(Default::default),
            lag: 0,
        };
        let one = [member(1, "a", true), member(2, "b", false), member(3, "c", false)];
        let said = problems(&one, &[], None, &[], 0);
        assert!(said[0].starts_with("1 of 3 masters answers: no majority, nothing can be changed"), "{said:?}");
        assert!(said[0].contains("Start 1 more") && said[0].contains("hactl cluster recover"), "{said:?}");
        assert!(said[1].contains("master b does not answer at 10.0.0.2:16444"), "{said:?}");
        let two = [member(1, "a", true), member(2, "b", true), member(3, "c", false)];
        let said = problems(&two, &[], None, &[], 0);
        assert!(said[0].starts_with("2 of 3 masters answer and none leads: an election"), "{said:?}");
        let removed = "master b refuses this one: member 1 was removed".to_owned();
        assert_eq!(problems(&one, &[], None, std::slice::from_ref(&removed), 0), [removed], "and no word of recover");

        assert!(!majority_answers(&one));
        assert!(majority_answers(&two));
    }
}
