//! Links of exec, attach and connect over a node's stream: what the API server speaks of, as frames.
//!
//! **Invariant:** a link is handed out only after the node said that it has begun.

use apiserver::{Asked, Input, Link, Output, PodRef, Session, Stdio, StreamError};
use control::authz::User;
use futures::{SinkExt, StreamExt, future};
use rpc::pb;
use rpc::streams::{DATA, RESIZE, STATUS, STDERR, STDIN};
use tokio_util::sync::PollSender;
use tonic::Status;

use super::streams::{Dialled, broke, said};

pub fn open(user: &User, pod: PodRef, session: Session) -> pb::StreamOpen {
    let mut open = pb::StreamOpen {
        node: pod.node,
        user: user.name.clone(),
        groups: user.groups.clone(),
        namespace: pod.namespace,
        pod: pod.name,
        uid: pod.uid,
        ..Default::default()
    };
    match session {
        Session::Exec { container, command, stdio } => {
            open.container = container;
            open.exec = Some(pb::ExecOptions { command, stdio: Some(streams(stdio)) });
        }
        Session::Attach { container, stdio } => {
            open.container = container;
            open.attach = Some(pb::AttachOptions { stdio: Some(streams(stdio)) });
        }
        Session::Connect { port, asked } => {
            let (verb, resource, name) =
                asked.map(|Asked { verb, resource, name }| (verb, resource, name)).unwrap_or_default();
            open.connect = Some(pb::ConnectOptions { port: u32::from(port), verb, resource, name });
        }
    }
    open
}

fn streams(Stdio { stdin, stdout, stderr, tty }: Stdio) -> pb::Stdio {
    pb::Stdio { stdin, stdout, stderr, tty }
}

/// Waits for the node to begin.
pub async fn link(dialled: Dialled) -> Result<Link, StreamError> {
    let Dialled { mut up, down } = dialled;
    match up.next().await.transpose().map_err(broke)? {
        Some(pb::StreamFrame { error: Some(error), .. }) => return Err(said(error)),
        Some(frame) if frame.started => {}
        Some(_) => {
            return Err(StreamError::Internal("the node's hactl is of a version that knows only logs".into()));
        }
        None => return Err(StreamError::Unavailable("the node's stream ended before it began".into())),
    }
    let input = PollSender::new(down)
        .sink_map_err(|_| StreamError::Unavailable("the node's stream is over".into()))
        .with(|input| future::ready(Ok::<_, StreamError>(Ok(down_frame(input)))));
    // The last frame is the end, whatever the connection does after it.
    let output = futures::stream::unfold(Some(up), |up| async move {
        let mut up = up?;
        loop {
            return match up.next().await.map(output) {
                None => None,
                Some(Ok(Said::More(output))) => Some((Ok(output), Some(up))),
                Some(Ok(Said::Last(None))) => None,
                Some(Ok(Said::Last(Some(exit)))) => Some((Ok(exit), None)),
                Some(Ok(Said::Nothing)) => continue,
                Some(Err(error)) => Some((Err(error), None)),
            };
        }
    });
    Ok(Link { input: Box::pin(input), output: output.boxed() })
}

fn down_frame(input: Input) -> pb::StreamFrame {
    match input {
        Input::Data(data) => pb::StreamFrame { channel: STDIN, data, ..Default::default() },
        Input::End => pb::StreamFrame { channel: STDIN, eof: true, ..Default::default() },
        Input::Resize { width, height } => {
            let size = pb::TerminalSize { width: u32::from(width), height: u32::from(height) };
            pb::StreamFrame { channel: RESIZE, size: Some(size), ..Default::default() }
        }
    }
}

enum Said {
    More(Output),
    /// With how a program ended.
    Last(Option<Output>),
    Nothing,
}

fn output(frame: Result<pb::StreamFrame, Status>) -> Result<Said, StreamError> {
    let frame = frame.map_err(broke)?;
    if let Some(error) = frame.error {
        return Err(said(error));
    }
    Ok(match (frame.channel, frame.eof) {
        (STATUS, true) => Said::Last(frame.exit_code.map(Output::Exit)),
        (DATA, true) => Said::More(Output::End),
        (DATA, false) => Said::More(Output::Data(frame.data)),
        (STDERR, false) => Said::More(Output::Stderr(frame.data)),
        // A newer node's.
        _ => Said::Nothing,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::sync::mpsc;

    use super::*;

    fn dialled(frames: Vec<pb::StreamFrame>) -> (Dialled, mpsc::Receiver<Result<pb::StreamFrame, Status>>) {
        let (down, sent) = mpsc::channel(4);
        (Dialled { up: futures::stream::iter(frames.into_iter().map(Ok)).boxed(), down }, sent)
    }

    fn frame(channel: u32, data: &'static [u8], eof: bool) -> pb::StreamFrame {
        pb::StreamFrame { channel, data: Bytes::from_static(data), eof, ..Default::default() }
    }

    fn started() -> pb::StreamFrame {
        pb::StreamFrame { started: true, ..Default::default() }
    }

    #[tokio::test]
    async fn a_program_speaks_and_ends() {
        let last = pb::StreamFrame { exit_code: Some(3), ..frame(STATUS, b"", true) };
        let frames =
            vec![started(), frame(DATA, b"out", false), frame(9, b"?", false), frame(STDERR, b"err", false), last];
        let (dialled, mut sent) = dialled(frames);
        let mut link = link(dialled).await.expect("begun");
        for input in [Input::Data(Bytes::from_static(b"in")), Input::Resize { width: 80, height: 24 }, Input::End] {
            link.input.send(input).await.expect("sent");
        }
        let size = Some(pb::TerminalSize { width: 80, height: 24 });
        for want in
            [frame(STDIN, b"in", false), pb::StreamFrame { size, ..frame(RESIZE, b"", false) }, frame(STDIN, b"", true)]
        {
            assert_eq!(sent.recv().await.expect("a frame").expect("a frame"), want);
        }
        let told: Vec<Output> = link.output.by_ref().map(|output| output.expect("output")).collect().await;
        let want =
            [Output::Data(Bytes::from_static(b"out")), Output::Stderr(Bytes::from_static(b"err")), Output::Exit(3)];
        assert_eq!(told, want);
        drop(link);
        assert!(sent.recv().await.is_none(), "the node's call ends with the link");
    }

    #[tokio::test]
    async fn what_did_not_begin_is_no_link() {
        let error = pb::StreamError { code: 404, message: "no such container".into(), reason: String::new() };
        let refused = pb::StreamFrame { error: Some(error), eof: true, ..Default::default() };
        for (frames, want) in [
            (vec![refused], "no such container"),
            (vec![frame(0, b"a line of a log", false)], "knows only logs"),
            (vec![], "before it began"),
        ] {
            let why = link(dialled(frames).0).await.err().expect("refused").to_string();
            assert!(why.contains(want), "{why}");
        }
    }
}
