//! `hactl cluster snapshot …`: the whole cluster in one encrypted file, and back.

use std::fs::File;
use std::io::{BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use master::epoch;
use master::snapshot::{self, FileHeader, Opened, Sums};
use rpc::pb;
use serde_json::json;

use super::super::credentials::{Access, FILE};
use super::super::installation::{Draft, Installation, MasterRole, NodeRole};
use super::super::progress::{Progress, count};
use super::super::run;
use super::super::settings::Flags;
use super::{DataDir, init, prepare, recovery_key};

/// A master that sends nothing for so long has gone.
const SILENCE_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Save everything the cluster is to one file, encrypted to the recovery key
    Save(Save),
    /// Check a file: without the recovery key its checksums, with it everything
    Verify(Verify),
    /// Begin the cluster anew from a file, on this one machine
    Restore(Box<Restore>),
}

impl Verb {
    pub async fn run(self) -> Result<()> {
        match self {
            Verb::Save(verb) => verb.run().await,
            Verb::Verify(verb) => verb.run().await,
            Verb::Restore(verb) => verb.run().await,
        }
    }
}

/// Save everything the cluster is to one file
#[derive(Debug, clap::Args)]
pub struct Save {
    /// Where to [default: a name with cluster and time, in this directory]
    file: Option<PathBuf>,
    /// `json` for scripts
    #[arg(short, long, value_parser = ["json"])]
    output: Option<String>,
    #[command(flatten)]
    access: Access,
}

impl Save {
    async fn run(self) -> Result<()> {
        if let Some(file) = self.file.as_ref().filter(|file| file.exists()) {
            bail!("{} exists; a snapshot is not overwritten, give another name", file.display());
        }
        let dir = match self.file.as_ref().and_then(|file| file.parent()) {
            Some(dir) if dir != Path::new("") => dir.to_owned(),
            _ => PathBuf::from("."),
        };
        // Beside its place, so that the rename cannot fail for another file system; and before anything is asked of the masters.
        let draft = Partial(dir.join(format!(".hactl-{}.partial", std::process::id())));
        if !dir.exists() {
            bail!("there is no directory {}; make it first (`mkdir -p`)", dir.display());
        }
        let file = File::options().create_new(true).write(true).mode(0o600).open(&draft.0);
        let file = file.with_context(|| format!("cannot write in {}", dir.display()))?;
        self.receive(file, &draft.0).await?;
        let (header, sums) = check(&draft.0).context("what was received is not a whole snapshot; try again")?;
        let file = self.file.clone().unwrap_or_else(|| dir.join(name(&header)));
        if file.exists() {
            bail!("{} exists; a snapshot is not overwritten, give another name", file.display());
        }
        std::fs::rename(&draft.0, &file)
            .and_then(|()| File::open(&dir)?.sync_all())
            .with_context(|| format!("cannot write {}", file.display()))?;
        if self.output.is_some() {
            println!("{}", serde_json::to_string_pretty(&document(&file, &header, sums))?);
        } else {
            println!(
                "saved {} ({} at revision {}, {})",
                file.display(),
                count(header.objects, "object"),
                header.revision,
                size(&file)
            );
        }
        Ok(())
    }

    async fn receive(&self, mut file: File, draft: &Path) -> Result<()> {
        let mut client = super::connect(&self.access).await?;
        let mut progress = Progress::start("saving a snapshot");
        let mut parts = client.save_snapshot(pb::SaveSnapshotRequest {}).await.map_err(super::refused)?.into_inner();
        let refused = || format!("cannot write {}", draft.display());
        let mut bytes = 0;
        loop {
            let part = tokio::time::timeout(SILENCE_MAX, parts.message()).await;
            let part = part.context("the master went silent; try again")?;
            let Some(part) = part.map_err(super::refused)? else { break };
            file.write_all(&part.data).with_context(refused)?;
            bytes += part.data.len() as u64;
            progress.detail(&format!("{} KiB", bytes >> 10));
        }
        file.sync_all().with_context(refused)?;
        progress.done("received");
        Ok(())
    }
}

