//! Disks that are slow, full, failing or damaged.

use std::sync::Arc;
use std::time::Duration;

use consensus::storage::Purpose;

use crate::Random;
use crate::sim::world::World;

/// How often a damaged member is looked at.
const LOOK: Duration = Duration::from_millis(100);

pub async fn slow(world: Arc<World>, mut random: Random, lasts: Duration) -> bool {
    let Some(disk) = random.pick(&world.ids()).and_then(|id| world.disk(*id)) else { return false };
    let before = disk.syncs();
    disk.slow_syncs(Duration::from_millis(random.between(2, 1000)));
    tokio::time::sleep(lasts).await;
    disk.slow_syncs(Duration::ZERO);
    disk.syncs() > before
}

pub async fn full(world: Arc<World>, mut random: Random, lasts: Duration) -> bool {
    let Some(id) = random.pick(&world.ids()).copied() else { return false };
    let Some(disk) = world.disk(id) else { return false };
    let runs = world.process(id).is_some();
    // Either it is seen coming, or a write fails.
    let seen = random.between(0, 2) == 0;
    if seen {
        disk.set_free(1 << 20);
    } else {
        disk.stuff(true);
    }
    tokio::time::sleep(lasts).await;
    disk.set_free(u64::MAX);
    disk.stuff(false);
    runs
}

pub async fn failing(world: Arc<World>, mut random: Random, lasts: Duration) -> bool {
    let Some(id) = random.pick(&world.ids()).copied() else { return false };
    let Some(disk) = world.disk(id) else { return false };
    let runs = world.process(id).is_some();
    let purpose = if random.between(0, 2) == 0 { Purpose::Log } else { Purpose::State };
    disk.fail_syncs(purpose);
    tokio::time::sleep(lasts).await;
    disk.fail_syncs(None);
    runs
}

pub async fn damaged_log(world: Arc<World>, random: Random, lasts: Duration) -> bool {
    damaged(world, random, lasts, Purpose::Log).await
}

pub async fn damaged_state(world: Arc<World>, random: Random, lasts: Duration) -> bool {
    damaged(world, random, lasts, Purpose::State).await
}

/// Only one at a time: what a majority has lost nobody can bring back.
async fn damaged(world: Arc<World>, mut random: Random, lasts: Duration, purpose: Purpose) -> bool {
    let Some(id) = random.pick(&world.ids()).copied().filter(|_| world.begin_replacing()) else { return false };
    let Some(disk) = world.disk(id) else { return false };
    world.expect_damage(id);
    world.hold(id);
    world.kill(id);
    let damaged = disk.damage(purpose, |rows| random.between(0, rows as u64) as usize);
    tokio::time::sleep(lasts).await;
    world.release(id).await;
    tokio::time::sleep(LOOK).await;
    // Repaired by itself, which it may do with a state, or refused. Either way its disk is thrown away.
    world.replace(id).await;
    damaged
}

pub async fn misdirected_log(world: Arc<World>, random: Random, lasts: Duration) -> bool {
    misdirected(world, random, lasts, Purpose::Log).await
}

pub async fn misdirected_state(world: Arc<World>, random: Random, lasts: Duration) -> bool {
    misdirected(world, random, lasts, Purpose::State).await
}

/// Only one at a time, as with [`damaged`]: the member finds it when it starts again, or the state is built again.
async fn misdirected(world: Arc<World>, mut random: Random, lasts: Duration, purpose: Purpose) -> bool {
    let Some(id) = random.pick(&world.ids()).copied().filter(|_| world.begin_replacing()) else { return false };
    let Some(disk) = world.disk(id) else { return false };
    world.expect_damage(id);
    disk.misdirect(purpose, random.draw());
    tokio::time::sleep(lasts).await;
    world.hold(id);
    world.cut_power(id);
    tokio::time::sleep(Duration::from_millis(random.between(0, 1000))).await;
    world.release(id).await;
    tokio::time::sleep(Duration::from_millis(random.between(0, 3000))).await;
    world.replace(id).await;
    true
}
