//! `hactl cluster replace`: this machine takes the place of a dead master, as a new member with a new id. Run on the machine
//! whose database is damaged it needs nothing else; on an empty machine it needs a master's address and a token.
//!
//! The old database is put aside, not removed: it may be all that is left of something.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::super::credentials::{Access, FILE};
use super::super::installation::{self, Installation, MasterRole};
use super::super::progress::{Progress, note};
use super::super::run;
use super::super::settings::Flags;
use super::{DataDir, init, join, next, prepare, unit};

const TOKEN_TTL: Duration = Duration::from_secs(600);
const TOKEN_WITHIN: Duration = Duration::from_secs(20);
const TOKEN_PAUSE: Duration = Duration::from_millis(500);
/// What a member's database is made of, and the mark that it cannot be trusted.
const DATABASE: [&str; 6] = ["log", "log.synced", "state", "members", "snapshots", "quarantine"];

/// Put this machine in the place of a dead master
#[derive(Debug, clap::Args)]
pub struct Replace {
    /// Name or id of the dead master [default: the one whose data dir this is]
    dead: Option<String>,
    /// `host:port` of a living master [default: one that this machine's kubeconfig names]
    #[arg(long, value_name = "ADDRESS")]
    from: Option<String>,
    /// A token for masters [default: one made with this machine's kubeconfig]
    #[arg(long, value_name = "TOKEN", env = "HACTL_TOKEN", hide_env = true, hide_env_values = true)]
    token: Option<String>,
    /// The new master's name [default: that of this data dir, else the host name]
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// The address or name that others reach this machine at [default: as before, else that of its default route]
    #[arg(long, value_name = "HOST")]
    advertise: Option<String>,
    /// Become the server instead of installing a systemd unit (the default where systemd does not run)
    #[arg(long)]
    foreground: bool,
    /// Only prepare the data dir: something else runs `hactl run`
    #[arg(long, conflicts_with = "foreground")]
    no_start: bool,
    #[command(flatten)]
    data_dir: DataDir,
    #[command(flatten)]
    flags: Flags,
}

impl Replace {
    pub async fn run(self) -> Result<()> {
        if let Some(token) = &self.token {
            rpc::token::Token::parse(token)?;
        }
        let data_dir = std::path::absolute(&self.data_dir.data_dir)?;
        let installation = if Installation::exists(&data_dir) {
            self.repair(&data_dir, Installation::load(&data_dir)?).await?
        } else {
            self.on_an_empty_machine(&data_dir).await?
        };
        if self.no_start {
            return Ok(());
        }
        if !self.foreground && next::local(&data_dir).is_some() && next::start_now(&data_dir).await? {
            return Ok(());
        }
        let announce = join::announce(&data_dir, &installation);
        init::serve(&data_dir, &installation, self.foreground, &self.flags, announce).await
    }

    /// The disk is new: as a join, but the dead member goes first.
    async fn on_an_empty_machine(&self, data_dir: &Path) -> Result<Installation> {
        let settings = self.flags.resolve(&Default::default())?;
        let (Some(dead), Some(from), Some(token)) = (&self.dead, &self.from, &self.token) else {
            bail!(
                "{} holds nothing, so say whom to replace, by which master, and with a token of `hactl cluster token create --master`: \
                 hactl cluster replace <dead> --from <host:port> --token hactl-…",
                data_dir.display()
            );
        };
        let progress = Progress::start(format!("taking the place of {dead}"));
        let installation = prepare::join(prepare::Join {
            data_dir: data_dir.to_owned(),
            name: init::own_name(self.node_name.as_deref())?,
            address: from.clone(),
            token: token.clone(),
            master: Some(init::addresses(self.advertise.as_deref(), &settings)?),
            node: None,
            replaces: Some(dead.clone()),
            flags: self.flags.clone(),
        })
        .await?;
        progress.done("joined as a new member");
        Ok(installation)
    }

    /// The machine is known; its database is lost or damaged. Node, name, addresses and settings stay.
    async fn repair(&self, data_dir: &Path, present: Installation) -> Result<Installation> {
        let Some(role) = present.master.clone() else {
            bail!(
                "{} is a node's; `hactl cluster leave` there first, then replace from an empty data dir",
                data_dir.display()
            );
        };
        let name = self.node_name.clone().unwrap_or_else(|| present.name.clone());
        let settings = self.flags.resolve(&present.settings)?;
        let (advertise_api, advertise_peer) = match &self.advertise {
            Some(_) => init::addresses(self.advertise.as_deref(), &settings)?,
            None => (role.advertise_api.clone(), role.advertise_peer.clone()),
        };
        let ran = run::runs(data_dir)?;
        if ran {
            refuse_healthy(data_dir, &role).await?;
            run::separate(data_dir)?;
        }
        let progress = Progress::start("stopping what runs here");
        unit::stop(data_dir)?;
        run::stop(data_dir).await?;
        progress.done("stopped");

        let progress =
            Progress::start(format!("taking the place of {}", self.dead.as_deref().unwrap_or(&present.name)));
        let newcomer = master::JoinMaster {
            name: name.clone(),
            advertise_api: advertise_api.clone(),
            advertise_peer: advertise_peer.clone(),
            kubeconfig: data_dir.join(FILE),
        };
        let joined = match self.join_instead(data_dir, newcomer, &role, present.epoch).await {
            // The database is as it was.
            Err(error) if ran => return Err(next::start_again(data_dir, error).await),
            joined => joined?,
        };
        // What runs it from now on installs its own.
        unit::remove(data_dir)?;
        let member_id = joined.member_id.context("the masters gave no member id")?;
        let aside = put_aside(data_dir, role.member_id)?;
        let mut given = present.settings.clone();
        given.extend(self.flags.given());
        let installation = Installation {
            cluster_id: joined.cluster_id,
            epoch: joined.epoch,
            name,
            master: Some(MasterRole { member_id, advertise_api, advertise_peer }),
            settings: prepare::recorded(given, joined.settings),
            ..present
        };
        // Last: whatever fails before, the same command goes on from there.
        installation.save(data_dir)?;
        let _ = std::fs::remove_file(data_dir.join(installation::NONCE));
        progress.done(&format!("joined as member {member_id}"));
        if let Some(aside) = aside {
            note(format!("the old database is in {}; remove it when the new member votes", aside.display()));
        }
        Ok(installation)
    }