/// A file that goes away unless it was renamed.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// `hactl-1b4e28ba-20261121T051500Z.snapshot`
fn name(header: &FileHeader) -> String {
    let cluster: String = header.cluster_id.chars().take(8).collect();
    format!("hactl-{cluster}-{}.snapshot", snapshot::compact_time(header.created))
}

fn size(file: &Path) -> String {
    let bytes = std::fs::metadata(file).map_or(0, |metadata| metadata.len());
    if bytes < 10 << 20 { format!("{} KiB", bytes.div_ceil(1024)) } else { format!("{} MiB", bytes >> 20) }
}

fn document(file: &Path, header: &FileHeader, sums: Sums) -> serde_json::Value {
    json!({
        "file": file, "clusterId": header.cluster_id, "epoch": header.epoch, "revision": header.revision,
        "created": header.created, "objects": header.objects, "stateHash": header.state_hash,
        "recipient": header.recipient, "version": header.version, "chunks": sums.chunks, "bytes": sums.bytes,
    })
}

fn open(file: &Path) -> Result<BufReader<File>> {
    let opened = File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(BufReader::with_capacity(256 << 10, opened))
}

fn check(file: &Path) -> Result<(FileHeader, Sums)> {
    snapshot::check(open(file)?).with_context(|| format!("{} cannot be used", file.display()))
}

/// Check a snapshot file
#[derive(Debug, clap::Args)]
pub struct Verify {
    file: PathBuf,
    #[command(flatten)]
    key: recovery_key::Given,
    /// `json` for scripts
    #[arg(short, long, value_parser = ["json"])]
    output: Option<String>,
}

