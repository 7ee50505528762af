//! Which of the nodes that fit is best: the sum of weighted scores from 0 to 100. To add one: a function and a row.

use super::filters::is_tolerated;
use super::{Node, Pod};
use crate::json;

/// What a score knows beside the node itself.
struct Field {
    /// The most pods of this pod's controller that any fitting node has.
    siblings_max: usize,
}

type Score = fn(&Pod<'_>, &Node<'_>, &Field) -> i64;

/// Weight and score.
const SCORES: &[(i64, Score)] = &[(1, least_allocated), (2, spread), (3, preferred_taints)];

/// The best of the nodes; between equals the pod's uid decides, so that pods without owner spread too.
pub fn best<'a>(pod: &Pod<'_>, nodes: &[Node<'a>]) -> Option<Node<'a>> {
    let siblings_max = nodes.iter().map(|node| siblings(pod, node)).max().unwrap_or(0);
    let field = Field { siblings_max };
    let uid = json::text(pod.object, "metadata.uid");
    nodes.iter().copied().max_by_key(|node| {
        let score: i64 = SCORES.iter().map(|(weight, score)| weight * score(pod, node, &field)).sum();
        (score, json::fnv32(format!("{uid}/{}", node.info.name).as_bytes()))
    })
}

/// The share of cpu and memory that stays free.
fn least_allocated(_pod: &Pod<'_>, node: &Node<'_>, _field: &Field) -> i64 {
    let free = |whole: i64, used: i64| if whole <= 0 { 0 } else { ((whole - used).max(0) * 100) / whole };
    let cpu = free(node.info.cpu_milli, node.load.cpu_weighed_milli);
    let memory = free(node.info.memory >> 10, node.load.memory_weighed >> 10);
    (cpu + memory) / 2
}

/// Few pods of the same controller.
fn spread(pod: &Pod<'_>, node: &Node<'_>, field: &Field) -> i64 {
    let here = siblings(pod, node);
    match field.siblings_max {
        0 => 100,
        max => i64::try_from((max - here) * 100 / max).unwrap_or(0),
    }
}

fn siblings(pod: &Pod<'_>, node: &Node<'_>) -> usize {
    node.load.owners.get(&pod.request.owner).copied().unwrap_or(0)
}

/// No taint that asks to stay away.
fn preferred_taints(pod: &Pod<'_>, node: &Node<'_>, _field: &Field) -> i64 {
    let against = node
        .info
        .taints
        .iter()
        .filter(|taint| json::text(taint, "effect") == "PreferNoSchedule" && !is_tolerated(pod, taint))
        .count();
    100 / (1 + i64::try_from(against).unwrap_or(i64::MAX - 1))
}
