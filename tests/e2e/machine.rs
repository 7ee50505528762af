//! Machines for tests: a network namespace each, with its own Docker engine, on one bridge with this host. Everything that is
//! made here is taken away again, however the test ends.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use crate::support::{HACTL, eventually, kubectl_default, run, text};

/// Runs a program whose failure is not this test's.
fn try_run(program: &str, arguments: &[&str]) {
    let _ =
        Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

/// Ends a child and waits for it.
fn end(child: &mut Child, signal: &str) {
    try_run("kill", &[signal, &child.id().to_string()]);
    let _ = child.wait();
}

/// A bridge that machines hang on; the host has the first address.
pub struct Lan {
    name: String,
    network: [u8; 3],
    pub cluster_cidr: String,
    dir: tempfile::TempDir,
}

impl Lan {
    pub fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = std::process::id().wrapping_mul(7).wrapping_add(MADE.fetch_add(1, Ordering::Relaxed));
        // The range for carriers' own use: neither Docker nor a local cluster takes from it.
        let third = u8::try_from(number % 250).expect("small");
        let lan = Self {
            name: format!("hxl{number:x}"),
            network: [100, 127, third],
            cluster_cidr: format!("100.{}.0.0/16", 64 + number % 60),
            dir: tempfile::Builder::new().prefix("hxl").tempdir().expect("temporary directory"),
        };
        run("ip", &["link", "add", &lan.name, "type", "bridge"]);
        run("ip", &["address", "add", &format!("{}/24", lan.address(1)), "dev", &lan.name]);
        run("ip", &["link", "set", &lan.name, "up"]);
        // Docker drops what is forwarded, between the ports of a bridge too.
        run("iptables", &["-w", "-I", "DOCKER-USER", "-i", &lan.name, "-o", &lan.name, "-j", "ACCEPT"]);
        lan
    }

    pub fn address(&self, last: u8) -> String {
        let [a, b, c] = self.network;
        format!("{a}.{b}.{c}.{last}")
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        try_run("iptables", &["-w", "-D", "DOCKER-USER", "-i", &self.name, "-o", &self.name, "-j", "ACCEPT"]);
        try_run("ip", &["link", "delete", &self.name]);
    }
}

/// One machine: this host itself, or a namespace.
pub struct Machine {
    pub name: String,
    pub address: String,
    dir: PathBuf,
    /// The namespace, and its engine while that runs.
    namespace: Option<String>,
    engine: Option<Child>,
    hactl: Option<Child>,
}

impl Machine {
    /// This host, on the lan.
    pub fn host(lan: &Lan) -> Self {
        let dir = lan.dir.path().join("host");
        std::fs::create_dir(&dir).expect("directory");
        Self { name: "host".into(), address: lan.address(1), dir, namespace: None, engine: None, hactl: None }
    }

