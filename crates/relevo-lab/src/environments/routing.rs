//! `routing@1`: nodes of a network hand a packet on until it is where it is to go, with the exact costs as the oracle.
//!
//! An agent observes the destination and whether the packet is detained at it, and chooses a neighbour; every hop costs 1. A
//! congested node detains what passes through it with probability 1/2 for one step, which costs 1 and leaves the agent no other
//! choice than to hold. The network is determined by a seed; the numbers are ours, see `docs/paper.md`.

use std::{cmp::Reverse, collections::BinaryHeap};

use relevo_core::{
    Rng,
    ids::{ActionId, AgentId},
    observation::{ActionSet, Observation, Signature},
    protocol::Choice,
    units::{Discount, Return, Tau},
};

use crate::environment::{Column, Environment, EnvironmentSpec, Next, Transition};

/// Name and version.
pub const NAME: &str = "routing@1";
/// How likely a congested node detains a packet.
const DETAINED: f64 = 0.5;

/// Families of networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Erdos and Renyi: every edge with probability `2 ln n / n`.
    ErdosRenyi,
    /// Barabasi and Albert: every new node takes 2 neighbours, in proportion to their degrees.
    BarabasiAlbert,
    /// Watts and Strogatz: a ring of 4 neighbours each, every edge rewired with probability .1.
    WattsStrogatz,
    /// One after the other.
    Chain,
}

impl Shape {
    /// All of them.
    pub const ALL: [Shape; 4] =
        [Shape::ErdosRenyi, Shape::BarabasiAlbert, Shape::WattsStrogatz, Shape::Chain];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Shape::ErdosRenyi => "Erdos-Renyi",
            Shape::BarabasiAlbert => "Barabasi-Albert",
            Shape::WattsStrogatz => "Watts-Strogatz",
            Shape::Chain => "chain",
        }
    }
}

/// A connected, undirected network.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    neighbours: Vec<Vec<usize>>,
    congestion: Vec<f64>,
}

