//! Machines as network namespaces of this one, on a bridge with this host: each has an address, nftables and a `hactl run` of
//! its own, nodes also a Docker engine. Needs root. Everything that is made here is taken away again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use serde_json::Value;
use tokio::process::{Child, Command};

use super::engine::{Engine, placed};
use super::exchanged::Exchanged;
use super::{Ability, Machine, Plan, Signal, Target, restore_arguments, run, shim, verb};

const API_PORT: u16 = 6443;
const PEER_PORT: u16 = 6444;
const SMALL_DISK_MIB: u64 = 256;
/// The longest wait for one machine to join.
const JOINS_WITHIN: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(100);
const GONE_WITHIN: Duration = Duration::from_secs(30);

pub struct Lab {
    program: PathBuf,
    dir: PathBuf,
    plan: Plan,
    /// Names the bridge and, with a number, namespaces and links.
    name: String,
    network: [u8; 3],
    preload: Mutex<Option<PathBuf>>,
    exchanged: Exchanged,
    running: tokio::sync::Mutex<BTreeMap<String, Child>>,
    engines: tokio::sync::Mutex<BTreeMap<String, Engine>>,
}

/// A number that is this process's own for as long as it lives.
fn number() -> u32 {
    std::process::id()
}

impl Lab {
    pub fn new(program: PathBuf, dir: PathBuf, plan: Plan) -> Result<Self> {
        // SAFETY: geteuid(2) cannot fail.
        if unsafe { libc::geteuid() } != 0 {
            bail!("the target lab makes network namespaces: run it as root");
        }
        let dir = std::path::absolute(dir)?;
        if dir.exists() {
            bail!("{} is there already; the lab makes a cluster of its own", dir.display());
        }
        let third = u8::try_from(number() % 250).unwrap_or(1);
        Ok(Self {
            program,
            dir,
            plan,
            name: format!("hxc{:x}", number() & 0xFFFF),
            // The range for carriers' own use; nobody else takes from it.
            network: [100, 126, third],
            preload: Mutex::default(),
            exchanged: Exchanged::default(),
            running: tokio::sync::Mutex::default(),
            engines: tokio::sync::Mutex::default(),
        })
    }

    /// Names with the last part of their address.
    fn places(&self) -> Vec<(String, u8)> {
        let masters = (1..=self.plan.masters).map(|number| format!("master-{number}"));
        let nodes = (1..=self.plan.nodes).map(|number| format!("node-{number}"));
        masters.chain(nodes).zip(10..).collect()
    }

    fn address(&self, last: u8) -> String {
        let [a, b, c] = self.network;
        format!("{a}.{b}.{c}.{last}")
    }

    fn address_of(&self, machine: &str) -> String {
        let place = self.places().into_iter().find(|(name, _)| name == machine);
        self.address(place.map_or(0, |(_, last)| last))
    }

    fn namespace(&self, machine: &str) -> String {
        format!("{}-{machine}", self.name)
    }

    fn machine(&self, name: &str) -> Machine {
        let address = self.address_of(name);
        let is_master = name.starts_with("master");
        let port = |port: u16| if is_master { format!("{address}:{port}") } else { String::new() };
        let api = if is_master { format!("https://{}", port(API_PORT)) } else { String::new() };
        Machine { name: name.to_owned(), api, peer: port(PEER_PORT), address }
    }

    async fn network(&self) -> Result<()> {
        ip(&["link", "add", &self.name, "type", "bridge"]).await?;
        ip(&["address", "add", &format!("{}/24", self.address(1)), "dev", &self.name]).await?;
        ip(&["link", "set", &self.name, "up"]).await?;
        // Docker drops what is forwarded, between the ports of a bridge too; where there is no Docker, nothing does.
        let _ = run(Command::new("iptables").args(self.forwarding("-I"))).await;
        for (machine, last) in self.places() {
            let (namespace, outside) = (self.namespace(&machine), format!("{}p{last}", self.name));
            ip(&["netns", "add", &namespace]).await?;
            ip(&["link", "add", &outside, "type", "veth", "peer", "name", "eth0", "netns", &namespace]).await?;
            ip(&["link", "set", &outside, "master", &self.name, "up"]).await?;
            let address = format!("{}/24", self.address(last));
            ip(&["-n", &namespace, "link", "set", "lo", "up"]).await?;
            ip(&["-n", &namespace, "address", "add", &address, "dev", "eth0"]).await?;
            ip(&["-n", &namespace, "link", "set", "eth0", "up"]).await?;
            ip(&["-n", &namespace, "route", "add", "default", "via", &self.address(1)]).await?;
        }
        Ok(())
    }

