//! The recovery key on the command line: made here, shown once; the cluster is told the public half only.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use master::snapshot::RecoveryKey;
use rpc::pb;

use super::super::credentials::{Access, FILE};
use super::super::installation;
use super::super::local::Layout;

/// Where `hactl local up` keeps the key, in the cluster's directory.
pub const LOCAL_FILE: &str = "recovery.key";
/// More than any key file holds.
const KEY_BYTES_MAX: u64 = 64 << 10;

/// The key that snapshots are encrypted to
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Make a new one, for when the present one is lost or known to others; older snapshots still need the older key
    Rotate(Rotate),
}

/// Make a new recovery key
#[derive(Debug, clap::Args)]
pub struct Rotate {
    /// Write it to this file (mode 0600) instead of showing it. Of a local cluster the new one takes the place of the file
    /// `recovery.key` in its directory, unless a file is given
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    access: Access,
}

impl Verb {
    pub async fn run(self) -> Result<()> {
        match self {
            Verb::Rotate(verb) => verb.run().await,
        }
    }
}

impl Rotate {
    async fn run(self) -> Result<()> {
        let key = RecoveryKey::generate();
        let local = local_file(&self.access)?;
        // In its place only once the cluster uses it.
        let draft = local.as_ref().map(|file| file.with_extension("key.new"));
        let file = self.output.as_ref().or(draft.as_ref());
        if let Some(file) = file {
            // Before the cluster uses it, so that no snapshot is encrypted to a key that nobody has.
            write(file, &key)?;
        }
        if let Err(error) = set(&self.access, &key, false).await {
            return Err(give_up(file.map(PathBuf::as_path), error));
        }
        println!("From now on snapshots are encrypted to a new recovery key; older ones still need the key before.");
        match (&self.output, local, draft) {
            (Some(file), None, _) => println!("recovery key: {}", file.display()),
            (None, Some(file), Some(draft)) => {
                let before = put_in_place(&file, &draft)?;
                println!("recovery key: {} (the key before: {})", file.display(), before.display());
            }
            (Some(file), Some(stale), _) => {
                println!("recovery key: {}", file.display());
                println!("{} holds the key before, and opens older snapshots only", stale.display());
            }
            _ => show(&key),
        }
        Ok(())
    }
}

/// After the cluster was told of a new key and has not said that it took it. One that was refused is of no use; else the cluster
/// may encrypt to it from now on, so that it must not be lost.
pub fn give_up(file: Option<&Path>, error: NotSet) -> anyhow::Error {
    match (error, file) {
        (NotSet::Refused(error), Some(file)) => {
            let _ = std::fs::remove_file(file);
            error
        }
        (NotSet::Refused(error), None) | (NotSet::Unknown(error), None) => error,
        (NotSet::Unknown(error), Some(file)) => {
            let file = file.display();
            error.context(format!(
                "it is not known whether the new key is in use; {file} has it: keep it, and once the cluster answers make \
                 another with `hactl cluster recovery-key rotate`"
            ))
        }
    }
}

/// Why a key is not known to be in use.
#[derive(Debug, thiserror::Error)]
pub enum NotSet {
    /// The cluster said no, or was never asked.
    #[error(transparent)]
    Refused(anyhow::Error),
    /// It was asked, and its answer is missing.
    #[error(transparent)]
    Unknown(anyhow::Error),
}

/// The file in which a local cluster keeps its key, if these credentials are of one that has such a file.
fn local_file(access: &Access) -> Result<Option<PathBuf>> {
    let kubeconfig = std::path::absolute(access.path()?)?;
    // Another that somebody keeps there may be of another cluster.
    if kubeconfig.file_name().is_none_or(|name| name != FILE) || access.context.is_some() {
        return Ok(None);
    }
    // The cluster's own kubeconfig, or that of one of its masters.
    let dirs = kubeconfig.ancestors().skip(1).take(2);
    let file = dirs.filter(|dir| Layout::exists(dir)).map(|dir| dir.join(LOCAL_FILE)).next();
    Ok(file.filter(|file| file.exists()))
}