impl Network {
    /// The network of at least 5 nodes that `seed` determines; each node is congested with probability `congested`.
    pub fn generate(shape: Shape, nodes: usize, congested: f64, seed: u64) -> Self {
        assert!(nodes >= 5, "a network has at least 5 nodes");
        let mut rng = Rng::stream(seed, &format!("routing/{}/{nodes}", shape.name()));
        let mut edges = Edges(vec![vec![]; nodes]);
        match shape {
            Shape::ErdosRenyi => {
                // p = 2 ln n / n
                let p = 2.0 * (nodes as f64).ln() / nodes as f64;
                for a in 0..nodes {
                    for b in a + 1..nodes {
                        if rng.unit() < p {
                            edges.add(a, b);
                        }
                    }
                }
            }
            Shape::BarabasiAlbert => {
                // Every end of every edge: a uniform pick is in proportion to the degrees.
                let mut ends = vec![0, 1, 0, 2, 1, 2];
                ends.chunks(2).for_each(|e| edges.add(e[0], e[1]));
                for a in 3..nodes {
                    let old = ends.len() as u32;
                    while edges.0[a].len() < 2 {
                        let b = ends[rng.below(old) as usize];
                        if !edges.0[a].contains(&b) {
                            edges.add(a, b);
                            ends.extend([a, b]);
                        }
                    }
                }
            }
            Shape::WattsStrogatz => {
                for k in [1, 2] {
                    (0..nodes).for_each(|a| edges.add(a, (a + k) % nodes));
                }
                for k in [1, 2] {
                    for a in 0..nodes {
                        let (b, c) = ((a + k) % nodes, rng.below(nodes as u32) as usize);
                        if rng.unit() < 0.1 && c != a && !edges.0[a].contains(&c) {
                            edges.remove(a, b);
                            edges.add(a, c);
                        }
                    }
                }
            }
            Shape::Chain => (1..nodes).for_each(|b| edges.add(b - 1, b)),
        }
        edges.connect(&mut rng);
        let mut rng = Rng::stream(seed, "routing/congestion");
        let congestion = (0..nodes).map(|_| if rng.unit() < congested { DETAINED } else { 0.0 }).collect();
        Network { neighbours: edges.sorted(), congestion }
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> usize {
        self.neighbours.len()
    }

    /// The neighbours of a node, ascending; the choices of its agent are in this order.
    pub fn neighbours(&self, node: usize) -> &[usize] {
        &self.neighbours[node]
    }

    /// The expected cost of handing from a neighbour to `node`: `1 + c_v [v is not the destination]`.
    pub fn cost(&self, node: usize, destination: usize) -> f64 {
        1.0 + if node == destination { 0.0 } else { self.congestion[node] }
    }

    /// The least expected cost from every node to `destination` (Dijkstra).
    pub fn costs_to(&self, destination: usize) -> Vec<f64> {
        let mut costs = vec![f64::INFINITY; self.nodes()];
        costs[destination] = 0.0;
        // The bits of numbers that are not negative are in the order of the numbers.
        let mut open = BinaryHeap::from([Reverse((0.0f64.to_bits(), destination))]);
        while let Some(Reverse((bits, node))) = open.pop() {
            let cost = f64::from_bits(bits);
            if cost > costs[node] {
                continue;
            }
            for &from in self.neighbours(node) {
                let through = cost + self.cost(node, destination);
                if through < costs[from] {
                    costs[from] = through;
                    open.push(Reverse((through.to_bits(), from)));
                }
            }
        }
        costs
    }

    /// Steps after which a packet is given up.
    pub fn steps_max(&self) -> u32 {
        let n = self.nodes() as u32;
        if n <= 50 { 20 * n + 200 } else { 4 * n }
    }

    /// What the agent of `node` observes of a packet.
    pub fn observation(&self, node: usize, destination: usize, detained: bool) -> Observation {
        let degree = self.neighbours[node].len();
        let legal = match detained {
            true => [ActionId(degree as u32)].into_iter().collect(),
            false => ActionSet::all(degree),
        };
        Observation::of(Self::signature(destination, detained), legal)
    }

    /// How agents name what they observe.
    pub fn signature(destination: usize, detained: bool) -> Signature {
        Signature(2 * destination as u64 + u64::from(detained))
    }
}

/// The neighbours of each node, while a network is being made.
struct Edges(Vec<Vec<usize>>);

impl Edges {
    fn add(&mut self, a: usize, b: usize) {
        self.0[a].push(b);
        self.0[b].push(a);
    }

    fn remove(&mut self, a: usize, b: usize) {
        self.0[a].retain(|x| *x != b);
        self.0[b].retain(|x| *x != a);
    }

    /// Tie every part to the part of node 0, by one edge between random nodes.
    fn connect(&mut self, rng: &mut Rng) {
        let mut joined = self.part(0);
        for a in 0..self.0.len() {
            if !joined.contains(&a) {
                let part = self.part(a);
                let pick = |nodes: &[usize], rng: &mut Rng| nodes[rng.below(nodes.len() as u32) as usize];
                let (inner, outer) = (pick(&joined, rng), pick(&part, rng));
                self.add(inner, outer);
                joined.extend(part);
            }
        }
    }

    /// The nodes that can be reached from `node`.
    fn part(&self, node: usize) -> Vec<usize> {
        let (mut seen, mut part) = (vec![false; self.0.len()], vec![node]);
        seen[node] = true;
        let mut next = 0;
        while let Some(a) = part.get(next) {
            next += 1;
            let new: Vec<usize> = self.0[*a].iter().copied().filter(|b| !seen[*b]).collect();
            new.iter().for_each(|b| seen[*b] = true);
            part.extend(new);
        }
        part
    }

