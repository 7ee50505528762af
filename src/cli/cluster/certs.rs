//! `hactl cluster certs`: what certificates there are and when they end, new ones, and new issuers.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use rpc::pb;
use rpc::pb::rotate_request::What;
use rpc::pki::{Credential, Expiry, about, kubeconfig, signing_request, unix_now};
use serde_json::json;

use super::super::credentials::{Access, FILE};
use super::super::installation::Installation;
use super::super::progress::note;
use super::super::run;
use super::super::settings::Flags;
use super::secrets::follow;
use super::status::{left, table};
use super::{connect, refused, status_of, timed};

#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Show all certificates: of masters, nodes, this kubeconfig, and the issuers
    Show(Show),
    /// Make new ones now. Running masters and nodes renew theirs by themselves in time
    Renew(Renew),
    /// Make new issuers; those before stay trusted until --finish
    RotateIssuers(RotateIssuers),
}

/// Show all certificates: of masters, nodes, this kubeconfig, and the issuers
#[derive(Debug, clap::Args)]
pub struct Show {
    /// `json` for scripts
    #[arg(short, long, value_parser = ["json"])]
    output: Option<String>,
    #[command(flatten)]
    access: Access,
}

/// Make new certificates now
#[derive(Debug, clap::Args)]
pub struct Renew {
    /// For a master that does not run, by the issuers' keys in its data dir: when its certificates, or the kubeconfig, have ended
    #[arg(long)]
    offline: bool,
    /// With --offline: the kubeconfig to renew or write [default: admin.kubeconfig in the data dir]
    #[arg(short, long, value_name = "FILE", requires = "offline")]
    output: Option<PathBuf>,
    #[command(flatten)]
    access: Access,
}

/// Make new issuers; those before stay trusted until --finish
#[derive(Debug, clap::Args)]
pub struct RotateIssuers {
    /// Drop the issuers before, and with them every certificate that is still of them
    #[arg(long)]
    finish: bool,
    #[command(flatten)]
    access: Access,
}

impl Verb {
    pub async fn run(self) -> Result<()> {
        match self {
            Verb::Show(verb) => verb.run().await,
            Verb::Renew(verb) if verb.offline => verb.offline().await,
            Verb::Renew(verb) => verb.online().await,
            Verb::RotateIssuers(verb) => verb.run().await,
        }
    }
}

impl Show {
    async fn run(self) -> Result<()> {
        let status = status_of(&self.access).await?;
        let mut all = listed(&status);
        all.extend(own(&self.access)?);
        if self.output.is_some() {
            println!("{}", serde_json::to_string_pretty(&document(&all, unix_now()))?);
        } else {
            print!("{}", render(&all, unix_now()));
        }
        for member in status.members.iter().filter(|member| !member.reachable) {
            note(format!("master {} does not answer", member.member.clone().unwrap_or_default().name));
        }
        for node in status.nodes.iter().filter(|node| node.certificate.is_none()) {
            note(format!("node {} has not said what it has", node.name));
        }
        Ok(())
    }
}

/// All that masters and nodes have; issuers once, as masters have them in common.
fn listed(status: &pb::ClusterStatusResponse) -> Vec<pb::CertificateInfo> {
    let mut all: Vec<pb::CertificateInfo> = Vec::new();
    for info in status.members.iter().filter_map(|member| member.status.as_ref()).flat_map(|own| &own.certificates) {
        let known = |other: &pb::CertificateInfo| {
            info.holder == "cluster" && (&other.holder, &other.serial) == (&info.holder, &info.serial)
        };
        if !all.iter().any(known) {
            all.push(info.clone());
        }
    }
    all.extend(status.nodes.iter().filter_map(|node| node.certificate.clone()));
    all.sort_by_key(|info| info.holder != "cluster");
    all
}

/// That of the kubeconfig in use, if hactl made it.
fn own(access: &Access) -> Result<Option<pb::CertificateInfo>> {
    let path = access.path()?;
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let Ok(pem) = kubeconfig::certificate(&text) else { return Ok(None) };
    let issuer = kubeconfig::issuer(&text)?;
    let about = about(&pem, &issuer, "the kubeconfig's certificate")?;
    Ok(Some(pb::CertificateInfo {
        holder: kubeconfig::ADMIN_USER.to_owned(),
        name: "user".to_owned(),
        not_before: about.expiry.not_before,
        not_after: about.expiry.not_after,
        issuer: about.issuer,
        serial: about.serial,
        file: path.display().to_string(),
        trust: String::new(),
    }))
}

fn document(all: &[pb::CertificateInfo], now: i64) -> serde_json::Value {
    let time = |second: i64| jiff::Timestamp::from_second(second).map(|time| time.to_string()).unwrap_or_default();
    all.iter()
        .map(|info| {
            json!({
                "holder": info.holder, "purpose": info.name, "issuer": info.issuer, "serial": info.serial, "file": info.file,
                "notBefore": time(info.not_before), "notAfter": time(info.not_after), "expiresInSeconds": info.not_after - now,
            })
        })
        .collect()
}

fn render(all: &[pb::CertificateInfo], now: i64) -> String {
    let mut rows = vec![["HOLDER", "PURPOSE", "EXPIRES", "RENEWED", "ISSUER", "FILE"].map(str::to_owned).to_vec()];
    for info in all {
        let end = Expiry { not_before: info.not_before, not_after: info.not_after };
        let by_itself = match info.name.as_str() {
            "peer" | "api" | "node" if end.renew_at() > now => format!("in {}", span(end.renew_at() - now)),
            "peer" | "api" | "node" => "due".to_owned(),
            _ => "by command".to_owned(),
        };
        rows.push(vec![
            info.holder.clone(),
            info.name.clone(),
            left(info.not_after, now),
            by_itself,
            info.issuer.clone(),
            info.file.clone(),
        ]);
    }
    table(&rows)
}