/// The new key takes the place and the owner of the one before, which goes on under another name; that name.
fn put_in_place(file: &Path, draft: &Path) -> Result<PathBuf> {
    use std::os::unix::fs::{MetadataExt, chown};
    let until = ::master::snapshot::compact_time(rpc::pki::unix_now());
    let before = file.with_file_name(format!("recovery-until-{until}.key"));
    let moved = || {
        // Neither is ever missing, and no other file is overwritten.
        std::fs::hard_link(file, &before)?;
        let owner = std::fs::metadata(file)?;
        chown(draft, Some(owner.uid()), Some(owner.gid()))?;
        std::fs::rename(draft, file)
    };
    moved().with_context(|| {
        format!("the new recovery key is in {} and cannot take the place of {}", draft.display(), file.display())
    })?;
    Ok(before)
}

/// Tells the cluster. False: it has another key, which stays since only a first one was to be set.
pub async fn set(access: &Access, key: &RecoveryKey, only_first: bool) -> Result<bool, NotSet> {
    let mut client = super::connect(access).await.map_err(NotSet::Refused)?;
    let request = pb::SetRecoveryKeyRequest { recipient: key.recipient(), only_first };
    match client.set_recovery_key(super::timed(request)).await {
        Ok(answer) => Ok(answer.into_inner().changed),
        Err(status) if says_no(status.code()) => Err(NotSet::Refused(super::refused(status))),
        Err(status) => Err(NotSet::Unknown(super::refused(status))),
    }
}

/// Codes of a server that did nothing; all others may also be of a connection that broke, or of an answer that came too late.
fn says_no(code: tonic::Code) -> bool {
    use tonic::Code::{FailedPrecondition, InvalidArgument, PermissionDenied, Unauthenticated, Unimplemented};
    matches!(code, FailedPrecondition | InvalidArgument | PermissionDenied | Unauthenticated | Unimplemented)
}

pub fn show(key: &RecoveryKey) {
    println!(
        "\nRecovery key, shown this once and stored nowhere. Whoever has it can read every snapshot of this cluster; without"
    );
    println!("it no snapshot can be restored. Keep it away from the masters:");
    println!("  {}", key.secret());
}

/// Writes the key to a new file that only its owner can read.
pub fn write(file: &Path, key: &RecoveryKey) -> Result<()> {
    if file.exists() {
        bail!("{} exists; a recovery key is not overwritten, give another file", file.display());
    }
    installation::write_private(file, key.file().as_bytes())
}

/// Where a command finds the secret half.
#[derive(Clone, Debug, clap::Args)]
pub struct Given {
    /// The file with the recovery key, `-` for standard input
    #[arg(long, value_name = "FILE")]
    pub recovery_key_file: Option<PathBuf>,
}

impl Given {
    /// The key, if one is given.
    pub fn find(&self) -> Result<Option<RecoveryKey>> {
        let text = match &self.recovery_key_file {
            None => return Ok(None),
            Some(path) if path == Path::new("-") => stdin()?,
            Some(path) => {
                let mut text = String::new();
                std::fs::File::open(path)
                    .and_then(|file| file.take(KEY_BYTES_MAX).read_to_string(&mut text))
                    .with_context(|| format!("cannot read {}", path.display()))?;
                text
            }
        };
        Ok(Some(RecoveryKey::parse(&text)?))
    }

    /// The key, asked for on standard input where no file is given.
    pub fn require(&self) -> Result<RecoveryKey> {
        match self.find()? {
            Some(key) => Ok(key),
            None => Ok(RecoveryKey::parse(&stdin()?)?),
        }
    }
}

fn stdin() -> Result<String> {
    let mut text = String::new();
    if std::io::stdin().is_terminal() {
        eprintln!("recovery key (what `hactl cluster init` showed, AGE-SECRET-KEY-1…):");
        std::io::stdin().read_line(&mut text)?;
    } else {
        std::io::stdin().take(KEY_BYTES_MAX).read_to_string(&mut text)?;
    }
    Ok(text)
}
