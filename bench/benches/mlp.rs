//! The paper's network, 20-512-512-512-16 with a target network, against PyTorch on one thread (peers/torch_mlp.py, where
//! `python3 -c 'import torch'` works) and against the arithmetic and memory traffic that it cannot do without.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use relevo_bench::{
    cpu_time, criterion,
    limits::{read_bytes, sgemm_flops, sweep_bytes},
    median, met, verdict,
};
use relevo_core::{
    Rng,
    ids::ActionId,
    observation::{ActionSet, Features, Observation, Signature},
    policy::argmax,
    q::{Mlp, MlpSpec, Optimiser, QFunction},
};

const INPUTS: usize = 20;
const HIDDEN: [usize; 3] = [512; 3];
const ACTIONS: usize = 16;

fn net(optimiser: Optimiser, batch: usize, trust_radius: Option<f64>) -> Mlp {
    let spec = MlpSpec {
        inputs: INPUTS,
        hidden: HIDDEN.to_vec(),
        width: ACTIONS,
        optimiser,
        batch,
        trust_radius,
        offset: 0.0,
    };
    Mlp::new(spec, &mut Rng::stream(1, "bench/net")).unwrap()
}

/// What one update learns from: an observation, a choice, a reward and the observation after.
fn samples(n: usize) -> Vec<(Observation, ActionId, f64, Observation)> {
    let mut rng = Rng::stream(1, "bench/samples");
    let legal = ActionSet::all(ACTIONS);
    let see = |rng: &mut Rng| Observation {
        signature: Signature(0),
        features: Features::Dense((0..INPUTS).map(|_| rng.normal() as f32).collect()),
        legal: legal.clone(),
    };
    (0..n).map(|_| (see(&mut rng), ActionId(rng.below(16)), rng.unit(), see(&mut rng))).collect()
}

/// PyTorch beside us; it measures when it is asked.
struct Peer {
    process: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    /// The reason if there is none.
    fn start() -> Result<Self, String> {
        let mut python = Command::new("python3");
        if !python.args(["-c", "import torch"]).output().map_err(|e| e.to_string())?.status.success() {
            return Err("python3 has no torch".into());
        }
        let mut process = Command::new("python3")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/peers/torch_mlp.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| e.to_string())?;
        let asks = process.stdin.take().expect("it is piped");
        let answers = BufReader::new(process.stdout.take().expect("it is piped"));
        Ok(Peer { process, asks, answers })
    }

    /// The rate of a case in the way that is the fastest just now.
    fn rate(&mut self, case: &str) -> Result<f64, Box<dyn std::error::Error>> {
        writeln!(self.asks, "{case}")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        let ways: std::collections::BTreeMap<String, f64> = serde_json::from_str(&answer)?;
        ways.into_values().reduce(f64::max).ok_or_else(|| "no way".into())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// How often each case is measured against PyTorch, in turns: its rates swing, so that one measurement means little.
const ROUNDS: usize = 9;

/// How many times as fast as PyTorch: smallest, median and largest of the rounds.
fn against(
    peer: &mut Peer,
    case: &str,
    work: &mut dyn FnMut(),
) -> Result<[f64; 3], Box<dyn std::error::Error>> {
    let mut ratios = vec![];
    for _ in 0..ROUNDS {
        let (start, mut n) = (cpu_time::now(), 0);
        while (cpu_time::now() - start).as_secs_f64() < 0.3 {
            work();
            n += 1;
        }
        let ours = f64::from(n) / (cpu_time::now() - start).as_secs_f64();
        ratios.push(ours / peer.rate(case)?);
    }
    ratios.sort_by(f64::total_cmp);
    Ok([ratios[0], ratios[ROUNDS / 2], ratios[ROUNDS - 1]])
}

/// One update of `online` from a batch.
fn updates(mut online: Mlp) -> Box<dyn FnMut()> {
    let (target, samples, mut out) = (online.clone(), samples(online.spec().batch), [0.0; ACTIONS]);
    Box::new(move || {
        for (o, a, r, after) in &samples {
            target.values(after, &mut out);
            let best = out.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            online.update(o, *a, r + 0.95 * best, 1.0);
        }
    })
}

fn choices(online: Mlp) -> Box<dyn FnMut()> {
    let (samples, mut out) = (samples(1), [0.0; ACTIONS]);
    Box::new(move || {
        let o = &samples[0].0;
        online.values(o, &mut out);
        std::hint::black_box(argmax(&o.legal, |a| out[a.index()]));
    })
}

fn main() {
    let mut criterion = criterion();
    let mut group = criterion.benchmark_group("mlp");
    let adam = Optimiser::adam(1e-3);
    let online = net(adam, 1, None);
    let parameters = online.parameters().len();
    let mut works = [
        ("adam-32", updates(net(adam, 32, None))),
        ("adam-1", updates(net(adam, 1, None))),
        ("sgd-1", updates(net(Optimiser::Sgd { rate: 1e-3 }, 1, Some(10.0)))),
        ("choices", choices(online)),
    ];
    for (name, work) in &mut works {
        group.bench_function(*name, |b| b.iter(&mut *work));
    }
    group.finish();

    let (flops, sweep, read) = (sgemm_flops(), sweep_bytes(parameters), read_bytes(parameters));
    println!(
        "  limits: sgemm {:.0} GFLOP/s; {:.1} GB/s sweeping 3 x {:.1} MB of state, {:.1} GB/s reading {:.1} MB",
        flops / 1e9,
        sweep / 1e9,
        parameters as f64 * 4e-6,
        read / 1e9,
        parameters as f64 * 4e-6
    );
    // A pass multiplies and adds each weight once a sample; back through a layer and into its weights is a pass each.
    let pass = 2.0 * parameters as f64 / flops;
    // A sample alone reads every weight in each pass, at the speed of memory; in a batch this is once for all.
    let weights = 4.0 * parameters as f64 / read;
    let adam = 24.0 * parameters as f64 / sweep;
    let cases = [
        ("adam-32", "Adam updates/s at batch 32", 32.0 * 4.0 * pass + adam, 3.0),
        ("adam-1", "Adam updates/s at batch 1", 3.0 * weights + adam, 5.0),
        // Weights are moved (read and written) and measured against their centre.
        (
            "sgd-1",
            "projected gradient updates/s at batch 1",
            3.0 * weights + adam / 3.0 + 2.0 * weights,
            10.0,
        ),
        ("choices", "greedy choices/s", weights, 5.0),
    ];
    let mut peer = Peer::start();
    if let Err(why) = &peer {
        println!("  peer: PyTorch was skipped ({why}); no ratio to it is given");
    }
    for ((name, unit, limit, goal), (_, work)) in cases.into_iter().zip(&mut works) {
        let Some(ns) = median("mlp", name) else { continue };
        let against = match peer.as_mut().map(|peer| against(peer, name, work)) {
            Err(_) => String::new(),
            Ok(Err(why)) => format!("; no ratio to PyTorch: {why}"),
            Ok(Ok([least, ratio, most])) => format!(
                "; {ratio:.1} ({least:.1} to {most:.1}) times PyTorch's best way in {ROUNDS} rounds, goal {goal:.0} ({})",
                met(ratio >= goal)
            ),
        };
        verdict(&format!(
            "{:.0} {unit}; {:.2} of what {} allows if no unit is silent ({:.0}/s){against}",
            1e9 / ns,
            limit * 1e9 / ns,
            if name == "adam-32" {
                "arithmetic and Adam's state"
            } else {
                "reading and writing weights and state"
            },
            1.0 / limit
        ));
    }
    criterion.final_summary();
}
