//! Processes and machines that stop.

use std::sync::Arc;
use std::time::Duration;

use crate::Random;
use crate::sim::world::World;

async fn down(world: Arc<World>, id: u64, lasts: Duration) {
    world.hold(id);
    world.kill(id);
    tokio::time::sleep(lasts).await;
    world.release(id).await;
}

pub async fn kill(world: Arc<World>, mut random: Random, lasts: Duration) {
    if let Some(id) = random.pick(&world.ids()) {
        down(world, *id, lasts).await;
    }
}

pub async fn kill_leader(world: Arc<World>, _: Random, lasts: Duration) {
    if let Some(id) = world.leader() {
        down(world, id, lasts).await;
    }
}

pub async fn power(world: Arc<World>, mut random: Random, lasts: Duration) {
    if let Some(id) = random.pick(&world.ids()).copied() {
        world.hold(id);
        world.cut_power(id);
        tokio::time::sleep(lasts).await;
        world.release(id).await;
    }
}

pub async fn power_all(world: Arc<World>, mut random: Random, lasts: Duration) {
    let ids = world.ids();
    for id in &ids {
        world.hold(*id);
        world.cut_power(*id);
    }
    // They return one after another, in any order.
    let returns = ids.iter().map(|id| {
        let (world, after) = (world.clone(), Duration::from_millis(random.between(0, lasts.as_millis() as u64 + 1)));
        async move {
            tokio::time::sleep(after).await;
            world.release(*id).await;
        }
    });
    futures::future::join_all(returns.collect::<Vec<_>>()).await;
}

async fn again(world: &Arc<World>, id: u64, away: Duration) {
    world.hold(id);
    world.stop(id).await;
    tokio::time::sleep(away).await;
    world.release(id).await;
}

pub async fn restart(world: Arc<World>, mut random: Random, lasts: Duration) {
    if let Some(id) = random.pick(&world.ids()) {
        again(&world, *id, lasts).await;
    }
}

pub async fn restart_each(world: Arc<World>, _: Random, lasts: Duration) {
    let ids = world.ids();
    for id in &ids {
        again(&world, *id, lasts / ids.len() as u32).await;
    }
}
