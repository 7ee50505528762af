//! Where code runs that waits for a disk: on threads, or, for a disk that never lets wait, among the other tasks of this
//! thread. The second is how a whole cluster runs in one thread.

use std::thread::JoinHandle;

use crate::Error;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    #[default]
    Threads,
    Tasks,
}

/// Something that [`Place::start`] started.
pub enum Worker {
    Thread(JoinHandle<()>),
    Task(tokio::task::JoinHandle<()>),
}

impl Place {
    /// Makes one call that blocks.
    pub async fn call<T: Send + 'static>(self, call: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
        match self {
            Self::Threads => tokio::task::spawn_blocking(call).await.map_err(|error| Error::Stopped(error.to_string())),
            Self::Tasks => Ok(call()),
        }
    }

    /// Starts what blocks again and again. On a thread it has no runtime: it may wait for channels only.
    pub fn start(self, name: &str, work: impl Future<Output = ()> + Send + 'static) -> Result<Worker, Error> {
        Ok(match self {
            Self::Threads => {
                let thread = std::thread::Builder::new().name(name.into());
                Worker::Thread(thread.spawn(move || futures::executor::block_on(work))?)
            }
            Self::Tasks => Worker::Task(tokio::spawn(work)),
        })
    }
}

impl Worker {
    /// Waits until it has ended.
    pub async fn ended(self) {
        // However it ended: one that panicked has said so.
        match self {
            Self::Thread(thread) => {
                let _ = tokio::task::spawn_blocking(move || thread.join()).await;
            }
            Self::Task(task) => {
                let _ = task.await;
            }
        }
    }
}
