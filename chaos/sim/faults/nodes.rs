//! Nodes that stop, are cut off, or whose engine hangs; containers that end; clocks that jump.

use std::sync::Arc;
use std::time::Duration;

use kubelet::runtime::{Runtime as _, State};

use crate::Random;
use crate::sim::world::World;

pub async fn kubelet(world: Arc<World>, mut random: Random, lasts: Duration) -> bool {
    let Some(id) = random.pick(&world.nodes.ids()).copied() else { return false };
    world.hold_node(id);
    let ran = world.kill_node(id);
    tokio::time::sleep(lasts).await;
    world.release_node(id);
    ran
}

pub async fn machine(world: Arc<World>, mut random: Random, lasts: Duration) -> bool {
    let Some(id) = random.pick(&world.nodes.ids()).copied() else { return false };
    world.hold_node(id);
    let ran = world.stop_machine(id).await;
    // Long enough, as often as not, for its pods to run elsewhere.
    tokio::time::sleep(lasts * random.between(1, 5) as u32).await;
    world.release_node(id);
    ran
}

pub async fn cut(world: Arc<World>, mut random: Random, lasts: Duration) -> bool {
    let Some(id) = random.pick(&world.nodes.ids()).copied() else { return false };
    let masters = world.ids();
    // From all masters, or from some.
    let cut: Vec<u64> = masters.into_iter().filter(|_| random.between(0, 3) > 0).collect();
    let directions: Vec<(u64, u64)> = cut.iter().flat_map(|master| [(*master, id), (id, *master)]).collect();
    let before = world.net.held(&directions);
    world.net.block(&directions);
    tokio::time::sleep(lasts * random.between(1, 5) as u32).await;
    world.net.unblock(&directions);
    world.net.held(&directions) > before
}

pub async fn engine(world: Arc<World>, mut random: Random, lasts: Duration) -> bool {
    let Some(id) = random.pick(&world.nodes.ids()).copied() else { return false };
    let Some(engine) = world.nodes.engine(id) else { return false };
    let runs = world.nodes.runs(id);
    engine.hang(true);
    tokio::time::sleep(lasts).await;
    engine.hang(false);
    runs
}

pub async fn container(world: Arc<World>, mut random: Random, _: Duration) -> bool {
    let Some(engine) = random.pick(&world.nodes.ids()).and_then(|id| world.nodes.engine(*id)) else { return false };
    let Ok(listed) = tokio::time::timeout(Duration::from_secs(1), engine.list(None)).await else { return false };
    let running: Vec<_> = listed.unwrap_or_default().into_iter().filter(|one| one.state == State::Running).collect();
    let Some(container) = random.pick(&running) else { return false };
    engine.end(&container.id, random.between(0, 2) as i32);
    true
}

pub async fn clock(world: Arc<World>, mut random: Random, lasts: Duration) -> bool {
    let Some(id) = random.pick(&world.ids()).copied() else { return false };
    let seconds = random.between(1, 7200) as i64;
    world.set_clock(id, if random.between(0, 2) == 0 { seconds } else { -seconds });
    let runs = world.process(id).is_some();
    tokio::time::sleep(lasts).await;
    world.set_clock(id, 0);
    runs
}

pub async fn pressure(world: Arc<World>, mut random: Random, lasts: Duration) -> bool {
    let Some(machine) = random.pick(&world.nodes.ids()).and_then(|id| world.nodes.machine(*id)) else { return false };
    let before = machine.told_full();
    machine.fill(true);
    tokio::time::sleep(lasts * random.between(1, 8) as u32).await;
    machine.fill(false);
    machine.told_full() > before
}
