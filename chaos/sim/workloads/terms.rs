//! Each process that leads writes the term it leads in, only as its leader. So the history of one key shows who wrote when.

use std::sync::Arc;

use super::put;
use crate::Random;
use crate::sim::world::World;

pub const NAME: &str = "leader";
const EVERY_MS: u64 = 250;

/// The term in a value that was written here.
pub fn term_of(value: &str) -> Option<u64> {
    value.strip_prefix('t')?.split('-').next()?.parse().ok()
}

pub async fn run(world: Arc<World>, mut random: Random) {
    let mut number = 0u64;
    while !world.quiet.is_cancelled() {
        for (id, process) in world.processes() {
            let Some(term) = process.replica.leadership().borrow().leading else { continue };
            number += 1;
            let command = put(NAME, &format!("t{term}-m{id}-{number}"));
            // Not waited for: a leader that is cut off must not keep the others from writing.
            tokio::spawn(async move { process.replica.propose_as_leader(term, command).await });
        }
        world.think(random.between(1, EVERY_MS)).await;
    }
}
