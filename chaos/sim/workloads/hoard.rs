//! Fills the store until its quota refuses more, then gives the room back. Only where the quota is small.

use std::sync::Arc;

use state::{Command, Op, Refusal};

use super::{key, put};
use crate::Random;
use crate::sim::world::World;

const THING_BYTES: usize = 256 << 10;
const THINGS: usize = 64;
const THINK_MS: u64 = 15_000;

pub async fn run(world: Arc<World>, mut random: Random) {
    let mut round = 0;
    while !world.quiet.is_cancelled() && world.quota() > 0 {
        world.think(random.between(0, THINK_MS)).await;
        round += 1;
        fill(&world, &mut random, round).await;
        world.think(random.between(0, 2000)).await;
        for number in 0..THINGS {
            empty(&world, &mut random, &format!("hoard-{number}")).await;
        }
    }
}

/// Until something is refused or goes wrong.
async fn fill(world: &World, random: &mut Random, round: u64) {
    for number in 0..THINGS {
        let processes = world.processes();
        let Some((_, process)) = random.pick(&processes) else { return };
        let value = format!("h{round}-{number}-{}", "x".repeat(THING_BYTES));
        let outcome = process.replica.propose(put(&format!("hoard-{number}"), &value)).await;
        if outcome.as_ref().is_ok_and(|outcome| matches!(outcome.refusal, Some(Refusal::OverQuota(_)))) {
            world.note_full();
        }
        if !outcome.is_ok_and(|outcome| outcome.refusal.is_none()) || world.quiet.is_cancelled() {
            return;
        }
    }
}

/// However often it takes, for as long as the world goes on.
async fn empty(world: &World, random: &mut Random, name: &str) {
    loop {
        let processes = world.processes();
        if let Some((_, process)) = random.pick(&processes) {
            if process.replica.root().get(&key(name)).is_none() && world.quiet.is_cancelled() {
                return;
            }
            let command = Command { ops: vec![Op::delete(key(name))], ..Command::default() };
            if process.replica.propose(command).await.is_ok() {
                return;
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(random.between(100, 1000))).await;
    }
}
