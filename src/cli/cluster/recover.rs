//! `hactl cluster recover`: the majority of the masters is lost for good, and one survivor goes on alone.

use std::io::{BufRead, IsTerminal};
use std::path::Path;

use anyhow::{Context, Result, bail};
use master::epoch::{self, Answered, Survey};
use rpc::pki::{Lifetimes, PeerName};

use super::super::credentials::{Access, FILE};
use super::super::installation::{Installation, MasterRole};
use super::super::progress::{Progress, count};
use super::super::run;
use super::super::settings::Flags;
use super::DataDir;

const NEEDS_YES: &str =
    "nothing was changed, and there is no terminal to ask on: --yes does it, if the other masters are lost for good";

const WHAT_HAPPENS: &str = "What may be lost: writes that the others acknowledged and this member had not received when they were lost.\n\
     What happens: a new epoch begins with this member alone. The others are locked out for good and must join anew with\n\
     empty data dirs. The revision moves on by 1000000000, history is gone (watches list again), objects, kubeconfigs,\n\
     certificates and nodes stay, and containers run on.\n";

/// Go on with this one master when the majority is lost for good
#[derive(Debug, clap::Args)]
pub struct Recover {
    /// This machine's master becomes the only one, with what it holds
    #[arg(long, required = true)]
    from_this_member: bool,
    /// Do it without asking
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    data_dir: DataDir,
}

impl Recover {
    pub async fn run(self) -> Result<()> {
        let data_dir = std::path::absolute(&self.data_dir.data_dir)?;
        let installation = Installation::load(&data_dir)?;
        let role = installation.master.clone().context("this machine is no master; run this on one that survived")?;
        let lifetimes = run::lifetimes(&Flags::default().resolve(&installation.settings)?)?;
        let ran = run::runs(&data_dir)?;
        if ran {
            self.stop(&data_dir, &installation, &role).await?;
        }
        let lock = run::lock(&data_dir).context("a master that runs is not recovered")?;
        let survey = match self.look(&data_dir, &installation, &role, &lifetimes).await {
            Ok(survey) => survey,
            Err(error) if ran => {
                // Nothing was changed so far, its being stopped neither.
                drop(lock);
                return Err(super::next::start_again(&data_dir, error).await);
            }
            Err(error) => return Err(error),
        };
        recover(&data_dir, installation, &role, survey, lifetimes).await?;
        drop(lock);
        let started = if ran { super::next::start_now(&data_dir).await } else { Ok(false) };
        if matches!(started, Ok(false)) {
            super::next::start(&data_dir);
        }
        super::next::others(&data_dir, &role.advertise_api);
        started.map(drop).context("it is recovered, which must not be done again, but does not start")
    }

    /// What this member and the others hold; an error when it is not to be recovered from.
    async fn look(
        &self,
        data_dir: &Path,
        installation: &Installation,
        role: &MasterRole,
        lifetimes: &Lifetimes,
    ) -> Result<Survey> {
        let interrupted = epoch::is_interrupted(data_dir);

        let progress = Progress::start("reading what this member holds");
        let (dir, cluster_id, member_id) = (data_dir.to_owned(), installation.cluster_id.clone(), role.member_id);
        let survey = tokio::task::spawn_blocking(move || epoch::survey(&dir, &cluster_id, member_id)).await??;
        progress.done("whole");
        let progress = Progress::start("asking the other members");
        let me =
            PeerName { cluster_id: installation.cluster_id.clone(), epoch: installation.epoch, member: role.member_id };
        let others = epoch::ask_others(data_dir, &me, &survey, lifetimes).await?;
        progress.done("asked");

        print!("{}", describe(installation, role, &survey, &others));
        if interrupted {
            println!("\nA recovery of this member was interrupted; it is now completed.");
        } else {
            refuse(&survey, &others)?;
            self.confirm()?;
        }
        Ok(survey)
    }

    /// Stops the master that runs here, once that is known to cost nothing: nobody leads.
    async fn stop(&self, data_dir: &Path, installation: &Installation, role: &MasterRole) -> Result<()> {
        let Ok(status) = super::status_of(&Access::of(data_dir.join(FILE))).await else {
            bail!("the master of {} runs and does not answer; stop it, then run this again", data_dir.display());
        };
        if let Some(leader) = super::leader_name(&status) {
            bail!(
                "{leader} leads, so a majority of the masters lives and goes on without any loss. Nothing was changed"
            );
        }
        if !self.can_go_on() {
            print!("{}", describe_running(installation, role, &status));
            bail!("{NEEDS_YES}");
        }
        run::separate(data_dir)?;
        let progress = Progress::start("nobody leads: stopping the master that runs here");
        super::unit::stop(data_dir)?;
        run::stop(data_dir).await?;
        progress.done("stopped");
        Ok(())
    }

    /// Whether it was told to, or can ask.
    fn can_go_on(&self) -> bool {
        self.yes || std::io::stdin().is_terminal()
    }

