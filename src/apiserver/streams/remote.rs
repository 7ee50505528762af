//! The streams of a program in a container, for exec and attach.

use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};

use super::websocket::{self, PONG_EVERY, Said, message, said};
use crate::StreamError;
use crate::link::{Input, Inputs, Link, Output, Outputs, Stdio};
use crate::spdy::{self, Event};
use crate::status::Failure;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;

/// Larger input is passed on in parts.
const PART_BYTES_MAX: usize = 32 * 1024;
/// How long a client of SPDY has to open its streams.
const OPEN_LIMIT: Duration = Duration::from_secs(30);
/// How long it has to take the end.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// What the client hears at last.
fn status(ended: Option<Result<Output, StreamError>>) -> Value {
    let success = json!({"metadata": {}, "status": "Success"});
    match ended {
        Some(Ok(Output::Exit(0))) => success,
        Some(Ok(Output::Exit(code))) => json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Some(Ok(_)) => success,
        Some(Err(error)) => Failure::internal(error).body(),
        None => Failure::internal("the stream of the node ended early").body(),
    }
}

/// `{"Width": 80, "Height": 24}`; anything else is passed over.
fn resize(bytes: &[u8]) -> Option<Input> {
    let size: Value = serde_json::from_slice(bytes).ok()?;
    let side = |name: &str| size[name].as_u64().and_then(|side| u16::try_from(side).ok());
    Some(Input::Resize { width: side("Width")?, height: side("Height")? })
}

async fn give(input: &mut Inputs, mut bytes: Bytes) -> Result<(), StreamError> {
    while !bytes.is_empty() {
        input.send(Input::Data(bytes.split_to(bytes.len().min(PART_BYTES_MAX)))).await?;
    }
    Ok(())
}

/// Until the program or the client has ended.
pub async fn over_websocket(socket: WebSocket, link: Link) {
    let (mut to, mut from) = socket.split();
    let Link { mut input, output } = link;
    let listening = async {
        while let Some(Ok(message)) = from.next().await {
            let given = match said(message) {
                Some(Said::Data(STDIN, bytes)) => give(&mut input, bytes).await,
                Some(Said::End(STDIN)) => input.send(Input::End).await,
                Some(Said::Data(RESIZE, bytes)) => match resize(&bytes) {
                    Some(size) => input.send(size).await,
                    None => Ok(()),
                },
                _ => Ok(()),
            };
            if given.is_err() {
                // The program is ending; how is about to be said.
                std::future::pending::<()>().await;
            }
        }
    };
    let told = tokio::select! {
        () = listening => return,
        told = tell(&mut to, output) => told,
    };
    drop(input);
    if told.is_ok() {
        websocket::close(to, from).await;
    }
}

async fn tell(to: &mut websocket::ToClient, mut output: Outputs) -> Result<(), axum::Error> {
    let mut silence = tokio::time::interval(PONG_EVERY);
    loop {
        let next = tokio::select! {
            next = output.next() => next,
            _ = silence.tick() => {
                to.send(Message::Pong(Bytes::new())).await?;
                continue;
            }
        };
        match next {
            Some(Ok(Output::Data(bytes))) => to.send(message(STDOUT, &bytes)).await?,
            Some(Ok(Output::Stderr(bytes))) => to.send(message(STDERR, &bytes)).await?,
            Some(Ok(Output::End)) => {}
            ended => return to.send(message(STATUS, status(ended).to_string().as_bytes())).await,
        }
    }
}

/// The streams that a client of SPDY opens for one session.
#[derive(Default)]
struct Opened {
    error: Option<spdy::Stream>,
    stdin: Option<spdy::Stream>,
    stdout: Option<spdy::Stream>,
    stderr: Option<spdy::Stream>,
    resize: Option<spdy::Stream>,
}

impl Opened {
    fn place(&mut self, kind: &str) -> Option<&mut Option<spdy::Stream>> {
        Some(match kind {
            "error" => &mut self.error,
            "stdin" => &mut self.stdin,
            "stdout" => &mut self.stdout,
            "stderr" => &mut self.stderr,
            "resize" => &mut self.resize,
            _ => return None,
        })
    }

    fn complete(&self, stdio: Stdio) -> bool {
        self.error.is_some()
            && (self.stdin.is_some() || !stdio.stdin)
            && (self.stdout.is_some() || !stdio.stdout)
            && (self.stderr.is_some() || !stdio.stderr)
            && (self.resize.is_some() || !stdio.tty)
    }
}