    fn sorted(mut self) -> Vec<Vec<usize>> {
        self.0.iter_mut().for_each(|n| n.sort_unstable());
        self.0
    }
}

/// A network, and where its packet is.
pub struct Routing {
    spec: EnvironmentSpec,
    network: Network,
    rng: Rng,
    at: usize,
    destination: usize,
    detained: bool,
    steps: u32,
}

impl Routing {
    /// Packets on `network`.
    pub fn new(network: Network) -> Self {
        let column = |name: String, to: usize| Column { name, leads: Choice::HandTo(AgentId(to as u32)) };
        let columns = |node: usize| {
            let mut columns: Vec<Column> =
                network.neighbours(node).iter().map(|to| column(format!("node {to}"), *to)).collect();
            if network.congestion[node] > 0.0 {
                columns.push(column("hold".to_owned(), node));
            }
            columns
        };
        let spec = EnvironmentSpec {
            name: NAME,
            agents: (0..network.nodes()).map(|node| format!("node {node}")).collect(),
            choices: (0..network.nodes()).map(columns).collect(),
            discount: Discount::NONE,
            returns: (-f64::from(network.steps_max()), -1.0),
        };
        let rng = Rng::stream(0, "routing/episode");
        Routing { spec, network, rng, at: 0, destination: 0, detained: false, steps: 0 }
    }

    /// Where its packets go.
    pub fn network(&self) -> &Network {
        &self.network
    }
}

impl Environment for Routing {
    fn spec(&self) -> &EnvironmentSpec {
        &self.spec
    }

    /// From a uniform node to another one.
    fn reset(&mut self, seed: u64) -> AgentId {
        self.rng = Rng::stream(seed, "routing/episode");
        let nodes = self.network.nodes() as u32;
        self.at = self.rng.below(nodes) as usize;
        self.destination = self.rng.below(nodes - 1) as usize;
        self.destination += usize::from(self.destination >= self.at);
        (self.detained, self.steps) = (false, 0);
        AgentId(self.at as u32)
    }

    fn observe(&self, agent: AgentId) -> Observation {
        self.network.observation(agent.0 as usize, self.destination, self.detained)
    }

    fn describe(&self) -> String {
        let detained = if self.detained { ", detained" } else { "" };
        format!("packet for node {} at node {}{detained}", self.destination, self.at)
    }

