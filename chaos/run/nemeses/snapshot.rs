//! The whole cluster is saved under load, and the file checked.

use anyhow::Result;
use async_trait::async_trait;

use super::{Nemesis, Strike};
use crate::run::stage::Stage;

pub struct Snapshot;

#[async_trait]
impl Nemesis for Snapshot {
    async fn strike(&mut self, stage: &mut Stage) -> Result<Option<Strike>> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("all.snapshot").display().to_string();
        Ok(Some(match stage.target.hactl(&["cluster", "snapshot", "save", &file]).await {
            Ok(printed) => {
                // A file that was saved and is not right breaks a promise, whatever else goes on.
                if let Err(error) = stage.target.hactl(&["cluster", "snapshot", "verify", &file]).await {
                    stage.history.found(format!("a snapshot that was saved is not right: {error:#}"));
                }
                let size = printed.rsplit_once('(').map_or("", |(_, size)| size.trim_end().trim_end_matches(')'));
                Strike::at(format!("saved and verified: {size}"), false)
            }
            Err(error) => {
                let words = format!("{error:#}");
                Strike::missed(format!("could not be saved: {}", words.lines().last().unwrap_or_default()))
            }
        }))
    }

    async fn heal(&mut self, _stage: &mut Stage) -> Result<()> {
        Ok(())
    }
}
