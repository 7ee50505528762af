//! `hactl local up`: from nothing, or from whatever is there, to a cluster whose masters vote and whose nodes are Ready.
//!
//! Each step looks whether it is done already, so that a second `up`, or one after an interrupted one, only does what is missing.

use std::ffi::OsStr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};

use super::super::cluster::{self, prepare, recovery_key};
use super::super::credentials::Access;
use super::super::installation::Installation;
use super::super::progress::{Progress, count, note};
use super::super::run;
use super::super::settings::Flags;
use super::Dir;
use super::layout::{Layout, Master};
use super::process::Process;

/// The pause between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How many lines of a failed process's log are shown.
const TAIL_LINES: usize = 15;
/// The join tokens of `up` are used at once and then revoked; one of an `up` that was killed meanwhile ends by its age.
const TOKEN_TTL: Duration = Duration::from_secs(600);

/// Start a cluster in the background and return when it is ready
#[derive(Debug, clap::Args)]
pub struct Up {
    /// How many masters: 1, 3, 5 or 7 [default: as many as there are, at first 3]
    #[arg(long, value_name = "N")]
    masters: Option<usize>,
    /// How many nodes [default: as many as there are, at first 2]
    #[arg(long, value_name = "N")]
    nodes: Option<usize>,
    #[command(flatten)]
    dir: Dir,
    /// The longest wait for each step, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
    #[command(flatten)]
    flags: Flags,
}

