//! The table of faults. Each begins at its time, lasts, and ends; several at once are as likely as not. To add one: a
//! function and a row.

mod disks;
mod members;
mod network;
mod nodes;
mod processes;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use super::world::World;
use crate::Random;

pub struct Fault {
    pub name: &'static str,
    pub about: &'static str,
    /// How often it is drawn, compared with the others.
    pub weight: u64,
    /// It strikes nodes: where there are none it is not drawn.
    pub on_nodes: bool,
    /// Begins it, keeps it up for so long, and ends it. Whether it did anything: not so if it found nothing to strike, was
    /// refused, or nobody noticed.
    pub run: fn(Arc<World>, Random, Duration) -> BoxFuture<'static, bool>,
}

fn shuffle(ids: &mut [u64], random: &mut Random) {
    for at in (1..ids.len()).rev() {
        ids.swap(at, random.between(0, at as u64 + 1) as usize);
    }
}

macro_rules! fault {
    (on nodes: $weight:literal, $name:literal, $about:literal, $run:path) => {
        Fault { on_nodes: true, ..fault!($weight, $name, $about, $run) }
    };
    ($weight:literal, $name:literal, $about:literal, $run:path) => {
        Fault {
            name: $name,
            about: $about,
            weight: $weight,
            on_nodes: false,
            run: |world, random, lasts| Box::pin($run(world, random, lasts)),
        }
    };
}

pub const ALL: &[Fault] = &[
    fault!(6, "kill", "a master's process is killed and started again later", processes::kill),
    fault!(6, "kill-leader", "the leader's process is killed and started again later", processes::kill_leader),
    fault!(6, "power", "a machine loses power, and what it had not synced", processes::power),
    fault!(2, "power-all", "all machines lose power at once", processes::power_all),
    fault!(
        6,
        "power-at",
        "a machine loses power at a certain write: of a log, state, snapshot or small file",
        processes::power_at
    ),
    fault!(2, "restart-all", "all masters at once are stopped or killed, and started again", processes::restart_all),
    fault!(3, "upgrade", "every master in turn gets a hactl that knows newer rules", processes::upgrade),
    fault!(2, "drift", "a master's clock, timers and all, is fast or slow by up to a tenth", processes::drift),
    fault!(3, "restart", "a master is stopped in order and started again", processes::restart),
    fault!(2, "restart-each", "every master in turn is stopped in order and started again", processes::restart_each),
    fault!(5, "halves", "the masters fall into two halves", network::halves),
    fault!(5, "isolate-leader", "the leader is cut off from all others", network::isolate_leader),
    fault!(2, "deposed", "the leader is cut off and loses power when it hears of the next one", network::deposed),
    fault!(
        2,
        "lapse",
        "the leader stops for want of answers and goes on in its term, others' disks are slow",
        network::lapse
    ),
    fault!(5, "one-way", "a master hears others but is not heard, or the other way round", network::one_way),
    fault!(3, "bridge", "two halves that only one master reaches both of", network::bridge),
    fault!(3, "flapping", "a link that fails and returns again and again", network::flapping),
    fault!(4, "delay", "some links are slow", network::delay),
    fault!(4, "loss", "packets are lost and sent again", network::loss),
    fault!(4, "repeat", "calls arrive twice", network::repeat),
    fault!(5, "slow-disk", "syncs of one master take up to a second", disks::slow),
    fault!(3, "full-disk", "a disk has no room left, said or not", disks::full),
    fault!(3, "failing-disk", "every sync of one master fails", disks::failing),
    fault!(2, "damaged-log", "a row of a log becomes unreadable: the member is replaced", disks::damaged_log),
    fault!(
        2,
        "damaged-state",
        "a row of a state becomes unreadable: it is built again, or the member is replaced",
        disks::damaged_state
    ),
    fault!(
        2,
        "misdirected-log",
        "an entry is written to another entry's place: the member is replaced",
        disks::misdirected_log
    ),
    fault!(
        2,
        "misdirected-state",
        "a row of the state is written to another's place: it is built again, or the member is replaced",
        disks::misdirected_state
    ),
    fault!(3, "transfer", "leadership is handed to another master", members::transfer),
    fault!(2, "replace", "a master is taken out and a new one put in", members::replace),
    fault!(2, "relieve", "a new master is added, then another one taken out", members::relieve),
    fault!(2, "reseed", "all take snapshots, lose power and return; then one is replaced", members::reseed),
    fault!(on nodes: 4, "kubelet", "a kubelet is killed and started again; its containers run on", nodes::kubelet),
    fault!(on nodes: 4, "machine", "a node's machine stops, and all its containers", nodes::machine),
    fault!(on nodes: 4, "cut-node", "a node is cut off from all or some masters", nodes::cut),
    fault!(on nodes: 2, "engine", "a container engine does not answer", nodes::engine),
    fault!(on nodes: 2, "pressure", "a node's disk is nearly full", nodes::pressure),
    fault!(on nodes: 4, "container", "a container ends by itself, well or badly", nodes::container),
    fault!(3, "clock", "a master's wall clock is wrong by up to two hours", nodes::clock),
    fault!(3, "snapshot", "a master takes a snapshot now", members::snapshot),
];