impl Verify {
    async fn run(self) -> Result<()> {
        let key = self.key.find()?;
        let file = self.file.clone();
        let (header, sums, opened) = blocking(move || {
            let (header, sums) = check(&file)?;
            let opened = match &key {
                Some(key) => Some(snapshot::open(open(&file)?, key).context("the content cannot be used")?),
                None => None,
            };
            Ok((header, sums, opened.is_some()))
        })
        .await?;
        if self.output.is_some() {
            let mut document = document(&self.file, &header, sums);
            document["contentVerified"] = json!(opened);
            println!("{}", serde_json::to_string_pretty(&document)?);
            return Ok(());
        }
        println!("cluster     {} (epoch {})", header.cluster_id, header.epoch);
        println!("saved       {} by hactl {}", snapshot::time(header.created), header.version);
        println!(
            "state       {} at revision {}, hash {}",
            count(header.objects, "object"),
            header.revision,
            header.state_hash
        );
        println!("opened by   the secret half of {}", header.recipient);
        println!("checksums   {} and the whole file: right", count(sums.chunks, "chunk"));
        if opened {
            println!("content     decrypted; every row is right and the state's hash was recomputed: the same");
        } else {
            println!("content     not looked at; --recovery-key-file checks it too");
        }
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.context("the work broke off")?
}

/// Begin the cluster anew from a snapshot, with this machine as its only master
#[derive(Debug, clap::Args)]
pub struct Restore {
    file: PathBuf,
    #[command(flatten)]
    key: recovery_key::Given,
    #[command(flatten)]
    data_dir: DataDir,
    /// The address or name that users, nodes and other masters reach this machine at [default: that of its default route]
    #[arg(long, value_name = "HOST")]
    advertise: Option<String>,
    /// Run pods here too; a node of this name in the snapshot is this machine again, with its containers
    #[arg(long)]
    node: bool,
    /// The node's (and this master's) name [default: the host name]
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// Then start it, as `init` does: by a systemd unit, and where systemd does not run in the foreground
    #[arg(long)]
    start: bool,
    #[command(flatten)]
    flags: Flags,
}

impl Restore {
    async fn run(self) -> Result<()> {
        let data_dir = std::path::absolute(&self.data_dir.data_dir)?;
        // One of a local cluster keeps its name and ports, and is started as the others there.
        let local = super::next::local_master(&data_dir);
        if self.start && local.is_none() {
            init::check(&data_dir, false)?;
        }
        let name = init::own_name(self.node_name.as_deref().or(local.as_ref().map(|master| master.name.as_str())))?;
        let draft = Draft::begin(&data_dir)?;
        let key = self.key.require()?;
        let progress = Progress::start("reading and checking the snapshot");
        let file = self.file.clone();
        let opened = blocking(move || {
            check(&file)?;
            snapshot::open(open(&file)?, &key).with_context(|| format!("{} cannot be used", file.display()))
        })
        .await?;
        progress.done("it is whole");

        let mut flags = self.flags.clone();
        fix_settings(&mut flags, &opened)?;
        if let Some(master) = &local {
            for (setting, port) in [("listen-api", master.api), ("listen-peer", master.peer)] {
                if !flags.given().contains_key(setting) {
                    flags.set(setting, format!("127.0.0.1:{port}"));
                }
            }
        }
        let settings = flags.resolve(&Default::default())?;
        let advertise = self.advertise.as_deref().or(local.as_ref().map(|_| "127.0.0.1"));
        let (advertise_api, advertise_peer) = init::addresses(advertise, &settings)?;
        let saved = opened.header.clone();
        let options = epoch::Restore {
            data_dir: data_dir.clone(),
            kubeconfig: data_dir.join(FILE),
            name: name.clone(),
            advertise_api: advertise_api.clone(),
            advertise_peer: advertise_peer.clone(),
            api_names: run::api_names(),
            node: self.node.then(|| name.clone()),
            settings: run::control_settings(&settings)?,
            lifetimes: run::lifetimes(&settings)?,
        };
        let progress = Progress::start(format!("restoring into {}", data_dir.display()));
        let begun = blocking(move || Ok(epoch::restore(&options, opened)?)).await?;
        let node = self.node.then(|| name.clone()).zip(begun.node_uid.clone()).map(|(name, uid)| NodeRole {
            name,
            uid,
            masters: vec![advertise_api.clone()],
        });
        let installation = Installation {
            cluster_id: begun.cluster_id.clone(),
            epoch: begun.epoch,
            name,
            master: Some(MasterRole {
                member_id: begun.member_id,
                advertise_api: advertise_api.clone(),
                advertise_peer,
            }),
            node,
            settings: prepare::recorded(flags.given(), settings.fixed()),
        };
        installation.save(&data_dir)?;
        draft.keep();
        progress.done("restored");

        println!(
            "cluster {} as of {}: {}",
            begun.cluster_id,
            snapshot::time(saved.created),
            count(begun.objects, "object")
        );
        println!("epoch {} (was {}), revision {} (was {})", begun.epoch, saved.epoch, begun.revision, saved.revision);
        println!(
            "this machine is its only master (id {}); kubeconfigs and nodes' certificates of before still work",
            begun.member_id
        );
        println!(
            "\nMasters of before are locked out and must join anew. Nodes that know {advertise_api} follow by themselves and keep"
        );
        println!("the pods that the snapshot knows. What happened after it was saved is gone.");
        if !self.start {
            super::next::start(&data_dir);
            super::next::others(&data_dir, &advertise_api);
            return Ok(());
        }
        let announce = async {
            println!();
            super::next::others(&data_dir, &advertise_api);
            Ok(())
        };
        let started = super::next::start_now(&data_dir).await;
        if !matches!(started, Ok(false)) {
            announce.await?;
            return started.map(drop).context("it is restored, which must not be done again, but does not start");
        }
        init::serve(&data_dir, &installation, false, &self.flags, announce).await
    }
}

/// What `init` fixed stays as it was.
fn fix_settings(flags: &mut Flags, opened: &Opened) -> Result<()> {
    for (name, value) in &opened.manifest.settings {
        let Some(setting) = super::super::settings::find(name) else { continue };
        match flags.given().get(name) {
            Some(given) if given != value => {
                bail!("--{name} {given}: the snapshot's cluster has {value}, which cannot be changed; leave it out")
            }
            _ => flags.set(setting.name, value.clone()),
        }
    }
    Ok(())
}