    /// A namespace with an engine.
    pub fn new(lan: &Lan, name: &str, last: u8) -> Self {
        let dir = lan.dir.path().join(name);
        std::fs::create_dir(&dir).expect("directory");
        let namespace = format!("{}-{name}", lan.name);
        let mut machine = Self {
            name: name.into(),
            address: lan.address(last),
            dir,
            namespace: Some(namespace.clone()),
            engine: None,
            hactl: None,
        };
        let outside = format!("{}{name}", lan.name);
        assert!(outside.len() <= 15, "{outside}");
        run("ip", &["netns", "add", &namespace]);
        run("ip", &["link", "add", &outside, "type", "veth", "peer", "name", "eth0", "netns", &namespace]);
        run("ip", &["link", "set", &outside, "master", &lan.name, "up"]);
        let inside = |arguments: &[&str]| run("ip", &[&["-n", &namespace], arguments].concat());
        inside(&["link", "set", "lo", "up"]);
        inside(&["address", "add", &format!("{}/24", machine.address), "dev", "eth0"]);
        inside(&["link", "set", "eth0", "up"]);
        inside(&["route", "add", "default", "via", &lan.address(1)]);
        machine.start_engine();
        machine
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub fn docker_host(&self) -> String {
        match self.namespace {
            Some(_) => format!("unix://{}", self.dir.join("docker.sock").display()),
            None => "unix:///var/run/docker.sock".into(),
        }
    }

    /// A command on this machine, killed with the test.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if let Some(namespace) = &self.namespace {
            command.arg("nsenter").arg(format!("--net=/var/run/netns/{namespace}"));
        }
        command.arg(program).stdin(Stdio::null()).env_remove("KUBECONFIG").env("HOME", &self.dir);
        command
    }

    fn logged(&self, command: &mut Command, file: &str) -> Child {
        let open = |name: String| {
            let path = self.dir.join(name);
            std::fs::OpenOptions::new().create(true).append(true).open(path).expect("log file")
        };
        let child = command.stdout(open(format!("{file}.out"))).stderr(open(format!("{file}.log"))).spawn();
        child.expect("setpriv, nsenter and the program are installed")
    }

    pub fn start_engine(&mut self) {
        let at = |name: &str| self.dir.join(name).display().to_string();
        let mut command = self.command("dockerd");
        command
            .args(["--data-root", &at("docker"), "--exec-root", &at("exec"), "--pidfile", &at("docker.pid")])
            .args(["-H", &self.docker_host(), "--bridge=none", "--iptables=false", "--ip-masq=false"])
            .args(["--userland-proxy=false"]);
        self.engine = Some(self.logged(&mut command, "dockerd"));
        eventually("the engine answers", || {
            let output = Command::new("docker").args(["-H", &self.docker_host(), "version"]).output().expect("docker");
            if output.status.success() { Ok(()) } else { Err(self.log("dockerd")) }
        });
    }

    pub fn stop_engine(&mut self) {
        if let Some(mut engine) = self.engine.take() {
            end(&mut engine, "-TERM");
        }
    }

    pub fn docker(&self, arguments: &[&str]) -> String {
        run("docker", &[&["-H", &self.docker_host()], arguments].concat())
    }

    /// Ids of this machine's containers whose label says so, running or not.
    pub fn containers(&self, filter: &str) -> Vec<String> {
        let ids = self.docker(&["ps", "-aq", "--no-trunc", "--filter", filter]);
        ids.lines().map(str::to_owned).collect()
    }

    /// `hactl cluster <verb> …` with this machine's settings, in the foreground; it runs on in the background of the test.
    fn serve(&mut self, arguments: &[&str]) {
        let data_dir = self.data_dir();
        let mut command = self.command(HACTL);
        command.args(arguments).arg("--foreground").arg("--data-dir").arg(data_dir);
        command.args(["--node", "--node-name", &self.name, "--docker-host", &self.docker_host()]);
        if arguments.contains(&"--master") || arguments.contains(&"init") {
            command.args(["--advertise", &self.address]);
            command.args(["--listen-api", &format!("{}:6443", self.address)]);
            command.args(["--listen-peer", &format!("{}:6444", self.address)]);
        }
        self.hactl = Some(self.logged(&mut command, "hactl"));
    }

    pub fn init(&mut self, lan: &Lan) {
        self.serve(&["cluster", "init", "--node-silence", "15s", "--cluster-cidr", &lan.cluster_cidr]);
    }

    /// Joins, with what `init` on the first machine printed for masters or for nodes.
    pub fn join(&mut self, first: &Machine, roles: &[&str]) {
        let wanted = if roles.contains(&"--master") { "--master" } else { "--node" };
        let (address, token) = eventually("init prints the commands", || {
            let printed = std::fs::read_to_string(first.dir.join("hactl.out")).unwrap_or_default();
            let line = printed.lines().find(|line| line.contains("cluster join") && line.contains(wanted));
            let words: Vec<String> =
                line.map(|line| line.split_whitespace().map(str::to_owned).collect()).unwrap_or_default();
            match words.as_slice() {
                [.., address, _, _, token] => Ok((address.clone(), token.clone())),
                _ => Err(format!("{printed}\n{}", first.log("hactl"))),
            }
        });
        let mut arguments = vec!["cluster", "join", &address, "--token", &token];
        arguments.extend(roles);
        self.serve(&arguments);
    }

    /// Starts what was killed, as systemd would.
    fn run_again(&mut self) {
        let mut command = self.command(HACTL);
        command.arg("run").arg("--data-dir").arg(self.data_dir());
        self.hactl = Some(self.logged(&mut command, "hactl"));
    }

    /// Runs hactl here to its end.
    pub fn hactl(&self, arguments: &[&str]) -> Output {
        self.command(HACTL).args(arguments).arg("--data-dir").arg(self.data_dir()).output().expect("run hactl")
    }

    pub fn kill_hactl(&mut self) {
        if let Some(mut hactl) = self.hactl.take() {
            end(&mut hactl, "-KILL");
        }
    }

    /// Waits for the process to end by itself; whether it was content.
    pub fn hactl_ends(&mut self) -> bool {
        let mut hactl = self.hactl.take().expect("it runs");
        let status = eventually("hactl ends", || hactl.try_wait().ok().flatten().ok_or("it runs"));
        status.success()
    }

    /// The machine dies: all its processes at once, its network first.
    pub fn die(&mut self) {
        let namespace = self.namespace.clone().expect("not this host");
        run("ip", &["-n", &namespace, "link", "set", "eth0", "down"]);
        self.kill_hactl();
        self.clear_engine();
    }

    /// And is switched on again.
    pub fn come_back(&mut self, lan: &Lan) {
        let namespace = self.namespace.clone().expect("not this host");
        run("ip", &["-n", &namespace, "link", "set", "eth0", "up"]);
        run("ip", &["-n", &namespace, "route", "replace", "default", "via", &lan.address(1)]);
        self.start_engine();
        self.run_again();
    }

    /// The page at this address, as seen from this machine.
    pub fn fetch(&self, url: &str) -> Option<String> {
        let output = self.command("curl").args(["-fsS", "--max-time", "5", url]).output().expect("run curl");
        output.status.success().then(|| text(&output.stdout))
    }

    fn clear_engine(&mut self) {
        if self.engine.is_some() {
            let ids = Command::new("docker").args(["-H", &self.docker_host(), "ps", "-aq"]).output();
            let ids = ids.map(|output| text(&output.stdout)).unwrap_or_default();
            let docker_host = self.docker_host();
            let mut arguments = vec!["-H", &docker_host, "rm", "-f"];
            arguments.extend(ids.split_whitespace());
            try_run("docker", &arguments);
        }
        self.stop_engine();
    }

    pub fn log(&self, file: &str) -> String {
        let log = std::fs::read(self.dir.join(format!("{file}.log"))).map(|bytes| text(&bytes)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir().join("admin.kubeconfig")
    }

    pub fn try_kubectl(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(kubectl_default());
        command.args(arguments).env("KUBECONFIG", self.kubeconfig()).env("HOME", &self.dir).stdin(Stdio::null());
        command.output().expect("run kubectl; `make setup` installs it")
    }

    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let output = self.try_kubectl(arguments);
        assert!(output.status.success(), "kubectl {}: {}", arguments.join(" "), text(&output.stderr));
        text(&output.stdout)
    }

    pub fn json(&self, arguments: &[&str]) -> Result<Value, String> {
        let output = self.try_kubectl(&[arguments, &["-o", "json"]].concat());
        serde_json::from_slice(&output.stdout).map_err(|_| text(&output.stderr))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.name, self.log("hactl"));
        }
        self.kill_hactl();
        match self.namespace.take() {
            // The engine of the host stays; what is this cluster's on it goes.
            None => {
                let gone = self.hactl(&["cluster", "leave", "--force"]);
                if self.data_dir().exists() {
                    eprintln!("cleaning up failed: {}", text(&gone.stderr));
                }
            }
            Some(namespace) => {
                self.clear_engine();
                try_run("ip", &["netns", "delete", &namespace]);
            }
        }
        unmount_below(&self.dir);
    }
}

/// Secrets and the engine's layers are mounts.
fn unmount_below(dir: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points =
        mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|point| Path::new(point).starts_with(dir));
    for point in points.collect::<Vec<_>>().into_iter().rev() {
        try_run("umount", &["-l", point]);
    }
}
