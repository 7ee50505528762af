//! A connection made from inside the network of a process: what listens on a pod's loopback is reached by no other way.
//!
//! **Invariant:** only a thread of its own changes its network, and ends with the connection made: none that others use does.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

pub const CONNECT_LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub enum Error {
    /// This process may not enter that network, or does not see it.
    Enter(io::Error),
    Connect(io::Error),
}

/// Connects to this port of the loopback that the process has.
pub async fn connect(pid: i32, port: u16) -> Result<TcpStream, Error> {
    let (answer, connected) = oneshot::channel();
    std::thread::Builder::new()
        .name("pod-network".to_owned())
        .spawn(move || drop(answer.send(connect_inside(pid, port))))
        .map_err(Error::Enter)?;
    let stream = connected.await.map_err(|_| Error::Enter(io::Error::other("the thread ended early")))??;
    stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)).map_err(Error::Connect)
}

fn connect_inside(pid: i32, port: u16) -> Result<std::net::TcpStream, Error> {
    let network = File::open(format!("/proc/{pid}/ns/net")).map_err(Error::Enter)?;
    setns(network, CloneFlags::CLONE_NEWNET).map_err(|errno| Error::Enter(errno.into()))?;
    let to = |address: SocketAddr| std::net::TcpStream::connect_timeout(&address, CONNECT_LIMIT);
    let first = to((Ipv4Addr::LOCALHOST, port).into());
    // Some programs listen on IPv6 alone; of both failures the first says more.
    first.or_else(|error| to((Ipv6Addr::LOCALHOST, port).into()).map_err(|_| error)).map_err(Error::Connect)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn the_loopback_of_a_process_is_reached() {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let own = i32::try_from(std::process::id()).expect("a pid");
        let mut stream = connect(own, port).await.expect("connected");
        let (mut other, _) = listener.accept().await.expect("a connection");
        other.write_all(b"inside").await.expect("sent");
        drop((other, listener));
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("read");
        assert_eq!(text, "inside");
        assert!(matches!(connect(own, port).await, Err(Error::Connect(_))), "nobody listens any more");
        assert!(matches!(connect(0, port).await, Err(Error::Enter(_))), "there is no such process");
    }
}
