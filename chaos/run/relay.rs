//! A relay that passes bytes on late: the delay of a long link, where the kernel has none to offer. It runs in a machine's
//! namespace, as a command of its own, and knows nothing of what it passes on.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::Instant;

/// Set on its own packets, so that they are not redirected to it.
pub const MARK: u32 = 0x0c4a;
/// Bytes under way in one direction of a connection.
const UNDER_WAY_MAX: usize = 4 << 20;
const CHUNK: usize = 64 << 10;
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[derive(Clone, Debug, clap::Args)]
pub struct Relay {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    to: SocketAddr,
    #[arg(long)]
    delay_ms: u64,
    /// It ends when this file is gone
    #[arg(long = "while")]
    flag: PathBuf,
    /// And after so long in any case
    #[arg(long)]
    seconds: u64,
}

impl Relay {
    pub async fn run(self) -> Result<()> {
        let listener =
            TcpListener::bind(self.listen).await.with_context(|| format!("cannot listen on {}", self.listen))?;
        let until = Instant::now() + Duration::from_secs(self.seconds);
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let (near, _) = accepted?;
                    let relay = self.clone();
                    // A connection that breaks is the business of those whose it is.
                    tokio::spawn(async move { drop(relay.pass(near).await) });
                }
                _ = look.tick() => if !self.flag.exists() || Instant::now() > until { return Ok(()) },
            }
        }
    }

    async fn pass(&self, near: TcpStream) -> Result<()> {
        let socket = if self.to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        mark(&socket)?;
        let far = socket.connect(self.to).await?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let delay = Duration::from_millis(self.delay_ms);
        let (near_in, near_out) = near.into_split();
        let (far_in, far_out) = far.into_split();
        tokio::try_join!(late(near_in, far_out, delay), late(far_in, near_out, delay))?;
        Ok(())
    }
}

fn mark(socket: &TcpSocket) -> Result<()> {
    use std::os::fd::AsRawFd as _;
    let size = libc::socklen_t::try_from(size_of::<u32>())?;
    let mark = MARK;
    // SAFETY: the option's value is a u32 that lives through the call.
    let set = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MARK, (&raw const mark).cast(), size)
    };
    // Without the right to mark it can still relay where nothing redirects its packets.
    let error = std::io::Error::last_os_error();
    if set != 0 && error.raw_os_error() != Some(libc::EPERM) {
        return Err(error).context("cannot mark a connection");
    }
    Ok(())
}

/// Passes on what comes, each piece so long after it came.
async fn late(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, delay: Duration) -> Result<()> {
    let mut pieces: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let (mut under_way, mut ended) = (0, false);
    let mut chunk = vec![0; CHUNK];
    loop {
        let due = pieces.front().map(|(due, _)| *due);
        tokio::select! {
            read = from.read(&mut chunk), if !ended && under_way < UNDER_WAY_MAX => {
                let length = read?;
                ended = length == 0;
                under_way += length;
                pieces.push_back((Instant::now() + delay, chunk[..length].to_vec()));
            }
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                let Some((_, piece)) = pieces.pop_front() else { continue };
                if piece.is_empty() {
                    return Ok(to.shutdown().await?);
                }
                under_way -= piece.len();
                to.write_all(&piece).await?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_pass_in_order_and_late() {
        let dir = tempfile::tempdir().expect("dir");
        let flag = dir.path().join("flag");
        std::fs::write(&flag, "").expect("write");
        let server = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let to = server.local_addr().expect("address");
        // A free port, given back for the relay to take.
        let listen = TcpListener::bind("127.0.0.1:0").await.expect("bind").local_addr().expect("address");
        let relay = tokio::spawn(Relay { listen, to, delay_ms: 30, flag: flag.clone(), seconds: 60 }.run());
        let echo = tokio::spawn(async move {
            let (mut stream, _) = server.accept().await.expect("accept");
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await.expect("copy")
        });
        let mut client = loop {
            match TcpStream::connect(listen).await {
                Ok(client) => break client,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let sent: Vec<u8> = (0..200_000_u32).map(|number| number as u8).collect();
        let begun = Instant::now();
        let (mut read, mut write) = client.split();
        let (written, mut back) = (async { write.write_all(&sent).await.and(write.shutdown().await) }, Vec::new());
        let (written, read) = tokio::join!(written, read.read_to_end(&mut back));
        written.expect("written");
        read.expect("read");
        assert!(back == sent && begun.elapsed() >= Duration::from_millis(60), "both ways are late");
        assert_eq!(echo.await.expect("ends"), 200_000);
        std::fs::remove_file(&flag).expect("remove");
        relay.await.expect("ends").expect("well");
    }
}
