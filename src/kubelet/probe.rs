//! Readiness, liveness and startup probes: one task per probe of a running container; verdicts go to the pod's worker.
//!
//! Not here: what a verdict leads to (`plan`, `status`). `Tracker` is the pure part: thresholds.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_util::task::AbortOnDropHandle;

use crate::runtime::Runtime;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Startup,
    Readiness,
    Liveness,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Readiness => "Readiness",
            Kind::Liveness => "Liveness",
        }
    }
}

/// What a probe's task tells the worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub container_id: String,
    pub container: String,
    pub kind: Kind,
    /// The new verdict; absent when a single failure has not changed it.
    pub verdict: Option<bool>,
    /// What a failed probe said.
    pub failure: Option<String>,
}

/// Longer than any sensible probe's timeout.
const TLS_MAX: Duration = Duration::from_secs(300);

/// Turns single results into verdicts.
#[derive(Debug, Clone)]
pub struct Tracker {
    success_threshold: u32,
    failure_threshold: u32,
    streak: u32,
    last: Option<bool>,
    verdict: Option<bool>,
}

impl Tracker {
    pub fn new(success_threshold: u32, failure_threshold: u32) -> Tracker {
        Tracker {
            success_threshold: success_threshold.max(1),
            failure_threshold: failure_threshold.max(1),
            streak: 0,
            last: None,
            verdict: None,
        }
    }

    /// Counts one result; returns the verdict when it is a new one.
    pub fn observe(&mut self, success: bool) -> Option<bool> {
        self.streak = if self.last == Some(success) { self.streak.saturating_add(1) } else { 1 };
        self.last = Some(success);
        let enough = if success { self.success_threshold } else { self.failure_threshold };
        if self.streak < enough || self.verdict == Some(success) {
            return None;
        }
        self.verdict = Some(success);
        Some(success)
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Check {
    Exec(Vec<String>),
    Tcp { host: String, port: u16 },
    Http { host: String, port: u16, path: String, headers: Vec<(String, String)>, tls: bool },
    Unsupported(String),
}

fn port_of(container: &core::Container, port: &IntOrString) -> Option<u16> {
    match port {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name));
            named.and_then(|p| u16::try_from(p.container_port).ok()).or_else(|| name.parse().ok())
        }
    }
}

fn check_of(container: &core::Container, probe: &core::Probe, pod_ip: &str) -> Check {
    if let Some(exec) = &probe.exec {
        return Check::Exec(exec.command.clone().unwrap_or_default());
    }
    let host =
        |stated: &Option<String>| stated.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| pod_ip.to_owned());
    if let Some(tcp) = &probe.tcp_socket {
        return match port_of(container, &tcp.port) {
            Some(port) => Check::Tcp { host: host(&tcp.host), port },
            None => Check::Unsupported(format!("no port {:?}", tcp.port)),
        };
    }
    if let Some(get) = &probe.http_get {
        let Some(port) = port_of(container, &get.port) else {
            return Check::Unsupported(format!("no port {:?}", get.port));
        };
        let path = get.path.clone().filter(|path| !path.is_empty()).unwrap_or_else(|| "/".to_owned());
        return Check::Http {
            host: host(&get.host),
            port,
            path: if path.starts_with('/') { path } else { format!("/{path}") },
            headers: get.http_headers.iter().flatten().map(|h| (h.name.clone(), h.value.clone())).collect(),
            tls: get.scheme.as_deref() == Some("HTTPS"),
        };
    }
    Check::Unsupported("the probe has no action this node knows".to_owned())
}

/// One container's running probes; dropping it ends them.
#[derive(Debug)]
pub struct Running(AbortHandle);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn positive(value: Option<i32>, default: u32) -> u32 {
    value.and_then(|value| u32::try_from(value).ok()).filter(|value| *value > 0).unwrap_or(default)
}

/// The container that is probed.
pub struct Target<'a> {
    pub spec: &'a core::Container,
    pub id: &'a str,
    pub pod_ip: &'a str,
    /// How long it runs already.
    pub since_start: Duration,
}

/// Starts one probe of a running container.
pub fn start(
    runtime: Arc<dyn Runtime>,
    kind: Kind,
    probe: &core::Probe,
    target: &Target<'_>,
    reports: mpsc::Sender<Report>,
) -> Running {
    let (container, container_id) = (target.spec, target.id);
    let check = check_of(container, probe, target.pod_ip);
    let success_threshold = if kind == Kind::Readiness { positive(probe.success_threshold, 1) } else { 1 };
    let mut tracker = Tracker::new(success_threshold, positive(probe.failure_threshold, 3));
    let period = Duration::from_secs(u64::from(positive(probe.period_seconds, 10)));
    let timeout = Duration::from_secs(u64::from(positive(probe.timeout_seconds, 1)));
    let delay =
        Duration::from_secs(u64::from(positive(probe.initial_delay_seconds, 0))).saturating_sub(target.since_start);
    let (container, container_id) = (container.name.clone(), container_id.to_owned());
    let task = tokio::spawn(async move {
        tokio::time::sleep(delay).await;
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let result = run(runtime.as_ref(), &check, &container_id, timeout).await;
            if result.is_err() {
                metrics::counter!("hactl_kubelet_probe_failures_total", "kind" => kind.name()).increment(1);
            }
            let verdict = tracker.observe(result.is_ok());
            if verdict.is_none() && result.is_ok() {
                continue;
            }
            let report = Report {
                container_id: container_id.clone(),
                container: container.clone(),
                kind,
                verdict,
                failure: result.err(),
            };
            if reports.send(report).await.is_err() || (kind == Kind::Startup && verdict.is_some()) {
                return;
            }
        }
    });
    Running(task.abort_handle())
}

