//! Docker Engine over its socket: the only place that knows bollard.
//!
//! Every listing filters by both own labels and every mutation acts on an id that came from such a listing or creation.
//! Log output goes through Docker's json-file driver with a bounded size.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, ResizeExecOptions, StartExecOptions, StartExecResults};
use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum, EndpointIpamConfig, EndpointSettings,
    HostConfig, HostConfigLogConfig, Ipam, IpamConfig, Mount as DockerMount, MountBindOptions,
    MountBindOptionsPropagationEnum, MountType, NetworkCreateRequest, NetworkDisconnectRequest, NetworkingConfig,
    PortBinding,
};
use bollard::query_parameters as query;
use bollard::{API_DEFAULT_VERSION, Docker as Client};
use bytes::Bytes;
use futures::stream::{BoxStream, Stream, StreamExt};
use jiff::Timestamp;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

use crate::{blocking, network};

use super::looks::Looks;
use super::netns;
use super::orphans::{is_of, kill_tree};
use super::{
    Attached, Bridge, Container, Credentials, EXEC_OUTPUT_MAX, Error, Event, Exec, Image, Info, LogQuery, Network,
    Pipe, Result, Runtime, Spec, State, Stdio, Terminal, Usage, Written, cgroup, label,
};

pub const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// Bound of one ordinary call; pulls, logs and events are streams and bound by their silence.
const CALL_SECONDS_MAX: u64 = 120;
/// Docker rotates a container's log at this size and keeps this many files.
const LOG_SIZE_MAX: &str = "10m";
const LOG_FILES_MAX: &str = "2";
/// Events of this long ago are told again to a new listener.
const EVENTS_OVERLAP_SECONDS: i64 = 2;
/// What is read of a program's output at a time.
const OUTPUT_BUFFER_BYTES: usize = 32 * 1024;
/// How often it is looked whether a command has ended whose streams have.
const EXEC_LOOK_MIN: Duration = Duration::from_millis(10);
const EXEC_LOOK_MAX: Duration = Duration::from_millis(500);
/// How long a command may take to start that is to be ended.
const EXEC_START_LIMIT: Duration = Duration::from_secs(30);

pub struct Docker {
    host: String,
    cluster_id: String,
    node_uid: String,
    client: OnceCell<Client>,
    looks: Arc<Looks>,
}

impl Docker {
    /// Connects at the first call, so that an engine that is down now may come up later.
    pub fn new(host: &str, cluster_id: &str, node_uid: &str) -> Docker {
        let host = if host.is_empty() { DEFAULT_HOST } else { host };
        Docker {
            host: host.to_owned(),
            cluster_id: cluster_id.to_owned(),
            node_uid: node_uid.to_owned(),
            client: OnceCell::new(),
            looks: Arc::default(),
        }
    }

    async fn client(&self) -> Result<&Client> {
        self.client
            .get_or_try_init(|| async {
                if !self.host.starts_with("unix://") && !self.host.starts_with('/') {
                    return Err(Error::Refused(format!(
                        "the Docker host {:?} is not a local socket: give one like {DEFAULT_HOST}",
                        self.host
                    )));
                }
                let client = Client::connect_with_unix(&self.host, CALL_SECONDS_MAX, API_DEFAULT_VERSION)
                    .map_err(|e| self.down(&e))?;
                client.negotiate_version().await.map_err(|e| self.error(e))
            })
            .await
    }

    fn down(&self, cause: &dyn std::fmt::Display) -> Error {
        down(&self.host, cause)
    }

    fn error(&self, error: bollard::errors::Error) -> Error {
        told(&self.host, error)
    }

    fn own_filter(&self, more: Option<(&str, &str)>) -> HashMap<String, Vec<String>> {
        let mut labels =
            vec![format!("{}={}", label::CLUSTER, self.cluster_id), format!("{}={}", label::NODE, self.node_uid)];
        if let Some((name, value)) = more {
            labels.push(format!("{name}={value}"));
        }
        HashMap::from([("label".to_owned(), labels)])
    }