impl Up {
    pub async fn run(self) -> Result<()> {
        if self.masters.is_some_and(|count| count == 0 || count.is_multiple_of(2) || count > 7) {
            bail!("--masters must be 1, 3, 5 or 7: an even number survives no more failures than one less");
        }
        let given = self.flags.given();
        if let Some(name) = ["listen-api", "listen-peer"].into_iter().find(|name| given.contains_key(*name)) {
            bail!("--{name}: a local cluster chooses its ports itself; `hactl local status` shows them");
        }
        // Nothing is made, and no size written down, for what cannot be.
        self.flags.resolve(&std::collections::BTreeMap::new())?;
        let dir = self.dir.path();
        let present = if Layout::exists(&dir) { Some(Layout::load(&dir)?) } else { None };
        let size = |flag: Option<usize>, first: usize| flag.unwrap_or(if present.is_some() { 0 } else { first });
        let (masters, nodes) = (size(self.masters, 3), size(self.nodes, 2));
        if nodes > 0 || present.as_ref().is_some_and(|layout| !layout.plan.nodes.is_empty()) {
            check_docker(&self.flags).await?;
        }
        if let Some(layout) = &present {
            refuse_orphans(layout)?;
        }
        let _lock = lock(&dir)?;
        // Until every process listens.
        let (layout, _ports) = Layout::load_or_plan(&dir, masters, nodes)?;
        // Those that joined earlier first: one alone of three cannot lead.
        for master in layout.plan.masters.iter().filter(|master| Installation::exists(&layout.data_dir(&master.name))) {
            start_machine(&layout, &master.name)?;
        }
        let first = founder(&layout)?;
        self.first(&layout, first).await?;
        self.recovery_key(&layout).await?;
        self.forwarder(&layout).await?;
        for master in layout.plan.masters.iter().filter(|master| master.name != first.name) {
            self.join_master(&layout, master).await?;
        }
        self.wait_for_masters(&layout).await?;
        for node in &layout.plan.nodes {
            self.join_node(&layout, &node.name).await?;
        }
        self.wait_for_nodes(&layout).await?;
        note(format!("\nReady. Use it with: export KUBECONFIG={}", layout.kubeconfig().display()));
        Ok(())
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    /// The settings given to `up` go into every machine's record.
    fn settings(&self) -> Flags {
        self.flags.clone()
    }

    fn master_settings(&self, master: &Master) -> Flags {
        let mut flags = self.settings();
        flags.set("listen-api", format!("127.0.0.1:{}", master.api));
        flags.set("listen-peer", format!("127.0.0.1:{}", master.peer));
        flags
    }

    async fn first(&self, layout: &Layout, first: &Master) -> Result<()> {
        let data_dir = layout.data_dir(&first.name);
        if !Installation::exists(&data_dir) {
            let progress = Progress::start(format!("making the cluster with {}", first.name));
            let mut flags = self.master_settings(first);
            let settings = flags.resolve(&Default::default())?;
            if settings.is_default("cluster-cidr") {
                let services = settings.text("service-cidr").unwrap_or_default();
                flags.set("cluster-cidr", prepare::free_range(services)?);
            }
            prepare::init(prepare::Init {
                data_dir: data_dir.clone(),
                name: first.name.clone(),
                advertise_api: format!("127.0.0.1:{}", first.api),
                advertise_peer: format!("127.0.0.1:{}", first.peer),
                node: None,
                flags,
            })
            .await?;
            progress.done("made");
        }
        start_machine(layout, &first.name)?;
        write_kubeconfig(layout)?;
        self.wait("waiting until a master leads", &[layout.process(&first.name)], async || {
            let answer = cluster::status_of(&Access::of(layout.kubeconfig())).await;
            Ok(match answer {
                Ok(answer) if cluster::leader_name(&answer).is_some() => None,
                Ok(_) => Some("no leader yet".to_owned()),
                Err(_) => Some("it does not answer yet".to_owned()),
            })
        })
        .await
    }

    /// Where `cluster init` shows the key, this keeps it in a file: the cluster and its key lie on one machine anyway.
    async fn recovery_key(&self, layout: &Layout) -> Result<()> {
        let file = layout.dir.join(recovery_key::LOCAL_FILE);
        if file.exists() {
            return Ok(());
        }
        let key = ::master::snapshot::RecoveryKey::generate();
        recovery_key::write(&file, &key)?;
        let first = recovery_key::set(&Access::of(layout.kubeconfig()), &key, true).await;
        match first {
            Ok(true) => give_to_caller(&file),
            Ok(false) => std::fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display())),
            Err(error) => Err(recovery_key::give_up(Some(&file), error)),
        }
    }

    async fn forwarder(&self, layout: &Layout) -> Result<()> {
        let dir = layout.dir.as_os_str();
        let process = layout.forwarder();
        process.start(&[OsStr::new("local"), OsStr::new("forward"), OsStr::new("--dir"), dir])?;
        self.wait("starting the forwarder", &[process], async || {
            // That it does not listen in its first moments is no news.
            let connected = tokio::net::TcpStream::connect(("127.0.0.1", layout.plan.port)).await;
            Ok(connected.err().map(|_| String::new()))
        })
        .await
    }

    async fn join_master(&self, layout: &Layout, master: &Master) -> Result<()> {
        let data_dir = layout.data_dir(&master.name);
        if !Installation::exists(&data_dir) {
            let progress = Progress::start(format!("joining {}", master.name));
            let token = Token::create(layout, true).await?;
            let replaces = self.lost_member(layout, master).await?;
            let joined = prepare::join(prepare::Join {
                data_dir,
                name: master.name.clone(),
                address: format!("127.0.0.1:{}", self.living(layout)?.api),
                token: token.0.clone(),
                master: Some((format!("127.0.0.1:{}", master.api), format!("127.0.0.1:{}", master.peer))),
                node: None,
                replaces,
                flags: self.master_settings(master),
            })
            .await;
            token.revoke(layout).await;
            joined.with_context(|| format!("cannot join {}", master.name))?;
            progress.done("joined");
        }
        start_machine(layout, &master.name).map(drop)
    }

    /// The member that this master was before its data dir was lost: it would stay a voter that never answers.
    async fn lost_member(&self, layout: &Layout, master: &Master) -> Result<Option<String>> {
        let status = cluster::status_of(&Access::of(layout.kubeconfig())).await?;
        let same = |info: &&rpc::pb::MemberInfo| info.name == master.name;
        let silent = status.members.iter().filter(|member| !member.reachable);
        Ok(silent.filter_map(|member| member.member.as_ref()).find(same).map(|info| info.id.to_string()))
    }

    async fn join_node(&self, layout: &Layout, name: &str) -> Result<()> {
        let data_dir = layout.data_dir(name);
        if !Installation::exists(&data_dir) {
            let progress = Progress::start(format!("joining {name}"));
            let mut flags = self.settings();
            divide(&mut flags, layout.plan.nodes.len())?;
            let token = Token::create(layout, false).await?;
            let joined = prepare::join(prepare::Join {
                data_dir,
                name: name.to_owned(),
                address: format!("127.0.0.1:{}", self.living(layout)?.api),
                token: token.0.clone(),
                master: None,
                node: Some(name.to_owned()),
                replaces: None,
                flags,
            })
            .await;
            token.revoke(layout).await;
            joined.with_context(|| format!("cannot join {name}"))?;
            progress.done("joined");
        }
        start_machine(layout, name).map(drop)
    }

    /// A master that can be joined through.
    fn living<'a>(&self, layout: &'a Layout) -> Result<&'a Master> {
        let serves = |master: &&Master| {
            // One that was only just started may not listen yet.
            let address = std::net::SocketAddr::from(([127, 0, 0, 1], master.api));
            let connected = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(250));
            layout.process(&master.name).pid().is_some() && connected.is_ok()
        };
        let living = layout.plan.masters.iter().find(serves);
        living.context("no master is running; look at the logs in the cluster's directory")
    }

    async fn wait_for_masters(&self, layout: &Layout) -> Result<()> {
        let all = layout.plan.masters.len();
        let processes: Vec<Process> = layout.plan.masters.iter().map(|master| layout.process(&master.name)).collect();
        let (who, verb) = (count(all, "master"), if all == 1 { "votes" } else { "vote" });
        self.wait(&format!("waiting until {who} {verb}"), &processes, async || {
            let answer = match cluster::status_of(&Access::of(layout.kubeconfig())).await {
                Ok(answer) => answer,
                Err(error) => return Ok(Some(first_line(&error))),
            };
            let voting = answer.members.iter().filter(|member| member.voter && member.reachable).count();
            let leads = cluster::leader_name(&answer).is_some();
            Ok(match (voting >= all, leads) {
                (true, true) => None,
                (_, false) => Some("no leader yet".to_owned()),
                (false, _) => Some(format!("{voting} of {all}")),
            })
        })
        .await
    }

    async fn wait_for_nodes(&self, layout: &Layout) -> Result<()> {
        let names: Vec<&str> = layout.plan.nodes.iter().map(|node| node.name.as_str()).collect();
        if names.is_empty() {
            return Ok(());
        }
        let processes: Vec<Process> = names.iter().map(|name| layout.process(name)).collect();
        let client = Access::of(layout.kubeconfig()).kube().await?;
        let (who, verb) = (count(names.len(), "node"), if names.len() == 1 { "is" } else { "are" });
        self.wait(&format!("waiting until {who} {verb} Ready"), &processes, async || {
            let missing = match unready(&client, &names).await {
                Ok(missing) => missing,
                Err(error) => return Ok(Some(first_line(&error))),
            };
            Ok((!missing.is_empty()).then(|| format!("not yet {}", missing.join(", "))))
        })
        .await
    }

    /// Looks until `check` says that nothing is missing; fails when one of the processes dies or time is up.
    async fn wait(
        &self,
        what: &str,
        processes: &[Process],
        mut check: impl AsyncFnMut() -> Result<Option<String>>,
    ) -> Result<()> {
        let since = Instant::now();
        let mut progress = Progress::start(what);
        loop {
            let missing = check().await?;
            let Some(missing) = missing else {
                progress.done("done");
                return Ok(());
            };
            if let Some(dead) = processes.iter().find(|process| process.pid().is_none()) {
                drop(progress);
                bail!("{what} failed because a process ended; {}", dead.tail(TAIL_LINES));
            }
            if since.elapsed() > self.limit() {
                drop(progress);
                let tail = processes.last().map(|process| process.tail(TAIL_LINES)).unwrap_or_default();
                bail!("{what} took longer than {} s ({missing}); {tail}", self.timeout);
            }
            progress.detail(&missing);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// A join token for one machine.
struct Token(String);

impl Token {
    /// Of a master, or of a node.
    async fn create(layout: &Layout, master: bool) -> Result<Self> {
        let access = Access::of(layout.kubeconfig());
        cluster::create_token(&access, master, !master, TOKEN_TTL, "hactl local up").await.map(Self)
    }

    /// Nobody needs it any more. Where that cannot be said to the masters now, its age ends it.
    async fn revoke(self, layout: &Layout) {
        let revoked = async {
            let id = rpc::token::Token::parse(&self.0)?.id;
            cluster::revoke_token(&Access::of(layout.kubeconfig()), &id).await
        };
        if let Err(error) = revoked.await {
            note(format!("a join token could not be revoked and ends in {} min: {error:#}", TOKEN_TTL.as_secs() / 60));
        }
    }
}

fn first_line(error: &anyhow::Error) -> String {
    format!("{error:#}").lines().next().unwrap_or_default().to_owned()
}

async fn unready(client: &kube::Client, names: &[&str]) -> Result<Vec<String>> {
    use k8s_openapi::api::core::v1::Node;
    let nodes = kube::Api::<Node>::all(client.clone()).list(&kube::api::ListParams::default()).await?;
    let ready = |name: &str| {
        nodes.items.iter().filter(|node| node.metadata.name.as_deref() == Some(name)).any(|node| {
            let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
            conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
        })
    };
    Ok(names.iter().filter(|name| !ready(name)).map(|name| (*name).to_owned()).collect())
}

/// The master that the others join: the first that is one already, else the first of the plan, which then makes the cluster.
fn founder(layout: &Layout) -> Result<&Master> {
    let mut masters = layout.plan.masters.iter();
    let made = masters.find(|master| Installation::exists(&layout.data_dir(&master.name)));
    made.or(layout.plan.masters.first()).context("a cluster has a master")
}

/// Starts `hactl run` for one machine, unless it runs.
pub fn start_machine(layout: &Layout, name: &str) -> Result<i32> {
    let data_dir = layout.data_dir(name);
    layout.process(name).start(&[OsStr::new("run"), OsStr::new("--data-dir"), data_dir.as_os_str()])
}

/// One `up` or `down` of a directory at a time.
pub fn lock(dir: &Path) -> Result<Flock<std::fs::File>> {
    let made = std::fs::create_dir_all(dir).and_then(|()| std::fs::File::create(dir.join(".lock")));
    let file = made.with_context(|| format!("cannot write in {}; choose another place with --dir", dir.display()))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|_| anyhow::anyhow!("another `hactl local up` or `down` works in {}; wait for it", dir.display()))
}

/// # Errors
/// When the masters' data is gone and something of their cluster is left: another cluster in their place would lose it.
fn refuse_orphans(layout: &Layout) -> Result<()> {
    let made = |name: &String| Installation::exists(&layout.data_dir(name));
    let nodes: Vec<&str> = layout.plan.nodes.iter().map(|node| node.name.as_str()).collect();
    let left = nodes.iter().any(|name| made(&(*name).to_owned())) || layout.dir.join(recovery_key::LOCAL_FILE).exists();
    if !left || layout.plan.masters.iter().any(|master| made(&master.name)) {
        return Ok(());
    }
    let dir = layout.dir.display();
    let first = layout.plan.masters.first().map_or("master-1", |master| master.name.as_str());
    bail!(
        "no master of the cluster in {dir} has its data any more. From a snapshot: `hactl cluster snapshot restore FILE \
         --recovery-key-file {dir}/recovery.key --data-dir {dir}/{first} --start`; or start over: `hactl local down --delete --dir {dir}`"
    );
}

async fn check_docker(flags: &Flags) -> Result<()> {
    let settings = flags.resolve(&std::collections::BTreeMap::new())?;
    let host = settings.text("docker-host").unwrap_or_default();
    let Some(path) = host.strip_prefix("unix://") else { return Ok(()) };
    let answer = tokio::time::timeout(Duration::from_secs(5), tokio::net::UnixStream::connect(path)).await;
    match answer {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => bail!(
            "no Docker engine answers at {host} ({error}); start it (`systemctl start docker`, or `dockerd &`), \
             or give --docker-host, or --nodes 0"
        ),
        Err(_) => bail!("the Docker engine at {host} does not answer; restart it"),
    }
}

/// Gives each node its part of the machine, unless the user said how much.
fn divide(flags: &mut Flags, nodes: usize) -> Result<()> {
    let given = flags.given();
    let nodes = nodes.max(1) as u64;
    if !given.contains_key("node-cpu") {
        let cores = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
        flags.set("node-cpu", format!("{}m", cores * 1000 / nodes));
    }
    if !given.contains_key("node-memory") {
        let text = std::fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
        let total = text
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))
            .and_then(|rest| rest.trim().trim_end_matches(" kB").trim().parse::<u64>().ok())
            .context("/proc/meminfo does not say how much memory there is")?;
        flags.set("node-memory", format!("{}KiB", total / nodes));
    }
    Ok(())
}

