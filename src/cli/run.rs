//! `hactl run`: the roles recorded in a data dir, in the foreground, until a signal. What systemd, compose, tests and
//! `hactl local` start.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use tokio_util::sync::CancellationToken;

use super::credentials::{DATA_DIR, FILE};
use super::installation::{Installation, MasterRole, NodeRole};
use super::settings::{Flags, Settings};

/// After a signal the roles drain; whatever still runs then is cut off.
const DRAIN_WITHIN: Duration = Duration::from_secs(15);

/// Names a bug to plant, in builds that have some (`state::mutants`): what judges real clusters must see it.
const MUTANT: &str = "HACTL_MUTANT";

const CERTIFICATE_LIFE_MIN: Duration = Duration::from_secs(10);

const LOCK_WITHIN: Duration = Duration::from_secs(1);

/// Start the roles recorded in a data dir, in the foreground
#[derive(Debug, clap::Args)]
pub struct Run {
    /// What `hactl cluster init` or `join` prepared
    #[arg(long, value_name = "DIR", default_value = DATA_DIR, env = "HACTL_DATA_DIR", hide_env = true)]
    data_dir: PathBuf,
    #[command(flatten)]
    flags: Flags,
}

impl Run {
    pub async fn run(self) -> Result<()> {
        let installation = Installation::load(&self.data_dir)?;
        roles(&self.data_dir, &installation, &self.flags).await
    }
}

/// Runs every role of the installation until a signal; the end of one ends all.
pub async fn roles(data_dir: &Path, installation: &Installation, flags: &Flags) -> Result<()> {
    let settings = flags.resolve(&installation.settings)?;
    log(&settings)?;
    if state::mutants::ARE_PLANTED
        && let Ok(name) = std::env::var(MUTANT)
    {
        state::mutants::choose(&name);
        tracing::warn!(name, "a bug is planted on purpose");
    }
    let _lock = lock(data_dir)?;
    if master::epoch::is_interrupted(data_dir) {
        bail!(
            "a recovery of {0} was interrupted; complete it with `hactl cluster recover --from-this-member --data-dir {0}`",
            data_dir.display()
        );
    }
    let shutdown = CancellationToken::new();
    cancel_on_signal(shutdown.clone())?;
    let mut roles = tokio::task::JoinSet::new();
    if let Some(role) = &installation.master {
        let config = master_config(data_dir, installation, role, &settings)?;
        let shutdown = shutdown.clone();
        roles.spawn(async move { master::run(config, shutdown).await.context("the master stopped") });
    }
    if let Some(role) = &installation.node {
        let config = node_config(data_dir, installation, role, &settings);
        let shutdown = shutdown.clone();
        roles.spawn(async move { kubelet::run(config, shutdown).await.context("the node stopped") });
    }
    if roles.is_empty() {
        bail!("{} records no role; join this machine again", data_dir.display());
    }
    tracing::info!(name = installation.name, cluster = installation.cluster_id, "started");
    tokio::spawn(crate::memory::give_back_code());
    let first = roles.join_next().await.context("a role was started")?;
    let asked = shutdown.is_cancelled();
    shutdown.cancel();
    let rest = async {
        let mut result = Ok(());
        while let Some(ended) = roles.join_next().await {
            result = result.and(flatten(ended));
        }
        result
    };
    let rest = tokio::time::timeout(DRAIN_WITHIN, rest).await;
    let result = flatten(first);
    if result.is_ok() && !asked {
        bail!("a role ended by itself; look at the log above");
    }
    result.and(rest.unwrap_or(Ok(())))
}

fn flatten(ended: Result<Result<()>, tokio::task::JoinError>) -> Result<()> {
    match ended {
        Ok(result) => result,
        Err(panic) => Err(panic).context("a role broke down; this is a bug of hactl, please report it with the log"),
    }
}

/// SIGTERM and SIGINT drain; a second one ends at once.
pub fn cancel_on_signal(shutdown: CancellationToken) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        shutdown.cancel();
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        std::process::exit(130);
    });
    Ok(())
}

fn log(settings: &Settings) -> Result<()> {
    use std::io::IsTerminal;
    let filter = settings.text("log").unwrap_or("info");
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .with_context(|| format!("log = {filter:?} is no filter; write for example `info,consensus=debug`"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let set = match settings.text("log-format") {
        Some("json") => builder.json().try_init(),
        _ => builder.try_init(),
    };
    set.map_err(|error| anyhow::anyhow!("cannot set up logging: {error}"))
}

/// One process per data dir; the file names it. A process that was just killed may hold it for a moment longer.
pub fn lock(data_dir: &Path) -> Result<Flock<File>> {
    let since = std::time::Instant::now();
    loop {
        match try_lock(data_dir) {
            Err(_) if since.elapsed() < LOCK_WITHIN => std::thread::sleep(Duration::from_millis(20)),
            locked => return locked,
        }
    }
}

fn try_lock(data_dir: &Path) -> Result<Flock<File>> {
    use std::io::Write;
    let file = File::options().create(true).truncate(false).write(true).open(data_dir.join("lock"));
    let file = file.with_context(|| format!("cannot write to {}; are you root?", data_dir.display()))?;
    let mut lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        nix::errno::Errno::EWOULDBLOCK => anyhow::Error::new(Held(data_dir.to_owned())),
        error => anyhow::anyhow!("cannot lock {}: {error}", data_dir.join("lock").display()),
    })?;
    lock.set_len(0)?;
    write!(lock, "{}", std::process::id())?;
    Ok(lock)
}