    fn forwarding(&self, verb: &'static str) -> Vec<&str> {
        vec!["-w", verb, "DOCKER-USER", "-i", &self.name, "-o", &self.name, "-j", "ACCEPT"]
    }

    /// Starts hactl on a machine, in its namespace, with its log beside its data.
    async fn spawn(&self, machine: &str, arguments: &[String]) -> Result<()> {
        let dir = self.dir.join(machine);
        std::fs::create_dir_all(&dir)?;
        let log = std::fs::File::options().create(true).append(true).open(dir.join("hactl.log"))?;
        let mut command = placed(Some(&self.namespace(machine)), Path::new(&self.program(machine)));
        command
            .args(arguments)
            .arg("--data-dir")
            .arg(self.data_dir(machine))
            .env_remove("KUBECONFIG")
            .env("HOME", &dir);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let preload = self.preload.lock().map(|path| path.clone()).unwrap_or_default();
        if let Some(library) = preload {
            command.env("LD_PRELOAD", library);
        }
        let child = command.spawn().context("setpriv, nsenter and hactl are needed")?;
        self.running.lock().await.insert(machine.to_owned(), child);
        Ok(())
    }

    fn common(&self, machine: &str) -> Vec<String> {
        let mut arguments: Vec<String> = vec!["--foreground".into(), "--node-name".into(), machine.into()];
        if machine.starts_with("master") {
            let address = self.address_of(machine);
            arguments.extend(["--advertise".into(), address.clone()]);
            arguments.extend(["--listen-api".into(), format!("{address}:{API_PORT}")]);
            arguments.extend(["--listen-peer".into(), format!("{address}:{PEER_PORT}")]);
        }
        for (name, value) in &self.plan.settings {
            arguments.extend([format!("--{name}"), value.clone()]);
        }
        arguments
    }

