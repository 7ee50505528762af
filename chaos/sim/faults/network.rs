//! Networks that do not carry everything.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;

use crate::Random;
use crate::sim::world::World;

type Directions = Vec<(u64, u64)>;

/// Longer than the others need for an election, and than who was cut off needs to hear of it.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(3);
/// A little longer than a leader goes on without an answer, but too short for it to be forgotten.
const LAPSE_MS: (u64, u64) = (205, 600);

/// Both directions between every one of these and every one of those.
fn between(these: &[u64], those: &[u64]) -> Directions {
    these.iter().flat_map(|one| those.iter().flat_map(|other| [(*one, *other), (*other, *one)])).collect()
}

/// Whether anything was held up.
async fn blocked(world: &World, directions: Directions, lasts: Duration) -> bool {
    let before = world.net.held(&directions);
    world.net.block(&directions);
    tokio::time::sleep(lasts).await;
    world.net.unblock(&directions);
    world.net.held(&directions) > before
}

/// All ids in an order of their own.
fn shuffled(world: &World, random: &mut Random) -> Vec<u64> {
    let mut ids = world.ids();
    super::shuffle(&mut ids, random);
    ids
}

pub async fn halves(world: Arc<World>, mut random: Random, lasts: Duration) -> bool {
    let ids = shuffled(&world, &mut random);
    let (these, those) = ids.split_at(random.between(1, ids.len().max(2) as u64) as usize);
    blocked(&world, between(these, those), lasts).await
}

pub async fn isolate_leader(world: Arc<World>, _: Random, lasts: Duration) -> bool {
    let Some(leader) = world.leader() else { return false };
    let others: Vec<u64> = world.ids().into_iter().filter(|id| *id != leader).collect();
    blocked(&world, between(&[leader], &others), lasts).await
}

/// Waits until some master says so of itself, but not for ever; whether one did.
async fn until(world: &World, says: impl Fn(u64, &replica::Leadership) -> bool + Sync) -> bool {
    let leaderships = world.processes().into_iter().map(|(id, process)| (id, process.replica.leadership()));
    let waits = leaderships.map(|(id, mut leadership)| {
        let says = &says;
        // One that ends says nothing.
        async move {
            if leadership.wait_for(|now| says(id, now)).await.is_err() {
                std::future::pending::<()>().await
            }
        }
        .boxed()
    });
    let waits: Vec<_> = waits.chain([std::future::pending().boxed()]).collect();
    tokio::time::timeout(FOLLOWS_WITHIN, futures::future::select_all(waits)).await.is_ok()
}

/// The leader is cut off until another one leads. What it wrote meanwhile goes when it hears of that one, and right then its
/// power fails.
pub async fn deposed(world: Arc<World>, mut random: Random, lasts: Duration) -> bool {
    let Some(leader) = world.leader() else { return false };
    let others: Vec<u64> = world.ids().into_iter().filter(|id| *id != leader).collect();
    let directions = between(&[leader], &others);
    world.net.block(&directions);
    let led = until(&world, |id, now| id != leader && now.leading.is_some()).await;
    world.net.unblock(&directions);
    let heard = until(&world, |id, now| id == leader && now.leader.is_some_and(|next| next != leader)).await;
    tokio::time::sleep(Duration::from_millis(random.between(0, 20))).await;
    world.hold(leader);
    world.cut_power(leader);
    tokio::time::sleep(lasts / 4).await;
    world.release(leader).await;
    led && heard
}

/// Again and again the leader is heard but hears nobody for just so long that it stops, and then goes on in the same term;
/// what it had proposed takes the others' disks longer than that.
pub async fn lapse(world: Arc<World>, mut random: Random, lasts: Duration) -> bool {
    let Some(leader) = world.leader() else { return false };
    let others: Vec<u64> = world.ids().into_iter().filter(|id| *id != leader).collect();
    let disks: Vec<_> = others.iter().filter_map(|id| world.disk(*id)).collect();
    disks.iter().for_each(|disk| disk.slow_syncs(Duration::from_millis(LAPSE_MS.1 * 2)));
    let ends = tokio::time::Instant::now() + lasts;
    let mut held = false;
    while tokio::time::Instant::now() < ends {
        held |= blocked(
            &world,
            others.iter().map(|other| (*other, leader)).collect(),
            Duration::from_millis(random.between(LAPSE_MS.0, LAPSE_MS.1)),
        )
        .await;
        tokio::time::sleep(Duration::from_millis(random.between(1, LAPSE_MS.1))).await;
    }
    disks.iter().for_each(|disk| disk.slow_syncs(Duration::ZERO));
    held
}

pub async fn one_way(world: Arc<World>, mut random: Random, lasts: Duration) -> bool {
    let ids = world.ids();
    let Some(id) = random.pick(&ids).copied() else { return false };
    let hears = random.between(0, 2) == 0;
    let others = ids.into_iter().filter(|other| *other != id);
    blocked(&world, others.map(|other| if hears { (id, other) } else { (other, id) }).collect(), lasts).await
}

pub async fn bridge(world: Arc<World>, mut random: Random, lasts: Duration) -> bool {
    let ids = shuffled(&world, &mut random);
    let Some((_, others)) = ids.split_first() else { return false };
    let (these, those) = others.split_at(others.len() / 2);
    blocked(&world, between(these, those), lasts).await
}

pub async fn flapping(world: Arc<World>, mut random: Random, lasts: Duration) -> bool {
    let ids = shuffled(&world, &mut random);
    let [one, other, ..] = ids[..] else { return false };
    let until = tokio::time::Instant::now() + lasts;
    let mut held = false;
    while tokio::time::Instant::now() < until {
        held |= blocked(&world, between(&[one], &[other]), Duration::from_millis(random.between(10, 800))).await;
        tokio::time::sleep(Duration::from_millis(random.between(10, 800))).await;
    }
    held
}

pub async fn delay(world: Arc<World>, mut random: Random, lasts: Duration) -> bool {
    let ids = world.ids();
    let before = world.net.met().late;
    let mut slowed = Vec::new();
    for from in &ids {
        for to in ids.iter().filter(|to| *to != from) {
            if random.between(0, 3) == 0 {
                world.net.slow(*from, *to, Duration::from_millis(random.between(1, 300)));
                slowed.push((*from, *to));
            }
        }
    }
    tokio::time::sleep(lasts).await;
    for (from, to) in slowed {
        world.net.slow(from, to, Duration::ZERO);
    }
    world.net.met().late > before
}

pub async fn loss(world: Arc<World>, mut random: Random, lasts: Duration) -> bool {
    let before = world.net.met().lost;
    world.net.lose(random.between(10, 300));
    tokio::time::sleep(lasts).await;
    world.net.lose(0);
    world.net.met().lost > before
}

pub async fn repeat(world: Arc<World>, mut random: Random, lasts: Duration) -> bool {
    let before = world.net.met().twice;
    world.net.repeat(random.between(10, 500));
    tokio::time::sleep(lasts).await;
    world.net.repeat(0);
    world.net.met().twice > before
}
