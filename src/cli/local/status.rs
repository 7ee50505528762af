//! `hactl local status`: which processes live, and who leads.

use anyhow::{Result, bail};
use serde::Serialize;

use super::super::cluster;
use super::super::credentials::Access;
use super::super::progress::count;
use super::Dir;
use super::layout::Layout;

/// Show its processes
#[derive(Debug, clap::Args)]
pub struct Show {
    #[command(flatten)]
    dir: Dir,
    /// `json` for scripts
    #[arg(short, long, value_parser = ["json"])]
    output: Option<String>,
}

/// The form of `-o json`; its names are a contract.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    pub masters: Vec<MasterStatus>,
    pub nodes: Vec<NodeStatus>,
}

#[derive(Clone, Debug, Serialize)]
pub struct MasterStatus {
    pub name: String,
    pub pid: Option<i32>,
    pub api: String,
    pub leader: bool,
}

#[derive(Clone, Debug, Serialize)]
pub struct NodeStatus {
    pub name: String,
    pub pid: Option<i32>,
}

impl Status {
    pub fn leader(&self) -> Option<&str> {
        self.masters.iter().find(|master| master.leader && master.pid.is_some()).map(|master| master.name.as_str())
    }
}

/// The processes, and the leader where a master answers.
pub async fn collect(layout: &Layout) -> Status {
    let alive = |name: &str| layout.process(name).pid();
    let masters: Vec<MasterStatus> = layout
        .plan
        .masters
        .iter()
        .map(|master| MasterStatus {
            name: master.name.clone(),
            pid: alive(&master.name),
            api: master.url(),
            leader: false,
        })
        .collect();
    let nodes =
        layout.plan.nodes.iter().map(|node| NodeStatus { name: node.name.clone(), pid: alive(&node.name) }).collect();
    let mut status = Status { masters, nodes };
    if status.masters.iter().any(|master| master.pid.is_some()) && layout.kubeconfig().exists() {
        // Nobody leads as far as can be told when no master answers.
        if let Ok(answer) = cluster::status_of(&Access::of(layout.kubeconfig())).await {
            let leader = cluster::leader_name(&answer);
            for master in &mut status.masters {
                master.leader = master.pid.is_some() && leader.as_deref() == Some(&master.name);
            }
        }
    }
    status
}

impl Show {
    pub async fn run(self) -> Result<()> {
        let layout = self.dir.load()?;
        if let Err(error) = std::fs::File::open(layout.kubeconfig())
            && error.kind() == std::io::ErrorKind::PermissionDenied
        {
            bail!("cannot read {}: it is another user's; use sudo", layout.kubeconfig().display());
        }
        let status = collect(&layout).await;
        if self.output.is_some() {
            println!("{}", serde_json::to_string_pretty(&status)?);
            return Ok(());
        }
        print!("{}", render(&status));
        if status.leader().is_none() {
            let (all, living) = (status.masters.len(), status.masters.iter().filter(|one| one.pid.is_some()).count());
            let needed = all / 2 + 1;
            println!(
                "\nNobody leads: {living} of {} {}, {needed} {} needed (`hactl local start NAME`).",
                count(all, "master"),
                if living == 1 { "runs" } else { "run" },
                if needed == 1 { "is" } else { "are" }
            );
        }
        println!("\nkubeconfig: {}", layout.kubeconfig().display());
        Ok(())
    }
}

pub fn render(status: &Status) -> String {
    let pid = |pid: Option<i32>| pid.map_or("dead".to_owned(), |pid| pid.to_string());
    let mut text = format!("{:<12} {:<8} {:<7} {}\n", "NAME", "PID", "LEADS", "API");
    for master in &status.masters {
        let leads = if master.leader { "yes" } else { "" };
        text.push_str(&format!("{:<12} {:<8} {:<7} {}\n", master.name, pid(master.pid), leads, master.api));
    }
    for node in &status.nodes {
        text.push_str(format!("{:<12} {:<8}", node.name, pid(node.pid)).trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_form_is_the_contract() {
        let status = Status {
            masters: vec![MasterStatus {
                name: "master-1".into(),
                pid: Some(7),
                api: "https://127.0.0.1:1".into(),
                leader: true,
            }],
            nodes: vec![NodeStatus { name: "node-1".into(), pid: None }],
        };
        let expected = r#"{"masters":[{"name":"master-1","pid":7,"api":"https://127.0.0.1:1","leader":true}],"nodes":[{"name":"node-1","pid":null}]}"#;
        assert_eq!(serde_json::to_string(&status).expect("json"), expected);
        assert!(render(&status).contains("node-1       dead\n"));
    }
}