    async fn token(&self, kind: &str) -> Result<String> {
        let since = Instant::now();
        loop {
            match self.hactl(&["cluster", "token", "create", kind, "-o", "json"]).await {
                Ok(text) => {
                    let answer: Value = serde_json::from_str(&text)?;
                    return Ok(answer["token"].as_str().context("no token")?.to_owned());
                }
                Err(error) if since.elapsed() > JOINS_WITHIN => return Err(error),
                Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    async fn joined(&self, what: &str, check: impl Fn(&Value) -> bool) -> Result<()> {
        let since = Instant::now();
        loop {
            let status = self.hactl(&["cluster", "status", "-o", "json"]).await;
            let status = status.ok().and_then(|text| serde_json::from_str::<Value>(&text).ok());
            if status.as_ref().is_some_and(&check) {
                return Ok(());
            }
            if since.elapsed() > JOINS_WITHIN {
                bail!("{what} did not join; its log is in {}", self.dir.join(what).join("hactl.log").display());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// `by` is a master that is there already; none: this one makes the cluster.
    async fn join_master(&self, machine: &str, by: Option<&str>, voters: usize) -> Result<()> {
        let mut arguments: Vec<String> = vec!["cluster".into()];
        if let Some(by) = by {
            let (by, token) = (format!("{}:{API_PORT}", self.address_of(by)), self.token("--master").await?);
            arguments.extend(["join".into(), by, "--master".into(), "--token".into(), token]);
        } else {
            let range = format!("100.{}.0.0/16", 64 + self.network[2] % 60);
            arguments.extend(["init".into(), "--cluster-cidr".into(), range]);
        }
        arguments.extend(self.common(machine));
        self.spawn(machine, &arguments).await?;
        self.joined(machine, |status| {
            let members = status["members"].as_array().map(Vec::as_slice).unwrap_or_default();
            members.iter().filter(|member| member["voter"] == true).count() >= voters
        })
        .await
    }

    async fn join_node(&self, machine: &str) -> Result<()> {
        let mut engine = Engine::new(&self.dir.join(machine).join("engine"), Some(self.namespace(machine)));
        engine.start().await?;
        let first = format!("{}:{API_PORT}", self.address_of("master-1"));
        let mut arguments: Vec<String> = vec!["cluster".into(), "join".into(), first, "--node".into()];
        arguments.extend(["--token".into(), self.token("--node").await?, "--docker-host".into(), engine.host()]);
        arguments.extend(self.common(machine));
        self.engines.lock().await.insert(machine.to_owned(), engine);
        self.spawn(machine, &arguments).await?;
        self.joined(machine, |status| {
            let nodes = status["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
            nodes.iter().any(|node| node["name"] == machine && node["ready"] == "true")
        })
        .await
    }

    /// A file with the key that `init` printed.
    fn recovery_key(&self) -> Result<PathBuf> {
        let file = self.dir.join("recovery.key");
        if !file.exists() {
            let printed = std::fs::read_to_string(self.dir.join("master-1").join("hactl.log"))?;
            let key = printed.split_whitespace().find(|word| word.starts_with("AGE-SECRET-KEY-"));
            std::fs::write(&file, key.context("`cluster init` printed no recovery key")?)?;
        }
        Ok(file)
    }

    async fn pid(&self, machine: &str) -> Option<u32> {
        self.running.lock().await.get(machine).and_then(Child::id)
    }

    fn mounts(&self) -> Vec<PathBuf> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
        points.filter(|point| point.starts_with(&self.dir)).collect()
    }
}

async fn ip(arguments: &[&str]) -> Result<String> {
    run(Command::new("ip").args(arguments)).await
}

impl Drop for Lab {
    /// Where the run ended without `down`: the network at least must not stay. Processes die with this one.
    fn drop(&mut self) {
        for (machine, _) in self.places() {
            let namespace = self.namespace(&machine);
            if Path::new("/var/run/netns").join(&namespace).exists() {
                let _ = std::process::Command::new("ip").args(["netns", "delete", &namespace]).output();
            }
        }
        if Path::new("/sys/class/net").join(&self.name).exists() {
            let _ = std::process::Command::new("iptables").args(self.forwarding("-D")).output();
            let _ = std::process::Command::new("ip").args(["link", "delete", &self.name]).output();
        }
    }
}

#[async_trait]
impl Target for Lab {
    fn name(&self) -> &'static str {
        "lab"
    }

    fn abilities(&self) -> Vec<Ability> {
        use Ability::{Files, Join, Nodes, OwnEngines, Partitions, Program, Relay, Settings, Shim, SmallDisks};
        vec![Partitions, Relay, Files, Join, Shim, SmallDisks, OwnEngines, Settings, Program, Nodes]
    }

    async fn up(&self) -> Result<()> {
        std::fs::create_dir_all(&self.dir).with_context(|| format!("cannot make {}", self.dir.display()))?;
        if self.plan.shim {
            let library = shim::compile(&self.dir).await?;
            *self.preload.lock().map_err(|_| anyhow::anyhow!("poisoned"))? = Some(library);
        }
        self.network().await?;
        for (number, machine) in self.masters().iter().enumerate() {
            if self.plan.small_disks {
                std::fs::create_dir_all(self.data_dir(&machine.name))?;
                let size = format!("size={SMALL_DISK_MIB}m");
                let mut mount = Command::new("mount");
                run(mount.args(["-t", "tmpfs", "-o", &size, "hactl-chaos", &self.data_dir(&machine.name)])).await?;
            }
            let by = (number > 0).then_some("master-1");
            self.join_master(&machine.name, by, number + 1).await?;
        }
        // That of the last one to join names them all.
        if let Some(last) = self.masters().last() {
            let whole = PathBuf::from(self.data_dir(&last.name)).join("admin.kubeconfig");
            std::fs::copy(whole, self.dir.join("admin.kubeconfig"))?;
        }
        for node in self.nodes() {
            self.join_node(&node.name).await?;
        }
        Ok(())
    }

    async fn down(&self, keep: bool) -> Result<()> {
        let machines: Vec<Machine> = self.nodes().into_iter().chain(self.masters()).collect();
        for machine in &machines {
            self.signal(&machine.name, Signal::Kill).await?;
        }
        for engine in self.engines.lock().await.values_mut() {
            // One that a nemesis had killed is needed to remove its containers.
            engine.start().await?;
            engine.clear().await?;
        }
        for machine in &machines {
            ip(&["netns", "delete", &self.namespace(&machine.name)]).await?;
        }
        let _ = run(Command::new("iptables").args(self.forwarding("-D"))).await;
        ip(&["link", "delete", &self.name]).await?;
        if !keep {
            for point in self.mounts().into_iter().rev() {
                run(Command::new("umount").arg("-l").arg(point)).await?;
            }
            std::fs::remove_dir_all(&self.dir).with_context(|| format!("cannot remove {}", self.dir.display()))?;
        }
        Ok(())
    }

    fn masters(&self) -> Vec<Machine> {
        let names = self.places().into_iter().map(|(name, _)| name);
        names.filter(|name| name.starts_with("master")).map(|name| self.machine(&name)).collect()
    }

    fn nodes(&self) -> Vec<Machine> {
        let names = self.places().into_iter().map(|(name, _)| name);
        names.filter(|name| name.starts_with("node")).map(|name| self.machine(&name)).collect()
    }

    fn kubeconfig(&self) -> PathBuf {
        let own = self.dir.join("admin.kubeconfig");
        if own.exists() { own } else { PathBuf::from(self.data_dir("master-1")).join("admin.kubeconfig") }
    }

    fn program(&self, machine: &str) -> String {
        self.exchanged.of(machine, &self.program)
    }

    fn data_dir(&self, machine: &str) -> String {
        self.dir.join(machine).join("data").display().to_string()
    }

    async fn signal(&self, machine: &str, signal: Signal) -> Result<()> {
        let Some(pid) = self.pid(machine).await else { return Ok(()) };
        let number = match signal {
            Signal::Kill => libc::SIGKILL,
            Signal::Terminate => libc::SIGTERM,
            Signal::Stop => libc::SIGSTOP,
            Signal::Continue => libc::SIGCONT,
        };
        super::local::send(pid, number)?;
        if matches!(signal, Signal::Kill | Signal::Terminate) {
            let Some(mut child) = self.running.lock().await.remove(machine) else { return Ok(()) };
            if tokio::time::timeout(GONE_WITHIN, child.wait()).await.is_err() {
                bail!("{machine} does not end within {} s", GONE_WITHIN.as_secs());
            }
        }
        Ok(())
    }

    async fn start(&self, machine: &str) -> Result<()> {
        let runs = match self.running.lock().await.get_mut(machine) {
            Some(child) => child.try_wait()?.is_none(),
            None => false,
        };
        if runs { Ok(()) } else { self.spawn(machine, &["run".into()]).await }
    }

    async fn shell(&self, machine: &str, script: &str) -> Result<String> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/var/run/netns/{}", self.namespace(machine)));
        command.args(["sh", "-c", script]).env_remove("KUBECONFIG").env("HOME", self.dir.join(machine));
        run(&mut command).await
    }

    async fn hactl(&self, arguments: &[&str]) -> Result<String> {
        verb(&self.program, &self.kubeconfig(), arguments).await
    }

    fn exchange(&self, machine: &str, program: &Path) -> Result<()> {
        self.exchanged.set(machine, program)
    }

    async fn join_anew(&self, machine: &str) -> Result<()> {
        self.signal(machine, Signal::Kill).await?;
        super::local::empty(Path::new(&self.data_dir(machine)))?;
        let others = self.masters().into_iter().map(|master| master.name);
        let by = others.into_iter().find(|name| name != machine).context("there is no other master")?;
        self.join_master(machine, Some(&by), self.plan.masters).await
    }

    async fn restore(&self, file: &Path, machines: &[String]) -> Result<()> {
        let key = self.recovery_key()?;
        for machine in machines {
            super::local::empty(Path::new(&self.data_dir(machine)))?;
        }
        let (first, others) = machines.split_first().context("there is no master")?;
        let arguments = restore_arguments(file, &key, &self.data_dir(first), &self.machine(first), &self.plan);
        run(Command::new(&self.program).args(&arguments)).await?;
        self.start(first).await?;
        for (number, machine) in others.iter().enumerate() {
            self.join_master(machine, Some(first), number + 2).await?;
        }
        Ok(())
    }

    async fn engines(&self, arguments: &[&str]) -> Result<Option<String>> {
        let engines = self.engines.lock().await;
        if engines.is_empty() {
            return Ok(None);
        }
        let mut all = String::new();
        for engine in engines.values() {
            all.push_str(&engine.docker(arguments).await?);
        }
        Ok(Some(all))
    }

    async fn engine(&self, machine: &str, runs: bool) -> Result<()> {
        let mut engines = self.engines.lock().await;
        let engine = engines.get_mut(machine).with_context(|| format!("{machine} has no engine"))?;
        if runs { engine.revive().await } else { engine.kill().await }
    }

    async fn lose_node(&self, machine: &str) -> Result<()> {
        self.signal(machine, Signal::Kill).await?;
        let engines = self.engines.lock().await;
        let engine = engines.get(machine).with_context(|| format!("{machine} has no engine"))?;
        let ids = engine.docker(&["ps", "-q"]).await?;
        let ids: Vec<&str> = ids.split_whitespace().collect();
        if !ids.is_empty() {
            engine.docker(&[&["kill"], ids.as_slice()].concat()).await?;
        }
        Ok(())
    }
}
