//! Nodes that stop, are cut off, or whose engine hangs; containers that end; clocks that jump.

use std::sync::Arc;
use std::time::Duration;

use kubelet::runtime::{Runtime as _, State};

use crate::Random;
use crate::sim::world::World;

pub async fn kubelet(world: Arc<World>, mut random: Random, lasts: Duration) {
    let Some(id) = random.pick(&world.nodes.ids()).copied() else { return };
    world.hold_node(id);
    world.kill_node(id);
    tokio::time::sleep(lasts).await;
    world.release_node(id);
}

pub async fn machine(world: Arc<World>, mut random: Random, lasts: Duration) {
    let Some(id) = random.pick(&world.nodes.ids()).copied() else { return };
    world.hold_node(id);
    world.stop_machine(id).await;
    // Long enough, as often as not, for its pods to run elsewhere.
    tokio::time::sleep(lasts * random.between(1, 5) as u32).await;
    world.release_node(id);
}

pub async fn cut(world: Arc<World>, mut random: Random, lasts: Duration) {
    let Some(id) = random.pick(&world.nodes.ids()).copied() else { return };
    let masters = world.ids();
    // From all masters, or from some.
    let cut: Vec<u64> = masters.into_iter().filter(|_| random.between(0, 3) > 0).collect();
    let directions: Vec<(u64, u64)> = cut.iter().flat_map(|master| [(*master, id), (id, *master)]).collect();
    world.net.block(&directions);
    tokio::time::sleep(lasts * random.between(1, 5) as u32).await;
    world.net.unblock(&directions);
}

pub async fn engine(world: Arc<World>, mut random: Random, lasts: Duration) {
    let Some(engine) = random.pick(&world.nodes.ids()).and_then(|id| world.nodes.engine(*id)) else { return };
    engine.hang(true);
    tokio::time::sleep(lasts).await;
    engine.hang(false);
}

pub async fn container(world: Arc<World>, mut random: Random, _: Duration) {
    let Some(engine) = random.pick(&world.nodes.ids()).and_then(|id| world.nodes.engine(*id)) else { return };
    let Ok(listed) = tokio::time::timeout(Duration::from_secs(1), engine.list(None)).await else { return };
    let running: Vec<_> = listed.unwrap_or_default().into_iter().filter(|one| one.state == State::Running).collect();
    if let Some(container) = random.pick(&running) {
        engine.end(&container.id, random.between(0, 2) as i32);
    }
}

pub async fn clock(world: Arc<World>, mut random: Random, lasts: Duration) {
    let Some(id) = random.pick(&world.ids()).copied() else { return };
    let seconds = random.between(1, 7200) as i64;
    world.set_clock(id, if random.between(0, 2) == 0 { seconds } else { -seconds });
    tokio::time::sleep(lasts).await;
    world.set_clock(id, 0);
}

pub async fn pressure(world: Arc<World>, mut random: Random, lasts: Duration) {
    let Some(machine) = random.pick(&world.nodes.ids()).and_then(|id| world.nodes.machine(*id)) else { return };
    machine.fill(true);
    tokio::time::sleep(lasts * random.between(1, 8) as u32).await;
    machine.fill(false);
}
