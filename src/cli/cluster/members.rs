//! `hactl cluster remove` and `transfer-leadership`: changes of the masters, carried out by the leader, watched from here.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rpc::pb;

use super::super::credentials::Access;
use super::super::progress::{Progress, note};

/// How long a change may take: a leader that hands over first, and a majority that writes it down.
const WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Take a master out of the cluster, alive or dead
#[derive(Debug, clap::Args)]
pub struct Remove {
    /// Its name or id, as `hactl cluster status` shows it
    member: String,
    #[command(flatten)]
    access: Access,
}

/// Let another master lead
#[derive(Debug, clap::Args)]
pub struct Transfer {
    /// Its name or id [default: the one that is furthest]
    member: Option<String>,
    #[command(flatten)]
    access: Access,
}

impl Remove {
    pub async fn run(self) -> Result<()> {
        let status = super::status_of(&self.access).await?;
        let member = find(&status, &self.member)?;
        let mut progress = Progress::start(format!("removing {}", member.name));
        if status.leader == member.id {
            progress.detail("it leads, so it hands over first");
        }
        let since = Instant::now();
        loop {
            let mut client = super::connect(&self.access).await?;
            let request = pb::LeaveRequest { member_id: member.id, node: String::new() };
            match client.leave(super::timed(request)).await {
                Ok(_) => break,
                // The leader may be changing; asking again changes nothing that is done already.
                Err(status) if is_passing(&status) && since.elapsed() < WITHIN => progress.detail(status.message()),
                Err(status) => return Err(super::refused(status)),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        until(&self.access, &mut progress, |status| {
            let stays = status.members.iter().filter_map(|one| one.member.as_ref()).any(|info| info.id == member.id);
            stays.then(|| "it is still listed".to_owned())
        })
        .await?;
        progress.done("removed");
        println!("{} (member {}) is no master any more; its certificate opens nothing", member.name, member.id);
        note(format!("on its machine, `hactl cluster leave --force` removes what it left ({})", member.api_address));
        Ok(())
    }
}

impl Transfer {
    pub async fn run(self) -> Result<()> {
        let status = super::status_of(&self.access).await?;
        let to = match &self.member {
            Some(asked) => Some(find(&status, asked)?),
            None => None,
        };
        let before = status.leader;
        if let Some(to) = &to
            && to.id == before
        {
            println!("{} leads already", to.name);
            return Ok(());
        }
        let what = to.as_ref().map_or_else(|| "another master".to_owned(), |to| to.name.clone());
        let mut progress = Progress::start(format!("handing leadership to {what}"));
        let request = pb::TransferLeaderRequest { to: to.as_ref().map_or(0, |to| to.id) };
        let mut client = super::connect(&self.access).await?;
        client.transfer_leader(super::timed(request)).await.map_err(super::refused)?;
        let status = until(&self.access, &mut progress, |status| {
            let there = match &to {
                Some(to) => status.leader == to.id,
                None => status.leader != 0 && status.leader != before,
            };
            (!there).then(|| "the election goes on".to_owned())
        })
        .await?;
        progress.done("done");
        println!("{} leads", super::leader_name(&status).unwrap_or_default());
        Ok(())
    }
}

fn is_passing(status: &tonic::Status) -> bool {
    matches!(status.code(), tonic::Code::Unavailable | tonic::Code::DeadlineExceeded | tonic::Code::Aborted)
}

/// The member of this name or id.
///
/// # Errors
/// When there is none, or several have the name.
pub fn find(status: &pb::ClusterStatusResponse, asked: &str) -> Result<pb::MemberInfo> {
    let all: Vec<&pb::MemberInfo> = status.members.iter().filter_map(|member| member.member.as_ref()).collect();
    let found: Vec<_> = all.iter().filter(|info| info.name == asked || info.id.to_string() == asked).collect();
    match found.as_slice() {
        [one] => Ok((**one).clone()),
        [] if status.nodes.iter().any(|node| node.name == asked) => {
            bail!("{asked} is a node, not a master; `kubectl delete node {asked}` takes it out")
        }
        [] => {
            let names: Vec<String> = all.iter().map(|info| format!("{} (id {})", info.name, info.id)).collect();
            bail!("there is no master {asked}; there are {}", names.join(", "))
        }
        _ => {
            let ids: Vec<String> = found.iter().map(|info| info.id.to_string()).collect();
            bail!("several masters are called {asked}; give an id: {}", ids.join(", "))
        }
    }
}

/// Looks until `missing` finds nothing.
async fn until(
    access: &Access,
    progress: &mut Progress,
    missing: impl Fn(&pb::ClusterStatusResponse) -> Option<String>,
) -> Result<pb::ClusterStatusResponse> {
    let since = Instant::now();
    let masters = super::masters(access).await?;
    loop {
        let asked = async {
            let (_, channel) = masters.connect().await.ok()?;
            let mut client = pb::cluster_client::ClusterClient::new(channel);
            Some(client.status(super::timed(pb::ClusterStatusRequest {})).await.ok()?.into_inner())
        };
        let what = match asked.await {
            Some(status) => match missing(&status) {
                None => return Ok(status),
                Some(what) => what,
            },
            None => "the masters do not answer".to_owned(),
        };
        // Another one next time: a master that was taken out does not learn of it.
        masters.move_on();
        if since.elapsed() > WITHIN {
            bail!("not done within {} s ({what}); look at `hactl cluster status`", WITHIN.as_secs());
        }
        progress.detail(&what);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masters_are_found_by_name_or_id() {
        let member = |id, name: &str| pb::MemberStatus {
            member: Some(pb::MemberInfo { id, name: name.into(), ..Default::default() }),
            ..Default::default()
        };
        let status = pb::ClusterStatusResponse {
            members: vec![member(1, "a"), member(2, "b"), member(5, "b")],
            nodes: vec![pb::NodeSummary { name: "worker".into(), ..Default::default() }],
            ..Default::default()
        };
        assert_eq!(find(&status, "a").expect("one").id, 1);
        assert_eq!(find(&status, "5").expect("one").id, 5);
        for (asked, why) in [("b", "give an id: 2, 5"), ("c", "a (id 1)"), ("worker", "kubectl delete node")] {
            let error = find(&status, asked).expect_err(asked).to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