    fn confirm(&self) -> Result<()> {
        if self.yes {
            return Ok(());
        }
        if !self.can_go_on() {
            bail!("{NEEDS_YES}");
        }
        eprint!("\nGo on? Only if the other masters are lost for good (yes/no): ");
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        if answer.trim() != "yes" {
            bail!("nothing was changed");
        }
        Ok(())
    }
}

/// A majority that lives must not be recovered from.
fn refuse(survey: &Survey, others: &[Answered]) -> Result<()> {
    let living: Vec<&str> =
        others.iter().filter(|other| other.voter && other.lives).map(|other| other.member.name.as_str()).collect();
    // Without this member they may be a majority already; with it they surely go on.
    if (living.len() + 1) * 2 > survey.voters.len() && !living.is_empty() {
        bail!(
            "{} can be reached: with this member that is a majority of the {} masters, which goes on without any loss. Start this \
             one (`hactl run`, `systemctl start hactl`), and replace only what is lost. Nothing was changed",
            living.join(", "),
            survey.voters.len()
        );
    }
    if survey.voters.len() == 1 && others.is_empty() {
        bail!(
            "this is the only master of its cluster: there is nothing to recover from. Start it (`hactl run`). Nothing was changed"
        );
    }
    Ok(())
}

fn describe(installation: &Installation, role: &MasterRole, survey: &Survey, others: &[Answered]) -> String {
    let mut text = format!(
        "This member: {} (id {}) of cluster {}, epoch {}\n  it holds {} at revision {}, up to log entry {}\n",
        installation.name,
        role.member_id,
        installation.cluster_id,
        installation.epoch,
        count(survey.state.len(), "object"),
        survey.state.revision(),
        survey.last_index
    );
    if survey.unconfirmed > 0 {
        text.push_str(&format!(
            "  of these, {} it does not know to be committed: all are kept, since they may have been acknowledged\n",
            match survey.unconfirmed {
                1 => "1 log entry".to_owned(),
                many => format!("{many} log entries"),
            }
        ));
    }
    text.push_str("The other members:\n");
    for other in others {
        let vote = if other.voter { "" } else { ", does not vote" };
        let state = if other.lives { "LIVES" } else { "lost" };
        let message = if other.message.is_empty() { String::new() } else { format!(" ({})", other.message) };
        text.push_str(&format!(
            "  {} (id {}{vote}) at {}: {state}{message}\n",
            other.member.name, other.member.id, other.member.peer_address
        ));
    }
    text.push_str(WHAT_HAPPENS);
    text
}

/// The same of a member that runs, by what it says of itself: its data dir is its own for as long.
fn describe_running(installation: &Installation, role: &MasterRole, status: &rpc::pb::ClusterStatusResponse) -> String {
    let all = || status.members.iter().filter_map(|one| Some((one, one.member.as_ref()?)));
    let mut text = format!(
        "This member: {} (id {}) of cluster {}, epoch {}; it runs, and would be stopped\n",
        installation.name, role.member_id, installation.cluster_id, installation.epoch
    );
    let own = all().find(|(_, info)| info.id == role.member_id).and_then(|(one, _)| one.status.as_ref());
    if let Some(own) = own {
        text.push_str(&format!(
            "  it is at revision {}, and holds up to log entry {}\n",
            own.revision, own.last_log_index
        ));
    }
    text.push_str("The other members:\n");
    for (one, info) in all().filter(|(_, info)| info.id != role.member_id) {
        let vote = if one.voter { "" } else { ", does not vote" };
        let state = if one.reachable { "LIVES" } else { "lost (cannot be reached)" };
        text.push_str(&format!("  {} (id {}{vote}) at {}: {state}\n", info.name, info.id, info.peer_address));
    }
    text.push_str(WHAT_HAPPENS);
    text
}

async fn recover(
    data_dir: &Path,
    mut installation: Installation,
    role: &MasterRole,
    survey: Survey,
    lifetimes: Lifetimes,
) -> Result<()> {
    let progress = Progress::start("recovering");
    let before = (installation.epoch, survey.state.revision());
    let member = epoch::Member {
        id: role.member_id,
        name: installation.name.clone(),
        peer_address: role.advertise_peer.clone(),
        api_address: role.advertise_api.clone(),
    };
    let (dir, cluster_id, epoch) = (data_dir.to_owned(), installation.cluster_id.clone(), installation.epoch);
    let recovered =
        tokio::task::spawn_blocking(move || epoch::recover(&dir, epoch, member, survey, &cluster_id, &lifetimes));
    let begun = recovered.await?.context("the recovery did not complete; run this again")?;
    installation.epoch = begun.epoch;
    installation.save(data_dir)?;
    epoch::complete(data_dir)?;
    progress.done("recovered");
    println!(
        "\nepoch {} (was {}), revision {} (was {}), {}",
        begun.epoch,
        before.0,
        begun.revision,
        before.1,
        count(begun.objects, "object")
    );
    Ok(())
}
