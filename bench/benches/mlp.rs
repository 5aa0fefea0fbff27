//! The paper's network, 20-512-512-512-16 with a target network, against PyTorch on one thread (peers/torch_mlp.py, where
//! `python3 -c 'import torch'` works) and against the arithmetic and memory traffic that it cannot do without.

use std::process::Command;

use relevo_bench::{
    criterion,
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

/// PyTorch's rates, each of the fastest of its ways; the reason if there are none.
fn peer() -> Result<serde_json::Value, String> {
    let python = |args: &[&str]| Command::new("python3").args(args).output().map_err(|e| e.to_string());
    if !python(&["-c", "import torch"])?.status.success() {
        return Err("python3 has no torch".into());
    }
    let ran = python(&[concat!(env!("CARGO_MANIFEST_DIR"), "/peers/torch_mlp.py")])?;
    serde_json::from_slice(&ran.stdout).map_err(|e| {
        let said = String::from_utf8_lossy(&ran.stderr);
        format!("peers/torch_mlp.py failed: {e}: {}", said.lines().last().unwrap_or_default())
    })
}

fn main() {
    let mut criterion = criterion();
    let mut group = criterion.benchmark_group("mlp");
    let adam = Optimiser::adam(1e-3);
    let cases = [
        ("adam-32", net(adam, 32, None)),
        ("adam-1", net(adam, 1, None)),
        ("sgd-1", net(Optimiser::Sgd { rate: 1e-3 }, 1, Some(10.0))),
    ];
    for (name, mut online) in cases {
        let (target, samples, mut out) = (online.clone(), samples(online.spec().batch), [0.0; ACTIONS]);
        group.bench_function(name, |b| {
            b.iter(|| {
                for (o, a, r, after) in &samples {
                    target.values(after, &mut out);
                    let best = out.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    online.update(o, *a, r + 0.95 * best, 1.0);
                }
            })
        });
    }
    let (online, samples, mut out) = (net(adam, 1, None), samples(1), [0.0; ACTIONS]);
    group.bench_function("choices", |b| {
        b.iter(|| {
            let o = &samples[0].0;
            online.values(o, &mut out);
            argmax(&o.legal, |a| out[a.index()])
        })
    });
    group.finish();

    let parameters = online.parameters().len();
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
    let peer = peer();
    match &peer {
        Ok(rates) => println!("  peer: {rates}"),
        Err(why) => println!("  peer: PyTorch was skipped ({why}); no ratio to it is given"),
    }
    for (name, unit, limit, goal) in cases {
        let Some(ns) = median("mlp", name) else { continue };
        let best = |ways: &serde_json::Value| {
            ways.as_object()
                .into_iter()
                .flatten()
                .filter_map(|(_, rate)| rate.as_f64())
                .fold(None, |best: Option<f64>, r| Some(best.map_or(r, |b| b.max(r))))
        };
        let against = match peer.as_ref().ok().and_then(|p| best(&p[name])) {
            Some(torch) => {
                let ratio = 1e9 / ns / torch;
                format!(
                    "; {ratio:.1} times PyTorch's best way ({torch:.0}/s), goal {goal:.0} ({})",
                    met(ratio >= goal)
                )
            }
            None => String::new(),
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
