//! Processes and machines that stop.

use std::sync::Arc;
use std::time::Duration;

use consensus::storage::Purpose;
use consensus::storage::sim::{Action, Sim};
use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::Random;
use crate::sim::world::World;

/// The most by which a clock is fast or slow, in parts per million.
const DRIFT_PPM_MAX: u64 = 100_000;

async fn down(world: Arc<World>, id: u64, lasts: Duration) -> bool {
    world.hold(id);
    let ran = world.kill(id);
    tokio::time::sleep(lasts).await;
    world.release(id).await;
    ran
}

pub async fn kill(world: Arc<World>, mut random: Random, lasts: Duration) -> bool {
    let Some(id) = random.pick(&world.ids()).copied() else { return false };
    down(world, id, lasts).await
}

pub async fn kill_leader(world: Arc<World>, _: Random, lasts: Duration) -> bool {
    let Some(id) = world.leader() else { return false };
    down(world, id, lasts).await
}

pub async fn power(world: Arc<World>, mut random: Random, lasts: Duration) -> bool {
    let Some(id) = random.pick(&world.ids()).copied() else { return false };
    world.hold(id);
    let ran = world.cut_power(id);
    tokio::time::sleep(lasts).await;
    world.release(id).await;
    ran
}

pub async fn power_all(world: Arc<World>, mut random: Random, lasts: Duration) -> bool {
    let ids = world.ids();
    let mut ran = true;
    for id in &ids {
        world.hold(*id);
        ran &= world.cut_power(*id);
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
    ran
}

async fn again(world: &Arc<World>, id: u64, away: Duration) -> bool {
    world.hold(id);
    let ran = world.stop(id).await;
    tokio::time::sleep(away).await;
    world.release(id).await;
    ran
}

pub async fn restart(world: Arc<World>, mut random: Random, lasts: Duration) -> bool {
    let Some(id) = random.pick(&world.ids()).copied() else { return false };
    again(&world, id, lasts).await
}

pub async fn restart_each(world: Arc<World>, _: Random, lasts: Duration) -> bool {
    let ids = world.ids();
    let mut ran = true;
    for id in &ids {
        ran &= again(&world, *id, lasts / ids.len() as u32).await;
    }
    ran
}

/// All masters at once, each stopped in order or killed.
pub async fn restart_all(world: Arc<World>, mut random: Random, lasts: Duration) -> bool {
    let ids = world.ids();
    let stops = ids.iter().map(|id| {
        let (world, in_order) = (world.clone(), random.between(0, 2) == 0);
        async move {
            world.hold(*id);
            if in_order { world.stop(*id).await } else { world.kill(*id) }
        }
    });
    let ran = futures::future::join_all(stops.collect::<Vec<_>>()).await;
    tokio::time::sleep(lasts).await;
    let starts = ids.iter().map(|id| world.release(*id));
    futures::future::join_all(starts.collect::<Vec<_>>()).await;
    ran.iter().all(|ran| *ran)
}

/// Every master in turn gets a newer hactl; some are killed rather than stopped, and all may fail in between.
pub async fn upgrade(world: Arc<World>, mut random: Random, lasts: Duration) -> bool {
    let mut ids = world.ids();
    super::shuffle(&mut ids, &mut random);
    let mut installed = false;
    for id in &ids {
        if world.version(*id) == state::VERSION {
            continue;
        }
        installed = true;
        world.hold(*id);
        if random.between(0, 3) == 0 {
            world.kill(*id);
        } else {
            world.stop(*id).await;
        }
        world.install(*id, state::VERSION);
        tokio::time::sleep(lasts / ids.len() as u32).await;
        world.release(*id).await;
    }
    installed
}

/// A machine whose clock is fast or slow by up to a tenth, timers and all.
pub async fn drift(world: Arc<World>, mut random: Random, lasts: Duration) -> bool {
    let Some(id) = random.pick(&world.ids()).copied() else { return false };
    let ppm = random.between(0, 2 * DRIFT_PPM_MAX) as i64 - DRIFT_PPM_MAX as i64;
    world.hold(id);
    world.set_drift(id, ppm);
    let ran = world.kill(id);
    world.release(id).await;
    // As it would be at the next start; its present process goes on measuring with it.
    tokio::time::sleep(lasts * 3).await;
    world.set_drift(id, 0);
    ran
}

/// What a power cut is aimed at.
const AIMS: &[Action] = &[
    Action::Write(Purpose::Log),
    Action::Write(Purpose::State),
    Action::Cell,
    Action::Cell,
    Action::Replace,
    Action::Checkpoint,
    Action::Append,
];

/// Power fails at a certain write of some machine, the first to come to it.
pub async fn power_at(world: Arc<World>, mut random: Random, lasts: Duration) -> bool {
    let Some(aim) = random.pick(AIMS).copied() else { return false };
    // What is seldom is not let pass.
    let pass = if matches!(aim, Action::Write(_)) { random.between(0, 20) } else { 0 };
    let then = random.between(0, 4);
    let disks: Vec<(u64, Sim)> = world.ids().into_iter().filter_map(|id| Some((id, world.disk(id)?))).collect();
    let mut hits: Vec<_> = disks.iter().map(|(_, disk)| disk.hits()).collect();
    let before: Vec<u64> = hits.iter().map(|hits| *hits.borrow()).collect();
    disks.iter().for_each(|(_, disk)| disk.aim(aim, pass, then));
    let waits = hits.iter_mut().zip(&before).map(|(hits, before)| {
        async move {
            // Its sender lives as long as the disk.
            let _ = hits.wait_for(|now| now > before).await;
        }
        .boxed()
    });
    let waits: Vec<BoxFuture<'_, ()>> = waits.collect();
    // None of them may ever come to it.
    let _ = tokio::time::timeout(lasts * 2, futures::future::select_all(waits)).await;
    let mut without = Vec::new();
    for (at, (id, disk)) in disks.iter().enumerate() {
        disk.aim_no_more();
        if *hits[at].borrow() > before[at] {
            world.trace.say(format_args!("m{id} at {aim:?}"));
            world.hold(*id);
            world.cut_power(*id);
            without.push(*id);
        }
    }
    let hit = !without.is_empty();
    for id in without {
        tokio::time::sleep(Duration::from_millis(random.between(0, lasts.as_millis() as u64 + 1))).await;
        world.release(id).await;
    }
    hit
}