    /// What the engine says that a container uses; `None` when it does not run.
    async fn stats(&self, id: &str) -> Result<Option<Usage>> {
        let options = query::StatsOptionsBuilder::default().stream(false).one_shot(true).build();
        let client = self.client().await?;
        let answer = match client.stats(id, Some(options)).next().await {
            None => return Ok(None),
            Some(Err(bollard::errors::Error::DockerResponseServerError { status_code: 404 | 409, .. })) => {
                return Ok(None);
            }
            Some(answer) => answer.map_err(|e| self.error(e))?,
        };
        let cpu = answer.cpu_stats.and_then(|cpu| cpu.cpu_usage).and_then(|usage| usage.total_usage);
        let memory = answer.memory_stats.unwrap_or_default();
        let kept = memory.stats.unwrap_or_default();
        // The names in both versions of control groups.
        let idle = ["total_inactive_file", "inactive_file"].iter().find_map(|name| kept.get(*name)).copied();
        Ok(cpu.zip(memory.usage).map(|(cpu, memory)| Usage {
            cpu: Duration::from_nanos(cpu),
            memory_bytes: memory.saturating_sub(idle.unwrap_or(0)),
        }))
    }

    fn own_labels(&self) -> HashMap<String, String> {
        HashMap::from([
            (label::CLUSTER.to_owned(), self.cluster_id.clone()),
            (label::NODE.to_owned(), self.node_uid.clone()),
        ])
    }
}

fn down(host: &str, cause: &dyn std::fmt::Display) -> Error {
    Error::Down(format!(
        "no Docker Engine answers at {host} ({cause}): install Docker (apt-get install docker.io) or start it (systemctl start docker), or name its socket with --docker-host"
    ))
}

fn told(host: &str, error: bollard::errors::Error) -> Error {
    use bollard::errors::Error as E;
    match error {
        E::DockerResponseServerError { status_code, message } => match status_code {
            404 => Error::NotFound(message),
            409 => Error::Conflict(message),
            _ => Error::Refused(message),
        },
        E::DockerStreamError { error } => Error::Refused(error),
        E::RequestTimeoutError => Error::Down(format!("Docker Engine did not answer within {CALL_SECONDS_MAX} s")),
        E::JsonDataError { .. } | E::JsonSerdeError { .. } => Error::Refused(error.to_string()),
        other => down(host, &other),
    }
}

/// A program's output as the engine sends it.
fn written(
    host: String,
    output: impl Stream<Item = std::result::Result<LogOutput, bollard::errors::Error>> + Send + 'static,
) -> BoxStream<'static, Result<Written>> {
    let written = output.map(move |part| match part {
        Ok(LogOutput::StdErr { message }) => Ok(Written::Stderr(message)),
        Ok(LogOutput::StdOut { message } | LogOutput::Console { message } | LogOutput::StdIn { message }) => {
            Ok(Written::Stdout(message))
        }
        Err(error) => Err(told(&host, error)),
    });
    written.boxed()
}

fn timestamp(text: Option<&str>) -> Option<Timestamp> {
    let at: Timestamp = text?.parse().ok()?;
    // Docker writes the year 1 for "never".
    (at.as_second() > 0).then_some(at)
}

fn observed(inspect: ContainerInspectResponse) -> Container {
    let state = inspect.state.unwrap_or_default();
    let config = inspect.config.unwrap_or_default();
    let error = state.error.unwrap_or_default();
    let status = match state.status {
        Some(
            ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::PAUSED | ContainerStateStatusEnum::RESTARTING,
        ) => State::Running,
        // A start that failed leaves "created" and an error: it will never run.
        Some(ContainerStateStatusEnum::CREATED) if error.is_empty() => State::Created,
        _ => State::Exited,
    };
    Container {
        id: inspect.id.unwrap_or_default(),
        name: inspect.name.unwrap_or_default().trim_start_matches('/').to_owned(),
        labels: config.labels.unwrap_or_default().into_iter().collect(),
        state: status,
        exit_code: i32::try_from(state.exit_code.unwrap_or_default()).unwrap_or(255),
        oom_killed: state.oom_killed.unwrap_or_default(),
        error,
        created: timestamp(inspect.created.as_deref()).unwrap_or(Timestamp::UNIX_EPOCH),
        started: timestamp(state.started_at.as_deref()),
        finished: timestamp(state.finished_at.as_deref()),
        image: config.image.unwrap_or_default(),
        image_id: inspect.image.unwrap_or_default(),
        stop_signal: config.stop_signal.unwrap_or_default(),
    }
}

