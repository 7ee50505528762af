//! The forwarder of a local cluster: one port that always reaches a living master, because kubectl knows one server only.
//!
//! It copies bytes and terminates nothing, so TLS stays between client and master. A new connection goes to the master
//! that served last; when that one refuses, to the next. One that says it is not ready, such as one with a full disk, comes
//! after all others. A broken connection is closed towards the client, which connects again and is then served by a living
//! master.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::super::credentials::client_of;
use super::layout::Layout;
use super::ports::Keeper;

/// On loopback a living master accepts at once; only a stopped (not dead) process makes a connect wait.
const CONNECT_WITHIN: Duration = Duration::from_millis(250);
const RELOAD_EVERY: Duration = Duration::from_secs(2);
/// A master that does not say within this whether it is ready counts as ready: connecting finds out more.
const SAYS_WITHIN: Duration = Duration::from_secs(1);
/// Rounds over all masters before a client's connection is given up, and the pause between two rounds.
const ROUNDS_MAX: usize = 20;
const ROUND_PAUSE: Duration = Duration::from_millis(50);

struct Masters {
    ports: std::sync::RwLock<Vec<u16>>,
    /// Of those, whoever said that it is not ready.
    unready: std::sync::RwLock<Vec<u16>>,
    /// The index that served last.
    last: AtomicUsize,
}

/// Runs until `shutdown`.
pub async fn run(dir: PathBuf, shutdown: CancellationToken) -> Result<()> {
    let layout = Layout::load(&dir)?;
    let port = layout.plan.port;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .with_context(|| format!("port {port} is taken; stop what uses it (`ss -ltnp 'sport = :{port}'`)"))?;
    let masters = Arc::new(Masters::new(ports(&layout)));
    let _looks = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(look(layout.clone(), masters.clone())));
    let mut kept = Keeper::default();
    let mut reload = tokio::time::interval(RELOAD_EVERY);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            _ = reload.tick() => refresh(&dir, &masters, &mut kept),
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => { tokio::spawn(serve(client, masters.clone())); }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ROUND_PAUSE).await;
                }
            },
        }
    }
}

fn ports(layout: &Layout) -> Vec<u16> {
    layout.plan.masters.iter().map(|master| master.api).collect()
}

/// Masters added by a later `up` are served as well. A dead one's ports are kept from other clusters on this machine.
fn refresh(dir: &Path, masters: &Masters, kept: &mut Keeper) {
    let Ok(layout) = Layout::load(dir) else { return };
    for master in &layout.plan.masters {
        kept.share(master.api);
        kept.share(master.peer);
    }
    if let Ok(mut known) = masters.ports.write() {
        *known = ports(&layout);
    }
}

impl Masters {
    fn new(ports: Vec<u16>) -> Self {
        Self { ports: std::sync::RwLock::new(ports), unready: Default::default(), last: AtomicUsize::new(0) }
    }

    /// In the order to try them.
    fn order(&self) -> Vec<(usize, u16)> {
        let ports = self.ports.read().map(|ports| ports.clone()).unwrap_or_default();
        let unready = self.unready.read().map(|unready| unready.clone()).unwrap_or_default();
        let first = self.last.load(Ordering::Relaxed);
        let mut order: Vec<(usize, u16)> =
            (0..ports.len()).map(|step| (first + step) % ports.len()).map(|index| (index, ports[index])).collect();
        order.sort_by_key(|(_, port)| unready.contains(port));
        order
    }
}

/// Asks every master again and again whether it is ready, on connections that stay.
async fn look(layout: Layout, masters: Arc<Masters>) {
    let mut clients: BTreeMap<u16, kube::Client> = BTreeMap::new();
    loop {
        tokio::time::sleep(RELOAD_EVERY).await;
        let ports = masters.ports.read().map(|ports| ports.clone()).unwrap_or_default();
        let asked = ports.into_iter().map(|port| {
            let (kubeconfig, known) = (layout.kubeconfig(), clients.remove(&port));
            async move {
                let asked = tokio::time::timeout(SAYS_WITHIN, is_ready(&kubeconfig, port, known));
                asked.await.ok().flatten().map(|(client, ready)| (port, client, ready))
            }
        });
        let said = futures::future::join_all(asked).await.into_iter().flatten();
        let mut unready = Vec::new();
        for (port, client, ready) in said {
            clients.insert(port, client);
            unready.extend((!ready).then_some(port));
        }
        if let Ok(mut known) = masters.unready.write() {
            *known = unready;
        }
    }
}

/// Whether the master behind this port says that it is ready, and the client that asked. Silence says nothing, nor do
/// credentials that have ended.
async fn is_ready(kubeconfig: &Path, port: u16, known: Option<kube::Client>) -> Option<(kube::Client, bool)> {
    let client = match known {
        Some(client) => client,
        None => client_of(kubeconfig, &format!("https://127.0.0.1:{port}"), SAYS_WITHIN).await.ok()?,
    };
    let request = http::Request::get("/readyz").body(Vec::new()).ok()?;
    match client.request_text(request).await {
        Ok(_) => Some((client, true)),
        Err(kube::Error::Api(status)) => Some((client, status.code < 500)),
        Err(_) => None,
    }
}

async fn serve(mut client: TcpStream, masters: Arc<Masters>) {
    let Some(mut master) = connect(&masters).await else {
        tracing::warn!("no master accepts connections");
        return;
    };
    // Neither side's errors matter here: either way both connections end.
    let _ = client.set_nodelay(true);
    let _ = master.set_nodelay(true);
    let _ = tokio::io::copy_bidirectional(&mut client, &mut master).await;
}

async fn connect(masters: &Masters) -> Option<TcpStream> {
    for _ in 0..ROUNDS_MAX {
        for (index, port) in masters.order() {
            let attempt = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
            if let Ok(Ok(stream)) = tokio::time::timeout(CONNECT_WITHIN, attempt).await {
                masters.last.store(index, Ordering::Relaxed);
                return Some(stream);
            }
        }
        tokio::time::sleep(ROUND_PAUSE).await;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_dead_master_is_skipped() {
        let dead = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bind");
        let dead_port = dead.local_addr().expect("address").port();
        drop(dead);
        let living = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bind");
        let living_port = living.local_addr().expect("address").port();
        let masters = Masters::new(vec![dead_port, living_port]);
        let mut stream = connect(&masters).await.expect("the living one");
        let (mut served, _) = living.accept().await.expect("accepted");
        stream.write_all(b"hello").await.expect("write");
        let mut bytes = [0; 5];
        served.read_exact(&mut bytes).await.expect("read");
        assert_eq!(&bytes, b"hello");
        assert_eq!(masters.last.load(Ordering::Relaxed), 1, "the next connection begins there");
    }

    #[test]
    fn one_that_is_not_ready_comes_last() {
        let masters = Masters::new(vec![1, 2, 3]);
        masters.last.store(1, Ordering::Relaxed);
        for (unready, expected) in
            [(vec![], [2, 3, 1]), (vec![2], [3, 1, 2]), (vec![3, 2], [1, 2, 3]), (vec![1, 2, 3], [2, 3, 1])]
        {
            *masters.unready.write().expect("whole") = unready;
            assert_eq!(masters.order().into_iter().map(|(_, port)| port).collect::<Vec<_>>(), expected);
        }
    }
}