async fn run(runtime: &dyn Runtime, check: &Check, container_id: &str, timeout: Duration) -> Result<(), String> {
    match check {
        Check::Exec(command) => match runtime.exec(container_id, command, timeout).await {
            Ok(exec) if exec.code == 0 => Ok(()),
            Ok(exec) => Err(exec.output),
            Err(error) => Err(error.to_string()),
        },
        Check::Tcp { host, port } => {
            match tokio::time::timeout(timeout, TcpStream::connect((host.as_str(), *port))).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(format!("dial tcp {host}:{port}: {error}")),
                Err(_) => Err(format!("dial tcp {host}:{port}: i/o timeout")),
            }
        }
        Check::Http { host, port, path, headers, tls } => {
            let scheme = if *tls { "https" } else { "http" };
            match tokio::time::timeout(timeout, get(host, *port, path, headers, *tls)).await {
                Ok(Ok(code)) if (200..400).contains(&code) => Ok(()),
                Ok(Ok(code)) => Err(format!("HTTP probe failed with statuscode: {code}")),
                Ok(Err(error)) => Err(format!("Get \"{scheme}://{host}:{port}{path}\": {error}")),
                Err(_) => Err(format!("Get \"{scheme}://{host}:{port}{path}\": context deadline exceeded")),
            }
        }
        Check::Unsupported(why) => Err(why.clone()),
    }
}

async fn get(host: &str, port: u16, path: &str, headers: &[(String, String)], tls: bool) -> Result<u16, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let dialled = |error: &dyn std::fmt::Display| format!("dial tcp {host}:{port}: {error}");
    if tls {
        let config = rpc::tls::probe_client().map_err(|e| text(&e))?;
        let tcp: Arc<dyn rpc::transport::Transport> = Arc::new(rpc::transport::Tcp);
        let address = format!("{host}:{port}");
        // The caller's timeout is shorter.
        let stream = rpc::transport::connect_tls(&tcp, &address, host, config, TLS_MAX).await;
        return ask(stream.map_err(|e| dialled(&e))?, host, port, path, headers).await;
    }
    let stream = TcpStream::connect((host, port)).await;
    ask(stream.map_err(|e| dialled(&e))?, host, port, path, headers).await
}

async fn ask<S>(stream: S, host: &str, port: u16, path: &str, headers: &[(String, String)]) -> Result<u16, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| text(&e))?;
    // How the connection ends is told to the request as well.
    let _driver = AbortOnDropHandle::new(tokio::spawn(async move { drop(connection.await) }));
    let mut request = hyper::Request::get(path).header("User-Agent", "kube-probe/1.36").header("Accept", "*/*");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request = request.header("Host", format!("{host}:{port}"));
    }
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|e| text(&e))?;
    let response = sender.send_request(request).await.map_err(|e| text(&e))?;
    let code = response.status().as_u16();
    // Read to the end, within bounds, so that the server sees an ordinary client; what it says does not matter.
    let _ = Limited::new(response.into_body(), 10 * 1024).collect().await;
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(success: u32, failure: u32, results: &str, expect: &[Option<bool>]) {
        let mut tracker = Tracker::new(success, failure);
        let got: Vec<_> = results.chars().map(|c| tracker.observe(c == '+')).collect();
        assert_eq!(got, expect, "{results}");
    }

    #[test]
    fn thresholds() {
        const UP: Option<bool> = Some(true);
        const DOWN: Option<bool> = Some(false);
        check(1, 3, "+---", &[UP, None, None, DOWN]);
        check(1, 3, "--+--+", &[None, None, UP, None, None, None]);
        check(2, 1, "++-+-++", &[None, UP, DOWN, None, None, None, UP]);
        check(1, 1, "--", &[DOWN, None]);
        check(0, 0, "+", &[UP]);
    }

    #[test]
    fn ports_by_name_and_number() {
        let container: core::Container =
            serde_json::from_value(serde_json::json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}))
                .expect("a container");
        for (port, expect) in [
            (IntOrString::Int(80), Some(80)),
            (IntOrString::Int(70_000), None),
            (IntOrString::String("web".into()), Some(8080)),
            (IntOrString::String("9".into()), Some(9)),
            (IntOrString::String("none".into()), None),
        ] {
            assert_eq!(port_of(&container, &port), expect, "{port:?}");
        }
    }

    #[tokio::test]
    async fn http_get_reads_the_status() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let server = tokio::spawn(async move {
            for answer in ["HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"] {
                let (mut client, _) = listener.accept().await.expect("a client");
                let mut request = [0; 512];
                let _ = client.read(&mut request).await;
                client.write_all(answer.as_bytes()).await.expect("an answer");
            }
        });
        assert_eq!(get("127.0.0.1", port, "/", &[], false).await, Ok(204));
        assert_eq!(get("127.0.0.1", port, "/", &[], false).await, Ok(503));
        server.await.expect("the server ends");
        assert!(get("127.0.0.1", port, "/", &[], false).await.is_err());
    }
}