fn span(seconds: i64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

impl Renew {
    async fn online(self) -> Result<()> {
        let path = self.access.path()?;
        // Refused before anything is changed.
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        kubeconfig::certificate(&text).with_context(|| format!("{} cannot be renewed", path.display()))?;
        let answer = renew_by_masters(&self.access, false).await?;
        println!("masters  {} renewed", answer.masters.join(", "));
        if !answer.nodes.is_empty() {
            println!("nodes    {} told to renew", answer.nodes.join(", "));
        }
        println!("user     {} written", path.display());
        if !answer.failed.is_empty() {
            bail!("not renewed: {}", answer.failed.join("; "));
        }
        Ok(())
    }

    async fn offline(self) -> Result<()> {
        let data_dir = std::path::absolute(self.access.data_dir())?;
        let installation = Installation::load(&data_dir)?;
        let role = installation.master.clone().context(
            "this machine is no master: a node gets its certificate from a master that runs, also when its own has ended",
        )?;
        let _lock = run::lock(&data_dir).context("a master that runs renews its certificates itself")?;
        let settings = Flags::default().resolve(&installation.settings)?;
        let config = run::master_config(&data_dir, &installation, &role, &settings)?;
        let node = installation.node.as_ref().map(|node| (node.name.clone(), node.uid.clone()));
        let path = self.output.unwrap_or_else(|| data_dir.join(FILE));
        let offline = master::Offline { config, node };
        let written = path.clone();
        let all = tokio::task::spawn_blocking(move || master::renew_offline(&offline, &written)).await??;
        print!("{}", render(&all, unix_now()));
        println!("\nkubeconfig: {}", path.display());
        let ended = |info: &&pb::CertificateInfo| info.holder == "cluster" && info.not_after <= unix_now();
        if let Some(issuer) = all.iter().find(ended) {
            println!(
                "The {} itself has ended. Masters, nodes and hactl go on with it, kubectl and others do not: once the masters run, make new \
                 ones with `hactl cluster certs rotate-issuers` and then `hactl cluster certs rotate-issuers --finish`.",
                issuer.name
            );
        }
        println!("Now start this master, and run this on the other masters that do not start or are not let in.");
        println!(
            "Nodes get theirs by themselves from a master that runs, for as long as its setting certificate-grace says."
        );
        Ok(())
    }
}

/// Has masters and nodes renew, unless only the user shall, and writes the kubeconfig in use with a new certificate and what to
/// trust.
async fn renew_by_masters(access: &Access, only_user: bool) -> Result<pb::RenewCertificatesResponse> {
    let path = access.path()?;
    let (key_pem, csr_pem) = signing_request()?;
    let mut client = connect(access).await?;
    let request = timed(pb::RenewCertificatesRequest { csr_pem, only_user });
    let answer = client.renew_certificates(request).await.map_err(refused)?.into_inner();
    let credential = Credential { certificate_pem: answer.certificate_pem.clone(), key_pem };
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let renewed = kubeconfig::renewed(&text, &credential, &answer.client_issuer_pem)?;
    rpc::pki::files::write_private(&path, renewed.as_bytes())?;
    Ok(answer)
}

impl RotateIssuers {
    async fn run(self) -> Result<()> {
        let path = self.access.path()?;
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        kubeconfig::certificate(&text).with_context(|| {
            format!("{} would lock you out: use the kubeconfig of `hactl cluster kubeconfig`", path.display())
        })?;
        if self.finish {
            follow(&self.access, What::IssuersFinish).await?;
            renew_by_masters(&self.access, true).await?;
            println!("Only the new issuers count. Join tokens of before do not work any more: make new ones");
            return Ok(());
        }
        follow(&self.access, What::Issuers).await?;
        renew_by_masters(&self.access, true).await?;
        println!("The new issuers sign, and those before are still trusted. {} is written anew.", path.display());
        println!(
            "Give every other user a new kubeconfig (`hactl cluster kubeconfig -o FILE` on a master), then drop the issuers before:"
        );
        println!("  hactl cluster certs rotate-issuers --finish");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuers_stand_once_and_first_and_ends_are_told() {
        let info = |holder: &str, name: &str, serial: &str, not_after| pb::CertificateInfo {
            holder: holder.into(),
            name: name.into(),
            serial: serial.into(),
            not_before: not_after - 200,
            not_after,
            ..Default::default()
        };
        let member = |name: &str, certificates| pb::MemberStatus {
            member: Some(pb::MemberInfo { name: name.into(), ..Default::default() }),
            status: Some(pb::MemberStatusResponse { certificates, ..Default::default() }),
            ..Default::default()
        };
        let issuer = || info("cluster", "peer issuer", "1", 900_000);
        let status = pb::ClusterStatusResponse {
            members: vec![
                member("a", vec![info("a", "peer", "2", 100), issuer()]),
                member("b", vec![info("b", "peer", "3", -5), issuer()]),
            ],
            nodes: vec![pb::NodeSummary { certificate: Some(info("n", "node", "4", 30)), ..Default::default() }],
            ..Default::default()
        };
        let text = render(&listed(&status), 0);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines.len(), 5, "{text}");
        assert_eq!(lines[1][..6], ["cluster", "peer", "issuer", "10", "d", "left"]);
        assert_eq!(lines[2], ["a", "peer", "100", "s", "left", "in", "66", "s"]);
        assert_eq!(lines[3], ["b", "peer", "expired", "due"]);
        assert_eq!(lines[4], ["n", "node", "30", "s", "left", "due"], "{text}");
        assert_eq!(document(&listed(&status), 10)[1]["expiresInSeconds"], 90);
    }
}