    fn step(&mut self, action: ActionId) -> Transition {
        self.steps += 1;
        if self.detained {
            self.detained = false;
        } else {
            self.at = self.network.neighbours(self.at)[action.index()];
            let c = self.network.congestion[self.at];
            self.detained = self.at != self.destination && c > 0.0 && self.rng.unit() < c;
        }
        // The deadline is an end of the task as well. It asks no price of its own: that understates the cost of the last hop,
        // as an optimist does, and so is put right by the next packet.
        let ended = self.at == self.destination || self.steps == self.network.steps_max();
        let next = if ended { Next::Terminal } else { Next::Active(AgentId(self.at as u32)) };
        Transition { reward: Return::new(-1.0).expect("finite"), tau: Tau::ONE, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::obeys_environment_laws;

    #[test]
    fn it_is_an_environment() {
        for (seed, shape) in (0..3).flat_map(|seed| Shape::ALL.map(|shape| (seed, shape))) {
            for congested in [0.0, 0.5] {
                let make = || Box::new(Routing::new(Network::generate(shape, 12, congested, seed))) as _;
                obeys_environment_laws(make, 0..20, 441);
            }
        }
    }

    #[test]
    fn networks_are_connected_simple_and_of_their_family() {
        for (seed, nodes) in (0..5).flat_map(|seed| [10, 50, 200].map(|n| (seed, n))) {
            for shape in Shape::ALL {
                let network = Network::generate(shape, nodes, 0.2, seed);
                assert_eq!(network, Network::generate(shape, nodes, 0.2, seed));
                assert!(network.costs_to(0).iter().all(|c| c.is_finite()), "{shape:?} {nodes} {seed}");
                for a in 0..nodes {
                    let n = network.neighbours(a);
                    assert!(n.windows(2).all(|w| w[0] < w[1]) && !n.contains(&a), "{shape:?} {nodes} {seed}");
                    assert!(n.iter().all(|b| network.neighbours(*b).contains(&a)));
                }
                let edges = (0..nodes).map(|a| network.neighbours(a).len()).sum::<usize>() / 2;
                match shape {
                    // Within 5 standard deviations of n (n - 1) / 2 p, and the edges that connect.
                    Shape::ErdosRenyi => {
                        let n = nodes as f64;
                        let (pairs, p) = (n * (n - 1.0) / 2.0, 2.0 * n.ln() / n);
                        let deviation = (pairs * p * (1.0 - p)).sqrt();
                        assert!((edges as f64 - pairs * p).abs() < 5.0 * deviation + 2.0, "{edges}");
                    }
                    Shape::BarabasiAlbert => assert_eq!(edges, 3 + 2 * (nodes - 3)),
                    Shape::WattsStrogatz => assert!((2 * nodes..2 * nodes + 2).contains(&edges)),
                    Shape::Chain => assert_eq!(edges, nodes - 1),
                }
            }
        }
    }

    /// The networks of seed 1 are part of the meaning of the name and version.
    #[test]
    fn the_small_networks_stay_as_they_are() {
        let text = |shape| format!("{:?}", Network::generate(shape, 6, 0.0, 1).neighbours);
        assert_eq!(
            Shape::ALL.map(text),
            [
                "[[3, 4, 5], [2, 3, 5], [1, 3], [0, 1, 2], [0], [0, 1]]",
                "[[1, 2, 3, 4, 5], [0, 2, 3, 4], [0, 1], [0, 1], [0, 1, 5], [0, 4]]",
                "[[1, 2, 3, 4, 5], [0, 3, 4, 5], [0, 3, 4], [0, 1, 2, 5], [0, 1, 2, 5], [0, 1, 3, 4]]",
                "[[1], [0, 2], [1, 3], [2, 4], [3, 5], [4]]",
            ]
        );
    }

    /// Bellman and Ford's relaxation of all edges, n times over, gives Dijkstra's costs.
    #[test]
    fn the_oracle_solves_the_bellman_equation() {
        for shape in Shape::ALL {
            let network = Network::generate(shape, 30, 0.5, 4);
            for destination in 0..30 {
                let mut costs = [f64::INFINITY; 30];
                costs[destination] = 0.0;
                for _ in 0..30 {
                    for u in (0..30).filter(|u| *u != destination) {
                        // V(u) = min_v 1 + c_v [v != d] + V(v)
                        let through = |v: &usize| network.cost(*v, destination) + costs[*v];
                        costs[u] = network.neighbours(u).iter().map(through).fold(f64::INFINITY, f64::min);
                    }
                }
                assert_eq!(network.costs_to(destination), costs, "{shape:?}");
            }
        }
    }

    /// 20,000 packets over the middle of a chain whose inner nodes are all congested: the mean cost of the only path meets the
    /// oracle's within 5 standard errors (false alarm below 1e-6; the seeds are fixed).
    #[test]
    fn episodes_cost_what_the_oracle_says() {
        let mut env = Routing::new(Network::generate(Shape::Chain, 5, 1.0, 1));
        let oracle: Vec<Vec<f64>> = (0..5).map(|d| env.network.costs_to(d)).collect();
        assert_eq!(oracle[4], [5.5, 4.0, 2.5, 1.0, 0.0]);
        let (mut excess, mut squares, n) = (0.0, 0.0, 20_000);
        for seed in 0..n {
            let from = env.reset(seed).0 as usize;
            let mut cost = 0.0;
            loop {
                let legal = env.observe(AgentId(env.at as u32)).legal;
                let action = match env.destination > env.at {
                    true => legal.iter().last(),
                    false => legal.first(),
                };
                let transition = env.step(action.expect("there is always a choice"));
                cost -= transition.reward.get();
                if transition.next == Next::Terminal {
                    break;
                }
            }
            let x = cost - oracle[env.destination][from];
            excess += x;
            squares += x * x;
        }
        let mean = excess / n as f64;
        assert!(mean.abs() < 5.0 * (squares / n as f64 / n as f64).sqrt(), "{mean}");
    }
}
