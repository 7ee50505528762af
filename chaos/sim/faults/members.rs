//! What operators do.

use std::sync::Arc;
use std::time::Duration;

use crate::Random;
use crate::sim::world::World;

pub async fn transfer(world: Arc<World>, mut random: Random, _: Duration) {
    let to = random.pick(&world.ids()).copied().unwrap_or(0);
    if let Some(process) = world.leader().and_then(|id| world.process(id)) {
        // Refused, late or lost: an operator sees that and lets it be.
        let _ = process.consensus.transfer_leader(to).await;
    }
}

pub async fn replace(world: Arc<World>, mut random: Random, _: Duration) {
    if let Some(id) = random.pick(&world.ids()).copied().filter(|_| world.begin_replacing()) {
        world.replace(id).await;
    }
}

pub async fn snapshot(world: Arc<World>, mut random: Random, _: Duration) {
    if let Some((_, process)) = random.pick(&world.processes()) {
        // A member that is stopping takes none.
        let _ = process.consensus.snapshot().await;
    }
}

pub async fn relieve(world: Arc<World>, mut random: Random, _: Duration) {
    if let Some(id) = random.pick(&world.ids()).copied().filter(|_| world.begin_replacing()) {
        world.relieve(id).await;
    }
}

/// What is left of the snapshots after a power cut must do for a new member.
pub async fn reseed(world: Arc<World>, mut random: Random, lasts: Duration) {
    if !world.begin_replacing() {
        return;
    }
    for (_, process) in world.processes() {
        // A member that is stopping takes none.
        let _ = process.consensus.snapshot().await;
    }
    tokio::time::sleep(Duration::from_millis(random.between(0, 100))).await;
    let ids = world.ids();
    for id in &ids {
        world.hold(*id);
        world.cut_power(*id);
    }
    tokio::time::sleep(lasts).await;
    futures::future::join_all(ids.iter().map(|id| world.release(*id))).await;
    if let Some(id) = random.pick(&ids) {
        world.replace(*id).await;
    }
}