fn mount(mount: &super::Mount) -> DockerMount {
    DockerMount {
        target: Some(mount.target.clone()),
        source: Some(mount.source.clone()),
        typ: Some(MountType::BIND),
        read_only: Some(mount.read_only),
        bind_options: mount.propagation.as_deref().map(|mode| MountBindOptions {
            propagation: Some(match mode {
                "rshared" => MountBindOptionsPropagationEnum::RSHARED,
                "rslave" => MountBindOptionsPropagationEnum::RSLAVE,
                _ => MountBindOptionsPropagationEnum::RPRIVATE,
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn list(values: &[String]) -> Option<Vec<String>> {
    (!values.is_empty()).then(|| values.to_vec())
}

fn body(spec: &Spec) -> ContainerCreateBody {
    let sandbox = !matches!(spec.network, Network::Of(_));
    let (network_mode, ipc_mode, endpoints) = match &spec.network {
        Network::Bridge { name, address } => (
            name.clone(),
            "shareable".to_owned(),
            Some(HashMap::from([(
                name.clone(),
                EndpointSettings {
                    ipam_config: Some(EndpointIpamConfig {
                        ipv4_address: Some(address.to_string()),
                        ..Default::default()
                    }),
                    ..Default::default()
                },
            )])),
        ),
        Network::Host => ("host".to_owned(), "shareable".to_owned(), None),
        Network::Of(id) => (format!("container:{id}"), format!("container:{id}"), None),
    };
    let ports: BTreeMap<String, &super::Port> =
        spec.ports.iter().map(|p| (format!("{}/{}", p.container, p.protocol), p)).collect();
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for port in &spec.ports {
        bindings
            .entry(format!("{}/{}", port.container, port.protocol))
            .or_insert_with(|| Some(Vec::new()))
            .get_or_insert_with(Vec::new)
            .push(PortBinding { host_ip: Some(port.host_ip.clone()), host_port: Some(port.host.to_string()) });
    }
    ContainerCreateBody {
        hostname: (sandbox && !spec.hostname.is_empty()).then(|| spec.hostname.clone()),
        image: Some(spec.image.clone()),
        labels: Some(spec.labels.clone().into_iter().collect()),
        entrypoint: spec.entrypoint.clone(),
        cmd: spec.args.clone(),
        env: Some(spec.env.clone()),
        working_dir: spec.working_dir.clone(),
        user: spec.user.clone(),
        tty: Some(spec.tty),
        open_stdin: Some(spec.stdin),
        stdin_once: Some(spec.stdin_once),
        exposed_ports: (!ports.is_empty()).then(|| ports.into_keys().collect()),
        host_config: Some(HostConfig {
            network_mode: Some(network_mode),
            ipc_mode: Some(ipc_mode),
            port_bindings: (!bindings.is_empty()).then_some(bindings),
            mounts: (!spec.mounts.is_empty()).then(|| spec.mounts.iter().map(mount).collect()),
            cpu_shares: spec.cpu_shares,
            cpu_period: spec.cpu_quota.map(|_| 100_000),
            cpu_quota: spec.cpu_quota,
            memory: spec.memory,
            memory_swap: spec.memory,
            oom_score_adj: spec.oom_score_adj,
            privileged: Some(spec.privileged),
            readonly_rootfs: Some(spec.read_only_root),
            security_opt: spec.no_new_privileges.then(|| vec!["no-new-privileges".to_owned()]),
            cap_add: list(&spec.cap_add),
            cap_drop: list(&spec.cap_drop),
            group_add: list(&spec.groups),
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".to_owned()),
                config: Some(HashMap::from([
                    ("max-size".to_owned(), LOG_SIZE_MAX.to_owned()),
                    ("max-file".to_owned(), LOG_FILES_MAX.to_owned()),
                ])),
            }),
            ..Default::default()
        }),
        networking_config: endpoints.map(|endpoints| NetworkingConfig { endpoints_config: Some(endpoints) }),
        ..Default::default()
    }
}

impl Docker {
    async fn make_bridge(&self, client: &Client, bridge: &Bridge) -> Result<()> {
        match client.inspect_network(&bridge.name, None).await.map_err(|e| self.error(e)) {
            Ok(present) => {
                let labels = present.labels.clone().unwrap_or_default();
                if self.own_labels().iter().any(|(name, value)| labels.get(name) != Some(value)) {
                    return Err(Error::Conflict(format!(
                        "the Docker network {} exists and belongs to something else: remove it (docker network rm {})",
                        bridge.name, bridge.name
                    )));
                }
                let config = present.ipam.and_then(|ipam| ipam.config).and_then(|all| all.into_iter().next());
                if config.and_then(|config| config.subnet).as_deref() == Some(&bridge.subnet.to_string()) {
                    return Ok(());
                }
                client.remove_network(&bridge.name).await.map_err(|e| self.error(e))?;
            }
            Err(Error::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
        network::check_overlap(&self.cluster_id, bridge.subnet).map_err(Error::Refused)?;
        let config = IpamConfig {
            subnet: Some(bridge.subnet.to_string()),
            gateway: Some(bridge.gateway.to_string()),
            ..Default::default()
        };
        let interface = ("com.docker.network.bridge.name".to_owned(), bridge.interface.clone());
        let request = NetworkCreateRequest {
            name: bridge.name.clone(),
            driver: Some("bridge".to_owned()),
            ipam: Some(Ipam { config: Some(vec![config]), ..Default::default() }),
            options: Some(HashMap::from([interface])),
            labels: Some(self.own_labels()),
            ..Default::default()
        };
        match client.create_network(request).await.map_err(|e| self.error(e)) {
            Ok(_) => Ok(()),
            Err(Error::Refused(message)) if message.contains("overlap") => Err(Error::Refused(format!(
                "the pod network {} overlaps with another network of this Docker Engine ({message}): remove that network, or create the cluster with another --cluster-cidr",
                bridge.subnet
            ))),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl Runtime for Docker {
    async fn info(&self) -> Result<Info> {
        let client = self.client().await?;
        let info = client.info().await.map_err(|e| self.error(e))?;
        Ok(Info {
            version: info.server_version.unwrap_or_default(),
            api_version: client.client_version().to_string(),
            os_image: info.operating_system.unwrap_or_default(),
            kernel: info.kernel_version.unwrap_or_default(),
            root_dir: info.docker_root_dir.unwrap_or_default(),
        })
    }

    async fn ping(&self) -> Result<()> {
        self.client().await?.ping().await.map(drop).map_err(|e| self.error(e))
    }

    async fn list(&self, pod_uid: Option<&str>) -> Result<Vec<Container>> {
        let client = self.client().await?;
        let options = query::ListContainersOptions {
            all: true,
            filters: Some(self.own_filter(pod_uid.map(|uid| (label::POD_UID, uid)))),
            ..Default::default()
        };
        let summaries = client.list_containers(Some(options)).await.map_err(|e| self.error(e))?;
        let mut containers = Vec::with_capacity(summaries.len());
        if pod_uid.is_none() {
            let ids: Vec<String> = summaries.iter().filter_map(|summary| summary.id.clone()).collect();
            self.looks.retain(&ids);
        }
        for summary in summaries {
            let Some(id) = summary.id else { continue };
            let state = summary.state.map(|state| state.to_string()).unwrap_or_default();
            if let Some(seen) = self.looks.recall(&id, &state) {
                containers.push(seen);
                continue;
            }
            let begun = self.looks.begin();
            match client.inspect_container(&id, None).await {
                Ok(inspect) => {
                    let container = observed(inspect);
                    self.looks.remember(begun, &state, &container);
                    containers.push(container);
                }
                Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => {}
                Err(error) => return Err(self.error(error)),
            }
        }
        Ok(containers)
    }

    async fn create(&self, spec: &Spec) -> Result<String> {
        let client = self.client().await?;
        let mut spec = spec.clone();
        spec.labels.insert(label::CLUSTER.to_owned(), self.cluster_id.clone());
        spec.labels.insert(label::NODE.to_owned(), self.node_uid.clone());
        let options = query::CreateContainerOptions { name: Some(spec.name.clone()), ..Default::default() };
        let made = client.create_container(Some(options), body(&spec)).await.map_err(|e| self.error(e))?;
        Ok(made.id)
    }

    async fn start(&self, id: &str) -> Result<()> {
        let client = self.client().await?;
        let started = client.start_container(id, None).await.map_err(|e| self.error(e));
        // No event tells of a start that failed.
        self.looks.forget(id);
        started
    }

    async fn signal(&self, id: &str, signal: &str) -> Result<()> {
        let client = self.client().await?;
        let options = query::KillContainerOptions { signal: signal.to_owned() };
        match client.kill_container(id, Some(options)).await.map_err(|e| self.error(e)) {
            // Gone, or not running.
            Err(Error::NotFound(_) | Error::Conflict(_)) => Ok(()),
            other => other,
        }
    }

    async fn remove(&self, id: &str) -> Result<()> {
        let client = self.client().await?;
        let options = query::RemoveContainerOptions { v: true, force: true, ..Default::default() };
        match client.remove_container(id, Some(options)).await.map_err(|e| self.error(e)) {
            // Gone, or being removed by another call: the next look shows.
            Err(Error::NotFound(_) | Error::Conflict(_)) => Ok(()),
            other => other,
        }
    }

    async fn usage(&self, ids: &[String]) -> Result<BTreeMap<String, Usage>> {
        let wanted = ids.to_vec();
        let read = blocking::call(move || {
            wanted.into_iter().filter_map(|id| cgroup::usage(&id).map(|used| (id, used))).collect::<BTreeMap<_, _>>()
        });
        let mut found = read.await.unwrap_or_default();
        // Where this process does not see the containers' groups, as inside a container, the engine reads them.
        for id in ids.iter().filter(|id| !found.contains_key(*id)).cloned().collect::<Vec<_>>() {
            if let Some(used) = self.stats(&id).await? {
                found.insert(id, used);
            }
        }
        Ok(found)
    }

    async fn image(&self, name: &str) -> Result<Option<Image>> {
        let client = self.client().await?;
        match client.inspect_image(name).await.map_err(|e| self.error(e)) {
            Ok(image) => Ok(Some(Image {
                id: image.id.unwrap_or_default(),
                digest: image.repo_digests.and_then(|digests| digests.into_iter().next()),
                size: image.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
                user: image.config.and_then(|config| config.user).unwrap_or_default(),
            })),
            Err(Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn pull(&self, name: &str, credentials: Option<Credentials>) -> Result<()> {
        let client = self.client().await?;
        // A digest or tag in the name goes through; without either Docker would pull every tag.
        let tagged = name.contains('@') || name.rsplit('/').next().is_some_and(|last| last.contains(':'));
        let options = query::CreateImageOptions {
            from_image: Some(name.to_owned()),
            tag: (!tagged).then(|| "latest".to_owned()),
            ..Default::default()
        };
        let credentials = credentials.map(|c| bollard::auth::DockerCredentials {
            username: Some(c.username),
            password: Some(c.password),
            serveraddress: Some(c.server),
            ..Default::default()
        });
        let mut progress = Box::pin(client.create_image(Some(options), None, credentials));
        while let Some(step) = progress.next().await {
            step.map_err(|e| self.error(e))?;
        }
        Ok(())
    }

    async fn load(&self, tar: Bytes) -> Result<()> {
        let client = self.client().await?;
        let options = query::ImportImageOptions { quiet: true, ..Default::default() };
        let mut progress = Box::pin(client.import_image(options, bollard::body_full(tar), None));
        while let Some(step) = progress.next().await {
            step.map_err(|e| self.error(e))?;
        }
        Ok(())
    }

    async fn exec(&self, id: &str, command: &[String], timeout: Duration) -> Result<Exec> {
        let client = self.client().await?;
        let options = CreateExecOptions {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(command.to_vec()),
            ..Default::default()
        };
        let made = client.create_exec(id, options).await.map_err(|e| self.error(e))?;
        let run = async {
            let mut text = Vec::new();
            match client.start_exec(&made.id, None::<StartExecOptions>).await.map_err(|e| self.error(e))? {
                StartExecResults::Attached { mut output, .. } => {
                    while let Some(part) = output.next().await {
                        let part = part.map_err(|e| self.error(e))?.into_bytes();
                        let room = EXEC_OUTPUT_MAX.saturating_sub(text.len());
                        text.extend_from_slice(&part[..part.len().min(room)]);
                    }
                }
                StartExecResults::Detached => {}
            }
            let inspect = client.inspect_exec(&made.id).await.map_err(|e| self.error(e))?;
            Ok(Exec { code: inspect.exit_code.unwrap_or(-1), output: String::from_utf8_lossy(&text).into_owned() })
        };
        match tokio::time::timeout(timeout, run).await {
            Ok(result) => result,
            Err(_) => {
                // It would run on, and the next one beside it.
                let pid = client.inspect_exec(&made.id).await.ok().filter(|exec| exec.running == Some(true));
                if let Some(pid) = pid.and_then(|exec| exec.pid).and_then(|pid| i32::try_from(pid).ok()) {
                    let container = id.to_owned();
                    let killed = tokio::task::spawn_blocking(move || kill_tree(pid, &container)).await;
                    tracing::debug!(id, ?killed, "a command that timed out was ended");
                }
                Err(Error::Refused(format!("command timed out after {} s", timeout.as_secs())))
            }
        }
    }

    async fn create_exec(&self, id: &str, command: &[String], stdio: Stdio) -> Result<String> {
        let client = self.client().await?;
        let options = CreateExecOptions {
            attach_stdin: Some(stdio.stdin),
            attach_stdout: Some(stdio.stdout),
            attach_stderr: Some(stdio.stderr),
            tty: Some(stdio.tty),
            cmd: Some(command.to_vec()),
            ..Default::default()
        };
        client.create_exec(id, options).await.map(|made| made.id).map_err(|e| self.error(e))
    }

    async fn start_exec(&self, exec: &str, stdio: Stdio) -> Result<Attached> {
        let client = self.client().await?;
        let options =
            StartExecOptions { tty: stdio.tty, output_capacity: Some(OUTPUT_BUFFER_BYTES), ..Default::default() };
        match client.start_exec(exec, Some(options)).await.map_err(|e| self.error(e))? {
            StartExecResults::Attached { output, input } => {
                Ok(Attached { input, output: written(self.host.clone(), output) })
            }
            StartExecResults::Detached => Err(Error::Refused("the engine detached from the command".to_owned())),
        }
    }

    async fn wait_exec(&self, exec: &str) -> Result<i32> {
        let client = self.client().await?;
        let mut pause = EXEC_LOOK_MIN;
        // The engine tells of no end, and a program may close its streams long before it.
        loop {
            let seen = client.inspect_exec(exec).await.map_err(|e| self.error(e))?;
            if seen.running != Some(true)
                && let Some(code) = seen.exit_code
            {
                return Ok(i32::try_from(code).unwrap_or(255));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(EXEC_LOOK_MAX);
        }
    }

    async fn end_exec(&self, id: &str, exec: &str) -> Result<()> {
        let client = self.client().await?;
        let mut pause = EXEC_LOOK_MIN;
        let looking = async {
            loop {
                let seen = client.inspect_exec(exec).await.map_err(|e| self.error(e))?;
                let running = seen.running == Some(true);
                let pid = seen.pid.filter(|pid| running && *pid > 0).and_then(|pid| i32::try_from(pid).ok());
                if pid.is_some() || (!running && seen.exit_code.is_some()) {
                    return Ok::<_, Error>(pid);
                }
                // The engine hands out the streams before the program runs.
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(EXEC_LOOK_MAX);
            }
        };
        let pid = match tokio::time::timeout(EXEC_START_LIMIT, looking).await {
            Ok(Ok(pid)) => pid,
            // Its container is gone, and it with it.
            Ok(Err(Error::NotFound(_))) => None,
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(Error::Refused("the command neither starts nor ends".to_owned())),
        };
        if let Some(pid) = pid {
            let container = id.to_owned();
            let killed = tokio::task::spawn_blocking(move || kill_tree(pid, &container)).await;
            tracing::debug!(id, ?killed, "a command whose client is gone was ended");
        }
        Ok(())
    }

    async fn attach(&self, id: &str, stdio: Stdio) -> Result<Attached> {
        let client = self.client().await?;
        let options = query::AttachContainerOptions {
            stream: true,
            stdin: stdio.stdin,
            stdout: stdio.stdout,
            stderr: stdio.stderr,
            ..Default::default()
        };
        let attached = client.attach_container(id, Some(options)).await.map_err(|e| self.error(e))?;
        Ok(Attached { input: attached.input, output: written(self.host.clone(), attached.output) })
    }

    async fn resize(&self, terminal: Terminal<'_>, width: u16, height: u16) -> Result<()> {
        let client = self.client().await?;
        let (w, h) = (i32::from(width), i32::from(height));
        match terminal {
            Terminal::Container(id) => client.resize_container_tty(id, query::ResizeContainerTTYOptions { w, h }).await,
            Terminal::Exec(id) => client.resize_exec(id, ResizeExecOptions { width, height }).await,
        }
        .map_err(|e| self.error(e))
    }

    async fn connect(&self, sandbox: &Container, port: u16) -> Result<Box<dyn Pipe>> {
        let client = self.client().await?;
        let seen = client.inspect_container(&sandbox.id, None).await.map_err(|e| self.error(e))?;
        let pid = seen.state.and_then(|state| state.pid).and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0);
        let refused = |error: std::io::Error| Error::Refused(format!("connecting to port {port}: {error}"));
        if is_of(pid, &sandbox.id) {
            match netns::connect(pid, port).await {
                Ok(stream) => return Ok(Box::new(stream)),
                Err(netns::Error::Connect(error)) => return Err(refused(error)),
                Err(netns::Error::Enter(error)) => tracing::debug!(%error, "cannot enter a pod's network"),
            }
        }
        // Without the right to enter it, what listens on the pod's address can still be reached.
        let address = match sandbox.label(label::ADDRESS) {
            "" => "127.0.0.1",
            address => address,
        };
        let connected = tokio::time::timeout(netns::CONNECT_LIMIT, TcpStream::connect((address, port))).await;
        let stream = connected.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())).map_err(refused)?;
        Ok(Box::new(stream))
    }

    async fn logs(&self, id: &str, query: &LogQuery) -> Result<BoxStream<'static, Result<Bytes>>> {
        let client = self.client().await?.clone();
        let options = query::LogsOptions {
            follow: query.follow,
            stdout: true,
            stderr: true,
            since: i32::try_from(query.since).unwrap_or(i32::MAX),
            timestamps: query.timestamps,
            tail: query.tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string()),
            ..Default::default()
        };
        let host = self.host.clone();
        let stream = client.logs(id, Some(options)).map(move |part| match part {
            Ok(
                LogOutput::StdOut { message }
                | LogOutput::StdErr { message }
                | LogOutput::Console { message }
                | LogOutput::StdIn { message },
            ) => Ok(message),
            Err(error) => Err(told(&host, error)),
        });
        Ok(stream.boxed())
    }

    async fn events(&self) -> Result<BoxStream<'static, Event>> {
        let client = self.client().await?;
        // The stream connects when it is first read, and says nothing until something happens: ask whether anybody is there, and
        // have the engine repeat what happens in between.
        let since = Timestamp::now().as_second() - EVENTS_OVERLAP_SECONDS;
        client.ping().await.map_err(|e| self.error(e))?;
        let mut filters = self.own_filter(None);
        filters.insert("type".to_owned(), vec!["container".to_owned()]);
        filters.insert("event".to_owned(), ["start", "die", "oom", "destroy"].map(str::to_owned).to_vec());
        let options =
            query::EventsOptions { since: Some(since.to_string()), filters: Some(filters), ..Default::default() };
        let listening = self.looks.listen();
        let looks = self.looks.clone();
        let told = move |event: bollard::models::EventMessage| {
            // Held for as long as the stream is.
            let _ = &listening;
            let mut actor = event.actor?;
            looks.forget(actor.id.as_deref().unwrap_or_default());
            let pod_uid = actor.attributes.as_mut()?.remove(label::POD_UID)?;
            Some(Event { pod_uid, action: event.action.unwrap_or_default() })
        };
        let stream = client
            .events(Some(options))
            .take_while(|event| futures::future::ready(event.is_ok()))
            .filter_map(move |event| futures::future::ready(event.ok().and_then(&told)));
        Ok(stream.boxed())
    }

    async fn ensure_bridge(&self, bridge: &Bridge) -> Result<()> {
        self.make_bridge(self.client().await?, bridge).await?;
        if let Err(error) = network::open(&self.cluster_id).await {
            // Pods of this node work all the same.
            tracing::warn!(%error, "pods of other nodes on this engine cannot be reached");
        }
        Ok(())
    }

    async fn free_address(&self, bridge: &str, address: Ipv4Addr) -> Result<bool> {
        let client = self.client().await?;
        let network = client.inspect_network(bridge, None).await.map_err(|e| self.error(e))?;
        let holds = |endpoint: &bollard::models::EndpointResource| {
            let held = endpoint.ipv4_address.as_deref().and_then(|text| text.split('/').next());
            held == Some(&address.to_string())
        };
        let mut freed = false;
        for (id, endpoint) in network.containers.unwrap_or_default() {
            if !holds(&endpoint) {
                continue;
            }
            // An endpoint whose container is unknown has a made up id; both names are tried.
            let alive = match client.inspect_container(&id, None).await.map_err(|e| self.error(e)) {
                Ok(inspect) => inspect.state.and_then(|state| state.running).unwrap_or_default(),
                Err(Error::NotFound(_)) => false,
                Err(error) => return Err(error),
            };
            if alive {
                return Ok(false);
            }
            for container in [Some(id), endpoint.name].into_iter().flatten() {
                let request = NetworkDisconnectRequest { container, force: Some(true) };
                match client.disconnect_network(bridge, request).await.map_err(|e| self.error(e)) {
                    Ok(()) => {
                        freed = true;
                        break;
                    }
                    Err(Error::NotFound(_) | Error::Refused(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(freed)
    }

    async fn remove_networks(&self) -> Result<()> {
        let client = self.client().await?;
        let options = query::ListNetworksOptions { filters: Some(self.own_filter(None)) };
        for network in client.list_networks(Some(options)).await.map_err(|e| self.error(e))? {
            let id = network.id.unwrap_or_default();
            match client.remove_network(&id).await.map_err(|e| self.error(e)) {
                Ok(()) | Err(Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let cluster = vec![format!("{}={}", label::CLUSTER, self.cluster_id)];
        let options = query::ListNetworksOptions { filters: Some(HashMap::from([("label".to_owned(), cluster)])) };
        let others = client.list_networks(Some(options)).await.map_err(|e| self.error(e))?;
        if others.is_empty()
            && let Err(error) = network::close(&self.cluster_id).await
        {
            tracing::warn!(%error, "the firewall rule of this cluster stays");
        }
        Ok(())
    }
}
