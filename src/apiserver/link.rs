//! A stream into a pod, as the API server sees it: what is asked of the node, and what goes each way.
//!
//! Not here: how clients frame it (`streams`, `spdy`), and how it reaches the node (whoever implements [`crate::Streams`]).
//!
//! **Invariant:** dropping a [`Link`] ends what it stands for: a command is killed, a connection closed.

use std::pin::Pin;

use bytes::Bytes;
use futures::Sink;
use futures::stream::BoxStream;

use crate::StreamError;

/// What the stream is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Session {
    Exec {
        container: String,
        command: Vec<String>,
        stdio: Stdio,
    },
    Attach {
        container: String,
        stdio: Stdio,
    },
    /// One connection to a port of the pod.
    Connect {
        port: u16,
        /// What was asked of the API, where that is not `pods/portforward` of this pod.
        asked: Option<Asked>,
    },
}

/// Which of a program's streams are open. A terminal has no stderr of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stdio {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// A request on `pods/proxy` or `services/proxy`, for whoever authorizes it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub verb: String,
    pub resource: String,
    /// As in the path, with scheme and port.
    pub name: String,
}

/// Towards the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    Data(Bytes),
    /// No more data follows.
    End,
    Resize {
        width: u16,
        height: u16,
    },
}

/// From the pod. The stream's own end means that a connection is over in both directions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    Data(Bytes),
    Stderr(Bytes),
    /// The pod sends no more; it may still read.
    End,
    /// The program has ended. Nothing follows.
    Exit(i32),
}

pub type Inputs = Pin<Box<dyn Sink<Input, Error = StreamError> + Send>>;
pub type Outputs = BoxStream<'static, Result<Output, StreamError>>;

/// An open stream into a pod.
pub struct Link {
    pub input: Inputs,
    pub output: Outputs,
}