/// Until the program or the client has ended.
pub async fn over_spdy<R, W>(reader: R, writer: W, stdio: Stdio, link: Link)
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let (connection, mut streams) = spdy::open(reader, writer);
    tokio::pin!(connection);
    let session = async {
        let opening = async {
            let mut opened = Opened::default();
            while !opened.complete(stdio) {
                let stream = streams.next().await?;
                let place = opened.place(stream.headers.get("streamtype"))?;
                *place = Some(stream);
            }
            Some(opened)
        };
        if let Ok(Some(opened)) = tokio::time::timeout(OPEN_LIMIT, opening).await {
            run(opened, link).await;
        }
    };
    let over = tokio::select! {
        over = &mut connection => Some(over),
        () = session => None,
    };
    // A client that hears the end of the connection before it has taken all from its streams loses the rest.
    let over = match over {
        None => tokio::time::timeout(CLOSE_LIMIT, connection).await.unwrap_or(Ok(())),
        Some(over) => over,
    };
    if let Err(error) = over {
        tracing::debug!(%error, "a client's SPDY connection ended");
    }
}

async fn run(opened: Opened, link: Link) {
    let Opened { error, stdin, stdout, stderr, resize } = opened;
    let (stdin, stdin_to) = stdin.map(|stream| (stream.from, stream.to)).unzip();
    let (resize, resize_to) = resize.map(|stream| (stream.from, stream.to)).unzip();
    let Link { input, mut output } = link;
    let telling = async {
        loop {
            match output.next().await {
                Some(Ok(Output::Data(bytes))) => {
                    if let Some(stdout) = &stdout {
                        stdout.to.send(bytes).await?;
                    }
                }
                Some(Ok(Output::Stderr(bytes))) => {
                    if let Some(stderr) = &stderr {
                        stderr.to.send(bytes).await?;
                    }
                }
                Some(Ok(Output::End)) => {}
                ended => return Ok::<_, spdy::Gone>(status(ended)),
            }
        }
    };
    let status = tokio::select! {
        told = telling => told,
        () = listen(input, stdin, resize) => return,
    };
    let (Ok(status), Some(error)) = (status, error) else { return };
    let _ = error.to.send(Bytes::from(status.to_string())).await;
    let ends = [Some(error.to), stdin_to, resize_to, stdout.map(|stream| stream.to), stderr.map(|stream| stream.to)];
    for end in ends.into_iter().flatten() {
        end.end().await;
    }
}

type Events = tokio::sync::mpsc::Receiver<Event>;

/// Passes input on. Returns when the client resets its stdin, and otherwise never.
async fn listen(mut input: Inputs, mut stdin: Option<Events>, mut sizes: Option<Events>) {
    loop {
        let given = tokio::select! {
            event = next(&mut stdin) => match event {
                Some(Event::Data(bytes)) => give(&mut input, bytes).await,
                Some(Event::End) => {
                    stdin = None;
                    input.send(Input::End).await
                }
                None => return,
            },
            event = next(&mut sizes) => match event {
                Some(Event::Data(bytes)) => match resize(&bytes) {
                    Some(size) => input.send(size).await,
                    None => Ok(()),
                },
                Some(Event::End) | None => {
                    sizes = None;
                    Ok(())
                }
            },
        };
        if given.is_err() {
            // The program is ending; how is about to be said.
            std::future::pending::<()>().await;
        }
    }
}

async fn next(events: &mut Option<Events>) -> Option<Event> {
    match events {
        Some(events) => events.recv().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_is_as_kubernetes_puts_it() {
        assert_eq!(status(Some(Ok(Output::Exit(0))))["status"], "Success");
        let failed = status(Some(Ok(Output::Exit(3))));
        assert_eq!((&failed["status"], &failed["reason"]), (&json!("Failure"), &json!("NonZeroExitCode")));
        assert_eq!(failed["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));
        assert_eq!(status(None)["status"], "Failure");
        let broken = status(Some(Err(StreamError::Internal("Docker is down".into()))));
        assert!(broken["message"].as_str().is_some_and(|text| text.contains("Docker is down")), "{broken}");
    }

    #[test]
    fn sizes_are_read_and_nonsense_is_passed_over() {
        assert_eq!(resize(br#"{"Width":80,"Height":24}"#), Some(Input::Resize { width: 80, height: 24 }));
        for nonsense in
            ["", "{}", "[]", r#"{"Width":80}"#, r#"{"Width":70000,"Height":1}"#, r#"{"Width":-1,"Height":1}"#]
        {
            assert_eq!(resize(nonsense.as_bytes()), None, "{nonsense}");
        }
    }
}