    /// Joins as a new member; the dead one goes first.
    async fn join_instead(
        &self,
        data_dir: &Path,
        newcomer: master::JoinMaster,
        role: &MasterRole,
        epoch: u64,
    ) -> Result<master::Joined> {
        let (address, token) = self.way_in(data_dir).await?;
        let join = master::Join {
            data_dir: data_dir.to_owned(),
            address,
            token,
            master: Some(newcomer),
            node: None,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            nonce: installation::nonce(data_dir)?,
            replaces: Some(self.dead.clone().unwrap_or_else(|| role.member_id.to_string())),
            epoch,
        };
        Ok(master::join(&join).await?)
    }

    /// A living master and a token for it.
    async fn way_in(&self, data_dir: &Path) -> Result<(String, String)> {
        if let (Some(from), Some(token)) = (&self.from, &self.token) {
            return Ok((from.clone(), token.clone()));
        }
        // The kubeconfig names the masters there were when it was made, which for the first one is itself alone.
        let noted = data_dir.to_owned();
        let also = tokio::task::spawn_blocking(move || master::noted_masters(&noted)).await?;
        let access = Access { also, ..Access::of(data_dir.join(FILE)) };
        let known = "give --from <host:port> and --token (`hactl cluster token create --master` on another master)";
        let address = match &self.from {
            Some(from) => from.clone(),
            None => super::living(&access).await.with_context(|| format!("no other master answers; {known}"))?,
        };
        let token = match &self.token {
            Some(token) => token.clone(),
            None => {
                // With a member dead the leader may be changing just now.
                let since = Instant::now();
                loop {
                    match super::create_token(&access, true, false, TOKEN_TTL, "for `hactl cluster replace`").await {
                        Ok(token) => break token,
                        Err(error) if since.elapsed() > TOKEN_WITHIN => {
                            return Err(error.context(format!("cannot make a token; {known}")));
                        }
                        Err(_) => tokio::time::sleep(TOKEN_PAUSE).await,
                    }
                }
            }
        };
        Ok((address, token))
    }
}

/// A member that runs, and of which nothing is wrong, is no dead one; what cannot be told is not held against the user.
async fn refuse_healthy(data_dir: &Path, role: &MasterRole) -> Result<()> {
    let Ok(status) = super::status_of(&Access::of(data_dir.join(FILE))).await else { return Ok(()) };
    let own = status.members.iter().find(|one| one.member.as_ref().is_some_and(|info| info.id == role.member_id));
    let well =
        own.filter(|one| one.reachable).and_then(|one| one.status.as_ref()).is_some_and(|one| one.problems.is_empty());
    if well && super::leader_name(&status).is_some() {
        bail!(
            "the master of {} runs and nothing is wrong with it; `hactl cluster leave` takes it out of the cluster. Nothing was changed",
            data_dir.display()
        );
    }
    Ok(())
}

/// Moves the database of the old member into a directory of its own.
fn put_aside(data_dir: &Path, member: u64) -> Result<Option<PathBuf>> {
    let aside = data_dir.join(format!("replaced-{member}"));
    let mut moved = false;
    for name in DATABASE {
        let (from, to) = (data_dir.join(name), aside.join(name));
        if !from.exists() {
            continue;
        }
        std::fs::create_dir_all(&aside).with_context(|| format!("cannot make {}", aside.display()))?;
        if to.exists() {
            // Of a try that ended before the new member was written down: what is there now was never started.
            std::fs::remove_dir_all(&from)
                .or_else(|_| std::fs::remove_file(&from))
                .with_context(|| format!("cannot remove {}", from.display()))?;
            continue;
        }
        std::fs::rename(&from, &to).with_context(|| format!("cannot move {} aside", from.display()))?;
        moved = true;
    }
    Ok((moved || aside.exists()).then_some(aside))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_database_is_put_aside_once() {
        let dir = tempfile::tempdir().expect("dir");
        assert_eq!(put_aside(dir.path(), 2).expect("nothing to do"), None);
        std::fs::create_dir_all(dir.path().join("log")).expect("log");
        std::fs::write(dir.path().join("log/000001.log"), "old").expect("write");
        std::fs::write(dir.path().join("log.synced"), "7").expect("write");
        std::fs::create_dir(dir.path().join("pki")).expect("pki");
        let aside = put_aside(dir.path(), 2).expect("moved").expect("somewhere");
        assert_eq!(std::fs::read_to_string(aside.join("log/000001.log")).expect("there"), "old");
        assert!(!dir.path().join("log").exists() && !dir.path().join("log.synced").exists());
        assert!(dir.path().join("pki").exists());
        assert_eq!(put_aside(dir.path(), 2).expect("again"), Some(aside));
    }
}
