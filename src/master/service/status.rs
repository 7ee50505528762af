//! What `hactl cluster status` shows: of this member, and of the cluster as this member can find out.

use std::time::Duration;

use rpc::pb;
use rpc::peer::Lane;
use state::{Key, State};
use tonic::Request;

use super::Shared;
use crate::renewal::Own;

/// A member that does not answer within this is shown as unreachable.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// A certificate that ends sooner has missed its renewal.
const CERTIFICATE_WARN_S: i64 = 7 * 24 * 3600;
/// Less free disk than this is a problem.
const DISK_WARN: u64 = 1 << 30;

/// Of this member.
pub async fn own(shared: &Shared) -> pb::MemberStatusResponse {
    let certificate_expires = Own::expires(&shared.dir);
    let mut problems = Vec::new();
    if !shared.replica.leadership().borrow().serving {
        problems.push("does not serve: no leader was confirmed lately, or it is still catching up".to_owned());
    }
    if certificate_expires - shared.unix() < CERTIFICATE_WARN_S {
        problems.push("has a certificate that ends within a week and was not renewed".to_owned());
    }
    let data_dir = shared.config.data_dir.clone();
    let disk_free_bytes = tokio::task::spawn_blocking(move || free(&data_dir)).await.ok().flatten();
    if let Some(free) = disk_free_bytes.filter(|free| *free < DISK_WARN) {
        problems.push(format!("has only {} MiB of disk free", free >> 20));
    }
    let mut answer = pb::MemberStatusResponse {
        id: shared.config.member_id,
        name: shared.config.name.clone(),
        role: "stopped".to_owned(),
        disk_free_bytes: disk_free_bytes.unwrap_or_default(),
        version: shared.config.version.clone(),
        certificate_expires,
        nodes: shared.sessions.nodes(),
        ..Default::default()
    };
    match shared.consensus.status().await {
        Ok(status) => {
            answer.role = status.role.to_string();
            answer.term = status.term;
            answer.applied_index = status.applied_index;
            answer.revision = status.revision;
            answer.last_log_index = status.last_log_index;
            answer.disk_bytes = status.disk_bytes;
            answer.state_hash = status.state_hash.to_string();
            problems.extend(status.problem);
        }
        Err(error) => problems.push(error.to_string()),
    }
    answer.problems = problems;
    answer
}

/// Of the cluster: every member is asked at once.
pub async fn cluster(shared: &Shared) -> pb::ClusterStatusResponse {
    let known = shared.consensus.members();
    let asked = shared.addresses.members().into_iter().map(|member| async {
        let status =
            if member.id == shared.config.member_id { Some(own(shared).await) } else { ask(shared, &member).await };
        let voter = known.iter().any(|known| known.member.id == member.id && known.voter);
        pb::MemberStatus { voter, reachable: status.is_some(), status, member: Some(member), lag: 0 }
    });
    let mut members: Vec<pb::MemberStatus> = futures::future::join_all(asked).await;
    let newest = members.iter().filter_map(|m| m.status.as_ref()).map(|s| s.last_log_index).max().unwrap_or_default();
    for member in &mut members {
        member.lag = member.status.as_ref().map_or(0, |status| newest.saturating_sub(status.applied_index));
    }
    let leadership = shared.replica.leadership().borrow().clone();
    let nodes = nodes(&shared.replica.root());
    let problems = problems(&members, &nodes, leadership.leader);
    pb::ClusterStatusResponse {
        cluster_id: shared.config.cluster_id.clone(),
        epoch: shared.config.epoch,
        leader: leadership.leader.unwrap_or_default(),
        members,
        nodes,
        problems,
    }
}

async fn ask(shared: &Shared, member: &pb::MemberInfo) -> Option<pb::MemberStatusResponse> {
    let mut request = Request::new(pb::MemberStatusRequest {});
    request.set_timeout(ANSWER_LIMIT);
    let mut client = shared.peers.client(member.id, &member.peer_address, Lane::General);
    let answer = tokio::time::timeout(ANSWER_LIMIT, client.member_status(request)).await;
    answer.ok()?.ok().map(tonic::Response::into_inner)
}

fn nodes(root: &State) -> Vec<pb::NodeSummary> {
    root.list("", "nodes", None)
        .map(|(key, record)| pb::NodeSummary {
            name: key.name.clone(),
            ready: record.header.fields.get("ready").cloned().unwrap_or_else(|| "Unknown".into()),
            version: kubelet_version(root, key),
            pods: u32::try_from(root.on_node(&key.name).count()).unwrap_or(u32::MAX),
            certificate_expires: 0,
        })
        .collect()
}

fn kubelet_version(root: &State, key: &Key) -> String {
    let node = root.get(key).map(|record| control::record::parse(record)).unwrap_or_default();
    objects::meta::text(&node, &["status", "nodeInfo", "kubeletVersion"]).to_owned()
}

/// What is wrong, in words.
fn problems(members: &[pb::MemberStatus], nodes: &[pb::NodeSummary], leader: Option<u64>) -> Vec<String> {
    let mut problems = Vec::new();
    if leader.is_none() {
        problems.push("no master leads: start masters until a majority of them runs and reach each other".to_owned());
    }
    let voters = members.iter().filter(|member| member.voter).count();
    if voters > 1 && voters % 2 == 0 {
        problems.push(format!("{voters} voting masters bear no more failures than {}: add one", voters - 1));
    }
    for member in members {
        let name = member.member.as_ref().map_or("", |info| info.name.as_str());
        match &member.status {
            None => problems.push(format!("master {name} does not answer: is its machine up, and port 6444 open?")),
            Some(status) => problems.extend(status.problems.iter().map(|problem| format!("master {name} {problem}"))),
        }
    }
    for node in nodes.iter().filter(|node| !node.ready.eq_ignore_ascii_case("true")) {
        problems.push(format!("node {} is not ready: `kubectl describe node {}` says more", node.name, node.name));
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

/// Bytes free on the data dir's file system.
fn free(path: &std::path::Path) -> Option<u64> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    Some(stat.blocks_available() * stat.fragment_size())
}
