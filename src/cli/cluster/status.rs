//! `hactl cluster status`.

use std::time::{Duration, Instant};

use anyhow::Result;
use rpc::pb;
use serde_json::json;

use super::super::credentials::Access;

/// An election is over sooner, unless something is wrong.
const ELECTED_WITHIN: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Show masters and nodes, who leads, and what is wrong
#[derive(Debug, clap::Args)]
pub struct Show {
    /// `json` for scripts
    #[arg(short, long, value_parser = ["json"])]
    output: Option<String>,
    #[command(flatten)]
    access: Access,
}

impl Show {
    pub async fn run(self) -> Result<()> {
        let status = self.settled().await?;
        if self.output.is_some() {
            println!("{}", serde_json::to_string_pretty(&document(&status))?);
        } else {
            print!("{}", render(&status, rpc::pki::unix_now()));
        }
        anyhow::ensure!(super::leader_name(&status).is_some(), "no master leads, so nothing can be changed now");
        Ok(())
    }
}

impl Show {
    /// The status, once an election that goes on is over: it takes a moment, a lost majority may last.
    async fn settled(&self) -> Result<pb::ClusterStatusResponse> {
        let begun = Instant::now();
        loop {
            let status = super::status_of(&self.access).await?;
            if super::leader_name(&status).is_some() || !has_majority(&status) || begun.elapsed() > ELECTED_WITHIN {
                return Ok(status);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Whether so many masters answer that one of them can lead.
fn has_majority(status: &pb::ClusterStatusResponse) -> bool {
    let voters = || status.members.iter().filter(|member| member.voter);
    voters().filter(|member| member.reachable).count() > voters().count() / 2
}

fn document(status: &pb::ClusterStatusResponse) -> serde_json::Value {
    let members: Vec<_> = status
        .members
        .iter()
        .map(|member| {
            let info = member.member.clone().unwrap_or_default();
            let own = member.status.clone().unwrap_or_default();
            json!({
                "id": info.id, "name": info.name, "api": info.api_address, "peer": info.peer_address,
                "leader": info.id == status.leader && info.id != 0, "voter": member.voter, "reachable": member.reachable,
                "role": own.role, "term": own.term, "appliedIndex": own.applied_index, "revision": own.revision,
                "lag": member.lag, "diskBytes": own.disk_bytes, "diskFreeBytes": own.disk_free_bytes, "version": own.version,
                "disk": disk_document(&own.disk.unwrap_or_default()),
                "certificateExpires": own.certificate_expires, "stateHash": own.state_hash, "sealingKey": own.sealing_key,
                "stateVersion": own.state_version, "supportedVersion": own.supported_version,
                "wireVersion": own.wire_version, "problems": own.problems,
            })
        })
        .collect();
    let nodes: Vec<_> = status
        .nodes
        .iter()
        .map(|node| {
            json!({
                "name": node.name, "ready": node.ready, "version": node.version, "pods": node.pods,
                "certificateExpires": node.certificate_expires,
            })
        })
        .collect();
    json!({
        "clusterId": status.cluster_id, "epoch": status.epoch, "leader": super::leader_name(status),
        "members": members, "nodes": nodes, "problems": status.problems,
    })
}

fn disk_document(disk: &pb::DiskStatus) -> serde_json::Value {
    json!({
        "logBytes": disk.log_bytes, "stateBytes": disk.state_bytes, "snapshotBytes": disk.snapshot_bytes, "full": disk.full,
        "syncs": disk.syncs, "syncP50Us": disk.sync_p50_us, "syncP99Us": disk.sync_p99_us, "syncMaxUs": disk.sync_max_us,
        "storeBytes": disk.store_bytes, "storeQuotaBytes": disk.store_quota_bytes, "historyBytes": disk.history_bytes,
    })
}

fn render(status: &pb::ClusterStatusResponse, now: i64) -> String {
    let mut rows = vec![
        ["MASTER", "ROLE", "TERM", "REVISION", "LAG", "LOG", "STATE", "SNAPSHOTS", "VERSION", "CERTIFICATE", "ADDRESS"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for member in &status.members {
        let info = member.member.clone().unwrap_or_default();
        let own = member.status.clone().unwrap_or_default();
        let disk = own.disk.unwrap_or_default();
        let role = match (member.reachable, member.voter) {
            (false, _) => "unreachable".to_owned(),
            (true, false) => "learner".to_owned(),
            (true, true) => own.role.clone(),
        };
        let known = |text: String| if member.reachable { text } else { "-".to_owned() };
        rows.push(vec![
            info.name,
            role,
            known(own.term.to_string()),
            known(own.revision.to_string()),
            known(member.lag.to_string()),
            known(size(disk.log_bytes)),
            known(size(disk.state_bytes)),
            known(size(disk.snapshot_bytes)),
            known(own.version),
            known(left(own.certificate_expires, now)),
            info.api_address,
        ]);
    }
    let mut text = table(&rows);
    if !status.nodes.is_empty() {
        let mut rows = vec![["NODE", "READY", "PODS", "VERSION", "CERTIFICATE"].map(str::to_owned).to_vec()];
        for node in &status.nodes {
            rows.push(vec![
                node.name.clone(),
                readiness(&node.ready),
                node.pods.to_string(),
                node.version.clone(),
                left(node.certificate_expires, now),
            ]);
        }
        text.push('\n');
        text.push_str(&table(&rows));
    }
    text.push('\n');
    match super::leader_name(status) {
        Some(name) => text.push_str(&format!("{name} leads.")),
        None => text.push_str("Nobody leads."),
    }
    if status.problems.is_empty() {
        text.push_str(" Nothing is wrong.\n");
    } else {
        text.push_str(" What is wrong:\n");
        for problem in &status.problems {
            text.push_str(&format!("- {problem}\n"));
        }
    }
    text
}

/// In the words of `kubectl get nodes`.
fn readiness(ready: &str) -> String {
    match ready {
        "true" | "True" => "yes".to_owned(),
        "false" | "False" => "no".to_owned(),
        other => other.to_owned(),
    }
}

/// Columns padded to their widest cell.
pub fn table(rows: &[Vec<String>]) -> String {
    let count = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..count)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        let line: String = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}   ")).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{} KiB", bytes / 1024),
        1_048_576..1_073_741_824 => format!("{} MiB", bytes / 1_048_576),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

/// Until a certificate ends.
pub fn left(expires: i64, now: i64) -> String {
    match expires - now {
        _ if expires == 0 => "-".to_owned(),
        left if left <= 0 => "expired".to_owned(),
        left if left < 120 => format!("{left} s left"),
        left if left < 7200 => format!("{} min left", left / 60),
        left if left < 86_400 => format!("{} h left", left / 3600),
        left => format!("{} d left", left / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leads_and_what_is_wrong() {
        let member = |id, name: &str, role: &str, reachable| pb::MemberStatus {
            member: Some(pb::MemberInfo { id, name: name.into(), ..Default::default() }),
            voter: true,
            reachable,
            status: Some(pb::MemberStatusResponse { role: role.into(), term: 3, ..Default::default() }),
            lag: 0,
        };
        let status = pb::ClusterStatusResponse {
            leader: 2,
            members: vec![member(1, "a", "follower", false), member(2, "b", "leader", true)],
            problems: vec!["master a does not answer".into()],
            ..Default::default()
        };
        let text = render(&status, 0);
        assert!(text.contains("a        unreachable   -"), "{text}");
        assert!(text.contains("b        leader        3"), "{text}");
        assert!(text.ends_with("b leads. What is wrong:\n- master a does not answer\n"), "{text}");
        assert_eq!(document(&status)["leader"], "b");
        assert!(!has_majority(&status), "one of two is none");
        let three = [true, true, false].map(|reachable| member(3, "c", "follower", reachable)).to_vec();
        assert!(has_majority(&pb::ClusterStatusResponse { members: three, ..Default::default() }));
    }
}