/// The admin's kubeconfig: the forwarder first, then every master as a further context.
fn write_kubeconfig(layout: &Layout) -> Result<()> {
    let first = founder(layout)?;
    let mut addresses = vec![("local".to_owned(), format!("https://127.0.0.1:{}", layout.plan.port))];
    addresses.extend(layout.plan.masters.iter().map(|master| (master.name.clone(), master.url())));
    let servers: Vec<_> = addresses
        .into_iter()
        .map(|(context, url)| rpc::pki::kubeconfig::Server { context, url, tls_name: None })
        .collect();
    let installation = Installation::load(&layout.data_dir(&first.name))?;
    let lifetimes = run::lifetimes(&Flags::default().resolve(&installation.settings)?)?;
    master::write_kubeconfig(&layout.data_dir(&first.name), &layout.kubeconfig(), &servers, &lifetimes)?;
    give_to_caller(&layout.kubeconfig())
}

/// A file that the user who asked for root by sudo(8) shall read; nothing without sudo.
fn give_to_caller(path: &Path) -> Result<()> {
    let id = |name: &str| std::env::var(name).ok().and_then(|id| id.parse().ok());
    let (Some(user), Some(group)) = (id("SUDO_UID"), id("SUDO_GID")) else { return Ok(()) };
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    std::os::unix::fs::chown(path, Some(user), Some(group))
        .with_context(|| format!("cannot give {} to the user {user}", path.display()))
}
