//! Sessions on the hollow runtime: `cat` repeats, `false` fails, every port repeats.

use std::time::Duration;

use tokio::sync::watch;

use super::super::{FRAMES_WAITING_MAX, answer};
use super::*;
use crate::images;
use crate::runtime::hollow::Hollow;
use crate::runtime::{Network, Spec};
use crate::saved::Saved;
use crate::shared::Parts;

const LIMIT: Duration = Duration::from_secs(30);

/// A node with one pod, `u1`, that has a sandbox and the container `web`.
async fn node() -> (Arc<Hollow>, Arc<Shared>) {
    let hollow = Arc::new(Hollow::new("c", "n"));
    images::load(&*hollow, &images::sandbox()).await.expect("loaded");
    for (name, container) in [("sandbox", label::SANDBOX), ("web", "web")] {
        let labels = [(label::POD_UID, "u1"), (label::CONTAINER, container)];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let spec =
            Spec { name: name.to_owned(), image: images::sandbox(), labels, network: Network::Host, ..Spec::default() };
        let id = hollow.create(&spec).await.expect("created");
        hollow.start(&id).await.expect("started");
    }
    let shared = Arc::new(Shared::new(Parts {
        runtime: hollow.clone(),
        data_dir: std::path::PathBuf::new(),
        hash: String::new(),
        node_name: "node-1".to_owned(),
        host_ip: "192.0.2.1".to_owned(),
        cpu_millis: 1000,
        memory_bytes: 1 << 30,
        bridge: watch::channel(Err(String::new())).1,
        saved: Saved::default(),
    }));
    (hollow, shared)
}

/// One stream as its master sees it.
struct Master {
    down: mpsc::Sender<pb::StreamFrame>,
    up: mpsc::Receiver<pb::StreamFrame>,
    answer: tokio::task::JoinHandle<Result<pb::StreamFrame, Refused>>,
}

impl Master {
    fn opens(shared: &Arc<Shared>, open: pb::StreamOpen) -> Self {
        let (up, from) = mpsc::channel(FRAMES_WAITING_MAX);
        let (to, down) = mpsc::channel(FRAMES_WAITING_MAX);
        let shared = shared.clone();
        let answer = tokio::spawn(async move { answer(&shared, &open, Frames { up, down }).await });
        Self { down: to, up: from, answer }
    }

    async fn sends(&self, data: &'static [u8], eof: bool) {
        let frame = pb::StreamFrame { channel: STDIN, data: Bytes::from_static(data), eof, ..Default::default() };
        self.down.send(frame).await.expect("taken");
    }

    async fn hears(&mut self) -> pb::StreamFrame {
        tokio::time::timeout(LIMIT, self.up.recv()).await.expect("in time").expect("a frame")
    }

    async fn ends(self) -> Result<pb::StreamFrame, Refused> {
        tokio::time::timeout(LIMIT, self.answer).await.expect("in time").expect("no panic")
    }
}

fn pod(container: &str) -> pb::StreamOpen {
    pb::StreamOpen { pod: "web".into(), uid: "u1".into(), container: container.into(), ..Default::default() }
}

fn exec(container: &str, program: &str) -> pb::StreamOpen {
    let stdio = Some(pb::Stdio { stdin: true, stdout: true, ..Default::default() });
    pb::StreamOpen { exec: Some(pb::ExecOptions { command: vec![program.into()], stdio }), ..pod(container) }
}

fn connect(port: u32) -> pb::StreamOpen {
    pb::StreamOpen { connect: Some(pb::ConnectOptions { port, ..Default::default() }), ..pod("") }
}

fn said(data: &'static [u8]) -> pb::StreamFrame {
    pb::StreamFrame { channel: DATA, data: Bytes::from_static(data), ..Default::default() }
}

fn started() -> pb::StreamFrame {
    pb::StreamFrame { started: true, ..Default::default() }
}

#[tokio::test]
async fn a_command_hears_speaks_and_ends() {
    let (hollow, shared) = node().await;
    let mut master = Master::opens(&shared, exec("web", "cat"));
    assert_eq!(master.hears().await, started());
    let size = Some(pb::TerminalSize { width: 80, height: 24 });
    master.down.send(pb::StreamFrame { channel: RESIZE, size, ..Default::default() }).await.expect("taken");
    master.sends(b"hello", false).await;
    assert_eq!(master.hears().await, said(b"hello"));
    master.sends(b"", true).await;
    assert_eq!(master.ends().await.expect("ended"), last(Some(0)));
    assert_eq!(Master::opens(&shared, exec("web", "false")).ends().await.expect("ended"), last(Some(1)));
    assert_eq!(hollow.execs(), 0);

    let attach = pb::StreamOpen { attach: Some(pb::AttachOptions::default()), ..pod("web") };
    let mut master = Master::opens(&shared, attach);
    assert_eq!(master.hears().await, started());
    master.sends(b"there", false).await;
    assert_eq!(master.hears().await, said(b"there"));
    master.sends(b"", true).await;
    assert_eq!(master.ends().await.expect("ended"), last(Some(0)));
}

#[tokio::test]
async fn a_command_whose_master_is_gone_is_ended() {
    let (hollow, shared) = node().await;
    let mut master = Master::opens(&shared, exec("web", "cat"));
    assert_eq!(master.hears().await, started());
    assert_eq!(hollow.execs(), 1);
    // Whoever serves the stream is dropped with the master's call.
    master.answer.abort();
    let ended = async {
        while hollow.execs() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, ended).await.expect("it ends");

    let master = Master::opens(&shared, exec("web", "cat"));
    let Master { down, up, answer } = master;
    drop((down, up));
    assert!(tokio::time::timeout(LIMIT, answer).await.expect("in time").expect("no panic").is_err());
    assert_eq!(hollow.execs(), 0);
}

#[tokio::test]
async fn a_port_repeats_until_both_have_ended() {
    let (_, shared) = node().await;
    let mut master = Master::opens(&shared, connect(80));
    assert_eq!(master.hears().await, started());
    master.sends(b"over", false).await;
    assert_eq!(master.hears().await, said(b"over"));
    master.sends(b"", true).await;
    assert_eq!(master.hears().await, pb::StreamFrame { eof: true, ..said(b"") });
    assert_eq!(master.ends().await.expect("ended"), last(None));
}

#[tokio::test]
async fn what_does_not_run_is_refused() {
    let (_, shared) = node().await;
    let nowhere = pb::StreamOpen { uid: "u2".into(), ..connect(80) };
    for (open, code, text) in [
        (exec("other", "cat"), 404, "container not found (\"other\")"),
        (exec("-sandbox-", "cat"), 404, "container not found"),
        (pb::StreamOpen { uid: "u2".into(), ..exec("web", "cat") }, 404, "container not found"),
        (nowhere, 404, "does not run"),
        (connect(70_000), 400, "no port"),
    ] {
        let refused = Master::opens(&shared, open).ends().await.expect_err("refused");
        assert_eq!(refused.code, code, "{refused:?}");
        assert!(refused.message.contains(text), "{refused:?}");
    }
    let all = shared.streams.try_acquire_many(u32::try_from(crate::shared::STREAMS_MAX).expect("small"));
    let refused = Master::opens(&shared, exec("web", "cat")).ends().await.expect_err("full");
    assert_eq!(refused.code, 503, "{refused:?}");
    drop(all);
}
