//! The forwarder of a local cluster: one port that always reaches a living master, because kubectl knows one server only.
//!
//! It copies bytes and terminates nothing, so TLS stays between client and master. A new connection goes to the master
//! that served last; when that one refuses, to the next. A broken connection is closed towards the client, which
//! connects again and is then served by a living master.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::layout::Layout;
use super::ports::Keeper;

/// On loopback a living master accepts at once; only a stopped (not dead) process makes a connect wait.
const CONNECT_WITHIN: Duration = Duration::from_millis(250);
const RELOAD_EVERY: Duration = Duration::from_secs(2);
/// Rounds over all masters before a client's connection is given up, and the pause between two rounds.
const ROUNDS_MAX: usize = 20;
const ROUND_PAUSE: Duration = Duration::from_millis(50);

struct Masters {
    ports: std::sync::RwLock<Vec<u16>>,
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
    let masters = Arc::new(Masters { ports: std::sync::RwLock::new(ports(&layout)), last: AtomicUsize::new(0) });
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
        let ports = masters.ports.read().map(|ports| ports.clone()).unwrap_or_default();
        let first = masters.last.load(Ordering::Relaxed);
        for step in 0..ports.len() {
            let index = (first + step) % ports.len();
            let attempt = TcpStream::connect((Ipv4Addr::LOCALHOST, ports[index]));
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
        let masters =
            Masters { ports: std::sync::RwLock::new(vec![dead_port, living_port]), last: AtomicUsize::new(0) };
        let mut stream = connect(&masters).await.expect("the living one");
        let (mut served, _) = living.accept().await.expect("accepted");
        stream.write_all(b"hello").await.expect("write");
        let mut bytes = [0; 5];
        served.read_exact(&mut bytes).await.expect("read");
        assert_eq!(&bytes, b"hello");
        assert_eq!(masters.last.load(Ordering::Relaxed), 1, "the next connection begins there");
    }
}
