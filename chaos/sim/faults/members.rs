//! What operators do.

use std::sync::Arc;
use std::time::Duration;

use crate::Random;
use crate::sim::world::World;

pub async fn transfer(world: Arc<World>, mut random: Random, _: Duration) -> bool {
    let to = random.pick(&world.ids()).copied().unwrap_or(0);
    let Some(leader) = world.leader() else { return false };
    let Some(process) = world.process(leader) else { return false };
    // Refused, late or lost: an operator sees that and lets it be.
    process.consensus.transfer_leader(to).await.is_ok() && to != leader
}

pub async fn replace(world: Arc<World>, mut random: Random, _: Duration) -> bool {
    let Some(id) = random.pick(&world.ids()).copied().filter(|_| world.begin_replacing()) else { return false };
    world.replace(id).await;
    true
}

pub async fn snapshot(world: Arc<World>, mut random: Random, _: Duration) -> bool {
    let processes = world.processes();
    let Some((_, process)) = random.pick(&processes) else { return false };
    // A member that is stopping takes none.
    process.consensus.snapshot().await.is_ok()
}

pub async fn relieve(world: Arc<World>, mut random: Random, _: Duration) -> bool {
    let Some(id) = random.pick(&world.ids()).copied().filter(|_| world.begin_replacing()) else { return false };
    world.relieve(id).await;
    true
}

/// What is left of the snapshots after a power cut must do for a new member.
pub async fn reseed(world: Arc<World>, mut random: Random, lasts: Duration) -> bool {
    if !world.begin_replacing() {
        return false;
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
    true
}