/// Another process holds the data dir.
#[derive(Debug, thiserror::Error)]
#[error("another `hactl run` uses {}; stop it first", .0.display())]
struct Held(std::path::PathBuf);

/// Whether a process runs on this data dir.
///
/// # Errors
/// When that cannot be told: the data dir is not ours to lock.
pub fn runs(data_dir: &Path) -> Result<bool> {
    if !data_dir.join("lock").exists() {
        return Ok(false);
    }
    match lock(data_dir) {
        Ok(_) => Ok(false),
        Err(error) if error.is::<Held>() => Ok(true),
        Err(error) => Err(error),
    }
}

/// # Errors
/// When the process that runs on this data dir is the first of a container that we run in: it would take us with it.
pub fn separate(data_dir: &Path) -> Result<()> {
    if held_by(data_dir) == Some(1) {
        bail!(
            "the process of {} is this container's first: stop the container, and run this in another one on the same volume (`docker \
             compose run --rm`). Nothing was changed",
            data_dir.display()
        );
    }
    Ok(())
}

/// The pid that the lock file names.
fn held_by(data_dir: &Path) -> Option<i32> {
    std::fs::read_to_string(data_dir.join("lock")).ok().and_then(|text| text.parse().ok())
}

/// Stops the process that runs on this data dir, if one does. Whoever holds the lock is alive, so its pid is its own.
///
/// # Errors
/// When it does not end.
pub async fn stop(data_dir: &Path) -> Result<()> {
    let since = std::time::Instant::now();
    let mut asked = false;
    while data_dir.exists() {
        match try_lock(data_dir) {
            Ok(_) => break,
            Err(error) if error.is::<Held>() => {}
            Err(error) => return Err(error),
        }
        if let Some(pid) = held_by(data_dir).filter(|_| !asked) {
            asked = true;
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM)
                .with_context(|| format!("cannot stop process {pid}; are you root?"))?;
        }
        if since.elapsed() > DRAIN_WITHIN + Duration::from_secs(5) {
            bail!("`hactl run` on {} does not end; kill it and run this again with --force", data_dir.display());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

pub fn master_config(
    data_dir: &Path,
    installation: &Installation,
    role: &MasterRole,
    settings: &Settings,
) -> Result<master::Config> {
    let mut config = master::Config::new(data_dir, &installation.cluster_id, role.member_id);
    config.epoch = installation.epoch;
    config.name = installation.name.clone();
    config.listen_api = settings.text("listen-api").unwrap_or_default().to_owned();
    config.listen_peer = settings.text("listen-peer").unwrap_or_default().to_owned();
    config.advertise_api = role.advertise_api.clone();
    config.advertise_peer = role.advertise_peer.clone();
    config.settings = control_settings(settings)?;
    config.automatic_snapshots =
        match settings.text("snapshot-dir").filter(|_| settings.text("snapshot-every").is_some()) {
            None => None,
            Some(place) => Some(master::snapshot::Plan {
                every: settings.duration("snapshot-every"),
                keep: settings.count("snapshot-keep").and_then(|keep| usize::try_from(keep).ok()).unwrap_or(usize::MAX),
                target: master::snapshot::Target::parse(place).context("snapshot-dir cannot be used")?,
            }),
        };
    config.timing = master::Timing {
        heartbeat: settings.duration("heartbeat"),
        election_min: settings.duration("election-min"),
        election_max: settings.duration("election-max"),
    };
    config.bounds = store_bounds(settings)?;
    (config.api_limits, config.port_limits) = api_limits(settings)?;
    config.lifetimes = lifetimes(settings)?;
    config.certificate_grace = settings.duration("certificate-grace");
    config.kubeconfig = Some(data_dir.join(FILE));
    config.api_names = api_names();
    config.version = env!("CARGO_PKG_VERSION").to_owned();
    config.commit = env!("HACTL_COMMIT").to_owned();
    Ok(config)
}

/// How long what a master signs lasts.
pub fn lifetimes(settings: &Settings) -> Result<rpc::pki::Lifetimes> {
    let life = settings.duration("certificate-life");
    let lifetimes = rpc::pki::Lifetimes {
        issuer: settings.duration("issuer-life"),
        peer: life,
        node: life,
        api: life,
        user: settings.duration("kubeconfig-life"),
    };
    if life < CERTIFICATE_LIFE_MIN || lifetimes.user < CERTIFICATE_LIFE_MIN {
        bail!("certificate-life and kubeconfig-life must be at least 10s, or nothing could be renewed in time");
    }
    if lifetimes.issuer < life * 2 || lifetimes.issuer < lifetimes.user {
        bail!("issuer-life must be at least twice certificate-life, and kubeconfig-life");
    }
    Ok(lifetimes)
}

/// Bounds of the replicated store.
fn store_bounds(settings: &Settings) -> Result<master::StoreBounds> {
    let size = |name: &str| settings.size(name).unwrap_or_default();
    let bounds = master::StoreBounds {
        disk_reserve: size("disk-reserve"),
        disk_slow: settings.duration("disk-slow"),
        log_entries: settings.count("raft-log-entries").unwrap_or_default(),
        log_bytes: size("raft-log-bytes"),
        batch_bytes: size("raft-batch-bytes"),
        history: settings.duration("history"),
        history_bytes: size("history-bytes"),
        quota: size("store-quota"),
    };
    if bounds.history < Duration::from_secs(300) {
        bail!("history must be at least 5m: clients come back to what they read that long ago");
    }
    if !(64 << 10..=8 << 20).contains(&bounds.batch_bytes) {
        bail!(
            "raft-batch-bytes must be from 64KiB to 8MiB: what one entry holds is sent to the other masters in one message"
        );
    }
    if bounds.log_entries < 100 {
        bail!("raft-log-entries must be at least 100, or members that are a little late would need whole snapshots");
    }
    Ok(bounds)
}

/// What the API takes on at once.
fn api_limits(settings: &Settings) -> Result<(master::Limits, master::PortLimits)> {
    let count = |name: &str| match settings.count(name).unwrap_or_default() {
        0 => bail!("{name} = 0 would let nobody in; write at least 1"),
        count => usize::try_from(count).with_context(|| format!("{name} = {count} is too large")),
    };
    let requests = master::Limits {
        body_bytes: usize::try_from(settings.size("api-body").unwrap_or_default()).context("api-body is too large")?,
        requests: count("api-requests")?,
        requests_per_user: count("api-requests-per-user")?,
        requests_system: count("api-requests-system")?,
        watches: count("api-watches")?,
        watches_per_user: count("api-watches-per-user")?,
        logs: count("api-logs")?,
        logs_per_user: count("api-logs-per-user")?,
    };
    let port = master::PortLimits {
        connections: count("api-connections")?,
        connections_per_address: count("api-connections-per-address")?,
        handshakes: count("api-handshakes")?,
        handshake_time: settings.duration("api-handshake-time"),
        header_time: settings.duration("api-header-time"),
        idle: settings.duration("api-idle"),
        stalled: settings.duration("api-stalled"),
        streams: u32::try_from(count("api-streams")?).context("api-streams is too large")?,
    };
    Ok((requests, port))
}

fn node_config(data_dir: &Path, installation: &Installation, role: &NodeRole, settings: &Settings) -> kubelet::Config {
    let mut masters = role.masters.clone();
    if let Some(own) = &installation.master {
        masters.insert(0, own.advertise_api.clone());
        masters.dedup();
    }
    kubelet::Config {
        data_dir: data_dir.to_owned(),
        cluster_id: installation.cluster_id.clone(),
        epoch: installation.epoch,
        node_name: role.name.clone(),
        node_uid: role.uid.clone(),
        docker_host: settings.text("docker-host").unwrap_or_default().to_owned(),
        masters,
        node_ip: None,
        capacity: kubelet::Capacity {
            cpu_millis: settings.cpu("node-cpu"),
            memory_bytes: settings.size("node-memory"),
            pods: settings.count("node-pods").and_then(|pods| u32::try_from(pods).ok()),
        },
        labels: Default::default(),
    }
}

/// What the control plane needs of the settings.
pub fn control_settings(settings: &Settings) -> Result<control::Settings> {
    let range = |name: &str| -> Result<_> {
        let text = settings.text(name).unwrap_or_default();
        text.parse().map_err(|_| anyhow::anyhow!("{name} = {text:?} is no range"))
    };
    Ok(control::Settings {
        node_grace: settings.duration("node-silence"),
        event_ttl: settings.duration("event-ttl"),
        toleration_s: i64::try_from(settings.duration("eviction-after").as_secs()).unwrap_or(i64::MAX),
        cluster_cidr: range("cluster-cidr")?,
        service_cidr: range("service-cidr")?,
        ..control::Settings::default()
    })
}

/// Further names of the API's certificate: those this machine is reached by from itself.
pub fn api_names() -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    names.extend(host_name());
    names
}

/// What this machine calls itself.
pub fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}
